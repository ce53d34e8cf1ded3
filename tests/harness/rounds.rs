//! Counts the rounds in which a caller waits for a storage. Simultaneous reads are one round.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use nfreezer::context::Context;
use nfreezer::error::Result;
use nfreezer::storage::Storage;

use super::faults::{Answer, Call, Rule};

/// A read ends once no other read has begun for this time. So the reads of one round overlap, also where a busy machine
/// starts their threads one after the other.
const QUIET: Duration = Duration::from_millis(30);

/// Counts of reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Reads that began while no other read was in progress.
    pub rounds: usize,
    /// All reads.
    pub reads: usize,
    /// Bytes requested by all reads.
    pub bytes: usize,
    /// Most reads in progress at the same time.
    pub most: usize,
}

#[derive(Default)]
struct State {
    /// Whether reads are counted, which takes time: from the first call of [`Rounds::take`].
    is_counting: bool,
    in_progress: usize,
    counts: Reads,
}

/// The rule that counts reads.
#[derive(Default)]
pub struct Rounds {
    state: Mutex<State>,
    begun: Condvar,
}

impl Rounds {
    /// Returns the counts since the last call. The first call begins to count.
    pub fn take(&self) -> Reads {
        let mut state = self.state.lock().unwrap();
        state.is_counting = true;
        std::mem::take(&mut state.counts)
    }

    /// Counts a read of this length that begins, and waits until its round is complete.
    fn begin(&self, bytes: usize) {
        let mut state = self.state.lock().unwrap();
        state.counts.rounds += usize::from(state.in_progress == 0);
        state.in_progress += 1;
        state.counts.reads += 1;
        state.counts.bytes += bytes;
        state.counts.most = state.counts.most.max(state.in_progress);
        self.begun.notify_all();
        loop {
            let before = state.counts.reads;
            let waited = self.begun.wait_timeout_while(state, QUIET, |state| state.counts.reads == before).unwrap();
            state = waited.0;
            if waited.1.timed_out() {
                return;
            }
        }
    }
}

impl Rule for Rounds {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let Call::Read(_, _, bytes) = call else { return call.of(ctx, storage) };
        if !self.state.lock().unwrap().is_counting {
            return call.of(ctx, storage);
        }
        self.begin(bytes);
        let answer = call.of(ctx, storage);
        self.state.lock().unwrap().in_progress -= 1;
        answer
    }
}
