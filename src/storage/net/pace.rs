//! `--limit-upload`, `--limit-download`: each request waits until the requests before it are paid for. No credit is saved up
//! while the connection is idle, so there are no bursts. The rate may change during a run.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::limit::Limit;

/// Largest share of the limit for one request, as a time, so that requests are spread evenly.
const SHARE: Duration = Duration::from_millis(100);
/// The smallest packet that is made for that.
const LEAST: usize = 4 << 10;

/// Limits the bytes per second of all callers together.
pub struct Pace {
    limit: Limit,
    /// The rate at this moment.
    rate: fn(&Limit) -> Option<u64>,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// Makes one without a past.
    pub fn new(limit: Limit) -> Self {
        Pace { limit, rate: Limit::now, next: Mutex::new(None) }
    }

    /// Returns the bytes per second at this moment, at least 1.
    fn rate(&self) -> Option<f64> {
        (self.rate)(&self.limit).map(|rate| rate.max(1) as f64)
    }

    /// When `bytes` that are ready at `now` may go. They count as gone.
    pub fn book(&self, bytes: usize, now: Instant) -> Instant {
        let mut next = self.next.lock().expect("no holder panics");
        let due = next.map_or(now, |next| next.max(now));
        // a day at most, so that no arithmetic of times fails
        let cost = self.rate().map_or(0.0, |rate| (bytes as f64 / rate).min(86_400.0));
        *next = Some(due + Duration::from_secs_f64(cost));
        due
    }

    /// Returns the largest packet that passes evenly.
    pub fn packet(&self, most: usize) -> usize {
        let share = self.rate().map_or(most, |rate| (rate * SHARE.as_secs_f64()) as usize);
        most.min(share.max(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use super::*;

    #[test]
    fn the_rate_is_kept_without_bursts() {
        let start = Instant::now();
        let pace = Pace::new(1_000_000.into());
        assert_eq!(pace.packet(255 << 10), 100_000);
        let mut now = start;
        let mut sent: Vec<(Instant, usize)> = Vec::new();
        for round in 0..500usize {
            let bytes = 1 + round * 7919 % 100_000;
            now = pace.book(bytes, now);
            sent.push((now, bytes));
            if round == 250 {
                now += Duration::from_secs(30); // idle: nothing is saved up
            }
        }
        for (at, _) in &sent {
            let window = sent.iter().filter(|(t, _)| t >= at && *t < *at + Duration::from_millis(250));
            assert!(window.map(|(_, bytes)| bytes).sum::<usize>() <= 250_000 + 100_000);
        }
        let total: usize = sent.iter().map(|(_, bytes)| bytes).sum();
        let busy = (now - start).as_secs_f64() - 30.0;
        assert!((total as f64 / busy / 1e6 - 1.0).abs() < 0.02, "{total} in {busy}");
    }

    #[test]
    fn the_rate_changes_while_requests_go_on() {
        static MINUTE: AtomicU16 = AtomicU16::new(18 * 60);
        let limit = Limit::timetable(vec![(8 * 60, Some(100_000)), (19 * 60, None)]).unwrap();
        let rate = |limit: &Limit| limit.at(MINUTE.load(Ordering::Relaxed));
        let pace = Pace { rate, ..Pace::new(limit) };
        let start = Instant::now();
        assert_eq!((pace.book(50_000, start), pace.packet(64 << 10)), (start, 10_000));
        let second = pace.book(50_000, start);
        assert_eq!(second - start, Duration::from_millis(500));
        MINUTE.store(19 * 60, Ordering::Relaxed);
        // The request before is paid for, and then there is no limit.
        let third = pace.book(1 << 30, second);
        assert_eq!(third - start, Duration::from_secs(1));
        assert_eq!((pace.book(1 << 30, third), pace.packet(64 << 10)), (third, 64 << 10));
        MINUTE.store(8 * 60, Ordering::Relaxed);
        let limited = pace.book(50_000, third);
        assert_eq!(pace.book(1, limited) - limited, Duration::from_millis(500));
    }

    #[test]
    fn extreme_rates_are_harmless() {
        let now = Instant::now();
        let slow = Pace::new(0.into());
        assert_eq!((slow.book(usize::MAX, now), slow.packet(255 << 10)), (now, LEAST));
        assert!(slow.book(1, now) > now);
        let fast = Pace::new(u64::MAX.into());
        assert_eq!((fast.book(1 << 30, now), fast.packet(1000)), (now, 1000));
    }
}
