//! Which packs of earlier pushes may be relied on: those that the server shows, as long as they must be. An index says what was
//! stored once. A snapshot must not refer to a pack that the server has lost since, or that an old state of its log brings up
//! again.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::context::Context;
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
    pub fn on(&self, ctx: &Context, repo: &Repository, pack: &PackRef, missing: impl FnOnce()) -> Result<bool> {
        if let Some(there) = self.known.lock().expect("no holder panics").get(&pack.id) {
            return Ok(*there);
        }
        let size = sealed_len(pack.len.into());
        // One that is not in a listing may be younger than that.
        let there = self.asked.fetch_add(1, Ordering::Relaxed) >= ONE_BY_ONE
            && self.listed(ctx, repo, &pack.id)? == Some(size)
            || there(repo.storage().size(ctx, &Name::Pack(pack.id)))? == Some(size);
        let before = self.known.lock().expect("no holder panics").insert(pack.id, there);
        if !there && before.is_none() {
            missing();
        }
        Ok(there)
    }

    fn listed(&self, ctx: &Context, repo: &Repository, id: &ObjectId) -> Result<Option<u64>> {
        let shard = id.shard();
        let mut listing = self.listings[usize::from(shard)].lock().expect("no holder panics");
        if listing.is_none() {
            let entries = there(repo.storage().list(ctx, Folder::PackShard(shard)))?.unwrap_or_default();
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

    /// Beyond the packs that are asked for one by one, sizes come from listings; both must be compared with the index.
    #[test]
    fn a_pack_that_was_cut_or_removed_is_not_relied_on_whoever_says_its_size() {
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
            let relied = Relied { asked: AtomicUsize::new(asked), ..Relied::default() };
            let missing = Cell::new(0);
            let on = |pack| relied.on(background(), &repo, pack, || missing.set(missing.get() + 1)).unwrap();
            assert_eq!([&whole, &cut, &removed].map(on), [true, false, false], "after {asked} packs");
            assert_eq!([&whole, &cut, &removed].map(on), [true, false, false], "the answers are remembered");
            assert_eq!(missing.get(), 2, "each is reported once");
        }
    }
}
