//! The threads of one push, and the channels between them.
//!
//! Every queue is bounded. The first failure ends all threads ([`Group`]).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::budget::Budget;
use super::compare::copies::Copied;
use super::compare::parents::Parents;
use super::compare::renames::Renames;
use super::options::Options;
use super::pack::data_packs::{self, DataPacks, Upload};
use super::pack::queue::Queue;
use super::read::attributes::Nodes;
use super::read::handover::Task;
use super::read::item::Batch;
use super::read::partial::PartialFiles;
use super::read::saved::{Reading, Saved};
use super::read::stream::Stream;
use super::read::worker::Worker;
use super::read::workspace::Workspace;
use super::tree::checkpoint::Checkpointer;
use super::tree::ledger::{Committed, Ledger};
use super::tree::pack_store::PackStore;
use super::tree::writer::TreeWriter;
use super::walk::batcher::Batcher;
use super::walk::picker::Picker;
use super::walk::saved::SavedWalk;
use super::walk::sources::Plan;
use super::walk::streams::Streams;
use super::walk::walker::Walk;
use crate::context::{Context, Group};
use crate::error::Result;
use crate::format::record::{Snapshot, Stats};
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::repo::{Index, Repository, State};
use crate::trees::{Fetch, Lookup, MetaPack, Trees};

/// Batches between the walk and the workers.
const BATCHES: usize = 8;

/// Bytes of memory for the index by which relocated pages of parents are found.
const LOOKUP: usize = 4 << 20;

/// Time for the last checkpoint of a push that ends early: on a working connection it takes two round trips and a second.
const LAST: Duration = Duration::from_secs(10);

/// The hint of a push that ended early and committed the stored packs.
const RESUMES: &str = "run the same push again: it continues with the data that was stored so far";

/// The same for a copy.
const RESUMES_COPY: &str = "run the same copy again: it continues with the data that was stored so far";

/// Threads that fetch contents of another repository early: files of an old snapshot lie in many small packs.
const EARLY: usize = 16;

/// The things to save.
pub enum Sources<'s> {
    /// Files below these paths.
    Files(&'s Plan, &'s [PathBuf]),
    /// Streams in tree order.
    Streams(&'s mut dyn Iterator<Item = Result<Stream>>),
    /// A snapshot of another repository.
    Saved(&'s Saved<'s>),
}

impl<'s> Sources<'s> {
    /// Returns the snapshot of another repository.
    pub fn saved(&self) -> Option<&'s Saved<'s>> {
        if let Sources::Saved(saved) = self { Some(saved) } else { None }
    }
}

/// The inputs of a run.
pub struct Setup<'r> {
    pub repo: &'r Repository,
    pub options: &'r Options,
    pub ctx: &'r Context<'r>,
    pub parents: &'r Parents,
    pub budget: Budget,
    pub started: Instant,
    /// Packs that the server does not have. The first record of the push condemns them.
    pub missing: BTreeSet<ObjectId>,
    /// Set if other clients condemned packs meanwhile.
    pub outdated: &'r AtomicBool,
    /// The snapshot to be, without id, root and figures.
    pub draft: Snapshot,
    /// The newest whole snapshot of the group, if none is made for the same tree.
    pub newest: Option<Snapshot>,
    /// The pairs of snapshots with which a snapshot of another repository is compared; the copies are `parents`.
    pub copies: Vec<Copied>,
}

/// The results of a run.
pub struct Done {
    pub committed: Committed,
    /// Figures of the run.
    pub stats: Stats,
    pub unchanged: u64,
    pub renamed: u64,
    /// Bytes of files that were read.
    pub read: u64,
    /// Files that changed each time they were read.
    pub unsteady: u64,
    /// The directories that grew most.
    pub grew: Vec<(Vec<u8>, u64)>,
    /// Packs written.
    pub packs: u64,
}

/// The threads and their channels. A channel ends when all its senders are dropped.
struct Pipeline<'p> {
    group: &'p Group<'p>,
    work: Workspace<'p>,
    setup: &'p Setup<'p>,
    /// Batches with files to read, from the walk ..
    batches_in: Sender<Batch>,
    /// .. to the workers.
    batches_out: Receiver<Batch>,
    /// Chunks of a large file, from the worker that reads it ..
    tasks_in: Sender<Task>,
    /// .. to idle workers. Without a buffer: a chunk is handed over only to a worker that waits.
    tasks_out: Receiver<Task>,
    /// Finished data packs, from the workers by way of [`DataPacks`] to the uploading threads. Without a buffer, so that
    /// the number of packs in memory is bounded.
    packs_out: Receiver<Upload>,
}

/// The results of the threads.
struct Outcome {
    root: Option<Ref>,
    read: u64,
}

/// Runs all threads and commits the snapshot. If the push ends early, commits the stored packs.
pub fn run(setup: &Setup<'_>, sources: &mut Sources<'_>, state: &mut State) -> Result<Done> {
    let Setup { repo, ref budget, .. } = *setup;
    let full_packs = setup.options.full_packs;
    let group = Group::new(setup.ctx);
    let ctx = group.context();
    let (finish, last) = (ctx.with_grace(Duration::MAX), ctx.with_grace(LAST));
    let index = Index::new(state).with_memory(budget.index);
    index.condemn(&setup.missing);
    let lookup = Lookup::from_state(state.clone()).with_memory(LOOKUP);
    let trees = Trees::with(repo, Arc::new(lookup));
    let (packs_in, packs_out) = crossbeam_channel::bounded(0);
    let mut data = DataPacks::new(ctx, repo, packs_in, budget.open);
    data.full_packs = full_packs;
    let queue = Queue::new(ctx, budget.nodes);
    let fetch = sources.saved().map(|saved| Fetch::new(saved.trees));
    let reading = sources.saved().zip(fetch.as_ref()).map(|(saved, fetch)| Reading { saved, fetch });
    let work = Workspace {
        repo,
        ctx,
        last: &last,
        nodes: &Nodes::default(),
        index: &index,
        trees: &trees,
        data: &data,
        queue: &queue,
        partial: &PartialFiles::default(),
        idle: &AtomicUsize::new(0),
        unsteady: &AtomicU64::new(0),
        reading,
        index_damage_reported: &AtomicBool::new(false),
    };
    let meta = MetaPack::new(repo, setup.options.compression.max(1))?;
    let store = PackStore { meta, ctx: &last, packs: &data.packs, index: &index, looks_up: true, full_packs };
    let checkpointer = Checkpointer::new(setup.options.checkpoints, budget.chunks);
    let mut tree = TreeWriter::new(work, store, ledger(setup, work, &finish, state), checkpointer);
    let outcome = Pipeline::new(&group, work, setup, packs_out).run(sources, &mut tree);
    let resumes = if reading.is_some() { RESUMES_COPY } else { RESUMES };
    let committed = group.result().and_then(|()| tree.finish(outcome.root, setup.newest.as_ref()));
    let committed = committed
        .map_err(|error| if tree.keep() && error.hint_text().is_none() { error.hint(resumes) } else { error })?;
    Ok(done(work, committed, &tree, outcome.read))
}

fn done(work: Workspace<'_>, committed: Committed, tree: &TreeWriter<'_>, read: u64) -> Done {
    let tally = tree.tally();
    Done {
        committed,
        stats: tree.figures(tally.stats),
        unchanged: tally.unchanged,
        renamed: tally.renamed,
        read,
        grew: tally.growth.directories(),
        unsteady: work.unsteady.load(Ordering::Relaxed),
        packs: work.data.packs.ours(),
    }
}

fn ledger<'r>(setup: &Setup<'r>, work: Workspace<'r>, finish: &'r Context<'r>, state: &'r mut State) -> Ledger<'r> {
    Ledger {
        repo: work.repo,
        ctx: finish,
        last: work.last,
        condemned: state.condemned_packs(),
        state,
        chunks: &work.data.chunks,
        packs: &work.data.packs,
        index: work.index,
        started: setup.started,
        figures: work.reading.map(|reading| reading.saved.snapshot.stats),
        draft: setup.draft.clone(),
        partial: None,
        missing: setup.missing.clone(),
        outdated: setup.outdated,
    }
}

impl<'p> Pipeline<'p> {
    fn new(group: &'p Group<'p>, work: Workspace<'p>, setup: &'p Setup<'p>, packs_out: Receiver<Upload>) -> Self {
        let (batches_in, batches_out) = crossbeam_channel::bounded(BATCHES);
        let (tasks_in, tasks_out) = crossbeam_channel::bounded(0);
        Pipeline { group, work, setup, batches_in, batches_out, tasks_in, tasks_out, packs_out }
    }

    /// Runs the walk in this thread and all others beside it, until all have ended.
    fn run(self, sources: &mut Sources<'_>, tree: &mut TreeWriter<'_>) -> Outcome {
        let Pipeline { group, work, setup, batches_in, tasks_in, .. } = self;
        let (batches, tasks, packs) = (&self.batches_out, &self.tasks_out, &self.packs_out);
        let workers = Workers { group, work, compression: setup.options.compression, batches, tasks };
        thread::scope(|scope| {
            for _ in 0..setup.budget.uploads {
                scope.spawn(|| group.run(|| data_packs::upload(work.repo, work.data, packs)));
            }
            let mut running = Vec::new();
            for _ in 0..setup.budget.workers {
                let offer = tasks_in.clone();
                running.push(scope.spawn(move || workers.run(offer)));
            }
            drop(tasks_in);
            let (early, wanted) = crossbeam_channel::bounded(2 * EARLY);
            if let Some(Reading { fetch, .. }) = work.reading {
                for _ in 0..EARLY {
                    let wanted: Receiver<Ref> = wanted.clone();
                    scope.spawn(move || fetch_early(work.ctx, fetch, &wanted));
                }
            }
            drop(wanted);
            let tree = scope.spawn(|| group.run(|| tree.run()));
            let batcher = Batcher::new(work.ctx, work.queue, batches_in);
            group.run(|| walk(setup, work, sources, batcher, early));
            let read = running.into_iter().filter_map(|worker| worker.join().expect("it does not panic")).sum();
            group.run(|| work.data.finish());
            Outcome { root: tree.join().expect("it does not panic").flatten(), read }
        })
    }
}

/// The inputs of a worker thread.
#[derive(Clone, Copy)]
struct Workers<'p> {
    group: &'p Group<'p>,
    work: Workspace<'p>,
    compression: i32,
    batches: &'p Receiver<Batch>,
    tasks: &'p Receiver<Task>,
}

impl Workers<'_> {
    /// The body of a worker thread. Returns the bytes that it read, unless the push was cancelled.
    fn run(self, offer: Sender<Task>) -> Option<u64> {
        self.group.run(|| Worker::new(self.work, self.compression, offer)?.run(self.batches, self.tasks))
    }
}

/// The body of a thread that fetches contents of another repository early.
fn fetch_early(ctx: &Context, fetch: &Fetch<'_>, wanted: &Receiver<Ref>) {
    wanted.iter().filter(|_| !ctx.is_stopped()).for_each(|r| fetch.touch(ctx, &r));
}

/// The body of the walk's thread.
fn walk(
    setup: &Setup<'_>,
    work: Workspace<'_>,
    sources: &mut Sources<'_>,
    batcher: Batcher<'_>,
    early: Sender<Ref>,
) -> Result<()> {
    let Workspace { trees, nodes, data, .. } = work;
    let Setup { options, ctx, parents, .. } = *setup;
    match sources {
        Sources::Files(plan, paths) => {
            let picker = Picker::new(options, ctx, paths);
            let exclude = &options.exclude_dev_ino;
            let renames = &Renames::new(parents);
            let patience = options.patience;
            Walk { trees, ctx, parents, renames, nodes, exclude, patience }.run(plan, picker, batcher)
        }
        Sources::Streams(streams) => {
            Streams { trees, ctx, parents, nodes, time: setup.draft.time }.run(streams, batcher)
        }
        Sources::Saved(_) => {
            let Some(reading) = work.reading else { return Ok(()) };
            SavedWalk { reading, ctx, copies: &setup.copies, parents, trees, data, early }.run(batcher)
        }
    }
}
