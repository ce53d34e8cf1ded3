//! A directory that is being put together: nodes become pages, pages become rows of upper pages.

use crate::crypto::keys::Keys;
use crate::format::limits;
use crate::format::node::{Content, Node, Xattrs};
use crate::format::page::{Page, Row, page_ends};
use crate::format::reference::{PackRef, Ref};

/// What a page needs beside its entries: lengths, and numbers that grow with the page.
const SLACK: usize = 4 << 10;

/// A directory whose nodes are being added.
#[derive(Clone)]
pub struct OpenDirectory {
    /// The directory itself; `None` for the root.
    pub node: Option<Node>,
    /// It only leads to sources.
    pub passage: bool,
    /// The same directory in the snapshot before.
    pub old: Option<Node>,
    /// Pages of it in earlier snapshots, by their first name.
    pub pages: Vec<(Vec<u8>, Ref)>,
    pub directories: u32,
    /// Bytes of new contents in and below it, see [`super::growth`].
    pub grown: u64,
    leaf: Vec<Node>,
    weight: usize,
    upper: Vec<Level>,
}

#[derive(Clone, Default)]
struct Level {
    rows: Vec<Row>,
    weight: usize,
}

/// Which page of the directory is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Leaf,
    Upper(usize),
}

impl OpenDirectory {
    pub fn new(node: Option<Node>, passage: bool, old: Option<Node>) -> Self {
        let (pages, leaf, upper) = Default::default();
        OpenDirectory { node, passage, old, pages, directories: 0, grown: 0, leaf, weight: 0, upper }
    }

    /// Whether the open leaf must be closed before this node, for want of room.
    pub fn is_full(&self, node: &Node) -> bool {
        !self.leaf.is_empty() && self.weight + node.weight() > limits::PAGE - SLACK
    }

    /// Adds a node; gives whether its page ends here.
    pub fn add(&mut self, keys: &Keys, node: Node) -> bool {
        self.weight += node.weight();
        self.leaf.push(node);
        self.leaf.last().is_some_and(|node| page_ends(keys, self.leaf.len(), &node.name))
    }

    /// The page as it is now, taken out; to be put back or replaced by its row.
    pub fn take(&mut self, which: Which) -> Page {
        match which {
            Which::Leaf => {
                self.weight = 0;
                Page::Leaf(std::mem::take(&mut self.leaf))
            }
            Which::Upper(level) => {
                self.upper[level].weight = 0;
                Page::Upper(std::mem::take(&mut self.upper[level].rows))
            }
        }
    }

    /// Puts a page back that could not be written yet.
    pub fn put_back(&mut self, which: Which, page: Page) {
        match (which, page) {
            (Which::Leaf, Page::Leaf(nodes)) => self.leaf = nodes,
            (Which::Upper(level), Page::Upper(rows)) => self.upper[level].rows = rows,
            _ => {}
        }
    }

    /// Enters a written page into the level above it; gives that level if its page ends here.
    pub fn add_row(&mut self, keys: &Keys, which: Which, row: Row) -> Option<Which> {
        let level = match which {
            Which::Leaf => 0,
            Which::Upper(level) => level + 1,
        };
        if self.upper.len() <= level {
            self.upper.resize_with(level + 1, Level::default);
        }
        let Level { rows, weight } = &mut self.upper[level];
        *weight += row.first.len() + ROW;
        let ends = page_ends(keys, rows.len() + 1, &row.first) || *weight > limits::PAGE - SLACK - limits::NAME - ROW;
        rows.push(row);
        ends.then_some(Which::Upper(level))
    }

    /// The lowest page that is still open at the end of the directory; `None` when only the top is left.
    pub fn open_page(&self) -> Option<Which> {
        if !self.leaf.is_empty() {
            return Some(Which::Leaf);
        }
        let level = self.upper.iter().position(|level| !level.rows.is_empty())?;
        let top = self.upper[level].rows.len() == 1 && self.upper[level + 1..].iter().all(|l| l.rows.is_empty());
        (!top).then_some(Which::Upper(level))
    }

    /// The top page, when no page is open; `None` if the directory is empty.
    pub fn top(&self) -> Option<Ref> {
        self.upper.iter().flat_map(|level| &level.rows).next().map(|row| row.page)
    }

    /// Replaces `SELF`: the open metadata pack was stored as `pack`.
    pub fn replace_self(&mut self, pack: PackRef) {
        for node in self.leaf.iter_mut().chain(&mut self.node) {
            replace_self_in_node(&mut node.content, &mut node.xattrs, pack);
        }
        for row in self.upper.iter_mut().flat_map(|level| &mut level.rows) {
            replace_self(&mut row.page, pack);
        }
    }
}

/// Most bytes of a row beside its name.
const ROW: usize = 100;

/// Replaces `SELF` in a reference.
pub fn replace_self(r: &mut Ref, pack: PackRef) {
    if r.pack == PackRef::SELF {
        r.pack = pack;
    }
}

/// Replaces `SELF` in the references of a node.
pub fn replace_self_in_node(content: &mut Content, xattrs: &mut Xattrs, pack: PackRef) {
    if let Content::Large { list: r, .. } | Content::Directory(Some(r)) = content {
        replace_self(r, pack);
    }
    if let Xattrs::Stored(r) = xattrs {
        replace_self(r, pack);
    }
}

/// The metadata packs that a page refers to.
pub fn meta_packs(page: &Page) -> Box<dyn Iterator<Item = PackRef> + '_> {
    match page {
        Page::Upper(rows) => Box::new(rows.iter().map(|row| row.page.pack)),
        Page::Leaf(nodes) => Box::new(nodes.iter().flat_map(|node| {
            let content = match &node.content {
                Content::Large { list: r, .. } | Content::Directory(Some(r)) => Some(r.pack),
                _ => None,
            };
            let xattrs = match &node.xattrs {
                Xattrs::Stored(r) => Some(r.pack),
                Xattrs::Inline(_) => None,
            };
            content.into_iter().chain(xattrs)
        })),
    }
}
