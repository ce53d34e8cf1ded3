//! Objects that were deleted although the repository needs them, and of which the server keeps a version: a thief with the
//! right to delete hides the objects of a bucket with versions, and cannot remove them.
//!
//! In: the names that are needed. Out: the ones that the server can bring back. An object that is back is verified when it is
//! read, as any other.

use std::collections::BTreeSet;

use super::{Repository, State, parallel};
use crate::context::Context;
use crate::error::{Kind, Result};
use crate::name::{Folder, Name, ObjectId};
use crate::storage::{Kept, Storage};

/// Folders that are listed, and objects that are brought back, at the same time.
const READERS: usize = 8;

/// Deleted objects that can be brought back.
#[derive(Clone, Debug, Default)]
pub struct Deleted(Vec<Kept>);

impl Deleted {
    /// Returns the names of the objects.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.0.iter().map(|kept| kept.name)
    }

    /// Brings the objects back. Returns their names.
    fn bring_back(self, ctx: &Context, storage: &dyn Storage) -> Result<Vec<Name>> {
        let back = parallel(READERS, self.0, |kept| storage.bring_back(ctx, &kept).map(|()| kept.name));
        back.into_iter().map(|result| result.map_err(|e| e.while_doing("cannot bring back a deleted object"))).collect()
    }
}

impl Repository {
    /// Returns whether `config` was deleted and can be brought back.
    pub(super) fn is_config_deleted(ctx: &Context, storage: &dyn Storage) -> bool {
        storage.kept(ctx, Folder::Root).is_ok_and(|kept| kept.iter().any(|kept| kept.name == Name::Config))
    }

    /// Brings back the objects without which nothing opens: `config`, and all key files and records if none is left.
    pub fn bring_back_entrance(ctx: &Context, storage: &dyn Storage) -> Result<Vec<Name>> {
        let mut back = Vec::new();
        if !Self::exists(ctx, storage)? {
            let kept = storage.kept(ctx, Folder::Root)?.into_iter().filter(|kept| kept.name == Name::Config);
            back.extend(Deleted(kept.collect()).bring_back(ctx, storage)?);
        }
        for folder in [Folder::Keys, Folder::Log] {
            let is_empty = match storage.list(ctx, folder) {
                Err(e) if e.kind() == Kind::NoRepository => false,
                listed => listed?.is_empty(),
            };
            if is_empty {
                back.extend(Deleted(storage.kept(ctx, folder)?).bring_back(ctx, storage)?);
            }
        }
        Ok(back)
    }

    /// Brings back all deleted records, also superseded ones, which change nothing.
    pub fn bring_back_log(&self, ctx: &Context) -> Result<Vec<Name>> {
        Deleted(self.storage.kept(ctx, Folder::Log)?).bring_back(ctx, &*self.storage)
    }

    /// Returns the deleted records that no record of the log contains, and these packs if they were deleted.
    pub fn deleted(&self, ctx: &Context, state: &State, packs: &BTreeSet<ObjectId>) -> Result<Deleted> {
        let mut kept = self.storage.kept(ctx, Folder::Log)?;
        if !kept.is_empty() {
            let mut state = state.clone();
            self.read_ancestry(ctx, &mut state)?;
            kept.retain(|kept| matches!(kept.name, Name::Record { id, .. } if !state.explains(&id)));
        }
        let shards: BTreeSet<u8> = packs.iter().map(ObjectId::shard).collect();
        let listed =
            parallel(READERS, shards.into_iter().collect(), |shard| self.storage.kept(ctx, Folder::PackShard(shard)));
        for found in listed {
            kept.extend(found?.into_iter().filter(|kept| matches!(kept.name, Name::Pack(id) if packs.contains(&id))));
        }
        Ok(Deleted(kept))
    }

    /// Brings back deleted objects. Returns their names.
    pub fn bring_back(&self, ctx: &Context, deleted: Deleted) -> Result<Vec<Name>> {
        deleted.bring_back(ctx, &*self.storage)
    }
}
