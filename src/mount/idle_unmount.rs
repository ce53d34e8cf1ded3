//! `--idle-unmount`: unmounts when the mount has not been used for some time.
//!
//! Root asks the kernel: MNT_EXPIRE unmounts only if no process has walked through the mount since the last attempt, even
//! where the kernel answered from its cache. Other users count requests: the kernel looks up the names of the view again
//! every 10 s while a process uses them, and a mount with open files cannot be unmounted anyway.

use std::time::{Duration, Instant};

use super::attach::{self, Attached, Expired};
use super::statistics::Counters;

/// Longest interval at which requests are counted.
const INTERVAL: Duration = Duration::from_secs(5);

/// Decides when an unused mount is unmounted.
pub struct IdleUnmount {
    after: Duration,
    /// Requests are counted, because the kernel refuses MNT_EXPIRE.
    counting: bool,
    requests: u64,
    /// When a new request was last seen.
    since: Instant,
    next: Instant,
}

impl IdleUnmount {
    /// Unmounts after this time without use.
    pub fn new(after: Duration) -> Self {
        let now = Instant::now();
        IdleUnmount { after, counting: false, requests: 0, since: now, next: now }
    }

    /// Returns the time until the next call of [`IdleUnmount::try_unmount`].
    pub fn pause(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Unmounts if the mount has not been used for long enough; returns whether it is unmounted.
    pub fn try_unmount(&mut self, attached: &Attached, counters: &Counters) -> bool {
        if !self.counting {
            match attach::expire(attached) {
                Expired::Unmounted => return true,
                Expired::InUse => {
                    self.next = Instant::now() + self.after;
                    return false;
                }
                Expired::Forbidden => self.counting = true,
            }
        }
        self.unmount_by_count(attached, counters.requests())
    }

    fn unmount_by_count(&mut self, attached: &Attached, requests: u64) -> bool {
        let now = Instant::now();
        if requests != self.requests {
            self.requests = requests;
            self.since = now;
        }
        self.next = now + (self.after / 4).min(INTERVAL);
        if now.duration_since(self.since) < self.after {
            return false;
        }
        // Fails if a file is open or a shell stands in the mount; then it is in use although no requests come.
        self.since = now;
        attach::is_mounted(attached) && attach::unmount(&attached.dir, false).is_ok()
    }
}
