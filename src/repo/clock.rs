//! The clock of a client. Operations that depend on elapsed time read it from the [`Repository`](super::Repository), so that
//! a test can give each client a clock that is wrong, jumps or stands still.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::time::Time;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Returns the wall-clock time. It may be wrong, and it may jump.
    fn wall(&self) -> Time;

    /// Returns the time since this machine was started, including the time in which it was suspended
    /// (`CLOCK_BOOTTIME`). Only differences have a meaning.
    fn boot(&self) -> Duration;
}

/// The clocks of the operating system.
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Time {
        SystemTime::now().into()
    }

    fn boot(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
    }
}
