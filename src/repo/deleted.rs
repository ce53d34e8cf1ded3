//! Objects that were deleted or overwritten although the repository needs them, and of which the server keeps versions: a thief
//! hides the objects of a bucket with versions, and cannot remove them.
//!
//! In: the names that are needed. Out: the ones that can be brought back. Their versions are verified, except of packs that were
//! only deleted: these are verified when they are read, as any other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Repository, State, parallel};
use crate::allowance::Allowance;
use crate::context::Context;
use crate::crypto::seal::{self, ObjectType};
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::{self, KEY_FILE};
use crate::format::limits;
use crate::name::{Folder, Name, ObjectId};
use crate::storage::{Kept, Storage, Version};

/// Folders that are listed, and objects that are brought back, at the same time.
const READERS: usize = 8;
/// Memory for versions. A larger one is verified alone.
const MEMORY: u64 = 256 << 20;
/// Most key files that are read to find the repository of a `config`.
const KEY_FILES: usize = 256;

/// Objects that can be brought back.
#[derive(Clone, Debug, Default)]
pub struct Deleted(Vec<Way>);

/// An object and the number of its right version.
#[derive(Clone, Debug)]
struct Way {
    kept: Kept,
    version: usize,
}

/// Verifies the bytes of an object.
type IsRight<'a> = dyn Fn(&Name, &[u8]) -> bool + Sync + 'a;

impl Deleted {
    /// Finds the right versions. Of a pack that was only deleted it is the newest one, unseen.
    fn find(ctx: &Context, storage: &dyn Storage, kept: Vec<Kept>, is_right: &IsRight<'_>) -> Result<Self> {
        let reader = Reader { ctx, storage, is_right, allowance: Allowance::new(MEMORY) };
        let found = parallel(READERS, kept, |kept| Way::find(&reader, kept));
        Ok(Deleted(found.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?))
    }

    /// Returns the names of the objects that were deleted.
    pub fn deleted(&self) -> impl Iterator<Item = Name> {
        self.0.iter().filter(|way| way.kept.is_hidden).map(|way| way.kept.name)
    }

    /// Returns the names of the objects that were overwritten.
    pub fn overwritten(&self) -> impl Iterator<Item = Name> {
        self.0.iter().filter(|way| !way.kept.is_hidden).map(|way| way.kept.name)
    }

    /// Brings the objects back. Returns their names.
    fn bring_back(self, ctx: &Context, storage: &dyn Storage, is_right: &IsRight<'_>) -> Result<Vec<Name>> {
        let reader = Reader { ctx, storage, is_right, allowance: Allowance::new(MEMORY) };
        let back = parallel(READERS, self.0, |way| way.bring_back(&reader).map(|()| way.kept.name));
        back.into_iter().map(|result| result.map_err(|e| e.while_doing("cannot bring back a deleted object"))).collect()
    }
}

/// Reads and verifies versions.
struct Reader<'a> {
    ctx: &'a Context<'a>,
    storage: &'a dyn Storage,
    is_right: &'a IsRight<'a>,
    allowance: Allowance,
}

impl Reader<'_> {
    /// Passes a version to `take` if it is right. `None` if it is not, or is gone.
    fn read<R>(&self, kept: &Kept, version: &Version, take: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>> {
        if version.size > longest(&kept.name) {
            return Ok(None);
        }
        // The bytes, a copy that is decrypted, and the plaintext.
        let _share = self.allowance.take(self.ctx, version.size.saturating_mul(3))?;
        match self.storage.version(self.ctx, &kept.name, version) {
            Ok(bytes) if (self.is_right)(&kept.name, &bytes) => take(&bytes).map(Some),
            Ok(_) => Ok(None),
            Err(e) if e.kind().is_damage() => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Returns the largest size of an object of this kind.
fn longest(name: &Name) -> u64 {
    match name {
        Name::Pack(_) => seal::sealed_len(limits::PACK_READ as u64),
        Name::Record { .. } => seal::sealed_len(limits::RECORD as u64),
        _ => KEY_FILE as u64,
    }
}

impl Way {
    /// Finds the right version. `None` if none is, or if it is the visible one.
    fn find(reader: &Reader<'_>, kept: Kept) -> Result<Option<Self>> {
        let newest = kept.versions.len().saturating_sub(1);
        if matches!(kept.name, Name::Pack(_)) && !kept.is_overwritten() {
            return Ok(kept.is_hidden.then_some(Way { kept, version: newest }));
        }
        let mut is_refused = false;
        for (number, version) in kept.versions.iter().enumerate() {
            if kept.versions[..number].iter().any(|tried| tried.is_same(version)) {
                continue;
            }
            match reader.read(&kept, version, |_| Ok(())) {
                Ok(Some(())) => {
                    let is_visible = !kept.is_hidden && version.is_same(&kept.versions[newest]);
                    return Ok((!is_visible).then_some(Way { version: number, kept }));
                }
                Ok(None) => {}
                Err(e) if e.kind() == Kind::Failed => is_refused = true,
                Err(e) => return Err(e),
            }
        }
        // Without the right to read versions, the only one may still be made visible.
        Ok((is_refused && !kept.is_overwritten()).then_some(Way { kept, version: newest }))
    }

    fn bring_back(&self, reader: &Reader<'_>) -> Result<()> {
        let Way { kept, version } = self;
        if kept.is_hidden && version + 1 == kept.versions.len() && reader.storage.unhide(reader.ctx, kept)? {
            return Ok(());
        }
        let back = |bytes: &[u8]| reader.storage.put_back(reader.ctx, kept, bytes);
        let missing = || Error::damaged(format!("the store does not return the right version of {}", kept.name));
        reader.read(kept, &kept.versions[*version], back)?.ok_or_else(missing)
    }
}

/// Returns whether a folder holds no object. A missing folder is none.
fn is_empty(ctx: &Context, storage: &dyn Storage, folder: Folder) -> Result<bool> {
    match storage.list(ctx, folder) {
        Err(e) if e.kind() == Kind::NoRepository => Ok(false),
        listed => Ok(listed?.is_empty()),
    }
}

/// Returns the ids of the repositories to which the key files belong.
fn ids_of_keys(ctx: &Context, storage: &dyn Storage) -> Result<BTreeSet<[u8; 32]>> {
    let mut ids = BTreeSet::new();
    for entry in storage.list(ctx, Folder::Keys)?.iter().take(KEY_FILES) {
        match storage.read(ctx, &entry.name, 0, KEY_FILE) {
            Ok(file) if is_key_file(&entry.name, &file) => ids.extend(keyfile::repository(&file).map(|id| id.0).ok()),
            Ok(_) => {}
            Err(e) if e.kind().is_damage() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(ids)
}

/// Returns whether these bytes are the ones of a key file, which is named by their digest.
fn is_key_file(name: &Name, file: &[u8]) -> bool {
    matches!(name, Name::Key(id) if keyfile::name(file) == *id)
}

/// Brings back `config`: the oldest version with the repository of a key file.
fn bring_back_config(ctx: &Context, storage: &dyn Storage) -> Result<Vec<Name>> {
    let mut kept = storage.kept(ctx, Folder::Root)?;
    kept.retain(|kept| kept.name == Name::Config);
    let ids = if kept.is_empty() { BTreeSet::new() } else { ids_of_keys(ctx, storage)? };
    let is_known = |id: &[u8; 32]| ids.is_empty() || ids.contains(id);
    let is_right = |_: &Name, bytes: &[u8]| keyfile::decode_config(bytes).is_ok_and(|id| is_known(&id.0));
    Deleted::find(ctx, storage, kept, &is_right)?.bring_back(ctx, storage, &is_right)
}

impl Repository {
    /// Returns the error for a `config` that was deleted or overwritten and of which the server keeps versions.
    pub(super) fn config_error(ctx: &Context, storage: &dyn Storage) -> Option<Error> {
        let kept = storage.kept(ctx, Folder::Root).ok()?.into_iter().find(|kept| kept.name == Name::Config)?;
        let address = storage.address();
        let text = if kept.is_hidden {
            format!("the repository at {address} was deleted, and the store keeps versions of its objects")
        } else {
            format!("the file config of {address} was overwritten, and the store keeps versions of it")
        };
        Some(Error::new(Kind::NoRepository, text).hint("`nfreezer repair` brings the objects back"))
    }

    /// Brings back the deleted objects without which nothing opens: all key files if none is left, and `config`.
    pub fn bring_back_entrance(ctx: &Context, storage: &dyn Storage) -> Result<Vec<Name>> {
        let mut back = Vec::new();
        if is_empty(ctx, storage, Folder::Keys)? {
            let keys = storage.kept(ctx, Folder::Keys)?;
            back.extend(Deleted::find(ctx, storage, keys, &is_key_file)?.bring_back(ctx, storage, &is_key_file)?);
        }
        if !Self::exists(ctx, storage)? {
            back.extend(bring_back_config(ctx, storage)?);
        }
        Ok(back)
    }

    /// Brings back key files and `config` that were overwritten. For a repository that does not open: a new one in the place of
    /// a deleted one overwrites its `config` as well.
    pub fn bring_back_overwritten_entrance(ctx: &Context, storage: &dyn Storage) -> Result<Vec<Name>> {
        let mut keys = storage.kept(ctx, Folder::Keys)?;
        keys.retain(|kept| !kept.is_hidden);
        let mut back = Deleted::find(ctx, storage, keys, &is_key_file)?.bring_back(ctx, storage, &is_key_file)?;
        back.extend(bring_back_config(ctx, storage)?);
        Ok(back)
    }

    /// Brings back all records that were deleted or overwritten, also superseded ones, which change nothing.
    pub fn bring_back_log(&self, ctx: &Context) -> Result<Vec<Name>> {
        let kept = self.storage.kept(ctx, Folder::Log)?;
        self.find_deleted(ctx, kept).and_then(|deleted| self.bring_back(ctx, deleted))
    }

    /// Brings back all records if none is left.
    pub fn bring_back_empty_log(&self, ctx: &Context) -> Result<Vec<Name>> {
        if is_empty(ctx, &*self.storage, Folder::Log)? { self.bring_back_log(ctx) } else { Ok(Vec::new()) }
    }

    /// Returns the records and packs that were deleted or overwritten. Packs are listed if the server is seen to keep versions,
    /// or if one of `bad` is missing or damaged.
    pub fn kept(&self, ctx: &Context, bad: &BTreeSet<ObjectId>) -> Result<BTreeMap<Name, Kept>> {
        let mut kept = self.storage.kept(ctx, Folder::Log)?;
        let all = self.storage.keeps_versions();
        let shards = (0..16).filter(|shard| all || bad.iter().any(|id| id.shard() == *shard)).collect();
        for listed in parallel(READERS, shards, |shard| self.storage.kept(ctx, Folder::PackShard(shard))) {
            kept.extend(listed?);
        }
        Ok(kept.into_iter().map(|kept| (kept.name, kept)).collect())
    }

    /// Returns the objects among `kept` that can be brought back: records that no record of the log contains, and the records
    /// and packs in `bad`.
    pub fn deleted(
        &self,
        ctx: &Context,
        state: &State,
        kept: BTreeMap<Name, Kept>,
        bad: &BTreeSet<ObjectId>,
    ) -> Result<Deleted> {
        let mut state = state.clone();
        if kept.keys().any(|name| matches!(name, Name::Record { .. })) {
            self.read_ancestry(ctx, &mut state)?;
        }
        let needed = kept.into_values().filter(|kept| match kept.name {
            Name::Record { id, .. } => !state.explains(&id) || bad.contains(&id),
            Name::Pack(id) => bad.contains(&id),
            _ => false,
        });
        self.find_deleted(ctx, needed.collect())
    }

    /// Brings objects back. Returns their names.
    pub fn bring_back(&self, ctx: &Context, deleted: Deleted) -> Result<Vec<Name>> {
        deleted.bring_back(ctx, &*self.storage, &|name, bytes| self.is_right(name, bytes))
    }

    fn find_deleted(&self, ctx: &Context, kept: Vec<Kept>) -> Result<Deleted> {
        Deleted::find(ctx, &*self.storage, kept, &|name, bytes| self.is_right(name, bytes))
    }

    /// Verifies the bytes of a record or a pack.
    fn is_right(&self, name: &Name, bytes: &[u8]) -> bool {
        let opens = |kind, id: &ObjectId| seal::open(&self.keys, kind, *id, bytes.to_vec()).is_ok();
        match name {
            Name::Record { id, .. } => opens(ObjectType::Record, id),
            Name::Pack(id) => opens(ObjectType::Data, id) || opens(ObjectType::Meta, id),
            _ => false,
        }
    }
}
