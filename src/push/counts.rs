//! Counts the entries that a push reports as skipped or excluded, on their way to the receiver of its events.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::Context;
use crate::progress::{Event, Progress};

/// Counters of one push. Receives all of its events and passes them on.
pub(super) struct Counts<'p> {
    outer: Context<'p>,
    skipped: AtomicU64,
    excluded: AtomicU64,
}

impl<'p> Counts<'p> {
    /// Counts the events that are reported to `ctx`.
    pub fn new(ctx: &Context<'p>) -> Self {
        Counts { outer: ctx.clone(), skipped: AtomicU64::new(0), excluded: AtomicU64::new(0) }
    }

    /// Returns the number of nodes that could not be saved, or not completely.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Returns the number of entries that the user's rules left out.
    pub fn excluded(&self) -> u64 {
        self.excluded.load(Ordering::Relaxed)
    }
}

impl Progress for Counts<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Skipped { .. } => drop(self.skipped.fetch_add(1, Ordering::Relaxed)),
            Event::Excluded { .. } => drop(self.excluded.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        self.outer.event(event);
    }
}
