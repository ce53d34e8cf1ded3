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
mod compare;
mod control;
mod options;
mod pack;
mod read;
mod tree;
mod walk;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_bytes::ByteBuf;

use crate::error::{Error, Result};
use crate::format::record::{NOT_SYNCED, Snapshot, Stats};
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::progress::Progress;
use crate::repo::{Index, Repository, State};

use budget::Budget;
use compare::parents::{self, Parents};
use control::Control;
use pack::chunks::Chunks;
use pack::data_packs::{self, Data};
use pack::packs::Packs;
use pack::queue::Line;
use read::attributes::Nodes;
use read::cutter::Shared;
use read::partial::Large;
use read::reader::Reader;
use tree::checkpoint::Schedule;
use tree::ledger::Ledger;
use tree::metapack::MetaPack;
use tree::writer::Tree;
use walk::batcher::Feed;
use walk::picker::Picker;
use walk::sources::{self, Plan};
use walk::streams::Streams;
use walk::walker::Walk;

pub use budget::LEAST;
pub use options::{Options, Summary};
pub use read::stream::{Failure, Opener, Stream, StreamKind, tree_order};
pub use tree::checkpoint::Checkpoints;
pub use walk::select::{IGNORE_FILE, Pattern, Select};

/// Takes a snapshot of `options.sources`. Files that cannot be read are reported to `progress`, counted, and do not
/// stop it.
///
/// # Errors
///
/// A source that does not exist; everything that the storage cannot do; [`crate::error::Kind::Interrupted`] when
/// `options.stop` says so. What was stored until then is kept with a partial snapshot, and the same push again goes on
/// from there.
pub fn push(repo: &Repository, options: &Options, progress: &dyn Progress) -> Result<Summary> {
    let paths = sources::paths(&options.sources)?;
    let plan = sources::plan(&paths)?;
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
    let paths = sources::paths(&options.sources)?;
    save(repo, options, &paths, Sources::Streams(&mut streams), progress)
}

/// Where what is saved comes from.
enum Sources<'s> {
    Plan(&'s Plan, &'s [PathBuf]),
    Streams(&'s mut dyn Iterator<Item = Result<Stream>>),
}

/// Saves; again from the beginning, with what is stored by then, if packs were condemned meanwhile.
fn save(
    repo: &Repository,
    options: &Options,
    paths: &[PathBuf],
    mut sources: Sources<'_>,
    progress: &dyn Progress,
) -> Result<Summary> {
    let outdated = AtomicBool::new(false);
    for _ in 0..ROUNDS {
        let result = save_once(repo, options, paths, &mut sources, progress, &outdated);
        if !outdated.swap(false, Ordering::Relaxed) || matches!(sources, Sources::Streams(_)) {
            return result;
        }
    }
    save_once(repo, options, paths, &mut sources, progress, &outdated)
}

fn save_once(
    repo: &Repository,
    options: &Options,
    paths: &[PathBuf],
    sources: &mut Sources<'_>,
    progress: &dyn Progress,
    outdated: &AtomicBool,
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
        if parents::began(&parent) > begun {
            return Err(Error::failed(format!("snapshot {text} is from the future: it proves nothing about files")));
        }
        parents.snapshots = vec![parent];
    }
    if options.force {
        parents.snapshots.clear();
    }
    let absent = repo.absent_packs(&state, LOOKED_AT)?;
    if !absent.is_empty() {
        control.warn(&missing(absent.len()));
        parents.doom(&absent);
    }
    let budget = Budget::new(
        options.memory,
        state.index_len() / FINGERPRINTS,
        thread::available_parallelism().map_or(2, usize::from),
    )?;
    let cache = repo.set_cache(budget.cache);
    let draft = draft(repo, options, begun, (paths, group));
    let run = Run { repo, options, control: &control, parents: &parents, budget, started, absent, outdated };
    let done = run.run(sources, &mut state, draft, last.filter(|_| options.skip_if_unchanged));
    repo.set_cache(cache);
    let done = done?;
    let sequence = done.record.and_then(|id| state.sequence(&id));
    if let Err(e) = repo.merge(&mut state) {
        control.warn(&format!("the log stays longer than it should, the next push tries again to shorten it: {e}"));
    }
    let (sent, received) = repo.storage().traffic();
    let stats = done.snapshot.stats;
    Ok(Summary {
        snapshot: done.snapshot,
        record: done.record,
        sequence,
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
        extra: parents::note_begin(options.time.unwrap_or(begun), begun),
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
    absent: BTreeSet<ObjectId>,
    outdated: &'r AtomicBool,
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
    fn run(
        &self,
        sources: &mut Sources<'_>,
        state: &mut State,
        draft: Snapshot,
        last: Option<Option<Ref>>,
    ) -> Result<Done> {
        let Run { repo, options, control, parents, budget, started, outdated, .. } = *self;
        let (chunks, packs, large) = (Chunks::default(), Packs::new(control), Large::default());
        let time = draft.time;
        let index = Index::new(repo, state).with_memory(budget.index);
        index.doom(&self.absent);
        let (doomed, absent) = (state.doomed_packs(), self.absent.clone());
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
        let partial = None;
        let ledger =
            Ledger { repo, control, state, chunks, packs, index, started, draft, partial, absent, doomed, outdated };
        let schedule = Schedule::new(options.checkpoints, budget.chunks);
        let mut tree = Tree::new(control, &line, &data, (index, &large), meta, ledger, schedule);
        let (root, read) = thread::scope(|scope| {
            for _ in 0..budget.uploads {
                scope.spawn(|| control.run(|| data_packs::upload(repo, &data, &to_upload)));
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

/// Packs whose presence a push looks at: 1 MB of listings at most. Of more, it looks at others each time.
const LOOKED_AT: u64 = 4096;

/// Times that a push begins again because packs were condemned meanwhile.
const ROUNDS: usize = 3;

fn missing(packs: usize) -> String {
    let (packs, it) = if packs == 1 { ("1 pack is".to_owned(), "it") } else { (format!("{packs} packs are"), "them") };
    format!(
        "{packs} missing on the server: what is still here of {it} is sent again; `nfreezer check` shows what else is lost"
    )
}

/// Batches between the walker and the workers.
const WAITING: usize = 8;
