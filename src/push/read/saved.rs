//! A snapshot of another repository, which is copied.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use lru::LruCache;

use crate::crypto::keys::ChunkId;
use crate::error::{Error, Result};
use crate::format::record::{Snapshot, SnapshotId};
use crate::name::ObjectId;
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
    pub searched: &'s SearchedCopies,
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
        e.while_doing(format_args!("cannot read {}", String::from_utf8_lossy(path))).hint(
            "`nfreezer repair` marks the lost parts in the repository that is copied; then the rest can be copied",
        )
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

/// The copies whose trees were searched for condemned packs. A tree is read once, since later only packs that were condemned
/// meanwhile count.
#[derive(Default)]
pub struct SearchedCopies(Mutex<Searched>);

#[derive(Default)]
struct Searched {
    /// The packs that were condemned when the latest copy began. Its tree names none of them.
    condemned: Arc<HashSet<ObjectId>>,
    /// The packs that were condemned when a tree was searched that names none of them.
    intact: HashMap<SnapshotId, Arc<HashSet<ObjectId>>>,
}

impl SearchedCopies {
    fn lock(&self) -> MutexGuard<'_, Searched> {
        self.0.lock().expect("no holder panics")
    }

    /// Notes the packs that are condemned when a copy begins.
    pub fn begin(&self, condemned: HashSet<ObjectId>) {
        self.lock().condemned = Arc::new(condemned);
    }

    /// Notes the copy that was begun last and that is complete.
    pub fn complete(&self, copy: SnapshotId) {
        let mut searched = self.lock();
        let condemned = Arc::clone(&searched.condemned);
        searched.intact.insert(copy, condemned);
    }

    /// Returns whether the tree of a copy names no condemned pack. Calls `names_condemned_since` with the packs that it is
    /// known not to name.
    pub fn is_intact(
        &self,
        copy: &SnapshotId,
        names_condemned_since: impl FnOnce(&HashSet<ObjectId>) -> Result<bool>,
    ) -> Result<bool> {
        let (condemned, known) = {
            let searched = self.lock();
            (Arc::clone(&searched.condemned), searched.intact.get(copy).cloned().unwrap_or_default())
        };
        let is_intact = !names_condemned_since(&known)?;
        if is_intact {
            self.lock().intact.insert(*copy, condemned);
        }
        Ok(is_intact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tree_is_searched_for_the_packs_that_were_condemned_since_the_last_search() {
        let packs = |ids: &[u8]| ids.iter().map(|id| ObjectId([*id; 32])).collect::<HashSet<_>>();
        let [one, two] = [1, 2].map(|id| SnapshotId([id; 16]));
        let searched = SearchedCopies::default();
        let known = |copy: &SnapshotId, names: bool| {
            let mut known = None;
            let search = |ids: &HashSet<ObjectId>| {
                known = Some(ids.clone());
                Ok(names)
            };
            assert_eq!(searched.is_intact(copy, search).unwrap(), !names);
            known.unwrap()
        };
        searched.begin(packs(&[7]));
        assert_eq!(known(&one, false), packs(&[]), "nothing is known about the tree");
        assert_eq!(known(&one, false), packs(&[7]), "all packs are known");
        searched.complete(two);
        searched.begin(packs(&[7, 8]));
        assert_eq!(known(&two, false), packs(&[7]), "a new copy names no pack that was condemned when it began");
        assert_eq!(known(&one, true), packs(&[7]));
        assert_eq!(known(&one, false), packs(&[7]), "a tree that names a condemned pack proves nothing");
    }
}
