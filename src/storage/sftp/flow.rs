//! The amount in flight: the bytes that the network carries within a round trip and a little more, measured continuously. On a
//! slow network little is queued, so that a small request does not wait behind megabytes; a fast, long network is filled.

use std::time::{Duration, Instant};

/// Time worth of bytes that may be queued beyond a round trip.
const QUEUE: Duration = Duration::from_millis(150);
/// Shortest time over which the rate is measured.
const EPOCH: Duration = Duration::from_millis(100);
/// The least and the first amount on its way, over all channels.
const LEAST: usize = 64 << 10;
const FIRST: usize = 1 << 20;
/// Packets become smaller with the amount, but not smaller than this.
const LEAST_PACKET: usize = 16 << 10;

/// One direction.
pub struct Flow {
    /// Bytes that may be on their way.
    pub limit: usize,
    most: usize,
    since: Instant,
    moved: usize,
    under_way: usize,
    /// The most that was under way since.
    peak: usize,
}

impl Flow {
    /// Begins with at most `most` bytes, whatever the network takes.
    pub fn new(most: usize) -> Self {
        Flow { limit: FIRST.min(most), most, since: Instant::now(), moved: 0, under_way: 0, peak: 0 }
    }

    /// Returns whether `bytes` more may go; one request always may.
    pub fn admits(&self, bytes: usize) -> bool {
        self.under_way == 0 || self.under_way + bytes <= self.limit
    }

    /// Counts a request of `bytes` bytes as sent.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        if self.under_way == 0 {
            (self.since, self.moved, self.peak) = (now, 0, 0);
        }
        self.under_way += bytes;
        self.peak = self.peak.max(self.under_way);
    }

    /// Notes an answer.
    pub fn answered(&mut self, bytes: usize, round_trip: Duration, now: Instant) {
        self.under_way = self.under_way.saturating_sub(bytes);
        self.moved += bytes;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < EPOCH.max(round_trip) {
            return;
        }
        let rate = self.moved as f64 / elapsed.as_secs_f64();
        let fills = (rate * (round_trip + QUEUE).as_secs_f64()) as usize;
        // half or double at most: a pause of the server's disk is not the line; and where little was asked for, little coming
        // is no measure of the connection
        let least = if self.peak * 2 < self.limit { self.limit } else { self.limit / 2 };
        self.limit = fills.clamp(least, self.limit * 2).clamp(LEAST, self.most);
        (self.since, self.moved, self.peak) = (now, 0, self.under_way);
    }

    /// Returns the largest packet to make.
    pub fn packet(&self, most: usize) -> usize {
        most.min((self.limit / 8).max(LEAST_PACKET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps a line of this rate busy for ten seconds, on a clock of the test's own.
    fn settle(rate: f64, round_trip: Duration) -> Flow {
        let start = Instant::now();
        let (mut flow, mut now, mut free) = (Flow::new(20 << 20), start, start);
        let mut way = std::collections::VecDeque::new();
        while now < start + Duration::from_secs(60) && flow.limit < 20 << 20 || now < start + Duration::from_secs(10) {
            let packet = flow.packet(255 << 10);
            while flow.admits(packet) {
                flow.sent(packet, now);
                free = free.max(now) + Duration::from_secs_f64(packet as f64 / rate);
                way.push_back((free + round_trip, packet));
            }
            let (at, bytes) = way.pop_front().expect("one request always goes");
            now = now.max(at);
            flow.answered(bytes, round_trip, now);
            if now > start + Duration::from_secs(60) {
                break;
            }
        }
        flow
    }

    #[test]
    fn a_slow_line_gets_a_short_queue_and_a_long_fast_one_is_filled() {
        let long = Duration::from_millis(50);
        let slow = settle(100e3, long);
        assert_eq!((slow.limit, slow.packet(255 << 10)), (LEAST, LEAST_PACKET));
        let middle = settle(2e6, long);
        assert!((300_000..500_000).contains(&middle.limit), "{}", middle.limit);
        assert!(settle(150e6, long).limit > 150_000_000 / 20, "a round trip's worth at least");
        assert_eq!(settle(1e9, long).limit, 20 << 20);
        assert_eq!(settle(1e9, long).packet(255 << 10), 255 << 10);
    }

    #[test]
    fn small_requests_one_after_the_other_do_not_make_a_line_slow() {
        let (mut flow, mut now) = (Flow::new(20 << 20), Instant::now());
        for _ in 0..100 {
            flow.sent(1000, now);
            now += Duration::from_millis(200);
            flow.answered(1000, Duration::from_millis(200), now);
        }
        assert_eq!(flow.limit, FIRST);
    }

    #[test]
    fn one_request_always_goes() {
        let mut flow = Flow::new(1);
        assert!(flow.admits(1 << 30));
        flow.sent(1 << 30, Instant::now());
        assert!(!flow.admits(1));
    }
}
