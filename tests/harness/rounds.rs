//! Counts the rounds in which a caller waits for a storage. Simultaneous reads are one round.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use nfreezer::context::Context;
use nfreezer::error::Result;
use nfreezer::storage::Storage;

use super::faults::{Answer, Call, Rule};

/// Duration of each read, so that reads of one round overlap.
const DELAY: Duration = Duration::from_millis(10);

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

/// The rule that counts reads.
#[derive(Default)]
pub struct Rounds(Mutex<(usize, Reads)>);

impl Rounds {
    /// Returns the counts since the last call.
    pub fn take(&self) -> Reads {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

impl Rule for Rounds {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let Call::Read(_, _, bytes) = call else { return call.of(ctx, storage) };
        let mut state = self.0.lock().unwrap();
        state.1.rounds += usize::from(state.0 == 0);
        state.0 += 1;
        state.1.reads += 1;
        state.1.bytes += bytes;
        state.1.most = state.1.most.max(state.0);
        drop(state);
        thread::sleep(DELAY);
        let answer = call.of(ctx, storage);
        self.0.lock().unwrap().0 -= 1;
        answer
    }
}
