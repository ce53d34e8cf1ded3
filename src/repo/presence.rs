//! Lists the packs that the server shows, with their sizes.

use std::collections::{BTreeSet, HashMap};

use super::{Repository, State, parallel, random};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::reference::PackRef;
use crate::name::{Folder, Name, ObjectId};
use crate::storage::{DiskCache, Entry, Storage};

/// Packs whose presence a push verifies: 1 MB of listings at most. If there are more, each push verifies other ones.
pub const VERIFIED: u64 = 4096;
/// Folders that are listed, and packs that are queried, at the same time.
const READERS: usize = 16;
/// Most packs that are queried one by one after a listing without them, since a listing is not atomic.
const ASKED: usize = 256;
/// Fewest missing packs that may have another cause than damage.
const MANY: usize = 8;

/// Returns whether this number of missing packs suggests another cause than damage, such as a disk that is not mounted.
pub fn is_most(missing: usize, all: usize) -> bool {
    missing >= MANY && 2 * missing > all
}

/// Begins to list the packs of a repository that has few, as far as the disk cache knows, while it is being unlocked.
/// [`Repository::see_packs`] asks for each pack that such a listing does not show.
pub(super) fn expect_packs(ctx: &Context, storage: &dyn Storage, cache: &DiskCache) {
    if cache.noted_packs().is_some_and(|count| (1..=VERIFIED).contains(&count)) {
        (0..16).for_each(|shard| storage.expect(ctx, Folder::PackShard(shard)));
    }
}

/// The packs that records list, as a listing of the server showed them.
#[derive(Default)]
pub struct SeenPacks {
    /// Packs that are not condemned, and that the server does not show with the right size.
    pub absent: BTreeSet<ObjectId>,
    /// Packs that it shows with the right size.
    pub present: HashMap<ObjectId, PackRef>,
}

impl Repository {
    /// Lists some of the sixteen folders of packs and calls `take` with each pack's id and size, from several threads.
    pub fn list_packs(&self, ctx: &Context, shards: Vec<u8>, take: impl Fn(ObjectId, u64) + Sync) -> Result<()> {
        self.pack_entries(ctx, shards, |id, entry| take(id, entry.size))
    }

    /// Lists folders of packs like [`Repository::list_packs`], with their modification times.
    pub fn pack_entries(&self, ctx: &Context, shards: Vec<u8>, take: impl Fn(ObjectId, &Entry) + Sync) -> Result<()> {
        let listed = parallel(READERS, shards, |shard| {
            for entry in self.storage.list(ctx, Folder::PackShard(shard))? {
                if let Name::Pack(id) = entry.name {
                    self.fetcher.disk().iter().for_each(|disk| disk.show(id, entry.size));
                    take(id, &entry);
                }
            }
            Ok(())
        });
        listed.into_iter().collect()
    }

    /// Returns the size of a pack; `None` if it is missing.
    pub fn pack_size(&self, ctx: &Context, id: &ObjectId) -> Result<Option<u64>> {
        match self.storage.size(ctx, &Name::Pack(*id)) {
            Err(e) if e.kind().is_damage() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Queries packs that a listing did not show, at most [`ASKED`] of them. Returns the sizes of the existing ones.
    pub fn pack_sizes(&self, ctx: &Context, ids: impl Iterator<Item = ObjectId>) -> Result<Vec<(ObjectId, u64)>> {
        let asked: Vec<ObjectId> = ids.take(ASKED).collect();
        let sizes = parallel(READERS, asked, |id| match self.pack_size(ctx, &id) {
            Err(e) if e.kind() == Kind::Failed => Ok(None),
            size => size.map(|size| Some((id, size?))),
        });
        sizes.into_iter().filter_map(Result::transpose).collect()
    }

    /// Compares the packs that records list with the listings of the server. If records list more than `most` packs, looks at
    /// random folders with about as many.
    ///
    /// # Errors
    ///
    /// Fails if most packs are missing, since a disk of the server may not be mounted.
    pub fn see_packs(&self, ctx: &Context, state: &State, most: u64) -> Result<SeenPacks> {
        let listed = state.listed_packs();
        self.fetcher.disk().iter().for_each(|disk| disk.note_packs(listed));
        if listed == 0 {
            return Ok(SeenPacks::default());
        }
        let count = (16 * most / listed).clamp(1, 16) as u8;
        let first = random::<1>()?[0] % 16;
        let shards: Vec<u8> = (0..count).map(|i| (first + i) % 16).collect();
        let condemned = state.condemned_packs();
        let tables = self.tables(ctx, state)?;
        let packs = tables.packs().map(|(pack, _)| *pack);
        let wanted = packs.filter(|pack| shards.contains(&pack.id.shard()) && !condemned.contains(&pack.id));
        let mut wanted: HashMap<ObjectId, PackRef> = wanted.map(|pack| (pack.id, pack)).collect();
        let absent = self.absent_of(ctx, &wanted, shards)?;
        if is_most(absent.len(), wanted.len()) {
            let (missing, all) = (absent.len(), wanted.len());
            let text = format!("{missing} of {all} packs are missing on the server: nothing was changed");
            return Err(Error::new(Kind::Missing, text)
                .hint("is a disk of the server not mounted? If not, `nfreezer check` shows the losses, and `nfreezer repair --yes` continues without them"));
        }
        wanted.retain(|id, _| !absent.contains(id));
        Ok(SeenPacks { absent, present: wanted })
    }

    fn absent_of(
        &self,
        ctx: &Context,
        wanted: &HashMap<ObjectId, PackRef>,
        shards: Vec<u8>,
    ) -> Result<BTreeSet<ObjectId>> {
        let is_whole = |id: &ObjectId, size| wanted.get(id).is_some_and(|pack| pack.file_len() == size);
        let absent = std::sync::Mutex::new(wanted.keys().copied().collect::<BTreeSet<_>>());
        self.list_packs(ctx, shards, |id, size| {
            if is_whole(&id, size) {
                absent.lock().expect("no holder panics").remove(&id);
            }
        })?;
        let mut absent = absent.into_inner().expect("no holder panics");
        for (id, size) in self.pack_sizes(ctx, absent.iter().copied())? {
            if is_whole(&id, size) {
                absent.remove(&id);
            }
        }
        Ok(absent)
    }
}
