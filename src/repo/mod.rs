//! What joins the pure core with a storage: opening, the state from the log, verified reads, packs, commits.

mod commit;
mod fetch;
mod fingerprints;
mod index;
mod log;
mod merge;
mod open;
mod read;
mod section;
pub mod tree;

pub use fetch::{CacheStats, Span};
pub use index::Index;
pub use log::State;

pub use crate::storage::patience;

use std::sync::Arc;

use crate::crypto::keys::{Keys, RepoId};
use crate::error::{Error, Result};
use crate::storage::Storage;

/// An open repository. Every call may come from many threads at once.
pub struct Repository {
    storage: Arc<dyn Storage>,
    keys: Arc<Keys>,
    id: RepoId,
    fetcher: fetch::Fetcher,
}

impl Repository {
    /// Where its objects are.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// Its sub-keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Its public id.
    pub fn id(&self) -> &RepoId {
        &self.id
    }

    /// Figures of the block cache.
    pub fn cache_stats(&self) -> CacheStats {
        self.fetcher.stats()
    }
}

/// Fresh bytes from the operating system's generator.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::failed(format!("the system gives no random numbers: {e}")))?;
    Ok(bytes)
}

/// Seconds since the epoch by this machine's clock.
pub fn now() -> i64 {
    moment().0
}

/// Seconds and nanoseconds since the epoch by this machine's clock; 0 before it.
pub fn moment() -> (i64, u32) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() as i64, since.subsec_nanos())
}

/// Runs `work` over `items` on up to `threads` threads; results in the order of the items.
pub fn parallel<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let count = items.len();
    let queue = std::sync::Mutex::new(items.into_iter().enumerate());
    let done = std::sync::Mutex::new(Vec::with_capacity(count));
    let deadline = patience::deadline();
    let run = || {
        while let Some((i, item)) = next(&queue) {
            let result = work(item);
            done.lock().expect("no holder panics").push((i, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| patience::until(deadline, run));
        }
    });
    let mut done = done.into_inner().expect("no holder panics");
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

fn next<I: Iterator>(queue: &std::sync::Mutex<I>) -> Option<I::Item> {
    queue.lock().expect("no holder panics").next()
}
