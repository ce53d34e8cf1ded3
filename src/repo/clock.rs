//! The clock of a client. Operations that depend on elapsed time read it from the [`Repository`](super::Repository), so that
//! a test can give each client a clock that is wrong, jumps or stands still.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::storage::test_clock::advance;
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
        (SystemTime::now() + advance()).into()
    }

    fn boot(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32) + advance()
    }
}

/// Measures a span by both clocks of a client.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    wall: Time,
    boot: Duration,
}

impl Stopwatch {
    /// Starts to measure.
    pub fn start(clock: &dyn Clock) -> Self {
        Stopwatch { wall: clock.wall(), boot: clock.boot() }
    }

    /// Returns the time since the start: the longer one of both clocks. A jump of the wall clock counts in both directions.
    pub fn elapsed(&self, clock: &dyn Clock) -> Duration {
        let wall = clock.wall().seconds.abs_diff(self.wall.seconds);
        clock.boot().saturating_sub(self.boot).max(Duration::from_secs(wall))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Fake(Mutex<(i64, u64)>);

    impl Clock for Fake {
        fn wall(&self) -> Time {
            Time::from_seconds(self.0.lock().unwrap().0)
        }

        fn boot(&self) -> Duration {
            Duration::from_secs(self.0.lock().unwrap().1)
        }
    }

    #[test]
    fn the_longer_span_counts_and_a_jump_backwards_is_one() {
        let clock = Fake(Mutex::new((1000, 10)));
        let watch = Stopwatch::start(&clock);
        for (now, elapsed) in [((1005, 12), 5), ((1005, 90), 80), ((400, 12), 600)] {
            *clock.0.lock().unwrap() = now;
            assert_eq!(watch.elapsed(&clock), Duration::from_secs(elapsed), "{now:?}");
        }
    }

    #[test]
    fn the_clocks_of_the_system_run() {
        let clock = SystemClock;
        assert!(clock.boot() > Duration::ZERO && clock.wall().seconds > 1_700_000_000);
    }
}
