//! A receiver of events that asks the operation to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use nfreezer::progress::{Event, Progress};

/// Asks a push or a copy to stop when this number of bytes was read.
pub struct StopAfter {
    left: AtomicI64,
    stop: Arc<AtomicI32>,
}

impl StopAfter {
    pub fn new(bytes: u64, stop: Arc<AtomicI32>) -> Self {
        StopAfter { left: AtomicI64::new(bytes as i64), stop }
    }
}

impl Progress for StopAfter {
    fn event(&self, event: Event<'_>) {
        if let Event::Done { files: 0, bytes } = event
            && self.left.fetch_sub(bytes as i64, Ordering::SeqCst) <= bytes as i64
        {
            self.stop.store(15, Ordering::SeqCst);
        }
    }
}
