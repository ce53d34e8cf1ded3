//! The newest heads of each repository that this machine has seen, a few hundred bytes in the user's state folder. With
//! them a server cannot present an older state or another repository unnoticed. They are optional: without them every
//! command works, but a rollback is not detected.
//!
//! In: repository ids, addresses, heads and key files that `repo` has verified. Out: the same, on the next run.
//! Each repository has one file, named by its id, which is written under a temporary name, synced and renamed. A lock
//! file serialises concurrent processes. The contents reveal only where the backups are; the files are private to the user.

mod file;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::name::{ObjectId, hex};

/// Largest file that is read.
const LARGEST: u64 = 64 << 10;
/// Repositories that are looked through for an address.
const REPOSITORIES: usize = 1000;
/// Addresses of one repository.
const ADDRESSES: usize = 4;
/// Largest number of heads, of removed key files and of reported forks that are kept.
const KEPT: usize = 16;

/// A record of the log that this machine has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenHead {
    /// Its sequence.
    pub sequence: u32,
    /// Its id.
    pub id: ObjectId,
    /// When it was written, in seconds since the epoch, by its writer's clock.
    pub time: i64,
}

/// The key file that opened the repository last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey {
    /// Its name.
    pub id: ObjectId,
    /// Memory in KiB times passes.
    pub work: u64,
    /// Whether it needs a local key too.
    pub local: bool,
    /// When it was made, in seconds since the epoch.
    pub created: u64,
}

/// Facts remembered about one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its addresses, the newest last.
    pub addresses: Vec<String>,
    /// The key file that opened it.
    pub key: Option<SeenKey>,
    /// The frontier of its log, by ascending sequence.
    pub heads: Vec<SeenHead>,
    /// Key files that were removed from here.
    pub removed: Vec<ObjectId>,
    /// Records whose fork was reported, so that it is reported once.
    pub told: Vec<ObjectId>,
}

/// The folder with one file of seen heads per repository.
#[derive(Clone, Debug)]
pub struct SeenStore {
    folder: PathBuf,
}

impl SeenStore {
    /// Uses this folder, which the first update creates.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        SeenStore { folder: folder.into() }
    }

    /// Returns the file of a repository, for messages.
    pub fn path(&self, repository: &[u8; 32]) -> PathBuf {
        self.folder.join(hex(repository))
    }

    /// Returns the facts about a repository. Fails with [`Kind::Damaged`] if the file was not written by this program.
    pub fn of(&self, repository: &[u8; 32]) -> Result<Option<Seen>> {
        let path = self.path(repository);
        match read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(damaged(&path)),
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
            Ok(bytes) => file::decode(&bytes, repository).map(Some).ok_or_else(|| damaged(&path)),
        }
    }

    /// Returns the repository that was last seen at this address.
    pub fn at_address(&self, address: &str) -> Option<([u8; 32], Seen)> {
        let names = fs::read_dir(&self.folder).ok()?.take(REPOSITORIES).filter_map(|entry| entry.ok());
        let ids = names.filter_map(|entry| Some(ObjectId::parse(entry.file_name().to_str()?)?.0));
        let known = ids.filter_map(|id| Some((id, self.of(&id).ok()??)));
        known.into_iter().find(|(_, seen)| seen.addresses.iter().any(|a| a == address))
    }

    /// Changes the facts about a repository, on top of the updates of other processes. A damaged file is renamed.
    pub fn update(&self, repository: &[u8; 32], change: impl FnOnce(&mut Seen)) -> Result<()> {
        let path = self.path(repository);
        let failed = |e| Error::io(format!("remember the newest heads in {}", path.display()), e);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(self.folder.join("lock"));
        let lock = lock.map_err(failed)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        let before = match self.of(repository) {
            Err(e) if e.kind() == Kind::Damaged => {
                fs::rename(&path, path.with_extension("damaged")).map_err(failed)?;
                None
            }
            other => other?,
        };
        let mut seen = before.clone().unwrap_or_default();
        change(&mut seen);
        seen.shorten();
        if before.as_ref() == Some(&seen) {
            return Ok(());
        }
        let new = path.with_extension("new");
        let write = || {
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&file::encode(&seen, repository))?;
            file.sync_data()?;
            fs::rename(&new, &path)
        };
        write().map_err(failed)
    }

    /// Binds the address to this repository and to no other one.
    pub fn bind(&self, address: &str, repository: &[u8; 32]) -> Result<()> {
        while let Some((other, _)) = self.at_address(address).filter(|(id, _)| id != repository) {
            self.update(&other, |seen| seen.addresses.retain(|a| a != address))?;
        }
        self.update(repository, |seen| seen.found_at(address))
    }
}

impl Seen {
    /// Adds the address.
    pub fn found_at(&mut self, address: &str) {
        if !self.addresses.iter().any(|a| a == address) {
            self.addresses.push(address.to_owned());
        }
    }

    fn shorten(&mut self) {
        fn last<T>(rows: &mut Vec<T>, most: usize) {
            rows.drain(..rows.len().saturating_sub(most));
        }
        self.heads.sort_unstable();
        self.heads.dedup_by_key(|head| head.id);
        last(&mut self.heads, KEPT);
        last(&mut self.addresses, ADDRESSES);
        last(&mut self.removed, KEPT);
        last(&mut self.told, KEPT);
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
}

fn damaged(path: &Path) -> Error {
    Error::damaged(format!("the local memory {} is damaged", path.display()))
}
