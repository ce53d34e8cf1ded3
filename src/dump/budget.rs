//! Bounds the bytes of contents in memory.

use std::sync::{Arc, Condvar, Mutex};

use crate::context::Context;
use crate::error::Result;

/// Bytes that may be fetched and not written yet.
const MOST: u64 = 64 << 20;

/// The bytes that are taken.
#[derive(Default)]
pub struct Budget {
    taken: Mutex<u64>,
    less: Condvar,
}

/// Bytes that count until this is dropped.
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Takes bytes, and waits while others have too many.
    pub fn take(self: &Arc<Self>, ctx: &Context, bytes: u64) -> Result<Share> {
        let mut taken = self.taken.lock().expect("no holder panics");
        while *taken > 0 && *taken + bytes > MOST {
            taken = ctx.wait(&self.less, taken)?;
        }
        *taken += bytes;
        drop(taken);
        Ok(Share { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.budget.taken.lock().expect("no holder panics") -= self.bytes;
        self.budget.less.notify_all();
    }
}
