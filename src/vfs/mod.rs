//! The backup as a file system, without a kernel.
//!
//! In: inode numbers, names and offsets. Out: attributes, listings, bytes, or a [`Fault`]. No type of a FUSE library is
//! used here, and no thread outlives an operation (some operations fetch on several threads at once).
//!
//! Each operation takes a [`Mode`]. With [`Mode::Cached`] it answers from memory without waiting, or with
//! [`Fault::Wait`]; with [`Mode::Fetch`] it may take as long as the storage. Nodes below a snapshot never change, so they
//! may be cached forever; only the directories of the view change, by [`Vfs::refresh`].
//!
//! - [`view`]: the directories above the snapshots. [`readme`]: the file beside them. [`time`]: `at/`, `versions/` and `deleted/`.
//! - [`lookup`] and [`readdir`]: nodes by name and number. [`xattr`]: extended attributes. [`read`]: file contents.
//! - [`tree`]: nodes in the pages of a snapshot. [`pages`]: decoded pages.
//! - [`inode`]: inode numbers. [`inode_table`]: the nodes that the kernel knows. [`attr`]: what `stat` shows.
//! - [`prefetch_walk`]: names of `latest` in the background. [`freshness`]: when the view is refreshed.
//! - [`cache`]: values bounded in bytes. [`failures`]: errors of the last seconds.

mod attr;
mod cache;
mod failures;
mod freshness;
pub mod inode;
mod inode_table;
mod lookup;
mod pages;
mod prefetch_walk;
mod read;
mod readdir;
mod readme;
mod snapshot_names;
mod time;
mod tree;
mod view;
mod xattr;

pub use attr::{Attr, Fault, Kind, Rights, Totals, passing};
pub use failures::RecentFailures;
pub use freshness::Freshness;
pub use pages::Attributes;
pub use prefetch_walk::PrefetchWalk;
pub use read::{Ahead, PackRange, Seek};
pub use readdir::Entry;
pub use snapshot_names::file_name;
pub use view::Invalidation;

use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::context::Context;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::node::Content;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::printable;
use crate::repo::{Repository, State, latest_first, now};
use crate::trees::{Trees, root};
use attr::Attr as A;
use cache::Cache;
use inode_table::{DirInode, Inode, InodeTable};
use pages::Pages;
use read::{AccessPatterns, ContentCaches, RandomReads, TreeAhead};
use time::history::History;
use time::merged::MergedListing;
use view::{Role, View};

/// Longest name of a file, in bytes.
pub const NAME: usize = crate::format::limits::NAME;

/// Capacity for the histories of paths, in bytes.
const HISTORIES: usize = 8 << 20;
/// Capacity for the listings of merged directories, in bytes.
const LISTINGS: usize = 16 << 20;

/// Time for which the kernel may keep names and attributes of the view. Changes are also reported to it at once.
const SOON: Duration = Duration::from_secs(10);
/// The same where a change cannot be reported: merged directories, and names of moments.
const BRIEF: Duration = Duration::from_secs(1);

/// Whether an operation may fetch.
#[derive(Clone, Copy)]
pub enum Mode<'c> {
    /// Answer from memory without waiting, or with [`Fault::Wait`].
    Cached,
    /// Fetch from the storage, until the context ends.
    Fetch(&'c Context<'c>),
}

impl Mode<'_> {
    fn is_cached(self) -> bool {
        matches!(self, Mode::Cached)
    }
}

/// Options of the file system.
pub struct Options {
    /// The way in which owners and rights of saved nodes are shown.
    pub rights: Rights,
    /// User and group of the directories of the view.
    pub mounter: (u32, u32),
    /// Time zone of the names of snapshots and versions.
    pub zone: TimeZone,
    /// Shows only this directory: a snapshot and a path in it.
    pub at: Option<(Snapshot, Vec<u8>)>,
    /// Equal files share an inode number, and so the kernel's page cache.
    pub shared_inodes: bool,
    /// Capacity of the repository's cache of blocks, in bytes; bounds read-ahead and prefetch.
    pub cache: usize,
    /// Bytes that the network carries in the time of a round trip, instead of the measured ones.
    pub round_trip: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            rights: Rights::default(),
            mounter: (0, 0),
            zone: TimeZone::UTC,
            at: None,
            shared_inodes: false,
            cache: 96 << 20,
            round_trip: None,
        }
    }
}

/// The file system of one repository.
pub struct Vfs {
    repo: Arc<Repository>,
    options: Options,
    pages: Pages,
    view: RwLock<View>,
    table: Mutex<InodeTable>,
    contents: ContentCaches,
    patterns: AccessPatterns,
    random: RandomReads,
    ahead: TreeAhead,
    heads: TreeAhead,
    histories: Cache<(u64, u64), History>,
    listings: Cache<(u64, u64, bool), MergedListing>,
    freshness: Freshness,
    totals: Mutex<Totals>,
    /// Page at which the prefetch begins.
    first_page: Mutex<Option<Ref>>,
}

/// Memory figures of the file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Nodes that the kernel knows, with directories.
    pub nodes: usize,
    /// Directories that the kernel knows, and their parents.
    pub directories: usize,
    /// Bytes of decoded pages, histories and merged listings.
    pub pages: usize,
}

impl Vfs {
    /// Creates the file system of a repository in this state.
    pub fn new(ctx: &Context, repo: Arc<Repository>, state: State, options: Options) -> Result<Self> {
        let snapshots = state.snapshots();
        let totals = totals(options.at.as_ref().map(|(s, _)| s).or(latest(&snapshots)));
        let mut first_page = prefetch_walk::first_page(&snapshots);
        let mut table = InodeTable::default();
        let pages = Pages::new(Arc::clone(&repo), state, options.shared_inodes);
        let view = match &options.at {
            None => View::new(repo.keys(), snapshots, &options.zone, now()),
            Some((snapshot, path)) => {
                let root = root_at(ctx, &pages.trees(), snapshot, path, &options)?;
                first_page = root.page;
                table.hold_dir(inode::ROOT, |number| DirInode { number, ..root });
                View::default()
            }
        };
        Ok(Vfs {
            pages,
            contents: ContentCaches::new(),
            patterns: AccessPatterns::new(options.cache as u64 / 6),
            random: RandomReads::new(options.cache as u64),
            ahead: TreeAhead::default(),
            heads: TreeAhead::default(),
            view: RwLock::new(view),
            table: Mutex::new(table),
            histories: Cache::new(HISTORIES),
            listings: Cache::new(LISTINGS),
            freshness: Freshness::default(),
            totals: Mutex::new(totals),
            first_page: Mutex::new(first_page),
            repo,
            options,
        })
    }

    /// Shows the snapshots of a newer state; returns what the kernel must drop.
    pub fn refresh(&self, state: State) -> Vec<Invalidation> {
        let snapshots = state.snapshots();
        self.pages.set_state(state);
        if self.options.at.is_some() {
            return Vec::new();
        }
        *self.totals.lock().expect("no holder panics") = totals(latest(&snapshots));
        *self.first_page.lock().expect("no holder panics") = prefetch_walk::first_page(&snapshots);
        let new = View::new(self.repo.keys(), snapshots, &self.options.zone, now());
        let mut view = self.view.write().expect("no holder panics");
        let mut changes = new.changes(&view);
        if !changes.is_empty() {
            changes.extend(self.table().merged().into_iter().map(Invalidation::Listing));
        }
        *view = new;
        changes
    }

    /// Returns the freshness of the view, for the thread that refreshes it.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Returns how long the attributes of this node and the names in it may be cached; `None`: forever.
    pub fn keep(&self, ino: u64) -> Option<Duration> {
        if let Some(folder) = self.view().find(ino) {
            return Some(if folder.role == Role::Plain { SOON } else { BRIEF });
        }
        match self.table().get(ino) {
            Some(Inode::Dir(dir)) if dir.role.merges() => Some(BRIEF),
            None if self.is_readme(ino) => Some(SOON),
            _ => None,
        }
    }

    /// Waits for a refresh if the view is stale and this node may change by it.
    fn wait_until_fresh(&self, ino: u64, mode: Mode) -> Result<(), Fault> {
        if !self.freshness.is_stale() || self.keep(ino).is_none() {
            return Ok(());
        }
        if mode.is_cached() {
            return Err(Fault::Wait);
        }
        self.freshness.wait_until_fresh();
        Ok(())
    }

    /// Returns whether this is the inode number of a directory of the view, or of `README`.
    pub fn is_view(&self, ino: u64) -> bool {
        self.view().find(ino).is_some() || self.is_readme(ino)
    }

    fn is_readme(&self, ino: u64) -> bool {
        self.view().readme == ino
    }

    /// Takes back `count` look-ups of a node.
    pub fn forget(&self, ino: u64, count: u64) {
        self.table().forget(ino, count);
    }

    /// Returns the figures for `statfs`.
    pub fn totals(&self) -> Totals {
        *self.totals.lock().expect("no holder panics")
    }

    /// Returns memory figures.
    pub fn figures(&self) -> Figures {
        let (nodes, directories) = self.table().len();
        let pages = self.pages.bytes() + self.histories.bytes() + self.listings.bytes();
        Figures { nodes, directories, pages }
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.repo
    }

    fn table(&self) -> MutexGuard<'_, InodeTable> {
        self.table.lock().expect("no holder panics")
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().expect("no holder panics")
    }
}

/// Returns the snapshot that `latest` means.
fn latest(snapshots: &[Snapshot]) -> Option<&Snapshot> {
    latest_first(snapshots.iter(), now()).next()
}

fn totals(snapshot: Option<&Snapshot>) -> Totals {
    let Some(Snapshot { stats, .. }) = snapshot else { return Totals::default() };
    let nodes = stats.files.saturating_add(stats.directories).saturating_add(stats.others);
    Totals { bytes: stats.bytes, nodes }
}

/// Returns the root of a mount that shows one directory of one snapshot.
fn root_at(ctx: &Context, trees: &Trees<'_>, snapshot: &Snapshot, path: &[u8], options: &Options) -> Result<DirInode> {
    let node = if path.iter().all(|b| *b == b'/') { root(snapshot) } else { trees.at(ctx, snapshot, path)? };
    let Content::Directory(page) = node.content else {
        return Err(Error::new(ErrorKind::Failed, format!("{} is not a directory", printable::name(path)))
            .hint("only directories can be mounted; `nfreezer restore` writes a single file"));
    };
    let attr = A::of(&node, inode::ROOT, options.rights);
    Ok(DirInode {
        number: 0,
        role: Role::Plain,
        parent: None,
        above: inode::ROOT,
        name: Box::default(),
        page,
        snapshot: snapshot.id,
        attr,
        node: Some(Box::new(node)),
    })
}
