//! Making a repository and opening one.

use std::sync::Arc;

use super::fetch::Fetcher;
use super::witness::{Alarm, Witness};
use super::{Repository, now, parallel, random};
use crate::context::Context;
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::{Keys, LocalKey, MasterKey, RepoId};
use crate::crypto::secret::{Passphrase, Secret};
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::{self, KEY_FILE, KeyFile, KeyInfo};
use crate::format::limits;
use crate::name::{Folder, Name, ObjectId};
use crate::seen::{Seen, SeenKey, SeenStore};
use crate::storage::Storage;
use crate::time::Time;

/// Bytes of verified blocks that are kept in memory unless the caller says otherwise.
const DEFAULT_CACHE: usize = 96 << 20;
/// Key files that are read at the same time.
const READERS: usize = 8;

/// How a repository is opened, and how to react if the server shows another state than before.
#[derive(Default)]
pub struct Access {
    /// The heads that this machine has seen of its repositories.
    pub seen: Option<SeenStore>,
    /// Nothing is remembered, since nothing is really written.
    pub dry_run: bool,
    /// Older states and other repositories are shown with a warning; for readers only.
    pub accept_rollback: bool,
    /// The first 8 bytes of the id of a record that must be there.
    pub expect_head: Option<u64>,
    /// The second factor.
    pub local_key: Option<LocalKey>,
    /// A key file that the user has kept, instead of those of the repository.
    pub key_file: Option<Vec<u8>>,
    /// Is raised where the user must hear of something although the work goes on.
    pub alarm: Alarm,
}

/// A key file and the secrets that open it.
#[derive(Clone, Copy)]
pub struct Unlock<'u> {
    /// The passphrase, with the local key if there is one.
    pub passphrase: &'u Passphrase,
    /// The cost of one attempt.
    pub cost: KdfCost,
    /// The label of the key file.
    pub label: &'u str,
}

/// The bytes of each possible key file; `None` where the size is wrong.
type Read = Vec<(ObjectId, Option<Vec<u8>>)>;

impl Repository {
    /// Makes a repository: all folders, one key file, `config` last. A folder that holds only what an interrupted
    /// `init` left (our own names and no `config`) is taken over; any other non-empty folder is refused.
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

    /// [`Repository::init`] with a local key perhaps, and remembered.
    pub fn init_with(ctx: &Context, storage: Arc<dyn Storage>, unlock: Unlock<'_>, access: &Access) -> Result<Self> {
        Self::check_empty(ctx, &*storage)?;
        storage.create_folders(ctx)?;
        let id = RepoId(random()?);
        let master: MasterKey = Secret::new(random()?);
        let witness = access.witness(&*storage);
        let (_, key) = put_key(ctx, &*storage, &id, &master, unlock)?;
        let info = KeyInfo { created: key.created, label: unlock.label.to_owned() };
        storage.put(ctx, &Name::Config, &keyfile::encode_config(&id))?;
        if let Some(store) = &witness.store {
            let known = store.bind(&witness.address, &id.0);
            witness.remembered(known);
            witness.check_key(&id, key)?;
        }
        Ok(Self::with_master(storage, master, id, witness, (key.id, info)))
    }

    /// Refuses a place where `init` would not begin with nothing.
    pub fn check_empty(ctx: &Context, storage: &dyn Storage) -> Result<()> {
        let address = storage.address();
        match storage.list(ctx, Folder::Root) {
            Ok(entries) if entries.iter().any(|e| e.name == Name::Config) => {
                let text = format!("there is a repository at {address} already");
                return Err(Error::new(Kind::Exists, text).hint("`nfreezer push` uses it; nothing was changed"));
            }
            Err(e) if e.kind() == Kind::NoRepository => return Ok(()),
            other => other.map(drop)?,
        }
        if storage.foreign(ctx, Folder::Root)? > 0 {
            let text = format!("the folder {address} is not empty");
            return Err(Error::new(Kind::Exists, text).hint("give a new folder; nothing was changed"));
        }
        Ok(())
    }

    /// Opens a repository without a memory. `passphrase` is asked for only after there is a repository to open.
    pub fn open(
        ctx: &Context,
        storage: Arc<dyn Storage>,
        passphrase: impl FnOnce() -> Result<Passphrase>,
    ) -> Result<Self> {
        Self::open_with(ctx, storage, &Access::default(), passphrase)
    }

    /// Opens a repository. `passphrase` is asked for only after there is one, and it is the one that was here before.
    pub fn open_with(
        ctx: &Context,
        storage: Arc<dyn Storage>,
        access: &Access,
        passphrase: impl FnOnce() -> Result<Passphrase>,
    ) -> Result<Self> {
        let mut witness = access.witness(&*storage);
        let before = witness.store.as_ref().and_then(|store| store.at_address(&witness.address));
        let favourite = before.as_ref().and_then(|(_, seen)| seen.key).map(|key| key.id);
        // on a long line each step costs its round trip: what does not wait for another goes at the same time
        storage.expect(ctx, Folder::Log);
        let (config, keys) = std::thread::scope(|scope| {
            let keys = scope.spawn(|| match &access.key_file {
                Some(file) => Ok(vec![(keyfile::name(file), Some(file.clone()))]),
                None => read_keys(ctx, &*storage, favourite),
            });
            let config = storage.read(ctx, &Name::Config, 0, keyfile::CONFIG);
            (config, keys.join().expect("it does not panic"))
        });
        let config = match (config, &access.key_file) {
            // A key file that the user has kept says which repository it is.
            (Err(e), Some(file)) if e.kind() == Kind::Missing => keyfile::encode_config(&keyfile::repository(file)?),
            (config, _) => config.map_err(|e| nothing(ctx, e, &*storage, before.as_ref().map(|(_, seen)| seen)))?,
        };
        let id = keyfile::decode_config(&config)?;
        witness.check_identity(&id)?;
        witness.stranger = witness.store.is_some() && witness.seen(&id).is_none();
        let (master, key, info) = unlock(keys?, &id, access, &witness, favourite, passphrase)?;
        witness.check_key(&id, key)?;
        Ok(Self::with_master(storage, master, id, witness, (key.id, info)))
    }

    fn with_master(
        storage: Arc<dyn Storage>,
        master: MasterKey,
        id: RepoId,
        witness: Witness,
        key: (ObjectId, KeyInfo),
    ) -> Self {
        let keys = Arc::new(Keys::derive(&master, &id));
        let fetcher = Fetcher::new(Arc::clone(&storage), Arc::clone(&keys), DEFAULT_CACHE);
        Repository { storage, keys, id, fetcher, witness, opened_by: key, master }
    }

    /// The same repository as another storage shows it, with nothing in memory. For tests of storages that lie: opening
    /// each anew would run the key derivation a thousand times.
    #[doc(hidden)]
    pub fn behind(&self, storage: Arc<dyn Storage>) -> Self {
        let witness = Access::default().witness(&*storage);
        let fetcher = Fetcher::new(Arc::clone(&storage), Arc::clone(&self.keys), DEFAULT_CACHE);
        let (keys, opened_by, master) = (Arc::clone(&self.keys), self.opened_by.clone(), self.master.clone());
        Repository { storage, keys, id: self.id, fetcher, witness, opened_by, master }
    }

    /// Bounds the bytes of verified blocks that are kept in memory.
    /// Returns the bound before.
    pub fn set_cache(&self, bytes: usize) -> usize {
        self.fetcher.set_cache(bytes)
    }
}

impl Access {
    fn witness(&self, storage: &dyn Storage) -> Witness {
        Witness {
            store: self.seen.clone(),
            dry_run: self.dry_run,
            accept: self.accept_rollback,
            expect: self.expect_head,
            alarm: Arc::clone(&self.alarm),
            address: storage.address(),
            ..Witness::default()
        }
    }
}

/// Stores a new key file.
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

/// Why there is no repository to open.
fn nothing(ctx: &Context, e: Error, storage: &dyn Storage, before: Option<&Seen>) -> Error {
    if !matches!(e.kind(), Kind::Missing | Kind::NoRepository | Kind::Damaged) {
        return e;
    }
    let address = storage.address();
    if let Some(seen) = before {
        let newest = seen.heads.last().map(|h| format!(", last on {}", Time::from_seconds(h.time))).unwrap_or_default();
        let text = format!("there is no repository at {address} any more: this machine has seen one there{newest}");
        let hint = "if its disk is not mounted, mount it; `nfreezer init` would make a new, empty one";
        return Error::new(Kind::NoRepository, text).hint(hint);
    }
    let hint = match storage.size(ctx, &Name::OldIndex) {
        Ok(_) => "this is one of the Python nFreezer: `nfreezer import-v0` brings it into a new repository",
        Err(_) => "`nfreezer init -r REPO` makes one",
    };
    Error::new(Kind::NoRepository, format!("there is no repository at {address}")).hint(hint)
}

/// Whatever could be a key file, at most [`limits::KEY_FILES`], first the one that opened it before.
fn read_keys(ctx: &Context, storage: &dyn Storage, favourite: Option<ObjectId>) -> Result<Read> {
    let mut entries = storage.list(ctx, Folder::Keys)?;
    entries.sort_by_key(|entry| (entry.size != KEY_FILE as u64, Some(entry.name) != favourite.map(Name::Key)));
    entries.truncate(limits::KEY_FILES);
    let read = parallel(READERS, entries, |entry| {
        let Name::Key(id) = entry.name else { return None };
        let right = entry.size == KEY_FILE as u64;
        Some(right.then(|| storage.read(ctx, &entry.name, 0, KEY_FILE)).transpose().map(|bytes| (id, bytes)))
    });
    read.into_iter().flatten().collect()
}

/// Opens the first key file that opens: the one of the last time, then the cheapest.
fn unlock(
    read: Read,
    id: &RepoId,
    access: &Access,
    witness: &Witness,
    favourite: Option<ObjectId>,
    passphrase: impl FnOnce() -> Result<Passphrase>,
) -> Result<(MasterKey, SeenKey, KeyInfo)> {
    let (mut files, mut damaged) = (Vec::new(), Vec::new());
    for (key, bytes) in &read {
        let bytes =
            bytes.as_deref().ok_or_else(|| Error::damaged(format!("key file {} has the wrong size", key.short())));
        match bytes.and_then(|bytes| KeyFile::parse(key, id, bytes)) {
            Ok(file) => files.push((key, file)),
            Err(e) => damaged.push(e.to_string()),
        }
    }
    files.sort_by_key(|(key, file)| (Some(**key) != favourite, file.cost().work()));
    let removed = witness.seen(id).map(|seen| seen.removed).unwrap_or_default();
    for (key, _) in files.iter().filter(|(key, _)| removed.contains(key)) {
        witness.note(format!(
            "key file {}, which was removed from here, is there again: its passphrase opens it",
            key.short()
        ));
    }
    let local = access.local_key.as_ref();
    let (open, closed): (Vec<_>, Vec<_>) =
        files.iter().partition(|(_, file)| local.is_some() || !file.needs_local_key());
    if open.is_empty() && !closed.is_empty() {
        let text = "the key files of this repository need a local key beside the passphrase";
        return Err(Error::new(Kind::Passphrase, text).hint("give --local-key FILE"));
    }
    let passphrase = passphrase()?.with_local_key(access.local_key.clone());
    for (key, file) in &open {
        match file.open(&passphrase) {
            Ok((master, info)) => {
                let (work, local) = (file.cost().work(), file.needs_local_key());
                return Ok((master, SeenKey { id: **key, work, local, created: info.created }, info));
            }
            Err(e) if e.kind() == Kind::Passphrase => {}
            Err(e) => damaged.push(e.to_string()),
        }
    }
    let (count, address) = (open.len(), &witness.address);
    let or = if open.iter().any(|(_, file)| file.needs_local_key()) { " or local key" } else { "" };
    let text = match damaged.as_slice() {
        [] => format!("wrong passphrase{or}: none of the {count} key file(s) of {address} opens with it"),
        why => format!("no key file of {address} opens with this passphrase{or}, and: {}", why.join("; ")),
    };
    let error = Error::new(Kind::Passphrase, text);
    Err(match closed.len() {
        0 => error,
        n => error.hint(format!("{n} more key file(s) need a local key: --local-key FILE")),
    })
}
