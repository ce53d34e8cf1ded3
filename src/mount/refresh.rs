//! New snapshots: the log is read again from time to time, for as long as somebody looks.

use std::time::{Duration, Instant};

use super::core::Core;
use crate::repo::{State, patience};
use crate::vfs::Invalidation;

/// A server that is away is asked again later.
const LONGEST: Duration = Duration::from_secs(60);

/// Reads the log every so often and hands what the kernel must drop to `invalidate`, until [`crate::vfs::Watch::stop`].
pub fn poll(core: &Core, mut state: State, every: Duration, invalidate: impl Fn(&Invalidation)) {
    let vfs = &core.vfs;
    let mut told = state.warnings();
    // What is new has to be seen when this time is over, and asking takes time too.
    let pause = every - every / 6;
    while vfs.watch().sleep(pause) {
        let refreshed = patience::until(Some(Instant::now() + LONGEST), || vfs.repository().refresh(&mut state));
        let warnings = state.warnings();
        warnings.iter().filter(|text| !told.contains(text)).for_each(|text| core.log.line(|| text.clone()));
        told = warnings;
        let changes = refreshed.map(|new| if new { vfs.refresh(state.clone()) } else { Vec::new() });
        // Before the kernel is told: that waits for look-ups in the same folder, which may wait for this.
        vfs.watch().done();
        match changes {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                changes.iter().for_each(&invalidate);
                core.lull.tell();
            }
            Err(e) => core.log.line(|| format!("cannot look for new snapshots: {e}")),
        }
    }
}
