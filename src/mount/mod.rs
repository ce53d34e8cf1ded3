//! The mounted backup: joins [`crate::vfs`] with the kernel. The only layer that uses fuser.
//!
//! In: requests of the kernel, on two to four threads. Out: replies. A request is answered from memory at once if
//! possible; otherwise a worker thread fetches the answer. Reads have workers of their own, so that slow reads never delay
//! look-ups. Each request has a deadline, at which it is refused with `EIO`: the kernel cannot interrupt a look-up.
//!
//! - [`adapter`] decodes the requests, [`requests`] has one type for each that may wait, [`convert`] makes kernel values.
//! - [`core`] takes each request through memory, [`workers`] and [`deadline`]; [`statistics`] counts.
//! - [`read_ahead`] uses idle workers; [`prefetch_thread`] runs while [`foreground`] is empty; [`refresh`] reads the log.
//! - [`attach`], [`mount_point`] and [`mount_table`] mount and unmount; [`serve`] and [`idle_unmount`] end a mount.

mod adapter;
mod attach;
mod convert;
mod core;
mod deadline;
mod foreground;
mod idle_unmount;
mod logging;
mod mount_point;
mod mount_table;
mod prefetch_thread;
mod read_ahead;
mod refresh;
mod requests;
mod serve;
mod statistics;
mod workers;

pub use attach::release;
pub use logging::Log;
pub use mount_point::{Keep, prepare};
pub use mount_table::{TableEntry, mounted_at};
pub use serve::{Phase, serve};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use fuser::{Config, INodeNo, Notifier, Session, SessionACL};

use self::core::Core;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::repo::{Repository, State};
use crate::vfs::{self, Invalidation, Vfs};
use adapter::Adapter;
use attach::{AttachOptions, Attached};
use logging::RateLimitedLog;

/// Time that an ending mount waits for the programs that still use it.
const GRACE: Duration = Duration::from_secs(5);

/// Options of a mount.
pub struct Options {
    /// The content of the mount, and its owner.
    pub view: vfs::Options,
    /// Other users may use the mount, as far as the modes of the files allow.
    pub allow_other: bool,
    /// Mount over a directory that is not empty, or that was backed up.
    pub nonempty: bool,
    /// No program in the mount can be run.
    pub noexec: bool,
    /// Source that the mount table shows, instead of the address.
    pub source: Option<String>,
    /// Sources of the newest backup of this machine, which the mount must not hide.
    pub sources: Vec<PathBuf>,
    /// Time that a request may wait for the storage.
    pub io_timeout: Duration,
    /// Interval between checks for new snapshots; `None` disables them.
    pub refresh: Option<Duration>,
    /// Fetch the names of `latest` in the background.
    pub prefetch: bool,
    /// Unmount when the mount has not been used for this time; only [`serve`] does so.
    pub idle: Option<Duration>,
    /// Receives messages.
    pub log: Log,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            view: vfs::Options::default(),
            allow_other: false,
            nonempty: false,
            noexec: false,
            source: None,
            sources: Vec::new(),
            io_timeout: Duration::from_secs(60),
            refresh: Some(Duration::from_secs(30)),
            prefetch: true,
            idle: None,
            log: Arc::new(|_| ()),
        }
    }
}

/// A mount that is being served. Dropping it unmounts.
pub struct Mounted {
    core: Arc<Core>,
    attached: Attached,
    ended: Receiver<std::io::Result<()>>,
    /// The end of the session has been waited for.
    waited: AtomicBool,
}

impl Mounted {
    /// Mounts; when this returns, the directory shows the backup.
    pub fn start(ctx: &Context, repo: Arc<Repository>, state: State, dir: &Path, options: Options) -> Result<Self> {
        let address = repo.storage().address();
        let dir = prepare_dir(repo.storage().local_path(), dir, &options)?;
        let source = options.source.unwrap_or_else(|| format!("nfreezer:{address}"));
        let how = AttachOptions { source: &source, allow_other: options.allow_other, noexec: options.noexec };
        let vfs = Arc::new(Vfs::new(ctx, repo, state.clone(), options.view)?);
        let core = Core::new(ctx, vfs, RateLimitedLog::new(options.log), options.io_timeout);
        let core = Arc::new(core.map_err(|e| Error::io("start threads", e))?);
        let (fd, attached) = attach::attach(&dir, &how)?;
        match start_threads(&core, fd, state, options.refresh, options.prefetch) {
            Ok(ended) => {
                attach::read_ahead(&attached);
                Ok(Mounted { core, attached, ended, waited: AtomicBool::new(false) })
            }
            Err(e) => {
                drop(attach::detach(&attached));
                Err(Error::io("talk to the kernel's FUSE", e))
            }
        }
    }

    /// Returns the mount point, without symbolic links.
    pub fn dir(&self) -> &PathBuf {
        &self.attached.dir
    }

    /// Detaches the mount from the tree and refuses all waiting requests. The session ends when no program uses it.
    pub fn detach(&self) -> Result<()> {
        self.core.stop();
        attach::detach(&self.attached)
    }

    /// Waits until the session has ended; returns false if it has not after this time.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.waited.store(true, Relaxed);
        !matches!(self.ended.recv_timeout(timeout), Err(RecvTimeoutError::Timeout))
    }

    /// Returns figures of the mount as several lines of text.
    pub fn statistics(&self) -> String {
        self.core.statistics()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.detach());
        if !self.waited.load(Relaxed) {
            self.wait(GRACE);
        }
        self.core.vfs.freshness().stop();
    }
}

/// Checks the mount point; returns its path without symbolic links.
fn prepare_dir(repository: Option<&Path>, dir: &Path, options: &Options) -> Result<PathBuf> {
    let keep = Keep { nonempty: options.nonempty, repository, sources: &options.sources };
    mount_point::prepare(dir, keep, &|line| (options.log)(line))
}

/// Starts the session with the kernel and the background threads; the receiver gets the result of the session.
fn start_threads(
    core: &Arc<Core>,
    fd: std::os::fd::OwnedFd,
    state: State,
    refresh: Option<Duration>,
    prefetch: bool,
) -> std::io::Result<Receiver<std::io::Result<()>>> {
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    let mut config = Config::default();
    config.n_threads = Some(cpus.clamp(2, 4));
    config.clone_fd = attach::device_opens();
    // The kernel decides by `allow_other` which users may enter; fuser must not decide on its own.
    let session = Session::from_fd(Adapter::new(Arc::clone(core)), fd, SessionACL::All, config)?;
    let notifier = session.notifier();
    let (end, ended) = bounded(1);
    std::thread::Builder::new().name("session".into()).spawn(move || drop(end.send(session.run())))?;
    if let Some(interval) = refresh {
        refresh::start(core, state, interval, move |change| invalidate(&notifier, change))?;
    }
    if prefetch {
        prefetch_thread::start(core)?;
    }
    Ok(ended)
}

/// Makes the kernel drop an entry or a listing. Errors are ignored: the kernel does not know the directory any more.
fn invalidate(notifier: &Notifier, change: &Invalidation) {
    drop(match change {
        Invalidation::Entry(dir, name) => notifier.inval_entry(INodeNo(*dir), OsStr::from_bytes(name)),
        Invalidation::Listing(dir) => notifier.inval_inode(INodeNo(*dir), 0, 0),
    });
}
