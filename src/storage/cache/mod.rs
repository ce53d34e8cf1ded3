//! The disk cache: sealed bytes of objects in a folder of this machine.
//!
//! In: sealed bytes of packs and records that the caller has verified. Out: bytes of the same place, which the caller must
//! verify again. A file has the name of its object and holds bytes at the offsets that they have on the server; the rest of
//! it is a hole. An object is written once, so two processes that share the folder only ever write the same bytes, without a
//! lock. Nothing is synced: whatever a crash leaves in a file fails its verification.
//!
//! A file that cannot be read counts as absent. The first failure to write ends the writing of this process, with a
//! warning. The folder may be deleted at any time.

mod folder;
mod sweep;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags, Timespec, Timestamps, futimens, openat};

use crate::error::{Error, Result};
use crate::name::{ObjectId, hex};
use crate::storage::net::Notice;

/// The smallest capacity. A part of it, see [`SHARE`], must hold several blocks.
pub const LEAST_DISK_CACHE: u64 = 64 << 20;

/// The folder is swept before each write of this share of its capacity.
const SHARE: u64 = 16;
/// The file with the number of packs.
const PACKS: &str = "packs";
/// Most bytes that are written between two looks at the capacity.
const PIECE: usize = 1 << 20;
/// A file that was used this long ago, in seconds, is marked as used again.
const USED: i64 = 60;

/// Flags for opening files: never through a link, and without waiting for the other end of a pipe.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const WRITE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// The mode of new files.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The sort of an object. File contents cannot evict all other objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Packs of file contents.
    Contents,
    /// Packs of directories and lists; records.
    Others,
}

impl Sort {
    const ALL: [Sort; 2] = [Sort::Contents, Sort::Others];

    /// Returns the name of the folder.
    fn folder(self) -> &'static str {
        match self {
            Sort::Contents => "contents",
            Sort::Others => "metadata",
        }
    }
}

/// Sealed bytes at a place of an object.
#[derive(Clone, Copy, Debug)]
pub struct Part<'b> {
    /// Their offset in the object.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'b [u8],
}

/// A folder with caches of any number of repositories, which share its capacity.
#[derive(Clone)]
pub struct CacheFolder {
    path: PathBuf,
    capacity: u64,
    notice: Notice,
}

impl CacheFolder {
    /// Uses the folder at `path`, and makes it if it does not exist. `notice` receives a warning if it cannot be written to.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`](crate::error::Kind::Usage) if another user may write to it, or it is no folder. Other kinds if it cannot be made.
    pub fn open(path: &Path, capacity: u64, notice: Notice) -> Result<Self> {
        folder::made(path)?;
        Ok(CacheFolder { path: path.to_owned(), capacity: capacity.max(LEAST_DISK_CACHE), notice })
    }

    /// Returns the cache of a repository.
    pub fn of(&self, repository: &[u8; 32]) -> DiskCache {
        DiskCache {
            folder: self.clone(),
            repository: hex(repository),
            open: Mutex::default(),
            added: Mutex::default(),
            is_off: AtomicBool::new(false),
        }
    }
}

/// The cache of one repository.
pub struct DiskCache {
    folder: CacheFolder,
    repository: String,
    open: Mutex<Option<Arc<Folders>>>,
    /// Bytes added since the last sweep; `None` before the first one.
    added: Mutex<Option<u64>>,
    /// A write has failed.
    is_off: AtomicBool,
}

/// The folders of the two sorts, held open.
struct Folders {
    repository: OwnedFd,
    contents: OwnedFd,
    others: OwnedFd,
}

impl Folders {
    fn of(&self, sort: Sort) -> &OwnedFd {
        match sort {
            Sort::Contents => &self.contents,
            Sort::Others => &self.others,
        }
    }
}

/// A file of the cache, open for reading. It can still be read after it was evicted.
pub struct CachedObject(File);

impl CachedObject {
    /// Returns the bytes at a place. They are fewer than `len` if the file ends before, and zero in a hole.
    pub fn at(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.0.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        bytes.truncate(filled);
        bytes
    }
}

impl DiskCache {
    /// Returns the file of an object, and marks it as used.
    pub fn find(&self, sort: Sort, id: &ObjectId) -> Option<CachedObject> {
        let folders = self.folders(false).ok()?;
        let file = File::from(openat(folders.of(sort), id.to_string(), READ, Mode::empty()).ok()?);
        let meta = file.metadata().ok().filter(|meta| meta.is_file())?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        if (now - meta.mtime()).abs() > USED {
            let now = Timespec { tv_sec: now, tv_nsec: 0 };
            // A folder that cannot be written to can still be read.
            let _ = futimens(&file, &Timestamps { last_access: now, last_modification: now });
        }
        Some(CachedObject(file))
    }

    /// Adds parts of an object. A failure is a warning, once in the life of this process.
    pub fn add(&self, sort: Sort, id: &ObjectId, parts: &[Part<'_>]) {
        if self.is_off.load(Ordering::Relaxed) {
            return;
        }
        let Err(e) = self.write(sort, id, parts) else { return };
        if !self.is_off.swap(true, Ordering::Relaxed) {
            let doing = format!("add to the cache in {}", self.folder.path.display());
            (self.folder.notice)(&format!("{}: this run continues without adding to it", Error::io(doing, e)));
        }
    }

    /// Returns the number of packs that was noted last. A hint, without any check.
    pub fn noted_packs(&self) -> Option<u64> {
        let folders = self.folders(false).ok()?;
        let file = CachedObject(openat(&folders.repository, PACKS, READ, Mode::empty()).ok()?.into());
        String::from_utf8(file.at(0, 20)).ok()?.trim().parse().ok()
    }

    /// Notes the number of packs of the repository.
    pub fn note_packs(&self, count: u64) {
        let noted = self.folders(true).and_then(|folders| {
            let file = File::from(openat(&folders.repository, PACKS, WRITE | OFlags::TRUNC, MODE)?);
            file.write_all_at(count.to_string().as_bytes(), 0)
        });
        // The next push is a little slower then.
        drop(noted);
    }

    fn write(&self, sort: Sort, id: &ObjectId, parts: &[Part<'_>]) -> io::Result<()> {
        for part in parts {
            for (i, piece) in part.bytes.chunks(PIECE).enumerate() {
                self.make_room(piece.len() as u64)?;
                self.file(sort, id)?.write_all_at(piece, part.offset + (i * PIECE) as u64)?;
            }
        }
        Ok(())
    }

    /// Opens the file of an object to write. Makes the folders again if they were deleted.
    fn file(&self, sort: Sort, id: &ObjectId) -> io::Result<File> {
        let file = match openat(self.folders(true)?.of(sort), id.to_string(), WRITE, MODE) {
            Err(rustix::io::Errno::NOENT) => {
                *self.open.lock().expect("no holder panics") = None;
                openat(self.folders(true)?.of(sort), id.to_string(), WRITE, MODE)?
            }
            file => file?,
        };
        Ok(File::from(file))
    }

    /// Removes files if the next `bytes` could exceed the capacity.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut added = self.added.lock().expect("no holder panics");
        let capacity = self.folder.capacity;
        let sum = added.unwrap_or(0) + bytes;
        if added.is_none() || sum > capacity / SHARE {
            // Two shares: this one, and the rounding of file systems.
            let root = folder::made(&self.folder.path).map_err(|e| io::Error::other(e.to_string()))?;
            sweep::sweep(&root, capacity - 2 * (capacity / SHARE))?;
            *added = Some(bytes);
        } else {
            *added = Some(sum);
        }
        Ok(())
    }

    /// Returns the folders of this repository. They are made if `makes`.
    fn folders(&self, makes: bool) -> io::Result<Arc<Folders>> {
        let mut open = self.open.lock().expect("no holder panics");
        if let Some(folders) = &*open {
            return Ok(Arc::clone(folders));
        }
        let path = &self.folder.path;
        let root = if makes { folder::made(path) } else { folder::opened(path) };
        let root = root.map_err(|e| io::Error::other(e.to_string()))?;
        let repository = folder::below(&root, &self.repository, makes)?;
        let sort = |sort: Sort| folder::below(&repository, sort.folder(), makes);
        let (contents, others) = (sort(Sort::Contents)?, sort(Sort::Others)?);
        let folders = Arc::new(Folders { repository, contents, others });
        *open = Some(Arc::clone(&folders));
        Ok(folders)
    }
}

#[cfg(test)]
mod tests;
