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
mod feed;
mod folder;
mod growth;
mod item;
mod large;
mod line;
mod listing;
mod lists;
mod meta;
mod metapack;
mod moved;
mod packs;
mod parent;
mod pick;
mod read;
mod relied;
mod select;
mod source;
mod stream;
mod streams;
mod tree;
mod walk;

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;

use crate::error::{Error, Result};
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
use feed::Feed;
use large::Large;
use line::Line;
use meta::Nodes;
use metapack::MetaPack;
use packs::Packs;
use parent::Parents;
use pick::Picker;
use read::Reader;
use source::Plan;
use streams::Streams;
use tree::Tree;
use walk::Walk;

pub use checkpoint::Checkpoints;
pub use select::{IGNORE_FILE, Pattern, Select};
pub use stream::{Failure, Opener, Stream, StreamKind, tree_order};

/// What to push, and what to write on the snapshot.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute paths; what lies inside another one is saved once. Of [`push_streams`]: what the snapshot says that it
    /// was taken of, which need not exist.
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
    /// What is left out below the sources. It makes no snapshot another one's kind: that is said by host and sources.
    pub select: Arc<Select>,
    /// Directories, by (device, inode), that are left out with a warning: the repository itself.
    pub exclude_dev_ino: Vec<(u64, u64)>,
    /// Devices of which everything is left out with a warning: mounted backups.
    pub exclude_devices: Vec<u64>,
    /// Reads everything again, whatever earlier snapshots say.
    pub force: bool,
    /// The snapshot to compare with, as [`State::select`] takes it, instead of the newest one of the same kind.
    pub parent: Option<String>,
    /// Makes no snapshot if it would hold just what the last whole one of the same host and sources holds.
    pub skip_if_unchanged: bool,
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
            select: Arc::default(),
            exclude_dev_ino: Vec::new(),
            exclude_devices: Vec::new(),
            force: false,
            parent: None,
            skip_if_unchanged: false,
            memory: 256 << 20,
            checkpoints: Checkpoints::default(),
            stop: Arc::default(),
        }
    }
}

/// What a push did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The snapshot as it was committed, or would have been.
    pub snapshot: Snapshot,
    /// The record that holds it; none if `skip_if_unchanged` was wanted and nothing has changed.
    pub record: Option<ObjectId>,
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
    /// Files that changed each time they were read. What was read last is kept and marked; each was reported.
    pub changed_while_read: u64,
    /// Entries that were left out because `select` says so; a folder counts as one.
    pub excluded: u64,
    /// The folders that grew most, with the bytes of files in and below them whose contents the repository did not have;
    /// what counts for one does not count for those above it. At most ten, most first.
    pub grew: Vec<(Vec<u8>, u64)>,
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
    let paths = source::paths(&options.sources)?;
    let plan = source::plan(&paths)?;
    save(repo, options, &paths, Sources::Plan(&plan, &paths), progress)
}

/// Takes a snapshot of streams instead of files, which come in [`tree_order`], each path once. They are cut, sent and
/// compared with the previous snapshot as files are, but every one of them is read.
///
/// # Errors
///
/// Those of [`push`]; an error that `streams` gives; a path out of order, below a file, or not absolute.
pub fn push_streams(
    repo: &Repository,
    options: &Options,
    mut streams: impl Iterator<Item = Result<Stream>>,
    progress: &dyn Progress,
) -> Result<Summary> {
    let paths = source::paths(&options.sources)?;
    save(repo, options, &paths, Sources::Streams(&mut streams), progress)
}

/// Where what is saved comes from.
enum Sources<'s> {
    Plan(&'s Plan, &'s [PathBuf]),
    Streams(&'s mut dyn Iterator<Item = Result<Stream>>),
}

fn save(
    repo: &Repository,
    options: &Options,
    paths: &[PathBuf],
    sources: Sources<'_>,
    progress: &dyn Progress,
) -> Result<Summary> {
    let started = Instant::now();
    let begun = crate::repo::moment();
    let traffic = repo.storage().traffic();
    let control = Control::new(progress, Arc::clone(&options.stop));
    control.check()?;
    let paths: Vec<Vec<u8>> = paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    let mut state = repo.state()?;
    state.warnings().iter().for_each(|text| control.warn(text));
    let group = group(repo, &options.host, &paths);
    let mut parents = Parents::choose(&state, &options.host, group, begun);
    let last = parents.snapshots.iter().find(|s| !s.partial && s.group == group).map(|s| s.root);
    if let Some(text) = &options.parent {
        let parent = state.select(text)?;
        if parent::began(&parent) > begun {
            return Err(Error::failed(format!("snapshot {text} is from the future: it proves nothing about files")));
        }
        parents.snapshots = vec![parent];
    }
    if options.force {
        parents.snapshots.clear();
    }
    let budget = Budget::new(
        options.memory,
        state.index_len() / FINGERPRINTS,
        thread::available_parallelism().map_or(2, usize::from),
    )?;
    let cache = repo.set_cache(budget.cache);
    let draft = draft(repo, options, begun, (paths, group));
    let run = Run { repo, options, control: &control, parents: &parents, budget, started };
    let done = run.run(sources, &mut state, draft, last.filter(|_| options.skip_if_unchanged));
    repo.set_cache(cache);
    let done = done?;
    if let Err(e) = repo.merge(&mut state) {
        control.warn(&format!("the log stays longer than it should, the next push tries again to shorten it: {e}"));
    }
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
        changed_while_read: control.changed_while_read(),
        excluded: control.excluded(),
        grew: done.grew,
        packs: done.packs,
        duration: started.elapsed(),
    })
}

/// The snapshot that is to be, but for its id, root and figures.
fn draft(repo: &Repository, options: &Options, begun: (i64, u32), (paths, group): (Vec<Vec<u8>>, u64)) -> Snapshot {
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
        extra: parent::note_begin(options.time.unwrap_or(begun), begun),
    }
}

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
    record: Option<ObjectId>,
    unchanged: u64,
    renamed: u64,
    read: u64,
    grew: Vec<(Vec<u8>, u64)>,
    packs: u64,
}

impl Run<'_> {
    /// `last`: the root of a snapshot that is not made again.
    fn run(&self, sources: Sources<'_>, state: &mut State, draft: Snapshot, last: Option<Option<Ref>>) -> Result<Done> {
        let Run { repo, options, control, parents, budget, started } = *self;
        let (chunks, packs, large) = (Chunks::default(), Packs::new(control), Large::default());
        let time = draft.time;
        let index = Index::new(repo, state).with_memory(budget.index);
        let (nodes, warned, idle) = (Nodes::default(), AtomicBool::new(false), AtomicUsize::new(0));
        let line = Line::new(control, budget.nodes);
        let (uploads, to_upload) = crossbeam_channel::bounded(0);
        let (work, to_do) = crossbeam_channel::bounded(WAITING);
        let (offer, tasks) = crossbeam_channel::bounded(0);
        let data = Data::new(control, &chunks, &packs, uploads, budget.open);
        let feed = Feed::new(control, &line, work);
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
            control.run(|| match sources {
                Sources::Plan(plan, paths) => {
                    let picker = Picker::new(&options.select, control, paths, &options.exclude_devices);
                    let exclude = &options.exclude_dev_ino;
                    Walk { repo, control, parents, nodes: &nodes, exclude }.run(plan, picker, feed)
                }
                Sources::Streams(streams) => Streams { repo, control, parents, nodes: &nodes, time }.run(streams, feed),
            });
            let read: u64 = workers.into_iter().filter_map(|worker| worker.join().expect("it does not panic")).sum();
            control.run(|| data.finish());
            let root: Option<Option<Ref>> = tree.join().expect("it does not panic");
            (root.flatten(), read)
        });
        let done = control.result().and_then(|()| tree.finish(root, last));
        let (snapshot, record) = done.map_err(|e| match tree.keep() {
            true if e.hint_text().is_none() => e.hint(GOES_ON),
            _ => e,
        })?;
        let (unchanged, renamed) = (tree.unchanged, tree.renamed);
        Ok(Done { snapshot, record, unchanged, renamed, read, grew: tree.growth.folders(), packs: packs.ours() })
    }
}

/// What an interrupted push says.
const GOES_ON: &str = "what was stored so far is kept: the same push again goes on from there";

/// Bytes of an index for each byte of memory that is worth giving to it: its fingerprints, and room for whole sections.
const FINGERPRINTS: u64 = 6;

/// Batches between the walker and the workers.
const WAITING: usize = 8;
