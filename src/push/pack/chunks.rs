//! The new chunks of this push and their places. The first worker that finds a new chunk claims it, so that no chunk is
//! stored twice.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::{Error, Result};
use crate::format::pack;
use crate::format::reference::{PackRef, Ref};

/// The place of a chunk. `pack` is a number of [`super::packs::Packs`].
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub pack: u32,
    pub offset: u32,
    pub stored: u32,
    pub len: u32,
}

impl Place {
    pub fn new(pack: u32, entry: &pack::Entry) -> Self {
        Place { pack, offset: entry.offset, stored: entry.stored, len: entry.len }
    }

    pub fn reference(&self, id: ChunkId, pack: PackRef) -> Ref {
        Ref { id, pack, offset: self.offset, stored: self.stored, len: self.len }
    }
}

/// The pack number of a chunk that was claimed and is in no pack yet.
const NO_PACK: u32 = u32::MAX;

/// Number of shards. Each has its own lock, so that workers rarely wait for each other.
const SHARDS: usize = 16;

/// Chunk ids are pseudo-random under a secret key: any eight bytes of them are a hash.
#[derive(Default)]
pub struct ById(u64);

impl Hasher for ById {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_be_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map from chunk ids.
pub type IdMap<T> = HashMap<ChunkId, T, BuildHasherDefault<ById>>;

/// The chunks of file contents that this push adds, about 50 bytes each. Chunks of committed packs can be forgotten: the
/// index finds them.
#[derive(Default)]
pub struct Chunks {
    shards: [Mutex<IdMap<Place>>; SHARDS],
    len: AtomicUsize,
}

/// The state of a chunk of this push.
pub enum ChunkState {
    /// Claimed, and in no pack yet.
    Claimed,
    Placed(Place),
    /// Forgotten after its pack was committed: the index finds it.
    Forgotten,
}

impl Chunks {
    /// Returns whether the chunk was claimed.
    pub fn has(&self, id: &ChunkId, len: usize) -> Result<bool> {
        self.shard(id).get(id).map_or(Ok(false), |place| same(place, len).map(|()| true))
    }

    /// Claims the chunk. Returns whether the caller is the first and must put it into a pack.
    pub fn claim(&self, id: ChunkId, len: usize) -> Result<bool> {
        match self.shard(&id).entry(id) {
            Entry::Occupied(there) => same(there.get(), len).map(|()| false),
            Entry::Vacant(free) => {
                free.insert(Place { pack: NO_PACK, offset: 0, stored: 0, len: len as u32 });
                self.len.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
        }
    }

    /// Records that the chunk was put into a pack.
    pub fn put(&self, id: ChunkId, place: Place) {
        self.shard(&id).insert(id, place);
    }

    /// Returns the state of a chunk that was claimed.
    pub fn state(&self, id: &ChunkId) -> ChunkState {
        match self.shard(id).get(id) {
            None => ChunkState::Forgotten,
            Some(place) if place.pack == NO_PACK => ChunkState::Claimed,
            Some(place) => ChunkState::Placed(*place),
        }
    }

    /// Returns the number of chunks in memory.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Returns the chunks of all packs for which `row` has a row number, in no order, each with that number.
    pub fn in_packs(&self, row: impl Fn(u32) -> Option<u32>) -> Vec<(u32, pack::Entry)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            for (id, place) in &*shard.lock().expect("no holder panics") {
                let Place { offset, stored, len, pack } = *place;
                let entry = pack::Entry { id: *id, kind: ChunkKind::Data, offset, stored, len };
                found.extend(row(pack).map(|row| (row, entry)));
            }
        }
        found
    }

    /// Forgets the chunks of committed packs. `committed` is indexed by pack number.
    pub fn forget(&self, committed: &[bool]) {
        for shard in &self.shards {
            let mut shard = shard.lock().expect("no holder panics");
            let before = shard.len();
            shard.retain(|_, place| committed.get(place.pack as usize) != Some(&true));
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, IdMap<Place>> {
        // By the last byte, because the map uses the first eight.
        self.shards[usize::from(id.0[15]) % SHARDS].lock().expect("no holder panics")
    }
}

/// Fails if a chunk of the same id has another length: a collision of the 128-bit ids.
fn same(place: &Place, len: usize) -> Result<()> {
    let equal = place.len as usize == len;
    equal.then_some(()).ok_or_else(|| Error::failed("two chunks of different length have the same id"))
}
