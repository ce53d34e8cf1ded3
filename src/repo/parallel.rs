//! Work on several threads, most of which wait for the storage. Results come in the order of the items.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::context::{Context, Group};
use crate::error::Result;

/// Calls `work` for each item, on up to `threads` threads, or on this thread if one is enough. Returns the results in the order
/// of the items.
pub fn parallel<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    #[cfg(test)]
    if super::deterministic::is_on() {
        return items.into_iter().map(work).collect();
    }
    let count = items.len();
    if threads.min(count) <= 1 {
        return items.into_iter().map(work).collect();
    }
    let queue = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let run = || {
        while let Some((i, item)) = next(&queue) {
            let result = work(item);
            done.lock().expect("no holder panics").push((i, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(run);
        }
    });
    let mut done = done.into_inner().expect("no holder panics");
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

fn next<I: Iterator>(queue: &Mutex<I>) -> Option<I::Item> {
    queue.lock().expect("no holder panics").next()
}

/// How far [`in_order`] works ahead.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most threads.
    pub threads: usize,
    /// Most bytes of all items that are being worked on or wait for their turn. One item may have more.
    pub bytes: u64,
}

/// Calls `work` for items on several threads, and passes each result to `take` on this thread, in the order of the items.
/// While `take` works, the next results are computed. An item counts with its `size` until `take` has returned.
///
/// # Errors
///
/// The first error of `take`, which ends the work, and a stop of the context.
pub fn in_order<T: Send, R: Send>(
    ctx: &Context,
    bounds: Bounds,
    items: Vec<T>,
    size: impl Fn(&T) -> u64,
    work: impl Fn(T) -> R + Sync,
    mut take: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let (count, threads) = (items.len(), bounds.threads.min(items.len()));
    #[cfg(test)]
    let threads = if super::deterministic::is_on() { 1 } else { threads };
    if threads <= 1 {
        return items.into_iter().try_for_each(|item| ctx.check().and_then(|()| take(work(item))));
    }
    let open = items.into_iter().map(|item| (size(&item), item)).collect();
    let group = Group::new(ctx);
    let state = Mutex::new(State { open, begun: 0, taken: 0, bytes: 0, done: BTreeMap::new() });
    let (room, ready) = Default::default();
    let window = Window { ctx: group.context(), most: bounds.bytes, state, room, ready };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| group.run(|| window.work(&work)));
        }
        group.run(|| (0..count).try_for_each(|_| window.take(&mut take)))
    });
    group.result()
}

struct State<T, R> {
    /// Items that no thread has begun, each with its size.
    open: VecDeque<(u64, T)>,
    /// The number of items that a thread has begun.
    begun: usize,
    /// The number of results that were taken.
    taken: usize,
    /// Bytes of the items that were begun and not taken.
    bytes: u64,
    /// Results that wait for their turn, each with its size.
    done: BTreeMap<usize, (u64, R)>,
}

struct Window<'w, T, R> {
    ctx: &'w Context<'w>,
    most: u64,
    state: Mutex<State<T, R>>,
    /// A thread may begin the next item, or there is none.
    room: Condvar,
    /// The next result is there.
    ready: Condvar,
}

impl<T, R> State<T, R> {
    /// Takes the next item out, with its number and size, if there is room for it.
    fn begin(&mut self, most: u64) -> Option<(usize, u64, T)> {
        let (size, _) = self.open.front()?;
        if self.bytes > 0 && self.bytes.saturating_add(*size) > most {
            return None;
        }
        let (size, item) = self.open.pop_front()?;
        self.bytes = self.bytes.saturating_add(size);
        self.begun += 1;
        Some((self.begun - 1, size, item))
    }
}

impl<T, R> Window<'_, T, R> {
    /// The body of a thread.
    fn work(&self, work: &impl Fn(T) -> R) -> Result<()> {
        let mut state = self.lock();
        while !state.open.is_empty() {
            self.ctx.check()?;
            let Some((number, size, item)) = state.begin(self.most) else {
                state = self.ctx.wait(&self.room, state)?;
                continue;
            };
            // One thread that waits is enough for the next item, and all of them end after the last one.
            if state.open.is_empty() {
                self.room.notify_all()
            } else {
                self.room.notify_one()
            }
            drop(state);
            let result = work(item);
            state = self.lock();
            state.done.insert(number, (size, result));
            if number == state.taken {
                self.ready.notify_one();
            }
        }
        Ok(())
    }

    /// Waits for the next result, and passes it on.
    fn take(&self, take: &mut impl FnMut(R) -> Result<()>) -> Result<()> {
        let mut state = self.lock();
        let (size, result) = loop {
            let next = state.taken;
            if let Some(done) = state.done.remove(&next) {
                break done;
            }
            state = self.ctx.wait(&self.ready, state)?;
        };
        state.taken += 1;
        drop(state);
        take(result)?;
        self.lock().bytes -= size;
        self.room.notify_one();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State<T, R>> {
        self.state.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;
    use crate::error::Error;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn results_come_in_order_and_the_bytes_ahead_are_bounded() {
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let work = |i: u64| {
            most.fetch_max(held.fetch_add(i % 5, Ordering::SeqCst) + i % 5, Ordering::SeqCst);
            std::thread::yield_now();
            i
        };
        let mut taken = Vec::new();
        let take = |i: u64| {
            taken.push(i);
            held.fetch_sub(i % 5, Ordering::SeqCst);
            Ok(())
        };
        in_order(background(), Bounds { threads: 7, bytes: 10 }, (0..1000).collect(), |i| i % 5, work, take).unwrap();
        assert_eq!(taken, (0..1000).collect::<Vec<_>>());
        assert!(most.into_inner() <= 10);
    }

    #[test]
    fn the_next_items_are_worked_on_while_one_is_taken() {
        let both = Barrier::new(2);
        let work = |i: u64| {
            if i == 2 {
                both.wait();
            }
            i
        };
        let take = |i: u64| {
            if i == 0 {
                both.wait();
            }
            Ok(())
        };
        in_order(background(), Bounds { threads: 2, bytes: 3 }, (0..5).collect(), |_| 1, work, take).unwrap();
    }

    #[test]
    fn an_item_above_the_bound_comes_alone_and_a_failure_ends_the_work() {
        let begun = AtomicU64::new(0);
        let work = |i: u64| {
            begun.fetch_add(1, Ordering::SeqCst);
            i
        };
        let take = |i: u64| if i == 3 { Err(Error::failed("full")) } else { Ok(()) };
        let bounds = Bounds { threads: 4, bytes: 10 };
        let failed = in_order(background(), bounds, (0..100).collect(), |_| 99, work, take).unwrap_err();
        assert_eq!((failed.to_string().as_str(), begun.into_inner()), ("full", 4));
    }
}
