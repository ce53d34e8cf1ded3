//! The thread that prefetches the names of `latest`, one page at a time and only while no request waits for the storage.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::core::Core;
use crate::vfs::PrefetchWalk;

/// Pause after a step that failed: the server is away, or a page is damaged. It doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Maximum duration of a step. A slow network transfers a range of 1 MiB within this time.
const STEP: Duration = Duration::from_secs(30);

/// Starts the thread; it ends after [`super::foreground::Foreground::stop`].
pub fn start(core: &Arc<Core>) -> std::io::Result<()> {
    let core = Arc::clone(core);
    std::thread::Builder::new().name("prefetch".into()).spawn(move || run(&core)).map(drop)
}

/// Fetches the names of the newest snapshot, and then of each newer one.
fn run(core: &Core) {
    loop {
        core.counters.pages_done.store(false, Relaxed);
        prefetch_newest(core);
        if !core.foreground.wait_until_idle() {
            return;
        }
        core.counters.pages_done.store(true, Relaxed);
        core.foreground.wait_for_snapshot(None);
    }
}

fn prefetch_newest(core: &Core) {
    let mut walk = core.vfs.walk();
    let mut pause = PAUSE;
    while core.foreground.wait_until_idle() {
        match step(core, &mut walk) {
            Ok(true) => {
                core.counters.pages.fetch_add(1, Relaxed);
                pause = PAUSE;
            }
            Ok(false) => return,
            Err(_) => {
                if core.foreground.wait_for_snapshot(Some(pause)) {
                    walk = core.vfs.walk();
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn step(core: &Core, walk: &mut PrefetchWalk) -> Result<bool, crate::vfs::Fault> {
    core.vfs.step(&core.within(STEP), walk)
}
