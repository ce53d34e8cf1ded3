//! A repository in a folder of this machine: the same rules as on a server (exclusive create, mode 0400, synced).
//! An object is never reached through a symbolic link, and only a regular file is an object.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;

use super::{Attack, Capabilities, Entry, FULL_DISK, MAX_ENTRIES, Space, Storage, is_own_folder, taken, test_clock};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name};
use crate::progress::Event;

/// Bytes of one write. Between two writes a put checks its context.
const PART: usize = 1 << 20;

/// A folder on this machine.
pub struct Local {
    root: PathBuf,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Local {
    /// Returns the repository at `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Local { root: root.into(), sent: AtomicU64::new(0), received: AtomicU64::new(0) }
    }

    fn place(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// Returns the error for a failed call: `NoRepository` if the root is missing, `missing` if only the object is.
    fn failed(&self, doing: &str, path: &Path, missing: Kind, e: io::Error) -> Error {
        match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory if !self.root.is_dir() => {
                let root = self.root.display();
                let is_there = self.root.symlink_metadata().is_ok();
                let text =
                    if is_there { format!("{root} is not a folder") } else { format!("there is no folder {root}") };
                Error::new(Kind::NoRepository, text)
            }
            ErrorKind::NotFound => Error::new(missing, format!("cannot {doing} {}: it does not exist", path.display())),
            _ => Error::io(format!("{doing} {}", path.display()), e),
        }
    }

    /// Opens an object; O_NONBLOCK so that a pipe in its place does not hang.
    fn open(&self, name: &Name) -> Result<(File, u64)> {
        let path = self.place(&name.path());
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => return Err(no_object(name)),
            Err(e) => return Err(self.failed("open", &path, Kind::Missing, e)),
        };
        let meta = file.metadata().map_err(|e| Error::io(format!("look at {}", path.display()), e))?;
        if meta.is_file() { Ok((file, meta.len())) } else { Err(no_object(name)) }
    }

    /// Returns whether `e` means that one of the own folders is missing while the root is there. A link to a place that
    /// is not there, such as a disk that is not mounted, is no missing folder.
    fn is_absent(&self, folder: Folder, e: &io::Error) -> bool {
        let leads_nowhere = |folder: Folder| {
            let path = self.place(&folder.path());
            fs::symlink_metadata(&path).is_ok() && !path.exists()
        };
        let is_own = folder.chain().next().is_some();
        e.kind() == ErrorKind::NotFound && is_own && self.root.is_dir() && !folder.chain().any(leads_nowhere)
    }

    /// Opens the file of a new object. A missing folder of the repository is made again.
    fn create(&self, name: &Name) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o400).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let path = self.place(&name.path());
        match options.open(&path) {
            Err(e) if self.is_absent(name.folder(), &e) => {
                make_folders(name.folder().chain().map(|folder| self.place(&folder.path()))).map_err(|(_, e)| e)?;
                options.open(&path)
            }
            file => file,
        }
    }

    /// Writes a new file and makes it durable.
    fn write(&self, ctx: &Context, file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
        let failed = |e| {
            let error = Error::io(format!("write {}", path.display()), e);
            if error.kind() == Kind::NoSpace { error.hint(FULL_DISK) } else { error }
        };
        for part in bytes.chunks(PART) {
            ctx.check()?;
            file.write_all(part).map_err(failed)?;
            ctx.event(Event::Sent { bytes: part.len() as u64 });
        }
        let written = test_clock::date(file).and_then(|()| file.sync_all()).and_then(|()| file.metadata());
        let meta = written.map_err(failed)?;
        if meta.len() != bytes.len() as u64 {
            return Err(Error::failed(format!(
                "{} has {} bytes after {} were written",
                path.display(),
                meta.len(),
                bytes.len()
            )));
        }
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        sync_folder(path.parent().unwrap_or(&self.root))
    }

    fn scan(&self, folder: Folder) -> Result<(Vec<Entry>, usize)> {
        let path = self.place(&folder.path());
        let failed = |e| self.failed("list", &path, Kind::Missing, e);
        let (mut entries, mut foreign) = (Vec::new(), 0);
        let items = match fs::read_dir(&path) {
            Err(e) if self.is_absent(folder, &e) => return Ok((entries, foreign)),
            items => items.map_err(failed)?,
        };
        for (count, item) in items.enumerate() {
            let item = item.map_err(failed)?;
            if count >= MAX_ENTRIES {
                return Err(Error::failed(format!("{} holds more than {MAX_ENTRIES} names", path.display())));
            }
            let file = item.file_name();
            let name = file.to_str().and_then(|text| folder.parse(text));
            let meta = match item.metadata() {
                Ok(meta) => meta,
                Err(e) if e.kind() == ErrorKind::NotFound => continue, // removed meanwhile
                Err(e) => return Err(failed(e)),
            };
            match name {
                Some(name) if meta.is_file() => entries.push(Entry { name, size: meta.len(), mtime: meta.mtime() }),
                None if meta.is_dir() && file.to_str().is_some_and(|text| is_own_folder(folder, text)) => {}
                _ => foreign += 1,
            }
        }
        Ok((entries, foreign))
    }
}

fn no_object(name: &Name) -> Error {
    Error::damaged(format!("{name} is not a regular file"))
}

impl Storage for Local {
    fn create_folders(&self, _: &Context) -> Result<()> {
        let missing: Vec<&Path> = self.root.ancestors().skip(1).take_while(|parent| !exists(parent)).collect();
        let parents = missing.into_iter().rev().map(Path::to_path_buf);
        let own = [Folder::Root].into_iter().chain(Folder::all()).map(|folder| self.place(&folder.path()));
        make_folders(parents.chain(own))
            .map_err(|(path, e)| Error::io(format!("make the folder {}", path.display()), e))
    }

    fn list(&self, _: &Context, folder: Folder) -> Result<Vec<Entry>> {
        self.scan(folder).map(|(entries, _)| entries)
    }

    fn foreign(&self, _: &Context, folder: Folder) -> Result<usize> {
        self.scan(folder).map(|(_, foreign)| foreign)
    }

    fn size(&self, _: &Context, name: &Name) -> Result<u64> {
        let path = self.place(&name.path());
        let meta = fs::symlink_metadata(&path).map_err(|e| self.failed("look at", &path, Kind::Missing, e))?;
        if meta.is_file() { Ok(meta.len()) } else { Err(no_object(name)) }
    }

    fn read(&self, _: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        let (file, size) = self.open(name)?;
        let short = || Error::damaged(format!("object {name} ends too early"));
        if offset.checked_add(len as u64).is_none_or(|end| end > size) {
            return Err(short());
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => short(),
            _ => Error::io(format!("read {name}"), e),
        })?;
        self.received.fetch_add(len as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn put(&self, ctx: &Context, name: &Name, bytes: &[u8]) -> Result<()> {
        ctx.check()?;
        let path = self.place(&name.path());
        let mut file = match self.create(name) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(taken(name)),
            Err(e) => return Err(self.failed("create", &path, Kind::Failed, e)),
        };
        let written = self.write(ctx, &mut file, &path, bytes);
        // Its creation was exclusive, so the incomplete file is our own. No reader can have taken it for an object.
        if written.is_err() && file.metadata().is_ok_and(|meta| meta.len() < bytes.len() as u64) {
            let _ = fs::remove_file(&path);
        }
        written
    }

    fn remove(&self, _: &Context, name: &Name) -> Result<()> {
        let path = self.place(&name.path());
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound && self.root.is_dir() => Ok(()),
            Err(e) => Err(self.failed("remove", &path, Kind::Missing, e)),
            Ok(()) => Ok(()),
        }
    }

    fn space(&self, _: &Context) -> Result<Option<Space>> {
        let failed = |e: rustix::io::Errno| self.failed("look at the disk of", &self.root, Kind::Missing, e.into());
        let disk = rustix::fs::statvfs(&self.root).map_err(failed)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Some(Space { total: bytes(disk.f_blocks), free: bytes(disk.f_bavail) }))
    }

    fn attack(&self, _: &Context, name: &Name, attack: Attack) -> Result<()> {
        let path = self.place(&name.path());
        let _ = match attack {
            Attack::Overwrite => fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .and_then(|()| OpenOptions::new().write(true).truncate(true).open(&path))
                .and_then(|mut file| file.write_all(b"x")),
            Attack::Rename(to) => fs::rename(&path, self.place(&to.path())),
            Attack::Link(to) => fs::hard_link(&path, self.place(&to.path())),
        };
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable_put: true, exclusive_create: true }
    }

    fn local_path(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn traffic(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }

    fn address(&self) -> String {
        self.root.display().to_string()
    }
}

/// Returns whether something is at `path`; the empty path is the current folder.
fn exists(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.exists()
}

/// Makes folders durably, parents first. Those that exist are left as they are.
fn make_folders(paths: impl Iterator<Item = PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    let mut changed = BTreeSet::new();
    for path in paths {
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => changed.extend(path.parent().map(Path::to_path_buf)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(e) => return Err((path, e)),
        }
    }
    for parent in changed {
        let place = if parent.as_os_str().is_empty() { Path::new(".") } else { &parent };
        File::open(place).and_then(|folder| folder.sync_all()).map_err(|e| (parent.clone(), e))?;
    }
    Ok(())
}

/// Makes new names of a folder durable.
fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(format!("sync {}", path.display()), e))
}
