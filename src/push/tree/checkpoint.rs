//! The schedule of checkpoints. A checkpoint commits a partial snapshot with the part of the tree that is known, so that
//! the next push continues from it.

use std::time::{Duration, Instant};

/// When a push makes checkpoints.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoints {
    /// Delay before the first checkpoint, if anything new is stored. Each following interval is 1.5 times longer.
    pub after: Duration,
    /// Upper bound of the interval.
    pub at_most: Duration,
    /// Number of uncommitted chunks at which a checkpoint is made at any time; `None`: as many as the memory allows.
    pub chunks: Option<usize>,
    /// Number of steps of the walk after which a checkpoint is made even if nothing new is stored; 0: never. For tests.
    pub steps: u64,
    /// Delay after the user's stop before a checkpoint, if packs are still on their way then.
    pub after_stop: Duration,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Checkpoints {
            after: Duration::from_secs(60),
            at_most: Duration::from_secs(600),
            chunks: None,
            steps: 0,
            after_stop: Duration::from_secs(5),
        }
    }
}

/// Decides when the next checkpoint is due.
pub struct Checkpointer {
    plan: Checkpoints,
    interval: Duration,
    next: Instant,
    steps: u64,
    /// Chunks in memory at which the next checkpoint is due.
    chunks: usize,
    /// Chunks that may be in memory.
    pub most: usize,
    /// Whether a checkpoint was made after the user's stop.
    is_last_done: bool,
}

impl Checkpointer {
    /// `most`: chunks that may be in memory.
    pub fn new(plan: Checkpoints, most: usize) -> Self {
        let most = plan.chunks.unwrap_or(most);
        let next = Instant::now() + plan.after;
        Checkpointer { plan, interval: plan.after, next, steps: 0, chunks: most, most, is_last_done: false }
    }

    /// Counts a step of the walk.
    pub fn count_step(&mut self) {
        self.steps += 1;
    }

    /// Returns whether a checkpoint is due. `chunks`: those in memory; `fresh`: whether data packs are stored that no record
    /// names, asked only if the rest is true.
    pub fn is_due(&self, chunks: usize, fresh: impl FnOnce() -> bool) -> bool {
        let enough_steps = self.plan.steps > 0 && self.steps >= self.plan.steps;
        enough_steps || ((chunks >= self.chunks || Instant::now() >= self.next) && fresh())
    }

    /// Returns whether a checkpoint is due this long after the user's stop: the process may be killed before all open packs are
    /// stored. `fresh`: see [`Checkpointer::is_due`].
    pub fn is_due_after_stop(&self, since: Duration, fresh: impl FnOnce() -> bool) -> bool {
        !self.is_last_done && since >= self.plan.after_stop && fresh()
    }

    /// Notes that a checkpoint was made after the user's stop.
    pub fn done_after_stop(&mut self) {
        self.is_last_done = true;
    }

    /// Plans the next checkpoint. `chunks`: those that are still in memory.
    pub fn done(&mut self, chunks: usize) {
        self.interval = self.interval.mul_f64(1.5).min(self.plan.at_most);
        self.next = Instant::now() + self.interval;
        self.steps = 0;
        // Chunks of packs that are still being uploaded cannot be committed, so the next pack alone is no reason for
        // another checkpoint.
        self.chunks = self.most.max(chunks + self.most / 2);
    }
}
