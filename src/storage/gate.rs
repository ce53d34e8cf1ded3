//! How many puts run at once. Where connections break again and again, fewer at a time: an object that is cut off has to be sent
//! again from its beginning, so one that gets through is worth more than four that are half done.

use std::sync::{Condvar, Mutex};

use super::halt::{SLICE, Stop, stopped};
use crate::error::Result;

/// Lets puts in.
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    running: usize,
    limit: usize,
}

/// One put is running.
pub struct Pass<'a>(&'a Gate);

impl Default for Gate {
    fn default() -> Self {
        Gate { inner: Mutex::new(Inner { running: 0, limit: usize::MAX }), changed: Condvar::new() }
    }
}

impl Gate {
    /// Waits until one more put may run.
    pub fn enter(&self, stop: Stop<'_>) -> Result<Pass<'_>> {
        let mut inner = self.inner.lock().expect("no holder panics");
        while inner.running >= inner.limit {
            if stop() {
                return Err(stopped());
            }
            inner = self.changed.wait_timeout(inner, SLICE).expect("no holder panics").0;
        }
        inner.running += 1;
        Ok(Pass(self))
    }

    /// A put got through: one more may run.
    pub fn stored(&self) {
        let mut inner = self.inner.lock().expect("no holder panics");
        inner.limit = inner.limit.saturating_add(1);
        self.changed.notify_all();
    }

    /// The connection broke under a put: half as many.
    pub fn broken(&self) {
        let mut inner = self.inner.lock().expect("no holder panics");
        inner.limit = (inner.limit.min(inner.running) / 2).max(1);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().expect("no holder panics").running -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn fewer_after_each_break_and_more_after_each_success() {
        let gate = Gate::default();
        let limit = |gate: &Gate| gate.inner.lock().unwrap().limit;
        let passes: Vec<Pass<'_>> = (0..8).map(|_| gate.enter(&|| true).unwrap()).collect();
        gate.stored();
        gate.broken();
        assert_eq!(limit(&gate), 4);
        (0..5).for_each(|_| gate.broken());
        drop(passes);
        let one = gate.enter(&|| true).unwrap();
        assert!(matches!(gate.enter(&|| true).map(drop).unwrap_err().kind(), Kind::Interrupted(_)));
        gate.stored();
        gate.enter(&|| true).unwrap();
        drop(one);
    }
}
