//! New snapshots: the log is read again from time to time, for as long as somebody looks.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::core::Core;
use crate::repo::{State, patience};
use crate::vfs::Invalidation;

/// Nobody has looked at the folders above the snapshots for so long: no more questions to the server.
const IDLE: Duration = Duration::from_secs(300);
/// A server that is away is asked again later.
const LONGEST: Duration = Duration::from_secs(60);

/// Tells the poller that somebody looks.
#[derive(Clone, Default)]
pub struct Poke(Arc<(Mutex<Look>, Condvar)>);

struct Look {
    looked: Instant,
    asked: Instant,
    stop: bool,
}

impl Default for Look {
    fn default() -> Self {
        Look { looked: Instant::now(), asked: Instant::now(), stop: false }
    }
}

impl Poke {
    /// Somebody looks at a folder above the snapshots.
    pub fn look(&self) {
        let mut look = self.0.0.lock().expect("no holder panics");
        let idle = look.looked.elapsed() > IDLE;
        look.looked = Instant::now();
        if idle {
            self.0.1.notify_all();
        }
    }

    /// Ends the poller.
    pub fn stop(&self) {
        self.0.0.lock().expect("no holder panics").stop = true;
        self.0.1.notify_all();
    }

    /// Waits until the log should be read again; false: never.
    fn wait(&self, every: Duration) -> bool {
        let mut look = self.0.0.lock().expect("no holder panics");
        loop {
            if look.stop {
                return false;
            }
            let left = every.saturating_sub(look.asked.elapsed());
            let idle = look.looked.elapsed() > IDLE;
            if left.is_zero() && !idle {
                look.asked = Instant::now();
                return true;
            }
            look = if idle {
                self.0.1.wait(look).expect("no holder panics")
            } else {
                self.0.1.wait_timeout(look, left).expect("no holder panics").0
            };
        }
    }
}

/// Reads the log every so often and hands what the kernel must drop to `invalidate`, until [`Poke::stop`].
pub fn poll(core: &Core, mut state: State, every: Duration, invalidate: impl Fn(&Invalidation)) {
    let vfs = &core.vfs;
    let mut told = state.warnings();
    while core.poke.wait(every) {
        let result = patience::until(Some(Instant::now() + LONGEST), || vfs.repository().refresh(&mut state));
        let warnings = state.warnings();
        warnings.iter().filter(|text| !told.contains(text)).for_each(|text| core.log.line(|| text.clone()));
        told = warnings;
        match result {
            Ok(true) => {
                vfs.refresh(state.clone()).iter().for_each(&invalidate);
                core.lull.tell();
            }
            Ok(false) => {}
            Err(e) => core.log.line(|| format!("cannot look for new snapshots: {e}")),
        }
    }
}
