//! Joins the pure core with a storage: opening, the state from the log, verified reads, packs, commits.
//!
//! In: a storage and a passphrase. Out: verified chunks by reference, the state, places of chunks by id; packs and records
//! are written. Trees are read by [`crate::trees`].
//!
//! | file | what it does |
//! |---|---|
//! | `open`, `keys` | makes and opens a repository; adds and removes key files |
//! | `log`, `merge`, `witness` | the state as the fold of all records; keeps the log short; detects a rollback |
//! | `select` | the snapshot that a user means by a few characters |
//! | `fetch`, `read` | verified blocks with one cache; chunks, pages and lists by reference |
//! | `index`, `section`, `fingerprints` | places of chunks by id, in bounded memory |
//! | `commit` | stores packs and records |
//! | `presence` | which packs the server shows, with which sizes |
//! | `inspect`, `reindex` | faults of the log and its sections, for `check`; makes an index again, for `repair` |

mod commit;
mod fetch;
mod fingerprints;
mod index;
mod inspect;
pub mod keys;
mod log;
mod merge;
mod open;
mod presence;
mod read;
mod reindex;
mod section;
mod select;
mod witness;

pub use fetch::{CacheStats, Span};
pub use index::{Index, IndexRow};
pub use inspect::{Faults, Tables, Torn};
pub use log::{SectionKey, State};
pub use open::{Access, Unlock};
pub use presence::is_most;
pub use witness::Alarm;

use std::sync::Arc;

use crate::crypto::keys::{Keys, MasterKey, RepoId};
use crate::error::{Error, Result};
use crate::format::keyfile::KeyInfo;
use crate::name::ObjectId;
use crate::storage::Storage;
use crate::time::Time;

/// An open repository. Every call may come from many threads at once.
pub struct Repository {
    storage: Arc<dyn Storage>,
    keys: Arc<Keys>,
    id: RepoId,
    fetcher: fetch::Fetcher,
    witness: witness::Witness,
    /// The key file that opened it.
    opened_by: (ObjectId, KeyInfo),
    /// For further key files.
    master: MasterKey,
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

/// Returns the time of this machine's clock.
pub fn now() -> Time {
    std::time::SystemTime::now().into()
}

/// Runs `work` over `items` on up to `threads` threads; results in the order of the items.
pub fn parallel<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let count = items.len();
    let queue = std::sync::Mutex::new(items.into_iter().enumerate());
    let done = std::sync::Mutex::new(Vec::with_capacity(count));
    let run = || {
        while let Some((i, item)) = next(&queue) {
            let result = work(item);
            done.lock().expect("no holder panics").push((i, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(&run);
        }
    });
    let mut done = done.into_inner().expect("no holder panics");
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

fn next<I: Iterator>(queue: &std::sync::Mutex<I>) -> Option<I::Item> {
    queue.lock().expect("no holder panics").next()
}
