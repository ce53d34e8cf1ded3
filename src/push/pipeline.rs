//! The threads of one push, and the channels between them.
//!
//! One walk and one set of workers serve all repositories; each repository has its own packs, uploading threads and tree
//! ([`Stock`]). Every queue is bounded. A failure in the walk or in a worker ends all threads, a failure in a step for one
//! repository only the work for that repository ([`Group::part`]).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::pack::data_packs;
use super::read::attributes::Nodes;
use super::read::handover::Task;
use super::read::item::Load;
use super::read::reader::Shared;
use super::read::saved::{Reading, Saved};
use super::read::stream::Stream;
use super::read::worker::Worker;
use super::read::workspace::Workspace;
use super::stock::{REST, Setup, Stock};
use super::tree::ledger::Committed;
use super::tree::writer::TreeWriter;
use super::walk::batcher::Batcher;
use super::walk::destination::Destination;
use super::walk::picker::Picker;
use super::walk::saved::SavedWalk;
use super::walk::sources::Plan;
use super::walk::streams::Streams;
use super::walk::walker::Walk;
use crate::context::{Context, Group};
use crate::error::{Error, Result};
use crate::format::record::Stats;
use crate::format::reference::Ref;
use crate::repo::State;
use crate::trees::Fetch;

/// Loads between the walk and the workers.
const LOADS: usize = 8;

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

/// The results of a run for one repository.
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
    /// Time from the start to the commit.
    pub duration: Duration,
}

/// The result of the threads of one repository.
struct Outcome {
    committed: Result<Committed>,
    duration: Duration,
}

/// Runs all threads and commits the snapshots. If the push ends early, commits the stored packs. Returns the results in the
/// order of `setups`.
pub fn run(ctx: &Context, setups: &[Setup<'_>], sources: &mut Sources<'_>, states: &mut [State]) -> Vec<Result<Done>> {
    let whole = Group::new(&ctx.with_stop_grace(REST));
    let reading_ctx = whole.context().with_stop_grace(Duration::ZERO);
    let groups: Vec<Group<'_>> = setups.iter().map(|setup| whole.part(setup.ctx)).collect();
    let all = setups.iter().zip(&groups).zip(&*states);
    let stocks: Vec<Stock<'_>> = all.map(|((setup, group), state)| Stock::new(setup, group, state)).collect();
    let fetch = sources.saved().map(|saved| Fetch::new(saved.trees));
    let reading = sources.saved().zip(fetch.as_ref()).map(|(saved, fetch)| Reading { saved, fetch });
    let (nodes, unsteady, idle, is_cut) =
        (Nodes::default(), AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let works: Vec<Workspace<'_>> = stocks.iter().map(|stock| stock.workspace(&idle, &is_cut, reading)).collect();
    let destinations: Vec<Destination<'_>> = stocks.iter().enumerate().map(|(i, stock)| stock.destination(i)).collect();
    let trees = stocks.iter().zip(&works).zip(states).map(|((stock, work), state)| stock.tree(*work, state));
    let mut trees = match trees.collect::<Result<Vec<_>>>() {
        Ok(trees) => trees,
        Err(error) => return setups.iter().map(|_| Err(error.duplicate())).collect(),
    };
    let shared = Shared { ctx: &reading_ctx, rest: whole.context(), nodes: &nodes, unsteady: &unsteady };
    let pipeline = Pipeline {
        group: &whole,
        shared,
        idle: &idle,
        stocks: &stocks,
        works: &works,
        destinations: &destinations,
        reading,
    };
    let outcomes = pipeline.run(sources, &mut trees);
    let unsteady = unsteady.load(Ordering::Relaxed);
    let all = outcomes.into_iter().zip(&trees).zip(&stocks);
    all.map(|((outcome, tree), stock)| done(stock, tree, outcome, unsteady)).collect()
}

fn done(stock: &Stock<'_>, tree: &TreeWriter<'_>, outcome: Outcome, unsteady: u64) -> Result<Done> {
    let tally = tree.tally();
    Ok(Done {
        committed: outcome.committed?,
        unsteady,
        duration: outcome.duration,
        stats: tree.figures(tally.stats),
        unchanged: tally.unchanged,
        renamed: tally.renamed,
        read: stock.read.load(Ordering::Relaxed),
        grew: tally.growth.directories(),
        packs: stock.data.packs.ours(),
    })
}

/// The state that the threads share.
struct Pipeline<'p> {
    group: &'p Group<'p>,
    shared: Shared<'p>,
    /// The number of workers that wait for something to do.
    idle: &'p AtomicUsize,
    /// One for each repository, like `works` and `destinations`.
    stocks: &'p [Stock<'p>],
    works: &'p [Workspace<'p>],
    destinations: &'p [Destination<'p>],
    reading: Option<Reading<'p>>,
}

impl<'p> Pipeline<'p> {
    /// Runs the walk in this thread and all others beside it, until all have ended.
    fn run(&self, sources: &mut Sources<'_>, trees: &mut [TreeWriter<'_>]) -> Vec<Outcome> {
        // A channel ends when all its senders are dropped. `loads`: files to read, from the walk to the workers. `tasks`: chunks
        // of a large file, from the worker that reads it to idle workers; without a buffer, so that a chunk is handed over only
        // to a worker that waits. `working`: until the workers have ended.
        let (loads_in, loads) = crossbeam_channel::bounded(LOADS);
        let (tasks_in, tasks) = crossbeam_channel::bounded(0);
        let (working, ended) = crossbeam_channel::bounded(0);
        let workers = self.stocks.iter().map(|stock| stock.setup.budget.workers).min().unwrap_or(1);
        let (loads, tasks, ended) = (&loads, &tasks, &ended);
        thread::scope(|scope| {
            let served: Vec<_> = self.stocks.iter().zip(trees).collect();
            let served = served.into_iter().map(|(stock, tree)| scope.spawn(move || self.serve(stock, tree, ended)));
            let served: Vec<_> = served.collect();
            let running = (0..workers).map(|_| {
                let offer = tasks_in.clone();
                scope.spawn(move || self.group.run(|| self.work(offer, loads, tasks)))
            });
            let running: Vec<_> = running.collect();
            drop(tasks_in);
            let (early, wanted) = crossbeam_channel::bounded(2 * EARLY);
            if let Some(Reading { fetch, .. }) = self.reading {
                for _ in 0..EARLY {
                    let wanted: Receiver<Ref> = wanted.clone();
                    scope.spawn(move || fetch_early(self.shared.ctx, fetch, &wanted));
                }
            }
            drop(wanted);
            let batcher = Batcher::new(self.shared.ctx, self.shared.rest, self.destinations, loads_in);
            if !matches!(self.group.step(|| self.walk(sources, batcher, early)), Ok(Some(()))) {
                self.cut();
            }
            for worker in running {
                worker.join().expect("it does not panic");
            }
            drop::<Sender<()>>(working);
            for stock in self.stocks {
                stock.group.run(|| stock.data.finish());
            }
            served.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        })
    }

    /// Ends the queues before the end of the walk.
    fn cut(&self) {
        self.works.iter().for_each(|work| work.is_cut.store(true, Ordering::SeqCst));
        self.destinations.iter().for_each(|destination| destination.queue.close());
    }

    /// Runs a worker thread.
    fn work(&self, offer: Sender<Task>, loads: &Receiver<Load>, tasks: &Receiver<Task>) -> Result<()> {
        let compression = self.stocks.first().map_or(0, |stock| stock.setup.options.compression);
        let worker = Worker::new(self.shared, self.works, self.idle, compression, offer)?;
        let read = worker.run(loads, tasks)?;
        for (stock, bytes) in self.stocks.iter().zip(read) {
            stock.read.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs the thread of one repository: uploads packs and writes the tree in further threads, then
    /// commits. `ended`: a channel that ends with the workers.
    fn serve(&self, stock: &Stock<'_>, tree: &mut TreeWriter<'_>, ended: &Receiver<()>) -> Outcome {
        let (setup, group) = (stock.setup, stock.group);
        let root = thread::scope(|scope| {
            for _ in 0..setup.budget.uploads {
                scope.spawn(|| group.run(|| data_packs::upload(setup.repo, &stock.data, &stock.packs_out)));
            }
            group.run(|| tree.run()).flatten()
        });
        if self.shared.ctx.is_stopped() {
            let _ = ended.recv(); // batches that they finish meanwhile are kept too
        }
        let resumes = if self.reading.is_some() { RESUMES_COPY } else { RESUMES };
        let committed = group.result().and_then(|()| match root {
            Some(root) => tree.finish(root, setup.newest.as_ref()),
            None => self.shared.ctx.check().and_then(|()| Err(Error::failed("the tree was not written"))),
        });
        let committed = committed
            .map_err(|error| if tree.keep() && error.hint_text().is_none() { error.hint(resumes) } else { error });
        Outcome { committed, duration: setup.started.elapsed() }
    }

    /// Runs the thread of the walk.
    fn walk(&self, sources: &mut Sources<'_>, batcher: Batcher<'_>, early: Sender<Ref>) -> Result<()> {
        let (Shared { ctx, nodes, .. }, destinations) = (self.shared, self.destinations);
        let (Some(stock), Some(destination)) = (self.stocks.first(), destinations.first()) else { return Ok(()) };
        let options = stock.setup.options;
        match sources {
            Sources::Files(plan, paths) => {
                let picker = Picker::new(options, ctx, paths);
                let (exclude, patience) = (&options.exclude_dev_ino, options.patience);
                Walk { ctx, destinations, nodes, exclude, patience }.run(plan, picker, batcher)
            }
            Sources::Streams(streams) => {
                Streams { destinations, nodes, time: stock.setup.draft.time }.run(streams, batcher)
            }
            Sources::Saved(_) => {
                let Some(reading) = self.reading else { return Ok(()) };
                let Destination { parents, trees, .. } = *destination;
                let (copies, data) = (&stock.setup.copies, &stock.data);
                SavedWalk { reading, ctx, copies, parents, trees, data, early }.run(batcher)
            }
        }
    }
}

/// Runs a thread that fetches contents of another repository early.
fn fetch_early(ctx: &Context, fetch: &Fetch<'_>, wanted: &Receiver<Ref>) {
    wanted.iter().filter(|_| !ctx.is_stopped()).for_each(|r| fetch.touch(ctx, &r));
}
