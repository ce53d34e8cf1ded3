//! Points in time as the format stores them. Pure: nothing in here reads a clock.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Seconds and nanoseconds since 1970-01-01 00:00:00 UTC. Encoded as these two numbers, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after that second, below 10^9.
    pub nanoseconds: u32,
}

impl Time {
    /// Returns the time with these parts. Does not check the nanoseconds, see [`Time::is_valid`].
    pub const fn new(seconds: i64, nanoseconds: u32) -> Self {
        Time { seconds, nanoseconds }
    }

    /// Returns the time at the beginning of a second.
    pub const fn from_seconds(seconds: i64) -> Self {
        Time::new(seconds, 0)
    }

    /// Returns whether the nanoseconds are below 10^9.
    pub fn is_valid(&self) -> bool {
        self.nanoseconds < 1_000_000_000
    }

    /// Converts to the calendar. `None` outside of the years -9999 to 9999.
    pub fn timestamp(&self) -> Option<jiff::Timestamp> {
        let nanoseconds = i32::try_from(self.nanoseconds).ok()?;
        jiff::Timestamp::new(self.seconds, nanoseconds).ok()
    }
}

/// Writes the time in UTC to the second, or `@seconds` where the calendar ends.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.seconds) {
            Ok(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
            Err(_) => write!(f, "@{}", self.seconds),
        }
    }
}

/// Converts a system time. A time before 1970 becomes 1970.
impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Time::new(since.as_secs().try_into().unwrap_or(i64::MAX), since.subsec_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc_and_beyond_the_calendar_as_numbers() {
        assert_eq!(Time::from_seconds(1_700_000_000).to_string(), "2023-11-14 22:13:20 UTC");
        assert_eq!(Time::new(-1, 5).to_string(), "1969-12-31 23:59:59 UTC");
        assert_eq!(Time::from_seconds(i64::MAX).to_string(), format!("@{}", i64::MAX));
    }

    #[test]
    fn times_are_ordered_by_seconds_first() {
        assert!(Time::new(-1, 999_999_999) < Time::default());
        assert!(Time::new(1, 5) < Time::new(1, 6) && Time::new(1, 6) < Time::new(2, 0));
        assert!(!Time::new(0, 1_000_000_000).is_valid());
    }
}
