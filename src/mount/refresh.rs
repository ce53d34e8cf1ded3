//! New snapshots: the log is read again from time to time, for as long as somebody looks.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::repo::State;
use crate::vfs::{Invalidation, Vfs};

/// Nobody has looked at the folders above the snapshots for so long: no more questions to the server.
const IDLE: Duration = Duration::from_secs(300);

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
pub fn poll(
    vfs: &Vfs,
    mut state: State,
    poke: &Poke,
    every: Duration,
    report: impl Fn(String),
    invalidate: impl Fn(&Invalidation),
) {
    let mut told = state.warnings();
    while poke.wait(every) {
        let result = vfs.repository().refresh(&mut state);
        let warnings = state.warnings();
        warnings.iter().filter(|text| !told.contains(text)).for_each(|text| report(text.clone()));
        told = warnings;
        match result {
            Ok(true) => vfs.refresh(state.clone()).iter().for_each(&invalidate),
            Ok(false) => {}
            Err(e) => report(format!("cannot look for new snapshots: {e}")),
        }
    }
}
