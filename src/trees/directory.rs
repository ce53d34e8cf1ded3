//! A directory that is being written: nodes become pages, pages become rows of upper pages.

use super::write::SelfRefs;
use crate::crypto::keys::Keys;
use crate::format::limits;
use crate::format::node::Node;
use crate::format::page::{Page, Row, page_ends};
use crate::format::reference::{PackRef, Ref};

/// Bytes that a page needs beside its entries: lengths, and numbers that grow with the page.
const SLACK: usize = 4 << 10;
/// Most bytes of a row beside its name.
const ROW: usize = 100;

/// The open pages of a directory, one on each level.
#[derive(Clone, Default)]
pub struct Directory {
    leaf: Vec<Node>,
    weight: usize,
    upper: Vec<Level>,
}

#[derive(Clone, Default)]
struct Level {
    rows: Vec<Row>,
    weight: usize,
}

/// One of the open pages of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The leaf.
    Leaf,
    /// The upper page of this level, counted from 0 above the leaf.
    Upper(usize),
}

impl Directory {
    /// Returns whether the open leaf must be written before this node is added, for want of room.
    pub fn is_full(&self, node: &Node) -> bool {
        !self.leaf.is_empty() && self.weight + node.weight() > limits::PAGE - SLACK
    }

    /// Adds a node. Returns whether its page ends here.
    pub fn add(&mut self, keys: &Keys, node: Node) -> bool {
        self.weight += node.weight();
        self.leaf.push(node);
        self.leaf.last().is_some_and(|node| page_ends(keys, self.leaf.len(), &node.name))
    }

    /// Takes an open page out; it is put back, or its row is added once it is written.
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

    /// Adds the row of a written page to the level above it. Returns that level's page if it ends here.
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

    /// Returns the lowest page that is still open at the end of the directory; `None` when only the top is left.
    pub fn open_page(&self) -> Option<Which> {
        if !self.leaf.is_empty() {
            return Some(Which::Leaf);
        }
        let level = self.upper.iter().position(|level| !level.rows.is_empty())?;
        let top = self.upper[level].rows.len() == 1 && self.upper[level + 1..].iter().all(|l| l.rows.is_empty());
        (!top).then_some(Which::Upper(level))
    }

    /// Returns the top page, when no page is open; `None` if the directory is empty.
    pub fn top(&self) -> Option<Ref> {
        self.upper.iter().flat_map(|level| &level.rows).next().map(|row| row.page)
    }
}

impl SelfRefs for Directory {
    fn replace_self(&mut self, pack: PackRef) {
        self.leaf.iter_mut().for_each(|node| node.replace_self(pack));
        self.upper.iter_mut().flat_map(|level| &mut level.rows).for_each(|row| row.page.replace_self(pack));
    }
}
