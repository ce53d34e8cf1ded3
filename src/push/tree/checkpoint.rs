//! Checkpoints: while a push goes on, and when it ends early, what is stored is committed with the part of the tree that
//! is known. The next push goes on from there.
//!
//! The tree is put aside, its open directories are closed where they are, and the pack of that is stored and committed;
//! then the tree goes on where it was. So a checkpoint is made between two steps only, or while a step waits for packs.

use std::time::{Duration, Instant};

use super::folder::{settle, settle_ref};
use super::writer::Tree;
use crate::error::{Error, Result};
use crate::format::list::List;
use crate::format::record::{Snapshot, Stats};
use crate::format::reference::{PackRef, Ref};
use crate::format::tree::{Node, PARTIAL};
use crate::name::ObjectId;
use crate::push::pack::data_packs::Data;
use crate::push::pack::piece::Piece;
use crate::push::read::partial::Started;

/// When a push commits what it has so far.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoints {
    /// So long after the beginning, if anything new is stored; then 1.5 times as long after that, and so on ..
    pub after: Duration,
    /// .. but at least so often.
    pub at_most: Duration,
    /// When so many chunks are not committed, whatever the time; `None`: as many as the memory allows.
    pub chunks: Option<usize>,
    /// Also after so many steps of the tree, whether or not anything new is stored. For tests; 0: never.
    pub steps: u64,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Checkpoints { after: Duration::from_secs(60), at_most: Duration::from_secs(600), chunks: None, steps: 0 }
    }
}

/// When the next one is due.
pub struct Schedule {
    plan: Checkpoints,
    interval: Duration,
    next: Instant,
    steps: u64,
    /// Chunks in memory at which the next one is due.
    chunks: usize,
    most: usize,
}

impl Schedule {
    /// `most`: chunks that may be in memory.
    pub fn new(plan: Checkpoints, most: usize) -> Self {
        let most = plan.chunks.unwrap_or(most);
        Schedule { plan, interval: plan.after, next: Instant::now() + plan.after, steps: 0, chunks: most, most }
    }

    fn is_due(&self, fresh: impl Fn() -> bool, chunks: usize) -> bool {
        let counted = self.plan.steps > 0 && self.steps >= self.plan.steps;
        counted || ((chunks >= self.chunks || Instant::now() >= self.next) && fresh())
    }

    /// One was made; so many chunks are left in memory.
    fn done(&mut self, chunks: usize) {
        self.interval = self.interval.mul_f64(1.5).min(self.plan.at_most);
        self.next = Instant::now() + self.interval;
        self.steps = 0;
        // Chunks of packs that are still on their way cannot be committed: then not for each pack anew.
        self.chunks = self.most.max(chunks + self.most / 2);
    }
}

impl Tree<'_> {
    fn is_due(&self) -> bool {
        let data = self.data;
        !self.control.stopping() && self.schedule.is_due(|| data.packs.fresh() > 0, data.chunks.len())
    }

    /// A step was taken.
    pub fn count_step(&mut self) -> Result<()> {
        self.schedule.steps += 1;
        self.checkpoint_if_due()
    }

    pub fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.is_due() { self.checkpoint(false) } else { Ok(()) }
    }

    /// Waits until the server has acknowledged all packs that hold the file's contents.
    pub fn settle_pieces(&mut self, node: Node, pieces: Vec<Piece>) -> Result<Started> {
        let mut started = Started::new(node, pieces);
        while !started.settle(self.data, self.index, false)? {
            let this = &*self;
            let waited = this.data.packs.wait(|| {
                let done = started.settle(this.data, this.index, this.line.pressed())? || this.is_due();
                Ok(done.then_some(()))
            });
            // From here on a checkpoint, also the last one, takes the beginning of this file into its tree.
            self.waiting = Some(started);
            waited?;
            self.checkpoint_if_due()?;
            started = self.waiting.take().ok_or_else(|| Error::failed("the file that was waited for is gone"))?;
        }
        Ok(started)
    }

    /// Commits what the push has so far.
    fn checkpoint(&mut self, last: bool) -> Result<()> {
        let before = (self.stats, self.unchanged, self.renamed, self.growth.clone());
        self.aside = self.stack.clone();
        let built = self.unfinished();
        let stats = self.figures();
        self.stack = std::mem::take(&mut self.aside);
        (self.stats, self.unchanged, self.renamed, self.growth) = before;
        self.ledger.partial(built?, stats, &self.meta.entries, last)?;
        self.meta.committed();
        let Data { chunks, packs, .. } = self.data;
        if chunks.len() >= self.schedule.most {
            chunks.forget(&packs.all_committed());
        }
        self.schedule.done(chunks.len());
        Ok(())
    }

    /// Commits the whole snapshot, unless its root is `last`.
    pub fn finish(&mut self, root: Option<Ref>, last: Option<Option<Ref>>) -> Result<(Snapshot, Option<ObjectId>)> {
        match last == Some(root) {
            true => self.ledger.unchanged(root, self.figures(), &self.meta.entries),
            false => self.ledger.whole(root, self.figures(), &self.meta.entries).map(|(s, record)| (s, Some(record))),
        }
    }

    /// The push ends early: commits what there is, if anything is new. Gives whether anything of this push is kept.
    pub fn keep(&mut self) -> bool {
        self.control.end();
        if self.data.packs.ready().is_empty() {
            return self.ledger.partial.is_some();
        }
        self.meta.hasty = true;
        if self.between && !self.meta.broken {
            let _ = self.batches(); // what became ready while the threads were ending
        }
        // What was at hand when it ended is not in the tree.
        (self.list, self.hand) = (Vec::new(), None);
        let whole = if self.meta.broken { Err(Error::failed("a pack is lost")) } else { self.checkpoint(true) };
        whole.or_else(|_| self.ledger.contents()).is_ok() || self.ledger.partial.is_some()
    }

    /// Closes all open directories as they are, the file that is being waited for in the last one, and stores their pages.
    fn unfinished(&mut self) -> Result<Option<Ref>> {
        if let Some(Started { mut node, mut pieces, settled, .. }) = self.started()?
            && settled > 0
        {
            pieces.truncate(settled);
            node.content = self.content(&pieces)?;
            node.flags |= PARTIAL;
            let node = self.store_xattrs(node)?;
            self.add_file(node, crate::push::read::item::Was::New)?;
        }
        while self.stack.len() > 1 {
            self.leave()?;
        }
        self.top()
    }

    fn started(&self) -> Result<Option<Started>> {
        match &self.waiting {
            Some(started) => Ok(Some(started.clone())),
            None if self.between => self.large.get(self.line.turn(), self.data, self.index),
            None => Ok(None),
        }
    }

    /// The top page of the root, with everything below it stored.
    pub fn top(&mut self) -> Result<Option<Ref>> {
        let mut top = self.end_folder()?.top();
        if let Some(pack) = self.meta.close(false)? {
            self.settle(pack);
            top.iter_mut().for_each(|page| settle_ref(page, pack));
        }
        Ok(top)
    }

    /// `SELF` has got a name.
    pub fn settle(&mut self, pack: PackRef) {
        self.stack.iter_mut().chain(&mut self.aside).for_each(|folder| folder.settle(pack));
        for list in &mut self.list {
            if let List::Upper(rows) = list {
                rows.iter_mut().for_each(|(_, page)| settle_ref(page, pack));
            }
        }
        for linked in self.links.values_mut() {
            settle(&mut linked.content, &mut linked.xattrs, pack);
        }
        if let Some(node) = &mut self.hand {
            settle(&mut node.content, &mut node.xattrs, pack);
        }
    }

    /// Figures of the tree so far, and of what was stored for it.
    pub fn figures(&self) -> Stats {
        let (added, stored) = (self.data.added() + self.meta.added, self.data.written() + self.meta.written);
        Stats { added, stored, ..self.stats }
    }
}
