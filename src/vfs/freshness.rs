//! Coordinates the users of the view with the thread that refreshes it. While no process uses the view, the server gets no
//! requests; the first access after a long pause waits for a refresh, so that a daily user sees the snapshots of today.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Time without access to the view after which it is not refreshed any more.
const IDLE: Duration = Duration::from_secs(300);
/// Longest time that an access waits for a refresh; then it sees the old view.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The freshness of the view, shared by its users and the refresh thread.
#[derive(Clone, Default)]
pub struct Freshness(Arc<FreshnessShared>);

#[derive(Default)]
struct FreshnessShared {
    times: Mutex<AccessTimes>,
    changed: Condvar,
    /// New snapshots may have been missed.
    stale: AtomicBool,
}

struct AccessTimes {
    last_access: Instant,
    last_refresh: Instant,
    stop: bool,
}

impl Default for AccessTimes {
    fn default() -> Self {
        AccessTimes { last_access: Instant::now(), last_refresh: Instant::now(), stop: false }
    }
}

impl Freshness {
    /// Notes an access to the view.
    pub fn access(&self) {
        self.lock().last_access = Instant::now();
        if self.is_stale() {
            self.0.changed.notify_all();
        }
    }

    /// Ends the refreshes for good.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.0.stale.store(false, Relaxed);
        self.0.changed.notify_all();
    }

    /// Returns whether new snapshots may have been missed because the view was not in use.
    pub fn is_stale(&self) -> bool {
        self.0.stale.load(Relaxed)
    }

    /// Starts a refresh if the view is stale, and waits for it.
    pub fn wait_until_fresh(&self) {
        self.access();
        let waited = self.0.changed.wait_timeout_while(self.lock(), LONGEST_WAIT, |_| self.is_stale());
        let (times, timeout) = waited.expect("no holder panics");
        if timeout.timed_out() {
            // Later accesses do not wait again for a server that does not answer.
            self.0.stale.store(false, Relaxed);
        }
        drop(times);
    }

    /// Waits until the next refresh is due; returns false after [`Freshness::stop`].
    pub fn wait_until_due(&self, interval: Duration) -> bool {
        let mut times = self.lock();
        loop {
            if times.stop {
                return false;
            }
            let left = interval.saturating_sub(times.last_refresh.elapsed());
            let in_use = times.last_access.elapsed() <= IDLE;
            if left.is_zero() && in_use {
                times.last_refresh = Instant::now();
                return true;
            }
            times = if left.is_zero() {
                self.0.stale.store(true, Relaxed);
                self.0.changed.wait(times).expect("no holder panics")
            } else {
                self.0.changed.wait_timeout(times, left).expect("no holder panics").0
            };
        }
    }

    /// Notes the end of a refresh, successful or not.
    pub fn refreshed(&self) {
        let _times = self.lock();
        self.0.stale.store(false, Relaxed);
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, AccessTimes> {
        self.0.times.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_access_after_a_long_pause_waits_for_a_refresh() {
        let freshness = Freshness::default();
        let (due, dues) = std::sync::mpsc::channel();
        freshness.lock().last_access -= 2 * IDLE;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while freshness.wait_until_due(Duration::ZERO) {
                    due.send(freshness.is_stale()).unwrap();
                    freshness.refreshed();
                }
            });
            while !freshness.is_stale() {
                std::thread::yield_now();
            }
            freshness.wait_until_fresh();
            let is_refreshed = dues.try_iter().any(|stale| stale);
            freshness.stop();
            assert!(is_refreshed, "the refresh came before the end of the wait");
        });
        assert!(!freshness.is_stale(), "no access waits for a refresh thread that has ended");
    }
}
