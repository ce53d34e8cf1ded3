//! The nodes of one directory in order of their names.

use std::iter::Peekable;
use std::vec;

use super::Trees;
use super::branch::Branch;
use crate::context::Context;
use crate::crypto::keys::ChunkId;
use crate::error::Result;
use crate::format::node::Node;
use crate::format::page::Page;
use crate::format::reference::Ref;

/// The nodes of one directory; each page is fetched when the walk comes to it. Names ascend strictly over all pages, since
/// [`Branch::check`] refuses every page that would break this.
pub struct Entries<'t> {
    ctx: &'t Context<'t>,
    trees: &'t Trees<'t>,
    /// Pages that are still to be read, the next one last.
    open: Vec<Branch>,
    nodes: Peekable<vec::IntoIter<Node>>,
    /// Pages that were read, with their first names; kept only where a caller asks for them.
    read: Option<Vec<(Vec<u8>, Ref)>>,
}

/// The next thing in a directory.
pub(super) enum Front<'e> {
    /// A node.
    Node(&'e [u8]),
    /// A page that was not read yet; its first name and its entries, if a row names it.
    Page(ChunkId, Option<(&'e [u8], u64)>),
}

impl<'t> Entries<'t> {
    pub(super) fn new(ctx: &'t Context<'t>, trees: &'t Trees<'t>, top: Option<Ref>) -> Self {
        let open = top.map(Branch::top).into_iter().collect();
        Entries { ctx, trees, open, nodes: Vec::new().into_iter().peekable(), read: None }
    }

    /// Keeps the places of pages as they are read, for [`Entries::take_pages`].
    #[must_use]
    pub fn keeping_pages(self) -> Self {
        Entries { read: Some(Vec::new()), ..self }
    }

    /// Returns the pages that were read since the last call, each with its first name.
    pub fn take_pages(&mut self) -> Vec<(Vec<u8>, Ref)> {
        self.read.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Returns the entry of this name. Names must be asked for in ascending order; pages that hold only names before it are
    /// not read.
    pub fn seek(&mut self, name: &[u8]) -> Result<Option<Node>> {
        loop {
            while self.nodes.next_if(|node| node.name.as_slice() < name).is_some() {}
            if let Some(node) = self.nodes.peek() {
                return Ok(if node.name == name { self.nodes.next() } else { None });
            }
            while self.open.last().is_some_and(|page| page.is_before(name)) {
                self.open.pop();
            }
            let Some(page) = self.open.last() else { return Ok(None) };
            if page.first().is_some_and(|first| first > name) {
                return Ok(None);
            }
            self.open_page()?;
        }
    }

    /// Drops all entries that are left.
    pub fn clear(&mut self) {
        self.open.clear();
        self.nodes = Vec::new().into_iter().peekable();
    }

    /// Returns the next node or page, without reading anything.
    pub(super) fn front(&mut self) -> Option<Front<'_>> {
        if let Some(node) = self.nodes.peek() {
            return Some(Front::Node(&node.name));
        }
        self.open.last().map(|page| Front::Page(page.page.id, page.first().zip(page.count())))
    }

    /// Returns the next node, if its page was read.
    pub(super) fn next_node(&mut self) -> Option<Node> {
        self.nodes.next()
    }

    /// Leaves out the next page, which was not read.
    pub(super) fn skip_page(&mut self) {
        self.open.pop();
    }

    /// Reads the next page. A page that cannot be read is left out.
    pub(super) fn open_page(&mut self) -> Result<()> {
        let Some(branch) = self.open.pop() else { return Ok(()) };
        let (place, page) = self.trees.page(self.ctx, &branch)?;
        if let Some(read) = &mut self.read {
            read.push((page.first().to_vec(), place));
        }
        match page {
            Page::Leaf(nodes) => self.nodes = nodes.into_iter().peekable(),
            Page::Upper(rows) => self.open.extend(branch.children(&rows).rev()),
        }
        Ok(())
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Node>;

    /// Returns the next node. After an error the walk continues with the next page.
    fn next(&mut self) -> Option<Result<Node>> {
        loop {
            if let Some(node) = self.nodes.next() {
                return Some(Ok(node));
            }
            self.open.last()?;
            if let Err(e) = self.open_page() {
                return Some(Err(e));
            }
        }
    }
}
