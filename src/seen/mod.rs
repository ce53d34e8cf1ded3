//! The newest heads of each repository that this machine has seen, a few hundred bytes in the user's state folder. With
//! them a server cannot present an older state or another repository unnoticed. They are optional: without them every
//! command works, but a rollback is not detected.
//!
//! In: repository ids, addresses, heads and key files that `repo` has verified. Out: the same, on the next run.
//! Each repository has one file, named by its id, which is written under a temporary name, synced and renamed. A lock
//! file serialises concurrent processes. The contents reveal only where the backups are; the files are private to the user.
//! Files beside it hold [`Sights`], when ids of the log appeared, and [`Runs`], when pushes, checks and prunes succeeded.

mod file;
mod runs;
mod sights;

pub use runs::{Run, Runs};
pub use sights::{Sight, SightId, Sights};

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::name::{ObjectId, hex};

/// Largest file that is read.
const LARGEST: u64 = 64 << 10;
/// Repositories that are looked through for an address.
const REPOSITORIES: usize = 1000;
/// Largest number of copies of one repository that are kept.
const COPIES: usize = 8;
/// Largest number of heads, of removed key files and of reported forks that are kept.
const KEPT: usize = 16;
/// Largest number of verified records of a copy that are kept.
const VERIFIED: usize = 32;

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

/// A copy of a repository: an address, and the frontier of the log that was seen there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenCopy {
    /// The address.
    pub address: String,
    /// The frontier, by ascending sequence.
    pub heads: Vec<SeenHead>,
    /// Live records that supersede others and contain all of them.
    pub verified: Vec<ObjectId>,
}

/// Facts remembered about one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its copies, the one that was added last at the end. Copies may differ: one is pushed to, another is synchronised.
    pub copies: Vec<SeenCopy>,
    /// The fingerprint of its master key.
    pub master: Option<[u8; 16]>,
    /// The key file that opened it.
    pub key: Option<SeenKey>,
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
        decoded(&path, LARGEST, |bytes| file::decode(bytes, repository))
    }

    /// Returns the repository that was last seen at this address.
    pub fn at_address(&self, address: &str) -> Option<([u8; 32], Seen)> {
        let names = fs::read_dir(&self.folder).ok()?.take(REPOSITORIES).filter_map(|entry| entry.ok());
        let ids = names.filter_map(|entry| Some(ObjectId::parse(entry.file_name().to_str()?)?.0));
        let known = ids.filter_map(|id| Some((id, self.of(&id).ok()??)));
        known.into_iter().find(|(_, seen)| seen.copies.iter().any(|copy| copy.address == address))
    }

    /// Changes the facts about a repository, on top of the updates of other processes. A damaged file is renamed.
    pub fn update(&self, repository: &[u8; 32], change: impl FnOnce(&mut Seen)) -> Result<()> {
        let path = self.path(repository);
        let failed = |e| Error::io(format!("remember the newest heads in {}", path.display()), e);
        let _lock = self.lock().map_err(failed)?;
        let before = or_set_aside(self.of(repository), &path, "damaged", failed)?;
        let mut seen = before.clone().unwrap_or_default();
        change(&mut seen);
        seen.shorten();
        if before.as_ref() == Some(&seen) {
            return Ok(());
        }
        replace(&path, &file::encode(&seen, repository)).map_err(failed)
    }

    /// Creates the folder and locks it until the result is dropped.
    fn lock(&self) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(self.folder.join("lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    /// Binds the address to this repository and to no other one.
    pub fn bind(&self, address: &str, repository: &[u8; 32]) -> Result<()> {
        while let Some((other, _)) = self.at_address(address).filter(|(id, _)| id != repository) {
            self.update(&other, |seen| seen.copies.retain(|copy| copy.address != address))?;
        }
        self.update(repository, |seen| {
            seen.copy(address);
        })
    }
}

impl Seen {
    /// Returns the heads that were seen at an address.
    pub fn heads_at(&self, address: &str) -> &[SeenHead] {
        self.copies.iter().find(|copy| copy.address == address).map_or(&[], |copy| &copy.heads)
    }

    /// Returns the copy at an address; adds it if it is new.
    pub fn copy(&mut self, address: &str) -> &mut SeenCopy {
        let place = self.copies.iter().position(|copy| copy.address == address).unwrap_or_else(|| {
            self.copies.push(SeenCopy { address: address.to_owned(), ..SeenCopy::default() });
            self.copies.len() - 1
        });
        &mut self.copies[place]
    }

    fn shorten(&mut self) {
        fn last<T>(rows: &mut Vec<T>, most: usize) {
            rows.drain(..rows.len().saturating_sub(most));
        }
        for copy in &mut self.copies {
            copy.heads.sort_unstable();
            copy.heads.dedup_by_key(|head| head.id);
            last(&mut copy.heads, KEPT);
            last(&mut copy.verified, VERIFIED);
        }
        last(&mut self.copies, COPIES);
        last(&mut self.removed, KEPT);
        last(&mut self.told, KEPT);
    }
}

/// Writes a file under a temporary name, syncs it and renames it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&new, path)
}

/// Reads and decodes a file; `None` without one. Fails with [`Kind::Damaged`] if `decode` does not know its bytes.
fn decoded<T>(path: &Path, largest: u64, decode: impl FnOnce(&[u8]) -> Option<T>) -> Result<Option<T>> {
    match read(path, largest) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(damaged(path)),
        Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
        Ok(bytes) => decode(&bytes).map(Some).ok_or_else(|| damaged(path)),
    }
}

/// Renames a file that was found damaged, so that it counts as absent.
fn or_set_aside<T: Default>(
    found: Result<T>,
    path: &Path,
    extension: &str,
    failed: impl FnOnce(io::Error) -> Error,
) -> Result<T> {
    match found {
        Err(e) if e.kind() == Kind::Damaged => {
            fs::rename(path, path.with_extension(extension)).map_err(failed)?;
            Ok(T::default())
        }
        other => other,
    }
}

fn read(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
}

/// Returns the file name of a copy of a repository, without its extension.
fn copy_name(repository: &[u8; 32], address: &str) -> String {
    format!("{}-{}", hex(repository), hex(&Sha256::digest(address)[..8]))
}

fn damaged(path: &Path) -> Error {
    Error::damaged(format!("the local memory {} is damaged", path.display()))
}
