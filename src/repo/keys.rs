//! Lists, adds, removes and imports key files.

use super::open::{Unlock, put_key};
use super::{Repository, parallel};
use crate::context::Context;
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::LocalKey;
use crate::crypto::secret::Passphrase;
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::{self, KEY_FILE, KeyFile, KeyInfo};
use crate::name::{Folder, Name, ObjectId};
use crate::storage::Storage;

/// Most key files that are listed.
const MOST: usize = 256;
/// Key files that are read at the same time.
const READERS: usize = 8;

/// A key file in a listing.
#[derive(Clone, Debug)]
pub struct Key {
    /// Name of the file.
    pub id: ObjectId,
    /// Modification time on the server, in seconds since the epoch.
    pub stored: i64,
    /// Cost and whether the file needs a local key, or why the file is not usable.
    pub what: Result<(KdfCost, bool), String>,
}

impl Repository {
    /// Returns the key file that opened the repository.
    pub fn opened_by(&self) -> (&ObjectId, &KeyInfo) {
        (&self.opened_by.0, &self.opened_by.1)
    }

    /// Lists all key files, by name.
    pub fn key_files(&self, ctx: &Context) -> Result<Vec<Key>> {
        let mut entries = self.storage.list(ctx, Folder::Keys)?;
        entries.sort_by_key(|entry| entry.name);
        entries.truncate(MOST);
        let keys = parallel(READERS, entries, |entry| {
            let Name::Key(id) = entry.name else { return None };
            let what = match self.read_key(ctx, &id) {
                Err(e) if !matches!(e.kind(), Kind::Damaged | Kind::Missing | Kind::Passphrase) => return Some(Err(e)),
                read => read.map(|(_, what)| what).map_err(|e| e.to_string()),
            };
            Some(Ok(Key { id, stored: entry.mtime, what }))
        });
        keys.into_iter().flatten().collect()
    }

    /// Returns a key file as stored, its cost, and whether it needs a local key.
    pub fn read_key(&self, ctx: &Context, id: &ObjectId) -> Result<(Vec<u8>, (KdfCost, bool))> {
        let name = Name::Key(*id);
        if self.storage.size(ctx, &name)? != KEY_FILE as u64 {
            return Err(Error::damaged(format!("key file {} has the wrong size", id.short())));
        }
        let bytes = self.storage.read(ctx, &name, 0, KEY_FILE)?;
        let file = KeyFile::parse(id, &self.id, &bytes)?;
        let what = (file.cost(), file.needs_local_key());
        Ok((bytes, what))
    }

    /// Adds a key file. Reads it back and opens it before returning, so that no user relies on an unusable key file.
    pub fn add_key(&self, ctx: &Context, unlock: Unlock<'_>) -> Result<ObjectId> {
        let master = self.master.as_ref().ok_or_else(|| Error::failed("the master key was wiped already"))?;
        let (file, key) = put_key(ctx, &*self.storage, &self.id, master, unlock)?;
        let (back, _) =
            self.read_key(ctx, &key.id).map_err(|e| e.while_doing("the new key file cannot be read back"))?;
        KeyFile::parse(&key.id, &self.id, &back)?.open(unlock.passphrase)?;
        if back != file {
            return Err(Error::damaged("the server returned a key file that differs from the one that was stored"));
        }
        self.remember_key(key);
        Ok(key.id)
    }

    /// Removes a key file. Refuses to remove the last usable one.
    pub fn remove_key(&self, ctx: &Context, id: &ObjectId) -> Result<()> {
        let others = self.key_files(ctx)?.into_iter().filter(|key| key.id != *id && key.what.is_ok()).count();
        if others == 0 {
            let text = format!("key file {} is the last one: without it, nothing opens the repository", id.short());
            return Err(Error::new(Kind::Usage, text).hint("`nfreezer key add` makes another one first"));
        }
        let name = Name::Key(*id);
        self.storage.remove(ctx, &name).map_err(|e| refused(e, id))?;
        match self.storage.size(ctx, &name) {
            Err(e) if e.kind() == Kind::Missing => {}
            Err(e) => return Err(e),
            Ok(_) => return Err(refused(Error::failed("it is still there"), id)),
        }
        self.remember_removed(*id);
        Ok(())
    }
}

/// Returns the error of a server that refuses to remove a key file.
fn refused(e: Error, id: &ObjectId) -> Error {
    if e.kind() == Kind::Connection {
        return e;
    }
    Error::failed(format!("the server does not remove key file {}: {e}", id.short()))
        .hint("on an append-only server keys are removed from an account with full access; the file is still there and still opens the repository")
}

/// Stores a key file that the user has kept in its repository, after opening it. Creates `config` if it is missing.
pub fn import(
    ctx: &Context,
    storage: &dyn Storage,
    file: &[u8],
    local_key: Option<&LocalKey>,
    passphrase: impl FnOnce() -> Result<Passphrase>,
) -> Result<(ObjectId, KeyInfo)> {
    let (id, repository) = (keyfile::name(file), keyfile::repository(file)?);
    let config = match storage.read(ctx, &Name::Config, 0, keyfile::CONFIG) {
        Ok(bytes) => Some(keyfile::decode_config(&bytes)?),
        Err(e) if e.kind() == Kind::Missing => None,
        Err(e) => return Err(e),
    };
    if config.is_some_and(|config| config != repository) {
        let text = format!("the key file belongs to another repository than the one at {}", storage.address());
        return Err(Error::new(Kind::Usage, text));
    }
    let key = KeyFile::parse(&id, &repository, file)?;
    if key.needs_local_key() && local_key.is_none() {
        let text = "this key file needs a local key beside the passphrase";
        return Err(Error::new(Kind::Passphrase, text).hint("give --local-key FILE"));
    }
    let (_, info) = key.open(&passphrase()?.with_local_key(local_key.cloned()))?;
    storage.create_folders(ctx)?;
    match storage.put(ctx, &Name::Key(id), file) {
        Err(e)
            if e.kind() == Kind::Exists && storage.read(ctx, &Name::Key(id), 0, KEY_FILE).is_ok_and(|b| b == file) => {}
        other => other?,
    }
    if config.is_none() {
        storage.put(ctx, &Name::Config, &keyfile::encode_config(&repository))?;
    }
    Ok((id, info))
}
