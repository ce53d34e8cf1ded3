//! Making a repository and opening one.

use std::sync::Arc;

use super::fetch::Fetcher;
use super::{Repository, now, random};
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::{Keys, MasterKey, RepoId};
use crate::crypto::secret::{Passphrase, Secret};
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::{self, KEY_FILE, KeyFile, KeyInfo};
use crate::format::limits;
use crate::name::{Folder, Name};
use crate::storage::Storage;

/// Bytes of verified blocks that are kept in memory unless the caller says otherwise.
const DEFAULT_CACHE: usize = 96 << 20;

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
                Error::new(Kind::NoRepository, text).hint("`nfreezer init -r REPO` makes one")
            }
            _ => e,
        };
        let config = storage.read(&Name::Config, 0, keyfile::CONFIG).map_err(nothing)?;
        let id = keyfile::decode_config(&config)?;
        let mut damaged = Vec::new();
        let files = Self::key_files(&*storage, &id, &mut damaged)?;
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

    /// The well-formed key files, cheapest first, at most [`limits::KEY_FILES`].
    fn key_files(
        storage: &dyn Storage,
        id: &RepoId,
        damaged: &mut Vec<String>,
    ) -> Result<Vec<(crate::name::ObjectId, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in storage.list(Folder::Keys)?.into_iter().take(limits::KEY_FILES) {
            let Name::Key(key_id) = entry.name else { continue };
            if entry.size != KEY_FILE as u64 {
                damaged.push(format!("key file {} has the wrong size", key_id.short()));
                continue;
            }
            let bytes = storage.read(&entry.name, 0, KEY_FILE)?;
            match KeyFile::parse(&key_id, id, &bytes).map(|k| k.cost()) {
                Ok(cost) => files.push((u64::from(cost.memory_kib) * u64::from(cost.passes), (key_id, bytes))),
                Err(e) => damaged.push(e.to_string()),
            }
        }
        files.sort_by_key(|(cost, _)| *cost);
        Ok(files.into_iter().map(|(_, file)| file).collect())
    }

    fn with_master(storage: Arc<dyn Storage>, master: &MasterKey, id: RepoId) -> Self {
        let keys = Arc::new(Keys::derive(master, &id));
        let fetcher = Fetcher::new(Arc::clone(&storage), Arc::clone(&keys), DEFAULT_CACHE);
        Repository { storage, keys, id, fetcher }
    }

    /// Bounds the bytes of verified blocks that are kept in memory.
    /// Gives the bound before.
    pub fn set_cache(&self, bytes: usize) -> usize {
        self.fetcher.set_cache(bytes)
    }
}
