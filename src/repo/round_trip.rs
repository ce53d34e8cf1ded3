//! Measures the bytes that the storage carries in the time of a round trip, from the durations of reads. Pure: the caller
//! reads the clock.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Reads up to this size, in bytes, show the length of a round trip.
const SMALL: u64 = 160 << 10;
/// Bytes from which on reads show the rate.
const LARGE: u64 = 512 << 10;
/// Bytes after which a busy time is measured although it goes on.
const LONG: u64 = 4 << 20;
/// Rate until one was measured, in bytes per second.
const FIRST_RATE: f64 = 20e6;

/// The measurements of one storage.
#[derive(Default)]
pub(super) struct RoundTripMeter(Mutex<MeterState>);

#[derive(Default)]
struct MeterState {
    busy: Busy,
    /// Time for a small read, in seconds: the shortest one, which rises slowly so that a changed network is noticed.
    wait: Option<f64>,
    /// Bytes per second.
    rate: Option<f64>,
}

/// The time since which at least one read is on its way.
#[derive(Default)]
struct Busy {
    reads: u32,
    since: Duration,
    bytes: u64,
    /// Reads were on their way before `since`, so no round trip was waited for without bytes.
    continues: bool,
}

impl RoundTripMeter {
    /// Notes that a read is sent at this time.
    pub fn sent(&self, now: Duration) {
        let busy = &mut self.lock().busy;
        if busy.reads == 0 {
            *busy = Busy { since: now, ..Busy::default() };
        }
        busy.reads += 1;
    }

    /// Notes that a read ended at this time with `bytes` bytes; 0 if it failed.
    pub fn ended(&self, now: Duration, bytes: u64) {
        let mut meter = self.lock();
        meter.busy.bytes += bytes;
        meter.busy.reads = meter.busy.reads.saturating_sub(1);
        if meter.busy.reads > 0 && meter.busy.bytes < LONG {
            return;
        }
        let Busy { reads, since, bytes, continues } = meter.busy;
        meter.measure(now.saturating_sub(since).as_secs_f64(), bytes, continues);
        meter.busy = Busy { reads, since: now, bytes: 0, continues: true };
    }

    /// Returns the bytes that the storage carries in the time of a small read; 0 before the first one.
    pub fn round_trip(&self) -> u64 {
        let meter = self.lock();
        (meter.wait.unwrap_or_default() * meter.rate.unwrap_or(FIRST_RATE)) as u64
    }

    fn lock(&self) -> MutexGuard<'_, MeterState> {
        self.0.lock().expect("no holder panics")
    }
}

impl MeterState {
    fn measure(&mut self, took: f64, bytes: u64, continues: bool) {
        if bytes == 0 || took <= 0.0 {
            return;
        }
        if bytes <= SMALL && !continues {
            self.wait = Some(self.wait.map_or(took, |wait| took.min(wait * 1.125)));
        } else if bytes >= LARGE {
            let wait = if continues { 0.0 } else { self.wait.unwrap_or_default() };
            // A round trip that was measured too long must not make the rate infinite.
            let rate = bytes as f64 / (took - wait).max(took / 8.0);
            self.rate = Some(self.rate.map_or(rate, |before| (before + rate) / 2.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends reads one after the other over a network with this round trip, in milliseconds, and rate, in bytes per millisecond.
    fn measured(reads: &[u64], round_trip: u64, rate: u64) -> u64 {
        let (meter, mut now) = (RoundTripMeter::default(), 0);
        for bytes in reads {
            meter.sent(Duration::from_millis(now));
            now += round_trip + bytes / rate;
            meter.ended(Duration::from_millis(now), *bytes);
        }
        meter.round_trip()
    }

    #[test]
    fn the_bytes_of_a_round_trip_follow_from_a_small_and_a_large_read() {
        const LARGE: u64 = 1 << 20;
        assert_eq!(measured(&[LARGE], 50, 100_000), 0, "no small read yet");
        assert_eq!(measured(&[65_600], 50, 100_000), 1_000_000, "a rate is assumed");
        let fast = measured(&[65_600, LARGE], 50, 100_000);
        assert!((4_500_000..5_500_000).contains(&fast), "{fast}");
        let slow = measured(&[65_600, LARGE], 50, 2_000);
        assert!((150_000..200_000).contains(&slow), "{slow}");
        let near = measured(&[65_600, LARGE], 0, 100_000);
        assert!(near < 200_000, "{near}");
    }

    #[test]
    fn reads_at_the_same_time_are_measured_together() {
        let (meter, ms) = (RoundTripMeter::default(), Duration::from_millis);
        meter.sent(ms(0));
        meter.ended(ms(50), 65_600);
        (0..8).for_each(|_| meter.sent(ms(100)));
        // 8 MB in 80 ms, behind a round trip.
        (1..=8).for_each(|i| meter.ended(ms(150 + 10 * i), 1_000_000));
        let bytes = meter.round_trip();
        assert!((4_000_000..6_000_000).contains(&bytes), "{bytes}");
        meter.sent(ms(1000));
        meter.ended(ms(9000), 0);
        assert_eq!(meter.round_trip(), bytes, "a read that failed shows nothing");
    }
}
