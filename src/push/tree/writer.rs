//! Puts the tree together from the steps of the walk. A node waits here until the packs that hold its contents are
//! acknowledged, so a directory is never written before what it names.

use std::collections::HashMap;

use super::checkpoint::Schedule;
use super::folder::{Folder, Which, meta_packs, row_of};
use super::growth::Growth;
use super::ledger::Ledger;
use super::metapack::MetaPack;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::list::List;
use crate::format::page::{Page, Row};
use crate::format::record::Stats;
use crate::format::reference::{Extent, PackRef, Ref};
use crate::format::tree::{self, Content, Node, Xattrs};
use crate::push::control::Control;
use crate::push::pack::chunks::Place;
use crate::push::pack::data_packs::Data;
use crate::push::pack::piece::Piece;
use crate::push::pack::queue::{Line, Turn};
use crate::push::read::attributes;
use crate::push::read::item::{Batch, Item, Link, Was};
use crate::push::read::partial::{Large, Started};
use crate::repo::{Index, Repository};

pub struct Tree<'c> {
    repo: &'c Repository,
    pub control: &'c Control<'c>,
    pub line: &'c Line<'c, Batch>,
    pub data: &'c Data<'c>,
    pub index: &'c Index<'c>,
    pub large: &'c Large,
    pub meta: MetaPack<'c>,
    pub ledger: Ledger<'c>,
    pub schedule: Schedule,
    /// The open directories, the root first.
    pub stack: Vec<Folder>,
    /// The same, while a checkpoint closes those in `stack`.
    pub aside: Vec<Folder>,
    /// The file whose packs are being waited for.
    pub waiting: Option<Started>,
    /// No batch is at hand: the next step is the first one of the next batch.
    pub between: bool,
    /// The reference list that is being written, lowest level first.
    pub list: Vec<List>,
    pub links: HashMap<Link, Linked>,
    /// The node at hand while something else is written: it too may refer to the open metadata pack.
    pub hand: Option<Node>,
    pub stats: Stats,
    pub unchanged: u64,
    pub renamed: u64,
    pub growth: Growth,
}

/// A file with links that are still to come.
pub struct Linked {
    pub content: Content,
    pub xattrs: Xattrs,
    flags: u8,
    left: u32,
}

impl<'c> Tree<'c> {
    pub fn new(
        control: &'c Control<'c>,
        line: &'c Line<'c, Batch>,
        data: &'c Data<'c>,
        (index, large): (&'c Index<'c>, &'c Large),
        meta: MetaPack<'c>,
        ledger: Ledger<'c>,
        schedule: Schedule,
    ) -> Self {
        let stack = vec![Folder::new(None, true, None)];
        let (repo, aside, waiting, between) = (ledger.repo, Vec::new(), None, true);
        let (list, links, hand, stats, unchanged, renamed, growth) = Default::default();
        Tree {
            repo,
            control,
            line,
            data,
            index,
            large,
            meta,
            ledger,
            schedule,
            stack,
            aside,
            waiting,
            between,
            list,
            links,
            hand,
            stats,
            unchanged,
            renamed,
            growth,
        }
    }

    /// Takes all steps; gives the top page of the root.
    pub fn run(&mut self) -> Result<Option<Ref>> {
        self.batches()?;
        self.top()
    }

    pub fn batches(&mut self) -> Result<()> {
        loop {
            self.between = true;
            match self.line.next()? {
                Turn::Ready(batch) => {
                    self.between = false;
                    let nodes = batch.items.len();
                    for item in batch.items {
                        self.step(item)?;
                        self.count_step()?;
                    }
                    self.line.leave(nodes);
                }
                Turn::Wait => self.checkpoint_if_due()?,
                Turn::End => return Ok(()),
            }
        }
    }

    fn step(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Enter(enter) => {
                let node = self.store_xattrs(enter.node)?;
                self.stack.push(Folder::new(Some(node), enter.passage, enter.old));
                Ok(())
            }
            Item::Page(first, page) => {
                if let Some(folder) = self.stack.last_mut() {
                    folder.pages.push((first, page));
                }
                Ok(())
            }
            Item::Node { node, was, link } => {
                let node = self.store_xattrs(node)?;
                self.remember(link, &node);
                self.add_file(node, was)
            }
            Item::File(job) if job.gone => Ok(()),
            Item::File(job) => self.file(job.node, job.pieces, job.link, job.old),
            Item::Stream(job) => self.file(job.node, job.pieces, None, job.old),
            Item::Link { mut node, link, old } => {
                match self.links.get(&link) {
                    Some(first) => {
                        (node.content, node.xattrs) = (first.content.clone(), first.xattrs.clone());
                        node.flags = first.flags;
                    }
                    None => node.content = attributes::unreadable(rustix::io::Errno::NOENT),
                }
                if let Content::Unreadable(_) = node.content {
                    let why = Error::failed("cannot read the file: another link to it could not be read");
                    self.control.skip(&path(&self.stack, &node.name), &why);
                }
                self.remember(Some(link), &node);
                let was = Was::compare(old.as_deref(), &node);
                self.add_file(node, was)
            }
            Item::Leave => self.leave(),
        }
    }

    fn file(&mut self, mut node: Node, pieces: Vec<Piece>, link: Option<Link>, old: Option<Box<Node>>) -> Result<()> {
        if !matches!(node.content, Content::Unreadable(_)) {
            let started = self.settle_pieces(node, pieces)?;
            node = started.node;
            node.content = self.content(&started.pieces)?;
            self.stack.last_mut().ok_or_else(no_folder)?.grown += started.new;
        }
        let node = self.store_xattrs(node)?;
        self.remember(link, &node);
        let was = Was::compare(old.as_deref(), &node);
        self.add_file(node, was)
    }

    fn remember(&mut self, link: Option<Link>, node: &Node) {
        let Some(link) = link else { return };
        let left = self.links.remove(&link).map_or(node.nlink, |linked| linked.left).saturating_sub(1);
        if left > 0 {
            let (content, xattrs, flags) = (node.content.clone(), node.xattrs.clone(), node.flags);
            self.links.insert(link, Linked { content, xattrs, flags, left });
        }
    }

    /// The contents of a file whose pieces are settled.
    pub fn content(&mut self, pieces: &[Piece]) -> Result<Content> {
        if pieces.len() <= limits::INLINE_EXTENTS {
            return Ok(Content::File(pieces.iter().map(|piece| self.extent(piece)).collect::<Result<_>>()?));
        }
        let mut size = 0;
        for piece in pieces {
            let extent = self.extent(piece)?;
            size += extent.len();
            self.add_extent(extent)?;
        }
        Ok(Content::Large { size, list: self.finish_list()? })
    }

    fn extent(&self, piece: &Piece) -> Result<Extent> {
        let pack = |place: &Place| self.data.packs.get(place.pack);
        match piece {
            Piece::Hole(len) => Ok(Extent::Hole(*len)),
            Piece::Known(id, place) => match pack(place) {
                Some(pack) => Ok(Extent::Data(place.reference(*id, pack))),
                None => Err(Error::failed("a known pack without a name")),
            },
            Piece::New(_) | Piece::Awaited => Err(Error::failed("a piece of a file without a place")),
        }
    }

    pub fn add_file(&mut self, mut node: Node, was: Was) -> Result<()> {
        if let Err(why) = node.check() {
            self.control.skip(&path(&self.stack, &node.name), &why);
            node.content = attributes::unreadable(rustix::io::Errno::INVAL);
            node.xattrs = Xattrs::Inline(Vec::new());
        }
        match &node.content {
            Content::File(_) | Content::Large { .. } => {
                self.stats.files += 1;
                self.stats.bytes += node.content.size();
                match was {
                    Was::New => self.stats.new += 1,
                    Was::Changed => self.stats.changed += 1,
                    Was::Unchanged => self.unchanged += 1,
                    Was::Renamed => self.renamed += 1,
                }
            }
            Content::Unreadable(_) => self.stats.unreadable += 1,
            _ => self.stats.others += 1,
        }
        self.add(node)
    }

    fn add(&mut self, mut node: Node) -> Result<()> {
        self.stats.xattrs += u64::from(node.xattrs != Xattrs::Inline(Vec::new()));
        if self.stack.last().is_some_and(|folder| folder.is_full(&node)) {
            self.hand = Some(node);
            self.close(Which::Leaf)?;
            node = self.hand.take().ok_or_else(no_folder)?;
        }
        let keys = self.repo.keys();
        if self.stack.last_mut().is_some_and(|folder| folder.add(keys, node)) {
            self.close(Which::Leaf)
        } else {
            Ok(())
        }
    }

    /// The directory on top of the stack is complete.
    pub fn leave(&mut self) -> Result<()> {
        let folder = self.end_folder()?;
        let top = folder.top();
        let mut node = folder.node.ok_or_else(no_folder)?;
        node.content = Content::Directory(top);
        node.nlink = folder.directories.saturating_add(2);
        if let (true, Some(old)) = (folder.passage, folder.old) {
            // A folder that only leads to sources changes all the time by what else is in it; its times alone are no
            // reason to write its page anew.
            if (Node { mtime: old.mtime, ctime: old.ctime, ..node.clone() }) == old {
                node = old;
            }
        }
        self.stats.directories += 1;
        let rest = self.growth.leave(|| path(&self.stack, &node.name), folder.grown);
        if let Some(parent) = self.stack.last_mut() {
            parent.directories = parent.directories.saturating_add(1);
            parent.grown += rest;
        }
        self.add(node)
    }

    /// Closes all pages of the directory on top of the stack but the top one, and takes it off.
    pub fn end_folder(&mut self) -> Result<Folder> {
        while let Some(which) = self.stack.last().and_then(Folder::open_page) {
            self.close(which)?;
        }
        self.stack.pop().ok_or_else(no_folder)
    }

    /// Writes a page of the directory on top of the stack, and those above it that end with it.
    fn close(&mut self, which: Which) -> Result<()> {
        let mut ends = Some(which);
        while let Some(which) = ends {
            let row = self.write_page(which)?;
            let keys = self.repo.keys();
            ends = self.stack.last_mut().and_then(|folder| folder.add_row(keys, which, row));
        }
        Ok(())
    }

    fn write_page(&mut self, which: Which) -> Result<Row> {
        loop {
            let page = self.stack.last_mut().ok_or_else(no_folder)?.take(which);
            let row = self.page_row(&page);
            if let Ok(Some(row)) = row {
                return Ok(row);
            }
            self.stack.last_mut().ok_or_else(no_folder)?.put_back(which, page);
            row?;
            self.turn()?;
        }
    }

    /// Finds the page in earlier packs or adds it to the open one; `None` where that is full.
    fn page_row(&mut self, page: &Page) -> Result<Option<Row>> {
        let folder = self.stack.last().ok_or_else(no_folder)?;
        let (first, count) = row_of(page);
        let own = meta_packs(page).last();
        if meta_packs(page).all(|pack| pack != PackRef::SELF) {
            for (_, old) in folder.pages.iter().filter(|(name, _)| *name == first) {
                let plain = page.encode(&old.pack);
                if plain.len() == old.len as usize && self.repo.keys().chunk_id(ChunkKind::Page, &plain) == old.id {
                    return Ok(Some(Row { first, count, page: *old }));
                }
            }
            // A directory that was not here before was perhaps moved here.
            let plain = page.encode(&own.unwrap_or(PackRef::SELF));
            if let (true, Some(old)) = (folder.pages.is_empty(), self.meta.earlier(ChunkKind::Page, &plain, own)?) {
                return Ok(Some(Row { first, count, page: old }));
            }
        }
        let page = self.meta.add(ChunkKind::Page, &page.encode(&PackRef::SELF))?;
        Ok(page.map(|page| Row { first, count, page }))
    }

    /// Stores the full metadata pack and begins the next one.
    pub fn turn(&mut self) -> Result<()> {
        let Some(pack) = self.meta.close(true)? else { return Err(Error::failed("a chunk that fits into no pack")) };
        self.settle(pack);
        Ok(())
    }

    /// Large extended attributes go to a chunk of their own.
    pub fn store_xattrs(&mut self, mut node: Node) -> Result<Node> {
        let Xattrs::Inline(pairs) = &node.xattrs else { return Ok(node) };
        let bytes = pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if bytes <= limits::INLINE_XATTRS {
            return Ok(node);
        }
        let plain = tree::encode_xattrs(pairs);
        let (kind, most) = (ChunkKind::Xattrs, limits::CHUNK);
        if plain.len() > most {
            self.control.warn("extended attributes of more than 4 MiB were left out");
            node.xattrs = Xattrs::Inline(Vec::new());
            return Ok(node);
        }
        if let Some(old) = self.meta.earlier(kind, &plain, None)? {
            node.xattrs = Xattrs::Stored(old);
            return Ok(node);
        }
        self.hand = Some(node);
        let stored = loop {
            match self.meta.add(kind, &plain)? {
                Some(stored) => break stored,
                None => self.turn()?,
            }
        };
        let mut node = self.hand.take().ok_or_else(no_folder)?;
        node.xattrs = Xattrs::Stored(stored);
        Ok(node)
    }
}

/// The path of an entry of the directory on top of the stack.
fn path(stack: &[Folder], name: &[u8]) -> Vec<u8> {
    let folders = stack.iter().filter_map(|folder| folder.node.as_ref()).map(|node| node.name.as_slice());
    folders.chain([name]).flat_map(|name| [b"/", name].concat()).collect()
}

/// Cannot happen: the walker leaves each directory that it enters.
fn no_folder() -> Error {
    Error::failed("the walk has left its root")
}
