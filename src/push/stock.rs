//! The state of a push for one repository: its index, packs and queue, which the threads of the [`super::pipeline`] fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::budget::Budget;
use super::compare::copies::Copied;
use super::compare::parents::Parents;
use super::compare::renames::Renames;
use super::options::Options;
use super::pack::data_packs::{DataPacks, Upload};
use super::pack::presence::Presence;
use super::pack::queue::Queue;
use super::read::item::Batch;
use super::read::partial::PartialFiles;
use super::read::saved::Reading;
use super::read::workspace::Workspace;
use super::tree::checkpoint::Checkpointer;
use super::tree::ledger::Ledger;
use super::tree::pack_store::PackStore;
use super::tree::writer::TreeWriter;
use super::walk::destination::Destination;
use crate::context::{Context, Group};
use crate::error::Result;
use crate::format::record::Snapshot;
use crate::repo::{Index, Repository, SeenPacks, State};
use crate::trees::{Lookup, MetaPack, Trees};

/// Bytes of memory for the index by which relocated pages of parents are found.
const LOOKUP: usize = 4 << 20;

/// Time for the last checkpoint of a push that ends early: on a working connection it takes two round trips and a second.
const LAST: Duration = Duration::from_secs(10);

/// Longest time after the user's stop in which packs are stored that were open or on their way. They have 16 MiB each, and
/// there are at most as many as the memory holds.
pub const REST: Duration = Duration::from_secs(15 * 60);

/// The inputs of a run for one repository.
pub struct Setup<'r> {
    pub repo: &'r Repository,
    pub options: &'r Options,
    /// Receives the warnings about this repository.
    pub ctx: &'r Context<'r>,
    pub parents: Parents,
    pub budget: Budget,
    pub started: Instant,
    /// Bytes that were sent and received before.
    pub traffic: (u64, u64),
    /// Packs that the server has and does not have. The first record of the push condemns the latter.
    pub packs: SeenPacks,
    /// Set if other clients condemned packs meanwhile.
    pub outdated: &'r AtomicBool,
    /// The snapshot to be, without id, root and figures.
    pub draft: Snapshot,
    /// The newest whole snapshot of the group, if none is made for the same tree.
    pub newest: Option<Snapshot>,
    /// The pairs of snapshots with which a snapshot of another repository is compared; the copies are `parents`.
    pub copies: Vec<Copied>,
}

/// The state for one repository.
pub struct Stock<'p> {
    pub setup: &'p Setup<'p>,
    /// The threads that work for the repository.
    pub group: &'p Group<'p>,
    /// A context that a stop does not end: a complete snapshot is committed.
    finish: Context<'p>,
    /// See [`Workspace::last`].
    last: Context<'p>,
    index: Index,
    trees: Trees<'p>,
    renames: Renames<'p>,
    pub data: DataPacks<'p>,
    /// Finished data packs, from the workers by way of [`DataPacks`] to the uploading threads. Without a buffer, so that the
    /// number of packs in memory is bounded.
    pub packs_out: Receiver<Upload>,
    queue: Queue<'p, Batch>,
    partial: PartialFiles,
    index_damage_reported: AtomicBool,
    /// Bytes of files that were read.
    pub read: AtomicU64,
}

impl<'p> Stock<'p> {
    /// Makes the state at the beginning of a push.
    pub fn new(setup: &'p Setup<'p>, group: &'p Group<'p>, state: &State) -> Self {
        let Setup { repo, ref parents, ref budget, .. } = *setup;
        let ctx = group.context();
        let index = Index::new(state).with_memory(budget.index);
        index.condemn(&setup.packs.absent);
        let lookup = Lookup::from_state(state.clone()).with_memory(LOOKUP);
        let (packs_in, packs_out) = crossbeam_channel::bounded(0);
        let mut data = DataPacks::new(ctx, repo, packs_in, budget.open);
        data.full_packs = setup.options.full_packs;
        data.packs.presence = Presence::of(setup.packs.present.clone());
        Stock {
            setup,
            group,
            finish: ctx.with_grace(Duration::MAX),
            last: ctx.with_grace(LAST).with_stop_grace(REST + LAST),
            index,
            trees: Trees::with(repo, Arc::new(lookup)),
            renames: Renames::new(parents),
            data,
            packs_out,
            queue: Queue::new(ctx, budget.nodes),
            partial: PartialFiles::default(),
            index_damage_reported: AtomicBool::new(false),
            read: AtomicU64::new(0),
        }
    }

    /// Returns the part that the workers and the tree's thread use.
    pub fn workspace(
        &'p self,
        idle: &'p AtomicUsize,
        is_cut: &'p AtomicBool,
        reading: Option<Reading<'p>>,
    ) -> Workspace<'p> {
        Workspace {
            repo: self.setup.repo,
            group: self.group,
            ctx: self.group.context(),
            last: &self.last,
            index: &self.index,
            trees: &self.trees,
            data: &self.data,
            queue: &self.queue,
            partial: &self.partial,
            idle,
            is_cut,
            reading,
            index_damage_reported: &self.index_damage_reported,
        }
    }

    /// Returns the part that the walk uses.
    pub fn destination(&'p self, number: usize) -> Destination<'p> {
        let Stock { group, renames, trees, queue, .. } = self;
        Destination { number, group, parents: &self.setup.parents, renames, trees, queue }
    }

    /// Makes the writer of the tree.
    pub fn tree(&'p self, work: Workspace<'p>, state: &'p mut State) -> Result<TreeWriter<'p>> {
        let Setup { repo, options, ref budget, started, outdated, .. } = *self.setup;
        let (packs, index, last) = (&self.data.packs, &self.index, &self.last);
        let meta = MetaPack::new(repo, options.compression.max(1))?;
        let store = PackStore { meta, ctx: last, packs, index, looks_up: true, full_packs: options.full_packs };
        let ledger = Ledger {
            repo,
            ctx: &self.finish,
            last,
            condemned: state.condemned_packs(),
            state,
            chunks: &self.data.chunks,
            packs,
            index,
            started,
            figures: work.reading.map(|reading| reading.saved.snapshot.stats),
            draft: self.setup.draft.clone(),
            partial: None,
            missing: self.setup.packs.absent.clone(),
            outdated,
        };
        Ok(TreeWriter::new(work, store, ledger, Checkpointer::new(options.checkpoints, budget.chunks)))
    }
}
