//! Restores everything that a snapshot holds below a path into a directory.
//!
//! The snapshot may come from a malicious writer of the same repository, and other users may be able to write into the
//! target. So every call works on one name below a directory that is held open and was opened without following a
//! symbolic link ([`dir`]); contents are verified as whole chunks before one byte of them is written; nothing appears
//! under its final name before it is complete, attributes included ([`file`]).
//!
//! One thread walks the tree in order ([`walk`]) and makes directories, links and special files; several threads fetch,
//! verify and write contents ([`queue`]). A directory gets its attributes when the last entry below it is done.

mod attributes;
mod delete;
mod dir;
mod dry;
mod file;
mod finish;
mod flags;
mod folded;
mod links;
mod local;
mod locks;
mod names;
mod node;
mod owners;
mod place;
mod queue;
mod rename;
mod reuse;
mod saved;
mod scope;
mod target;
mod walk;

pub use scope::Selection;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::context::{Context, Group};
use crate::error::{Error, Kind, Result};
use crate::format::node::Content;
use crate::format::record::Snapshot;
use crate::progress::Event;
use crate::repo::{Repository, State};
use crate::trees::{Fetch, Lookup, Trees};

/// Treatment of an existing entry that is not equal. Directories are merged in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Leave it as it is and report it. Equal contents are no failure, and the file is not touched.
    #[default]
    Never,
    /// Replace it; equal contents only get the saved attributes.
    IfChanged,
    /// Like `IfChanged`, if the saved entry was modified later. Otherwise leave it; that is no failure.
    IfNewer,
    /// Replace it without comparing.
    Always,
}

impl Overwrite {
    /// Returns whether a directory takes the place of something else.
    fn replaces_by_directory(self) -> bool {
        matches!(self, Overwrite::IfChanged | Overwrite::Always)
    }

    /// Returns whether existing files are compared and then replaced.
    fn compares(self) -> bool {
        matches!(self, Overwrite::IfChanged | Overwrite::IfNewer)
    }
}

/// Options of a restore.
#[derive(Clone, Debug)]
pub struct Options {
    /// Treatment of existing entries.
    pub overwrite: Overwrite,
    /// The entries to restore.
    pub selection: Selection,
    /// Whether entries of the target that the snapshot lacks are deleted, in the directories that are restored. Directories
    /// above the sources of the snapshot are left alone: it does not know what else was in them.
    pub delete: bool,
    /// Report and count only; nothing is written.
    pub dry_run: bool,
    /// Whether each file is read back from the disk and compared before it gets its name.
    pub verify: bool,
    /// Owners by number even where this machine knows the saved names.
    pub numeric_ids: bool,
    /// Threads that fetch, verify and write.
    pub threads: usize,
    /// The state in which chunks of dropped packs are looked up; without it, the log is read when one is needed.
    pub state: Option<State>,
}

impl Default for Options {
    fn default() -> Self {
        // More than cores: most of them wait for the server.
        Options {
            overwrite: Overwrite::Never,
            selection: Selection::default(),
            delete: false,
            dry_run: false,
            verify: false,
            numeric_ids: false,
            threads: 12,
            state: None,
        }
    }
}

/// The result of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Regular files written.
    pub files: u64,
    /// Their bytes, holes included.
    pub bytes: u64,
    /// Directories made or merged.
    pub directories: u64,
    /// Further names of files and others.
    pub links: u64,
    /// Symbolic links, named pipes, sockets and devices.
    pub others: u64,
    /// Entries that were there already and are equal.
    pub existing: u64,
    /// Entries that were left because they are not older than the saved ones.
    pub kept: u64,
    /// Entries that were deleted because the snapshot lacks them.
    pub deleted: u64,
    /// Files that were read back, or compared, and are as saved.
    pub verified: u64,
    /// Entries that are missing or incomplete because an object is damaged or missing.
    pub damaged: u64,
    /// Entries that could not be written, or were left because something else is in their place.
    pub failed: u64,
    /// Entries that the snapshot does not hold because they were not readable when it was taken.
    pub unreadable: u64,
    /// Devices that only root can make.
    pub left_out: u64,
    /// Owners and extended attributes that could not be set: not permitted to this user, or unknown to this file system.
    pub attributes: u64,
    /// Bytes of chunks that were taken from the files that they replace, and not fetched.
    pub reused: u64,
    /// Files and directories with flags (`chattr`) that could not be set.
    pub flags: u64,
    /// In a dry run, the stored bytes of the chunks that would be fetched.
    pub to_fetch: u64,
    /// Bytes received from the storage.
    pub received: u64,
    /// Its duration.
    pub duration: Duration,
}

/// Restores what `path` holds in `snapshot` into `target`: the entries of a directory land in it, anything else as
/// `target/NAME`. `target` is made if it is missing.
///
/// Every entry that is damaged or cannot be written is reported ([`Event::Skipped`]) and counted, and the rest is restored. An error
/// means that the restore ended early: the path is not in the snapshot, the connection is lost for good, the disk is full,
/// or the user stopped `ctx`.
pub fn restore(
    ctx: &Context,
    repo: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    target: &Path,
    options: &Options,
) -> Result<Summary> {
    let started = Instant::now();
    let (_, before) = repo.storage().traffic();
    let lookup = options.state.clone().map_or_else(Lookup::default, Lookup::from_state);
    let trees = &Trees::with(repo, Arc::new(lookup));
    let top = trees.at(ctx, snapshot, path)?;
    let is_directory = matches!(top.content, Content::Directory(_));
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
    // The root of a snapshot has no attributes of its own.
    let attributes = (is_directory && !parts.is_empty()).then_some(&top);
    let base = if is_directory { parts.as_slice() } else { &parts[..parts.len() - 1] };
    for path in &options.selection.paths {
        trees.at(ctx, snapshot, path)?; // a path that does not exist is an error before anything is written
    }
    let repository = repo.storage().local_path();
    if let Some(repository) = repository {
        target::check_outside(repository, target)?;
    }
    if options.delete {
        scope::check_delete(snapshot, target, &options.selection)?;
    }
    let scope = scope::Scope::new(&options.selection, snapshot);
    let name = [b"/", base.join(&b'/').as_slice()].concat();
    let paths = target::Paths::new(target, &name);
    let target = dir::open_target(target, &name, attributes, options.dry_run)?;
    if scope.is_all() && holds_all(snapshot, &parts) {
        ctx.event(Event::Total { files: snapshot.stats.files, bytes: snapshot.stats.bytes, complete: true });
    }
    let run = Run {
        group: Group::new(ctx),
        trees,
        options,
        scope,
        dry_links: dry::Links::default(),
        owners: owners::Owners::new(options.numeric_ids),
        tally: Tally::default(),
        fetch: Fetch::new(trees),
        links: links::Links::new(Arc::clone(&target.fd)),
        large: Mutex::default(),
        locks: flags::Locks::default(),
        repository: repository.and_then(target::identity_of),
        paths,
    };
    dir::name_torsos(&run, &target, &top.content);
    queue::work(&run, |queue| walk::walk(&run, queue, top, target));
    locks::finish(&run);
    run.group.result().map_err(interrupted)?;
    run.scope.unmatched().iter().for_each(|text| ctx.warn(text));
    let mut summary = run.tally.summary();
    summary.received = repo.storage().traffic().1.saturating_sub(before);
    summary.duration = started.elapsed();
    Ok(summary)
}

/// Returns whether the whole snapshot lies below this path, so that its figures hold for this restore.
fn holds_all(snapshot: &Snapshot, parts: &[&[u8]]) -> bool {
    let below = |source: &[u8]| {
        let mut source = source.split(|b| *b == b'/').filter(|part| !part.is_empty());
        parts.iter().all(|part| source.next() == Some(part))
    };
    parts.is_empty() || (snapshot.more_paths == 0 && snapshot.paths.iter().all(|p| below(p)))
}

/// One restore, shared by its threads.
struct Run<'a> {
    /// The first error that ends everything, and the context of all threads.
    group: Group<'a>,
    trees: &'a Trees<'a>,
    options: &'a Options,
    scope: scope::Scope<'a>,
    dry_links: dry::Links,
    owners: owners::Owners,
    tally: Tally,
    fetch: Fetch<'a>,
    links: links::Links,
    /// Held while one large file is restored over an existing one.
    large: Mutex<()>,
    locks: flags::Locks,
    /// The folder of the repository, if it is on this machine.
    repository: Option<dir::Identity>,
    paths: target::Paths,
}

#[derive(Default)]
struct Tally {
    files: AtomicU64,
    bytes: AtomicU64,
    directories: AtomicU64,
    links: AtomicU64,
    others: AtomicU64,
    existing: AtomicU64,
    damaged: AtomicU64,
    failed: AtomicU64,
    unreadable: AtomicU64,
    left_out: AtomicU64,
    attributes: AtomicU64,
    reused: AtomicU64,
    flags: AtomicU64,
    kept: AtomicU64,
    deleted: AtomicU64,
    verified: AtomicU64,
    to_fetch: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Tally {
    fn summary(&self) -> Summary {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary {
            files: get(&self.files),
            bytes: get(&self.bytes),
            directories: get(&self.directories),
            links: get(&self.links),
            others: get(&self.others),
            existing: get(&self.existing),
            damaged: get(&self.damaged),
            failed: get(&self.failed),
            unreadable: get(&self.unreadable),
            left_out: get(&self.left_out),
            attributes: get(&self.attributes),
            reused: get(&self.reused),
            flags: get(&self.flags),
            kept: get(&self.kept),
            deleted: get(&self.deleted),
            verified: get(&self.verified),
            to_fetch: get(&self.to_fetch),
            received: 0,
            duration: Duration::ZERO,
        }
    }
}

impl Run<'_> {
    /// Returns the context of all threads.
    fn ctx(&self) -> &Context<'_> {
        self.group.context()
    }

    /// Returns whether everything ends early; the reason is kept in the group then.
    fn halted(&self) -> bool {
        self.ctx().check().map_err(|e| self.group.fail(e)).is_err()
    }

    /// Reports that `path` is not restored, or ends the restore if continuing makes no sense.
    fn skip(&self, path: &[u8], why: Error) {
        match why.kind() {
            Kind::NoSpace => {
                let why = why.while_doing(String::from_utf8_lossy(path));
                return self.group.fail(why.hint("make room, then the same command continues from here"));
            }
            Kind::Connection | Kind::Tampering | Kind::Interrupted(_) | Kind::Cancelled | Kind::Exhausted => {
                return self.group.fail(why);
            }
            Kind::Damaged | Kind::Missing => add(&self.tally.damaged, 1),
            _ => add(&self.tally.failed, 1),
        }
        self.ctx().skip(path, &why);
    }
}

/// Words the error of an interrupted restore.
fn interrupted(e: Error) -> Error {
    match e.kind() {
        Kind::Interrupted(_) => {
            Error::new(e.kind(), "interrupted: the entries restored so far are complete, the rest is missing")
                .hint("the same command continues from here")
        }
        _ => e,
    }
}
