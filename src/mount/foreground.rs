//! The requests that wait for the storage at the moment. The prefetch runs only while there are none.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Counts the waiting requests, and wakes the prefetch.
#[derive(Clone, Default)]
pub struct Foreground(Arc<ForegroundShared>);

#[derive(Default)]
struct ForegroundShared {
    counts: Mutex<ForegroundCounts>,
    changed: Condvar,
}

#[derive(Default)]
struct ForegroundCounts {
    requests: usize,
    /// Another snapshot has become the newest.
    new_snapshot: bool,
    stop: bool,
}

/// One waiting request; it ends when this is dropped.
pub struct WaitingRequest(Foreground);

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        counts.requests -= 1;
        if counts.requests == 0 {
            self.0.0.changed.notify_all();
        }
    }
}

impl Foreground {
    /// Counts a request that begins to wait.
    pub fn enter(&self) -> WaitingRequest {
        self.lock().requests += 1;
        WaitingRequest(self.clone())
    }

    /// Notes that another snapshot has become the newest.
    pub fn announce_snapshot(&self) {
        self.lock().new_snapshot = true;
        self.0.changed.notify_all();
    }

    /// Ends all waits for good.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.0.changed.notify_all();
    }

    /// Waits until no request waits; returns false after [`Foreground::stop`].
    pub fn wait_until_idle(&self) -> bool {
        let counts = self.0.changed.wait_while(self.lock(), |counts| counts.requests > 0 && !counts.stop);
        !counts.expect("no holder panics").stop
    }

    /// Waits for another newest snapshot, at most for this time; returns whether there is one.
    pub fn wait_for_snapshot(&self, timeout: Option<Duration>) -> bool {
        let guard = self.lock();
        let mut counts = match timeout {
            None => self.0.changed.wait_while(guard, ForegroundCounts::is_old).expect("no holder panics"),
            Some(timeout) => {
                let waited = self.0.changed.wait_timeout_while(guard, timeout, ForegroundCounts::is_old);
                waited.expect("no holder panics").0
            }
        };
        std::mem::take(&mut counts.new_snapshot)
    }

    fn lock(&self) -> MutexGuard<'_, ForegroundCounts> {
        self.0.counts.lock().expect("no holder panics")
    }
}

impl ForegroundCounts {
    fn is_old(&mut self) -> bool {
        !self.new_snapshot && !self.stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefetch_waits_for_requests_and_ends_when_stopped() {
        let foreground = Foreground::default();
        assert!(foreground.wait_until_idle());
        let entered = foreground.enter();
        let idle = std::thread::spawn({
            let foreground = foreground.clone();
            move || foreground.wait_until_idle()
        });
        std::thread::yield_now();
        assert!(!idle.is_finished(), "a request waits");
        drop(entered);
        assert!(idle.join().unwrap());
        foreground.announce_snapshot();
        assert!(foreground.wait_for_snapshot(None) && !foreground.wait_for_snapshot(Some(Duration::ZERO)));
        let _entered = foreground.enter();
        foreground.stop();
        assert!(!foreground.wait_until_idle() && !foreground.wait_for_snapshot(None));
    }
}
