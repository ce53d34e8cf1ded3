//! `--limit-upload`, `--limit-download`: requests are let go one after the other, each at the time at which those before it are
//! paid for. No credit is saved up while the line is idle, so there are no bursts.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Largest share of the limit for one request, as a time, so that requests are spread evenly.
const SHARE: Duration = Duration::from_millis(100);
/// The smallest packet that is made for that.
const LEAST: usize = 4 << 10;

/// Limits the bytes per second of all callers together.
pub struct Pace {
    rate: u64,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// `rate`: bytes a second; at least 1.
    pub fn new(rate: u64) -> Self {
        Pace { rate: rate.max(1), next: Mutex::new(None) }
    }

    /// When `bytes` that are ready at `now` may go. They count as gone.
    pub fn book(&self, bytes: usize, now: Instant) -> Instant {
        let mut next = self.next.lock().expect("no holder panics");
        let due = next.map_or(now, |next| next.max(now));
        // a day at most, so that no arithmetic of times fails
        let cost = (bytes as f64 / self.rate as f64).min(86_400.0);
        *next = Some(due + Duration::from_secs_f64(cost));
        due
    }

    /// The largest packet that passes evenly.
    pub fn packet(&self, most: usize) -> usize {
        let share = (self.rate as f64 * SHARE.as_secs_f64()) as usize;
        most.min(share.max(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_without_bursts() {
        let start = Instant::now();
        let pace = Pace::new(1_000_000);
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
    fn extreme_rates_are_harmless() {
        let now = Instant::now();
        let slow = Pace::new(0);
        assert_eq!((slow.book(usize::MAX, now), slow.packet(255 << 10)), (now, LEAST));
        assert!(slow.book(1, now) > now);
        let fast = Pace::new(u64::MAX);
        assert_eq!((fast.book(1 << 30, now), fast.packet(1000)), (now, 1000));
    }
}
