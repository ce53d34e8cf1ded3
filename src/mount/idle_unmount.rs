//! `--idle-unmount`: whether a mount has been of no use to anybody for so long that it can go.
//!
//! The kernel knows best: MNT_EXPIRE unmounts only if nobody has walked through the mount since it was asked last, also
//! where it answered from its own memory. Only root may ask so. For others the requests that came in are counted; names
//! above the snapshots are asked for again every 10 s while somebody looks, and a mount in use cannot be unmounted anyway.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::attach::{self, Attached, Expired};
use super::core::Counters;

/// Where requests are counted, at least so often.
const LOOK: Duration = Duration::from_secs(5);

/// See the module.
pub struct Idle {
    after: Duration,
    /// The kernel cannot be asked.
    counting: bool,
    requests: u64,
    since: Instant,
    next: Instant,
}

impl Idle {
    pub fn new(after: Duration) -> Self {
        let now = Instant::now();
        Idle { after, counting: false, requests: 0, since: now, next: now }
    }

    /// How long to wait until the next call of [`Idle::over`].
    pub fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Unmounts if nobody has used it for long enough; gives whether it did.
    pub fn over(&mut self, attached: &Attached, counters: &Counters) -> bool {
        if !self.counting {
            match attach::expire(attached) {
                Expired::Gone => return true,
                Expired::Used => {
                    self.next = Instant::now() + self.after;
                    return false;
                }
                Expired::Forbidden => self.counting = true,
            }
        }
        let requests = requests(counters);
        let now = Instant::now();
        if requests != self.requests {
            (self.requests, self.since) = (requests, now);
        }
        self.next = now + (self.after / 4).min(LOOK);
        if now.duration_since(self.since) < self.after {
            return false;
        }
        let gone = attach::mounted(attached) && attach::unmount(&attached.dir, false).is_ok();
        // Open files or a shell's working directory: it is in use, whether or not requests come in.
        self.since = now;
        gone
    }
}

fn requests(counters: &Counters) -> u64 {
    let all = [&counters.lookups, &counters.attributes, &counters.listings, &counters.xattrs, &counters.reads];
    all.iter().map(|counter| counter.load(Relaxed)).sum()
}
