//! The thread that writes the tree: takes batches from the queue in the order of the walk, waits until the packs of each
//! file are stored, and makes checkpoints.
//!
//! A checkpoint is made between two steps, or while a step waits for packs.

use std::sync::atomic::Ordering;

use super::assembler::Assembler;
use super::checkpoint::Checkpointer;
use super::ledger::{CommitMode, Committed, Ledger};
use super::pack_store::PackStore;
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::format::node::{Content, Node};
use crate::format::record::{Snapshot, Stats};
use crate::format::reference::Ref;
use crate::push::pack::piece::Piece;
use crate::push::pack::queue::Next;
use crate::push::read::item::{Batch, Item, Link, SavedPart};
use crate::push::read::partial::PartialFile;
use crate::push::read::workspace::Workspace;

/// Writes and commits the tree of one snapshot.
pub struct TreeWriter<'c> {
    work: Workspace<'c>,
    assembler: Assembler<'c, PackStore<'c>>,
    ledger: Ledger<'c>,
    checkpointer: Checkpointer,
    position: Position,
    /// A file of another repository of which parts are still to come.
    growing: Option<PartialFile>,
    /// Whether the rest of the steps is left out: `growing` was not read to its end.
    is_ended: bool,
    /// Whether the user's stop was reported.
    is_stop_reported: bool,
}

/// The position of the writer in the order of the walk.
enum Position {
    /// The next step is the first one of the next batch.
    BetweenBatches,
    InBatch,
    /// Within a batch, at a file whose packs are not all stored.
    Waiting(Box<PartialFile>),
}

impl<'c> TreeWriter<'c> {
    pub fn new(work: Workspace<'c>, store: PackStore<'c>, ledger: Ledger<'c>, checkpointer: Checkpointer) -> Self {
        let assembler = Assembler::new(work.repo.keys(), work.ctx, store);
        TreeWriter {
            work,
            assembler,
            ledger,
            checkpointer,
            position: Position::BetweenBatches,
            growing: None,
            is_ended: false,
            is_stop_reported: false,
        }
    }

    /// Takes all steps. Returns the top page of the root; `None` if steps are missing because of the user's stop.
    pub fn run(&mut self) -> Result<Option<Option<Ref>>> {
        self.batches()?;
        let Workspace { ctx, trees, is_cut, .. } = self.work;
        if is_cut.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.assembler.finish(Some(&|branch| trees.page(ctx, branch).map(|(_, page)| page))).map(Some)
    }

    /// Figures of the tree so far that the snapshot does not hold.
    pub fn tally(&self) -> &Tally {
        &self.assembler.tally
    }

    fn batches(&mut self) -> Result<()> {
        loop {
            self.position = Position::BetweenBatches;
            match self.work.queue.next()? {
                Next::Ready(batch) => {
                    self.position = Position::InBatch;
                    self.batch(batch)?;
                }
                Next::Wait => self.checkpoint_if_due()?,
                Next::End => return Ok(()),
            }
        }
    }

    fn batch(&mut self, batch: Batch) -> Result<()> {
        let nodes = batch.items.len();
        for item in batch.items {
            self.step(item)?;
            self.checkpointer.count_step();
            self.checkpoint_if_due()?;
        }
        self.work.queue.release(nodes);
        Ok(())
    }

    fn step(&mut self, item: Item) -> Result<()> {
        if self.is_ended {
            return Ok(());
        }
        match item {
            Item::Enter(enter) => self.assembler.enter(*enter),
            Item::Page(first, page) => {
                self.assembler.earlier_page(first, page);
                Ok(())
            }
            Item::Node { node, change, link } => self.assembler.node(node, change, link),
            Item::File(job) if job.gone => Ok(()),
            Item::File(job) => self.file(job.node, job.pieces, job.link, job.old.as_deref()),
            Item::Stream(job) => self.file(job.node, job.pieces, None, job.old.as_deref()),
            Item::Saved(part) => self.part(*part),
            Item::LeftOut => Ok(()),
            Item::Link { link, .. } if self.lacks(&link) => Ok(()),
            Item::Link { node, link, old } => self.assembler.link(node, link, old.as_deref()),
            Item::Awaited => Err(Error::failed("a file that was not read")),
            Item::Leave => self.assembler.leave(),
        }
    }

    fn file(&mut self, mut node: Node, pieces: Vec<Piece>, link: Option<Link>, old: Option<&Node>) -> Result<()> {
        if !matches!(node.content, Content::Unreadable(_)) {
            let file = self.resolve(node, pieces)?;
            let data = self.work.data;
            node = file.node;
            node.content = self.assembler.content(file.pieces.iter().map(|piece| data.extent(piece)))?;
            self.assembler.grow(file.new)?;
        }
        self.assembler.file(node, link, old)
    }

    /// Adds a part to a file of another repository. The last part completes the file.
    fn part(&mut self, part: SavedPart) -> Result<()> {
        let mut file = self.growing.take().unwrap_or_else(|| PartialFile::new(part.node, Vec::new()));
        part.pieces.into_iter().for_each(|piece| Piece::append(&mut file.pieces, piece));
        if part.is_last && !part.is_cut {
            return self.file(file.node, file.pieces, None, part.old.as_deref());
        }
        self.growing = Some(file);
        self.is_ended = part.is_cut;
        Ok(())
    }

    /// Returns whether the first link to this file was left out because of the user's stop.
    fn lacks(&self, link: &Link) -> bool {
        self.work.is_cut.load(Ordering::SeqCst) && !self.assembler.links.knows(link)
    }

    /// Waits until the server has acknowledged all packs that hold the file's contents.
    fn resolve(&mut self, node: Node, pieces: Vec<Piece>) -> Result<PartialFile> {
        let mut file = PartialFile::new(node, pieces);
        let Workspace { last, data, index, queue, .. } = self.work;
        while !file.resolve(last, data, index, false)? {
            let waited = data.packs.wait(|| {
                let done = file.resolve(last, data, index, queue.pressed())? || self.is_due() || self.is_stop_new();
                Ok(done.then_some(()))
            });
            // From here on a checkpoint, also the last one, stores the beginning of this file.
            self.position = Position::Waiting(Box::new(file));
            waited?;
            self.checkpoint_if_due()?;
            file = self.stop_waiting()?;
        }
        Ok(file)
    }

    fn stop_waiting(&mut self) -> Result<PartialFile> {
        match std::mem::replace(&mut self.position, Position::InBatch) {
            Position::Waiting(file) => Ok(*file),
            _ => Err(Error::failed("no file waits for packs")),
        }
    }

    fn is_due(&self) -> bool {
        let Workspace { ctx, data, .. } = self.work;
        let fresh = || data.packs.uncommitted() > 0;
        match ctx.signal() {
            _ if ctx.check().is_err() => false,
            Some((_, since)) => self.checkpointer.is_due_after_stop(since, fresh),
            None => self.checkpointer.is_due(data.chunks.len(), fresh),
        }
    }

    /// Returns whether the user has asked to stop, that was not reported, and there is something to send.
    fn is_stop_new(&self) -> bool {
        !self.is_stop_reported && self.work.data.unsent() > 0 && self.work.ctx.signal().is_some()
    }

    /// Reports that the user's stop was noticed, and how many bytes are still to be sent.
    fn report_stop(&mut self) {
        let Workspace { ctx, data, .. } = self.work;
        self.is_stop_reported = true;
        ctx.begin_rest();
        let mib = data.unsent().div_ceil(1 << 20);
        ctx.warn(&format!(
            "interrupted: up to {mib} MiB that were read are still sent; a second signal ends the push at once"
        ));
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.is_stop_new() {
            self.report_stop();
        }
        if !self.is_due() {
            return Ok(());
        }
        self.checkpoint(CommitMode::Refreshed)?;
        if self.work.ctx.signal().is_some() {
            self.checkpointer.done_after_stop();
        }
        Ok(())
    }

    /// Commits a partial snapshot of the tree so far.
    fn checkpoint(&mut self, mode: CommitMode) -> Result<()> {
        let data = self.work.data;
        let beginning = self.beginning()?;
        let beginning = beginning.as_ref().filter(|file| file.resolved > 0).map(|file| {
            let extents = file.pieces[..file.resolved].iter().map(|piece| data.extent(piece));
            (file.node.clone(), extents)
        });
        let tree = self.assembler.checkpoint(beginning)?;
        let stats = self.figures(tree.tally.stats);
        self.ledger.partial(tree.root, stats, &self.assembler.store.meta, mode)?;
        self.assembler.store.meta.committed();
        if data.chunks.len() >= self.checkpointer.most {
            data.chunks.forget(&data.packs.all_committed());
        }
        self.checkpointer.done(data.chunks.len());
        Ok(())
    }

    /// Returns the beginning of the file that comes next in the tree, if it is being read or waits for packs.
    fn beginning(&mut self) -> Result<Option<PartialFile>> {
        let Workspace { last, partial, queue, data, index, .. } = self.work;
        if let Some(file) = &mut self.growing {
            file.resolve(last, data, index, false)?;
            return Ok(Some(file.clone()));
        }
        match &self.position {
            Position::Waiting(file) => Ok(Some(PartialFile::clone(file))),
            Position::BetweenBatches => partial.get(last, queue.next_number(), data, index),
            Position::InBatch => Ok(None),
        }
    }

    /// Commits the whole snapshot, unless `newest` holds the same tree.
    pub fn finish(&mut self, root: Option<Ref>, newest: Option<&Snapshot>) -> Result<Committed> {
        let stats = self.figures(self.assembler.tally.stats);
        let meta = &self.assembler.store.meta;
        if newest.is_some_and(|newest| newest.root == root) {
            self.ledger.unchanged(root, stats, meta)
        } else {
            self.ledger.whole(root, stats, meta)
        }
    }

    /// Commits the stored packs when the push ends early. Returns whether anything of this push is kept.
    pub fn keep(&mut self) -> bool {
        self.work.ctx.cancel();
        if self.work.data.packs.ready().is_empty() {
            return self.ledger.partial.is_some();
        }
        self.assembler.store.looks_up = false;
        if matches!(self.position, Position::BetweenBatches) && !self.assembler.store.meta.is_broken() {
            let _ = self.batches(); // batches that became ready while the threads were ending
        }
        self.assembler.abandon_step();
        let kept = if self.assembler.store.meta.is_broken() {
            Err(Error::failed("a metadata pack is lost"))
        } else {
            self.checkpoint(CommitMode::Immediate)
        };
        kept.or_else(|_| self.ledger.contents()).is_ok() || self.ledger.partial.is_some()
    }

    /// Adds the bytes that were stored to the figures of the tree.
    pub fn figures(&self, stats: Stats) -> Stats {
        let (data, meta) = (self.work.data, &self.assembler.store.meta);
        Stats { added: data.added() + meta.added(), stored: data.written() + meta.stored(), ..stats }
    }
}
