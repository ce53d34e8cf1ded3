//! Open directories of the sources. Their number is bounded.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

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
    _place: Place,
}

impl Dir {
    /// Makes a directory of its descriptor.
    pub fn new(fd: OwnedFd, path: Vec<u8>, place: Place) -> Self {
        Dir { fd, path, _place: place }
    }

    /// Returns the path of an entry.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        [&self.path, b"/".as_slice(), name].concat()
    }

    /// Opens an entry, without waiting if it was replaced by a fifo, and without changing its access time where that is
    /// permitted.
    pub fn open(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let open = |flags| patiently(|| fs::openat(&self.fd, name, flags, Mode::empty()));
        match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            other => other,
        }
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
    /// A quarter of the descriptors that this process may open.
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
