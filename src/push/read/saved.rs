//! A snapshot of another repository, which is copied.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;

use crate::crypto::keys::ChunkId;
use crate::error::Error;
use crate::format::record::Snapshot;
use crate::trees::{Fetch, Trees};

/// Chunks whose ids in both repositories are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(64 << 10).expect("positive");

/// A snapshot of another repository.
pub struct Saved<'s> {
    /// The trees of that repository.
    pub trees: &'s Trees<'s>,
    pub snapshot: &'s Snapshot,
    /// The snapshots of that repository.
    pub others: &'s [Snapshot],
    pub copied: &'s CopiedChunks,
    /// Whether something of the snapshot could not be read.
    pub is_damaged: AtomicBool,
}

/// A snapshot of another repository, while it is being read.
#[derive(Clone, Copy)]
pub struct Reading<'w> {
    pub saved: &'w Saved<'w>,
    /// Reads chunks ahead.
    pub fetch: &'w Fetch<'w>,
}

impl Saved<'_> {
    /// Names the path whose contents are damaged in the other repository.
    pub fn unreadable(&self, e: Error, path: &[u8]) -> Error {
        if !e.kind().is_damage() {
            return e;
        }
        self.is_damaged.store(true, Ordering::Relaxed);
        e.while_doing(format_args!("cannot read {}", String::from_utf8_lossy(path)))
            .hint("`nfreezer repair` marks what is lost in the repository that is copied; then the rest can be copied")
    }
}

/// The chunks that were copied last: their ids in this repository by those in the other one. Further links of a file, and
/// equal files, are not read again.
pub struct CopiedChunks(Mutex<LruCache<ChunkId, ChunkId>>);

impl Default for CopiedChunks {
    fn default() -> Self {
        CopiedChunks(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl CopiedChunks {
    /// Returns the id in this repository.
    pub fn get(&self, id: &ChunkId) -> Option<ChunkId> {
        self.0.lock().expect("no holder panics").get(id).copied()
    }

    /// Returns whether a chunk need not be read.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.0.lock().expect("no holder panics").contains(id)
    }

    /// Remembers a chunk that was copied.
    pub fn put(&self, id: ChunkId, new: ChunkId) {
        self.0.lock().expect("no holder panics").put(id, new);
    }
}
