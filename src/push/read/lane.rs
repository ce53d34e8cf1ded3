//! The part of a reader that belongs to one repository: it cuts the bytes of the reader under the keys of this repository.

use std::ops::Range;

use crossbeam_channel::Sender;

use super::cutter::Cutter;
use super::handover::{Handover, Task};
use super::workspace::Workspace;
use crate::error::Result;
use crate::format::node::{Content, Node};
use crate::format::reference::Extent;
use crate::push::pack::chunks::Place;
use crate::push::pack::piece::Piece;
use crate::window::Window;

/// The file that is being read, for one repository.
pub struct Lane<'w> {
    /// The number of the repository.
    pub destination: usize,
    pub cutter: Cutter<'w>,
    pub window: Window,
    /// Whether the repository needs the file.
    pub is_active: bool,
    /// Offset from which on it needs the contents.
    pub start: u64,
    /// The contents so far.
    pub pieces: Vec<Piece>,
    /// The contents as the attempt before read them.
    pub earlier: Vec<Piece>,
    handover: Handover,
    /// Whether chunks are handed over to idle workers; `None`: those with more bytes behind them.
    is_shared: Option<bool>,
    published: Option<Published>,
}

/// How much of a file that is alone in its batch is published in [`super::partial::PartialFiles`].
struct Published {
    batch: u64,
    pieces: usize,
}

impl<'w> Lane<'w> {
    pub fn new(destination: usize, cutter: Cutter<'w>) -> Self {
        Lane {
            destination,
            cutter,
            window: Window::default(),
            is_active: false,
            start: 0,
            pieces: Vec::new(),
            earlier: Vec::new(),
            handover: Handover::new(destination),
            is_shared: None,
            published: None,
        }
    }

    /// Begins a batch. `alone`: its number, if a file is alone in it and its beginning is published while it is read.
    pub fn begin_batch(&mut self, alone: Option<u64>) {
        self.published = alone.map(|batch| Published { batch, pieces: 0 });
    }

    /// Begins to read a file. `pieces`: an empty list for its contents.
    pub fn begin(&mut self, pieces: Vec<Piece>) {
        self.pieces = pieces;
        self.earlier.clear();
        self.start = 0;
        self.is_active = !self.cutter.work.group.has_failed();
    }

    /// Begins an attempt to read the file.
    pub fn begin_attempt(&mut self) {
        std::mem::swap(&mut self.pieces, &mut self.earlier);
        self.pieces.clear();
        self.start = 0;
        self.handover = Handover::new(self.destination);
    }

    /// Returns whether this attempt found the same contents as the one before.
    pub fn has_same_contents(&self) -> bool {
        self.cutter.work.group.has_failed() || Piece::same(&self.earlier, &self.pieces)
    }

    /// Takes over the part of the file that a partial snapshot holds. If a part of the list cannot be read, the file is read
    /// from there on.
    pub fn take_over(&mut self, prefix: &Content, size: u64) -> Result<()> {
        let Workspace { trees, ctx, data, .. } = self.cutter.work;
        for extent in trees.extents(ctx, prefix) {
            match extent {
                Ok(Extent::Hole(len)) => self.pieces.push(Piece::Hole(len)),
                Ok(Extent::Data(r)) => {
                    let pack = data.packs.earlier(r.pack);
                    self.pieces
                        .push(Piece::Known(r.id, Place { pack, offset: r.offset, stored: r.stored, len: r.len }));
                }
                Err(e) if e.kind().is_damage() => break,
                Err(e) => return Err(e),
            }
        }
        // A hole at the end may continue, and must be one piece.
        while let Some(Piece::Hole(_)) = self.pieces.last() {
            self.pieces.pop();
        }
        self.start = self.pieces.iter().map(Piece::len).sum();
        if self.start > size {
            self.pieces.clear();
            self.start = 0;
        }
        Ok(())
    }

    /// Publishes the beginning of a file that is alone in its batch.
    pub fn publish_start(&mut self, node: &Node) -> Result<()> {
        if let Some(published) = &mut self.published {
            self.cutter.work.partial.begin(published.batch, node.clone());
            published.pieces = 0;
        }
        self.publish()
    }

    /// Publishes the contents so far.
    pub fn publish(&mut self) -> Result<()> {
        let Some(published) = &mut self.published else { return Ok(()) };
        self.cutter.flush()?; // a checkpoint stores the pieces before the first one that is in no pack
        let new = &self.pieces[published.pieces..];
        let new = &new[..new.iter().take_while(|piece| !matches!(piece, Piece::Awaited)).count()];
        self.cutter.work.partial.extend(published.batch, new);
        published.pieces += new.len();
        Ok(())
    }

    /// Adds a hole.
    pub fn hole(&mut self, range: Range<u64>) {
        let start = range.start.max(self.start);
        if range.end > start {
            self.pieces.push(Piece::Hole(range.end - start));
        }
    }

    /// Begins to cut a range of the file.
    pub fn begin_range(&mut self, range: &Range<u64>) {
        self.window.start(Some(range.end.saturating_sub(range.start.max(self.start))));
        self.is_shared = Some(self.window.has_several_chunks() && range.end < u64::MAX);
    }

    /// Begins to cut a stream.
    pub fn begin_stream(&mut self) {
        self.window.start(None);
        self.is_shared = None;
        self.handover = Handover::new(self.destination);
    }

    /// Takes bytes that were read from the offset `at` on into the window of another lane.
    pub fn feed(&mut self, bytes: &[u8], at: u64, offer: Option<&Sender<Task>>) -> Result<()> {
        let skipped = usize::try_from(self.start.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = bytes.get(skipped..).unwrap_or_default();
        while !bytes.is_empty() && !self.cutter.work.group.has_failed() {
            let free = self.window.free();
            let (now, later) = bytes.split_at(bytes.len().min(free.len()));
            free[..now.len()].copy_from_slice(now);
            self.window.fill(now.len());
            bytes = later;
            self.cut(false, offer)?;
            if self.window.free().is_empty() {
                self.window.slide();
            }
        }
        Ok(())
    }

    /// Cuts chunks off the window. The chunks of a large file go to idle workers by `offer`.
    pub fn cut(&mut self, is_end: bool, offer: Option<&Sender<Task>>) -> Result<()> {
        let Lane { cutter, window, pieces, handover, is_shared, .. } = self;
        let Workspace { repo, group, .. } = cutter.work;
        while let Some(chunk) = window.cut(repo.keys().chunker(), is_end) {
            let cut = group.step(|| match offer {
                Some(offer) if is_shared.unwrap_or(chunk.rest > 0) => {
                    cutter.share(chunk.plain, pieces, handover, offer)
                }
                _ => cutter.chunk(chunk.plain).map(|piece| pieces.push(piece)),
            })?;
            if cut.is_none() {
                window.discard();
            }
        }
        Ok(())
    }

    /// Waits for the chunks that were handed over.
    pub fn collect(&mut self) -> Result<()> {
        let Lane { cutter, pieces, handover, .. } = self;
        cutter.work.group.step(|| handover.collect(cutter.work.ctx, pieces)).map(drop)
    }

    /// Runs a step for the repository.
    pub fn step(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let group = self.cutter.work.group;
        group.step(|| step(self)).map(drop)
    }
}
