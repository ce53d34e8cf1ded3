//! Serves a mount in the foreground until it ends, a signal asks for it, or it has been idle for long enough.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::core::Core;
use super::idle_unmount::IdleUnmount;
use super::{GRACE, Log, Mounted, Options};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::repo::{Repository, State};

/// Pause between two looks at a mount without `--idle-unmount`.
const LONG: Duration = Duration::from_secs(3600);

/// A phase of a mount that [`serve`] reports to its caller.
pub enum Phase<'m> {
    /// The directory shows the backup.
    Ready(&'m Mounted),
    /// The mount is being unmounted, by a request or after its idle time.
    Stopping,
}

/// The reason why the wait for the end is over.
enum End {
    /// The session with the kernel has ended.
    Session(std::io::Result<()>),
    /// The mount must be unmounted.
    Unmount,
}

/// Mounts and serves until the backup is unmounted or a signal asks for it. SIGTERM, SIGINT and SIGHUP unmount, even if
/// the mount is busy; a second one ends the process at once. SIGUSR1 logs figures.
pub fn serve(
    ctx: &Context,
    repo: Arc<Repository>,
    state: State,
    dir: &Path,
    options: Options,
    report: impl Fn(Phase<'_>) -> Result<()>,
) -> Result<()> {
    let log = Arc::clone(&options.log);
    let idle = options.idle.map(IdleUnmount::new);
    // Before any thread starts, so that a signal cannot end the process in between.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(|e| Error::io("catch signals", e))?;
    let handle = signals.handle();
    let mounted = Mounted::start(ctx, repo, state, dir, options)?;
    let (stop, stopped) = bounded(2);
    let (core, signal_log) = (Arc::clone(&mounted.core), Arc::clone(&log));
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || handle_signals(signals, &core, &stop, &signal_log))
        .map_err(|e| Error::io("start threads", e))?;
    report(Phase::Ready(&mounted))?;
    let end = wait_for_end(&mounted, &stopped, idle, &log);
    report(Phase::Stopping)?;
    let result = match end {
        End::Session(result) => result.map_err(|e| Error::io("serve the kernel", e)),
        End::Unmount => mounted.detach().inspect(|()| {
            mounted.wait(GRACE);
        }),
    };
    handle.close();
    result
}

/// Logs figures for SIGUSR1, passes the first other signal on, and ends the process at the second.
fn handle_signals(mut signals: Signals, core: &Core, stop: &Sender<()>, log: &Log) {
    let mut stopping = false;
    for signal in signals.forever() {
        if signal == SIGUSR1 {
            core.statistics().lines().for_each(|line| log(line));
        } else if stopping {
            std::process::exit(128 + signal);
        } else {
            stopping = true;
            let _ = stop.try_send(());
        }
    }
}

fn wait_for_end(mounted: &Mounted, stopped: &Receiver<()>, mut idle: Option<IdleUnmount>, log: &Log) -> End {
    loop {
        let pause = idle.as_ref().map_or(LONG, IdleUnmount::pause);
        select! {
            recv(mounted.ended) -> result => return End::Session(result.unwrap_or(Ok(()))),
            recv(stopped) -> _ => return End::Unmount,
            default(pause) => {}
        }
        let unmounted = idle.as_mut().is_some_and(|i| i.try_unmount(&mounted.attached, &mounted.core.counters));
        if unmounted {
            log("unmounted: it was not used for the time of --idle-unmount");
            return End::Unmount;
        }
    }
}
