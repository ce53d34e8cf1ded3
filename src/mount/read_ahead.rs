//! Read-ahead: fetches content on idle reader threads before the kernel asks for it. The advice comes from
//! [`crate::vfs::Ahead`]; nothing waits for these fetches.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::core::Core;
use crate::context::Context;
use crate::vfs::{Ahead, Mode, PackRange};

/// Queues the fetches that an advice asks for. The ranges are found on a worker thread if the reference list of the file
/// is not in memory.
pub fn schedule(core: &Arc<Core>, advice: Ahead) {
    if matches!(advice, Ahead::Tree | Ahead::Heads) {
        return run(core, move |ctx, core| core.vfs.walk_ahead(ctx, &advice));
    }
    match core.vfs.plan(&advice, Mode::Cached) {
        Ok(ranges) => schedule_ranges(core, &advice, ranges),
        Err(_) => run(core, move |ctx, core| {
            if let Ok(ranges) = core.vfs.plan(&advice, Mode::Fetch(ctx)) {
                schedule_ranges(core, &advice, ranges);
            }
        }),
    }
}

fn schedule_ranges(core: &Arc<Core>, advice: &Ahead, ranges: Vec<PackRange>) {
    for range in ranges {
        core.counters.ahead.fetch_add(1, Relaxed);
        let advice = advice.clone();
        run(core, move |ctx, core| {
            if core.vfs.wanted(&advice) {
                core.vfs.fetch_ahead(ctx, &range);
            }
        });
    }
}

/// Runs a job when a reader thread is idle, with the deadline of a request so that it cannot keep the thread forever.
fn run(core: &Arc<Core>, job: impl FnOnce(&Context, &Arc<Core>) + Send + 'static) {
    let shared = Arc::clone(core);
    core.readers.run_when_idle(move || job(&shared.within(shared.timeout), &shared));
}
