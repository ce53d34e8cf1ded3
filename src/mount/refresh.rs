//! The thread that refreshes the view: it reads the record log again at intervals while the view is in use.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use crate::error::Result;
use crate::repo::State;
use crate::vfs::Invalidation;

/// Maximum duration of a refresh. A server that is away is asked again at the next interval.
const LONGEST: Duration = Duration::from_secs(60);

/// Starts the thread; `invalidate` makes the kernel drop an entry or a listing. It ends after
/// [`crate::vfs::Freshness::stop`].
pub fn start(
    core: &Arc<Core>,
    state: State,
    interval: Duration,
    invalidate: impl Fn(&Invalidation) + Send + 'static,
) -> std::io::Result<()> {
    let core = Arc::clone(core);
    std::thread::Builder::new().name("refresh".into()).spawn(move || run(&core, state, interval, invalidate)).map(drop)
}

fn run(core: &Core, mut state: State, interval: Duration, invalidate: impl Fn(&Invalidation)) {
    let mut known = state.warnings();
    // New snapshots must be visible when the interval is over, and reading the log takes time.
    let pause = interval - interval / 6;
    while core.vfs.freshness().wait_until_due(pause) {
        let changes = refresh(core, &mut state);
        log_new_warnings(core, &mut known, state.warnings());
        // Before the invalidations: they wait for look-ups in the same directory, which may wait for this.
        core.vfs.freshness().refreshed();
        match changes {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                changes.iter().for_each(&invalidate);
                core.foreground.announce_snapshot();
            }
            Err(e) => core.log.line(|| format!("cannot look for new snapshots: {e}")),
        }
    }
}

/// Reads the log and shows new snapshots; returns what the kernel must drop.
fn refresh(core: &Core, state: &mut State) -> Result<Vec<Invalidation>> {
    let changed = core.vfs.repository().refresh(&core.within(LONGEST), state)?;
    Ok(if changed { core.vfs.refresh(state.clone()) } else { Vec::new() })
}

fn log_new_warnings(core: &Core, known: &mut Vec<String>, warnings: Vec<String>) {
    for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
        core.log.line(|| warning.clone());
    }
    *known = warnings;
}
