//! Open directories of the sources. Their number is bounded.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};

use rustix::fs::{self, AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::guard::Guard;
use crate::context::Context;
use crate::descriptors::{patiently, share};
use crate::error::Result;

/// Most directories that are open at the same time, however many descriptors the process may have.
const MOST: usize = 4096;

/// An open directory of the sources.
pub struct Dir {
    pub fd: OwnedFd,
    /// The absolute path, for messages; empty for the root.
    pub path: Vec<u8>,
    /// The way to make calls on its file system.
    pub guard: Guard,
    _place: Place,
}

impl Dir {
    /// Makes a directory of its descriptor.
    pub fn new(fd: OwnedFd, path: Vec<u8>, guard: Guard, place: Place) -> Self {
        Dir { fd, path, guard, _place: place }
    }

    /// Returns the path of an entry.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        [&self.path, b"/".as_slice(), name].concat()
    }

    /// Opens an entry, without waiting if it was replaced by a fifo, and without changing its access time where that is
    /// permitted.
    pub fn open(self: &Arc<Self>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        self.on_entry(name, move |dir, name| {
            let open = |flags| patiently(|| fs::openat(&dir.fd, name, flags, Mode::empty()));
            match open(flags | OFlags::NOATIME) {
                Err(Errno::PERM) => open(flags),
                other => other,
            }
        })
    }

    /// Returns the status of an entry.
    pub fn stat(self: &Arc<Self>, name: &[u8], flags: AtFlags) -> Result<Stat, Errno> {
        self.on_entry(name, move |dir, name| fs::statat(&dir.fd, name, flags))
    }

    /// Returns the status of an entry, which may be on another file system than this directory.
    pub fn stat_mounted(self: &Arc<Self>, name: &[u8], guard: &Guard, follow: bool) -> Result<Stat, Errno> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        self.on_mounted(name, guard, move |dir, name| dir.stat(name, flags))
    }

    /// Makes a call on an entry by the guard of its own file system.
    pub fn on_mounted<T: Send + 'static>(
        self: &Arc<Self>,
        name: &[u8],
        guard: &Guard,
        work: impl FnOnce(&Arc<Dir>, &[u8]) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        if self.guard.is_needed() || !guard.is_needed() {
            return work(self, name);
        }
        let (dir, name) = (Arc::clone(self), name.to_vec());
        guard.call(move || work(&dir, &name))
    }

    /// Makes a call on an entry, by way of the guard.
    pub fn on_entry<T: Send + 'static>(
        self: &Arc<Self>,
        name: &[u8],
        work: impl FnOnce(&Dir, &[u8]) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        if !self.guard.is_needed() {
            return work(self, name);
        }
        let (dir, name) = (Arc::clone(self), name.to_vec());
        self.guard.call(move || work(&dir, &name))
    }

    /// Makes a call on the directory, by way of the guard.
    pub fn call<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Dir) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        self.on_entry(b"", move |dir, _| work(dir))
    }
}

/// A bound on the open directories. Clones share it.
#[derive(Clone)]
pub struct OpenDirs(Arc<Bound>);

struct Bound {
    most: usize,
    open: Mutex<usize>,
    fewer: Condvar,
}

impl OpenDirs {
    /// Returns a quarter of the descriptors that this process may open.
    pub fn new() -> Self {
        let bound = Bound { most: share(4, 8, MOST), open: Mutex::new(0), fewer: Condvar::new() };
        OpenDirs(Arc::new(bound))
    }

    /// Returns how many may be open.
    pub fn most(&self) -> usize {
        self.0.most
    }

    /// Returns a place for one more directory if there is one.
    pub fn try_place(&self) -> Option<Place> {
        let mut open = self.0.open.lock().expect("no holder panics");
        (*open < self.0.most).then(|| {
            *open += 1;
            Place(Arc::clone(&self.0))
        })
    }

    /// Waits for a place.
    pub fn place(&self, ctx: &Context) -> Result<Place> {
        let mut open = self.0.open.lock().expect("no holder panics");
        while *open >= self.0.most {
            open = ctx.wait(&self.0.fewer, open)?;
        }
        *open += 1;
        Ok(Place(Arc::clone(&self.0)))
    }
}

/// The right to hold one directory open, until it is dropped.
pub struct Place(Arc<Bound>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.open.lock().expect("no holder panics") -= 1;
        self.0.fewer.notify_one();
    }
}
