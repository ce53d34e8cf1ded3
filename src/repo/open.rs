//! Making a repository and opening one.

use std::sync::Arc;

use super::fetch::Fetcher;
use super::{Repository, now, parallel, random};
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::{Keys, MasterKey, RepoId};
use crate::crypto::secret::{Passphrase, Secret};
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::{self, KEY_FILE, KeyFile, KeyInfo};
use crate::format::limits;
use crate::name::{Folder, Name, ObjectId};
use crate::storage::Storage;

/// Bytes of verified blocks that are kept in memory unless the caller says otherwise.
const DEFAULT_CACHE: usize = 96 << 20;
/// Key files that are read at the same time.
const READERS: usize = 8;

impl Repository {
    /// Makes a repository: all folders, one key file, `config` last. A folder that holds only what an interrupted
    /// `init` left (our own names and no `config`) is taken over; any other non-empty folder is refused.
    pub fn init(storage: Arc<dyn Storage>, passphrase: &Passphrase, cost: KdfCost, label: &str) -> Result<Self> {
        Self::check_empty(&*storage)?;
        storage.create_folders()?;
        let id = RepoId(random()?);
        let master: MasterKey = Secret::new(random()?);
        let info = KeyInfo { created: now() as u64, label: label.to_owned() };
        let (key_id, key_file) = keyfile::wrap(&master, &id, passphrase, cost, &random()?, &info)?;
        storage.put(&Name::Key(key_id), &key_file)?;
        storage.put(&Name::Config, &keyfile::encode_config(&id))?;
        Ok(Self::with_master(storage, &master, id))
    }

    /// Refuses a place where `init` would not begin with nothing.
    pub fn check_empty(storage: &dyn Storage) -> Result<()> {
        let address = storage.address();
        match storage.list(Folder::Root) {
            Ok(entries) if entries.iter().any(|e| e.name == Name::Config) => {
                let text = format!("there is a repository at {address} already");
                return Err(Error::new(Kind::Exists, text).hint("`nfreezer push` uses it; nothing was changed"));
            }
            Err(e) if e.kind() == Kind::NoRepository => return Ok(()),
            other => other.map(drop)?,
        }
        if storage.foreign(Folder::Root)? > 0 {
            let text = format!("the folder {address} is not empty");
            return Err(Error::new(Kind::Exists, text).hint("give a new folder; nothing was changed"));
        }
        Ok(())
    }

    /// Opens a repository. `passphrase` is asked for only after there is a repository to open.
    pub fn open(storage: Arc<dyn Storage>, passphrase: impl FnOnce() -> Result<Passphrase>) -> Result<Self> {
        let address = storage.address();
        let nothing = |e: Error| match e.kind() {
            Kind::Missing | Kind::NoRepository | Kind::Damaged => {
                let text = format!("there is no repository at {address}");
                let hint = match storage.size(&Name::OldIndex) {
                    Ok(_) => "this is one of the Python nFreezer: `nfreezer import-v0` brings it into a new repository",
                    Err(_) => "`nfreezer init -r REPO` makes one",
                };
                Error::new(Kind::NoRepository, text).hint(hint)
            }
            _ => e,
        };
        // on a long line each step costs its round trip: what does not wait for another goes at the same time
        storage.expect(Folder::Log);
        let (config, keys) = std::thread::scope(|scope| {
            let keys = scope.spawn(|| Self::read_keys(&*storage));
            let config = storage.read(&Name::Config, 0, keyfile::CONFIG);
            (config, keys.join().expect("it does not panic"))
        });
        let id = keyfile::decode_config(&config.map_err(nothing)?)?;
        let mut damaged = Vec::new();
        let files = Self::key_files(keys?, &id, &mut damaged);
        let passphrase = passphrase()?;
        for bytes in &files {
            match KeyFile::parse(&bytes.0, &id, &bytes.1)?.open(&passphrase) {
                Ok((master, _)) => return Ok(Self::with_master(storage, &master, id)),
                Err(e) if e.kind() == Kind::Passphrase => {}
                Err(e) => damaged.push(e.to_string()),
            }
        }
        let count = files.len();
        let text = match damaged.as_slice() {
            [] => format!("wrong passphrase: none of the {count} key file(s) of {address} opens with it"),
            why => format!("no key file of {address} opens with this passphrase, and: {}", why.join("; ")),
        };
        Err(Error::new(Kind::Passphrase, text))
    }

    /// Whatever could be a key file, at most [`limits::KEY_FILES`]; `None` where the size is wrong.
    fn read_keys(storage: &dyn Storage) -> Result<Vec<(ObjectId, Option<Vec<u8>>)>> {
        let entries = storage.list(Folder::Keys)?.into_iter().take(limits::KEY_FILES);
        let read = parallel(READERS, entries.collect(), |entry| {
            let Name::Key(id) = entry.name else { return None };
            let right = entry.size == KEY_FILE as u64;
            Some(right.then(|| storage.read(&entry.name, 0, KEY_FILE)).transpose().map(|bytes| (id, bytes)))
        });
        read.into_iter().flatten().collect()
    }

    /// The well-formed key files, cheapest first.
    fn key_files(
        read: Vec<(ObjectId, Option<Vec<u8>>)>,
        id: &RepoId,
        damaged: &mut Vec<String>,
    ) -> Vec<(ObjectId, Vec<u8>)> {
        let mut files = Vec::new();
        for (key_id, bytes) in read {
            let Some(bytes) = bytes else {
                damaged.push(format!("key file {} has the wrong size", key_id.short()));
                continue;
            };
            match KeyFile::parse(&key_id, id, &bytes).map(|k| k.cost()) {
                Ok(cost) => files.push((u64::from(cost.memory_kib) * u64::from(cost.passes), (key_id, bytes))),
                Err(e) => damaged.push(e.to_string()),
            }
        }
        files.sort_by_key(|(cost, _)| *cost);
        files.into_iter().map(|(_, file)| file).collect()
    }

    fn with_master(storage: Arc<dyn Storage>, master: &MasterKey, id: RepoId) -> Self {
        Self::with_keys(storage, Arc::new(Keys::derive(master, &id)), id)
    }

    fn with_keys(storage: Arc<dyn Storage>, keys: Arc<Keys>, id: RepoId) -> Self {
        let fetcher = Fetcher::new(Arc::clone(&storage), Arc::clone(&keys), DEFAULT_CACHE);
        Repository { storage, keys, id, fetcher }
    }

    /// The same repository as another storage shows it, with nothing in memory. For tests of storages that lie: opening
    /// each anew would run the key derivation a thousand times.
    #[doc(hidden)]
    pub fn behind(&self, storage: Arc<dyn Storage>) -> Self {
        Self::with_keys(storage, Arc::clone(&self.keys), self.id)
    }

    /// Bounds the bytes of verified blocks that are kept in memory.
    /// Gives the bound before.
    pub fn set_cache(&self, bytes: usize) -> usize {
        self.fetcher.set_cache(bytes)
    }
}
