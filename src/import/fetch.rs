//! Fetches objects ahead of who needs them: small ones whole, by a few threads in the order in which they were announced;
//! large ones in pieces, each by a thread of its own that keeps a few pieces ready. Never more than a budget in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::context::Context;
use crate::error::Result;
use crate::name::Name;
use crate::storage::Storage;

/// A piece; a multiple of the cipher's block.
pub(super) const PIECE: u64 = 1 << 20;
/// Threads that fetch small objects: each costs two round trips.
const THREADS: usize = 16;
/// Bytes of small objects that may be held.
const BUDGET: usize = 32 << 20;
/// What one small object costs beside its bytes.
const COST: usize = 512;
/// Pieces of a large object that are held before the one that is read.
const READY: usize = 2;

/// The pieces of an object, in order.
pub(super) type Pieces = Receiver<Result<Vec<u8>>>;

struct Job {
    name: Name,
    size: u64,
    to: Sender<Result<Vec<u8>>>,
}

/// Bytes of the budget, given back on drop.
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
    /// The pieces. What they took of the budget is given back when the second value is dropped.
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

/// Until the end, the first error, or until nobody wants them any more.
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

/// Fetches what is announced. Ends when it is dropped, after what is on its way.
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

    /// An object that will be read soon. Fetched at once if it is small and there is room.
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
