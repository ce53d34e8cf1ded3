//! Fetches objects ahead of their readers, within a memory budget. Small objects are fetched whole, by a few threads in the
//! order in which they were announced; large ones in pieces, each by its own thread, which keeps a few pieces ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::context::Context;
use crate::error::Result;
use crate::name::Name;
use crate::storage::Storage;

/// Bytes of a piece, a multiple of the cipher's block.
pub(super) const PIECE: u64 = 1 << 20;
/// Threads that fetch small objects, each of which takes two round trips.
const THREADS: usize = 16;
/// Most bytes of small objects in memory.
const BUDGET: usize = 32 << 20;
/// Overhead of one small object in bytes.
const COST: usize = 512;
/// Pieces of a large object that are fetched ahead.
const READY: usize = 2;

/// The pieces of an object, in order.
pub(super) type Pieces = Receiver<Result<Vec<u8>>>;

struct Job {
    name: Name,
    size: u64,
    to: Sender<Result<Vec<u8>>>,
}

/// A part of the budget in bytes, returned on drop.
struct Share(Arc<AtomicUsize>, usize);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// An announced object.
pub(super) struct Fetched {
    ctx: Context<'static>,
    storage: Arc<dyn Storage>,
    name: Name,
    size: u64,
    ahead: Option<(Pieces, Share)>,
}

impl Fetched {
    /// Returns the pieces, and a guard that returns their part of the budget on drop.
    pub fn pieces(self) -> (Pieces, impl Send + use<>) {
        let Fetched { ctx, storage, name, size, ahead } = self;
        match ahead {
            Some((pieces, share)) => (pieces, Some(share)),
            None => {
                let (to, pieces) = bounded(READY);
                thread::spawn(move || send_pieces(&ctx, &*storage, &name, size, &to));
                (pieces, None)
            }
        }
    }
}

/// Sends the pieces of an object until the end, the first error, or until the receiver is dropped.
fn send_pieces(ctx: &Context, storage: &dyn Storage, name: &Name, size: u64, to: &Sender<Result<Vec<u8>>>) {
    let mut at = 0;
    while at < size {
        let len = PIECE.min(size - at);
        let piece = storage.read(ctx, name, at, len as usize);
        let failed = piece.is_err();
        if to.send(piece).is_err() || failed {
            return;
        }
        at += len;
    }
}

/// Fetches announced objects. Its threads end after it is dropped, once the queue is empty.
pub(super) struct Fetcher {
    ctx: Context<'static>,
    storage: Arc<dyn Storage>,
    jobs: Sender<Job>,
    held: Arc<AtomicUsize>,
}

impl Fetcher {
    pub fn new(ctx: &Context<'static>, storage: Arc<dyn Storage>) -> Self {
        let (jobs, to_do) = unbounded::<Job>();
        for _ in 0..THREADS {
            let (ctx, storage, to_do) = (ctx.clone(), Arc::clone(&storage), to_do.clone());
            thread::spawn(move || {
                for job in to_do {
                    send_pieces(&ctx, &*storage, &job.name, job.size, &job.to);
                }
            });
        }
        Fetcher { ctx: ctx.clone(), storage, jobs, held: Arc::default() }
    }

    /// Announces an object that will be read soon. Fetches it at once if it is small and fits into the budget.
    pub fn announce(&self, name: Name, size: u64) -> Fetched {
        let ahead = (size <= PIECE).then(|| self.fetch(name, size as usize)).flatten();
        Fetched { ctx: self.ctx.clone(), storage: Arc::clone(&self.storage), name, size, ahead }
    }

    fn fetch(&self, name: Name, size: usize) -> Option<(Pieces, Share)> {
        let cost = COST + size;
        let held = self.held.fetch_add(cost, Ordering::Relaxed);
        let share = Share(Arc::clone(&self.held), cost);
        let (to, pieces) = bounded(1);
        let fits = held + cost <= BUDGET && self.jobs.send(Job { name, size: size as u64, to }).is_ok();
        fits.then_some((pieces, share))
    }
}
