//! Assembles the tree of the snapshot bottom-up from the steps of the walk. No threads and no storage are in here: pages,
//! lists and extended attributes go to a [`MetaStore`].
//!
//! A reference to the open metadata pack names it `SELF`. When the pack is stored, [`Assembler::next_pack`] replaces `SELF`
//! everywhere it can be: in the open directories and their copy, in the open list, in the held node and in the links.

use rustix::io::Errno;

use super::directory::{OpenDirectory, meta_packs, path};
use super::gather::{ReadPage, Spread, gather};
use super::links::Links;
use super::lists::{End, OpenList, last_pack};
use super::store::MetaStore;
use super::tally::Tally;
use crate::context::Context;
use crate::crypto::keys::{ChunkKind, Keys};
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{self, Content, Node, PARTIAL, Xattrs};
use crate::format::page::{Page, Row};
use crate::format::reference::{Extent, PackRef, Ref};
use crate::push::read::attributes;
use crate::push::read::item::{Change, Enter, Link};
use crate::trees::{SelfRefs, Which};

/// The tree of the snapshot while its nodes are being added.
pub struct Assembler<'c, S> {
    keys: &'c Keys,
    ctx: &'c Context<'c>,
    /// The destination of pages, lists and extended attributes.
    pub store: S,
    /// The open directories, the root first.
    stack: Vec<OpenDirectory>,
    /// The state to which the assembler returns after a checkpoint.
    set_aside: Option<SetAside>,
    /// The reference list that is being written.
    list: OpenList,
    /// The node that is being added while a page or its attributes are written.
    held: Option<Node>,
    pub links: Links,
    /// The places of the unchanged pages.
    spread: Spread,
    pub tally: Tally,
}

/// The open directories and the figures when a checkpoint began.
struct SetAside {
    stack: Vec<OpenDirectory>,
    tally: Tally,
}

/// The tree of a checkpoint.
pub struct PartialTree {
    /// Its root page; `None` if it is empty.
    pub root: Option<Ref>,
    pub tally: Tally,
}

impl<'c, S: MetaStore> Assembler<'c, S> {
    /// Returns an empty tree.
    pub fn new(keys: &'c Keys, ctx: &'c Context<'c>, store: S) -> Self {
        Assembler {
            keys,
            ctx,
            store,
            stack: vec![OpenDirectory::new(None, true, None)],
            set_aside: None,
            list: OpenList::default(),
            held: None,
            links: Links::default(),
            spread: Spread::default(),
            tally: Tally::default(),
        }
    }

    /// Begins a directory.
    pub fn enter(&mut self, enter: Enter) -> Result<()> {
        let node = self.store_xattrs(enter.node)?;
        self.stack.push(OpenDirectory::new(Some(node), enter.passage, enter.old));
        Ok(())
    }

    /// Notes a page of the directory on top of the stack in an earlier snapshot, and its first name.
    pub fn earlier_page(&mut self, first: Vec<u8>, page: Ref) {
        if let Some(directory) = self.stack.last_mut() {
            directory.pages.push((first, page));
        }
    }

    /// Adds bytes of new content to the directory on top of the stack.
    pub fn grow(&mut self, bytes: u64) -> Result<()> {
        self.top_of_stack()?.grown += bytes;
        Ok(())
    }

    /// Adds a node that is complete: no directory, or one whose pages are stored. `link`: further links to it may follow.
    pub fn node(&mut self, node: Node, change: Change, link: Option<Link>) -> Result<()> {
        let node = self.store_xattrs(node)?;
        if let Content::Directory(top) = &node.content {
            top.iter().for_each(|top| self.spread.add(top));
            let above = self.top_of_stack()?;
            above.directories = above.directories.saturating_add(1);
        }
        if let Some(link) = link {
            self.links.remember(link, &node);
        }
        self.add_counted(node, change)
    }

    /// Adds a file whose content was read. `old`: its node in an earlier snapshot.
    pub fn file(&mut self, node: Node, link: Option<Link>, old: Option<&Node>) -> Result<()> {
        let node = self.store_xattrs(node)?;
        if let Some(link) = link {
            self.links.remember(link, &node);
        }
        let change = Change::compare(old, &node);
        self.add_counted(node, change)
    }

    /// Adds a further link to a file.
    pub fn link(&mut self, mut node: Node, link: Link, old: Option<&Node>) -> Result<()> {
        if !self.links.fill_in(&link, &mut node) {
            node.content = attributes::unreadable(Errno::NOENT);
        }
        if let Content::Unreadable(_) = node.content {
            let why = Error::failed("cannot read the file: another link to it could not be read");
            self.ctx.skip(&path(&self.stack, &node.name), &why);
        }
        self.links.remember(link, &node);
        let change = Change::compare(old, &node);
        self.add_counted(node, change)
    }

    /// Returns the content of a file; writes its reference list if it needs one.
    pub fn content(&mut self, extents: impl ExactSizeIterator<Item = Result<Extent>>) -> Result<Content> {
        if extents.len() <= limits::INLINE_EXTENTS {
            return Ok(Content::File(extents.collect::<Result<_>>()?));
        }
        let mut size = 0;
        for extent in extents {
            let extent = extent?;
            size += extent.len();
            let ended = self.list.push(extent)?;
            self.write_list_pages(ended)?;
        }
        loop {
            match self.list.end()? {
                End::Write(level) => self.write_list_pages(Some(level))?,
                End::Complete(list) => return Ok(Content::Large { size, list }),
            }
        }
    }

    /// Ends the directory on top of the stack.
    pub fn leave(&mut self) -> Result<()> {
        let directory = self.finish_directory()?;
        let top = directory.entries.top();
        let mut node = directory.node.ok_or_else(no_directory)?;
        node.content = Content::Directory(top);
        node.nlink = directory.directories.saturating_add(2);
        if let (true, Some(old)) = (directory.passage, directory.old) {
            // A directory that only leads to sources changes all the time by other entries that are not saved. Its times
            // alone are no reason to write its page again.
            if (Node { mtime: old.mtime, ctime: old.ctime, ..node.clone() }) == old {
                node = old;
            }
        }
        self.tally.directory();
        let rest = self.tally.growth.leave(|| path(&self.stack, &node.name), directory.grown);
        if let Some(parent) = self.stack.last_mut() {
            parent.directories = parent.directories.saturating_add(1);
            parent.grown += rest;
        }
        self.add(node)
    }

    /// Ends the tree. Returns the top page of the root, with everything below it stored. With `read`, pages that lie in
    /// many small packs are written again.
    pub fn finish(&mut self, read: Option<&ReadPage<'_>>) -> Result<Option<Ref>> {
        let mut top = self.finish_directory()?.entries.top();
        if let (Some(root), Some(read)) = (&mut top, read) {
            gather(&mut self.store, read, &self.spread, root)?;
        }
        if let Some(pack) = self.store.finish_pack(false)? {
            self.replace_self(pack);
            top.iter_mut().for_each(|page| page.replace_self(pack));
        }
        Ok(top)
    }

    /// Writes the tree as if it ended here, with `beginning` as the last node. Then the assembler continues where it was.
    pub fn checkpoint<E>(&mut self, beginning: Option<(Node, E)>) -> Result<PartialTree>
    where
        E: ExactSizeIterator<Item = Result<Extent>>,
    {
        self.set_aside = Some(SetAside { stack: self.stack.clone(), tally: self.tally.clone() });
        let root = self.finish_early(beginning);
        let mut tally = self.tally.clone();
        if let Some(before) = self.set_aside.take() {
            self.stack = before.stack;
            tally = std::mem::replace(&mut self.tally, before.tally);
        }
        Ok(PartialTree { root: root?, tally })
    }

    fn finish_early<E>(&mut self, beginning: Option<(Node, E)>) -> Result<Option<Ref>>
    where
        E: ExactSizeIterator<Item = Result<Extent>>,
    {
        if let Some((mut node, extents)) = beginning {
            node.content = self.content(extents)?;
            node.flags |= PARTIAL;
            self.node(node, Change::New, None)?;
        }
        while self.stack.len() > 1 {
            self.leave()?;
        }
        self.finish(None)
    }

    /// Drops the node and the list that were being written when the push ended.
    pub fn abandon_step(&mut self) {
        self.list = OpenList::default();
        self.held = None;
    }

    fn add_counted(&mut self, mut node: Node, change: Change) -> Result<()> {
        if let Err(why) = node.check() {
            self.ctx.skip(&path(&self.stack, &node.name), &why);
            node.content = attributes::unreadable(Errno::INVAL);
            node.xattrs = Xattrs::Inline(Vec::new());
        }
        self.tally.node(&node, change);
        self.add(node)
    }

    fn add(&mut self, mut node: Node) -> Result<()> {
        self.tally.xattrs(&node);
        if self.top_of_stack()?.entries.is_full(&node) {
            self.held = Some(node);
            self.write_pages(Which::Leaf)?;
            node = self.held.take().ok_or_else(no_directory)?;
        }
        let keys = self.keys;
        if self.top_of_stack()?.entries.add(keys, node) { self.write_pages(Which::Leaf) } else { Ok(()) }
    }

    /// Writes all pages of the directory on top of the stack but the top page, and takes the directory off.
    fn finish_directory(&mut self) -> Result<OpenDirectory> {
        while let Some(which) = self.top_of_stack()?.entries.open_page() {
            self.write_pages(which)?;
        }
        self.stack.pop().ok_or_else(no_directory)
    }

    /// Writes a page of the directory on top of the stack, and the pages above it that end with it.
    fn write_pages(&mut self, which: Which) -> Result<()> {
        let mut ended = Some(which);
        while let Some(which) = ended {
            let row = self.write_page(which)?;
            let keys = self.keys;
            ended = self.top_of_stack()?.entries.add_row(keys, which, row);
        }
        Ok(())
    }

    fn write_page(&mut self, which: Which) -> Result<Row> {
        loop {
            let page = self.top_of_stack()?.entries.take(which);
            let row = self.page_row(&page);
            if let Ok(Some(row)) = row {
                return Ok(row);
            }
            self.top_of_stack()?.entries.put_back(which, page);
            row?;
            self.next_pack()?;
        }
    }

    /// Finds the page in earlier packs or adds it to the open one; `None` where that is full.
    fn page_row(&mut self, page: &Page) -> Result<Option<Row>> {
        let found = if meta_packs(page).all(|pack| pack != PackRef::SELF) { self.stored_page(page)? } else { None };
        let page_ref = match found {
            Some(found) => {
                self.spread.add(&found);
                Some(found)
            }
            None => self.store.add(ChunkKind::Page, &page.encode(&PackRef::SELF))?,
        };
        Ok(page_ref.map(|r| Row { first: page.first().to_vec(), count: page.count(), page: r }))
    }

    /// Looks for a page that refers to stored packs only.
    fn stored_page(&self, page: &Page) -> Result<Option<Ref>> {
        let directory = self.stack.last().ok_or_else(no_directory)?;
        for (name, old) in &directory.pages {
            if name == page.first() {
                let plain = page.encode(&old.pack);
                if plain.len() == old.len as usize && self.keys.chunk_id(ChunkKind::Page, &plain) == old.id {
                    return Ok(Some(*old));
                }
            }
        }
        if !directory.pages.is_empty() {
            return Ok(None);
        }
        // A directory that is new at this path may have been renamed.
        let own = meta_packs(page).last();
        self.store.find(ChunkKind::Page, &page.encode(&own.unwrap_or(PackRef::SELF)), own)
    }

    /// Writes the page of a list, and the pages above it that end with it.
    fn write_list_pages(&mut self, mut ended: Option<usize>) -> Result<()> {
        while let Some(level) = ended {
            let page = self.write_list_page(level)?;
            ended = self.list.replace(level, page)?;
        }
        Ok(())
    }

    fn write_list_page(&mut self, level: usize) -> Result<Ref> {
        loop {
            let page = self.list.page(level);
            let own = last_pack(page);
            if own != Some(PackRef::SELF) {
                // An earlier run may have written the same part of the same file.
                let plain = page.encode(&own.unwrap_or(PackRef::SELF));
                if let Some(found) = self.store.find(ChunkKind::List, &plain, own)? {
                    return Ok(found);
                }
            }
            match self.store.add(ChunkKind::List, &page.encode(&PackRef::SELF))? {
                Some(page) => return Ok(page),
                None => self.next_pack()?,
            }
        }
    }

    /// Moves large extended attributes to a chunk of their own.
    fn store_xattrs(&mut self, mut node: Node) -> Result<Node> {
        let Xattrs::Inline(pairs) = &node.xattrs else { return Ok(node) };
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes <= limits::INLINE_XATTRS {
            return Ok(node);
        }
        let plain = node::encode_xattrs(pairs);
        if plain.len() > limits::CHUNK {
            self.ctx.warn("extended attributes of more than 4 MiB were left out");
            node.xattrs = Xattrs::Inline(Vec::new());
            return Ok(node);
        }
        if let Some(found) = self.store.find(ChunkKind::Xattrs, &plain, None)? {
            node.xattrs = Xattrs::Stored(found);
            return Ok(node);
        }
        self.held = Some(node);
        let stored = loop {
            match self.store.add(ChunkKind::Xattrs, &plain)? {
                Some(stored) => break stored,
                None => self.next_pack()?,
            }
        };
        let mut node = self.held.take().ok_or_else(no_directory)?;
        node.xattrs = Xattrs::Stored(stored);
        Ok(node)
    }

    /// Stores the full metadata pack; the next chunk begins another one.
    fn next_pack(&mut self) -> Result<()> {
        let pack = self.store.finish_pack(true)?;
        self.replace_self(pack.ok_or_else(|| Error::failed("a chunk that fits into no pack"))?);
        Ok(())
    }

    fn replace_self(&mut self, pack: PackRef) {
        let copy = self.set_aside.iter_mut().flat_map(|before| &mut before.stack);
        self.stack.iter_mut().chain(copy).for_each(|directory| directory.replace_self(pack));
        self.list.replace_self(pack);
        self.links.replace_self(pack);
        if let Some(node) = &mut self.held {
            node.replace_self(pack);
        }
    }

    fn top_of_stack(&mut self) -> Result<&mut OpenDirectory> {
        self.stack.last_mut().ok_or_else(no_directory)
    }
}

/// Cannot happen: the walk leaves each directory that it enters.
fn no_directory() -> Error {
    Error::failed("the walk has left its root")
}

#[cfg(test)]
#[path = "assembler_tests.rs"]
mod tests;
