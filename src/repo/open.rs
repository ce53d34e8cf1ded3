//! Creates and opens repositories.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::CacheUse;
use super::fetch::Fetcher;
use super::presence::expect_packs;
use super::rollback::{Alarm, RollbackGuard};
use super::unlock::{KeyFiles, Unlocking};
use super::{Clock, GRACE, Repository, SystemClock, now, random};
use crate::context::Context;
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::{Keys, LocalKey, MasterKey, RepoId};
use crate::crypto::secret::{Passphrase, Secret};
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::{self, KeyInfo};
use crate::name::{Folder, Name, ObjectId};
use crate::seen::{Seen, SeenKey, SeenStore};
use crate::storage::{CacheFolder, Storage};
use crate::time::Time;

/// Default capacity of the block cache, in bytes.
const DEFAULT_CACHE: usize = 96 << 20;

/// Options for opening a repository, and the reaction to a server that contradicts the seen data.
#[derive(Default)]
pub struct Access {
    /// The seen data of this machine.
    pub seen: Option<SeenStore>,
    /// Nothing is stored as seen, since a dry run writes nothing.
    pub dry_run: bool,
    /// Older states and other repositories cause a warning instead of an error. For readers only.
    pub accept_rollback: bool,
    /// The first 8 bytes of the id of a record that must be there.
    pub expect_head: Option<u64>,
    /// The second factor.
    pub local_key: Option<LocalKey>,
    /// The master key is wiped once the sub-keys are derived. Then [`Repository::add_key`] fails.
    pub forgets_master_key: bool,
    /// A key file that the user has kept, used instead of the key files of the repository.
    pub key_file: Option<Vec<u8>>,
    /// The folder of the disk cache.
    pub cache: Option<CacheFolder>,
    /// The use of the disk cache.
    pub cache_use: CacheUse,
    /// The operation verifies the presence of packs soon, as a push does.
    pub lists_packs: bool,
    /// Set if the server shows a suspicious state although the operation continues.
    pub alarm: Alarm,
}

/// A key file and the secrets that open it.
#[derive(Clone, Copy)]
pub struct Unlock<'u> {
    /// Passphrase, with the local key if there is one.
    pub passphrase: &'u Passphrase,
    /// Cost of one derivation.
    pub cost: KdfCost,
    /// Label that the user chose.
    pub label: &'u str,
}

impl Repository {
    /// Creates a repository: all folders, one key file, `config` last. Continues an interrupted `init` (a folder with only
    /// names of the format and no `config`). Refuses any other folder that is not empty.
    pub fn init(
        ctx: &Context,
        storage: Arc<dyn Storage>,
        passphrase: &Passphrase,
        cost: KdfCost,
        label: &str,
    ) -> Result<Self> {
        let unlock = Unlock { passphrase, cost, label };
        Self::init_with(ctx, storage, unlock, &Access::default())
    }

    /// Creates a repository like [`Repository::init`], optionally with a local key, and stores it as seen.
    pub fn init_with(ctx: &Context, storage: Arc<dyn Storage>, unlock: Unlock<'_>, access: &Access) -> Result<Self> {
        Self::check_empty(ctx, &*storage)?;
        let created = storage.create_folders(ctx);
        created.map_err(|e| if e.kind().is_damage() { no_folder(&storage.address(), &e) } else { e })?;
        let id = RepoId(random()?);
        let master: MasterKey = Secret::new(random()?);
        let guard = access.rollback_guard(&*storage);
        let (_, key) = put_key(ctx, &*storage, &id, &master, unlock)?;
        let info = KeyInfo { created: key.created, label: unlock.label.to_owned() };
        put_config(ctx, &*storage, &id)?;
        if let Some(store) = &guard.store {
            guard.remembered(store.bind(&guard.address, &id.0));
        }
        let mut repo = Self::with_master(storage, master, id, guard, (key.id, info));
        repo.fetcher = access.with_disk(repo.fetcher, &id);
        repo.check_key(key)?;
        repo.remember_created();
        Ok(repo)
    }

    /// Fails unless `init` can create a repository at this place.
    pub fn check_empty(ctx: &Context, storage: &dyn Storage) -> Result<()> {
        let address = storage.address();
        match storage.list(ctx, Folder::Root) {
            Ok(entries) if entries.iter().any(|e| e.name == Name::Config) => {
                let text = format!("there is a repository at {address} already");
                return Err(Error::new(Kind::Exists, text).hint("`nfreezer push` uses it; nothing was changed"));
            }
            Err(e) if e.kind() == Kind::NoRepository && !is_file(storage) => return Ok(()),
            Err(e) if e.kind() == Kind::NoRepository || e.kind().is_damage() => return Err(no_folder(&address, &e)),
            other => other.map(drop)?,
        }
        if storage.foreign(ctx, Folder::Root)? > 0 {
            let text = format!("the folder {address} is not empty");
            return Err(Error::new(Kind::Exists, text).hint("give a new folder; nothing was changed"));
        }
        Ok(())
    }

    /// Returns whether there is a repository.
    pub fn exists(ctx: &Context, storage: &dyn Storage) -> Result<bool> {
        match storage.size(ctx, &Name::Config) {
            Err(e) if matches!(e.kind(), Kind::Missing | Kind::NoRepository) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Fails if this machine has seen a repository at an address that has none now.
    pub fn check_never_seen(store: &SeenStore, address: &str) -> Result<()> {
        store.at_address(address).map_or(Ok(()), |(_, seen)| Err(vanished(address, &seen)))
    }

    /// Opens a repository without seen data. Calls `passphrase` only if there is a repository.
    pub fn open(
        ctx: &Context,
        storage: Arc<dyn Storage>,
        passphrase: impl FnOnce() -> Result<Passphrase>,
    ) -> Result<Self> {
        Self::open_with(ctx, storage, &Access::default(), passphrase)
    }

    /// Opens a repository. Calls `passphrase` only if there is a repository, and it is the one that was seen at this
    /// address.
    pub fn open_with(
        ctx: &Context,
        storage: Arc<dyn Storage>,
        access: &Access,
        passphrase: impl FnOnce() -> Result<Passphrase>,
    ) -> Result<Self> {
        let mut guard = access.rollback_guard(&*storage);
        let before = guard.store.as_ref().and_then(|store| store.at_address(&guard.address));
        let opened_before = before.as_ref().and_then(|(_, seen)| seen.key).map(|key| key.id);
        // Independent steps run at the same time, since each costs a round trip.
        storage.expect(ctx, Folder::Log);
        let (config, keys) = std::thread::scope(|scope| {
            let keys = scope.spawn(|| match &access.key_file {
                Some(file) => Ok(KeyFiles::of_user(file)),
                None => KeyFiles::list(ctx, &*storage, opened_before),
            });
            let config = storage.read(ctx, &Name::Config, 0, keyfile::CONFIG);
            (config, keys.join().expect("it does not panic"))
        });
        let config = match (config, &access.key_file) {
            // A key file that the user has kept holds the repository id.
            (Err(e), Some(file)) if e.kind() == Kind::Missing => keyfile::encode_config(&keyfile::repository(file)?),
            (config, _) => {
                config.map_err(|e| no_repository(ctx, e, &*storage, before.as_ref().map(|(_, seen)| seen)))?
            }
        };
        let id = keyfile::decode_config(&config)
            .map_err(|e| Self::config_error(ctx, &*storage).filter(|_| e.kind() == Kind::NoRepository).unwrap_or(e))?;
        guard.check_identity(&id)?;
        if let (Some(cache), true) = (&access.cache, access.lists_packs) {
            expect_packs(ctx, &*storage, &cache.of(&id.0));
        }
        guard.is_first_contact = guard.store.is_some() && guard.seen(&id).is_none();
        let local_key = access.local_key.as_ref();
        let unlocking = Unlocking::new(ctx, &*storage, &guard, &id, local_key, opened_before);
        let (master, key, info) = unlocking.run(keys?, passphrase)?;
        let mut repo = Self::with_master(storage, master, id, guard, (key.id, info));
        repo.fetcher = access.with_disk(repo.fetcher, &id);
        if access.forgets_master_key {
            repo.master = None;
        }
        repo.check_key(key)?;
        Ok(repo)
    }

    fn with_master(
        storage: Arc<dyn Storage>,
        master: MasterKey,
        id: RepoId,
        guard: RollbackGuard,
        key: (ObjectId, KeyInfo),
    ) -> Self {
        let keys = Arc::new(Keys::derive(&master, &id));
        let fetcher = Fetcher::new(Arc::clone(&storage), Arc::clone(&keys), DEFAULT_CACHE);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Repository {
            storage,
            keys,
            id,
            fetcher,
            rollback: guard,
            clock,
            grace: GRACE,
            looks_again: true,
            opened_by: key,
            master: Some(master),
        }
    }

    /// Returns this repository on another storage, with an empty cache. For tests with many hostile storages, where
    /// opening would run the key derivation a thousand times.
    #[doc(hidden)]
    pub fn behind(&self, storage: Arc<dyn Storage>) -> Self {
        self.behind_with(storage, &Access::default())
    }

    /// Returns this repository like [`Repository::behind`], with the seen data and the options of `access`.
    #[doc(hidden)]
    pub fn behind_with(&self, storage: Arc<dyn Storage>, access: &Access) -> Self {
        let guard = access.rollback_guard(&*storage);
        guard.proven.store(true, Ordering::Relaxed);
        let fetcher = Fetcher::new(Arc::clone(&storage), Arc::clone(&self.keys), DEFAULT_CACHE);
        let fetcher = access.with_disk(fetcher, &self.id);
        let (keys, opened_by, master) = (Arc::clone(&self.keys), self.opened_by.clone(), self.master.clone());
        let (clock, grace, looks_again) = (Arc::clone(&self.clock), self.grace, self.looks_again);
        Repository {
            storage,
            keys,
            id: self.id,
            fetcher,
            rollback: guard,
            clock,
            grace,
            looks_again,
            opened_by,
            master,
        }
    }

    /// Sets the capacity of the block cache in bytes. Returns the previous capacity.
    pub fn set_cache(&self, bytes: usize) -> usize {
        self.fetcher.set_cache(bytes)
    }

    /// Makes the capacity of the block cache a bound that includes the blocks that are being fetched.
    pub fn bound_reads(&self) {
        self.fetcher.count_pending();
    }
}

impl Access {
    fn with_disk(&self, fetcher: Fetcher, id: &RepoId) -> Fetcher {
        fetcher.with_disk(self.cache.as_ref().map(|folder| folder.of(&id.0)), self.cache_use)
    }

    fn rollback_guard(&self, storage: &dyn Storage) -> RollbackGuard {
        RollbackGuard {
            store: self.seen.clone(),
            dry_run: self.dry_run,
            accept: self.accept_rollback,
            expect: self.expect_head,
            alarm: Arc::clone(&self.alarm),
            address: storage.address(),
            ..RollbackGuard::default()
        }
    }
}

/// Creates and stores a key file.
pub(super) fn put_key(
    ctx: &Context,
    storage: &dyn Storage,
    id: &RepoId,
    master: &MasterKey,
    unlock: Unlock<'_>,
) -> Result<(Vec<u8>, SeenKey)> {
    let Unlock { passphrase, cost, label } = unlock;
    let info = KeyInfo { created: now().seconds as u64, label: label.to_owned() };
    let (key, file) = keyfile::wrap(master, id, passphrase, cost, &random()?, &info)?;
    storage.put(ctx, &Name::Key(key), &file)?;
    Ok((file, SeenKey { id: key, work: cost.work(), local: passphrase.local_key().is_some(), created: info.created }))
}

/// Stores `config`, which makes the folder a repository. Fails if another client does so at the same moment.
fn put_config(ctx: &Context, storage: &dyn Storage, id: &RepoId) -> Result<()> {
    let config = keyfile::encode_config(id);
    let stored = match storage.put(ctx, &Name::Config, &config) {
        Err(e) if e.kind() == Kind::Exists => false,
        Err(e) => return Err(e),
        // Without exclusive creation, the other client may have replaced it.
        Ok(()) if !storage.capabilities().exclusive_create => {
            storage.read(ctx, &Name::Config, 0, keyfile::CONFIG)? == config
        }
        Ok(()) => true,
    };
    if stored {
        return Ok(());
    }
    let text = format!("another client made a repository at {} at the same moment", storage.address());
    Err(Error::new(Kind::Exists, text).hint("use that one with its passphrase; yours does not open it"))
}

/// Returns whether a repository on this machine would be in the place of a file, or below one.
fn is_file(storage: &dyn Storage) -> bool {
    let Some(root) = storage.local_path() else { return false };
    root.ancestors().find(|path| path.symlink_metadata().is_ok()).is_some_and(|path| !path.is_dir())
}

/// Returns the error for a place where no folder can be, such as a file.
fn no_folder(address: &str, why: &Error) -> Error {
    let text = format!("no repository can be made at {address}: a file may be in the place of a folder ({why})");
    Error::failed(text).hint("give a new folder; nothing was changed")
}

/// Returns the error for a place without a repository.
fn no_repository(ctx: &Context, e: Error, storage: &dyn Storage, before: Option<&Seen>) -> Error {
    if !matches!(e.kind(), Kind::Missing | Kind::NoRepository | Kind::Damaged) {
        return e;
    }
    if e.kind() == Kind::NoRepository && e.hint_text().is_some() {
        return e; // an object store that has no such bucket
    }
    let address = storage.address();
    if let Some(error) = Repository::config_error(ctx, storage) {
        return error;
    }
    if storage.list(ctx, Folder::Log).is_ok_and(|records| !records.is_empty()) {
        let text = format!("the repository at {address} has lost its file config");
        let hint = "`nfreezer key import FILE` puts it back from a page of `nfreezer key export`";
        return Error::new(Kind::Missing, text).hint(hint);
    }
    if let Some(seen) = before {
        return vanished(&address, seen);
    }
    let hint = match storage.size(ctx, &Name::OldIndex) {
        Ok(_) => "this is one of the Python nFreezer: `nfreezer import-v0` brings it into a new repository",
        Err(_) => "`nfreezer init -r REPO` makes one",
    };
    Error::new(Kind::NoRepository, format!("there is no repository at {address}")).hint(hint)
}

/// Returns the error for an address where a repository was seen before, and none is now.
fn vanished(address: &str, seen: &Seen) -> Error {
    let newest = seen.heads_at(address).last();
    let newest = newest.map(|h| format!(", last on {}", Time::from_seconds(h.time))).unwrap_or_default();
    let text = format!("there is no repository at {address} any more: this machine has seen one there{newest}");
    let hint = "if its disk is not mounted, mount it; `nfreezer init --yes` makes a new, empty one";
    Error::new(Kind::NoRepository, text).hint(hint)
}
