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
//! Every queue is bounded; the first failure ends all threads. Nothing counts before the record is there, so a push that
//! is cut off anywhere leaves the repository as it was, but for packs that nobody names.

mod chunks;
mod commit;
mod control;
mod cut;
mod data;
mod feed;
mod folder;
mod item;
mod line;
mod listing;
mod lists;
mod meta;
mod metapack;
mod packs;
mod parent;
mod pick;
mod read;
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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_bytes::ByteBuf;

use crate::error::{Error, Result};
use crate::format::record::{NOT_SYNCED, Snapshot, Stats};
use crate::format::reference::Ref;
use crate::progress::Progress;
use crate::repo::{Index, Repository, State, random};

use chunks::Chunks;
use control::Control;
use cut::Shared;
use data::Data;
use feed::Feed;
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
            stop: Arc::default(),
        }
    }
}

/// What a push did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The snapshot as it was committed, or would have been.
    pub snapshot: Snapshot,
    /// Whether it was. Not with `skip_if_unchanged` if nothing has changed.
    pub committed: bool,
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
    /// Entries that were left out because `select` says so; a folder counts as one.
    pub excluded: u64,
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
/// `options.stop` says so. No snapshot is added then; contents that were stored already are kept for the next push.
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
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let begun = (begun.as_secs() as i64, begun.subsec_nanos());
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
        if parent.time > begun {
            return Err(Error::failed(format!("snapshot {text} is from the future: it proves nothing about files")));
        }
        parents.snapshots = vec![parent];
    }
    if options.force {
        parents.snapshots.clear();
    }
    let (chunks, packs) = (Chunks::default(), Packs::new(&control));
    let time = options.time.unwrap_or(begun);
    let run = Run { repo, options, control: &control, parents: &parents, state: &state, time };
    let done = match run.run(sources, &chunks, &packs) {
        Ok(done) => done,
        Err(e) => {
            let kept = commit::keep(repo, &mut state, chunks, packs).unwrap_or(false);
            let again = "the same push again goes on from there";
            let hint = format!("what was stored so far is kept and not sent again: {again}");
            return Err(if kept && e.hint_text().is_none() { e.hint(hint) } else { e });
        }
    };
    let ours = packs.ours();
    let snapshot = Snapshot {
        id: random()?,
        time,
        host: options.host.clone(),
        user: options.user.clone(),
        paths: paths.into_iter().map(ByteBuf::from).collect(),
        more_paths: 0,
        group,
        tags: sorted(&options.tags),
        description: options.description.clone(),
        root: done.root,
        partial: false,
        warnings: if repo.storage().syncs() { 0 } else { NOT_SYNCED },
        stats: Stats { milliseconds: started.elapsed().as_millis() as u64, ..done.stats },
        program: concat!("nfreezer ", env!("CARGO_PKG_VERSION")).into(),
        extra: Vec::new(),
    };
    let snapshot = commit::fit(snapshot)?;
    let committed = !options.skip_if_unchanged || last != Some(done.root);
    if committed {
        commit::commit(repo, &mut state, snapshot.clone(), chunks, packs, done.meta)?;
    } else {
        commit::keep(repo, &mut state, chunks, packs)?;
    }
    let (sent, received) = repo.storage().traffic();
    let stats = snapshot.stats;
    Ok(Summary {
        snapshot,
        committed,
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
        excluded: control.excluded(),
        packs: ours,
        duration: started.elapsed(),
    })
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
    state: &'r State,
    time: (i64, u32),
}

struct Done {
    root: Option<Ref>,
    stats: Stats,
    unchanged: u64,
    renamed: u64,
    read: u64,
    meta: Vec<(u32, crate::format::pack::Entry)>,
}

impl Run<'_> {
    fn run(&self, sources: Sources<'_>, chunks: &Chunks, packs: &Packs<'_>) -> Result<Done> {
        let Run { repo, options, control, parents, state, time } = *self;
        let index = Index::new(repo, state);
        let (nodes, warned, idle) = (Nodes::default(), AtomicBool::new(false), AtomicUsize::new(0));
        let line = Line::new(control);
        let (uploads, to_upload) = crossbeam_channel::bounded(0);
        let (work, to_do) = crossbeam_channel::bounded(WAITING);
        let (offer, tasks) = crossbeam_channel::bounded(0);
        let data = Data::new(control, chunks, packs, uploads);
        let feed = Feed::new(control, &line, work);
        let shared = Shared {
            repo,
            control,
            nodes: &nodes,
            index: &index,
            data: &data,
            line: &line,
            idle: &idle,
            warned: &warned,
        };
        let meta = MetaPack::new(repo, control, packs, &index, options.compression)?;
        let mut tree = Tree::new(repo, control, &line, &data, meta);
        let (root, read, written) = thread::scope(|scope| {
            let uploaders: Vec<_> = (0..data::UPLOADS)
                .map(|_| scope.spawn(|| control.run(|| data::upload(repo, &data, &to_upload))))
                .collect();
            let workers: Vec<_> = (0..workers())
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
            let written: u64 =
                uploaders.into_iter().filter_map(|thread| thread.join().expect("it does not panic")).sum();
            let root: Option<Option<Ref>> = tree.join().expect("it does not panic");
            (root.flatten(), read, written)
        });
        control.result()?;
        let stats = Stats { added: data.added() + tree.meta.added, stored: tree.meta.written + written, ..tree.stats };
        let (unchanged, renamed) = (tree.unchanged, tree.renamed);
        Ok(Done { root, stats, unchanged, renamed, read, meta: tree.meta.into_entries() })
    }
}

/// Batches between the walker and the workers.
const WAITING: usize = 8;

/// Workers: one for each core, but no more than the memory for their windows (8 MiB each) allows; four of them read
/// more than any line takes.
fn workers() -> usize {
    thread::available_parallelism().map_or(2, usize::from).clamp(1, 4)
}
