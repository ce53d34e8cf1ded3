//! Verifies that packs of earlier pushes are still on the server. The index also lists packs that the server has lost since,
//! or that were removed and reappear with an old state of the log. A snapshot must not refer to them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::context::Context;
use crate::crypto::seal::sealed_len;
use crate::error::{Error, Result};
use crate::format::reference::PackRef;
use crate::name::{Folder, Name, ObjectId};
use crate::repo::Repository;

/// Packs whose size is asked for one by one. For more packs, whole repository folders are listed: sixteen at most.
const ONE_BY_ONE: usize = 32;

/// Sizes by id.
type PackSizes = HashMap<ObjectId, u64>;

/// The packs that were verified so far.
#[derive(Default)]
pub struct Presence {
    /// Packs that a listing at the beginning of the push showed with the right size.
    listed_before: HashMap<ObjectId, PackRef>,
    known: Mutex<HashMap<ObjectId, bool>>,
    asked: AtomicUsize,
    listings: [Mutex<Option<PackSizes>>; 16],
}

impl Presence {
    /// Makes the state at the beginning of a push, whose listing showed these packs with the right size.
    pub fn of(listed_before: HashMap<ObjectId, PackRef>) -> Self {
        Presence { listed_before, ..Presence::default() }
    }

    /// Adds a pack that this push has stored.
    pub fn add(&self, id: ObjectId) {
        self.known.lock().expect("no holder panics").insert(id, true);
    }

    /// Returns whether the server has the pack with the right size. `report` is called once for each pack that it has not.
    pub fn verify(&self, ctx: &Context, repo: &Repository, pack: &PackRef, report: impl FnOnce()) -> Result<bool> {
        if self.listed_before.get(&pack.id) == Some(pack) {
            return Ok(true);
        }
        if let Some(present) = self.known.lock().expect("no holder panics").get(&pack.id) {
            return Ok(*present);
        }
        let size = Some(sealed_len(pack.len.into()));
        let list = self.asked.fetch_add(1, Ordering::Relaxed) >= ONE_BY_ONE;
        // A pack that is not in the listing may be younger than the listing.
        let present = list && self.listed(ctx, repo, &pack.id)? == size
            || unless_damage(repo.storage().size(ctx, &Name::Pack(pack.id)))? == size;
        let before = self.known.lock().expect("no holder panics").insert(pack.id, present);
        if !present && before.is_none() {
            report();
        }
        Ok(present)
    }

    fn listed(&self, ctx: &Context, repo: &Repository, id: &ObjectId) -> Result<Option<u64>> {
        let shard = id.shard();
        let mut listing = self.listings[usize::from(shard)].lock().expect("no holder panics");
        if listing.is_none() {
            let entries = unless_damage(repo.storage().list(ctx, Folder::PackShard(shard)))?.unwrap_or_default();
            let packs = entries.into_iter().filter_map(|entry| match entry.name {
                Name::Pack(id) => Some((id, entry.size)),
                _ => None,
            });
            *listing = Some(packs.collect());
        }
        Ok(listing.as_ref().and_then(|packs| packs.get(id).copied()))
    }
}

/// Returns `None` if the object is missing or damaged.
fn unless_damage<T>(answer: Result<T, Error>) -> Result<Option<T>> {
    match answer {
        Err(e) if e.kind().is_damage() => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::context::background;
    use crate::crypto::kdf::KdfCost;
    use crate::crypto::seal::ObjectType;
    use crate::crypto::secret::Passphrase;
    use crate::storage::{Memory, Storage};

    #[test]
    fn a_pack_that_a_listing_showed_is_not_asked_for_unless_its_length_differs() {
        let memory = Arc::<Memory>::default();
        let passphrase = Passphrase::new("test".into()).unwrap();
        let repo = Repository::init(background(), memory, &passphrase, KdfCost::DEFAULT, "").unwrap();
        let pack = PackRef { id: ObjectId([7; 32]), len: 1000 };
        let presence = Presence::of(HashMap::from([(pack.id, pack)]));
        let verify = |pack| presence.verify(background(), &repo, pack, || ()).unwrap();
        assert!(verify(&pack), "the server, which has no such pack, is not asked");
        assert!(!verify(&PackRef { len: 1001, ..pack }));
    }

    /// Beyond the packs that are asked for one by one, sizes come from listings; both must be compared with the index.
    #[test]
    fn a_truncated_or_removed_pack_is_found_by_its_size_and_by_a_listing() {
        let memory = Arc::<Memory>::default();
        let passphrase = Passphrase::new("test".into()).unwrap();
        let repo = Repository::init(background(), memory.clone(), &passphrase, KdfCost::DEFAULT, "").unwrap();
        let [whole, cut, removed] =
            [1u8, 2, 3].map(|byte| repo.put_pack(background(), ObjectType::Data, &mut vec![byte; 1000]).unwrap());
        let name = Name::Pack(cut.id);
        let bytes = memory.get(&name).unwrap();
        memory.overwrite(&name, bytes[..bytes.len() - 1].to_vec());
        memory.remove(background(), &Name::Pack(removed.id)).unwrap();
        for asked in [0, ONE_BY_ONE] {
            let presence = Presence { asked: AtomicUsize::new(asked), ..Presence::default() };
            let missing = Cell::new(0);
            let verify = |pack| presence.verify(background(), &repo, pack, || missing.set(missing.get() + 1)).unwrap();
            assert_eq!([&whole, &cut, &removed].map(verify), [true, false, false], "after {asked} packs");
            assert_eq!([&whole, &cut, &removed].map(verify), [true, false, false], "the answers are remembered");
            assert_eq!(missing.get(), 2, "each is reported once");
        }
    }
}
