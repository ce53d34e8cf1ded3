//! Walks the tree of a snapshot of another repository, in step with its copies here.
//!
//! A directory that is the same in a copied snapshot is taken over as a whole, a file with its contents. The extents of the
//! other files go to the workers in parts, so several workers read a large file, and its chunks are fetched ahead.

use crossbeam_channel::Sender;

use super::batcher::Batcher;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::node::{Content, Node, PARTIAL, Xattrs};
use crate::format::reference::{Extent, Ref};
use crate::progress::Event;
use crate::push::compare::copies::Copied;
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::compare::parents::Parents;
use crate::push::pack::chunks::Place;
use crate::push::pack::data_packs::DataPacks;
use crate::push::pack::piece::Piece;
use crate::push::read::item::{Change, Enter, Item, SavedPart};
use crate::push::read::reader::DISPLAYED;
use crate::push::read::saved::Reading;
use crate::trees::{Entries, Trees, check_size, lacks_parts};

/// Plaintext of a part of a file.
const PART: u64 = 4 << 20;
/// Extents of a part. The extents of a sparse file may be short.
const EXTENTS: usize = 256;

/// The inputs of a walk. There is one destination.
pub struct SavedWalk<'w> {
    pub reading: Reading<'w>,
    pub ctx: &'w Context<'w>,
    /// The pairs of snapshots with which this one is compared; the copies are `parents`.
    pub copies: &'w [Copied],
    pub parents: &'w Parents,
    /// The trees of the copies.
    pub trees: &'w Trees<'w>,
    pub data: &'w DataPacks<'w>,
    /// The receiver of chunks that are worth fetching early.
    pub early: Sender<Ref>,
}

struct Walker<'w> {
    walk: SavedWalk<'w>,
    batcher: Batcher<'w>,
    levels: Vec<Level<'w>>,
    path: Vec<u8>,
}

/// An open directory.
struct Level<'w> {
    nodes: Entries<'w>,
    /// The same directory in the copies.
    copies: Vec<OldDirectory<'w>>,
    /// The same directory in the originals of these copies.
    originals: Vec<Original<'w>>,
    /// Length of the path of the directory above.
    above: usize,
}

struct Original<'w> {
    /// `None`: this directory itself, of which the copy has only a part.
    nodes: Option<Entries<'w>>,
    is_intact: bool,
}

/// A node of a copy, and the same node of its original.
struct Pair {
    original: Node,
    copy: OldNode,
    is_unfinished: bool,
    is_intact: bool,
}

impl<'w> SavedWalk<'w> {
    /// Walks the tree and closes the queue.
    pub fn run(self, batcher: Batcher<'w>) -> Result<()> {
        let (saved, ctx) = (self.reading.saved, self.ctx);
        let original = |copied: &Copied| Original {
            nodes: copied.original.as_ref().map(|original| saved.trees.entries(ctx, original.root.as_ref())),
            is_intact: copied.is_intact,
        };
        let root = Level {
            nodes: saved.trees.entries(ctx, saved.snapshot.root.as_ref()),
            copies: self.parents.roots(ctx, self.trees),
            originals: self.copies.iter().map(original).collect(),
            above: 0,
        };
        Walker { walk: self, batcher, levels: vec![root], path: Vec::new() }.run()
    }
}

impl<'w> Walker<'w> {
    fn run(mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            match level.nodes.next() {
                Some(Ok(node)) => self.node(node)?,
                Some(Err(e)) => return Err(self.unreadable(e)),
                None => {
                    self.path.truncate(level.above);
                    self.levels.pop();
                    if !self.levels.is_empty() {
                        self.batcher.leave();
                    }
                }
            }
            self.batcher.send_if_full()?;
        }
        self.batcher.close()
    }

    /// Names the present path as damaged.
    fn unreadable(&self, e: Error) -> Error {
        let path = if self.path.is_empty() { b"/" } else { self.path.as_slice() };
        self.walk.reading.saved.unreadable(e, path)
    }

    fn node(&mut self, mut node: Node) -> Result<()> {
        let pairs = self.pairs(&node)?;
        let above = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(&node.name);
        node.xattrs = self.xattrs(&node, &pairs)?;
        match &node.content {
            Content::Directory(top) => {
                let top = *top;
                return self.directory(node, top, pairs, above);
            }
            Content::File(extents) if extents.iter().all(|extent| matches!(extent, Extent::Hole(_))) => {
                self.batcher.met(node.content.size());
                self.batcher.done(node.content.size());
                self.known(node, &pairs);
            }
            Content::File(_) | Content::Large { .. } => self.file(node, &pairs)?,
            _ => self.known(node, &pairs),
        }
        self.path.truncate(above);
        Ok(())
    }

    /// Returns the node of this name in each copy, with the one in its original; `None` where one of them is missing.
    fn pairs(&mut self, node: &Node) -> Result<Vec<Option<Pair>>> {
        let Some(level) = self.levels.last_mut() else { return Ok(Vec::new()) };
        let found = self.batcher.seek(&mut level.copies, &node.name)?;
        let mut pairs = Vec::with_capacity(found.len());
        for (original, copy) in level.originals.iter_mut().zip(found) {
            let (is_unfinished, is_intact) = (original.nodes.is_none(), original.is_intact);
            let original = match &mut original.nodes {
                None => Some(node.clone()),
                Some(entries) => match entries.seek(&node.name) {
                    Err(e) if e.kind().is_damage() => {
                        entries.clear();
                        None
                    }
                    found => found?,
                },
            };
            let pair = original.zip(copy);
            pairs.push(pair.map(|(original, copy)| Pair { original, copy, is_unfinished, is_intact }));
        }
        Ok(pairs)
    }

    /// Returns the extended attributes of a node, in the node or as the copy has them.
    fn xattrs(&self, node: &Node, pairs: &[Option<Pair>]) -> Result<Xattrs> {
        let Xattrs::Stored(stored) = &node.xattrs else { return Ok(node.xattrs.clone()) };
        let is_same = |pair: &&Pair| matches!(&pair.original.xattrs, Xattrs::Stored(r) if r.id == stored.id);
        let SavedWalk { reading: Reading { saved, .. }, ctx, parents, .. } = &self.walk;
        match pairs.iter().flatten().filter(is_same).find(|pair| parents.xattrs_last(&pair.copy.node)) {
            Some(pair) => Ok(pair.copy.node.xattrs.clone()),
            None => saved.trees.xattrs(ctx, node).map(Xattrs::Inline).map_err(|e| self.unreadable(e)),
        }
    }

    fn directory(&mut self, mut node: Node, top: Option<Ref>, pairs: Vec<Option<Pair>>, above: usize) -> Result<()> {
        let same = pairs.iter().flatten().find_map(|pair| same_directory(pair, top.as_ref()));
        if let Some(copy) = same {
            node.content = Content::Directory(Some(copy));
            self.known(node, &pairs);
            self.path.truncate(above);
            return Ok(());
        }
        let SavedWalk { reading: Reading { saved, .. }, ctx, .. } = &self.walk;
        let (mut copies, mut originals) = (Vec::new(), Vec::new());
        let directories = self.levels.last().map_or(&[][..], |level| &level.copies);
        for (directory, pair) in directories.iter().zip(&pairs) {
            let Some(pair) = pair else { continue };
            let Some(copy) = directory.below(&pair.copy) else { continue };
            let nodes = match &pair.original.content {
                _ if pair.is_unfinished => None,
                Content::Directory(top) => Some(saved.trees.entries(ctx, top.as_ref())),
                _ => continue,
            };
            copies.push(copy);
            originals.push(Original { nodes, is_intact: pair.is_intact });
        }
        self.levels.push(Level { nodes: saved.trees.entries(ctx, top.as_ref()), copies, originals, above });
        let old = newest(&pairs);
        node.content = Content::Directory(None);
        self.batcher.push(0, Item::Enter(Box::new(Enter { node, passage: false, old })));
        Ok(())
    }

    /// Adds a node whose contents are known.
    fn known(&mut self, node: Node, pairs: &[Option<Pair>]) {
        let change = Change::compare(newest(pairs).as_ref(), &node);
        self.batcher.push(0, Item::Node { node, change, link: None });
    }

    fn file(&mut self, mut node: Node, pairs: &[Option<Pair>]) -> Result<()> {
        let size = node.content.size();
        self.batcher.met(size);
        let SavedWalk { ctx, parents, trees, .. } = &self.walk;
        let lasting = |pair: &&Pair| parents.content_lasts(ctx, trees, &pair.copy.node);
        if let Some(pair) = pairs.iter().flatten().filter(|pair| has_contents(pair, &node)).find(lasting) {
            node.content = pair.copy.node.content.clone();
            self.batcher.same(&self.path, size, false);
            self.known(node, pairs);
            return Ok(());
        }
        let beginning = pairs.iter().flatten().filter(|pair| has_beginning(pair, &node)).find(lasting);
        let known = beginning.map(|pair| self.pieces(&pair.copy.node)).transpose()?;
        if size >= DISPLAYED {
            self.walk.ctx.event(Event::File { path: &self.path });
        }
        self.parts(node, newest(pairs), known.unwrap_or_default())
    }

    /// Returns the contents of a file of this repository.
    fn pieces(&self, node: &Node) -> Result<Vec<Piece>> {
        let SavedWalk { ctx, trees, data, .. } = &self.walk;
        let piece = |extent: Extent| match extent {
            Extent::Hole(len) => Piece::Hole(len),
            Extent::Data(r) => {
                let pack = data.packs.earlier(r.pack);
                Piece::Known(r.id, Place { pack, offset: r.offset, stored: r.stored, len: r.len })
            }
        };
        // A beginning that cannot be read is copied again.
        let pieces: Result<_> = trees.extents(ctx, &node.content).map(|extent| extent.map(piece)).collect();
        match pieces {
            Err(e) if e.kind().is_damage() => Ok(Vec::new()),
            pieces => pieces,
        }
    }

    /// Sends a file to the workers. `known`: the pieces of its beginning.
    fn parts(&mut self, mut node: Node, old: Option<Node>, known: Vec<Piece>) -> Result<()> {
        let content = std::mem::replace(&mut node.content, Content::File(Vec::new()));
        let mut skipped: u64 = known.iter().map(Piece::len).sum();
        self.walk.ctx.event(Event::Unchanged { files: 0, bytes: skipped });
        let (path, announced, extents) = (self.path.clone(), Vec::new(), Vec::new());
        let old = old.map(Box::new);
        let mut part = SavedPart { path, node, old, extents, announced, pieces: known, is_last: false, is_cut: false };
        let (mut bytes, mut offset) = (0, 0);
        let trees = self.walk.reading.saved.trees;
        for extent in trees.extents(self.walk.ctx, &content) {
            let extent = extent.map_err(|e| self.unreadable(e))?;
            offset += extent.len();
            if skipped > 0 {
                skipped = skipped.saturating_sub(extent.len());
                continue;
            }
            let len = if let Extent::Data(r) = &extent { u64::from(r.len) } else { 0 };
            if part.extents.len() >= EXTENTS || bytes + len > PART && !part.extents.is_empty() {
                self.send(part.split(), std::mem::take(&mut bytes))?;
            }
            bytes += len;
            part.extents.push(extent);
        }
        check_size(&content, offset).map_err(|e| self.unreadable(e))?;
        part.is_last = true;
        self.send(part, bytes)
    }

    fn send(&mut self, mut part: SavedPart, bytes: u64) -> Result<()> {
        let SavedWalk { reading: Reading { saved, fetch }, ctx, early, .. } = &self.walk;
        for extent in &mut part.extents {
            let Extent::Data(r) = extent else { continue };
            if !saved.copied.has(&r.id) {
                *r = fetch.located(ctx, r);
                part.announced.push(*r);
            }
        }
        fetch.wait_for_room(ctx)?;
        fetch.announce(&part.announced, early);
        self.batcher.read::<SavedPart>(0, &mut [], bytes);
        self.batcher.push(0, Item::Saved(Box::new(part)));
        self.batcher.send_if_full()
    }
}

/// Returns the top page of the copy if it has the same entries as a directory with this top page.
fn same_directory(pair: &Pair, top: Option<&Ref>) -> Option<Ref> {
    let (Content::Directory(Some(original)), Content::Directory(Some(copy))) =
        (&pair.original.content, &pair.copy.node.content)
    else {
        return None;
    };
    (pair.is_intact && top.is_some_and(|top| top.id == original.id)).then_some(*copy)
}

/// Returns whether the copy has the contents of this file. A file of which something was lost may have been read again since.
fn has_contents(pair: &Pair, node: &Node) -> bool {
    let copy = &pair.copy.node;
    copy.content.is_file()
        && !lacks_parts(&pair.original)
        && same_contents(&pair.original.content, &node.content)
        && copy.content.size() == node.content.size()
        && copy.flags == pair.original.flags
}

/// Returns whether the copy has the beginning of this file.
fn has_beginning(pair: &Pair, node: &Node) -> bool {
    let copy = &pair.copy.node;
    pair.is_unfinished
        && copy.content.is_file()
        && copy.flags & PARTIAL != 0
        && copy.content.size() < node.content.size()
}

/// Returns whether two files of one repository have the same chunks and holes.
fn same_contents(a: &Content, b: &Content) -> bool {
    let parts = |extent: &Extent| match extent {
        Extent::Data(r) => (Some(r.id), u64::from(r.len)),
        Extent::Hole(len) => (None, *len),
    };
    match (a, b) {
        (Content::File(a), Content::File(b)) => a.iter().map(parts).eq(b.iter().map(parts)),
        (Content::Large { size: a, list: old }, Content::Large { size: b, list: new }) => a == b && old.id == new.id,
        _ => false,
    }
}

fn newest(pairs: &[Option<Pair>]) -> Option<Node> {
    Some(pairs.iter().flatten().next()?.copy.node.clone())
}
