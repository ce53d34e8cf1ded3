//! A queue whose items leave in the order in which the walker made them, whatever order the workers finish them in.
//!
//! The number of nodes inside is bounded: the walker waits at the door. A node stays inside until the pack that holds
//! its contents was acknowledged, so the walker may come to wait for a pack that waits for more contents. It says so by
//! [`Queue::pressed`], and the tree closes the pack that it needs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use crate::context::{Context, SLICE};
use crate::error::Result;

/// What comes next out of a [`Queue`].
pub enum Next<T> {
    Ready(T),
    /// Nothing for a while.
    Wait,
    /// Nothing any more.
    End,
}

pub struct Queue<'c, T> {
    ctx: &'c Context<'c>,
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    pressed: AtomicBool,
    most: usize,
}

struct Inner<T> {
    finished: BTreeMap<u64, T>,
    entered: u64,
    left: u64,
    nodes: usize,
    closed: bool,
}

impl<'c, T> Queue<'c, T> {
    /// `most`: nodes that may be inside.
    pub fn new(ctx: &'c Context<'c>, most: usize) -> Self {
        let inner = Inner { finished: BTreeMap::new(), entered: 0, left: 0, nodes: 0, closed: false };
        Queue { ctx, inner: Mutex::new(inner), changed: Condvar::new(), pressed: AtomicBool::new(false), most }
    }

    /// Makes room for an item of so many nodes and gives its number in the line.
    pub fn enter(&self, nodes: usize) -> Result<u64> {
        let mut inner = self.inner.lock().expect("no holder panics");
        while inner.nodes > 0 && inner.nodes + nodes > self.most {
            self.pressed.store(true, Ordering::Relaxed);
            self.ctx.check()?;
            inner = self.changed.wait_timeout(inner, SLICE).expect("no holder panics").0;
        }
        self.pressed.store(false, Ordering::Relaxed);
        inner.nodes += nodes;
        inner.entered += 1;
        Ok(inner.entered - 1)
    }

    /// No further item will enter.
    pub fn close(&self) {
        self.inner.lock().expect("no holder panics").closed = true;
        self.changed.notify_all();
    }

    /// Item number `number` is ready to leave.
    pub fn finish(&self, number: u64, item: T) {
        self.inner.lock().expect("no holder panics").finished.insert(number, item);
        self.changed.notify_all();
    }

    /// The next item in order, if it is ready within [`SLICE`].
    pub fn next(&self) -> Result<Next<T>> {
        let mut inner = self.inner.lock().expect("no holder panics");
        for last in [false, true] {
            let turn = inner.left;
            if let Some(item) = inner.finished.remove(&turn) {
                inner.left += 1;
                return Ok(Next::Ready(item));
            }
            if inner.closed && inner.left == inner.entered {
                return Ok(Next::End);
            }
            self.ctx.check()?;
            if !last {
                inner = self.changed.wait_timeout(inner, SLICE).expect("no holder panics").0;
            }
        }
        Ok(Next::Wait)
    }

    /// The number of the next item in order.
    pub fn next_number(&self) -> u64 {
        self.inner.lock().expect("no holder panics").left
    }

    /// So many nodes are dealt with.
    pub fn leave(&self, nodes: usize) {
        self.inner.lock().expect("no holder panics").nodes -= nodes;
        self.changed.notify_all();
    }

    /// Whether the walker waits for room.
    pub fn pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }
}
