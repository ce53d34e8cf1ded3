//! Writes trees anew without some of their nodes. A page without such nodes, and without them below it, stays; the others
//! keep their boundaries. Equal pages at one path are read and written once, also for many trees.

use std::collections::HashMap;

use super::Trees;
use super::branch::Branch;
use super::write::{MetaPack, SelfRefs};
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node};
use crate::format::page::Page;
use crate::format::reference::{PackRef, Ref};

/// Pages that are remembered; beyond that all are forgotten and visited again.
const REMEMBERED: usize = 100_000;

/// Decides about a node by its absolute path; `true` leaves it out, with everything below it.
pub type LeavesOut<'a> = dyn Fn(&[u8], bool) -> bool + Send + Sync + 'a;

/// Nodes that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Others.
    pub others: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

impl Removed {
    fn add(&mut self, other: Removed) {
        self.files += other.files;
        self.directories += other.directories;
        self.others += other.others;
        self.bytes += other.bytes;
    }

    fn node(&mut self, node: &Node) {
        match &node.content {
            Content::File(_) | Content::Large { .. } => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(node.content.size());
            }
            Content::Directory(_) => self.directories += 1,
            _ => self.others += 1,
        }
    }
}

/// A tree without the nodes that were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Without {
    /// The root page. It may name the open pack of the writer.
    pub root: Option<Ref>,
    /// The nodes that were left out; none if the tree is the same.
    pub removed: Removed,
}

impl SelfRefs for Without {
    fn replace_self(&mut self, pack: PackRef) {
        self.root.iter_mut().for_each(|root| root.replace_self(pack));
    }
}

/// The page that takes the place of another one.
#[derive(Clone, Debug)]
enum Fate {
    Same,
    Empty,
    /// A page with this first name and number of entries.
    Changed(Ref, Vec<u8>, u64),
}

/// The replacement of a page, and the nodes that were left out below it.
#[derive(Clone, Debug)]
struct Outcome {
    fate: Fate,
    removed: Removed,
}

impl SelfRefs for Outcome {
    fn replace_self(&mut self, pack: PackRef) {
        if let Fate::Changed(page, ..) = &mut self.fate {
            page.replace_self(pack);
        }
    }
}

/// A page and the path of its directory.
type Place = (Ref, Vec<u8>);

/// Writes trees without some nodes into metadata packs.
pub struct Rewriter<'a, 'r> {
    ctx: &'a Context<'a>,
    trees: &'a Trees<'r>,
    leaves_out: &'a LeavesOut<'a>,
    writer: MetaPack<'r>,
    /// The pages at hand, the root directory's first. They may refer to the open pack of the writer.
    open: Vec<Page>,
    known: HashMap<Place, Outcome>,
    path: Vec<u8>,
    done: Vec<Without>,
}

impl<'a, 'r> Rewriter<'a, 'r> {
    /// Makes a rewriter. `compression` is the level of zstd for new pages.
    pub fn new(
        ctx: &'a Context<'a>,
        trees: &'a Trees<'r>,
        leaves_out: &'a LeavesOut<'a>,
        compression: i32,
    ) -> Result<Self> {
        let writer = MetaPack::new(trees.repo(), compression)?;
        let (open, known, path, done) = Default::default();
        Ok(Rewriter { ctx, trees, leaves_out, writer, open, known, path, done })
    }

    /// Rewrites a tree. Recurses into directories; see [`super::deep`].
    pub fn tree(&mut self, root: Option<Ref>) -> Result<()> {
        self.path.clear();
        let mut without = Without { root, removed: Removed::default() };
        if let Some(root) = root {
            let outcome = self.page(&Branch::top(root), 0)?;
            without.removed = outcome.removed;
            match outcome.fate {
                Fate::Same => {}
                Fate::Empty => without.root = None,
                Fate::Changed(page, ..) => without.root = Some(page),
            }
        }
        self.done.push(without);
        Ok(())
    }

    /// Stores the open pack. Returns the trees in the order of the calls, and the writer with the packs that they need.
    pub fn finish(mut self) -> Result<(Vec<Without>, MetaPack<'r>)> {
        if let Some(pack) = self.writer.finish(self.ctx, false)? {
            self.done.iter_mut().for_each(|tree| tree.replace_self(pack));
        }
        Ok((self.done, self.writer))
    }

    fn page(&mut self, branch: &Branch, depth: usize) -> Result<Outcome> {
        self.ctx.check()?;
        if depth > limits::DEPTH {
            return Err(Error::damaged("the directories are nested too deeply"));
        }
        let place = (branch.page, self.path.clone());
        if let Some(outcome) = self.known.get(&place) {
            return Ok(outcome.clone());
        }
        let (_, page) = self.trees.page(self.ctx, branch)?;
        self.open.push(page);
        let edited = self.entries(branch, depth);
        let page = self.open.pop().ok_or_else(no_page)?;
        let edited = edited?;
        let fate = if edited.is_changed { self.write(filtered(page, &edited.kept))? } else { Fate::Same };
        let outcome = Outcome { fate, removed: edited.removed };
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(place, outcome.clone());
        Ok(outcome)
    }

    /// Goes through the page at hand.
    fn entries(&mut self, branch: &Branch, depth: usize) -> Result<Edited> {
        let at = self.open.len() - 1;
        let mut edited = Edited::default();
        for i in 0.. {
            let keeps = match &self.open[at] {
                Page::Upper(rows) if i < rows.len() => {
                    let child = branch.child(rows, i);
                    let outcome = self.page(&child, depth)?;
                    self.row(at, i, outcome, &mut edited)
                }
                Page::Leaf(nodes) if i < nodes.len() => {
                    let (length, node) = (self.path.len(), nodes[i].clone());
                    self.path.push(b'/');
                    self.path.extend_from_slice(&node.name);
                    let keeps = self.node(node, at, i, depth, &mut edited);
                    self.path.truncate(length);
                    keeps?
                }
                _ => break,
            };
            edited.kept.push(keeps);
            edited.is_changed |= !keeps;
        }
        Ok(edited)
    }

    /// Puts the replacement of a page into its row. Returns whether the row stays.
    fn row(&mut self, at: usize, i: usize, outcome: Outcome, edited: &mut Edited) -> bool {
        edited.removed.add(outcome.removed);
        match (outcome.fate, &mut self.open[at]) {
            (Fate::Empty, _) => return false,
            (Fate::Changed(page, first, count), Page::Upper(rows)) => {
                (rows[i].page, rows[i].first, rows[i].count) = (page, first, count);
                edited.is_changed = true;
            }
            _ => {}
        }
        true
    }

    /// Decides about node `i` of the page `at`. Returns whether it stays.
    fn node(&mut self, node: Node, at: usize, i: usize, depth: usize, edited: &mut Edited) -> Result<bool> {
        let top = match &node.content {
            Content::Directory(top) => Some(*top),
            _ => None,
        };
        if (self.leaves_out)(&self.path, top.is_some()) {
            edited.removed.add(self.measured(&node)?);
            return Ok(false);
        }
        let Some(Some(top)) = top else { return Ok(true) };
        let outcome = self.page(&Branch::top(top), depth + 1)?;
        edited.removed.add(outcome.removed);
        let new = match outcome.fate {
            Fate::Same => return Ok(true),
            Fate::Empty => None,
            Fate::Changed(page, ..) => Some(page),
        };
        if let Page::Leaf(nodes) = &mut self.open[at] {
            nodes[i].content = Content::Directory(new);
            edited.is_changed = true;
        }
        Ok(true)
    }

    /// Counts a node and everything below it, without the parts that cannot be read.
    fn measured(&self, node: &Node) -> Result<Removed> {
        let mut removed = Removed::default();
        let mut open = vec![node.clone()];
        while let Some(node) = open.pop() {
            self.ctx.check()?;
            removed.node(&node);
            let Content::Directory(page) = &node.content else { continue };
            for below in self.trees.entries(self.ctx, page.as_ref()) {
                match below {
                    Ok(node) if matches!(node.content, Content::Directory(_)) => open.push(node),
                    Ok(node) => removed.node(&node),
                    Err(e) if e.kind().is_damage() => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(removed)
    }

    /// Writes a page. Where that stores the open pack, everything at hand learns its name.
    fn write(&mut self, page: Option<Page>) -> Result<Fate> {
        let Some(mut page) = page else { return Ok(Fate::Empty) };
        loop {
            let plain = page.encode(&PackRef::SELF);
            if plain.len() > limits::PAGE {
                return Err(Error::failed("a page of a directory would grow beyond what a page may hold"));
            }
            if let Some(written) = self.writer.add(ChunkKind::Page, &plain)? {
                return Ok(Fate::Changed(written, page.first().to_vec(), page.count()));
            }
            let pack = self.writer.finish(self.ctx, true)?;
            let pack = pack.ok_or_else(|| Error::failed("a chunk that fits into no pack"))?;
            self.open.iter_mut().chain([&mut page]).for_each(|page| page.replace_self(pack));
            self.known.values_mut().for_each(|outcome| outcome.replace_self(pack));
            self.done.iter_mut().for_each(|tree| tree.replace_self(pack));
        }
    }
}

/// The changes of the entries of a page.
#[derive(Default)]
struct Edited {
    /// For each entry whether it stays.
    kept: Vec<bool>,
    is_changed: bool,
    removed: Removed,
}

/// Returns a page with the entries that stay; `None` if there are none.
fn filtered(mut page: Page, kept: &[bool]) -> Option<Page> {
    let mut stays = kept.iter().copied();
    let mut next = || stays.next().unwrap_or(true);
    let left = match &mut page {
        Page::Leaf(nodes) => {
            nodes.retain(|_| next());
            nodes.len()
        }
        Page::Upper(rows) => {
            rows.retain(|_| next());
            rows.len()
        }
    };
    (left > 0).then_some(page)
}

/// Cannot happen: a page is at hand while its entries are.
fn no_page() -> Error {
    Error::failed("the rewriter has left its page")
}
