//! The repository: joins the pure core with a storage. In: names, ids and references. Out: verified plaintext.
//!
//! | | |
//! |---|---|
//! | `clock` | the clock of this machine, replaceable in tests |
//! | `open`, `keys` | create and open a repository, add and remove key files |
//! | `log`, `state`, `missing_records` | read the record log; its fold; records that it lacks |
//! | `supersede`, `verify` | a superseding record contains everything that it supersedes |
//! | `rollback`, `forks` | compare the log with the heads that this machine has seen |
//! | `sights` | when this machine saw ids of the log first |
//! | `object`, `fetch`, `block_cache`, `read` | verified blocks and their cache; chunks, pages and lists |
//! | `round_trip` | the bytes that the storage carries in the time of a round trip |
//! | `disk` | when blocks of the disk cache count |
//! | `index`, `section`, `fingerprints` | look up chunks in bounded memory |
//! | `commit`, `merge`, `reindex` | put packs and records; keep the log short; rebuild index sections |
//! | `presence`, `inspect`, `inventory` | packs that the server shows; questions of `check` and of `prune` |
//! | `marks` | snapshots, forgotten ones, and their tags; commit changes of them |
//! | `lineage` | where a snapshot comes from: its group, the one it replaces, the one it is a copy of |
//! | `select` | the snapshot that a user names |
//! | `parallel` | work on several threads, whose results come in order |

mod block_cache;
mod clock;
mod commit;
mod deleted;
#[cfg(test)]
pub(crate) mod deterministic;
mod disk;
mod fetch;
mod fingerprints;
mod forks;
mod index;
mod inspect;
mod inventory;
pub mod keys;
mod latest;
mod lineage;
mod log;
mod marks;
mod merge;
mod missing_records;
mod object;
mod open;
mod parallel;
mod presence;
mod read;
mod reindex;
mod rollback;
mod round_trip;
mod section;
mod select;
mod sights;
mod state;
mod supersede;
mod unlock;
mod verify;

pub use clock::{Clock, Stopwatch, SystemClock};
pub use commit::{Commit, GRACE};
pub use deleted::Deleted;
pub use disk::CacheUse;
pub use fetch::{CacheStats, Span};
pub use index::{Index, IndexRow};
pub use inspect::{Faults, Incomplete, Tables};
pub use inventory::Condemnation;
pub use latest::{first_of_each_group, latest_first};
pub use marks::{Forgotten, KEEP_FORGOTTEN};
pub use open::{Access, Unlock};
pub use parallel::{Bounds, in_order, parallel};
pub use presence::{SeenPacks, VERIFIED, is_most};
pub use read::{StoredChunk, probable_frames};
pub use rollback::Alarm;
pub use state::{SectionKey, State};
pub use supersede::{Claim, Contents, lacks};

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::keys::{Keys, MasterKey, RepoId};
use crate::error::{Error, Result};
use crate::format::keyfile::KeyInfo;
use crate::name::ObjectId;
use crate::storage::Storage;
use crate::time::Time;

/// An open repository. All methods may be called from many threads at once.
pub struct Repository {
    storage: Arc<dyn Storage>,
    keys: Arc<Keys>,
    id: RepoId,
    fetcher: fetch::Fetcher,
    rollback: rollback::RollbackGuard,
    clock: Arc<dyn Clock>,
    /// The grace time of `prune`, which bounds the span of a commit.
    grace: Duration,
    /// Commits list the log again. Only a test switches this off.
    looks_again: bool,
    /// The key file that opened the repository.
    opened_by: (ObjectId, KeyInfo),
    /// Kept only where further key files wrap it, see [`Access::forgets_master_key`].
    master: Option<MasterKey>,
}

impl Repository {
    /// Returns the storage of the objects.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// Returns the sub-keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the public id.
    pub fn id(&self) -> &RepoId {
        &self.id
    }

    /// Returns the time of this client's clock.
    pub fn now(&self) -> Time {
        self.clock.wall()
    }

    /// Returns this client's clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Replaces the clock. For tests with clocks that are wrong, jump or stand still.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Replaces the grace time. For tests.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Removes the second listing of commits, so that a test can show that it is needed.
    #[cfg(test)]
    #[must_use]
    pub fn without_second_look(mut self) -> Self {
        self.looks_again = false;
        self
    }

    /// Returns statistics of the block cache.
    pub fn cache_stats(&self) -> CacheStats {
        self.fetcher.stats()
    }

    /// Returns the bytes that the storage carries in the time of a round trip, as measured by the reads so far.
    pub fn round_trip(&self) -> u64 {
        self.fetcher.round_trip()
    }
}

/// Returns random bytes of the operating system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    #[cfg(test)]
    if let Some(bytes) = deterministic::bytes() {
        return Ok(bytes);
    }
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::failed(format!("cannot get random bytes from the system: {e}")))?;
    Ok(bytes)
}

/// Returns the time of this machine's clock.
pub fn now() -> Time {
    SystemClock.wall()
}
