//! Takes a snapshot: reads what has changed, stores what the repository does not have, commits one record.
//!
//! ```text
//!            batches           chunks, stored form            packs
//! walker  ------------->  workers  ------------->  open data packs  ------>  sealing and storing threads
//!    |  \_____________________|_____ the same batches, in order _____            |
//!    |        unchanged       |                                     \            | acknowledged
//!  parent snapshot         index, run's chunks                     tree  <------'
//!                                                                    |  pages, lists
//!                                                            metadata packs, then the record
//! ```
//!
//! Every queue is bounded; the first failure ends all threads. Nothing counts before a record is there, so a push that
//! is cut off anywhere leaves the snapshots that there were as they are. What is stored is committed now and then with an
//! unfinished snapshot ([`Checkpoints`]), so that the next push goes on from there.

mod budget;
mod checkpoint;
mod chunks;
mod commit;
mod control;
mod cut;
mod data;
mod folder;
mod item;
mod large;
mod line;
mod listing;
mod lists;
mod meta;
mod metapack;
mod packs;
mod parent;
mod read;
mod source;
mod tree;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_bytes::ByteBuf;

use crate::error::Result;
use crate::format::record::{NOT_SYNCED, Snapshot, Stats};
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::progress::Progress;
use crate::repo::{Index, Repository, State};

use budget::Budget;
use checkpoint::Schedule;
use chunks::Chunks;
use commit::Ledger;
use control::Control;
use cut::Shared;
use data::Data;
use large::Large;
use line::Line;
use meta::Nodes;
use metapack::MetaPack;
use packs::Packs;
use parent::Parents;
use read::Reader;
use source::Plan;
use tree::Tree;
use walk::Walk;

pub use checkpoint::Checkpoints;

/// What to push, and what to write on the snapshot.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute paths; what lies inside another one is saved once.
    pub sources: Vec<PathBuf>,
    /// The machine's name.
    pub host: String,
    /// Who runs the push.
    pub user: String,
    /// Labels, in any order.
    pub tags: Vec<String>,
    /// Free text.
    pub description: String,
    /// The snapshot's time (seconds since the epoch, nanoseconds) if not now.
    pub time: Option<(i64, u32)>,
    /// Level of zstd, 1 to 22; 0: file contents are not compressed (metadata always is).
    pub compression: i32,
    /// Directories, by (device, inode), that are left out: the repository itself, mounted snapshots.
    pub exclude_dev_ino: Vec<(u64, u64)>,
    /// Most bytes of memory that it uses, beside those of the KDF; at least 104 MiB.
    pub memory: u64,
    /// When to commit what there is so far.
    pub checkpoints: Checkpoints,
    /// The number of the signal that asks to stop; 0 as long as there is none.
    pub stop: Arc<AtomicI32>,
}

impl Default for Options {
    /// Of nothing yet, by nobody.
    fn default() -> Self {
        Options {
            sources: Vec::new(),
            host: String::new(),
            user: String::new(),
            tags: Vec::new(),
            description: String::new(),
            time: None,
            compression: 3,
            exclude_dev_ino: Vec::new(),
            memory: 256 << 20,
            checkpoints: Checkpoints::default(),
            stop: Arc::default(),
        }
    }
}

/// What a push did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The snapshot as it was committed.
    pub snapshot: Snapshot,
    /// The record that holds it.
    pub record: ObjectId,
    /// The snapshot that it was compared with.
    pub parent: Option<[u8; 16]>,
    /// Files that were not there before.
    pub new: u64,
    /// Files with other contents or attributes than before.
    pub changed: u64,
    /// Files that were there just so.
    pub unchanged: u64,
    /// Files that were somewhere else before, recognised without reading them.
    pub renamed: u64,
    /// Bytes of files that were read.
    pub read: u64,
    /// Plaintext bytes of chunks that the repository did not have, metadata included.
    pub added: u64,
    /// Bytes of the packs that were written for them.
    pub stored: u64,
    /// Bytes that went to the storage, as it counts them.
    pub sent: u64,
    /// Bytes that came from the storage, as it counts them.
    pub received: u64,
    /// Nodes that could not be saved, or not completely; each was reported.
    pub skipped: u64,
    /// Packs written.
    pub packs: u64,
    /// From the beginning to the commit.
    pub duration: Duration,
}

/// Takes a snapshot of `options.sources`. Files that cannot be read are reported to `progress`, counted, and do not
/// stop it.
///
/// # Errors
///
/// A source that does not exist; everything that the storage cannot do; [`crate::error::Kind::Interrupted`] when
/// `options.stop` says so. What was stored until then is kept with a partial snapshot, and the same push again goes on
/// from there.
pub fn push(repo: &Repository, options: &Options, progress: &dyn Progress) -> Result<Summary> {
    let started = Instant::now();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let begun = (begun.as_secs() as i64, begun.subsec_nanos());
    let traffic = repo.storage().traffic();
    let control = Control::new(progress, Arc::clone(&options.stop));
    control.check()?;
    let (plan, paths) = source::plan(&options.sources)?;
    let mut state = repo.state()?;
    state.warnings().iter().for_each(|text| control.warn(text));
    let group = group(repo, &options.host, &paths);
    let parents = Parents::choose(&state, &options.host, group, begun);
    let budget = Budget::new(
        options.memory,
        state.index_len() / FINGERPRINTS,
        thread::available_parallelism().map_or(2, usize::from),
    )?;
    let cache = repo.set_cache(budget.cache);
    let draft = draft(repo, options, begun, (paths, group));
    let run = Run { repo, options, control: &control, parents: &parents, budget, started };
    let done = run.run(&plan, &mut state, draft);
    repo.set_cache(cache);
    let done = done?;
    let (sent, received) = repo.storage().traffic();
    let stats = done.snapshot.stats;
    Ok(Summary {
        snapshot: done.snapshot,
        record: done.record,
        parent: parents.snapshots.first().map(|parent| parent.id),
        new: stats.new,
        changed: stats.changed,
        unchanged: done.unchanged,
        renamed: done.renamed,
        read: done.read,
        added: stats.added,
        stored: stats.stored,
        sent: sent - traffic.0,
        received: received - traffic.1,
        skipped: control.skipped(),
        packs: done.packs,
        duration: started.elapsed(),
    })
}

/// The snapshot that is to be, but for its id, root and figures.
fn draft(repo: &Repository, options: &Options, begun: (i64, u32), (paths, group): (Vec<Vec<u8>>, u64)) -> Snapshot {
    let real = |begun: (i64, u32)| [begun.0.to_be_bytes().as_slice(), &begun.1.to_be_bytes()].concat();
    Snapshot {
        id: [0; 16],
        time: options.time.unwrap_or(begun),
        host: options.host.clone(),
        user: options.user.clone(),
        paths: paths.into_iter().map(ByteBuf::from).collect(),
        more_paths: 0,
        group,
        tags: sorted(&options.tags),
        description: options.description.clone(),
        root: None,
        partial: false,
        warnings: if repo.storage().syncs() { 0 } else { NOT_SYNCED },
        stats: Stats::default(),
        program: concat!("nfreezer ", env!("CARGO_PKG_VERSION")).into(),
        extra: options.time.map(|_| (BEGUN, ByteBuf::from(real(begun)))).into_iter().collect(),
    }
}

/// Key of `extra` of a snapshot whose time was given: when the push really began, be64(seconds) || be32(nanoseconds).
const BEGUN: u32 = 1;

/// `name_hash(2, host || 0 || path || 0 || ..)`
fn group(repo: &Repository, host: &str, paths: &[Vec<u8>]) -> u64 {
    let parts = std::iter::once(host.as_bytes()).chain(paths.iter().map(Vec::as_slice));
    let bytes: Vec<u8> = parts.flat_map(|part| part.iter().copied().chain([0])).collect();
    repo.keys().name_hash(2, &bytes)
}

fn sorted(tags: &[String]) -> Vec<String> {
    let mut tags = tags.to_vec();
    tags.sort();
    tags.dedup();
    tags
}

/// The threads of one push.
struct Run<'r> {
    repo: &'r Repository,
    options: &'r Options,
    control: &'r Control<'r>,
    parents: &'r Parents,
    budget: Budget,
    started: Instant,
}

struct Done {
    snapshot: Snapshot,
    record: ObjectId,
    unchanged: u64,
    renamed: u64,
    read: u64,
    packs: u64,
}

impl Run<'_> {
    fn run(&self, plan: &Plan, state: &mut State, draft: Snapshot) -> Result<Done> {
        let Run { repo, options, control, parents, budget, started } = *self;
        let (chunks, packs, large) = (Chunks::default(), Packs::new(control), Large::default());
        let index = Index::new(repo, state).with_memory(budget.index);
        let (nodes, warned, idle) = (Nodes::default(), AtomicBool::new(false), AtomicUsize::new(0));
        let line = Line::new(control, budget.nodes);
        let (uploads, to_upload) = crossbeam_channel::bounded(0);
        let (work, to_do) = crossbeam_channel::bounded(WAITING);
        let (offer, tasks) = crossbeam_channel::bounded(0);
        let data = Data::new(control, &chunks, &packs, uploads, budget.open);
        let walk = Walk { repo, control, parents, nodes: &nodes, line: &line, work, exclude: &options.exclude_dev_ino };
        let shared = Shared {
            repo,
            control,
            nodes: &nodes,
            index: &index,
            data: &data,
            line: &line,
            large: &large,
            idle: &idle,
            warned: &warned,
        };
        let meta = MetaPack::new(repo, control, &packs, &index, options.compression)?;
        let (chunks, packs) = (&chunks, &packs);
        let index = &index;
        let ledger = Ledger { repo, control, state, chunks, packs, index, started, draft, partial: None };
        let schedule = Schedule::new(options.checkpoints, budget.chunks);
        let mut tree = Tree::new(control, &line, &data, (index, &large), meta, ledger, schedule);
        let (root, read) = thread::scope(|scope| {
            for _ in 0..budget.uploads {
                scope.spawn(|| control.run(|| data::upload(repo, &data, &to_upload)));
            }
            let workers: Vec<_> = (0..budget.workers)
                .map(|_| {
                    let (offer, to_do, tasks) = (offer.clone(), &to_do, &tasks);
                    scope.spawn(move || {
                        control.run(|| Reader::new(shared, options.compression, offer)?.run(to_do, tasks))
                    })
                })
                .collect();
            drop(offer);
            let tree = scope.spawn(|| control.run(|| tree.run()));
            control.run(|| walk.run(plan));
            let read: u64 = workers.into_iter().filter_map(|worker| worker.join().expect("it does not panic")).sum();
            control.run(|| data.finish());
            let root: Option<Option<Ref>> = tree.join().expect("it does not panic");
            (root.flatten(), read)
        });
        let done = control.result().and_then(|()| tree.finish(root));
        let (snapshot, record) = done.map_err(|e| match tree.keep() {
            true if e.hint_text().is_none() => e.hint(GOES_ON),
            _ => e,
        })?;
        let (unchanged, renamed) = (tree.unchanged, tree.renamed);
        Ok(Done { snapshot, record, unchanged, renamed, read, packs: packs.ours() })
    }
}

/// What an interrupted push says.
const GOES_ON: &str = "what was stored so far is kept: the same push again goes on from there";

/// Bytes of an index for each byte of memory that is worth giving to it: its fingerprints, and room for whole sections.
const FINGERPRINTS: u64 = 6;

/// Batches between the walker and the workers.
const WAITING: usize = 8;
