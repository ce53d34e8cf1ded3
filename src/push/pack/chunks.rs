//! The new contents of this run: which chunk goes where. A chunk is claimed by the first worker that meets it, so
//! nothing is sent twice however many workers meet it at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::{Error, Result};
use crate::format::pack;
use crate::format::reference::{PackRef, Ref};

/// Where a chunk is, with the pack's number in [`super::packs::Packs`].
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

/// Stands for the pack of a chunk that a worker has claimed and not yet put into one.
const NOWHERE: u32 = u32::MAX;

/// Locks are per shard, so that workers rarely meet.
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

/// The chunks of file contents that this run adds; about 50 bytes each. Those of committed packs may be forgotten, since
/// the index has them from then on.
#[derive(Default)]
pub struct Chunks {
    shards: [Mutex<IdMap<Place>>; SHARDS],
    len: AtomicUsize,
}

/// Where a chunk of this run is.
pub enum Whereabouts {
    /// Claimed, and not yet put into a pack.
    Nowhere,
    At(Place),
    /// Its pack was committed: the index knows.
    Forgotten,
}

impl Chunks {
    /// Whether somebody has claimed it already.
    pub fn has(&self, id: &ChunkId, len: usize) -> Result<bool> {
        self.shard(id).get(id).map_or(Ok(false), |place| same(place, len).map(|()| true))
    }

    /// Whether the caller is the first to claim it, and so the one who must put it into a pack.
    pub fn claim(&self, id: ChunkId, len: usize) -> Result<bool> {
        match self.shard(&id).entry(id) {
            Entry::Occupied(there) => same(there.get(), len).map(|()| false),
            Entry::Vacant(free) => {
                free.insert(Place { pack: NOWHERE, offset: 0, stored: 0, len: len as u32 });
                self.len.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
        }
    }

    /// It was put there.
    pub fn put(&self, id: ChunkId, place: Place) {
        self.shard(&id).insert(id, place);
    }

    /// Where it is.
    pub fn place(&self, id: &ChunkId) -> Whereabouts {
        match self.shard(id).get(id) {
            None => Whereabouts::Forgotten,
            Some(place) if place.pack == NOWHERE => Whereabouts::Nowhere,
            Some(place) => Whereabouts::At(*place),
        }
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Those in packs for which `row` has a number, in no order, each with that number.
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

    /// Forgets those in packs for which this says so, by number.
    pub fn forget(&self, committed: &[bool]) {
        let committed = |pack: u32| committed.get(pack as usize).is_some_and(|committed| *committed);
        for shard in &self.shards {
            let mut shard = shard.lock().expect("no holder panics");
            let before = shard.len();
            shard.retain(|_, place| place.pack == NOWHERE || !committed(place.pack));
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, IdMap<Place>> {
        // The last byte: the map inside uses the first ones.
        self.shards[usize::from(id.0[15]) % SHARDS].lock().expect("no holder panics")
    }
}

/// Ids are cut to 128 bits, so the length is compared as well; a difference would be the first collision ever seen.
fn same(place: &Place, len: usize) -> Result<()> {
    let equal = place.len as usize == len;
    equal.then_some(()).ok_or_else(|| Error::failed("two chunks of different length have the same id"))
}
