//! What this machine remembers of each repository, so that a server cannot show an older state, or another repository,
//! without being found out: a few hundred bytes in the user's state folder. Nothing depends on it: without it everything
//! works, but a rollback cannot be told from the truth.
//!
//! One file a repository, named by its id, written whole under another name, synced and renamed; several processes take turns by
//! a lock. What is in it is no secret but for where the backups are, so it is private to the user.

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
/// Heads, removed key files and told forks that are kept.
const KEPT: usize = 16;

/// A record of the log that was seen.
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

/// What is remembered of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where it was found, newest last.
    pub addresses: Vec<String>,
    /// What opened it.
    pub key: Option<SeenKey>,
    /// The frontier of its log, by ascending sequence.
    pub heads: Vec<SeenHead>,
    /// Key files that were removed from here.
    pub removed: Vec<ObjectId>,
    /// Records by which a fork was told, so that it is told once.
    pub told: Vec<ObjectId>,
}

/// The folder of memories.
#[derive(Clone, Debug)]
pub struct Memory {
    folder: PathBuf,
}

impl Memory {
    /// In this folder, which is made when something is to be remembered.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Memory { folder: folder.into() }
    }

    /// Where the memory of a repository is, for messages.
    pub fn path(&self, repository: &[u8; 32]) -> PathBuf {
        self.folder.join(hex(repository))
    }

    /// What is known of a repository. [`Kind::Damaged`] if the file is not one of ours.
    pub fn of(&self, repository: &[u8; 32]) -> Result<Option<Seen>> {
        let path = self.path(repository);
        match read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(damaged(&path)),
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
            Ok(bytes) => file::decode(&bytes, repository).map(Some).ok_or_else(|| damaged(&path)),
        }
    }

    /// The repository that was last seen at this address.
    pub fn at_address(&self, address: &str) -> Option<([u8; 32], Seen)> {
        let names = fs::read_dir(&self.folder).ok()?.take(REPOSITORIES).filter_map(|entry| entry.ok());
        let ids = names.filter_map(|entry| Some(ObjectId::parse(entry.file_name().to_str()?)?.0));
        let known = ids.filter_map(|id| Some((id, self.of(&id).ok()??)));
        known.into_iter().find(|(_, seen)| seen.addresses.iter().any(|a| a == address))
    }

    /// Changes what is known of a repository; what other processes remembered meanwhile is there. A file that is damaged is
    /// put aside.
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

    /// Says that this repository is what is at `address`, and no other one.
    pub fn bind(&self, address: &str, repository: &[u8; 32]) -> Result<()> {
        while let Some((other, _)) = self.at_address(address).filter(|(id, _)| id != repository) {
            self.update(&other, |seen| seen.addresses.retain(|a| a != address))?;
        }
        self.update(repository, |seen| seen.found_at(address))
    }
}

impl Seen {
    /// Notes the address.
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
    match bytes.len() as u64 > LARGEST {
        true => Err(io::ErrorKind::InvalidData.into()),
        false => Ok(bytes),
    }
}

fn damaged(path: &Path) -> Error {
    Error::damaged(format!("the local memory {} is damaged", path.display()))
}
