//! Between whoever looks at the folders above the snapshots and whoever reads the log again. While nobody looks nothing is
//! asked of the server; who comes then waits for what is new, so that one look a day does not see the day before.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Nobody has looked at the folders above the snapshots for so long: no more questions to the server.
const IDLE: Duration = Duration::from_secs(300);
/// Who comes after that waits for the server at most so long and then sees what was known before.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Default)]
pub struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    look: Mutex<Look>,
    wake: Condvar,
    /// What is shown may be old.
    old: AtomicBool,
}

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

impl Watch {
    /// Somebody looks at a folder above the snapshots.
    pub fn look(&self) {
        self.lock().looked = Instant::now();
        if self.is_old() {
            self.0.wake.notify_all();
        }
    }

    /// Nobody reads the log again from now on.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.0.old.store(false, Relaxed);
        self.0.wake.notify_all();
    }

    /// Nobody looked for so long that new snapshots may have been missed.
    pub fn is_old(&self) -> bool {
        self.0.old.load(Relaxed)
    }

    /// Has the log read now and waits for that, if it was not read for long.
    pub fn wait(&self) {
        self.look();
        let old = |_: &mut Look| self.is_old();
        let (look, waited) = self.0.wake.wait_timeout_while(self.lock(), PATIENCE, old).expect("no holder panics");
        if waited.timed_out() {
            // The next ones do not wait again for a server that does not answer.
            self.0.old.store(false, Relaxed);
        }
        drop(look);
    }

    /// Waits until the log should be read again; false: never.
    pub fn sleep(&self, every: Duration) -> bool {
        self.sleep_unless(every, IDLE)
    }

    fn sleep_unless(&self, every: Duration, most: Duration) -> bool {
        let mut look = self.lock();
        loop {
            if look.stop {
                return false;
            }
            let left = every.saturating_sub(look.asked.elapsed());
            let idle = look.looked.elapsed() > most;
            if left.is_zero() && !idle {
                look.asked = Instant::now();
                return true;
            }
            look = if left.is_zero() {
                self.0.old.store(true, Relaxed);
                self.0.wake.wait(look).expect("no holder panics")
            } else {
                self.0.wake.wait_timeout(look, left).expect("no holder panics").0
            };
        }
    }

    /// The log was read, or could not be.
    pub fn done(&self) {
        let _look = self.lock();
        self.0.old.store(false, Relaxed);
        self.0.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Look> {
        self.0.look.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_after_a_long_time_waits_for_what_is_new() {
        let watch = Watch::default();
        let (asked, poller) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A time after which nobody looks any more that is over at once.
                while watch.sleep_unless(Duration::ZERO, Duration::from_millis(20)) {
                    asked.send(watch.is_old()).unwrap();
                    watch.done();
                }
                drop(asked);
            });
            while !watch.is_old() {
                std::thread::yield_now();
            }
            watch.wait();
            assert!(poller.try_iter().any(|old| old), "it was read before the wait ended");
            watch.stop();
        });
        assert!(!watch.is_old(), "nobody waits for a poller that has ended");
    }
}
