//! The mounted backup: joins [`crate::vfs`] with the kernel. The only layer that names fuser.
//!
//! Requests come in on two to four threads. What is in memory is answered there and then; what must be fetched goes to a
//! worker, and reads have workers of their own, so that a read that waits never holds up a look-up. Every request that
//! waits has a deadline, after which it is refused with `EIO`: the kernel cannot interrupt a look-up.

mod adapter;
mod attach;
mod core;
mod idle_unmount;
mod logging;
mod mount_point;
mod prefetch_thread;
mod refresh;
mod workers;

pub use attach::release;
pub use logging::Log;
pub use mount_point::{Keep, Row, mounted_at, prepare};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, select};
use fuser::{Config, INodeNo, Session, SessionACL};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use self::core::Core;
use crate::error::{Error, Result};
use crate::repo::{Repository, State};
use crate::vfs::{self, Invalidation, Vfs};
use adapter::Adapter;
use attach::Attached;
use idle_unmount::Idle;
use logging::Limited;

/// How long a mount that was asked to end waits for whoever still uses it.
const GRACE: Duration = Duration::from_secs(5);

/// How to mount.
pub struct Options {
    /// What is shown and as whose.
    pub view: vfs::Options,
    /// Other users may look too, as far as the modes of the files allow.
    pub allow_other: bool,
    /// Mount over a folder that is not empty, or that was backed up.
    pub nonempty: bool,
    /// No program in it can be run.
    pub noexec: bool,
    /// What the mount table shows as the source, instead of the address.
    pub source: Option<String>,
    /// What the newest backup of this machine was made of: no such folder is hidden.
    pub sources: Vec<PathBuf>,
    /// How long a request may wait for the storage.
    pub io_timeout: Duration,
    /// How often to look for new snapshots; `None`: never.
    pub refresh: Option<Duration>,
    /// Fetch the names of `latest` in the background.
    pub prefetch: bool,
    /// Unmount when nobody has used it for so long; only [`serve`] does so.
    pub idle: Option<Duration>,
    /// Takes messages.
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
    /// Somebody waited already for those who still use it.
    waited: AtomicBool,
}

impl Mounted {
    /// Mounts; when this returns the folder shows the backup.
    pub fn start(repo: Arc<Repository>, state: State, dir: &Path, options: Options) -> Result<Self> {
        let Options {
            view,
            allow_other,
            nonempty,
            noexec,
            source,
            sources,
            io_timeout,
            refresh,
            prefetch,
            log,
            idle: _,
        } = options;
        let address = repo.storage().address();
        let local = mount_point::local_folder(&address);
        let keep = Keep { nonempty, repository: local.as_deref(), sources: &sources };
        let dir = mount_point::prepare(dir, keep, &|line| log(line))?;
        let vfs = Arc::new(Vfs::new(repo, state.clone(), view)?);
        let threads = |e| Error::io("start threads", e);
        let core = Arc::new(Core::new(vfs, Limited::new(log), io_timeout).map_err(threads)?);
        let source = source.unwrap_or_else(|| format!("nfreezer:{address}"));
        let (fd, attached) = attach::attach(&dir, &attach::How { source: &source, allow_other, noexec })?;
        let serving = serve_kernel(&core, fd, state, refresh);
        let serving = if prefetch { serving.and_then(|ended| fetch_names(&core).map(|()| ended)) } else { serving };
        match serving {
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

    /// Where it is mounted, without symbolic links.
    pub fn dir(&self) -> &PathBuf {
        &self.attached.dir
    }

    /// Takes it out of the tree and refuses whatever waits. It ends when nobody uses it any more.
    pub fn detach(&self) -> Result<()> {
        self.core.stop();
        attach::detach(&self.attached)
    }

    /// Waits until the mount has ended; false if it has not after this time.
    pub fn wait(&self, most: Duration) -> bool {
        self.waited.store(true, Relaxed);
        !matches!(self.ended.recv_timeout(most), Err(RecvTimeoutError::Timeout))
    }

    /// Figures for people, several lines.
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
        self.core.vfs.watch().stop();
    }
}

/// Fetches the names of `latest` in the background.
fn fetch_names(core: &Arc<Core>) -> std::io::Result<()> {
    let core = Arc::clone(core);
    std::thread::Builder::new().name("prefetch".into()).spawn(move || prefetch_thread::run(&core)).map(drop)
}

/// Shakes hands with the kernel and serves it on threads of its own; the receiver gets how it ended.
fn serve_kernel(
    core: &Arc<Core>,
    fd: std::os::fd::OwnedFd,
    state: State,
    refresh: Option<Duration>,
) -> std::io::Result<Receiver<std::io::Result<()>>> {
    let mut config = Config::default();
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    config.n_threads = Some(cpus.clamp(2, 4));
    config.clone_fd = attach::device_opens();
    // Who may come in is the kernel's decision, by `allow_other`; fuser must not make its own.
    let session = Session::from_fd(Adapter::new(Arc::clone(core)), fd, SessionACL::All, config)?;
    let notifier = session.notifier();
    let (end, ended) = bounded(1);
    std::thread::Builder::new().name("session".into()).spawn(move || drop(end.send(session.run())))?;
    let Some(every) = refresh else { return Ok(ended) };
    let core = Arc::clone(core);
    std::thread::Builder::new().name("refresh".into()).spawn(move || {
        let tell = |change: &Invalidation| {
            use std::os::unix::ffi::OsStrExt;
            drop(match change {
                Invalidation::Entry(dir, name) => {
                    notifier.inval_entry(INodeNo(*dir), std::ffi::OsStr::from_bytes(name))
                }
                Invalidation::Listing(dir) => notifier.inval_inode(INodeNo(*dir), 0, 0),
            });
        };
        refresh::poll(&core, state, every, tell);
    })?;
    Ok(ended)
}

/// What [`serve`] tells its caller.
pub enum Phase<'m> {
    /// The folder shows the backup.
    Ready(&'m Mounted),
    /// It is being unmounted, by itself or because somebody asked for it.
    Stopping,
}

/// Mounts and serves until it is unmounted or a signal asks to stop: SIGTERM, SIGINT and SIGHUP unmount, also while it is
/// busy; a second one ends the process at once; SIGUSR1 logs figures.
pub fn serve(
    repo: Arc<Repository>,
    state: State,
    dir: &Path,
    options: Options,
    tell: impl Fn(Phase<'_>) -> Result<()>,
) -> Result<()> {
    let (log, after) = (Arc::clone(&options.log), options.idle);
    // Before any thread is there, so that no signal ends the process in between.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(|e| Error::io("catch signals", e))?;
    let handle = signals.handle();
    let mounted = Mounted::start(repo, state, dir, options)?;
    let (stop, stopped) = bounded(2);
    let (core, said) = (Arc::clone(&mounted.core), Arc::clone(&log));
    let catch = move || {
        let mut asked = false;
        for signal in signals.forever() {
            match signal {
                SIGUSR1 => core.statistics().lines().for_each(|line| said(line)),
                _ if asked => std::process::exit(128 + signal),
                _ => {
                    asked = true;
                    let _ = stop.try_send(());
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(catch).map_err(|e| Error::io("start threads", e))?;
    tell(Phase::Ready(&mounted))?;
    let end = until_the_end(&mounted, &stopped, after, &log);
    tell(Phase::Stopping)?;
    let result = match end {
        Some(end) => end,
        None => {
            mounted.detach()?;
            mounted.wait(GRACE);
            Ok(())
        }
    };
    handle.close();
    result.map_err(|e| Error::io("serve the kernel", e))
}

/// Waits until the session has ended, or (`None`) until it must.
fn until_the_end(
    mounted: &Mounted,
    stopped: &Receiver<()>,
    after: Option<Duration>,
    log: &Log,
) -> Option<std::io::Result<()>> {
    let mut idle = after.map(Idle::new);
    loop {
        let pause = idle.as_ref().map_or(Duration::from_secs(3600), Idle::wait);
        select! {
            recv(mounted.ended) -> end => return Some(end.unwrap_or(Ok(()))),
            recv(stopped) -> _ => return None,
            default(pause) => if idle.as_mut().is_some_and(|idle| idle.over(&mounted.attached, &mounted.core.counters)) {
                log("unmounted: nobody used it for a while");
                return None;
            },
        }
    }
}
