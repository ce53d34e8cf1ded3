//! How long an operation may take. A server that sends a byte from time to time resets every timeout of silence. This bound
//! still ends each operation.

use std::time::{Duration, Instant};

/// Bytes per second that an operation must move in the long run. A modem carries ten times as much, so eight operations
/// that share the slowest network in use pass.
const LEAST_RATE: u64 = 512;

/// Multiple of the timeout of a silent server after which an operation is overdue that moved nothing.
pub const OVERDUE: u32 = 20;

/// The reason for giving up the connection of an overdue operation.
pub const TOO_SLOW: &str = "the server is far too slow: an operation moved next to nothing for a long time";

/// Returns the time that `bytes` need on the slowest network.
pub fn earned(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1000 / LEAST_RATE)
}

/// The time that is left to one operation: a base, and the time earned by the bytes that it moved.
pub struct Allowance {
    until: Instant,
}

impl Allowance {
    /// Makes the allowance of an operation that begins now. `base` covers the waiting for the first answers.
    pub fn new(base: Duration) -> Self {
        Allowance { until: Instant::now() + base }
    }

    /// Adds the time that `bytes` need on the slowest network.
    pub fn moved(&mut self, bytes: usize) {
        self.until += earned(bytes);
    }

    /// Adds time for which the user's own rate limit held a request back.
    pub fn held_back(&mut self, time: Duration) {
        self.until += time;
    }

    /// Returns the time that is left; zero if it is used up.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}
