//! The backup as a file system, without a kernel: nodes by inode number, answered from memory or fetched.
//!
//! No type of a FUSE library and no thread is in here. Every operation takes a [`Mode`]: asked for what is in memory it
//! never waits and may answer [`Fault::Wait`]; asked to fetch it may take as long as the storage does. Nothing below a
//! snapshot ever changes, so all that is shown there may be kept for ever; only the folders of the view change, by
//! [`Vfs::refresh`].

mod attr;
mod cache;
mod failures;
mod freshness;
pub mod inode;
mod inode_table;
mod pages;
mod prefetch_walk;
mod read;
mod time;
mod tree;
mod view;
mod xattr;

pub use attr::{Attr, Fault, Kind, Totals};
pub use failures::RecentFailures;
pub use freshness::Watch;
pub use pages::Attributes;
pub use prefetch_walk::Walk;
pub use read::pattern::{self, Ahead};
pub use read::{PackRange, Seek};
pub use tree::Entry;
pub use view::{Invalidation, file_name};

use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::format::tree::Content;
use crate::repo::{Repository, State, tree::root};
use attr::Attr as A;
use cache::Cache;
use inode_table::{Dir, Place, Table};
use pages::Pages;
use read::Contents;
use read::pattern::Readers;
use time::history::Line;
use time::merged::Listing;
use view::{Role, View};

/// Longest name, in bytes.
pub const NAME: usize = crate::format::limits::NAME;

/// Bytes of what is known of paths over all snapshots, and of listings of folders over all of them.
const LINES: usize = 8 << 20;
const LISTINGS: usize = 16 << 20;

/// How long the kernel may keep names and attributes of the folders above the snapshots. It is told of changes.
const SOON: Duration = Duration::from_secs(10);
/// The same where not each change can be told: merged folders and expressions for moments.
const BRIEF: Duration = Duration::from_secs(1);

/// Whether an operation may fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Answer from memory at once, or with [`Fault::Wait`].
    Cached,
    /// Fetch what is not in memory.
    Fetch,
}

/// How the tree is shown.
pub struct Options {
    /// User and group that all nodes appear with; `None`: those of the backup.
    pub owner: Option<(u32, u32)>,
    /// User and group of the folders above the snapshots.
    pub mounter: (u32, u32),
    /// The zone of the times in names.
    pub zone: TimeZone,
    /// Show just this directory: a snapshot and a path in it.
    pub at: Option<(Snapshot, Vec<u8>)>,
    /// Bytes of verified blocks that the repository keeps; bounds what is fetched ahead.
    pub cache: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { owner: None, mounter: (0, 0), zone: TimeZone::UTC, at: None, cache: 96 << 20 }
    }
}

/// See the module.
pub struct Vfs {
    repo: Arc<Repository>,
    options: Options,
    pages: Pages,
    view: RwLock<View>,
    table: Mutex<Table>,
    contents: Contents,
    readers: Readers,
    lines: Cache<(u64, u64), Line>,
    listings: Cache<(u64, u64, bool), Listing>,
    watch: Watch,
    totals: Mutex<Totals>,
    /// Where the names begin that are fetched in the background.
    first_page: Mutex<Option<Ref>>,
}

/// Figures for people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Nodes that the kernel knows, directories included.
    pub nodes: usize,
    /// Directories among them, and those above them.
    pub directories: usize,
    /// Bytes of decoded pages and of what was put together from them.
    pub pages: usize,
}

impl Vfs {
    /// The file system of a repository in this state.
    pub fn new(repo: Arc<Repository>, state: State, options: Options) -> Result<Self> {
        let snapshots = state.snapshots();
        let totals = totals(options.at.as_ref().map(|(s, _)| s).or(newest(&snapshots)));
        let mut first_page = prefetch_walk::first_page(&snapshots);
        let mut table = Table::default();
        let view = match &options.at {
            None => View::new(repo.keys(), snapshots, &options.zone),
            Some((snapshot, path)) => {
                let root = root_at(&repo, snapshot, path, &options)?(0);
                first_page = root.page;
                table.hold_dir(inode::ROOT, |number| Dir { number, ..root });
                View::default()
            }
        };
        Ok(Vfs {
            pages: Pages::new(Arc::clone(&repo), state),
            contents: Contents::new(),
            readers: Readers::new(options.cache as u64 / 6),
            view: RwLock::new(view),
            table: Mutex::new(table),
            lines: Cache::new(LINES),
            listings: Cache::new(LISTINGS),
            watch: Watch::default(),
            totals: Mutex::new(totals),
            first_page: Mutex::new(first_page),
            repo,
            options,
        })
    }

    /// Shows the snapshots of a newer state. What the kernel must drop is given back.
    pub fn refresh(&self, state: State) -> Vec<Invalidation> {
        let snapshots = state.snapshots();
        self.pages.set_state(state);
        if self.options.at.is_some() {
            return Vec::new();
        }
        *self.totals.lock().expect("no holder panics") = totals(newest(&snapshots));
        *self.first_page.lock().expect("no holder panics") = prefetch_walk::first_page(&snapshots);
        let new = View::new(self.repo.keys(), snapshots, &self.options.zone);
        let mut view = self.view.write().expect("no holder panics");
        let mut changes = new.changes(&view);
        if !changes.is_empty() {
            changes.extend(self.table().merged().into_iter().map(Invalidation::Listing));
        }
        *view = new;
        changes
    }

    /// Through which whoever refreshes learns that somebody looks, and whoever looks waits for a refresh.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// How long names in this folder, and its attributes, may be kept; `None`: for ever.
    pub fn keep(&self, ino: u64) -> Option<Duration> {
        if let Some(folder) = self.view().find(ino) {
            return Some(if folder.role == Role::Plain { SOON } else { BRIEF });
        }
        match self.table().place(ino) {
            Some(Place::Dir(dir)) if dir.role.merges() => Some(BRIEF),
            _ => None,
        }
    }

    /// Waits for a refresh if nobody has looked for so long that the view may be old; where names stay, it does not matter.
    fn fresh(&self, ino: u64, mode: Mode) -> Result<(), Fault> {
        if !self.watch.is_old() || self.keep(ino).is_none() {
            return Ok(());
        }
        if mode == Mode::Cached {
            return Err(Fault::Wait);
        }
        self.watch.wait();
        Ok(())
    }

    /// Whether this number is a folder above the snapshots, whose entries change.
    pub fn is_view(&self, ino: u64) -> bool {
        self.view().find(ino).is_some()
    }

    /// The kernel takes `count` look-ups of a node back.
    pub fn forget(&self, ino: u64, count: u64) {
        self.table().forget(ino, count);
    }

    /// For `statfs`.
    pub fn totals(&self) -> Totals {
        *self.totals.lock().expect("no holder panics")
    }

    /// Figures for people.
    pub fn figures(&self) -> Figures {
        let (nodes, directories) = self.table().len();
        let pages = self.pages.bytes() + self.lines.bytes() + self.listings.bytes();
        Figures { nodes, directories, pages }
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repo
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder panics")
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().expect("no holder panics")
    }
}

fn newest(snapshots: &[Snapshot]) -> Option<&Snapshot> {
    snapshots.iter().rev().find(|s| !s.partial)
}

fn totals(snapshot: Option<&Snapshot>) -> Totals {
    let of = |s: &Snapshot| Totals {
        bytes: s.stats.bytes,
        nodes: s.stats.files.saturating_add(s.stats.directories).saturating_add(s.stats.others),
    };
    snapshot.map_or(Totals::default(), of)
}

/// The root of a mount that shows one directory of one snapshot.
fn root_at(
    repo: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    options: &Options,
) -> Result<impl FnOnce(u32) -> Dir + use<>> {
    let node = match path.iter().all(|b| *b == b'/') {
        true => root(snapshot),
        false => repo.at(snapshot, path)?,
    };
    let Content::Directory(page) = node.content else {
        return Err(Error::new(ErrorKind::Failed, format!("{} is no directory", path.escape_ascii()))
            .hint("a directory can be mounted; `nfreezer dump` or `restore` gives a single file"));
    };
    let attr = A::of(&node, inode::ROOT, options.owner);
    let snapshot = snapshot.id;
    Ok(move |number| Dir {
        number,
        role: Role::Plain,
        parent: None,
        above: inode::ROOT,
        name: Box::default(),
        page,
        snapshot,
        attr,
        node: Some(Box::new(node)),
    })
}
