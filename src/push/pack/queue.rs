//! The ordered queue: batches leave it in the order of the walk, in whatever order the workers finish them.
//!
//! The number of nodes in the queue is bounded; see [`super`] for what happens when it is full.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::context::{Context, SLICE};
use crate::error::Result;

/// The next event of a [`Queue`].
pub enum Next<T> {
    Ready(T),
    /// The next item is not ready within [`SLICE`].
    Wait,
    /// All items have left.
    End,
}

/// An ordered queue of items of one or more nodes each.
pub struct Queue<'c, T> {
    ctx: &'c Context<'c>,
    state: Mutex<QueueState<T>>,
    changed: Condvar,
    pressed: AtomicBool,
    /// Nodes that may be in the queue.
    capacity: usize,
}

struct QueueState<T> {
    ready: BTreeMap<u64, T>,
    /// Items that have entered. The number of an item is the number of items before it.
    entered: u64,
    /// Items that have left, and so the number of the next one.
    left: u64,
    /// Nodes that have entered and are not done.
    nodes: usize,
    closed: bool,
}

impl<'c, T> Queue<'c, T> {
    /// Makes an empty queue with room for `capacity` nodes.
    pub fn new(ctx: &'c Context<'c>, capacity: usize) -> Self {
        let state = QueueState { ready: BTreeMap::new(), entered: 0, left: 0, nodes: 0, closed: false };
        Queue { ctx, state: Mutex::new(state), changed: Condvar::new(), pressed: AtomicBool::new(false), capacity }
    }

    /// Waits until there is room for an item of this many nodes. Returns the number of the item.
    pub fn enter(&self, nodes: usize) -> Result<u64> {
        let mut state = self.lock();
        while state.nodes > 0 && state.nodes + nodes > self.capacity {
            self.pressed.store(true, Ordering::Relaxed);
            self.ctx.check()?;
            state = self.changed.wait_timeout(state, SLICE).expect("no holder panics").0;
        }
        self.pressed.store(false, Ordering::Relaxed);
        state.nodes += nodes;
        state.entered += 1;
        Ok(state.entered - 1)
    }

    /// Notes that no further item will enter.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Adds an item that entered as `number` and is ready to leave.
    pub fn put(&self, number: u64, item: T) {
        self.lock().ready.insert(number, item);
        self.changed.notify_all();
    }

    /// Returns the next item in order, if it is ready within [`SLICE`]. Its nodes stay in the queue until
    /// [`Queue::release`].
    pub fn next(&self) -> Result<Next<T>> {
        let mut state = self.lock();
        for last in [false, true] {
            let number = state.left;
            if let Some(item) = state.ready.remove(&number) {
                state.left += 1;
                return Ok(Next::Ready(item));
            }
            if state.closed && state.left == state.entered {
                return Ok(Next::End);
            }
            self.ctx.check()?;
            if !last {
                state = self.changed.wait_timeout(state, SLICE).expect("no holder panics").0;
            }
        }
        Ok(Next::Wait)
    }

    /// Returns the number of the next item in order.
    pub fn next_number(&self) -> u64 {
        self.lock().left
    }

    /// Makes room: this many nodes are done.
    pub fn release(&self, nodes: usize) {
        self.lock().nodes -= nodes;
        self.changed.notify_all();
    }

    /// Returns whether the walk waits for room.
    pub fn pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().expect("no holder panics")
    }
}
