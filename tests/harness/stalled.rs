//! A storage whose reads hang on request. By default only reads of large objects do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use nfreezer::context::Context;
use nfreezer::error::Result;
use nfreezer::storage::Storage;

use super::faults::{Answer, Between, Call, Rule};

#[derive(Default)]
pub struct Stall {
    hang: Mutex<bool>,
    go: Condvar,
    /// Whether reads of small objects hang too.
    pub metadata_too: AtomicBool,
    /// Whether a held read stays held after [`Stall::hang`] ends the stall, until its caller cancels it.
    pub for_ever: AtomicBool,
    /// Shortest read that hangs, in bytes.
    pub least: AtomicUsize,
    /// Number of reads that were held, including present ones.
    pub held: AtomicUsize,
}
pub type Stalled = Between<Stall>;

impl Stall {
    pub fn hang(&self, hang: bool) {
        *self.hang.lock().unwrap() = hang;
        self.go.notify_all();
    }

    fn wait(&self, ctx: &Context) -> Result<()> {
        let mut hang = self.hang.lock().unwrap();
        let held = *hang;
        self.held.fetch_add(usize::from(held), SeqCst);
        while *hang || held && self.for_ever.load(SeqCst) {
            ctx.check()?;
            hang = self.go.wait_timeout(hang, Duration::from_millis(10)).unwrap().0;
        }
        Ok(())
    }
}

impl Rule for Stall {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        if let Call::Read(name, _, len) = call
            && (storage.size(ctx, name)? > 1 << 20 || self.metadata_too.load(SeqCst))
            && len >= self.least.load(SeqCst)
        {
            self.wait(ctx)?;
        }
        call.of(ctx, storage)
    }
    fn address(&self, _: &dyn Storage) -> String {
        "a, \"stalled\" one".into()
    }
}
