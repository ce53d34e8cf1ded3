//! Bytes of memory that many threads share while they wait for reads. Many small reads may be in flight at the same time,
//! and few large ones.

use std::sync::{Condvar, Mutex};

use crate::context::Context;
use crate::error::Result;

/// A bounded number of bytes.
pub struct Allowance {
    all: u64,
    left: Mutex<u64>,
    returned: Condvar,
}

/// Bytes of an allowance, until this is dropped.
pub struct Share<'a> {
    allowance: &'a Allowance,
    bytes: u64,
}

impl Allowance {
    /// Makes an allowance of `bytes`, at least one.
    pub fn new(bytes: u64) -> Self {
        let all = bytes.max(1);
        Allowance { all, left: Mutex::new(all), returned: Condvar::new() }
    }

    /// Waits until `bytes` are left, and takes them. More than the whole allowance counts as the whole allowance.
    pub fn take(&self, ctx: &Context, bytes: u64) -> Result<Share<'_>> {
        let bytes = bytes.min(self.all);
        let mut left = self.left.lock().expect("no holder panics");
        while *left < bytes {
            left = ctx.wait(&self.returned, left)?;
        }
        *left -= bytes;
        Ok(Share { allowance: self, bytes })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.allowance.left.lock().expect("no holder panics") += self.bytes;
        self.allowance.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn threads_never_hold_more_than_the_allowance_and_one_that_wants_more_gets_all() {
        let (allowance, held, most) = (Allowance::new(10), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for i in 0..16u64 {
                let (allowance, held, most) = (&allowance, &held, &most);
                scope.spawn(move || {
                    let bytes = if i == 7 { 99 } else { i % 4 };
                    let _share = allowance.take(background(), bytes).unwrap();
                    most.fetch_max(held.fetch_add(bytes.min(10), Ordering::SeqCst) + bytes.min(10), Ordering::SeqCst);
                    std::thread::yield_now();
                    held.fetch_sub(bytes.min(10), Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 10);
    }
}
