//! The amount in flight: the bytes that the network carries within a round trip and a little more, measured continuously. On a
//! slow network little is queued, so that a small request does not wait behind megabytes; a fast, long network is filled.

use std::time::{Duration, Instant};

/// Time worth of bytes that may be queued beyond a round trip.
const QUEUE: Duration = Duration::from_millis(150);
/// Shortest time between two changes.
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
    under_way: usize,
    /// Bytes that were answered since the beginning.
    answered: u64,
    round: Round,
}

/// The time from one change of the limit to the next: a round trip at least, so that every burst of answers lies in one.
struct Round {
    since: Instant,
    /// [`Flow::answered`] at its beginning.
    answered: u64,
    /// The greatest rate at which a request of this round saw bytes being answered, in bytes per second.
    rate: f64,
    /// The most that was under way.
    peak: usize,
}

/// The place of a request in the bytes of a direction.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: Instant,
    bytes: usize,
    /// [`Flow::answered`] when it was sent.
    answered: u64,
}

impl Flow {
    /// Begins with at most `most` bytes, whatever the network takes.
    pub fn new(most: usize) -> Self {
        let round = Round { since: Instant::now(), answered: 0, rate: 0.0, peak: 0 };
        Flow { limit: FIRST.min(most), most, under_way: 0, answered: 0, round }
    }

    /// Returns whether `bytes` more may go; one request always may.
    pub fn admits(&self, bytes: usize) -> bool {
        self.under_way == 0 || self.under_way + bytes <= self.limit
    }

    /// Counts a request of `bytes` bytes as sent. Its mark is handed to [`Flow::answered`].
    pub fn sent(&mut self, bytes: usize, now: Instant) -> Mark {
        self.under_way += bytes;
        self.round.peak = self.round.peak.max(self.under_way);
        Mark { at: now, bytes, answered: self.answered }
    }

    /// Notes an answer. The rate is measured from the sending of each request to its answer. So it does not matter whether answers
    /// come evenly, in bursts, or after a pause without requests.
    pub fn answered(&mut self, mark: Mark, round_trip: Duration, now: Instant) {
        self.under_way = self.under_way.saturating_sub(mark.bytes);
        self.answered += mark.bytes as u64;
        let took = now.saturating_duration_since(mark.at).max(Duration::from_micros(1));
        let round = &mut self.round;
        round.rate = round.rate.max((self.answered - mark.answered) as f64 / took.as_secs_f64());
        // A request that was sent after an answer of this round follows everything that was under way at its beginning. One that
        // waited in a long queue has seen the rate as well, and the queue must become shorter soon.
        let is_queued = took > round_trip + QUEUE;
        let shortest = if is_queued { EPOCH.max(round_trip) } else { EPOCH };
        if now.saturating_duration_since(round.since) < shortest || !is_queued && mark.answered <= round.answered {
            return;
        }
        let fills = (round.rate * (round_trip + QUEUE).as_secs_f64()) as usize;
        // half or double at most: a pause of the server's disk is not the line; and where little was asked for, little coming
        // is no measure of the connection
        let least = if round.peak * 2 < self.limit { self.limit } else { self.limit / 2 };
        self.limit = fills.clamp(least, self.limit * 2).clamp(LEAST, self.most);
        self.round = Round { since: now, answered: self.answered, rate: 0.0, peak: self.under_way };
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
                let mark = flow.sent(packet, now);
                free = free.max(now) + Duration::from_secs_f64(packet as f64 / rate);
                way.push_back((free + round_trip, mark));
            }
            let (at, mark) = way.pop_front().expect("one request always goes");
            now = now.max(at);
            flow.answered(mark, round_trip, now);
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

    /// Sends in bursts: all that may be on its way goes at once, and its answers arrive together a round trip later.
    fn settle_in_bursts(round_trip: Duration, rounds: u32) -> Flow {
        let (mut flow, mut now) = (Flow::new(20 << 20), Instant::now());
        for _ in 0..rounds {
            let mut way = Vec::new();
            let packet = flow.packet(255 << 10);
            while flow.admits(packet) {
                way.push(flow.sent(packet, now));
            }
            now += round_trip;
            way.into_iter().for_each(|mark| flow.answered(mark, round_trip, now));
            now += Duration::from_millis(1);
        }
        flow
    }

    #[test]
    fn answers_in_bursts_do_not_make_a_line_slow() {
        for millis in [50, 100, 200, 400] {
            let flow = settle_in_bursts(Duration::from_millis(millis), 40);
            assert!(flow.limit > 15 << 20, "{millis} ms: {}", flow.limit);
        }
    }

    #[test]
    fn a_slow_line_is_noticed_before_the_first_queue_is_answered() {
        let (mut flow, start, rate) = (Flow::new(20 << 20), Instant::now(), 100e3);
        let mut way = Vec::new();
        while flow.admits(64 << 10) {
            way.push(flow.sent(64 << 10, start));
        }
        assert_eq!(way.len(), 16);
        let taken =
            |count: usize| Duration::from_millis(50) + Duration::from_secs_f64((count * (64 << 10)) as f64 / rate);
        for (number, mark) in way.into_iter().take(4).enumerate() {
            flow.answered(mark, Duration::from_millis(50), start + taken(number + 1));
        }
        assert_eq!(flow.limit, LEAST);
    }

    #[test]
    fn small_requests_one_after_the_other_do_not_make_a_line_slow() {
        let (mut flow, mut now) = (Flow::new(20 << 20), Instant::now());
        for _ in 0..100 {
            let mark = flow.sent(1000, now);
            now += Duration::from_millis(200);
            flow.answered(mark, Duration::from_millis(200), now);
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
