//! Which packs of earlier pushes may be relied on: those that the server shows, as long as they must be. An index says what was
//! stored once. A snapshot must not refer to a pack that the server has lost since, or that an old state of its log brings up
//! again.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::crypto::seal::sealed_len;
use crate::error::{Error, Result};
use crate::format::reference::PackRef;
use crate::name::{Folder, Name, ObjectId};
use crate::repo::Repository;

/// So many packs are asked for one by one; after that whole folders are listed, which are sixteen however many packs there are.
const ONE_BY_ONE: usize = 32;

/// Sizes by id.
type Listing = HashMap<ObjectId, u64>;

#[derive(Default)]
pub struct Relied {
    known: Mutex<HashMap<ObjectId, bool>>,
    asked: AtomicUsize,
    listings: [Mutex<Option<Listing>>; 16],
}

impl Relied {
    /// This run has stored it.
    pub fn ours(&self, id: ObjectId) {
        self.known.lock().expect("no holder panics").insert(id, true);
    }

    /// Whether the server shows it. `missing` is called once for each that it does not.
    pub fn on(&self, repo: &Repository, pack: &PackRef, missing: impl FnOnce()) -> Result<bool> {
        if let Some(there) = self.known.lock().expect("no holder panics").get(&pack.id) {
            return Ok(*there);
        }
        let size = sealed_len(pack.len.into());
        // One that is not in a listing may be younger than that.
        let there = self.asked.fetch_add(1, Ordering::Relaxed) >= ONE_BY_ONE
            && self.listed(repo, &pack.id)? == Some(size)
            || there(repo.storage().size(&Name::Pack(pack.id)))? == Some(size);
        let before = self.known.lock().expect("no holder panics").insert(pack.id, there);
        if !there && before.is_none() {
            missing();
        }
        Ok(there)
    }

    fn listed(&self, repo: &Repository, id: &ObjectId) -> Result<Option<u64>> {
        let shard = id.shard();
        let mut listing = self.listings[usize::from(shard)].lock().expect("no holder panics");
        if listing.is_none() {
            let entries = there(repo.storage().list(Folder::PackShard(shard)))?.unwrap_or_default();
            let packs = entries.into_iter().filter_map(|entry| match entry.name {
                Name::Pack(id) => Some((id, entry.size)),
                _ => None,
            });
            *listing = Some(packs.collect());
        }
        Ok(listing.as_ref().and_then(|packs| packs.get(id).copied()))
    }
}

/// `None` where there is nothing, or not what there must be.
fn there<T>(answer: Result<T, Error>) -> Result<Option<T>> {
    match answer {
        Err(e) if e.kind().is_damage() => Ok(None),
        other => other.map(Some),
    }
}
