//! The directories from the root to the current one of the walk. The lowest ones stay open; the others are opened again
//! from below.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::listing::Listing;
use super::sources::Plan;
use crate::descriptors::patiently;
use crate::error::{Result, exhausts};
use crate::push::compare::old::OldDirectory;
use crate::push::read::attributes::{self, error};
use crate::push::read::dir::{Dir, OpenDirs, Place};
use crate::push::read::guard::Guard;

/// Most directories above the current one that stay open.
const OPEN: usize = 128;

/// A directory from the root to the current one.
pub struct Level<'w> {
    /// `None` while it is closed.
    pub dir: Option<Arc<Dir>>,
    pub path: Vec<u8>,
    pub id: (u64, u64),
    /// The names that are left.
    pub listing: Listing,
    /// If the directory only leads to sources: their names.
    pub plan: Option<&'w Plan>,
    /// The same directory in the parents.
    pub old: Vec<OldDirectory<'w>>,
}

/// A stack of directories, the current one on top.
pub struct Levels<'w> {
    all: Vec<Level<'w>>,
    /// Directories at the top that stay open.
    keep: usize,
}

impl<'w> Levels<'w> {
    /// Makes a stack with the root. It may use a quarter of the open directories that `bound` allows.
    pub fn new(root: Level<'w>, bound: &OpenDirs) -> Self {
        Levels { all: vec![root], keep: (bound.most() / 4).clamp(1, OPEN) }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn last(&self) -> Option<&Level<'w>> {
        self.all.last()
    }

    pub fn last_mut(&mut self) -> Option<&mut Level<'w>> {
        self.all.last_mut()
    }

    /// Enters a directory, and closes the one that is too far above it.
    pub fn push(&mut self, level: Level<'w>) {
        self.all.push(level);
        if let Some(up) = self.all.len().checked_sub(self.keep + 1) {
            self.all[up].dir = None;
        }
    }

    pub fn pop(&mut self) -> Option<Level<'w>> {
        self.all.pop()
    }
}

impl Level<'_> {
    /// Opens the directory again: as `..` of `below`, or by its path. Returns whether it is still the same.
    pub fn reopen(&mut self, below: Option<&Arc<Dir>>, guard: Guard, place: Place) -> Result<bool> {
        let fd = self.found_again(below, &guard)?;
        self.dir = fd.map(|fd| Arc::new(Dir::new(fd, self.path.clone(), guard, place)));
        Ok(self.dir.is_some())
    }

    fn found_again(&self, below: Option<&Arc<Dir>>, guard: &Guard) -> Result<Option<OwnedFd>> {
        let above = below.map(|below| below.open(b"..", OFlags::DIRECTORY));
        if let Some(fd) = above.map(|fd| self.own(fd, guard)).transpose()?.flatten() {
            return Ok(Some(fd));
        }
        let path = if self.path.is_empty() { b"/".to_vec() } else { self.path.clone() };
        let by_path = move || fs::open(path.as_slice(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        self.own(guard.call(|| patiently(by_path)), guard)
    }

    /// Returns the descriptor if it belongs to this directory.
    fn own(&self, fd: Result<OwnedFd, Errno>, guard: &Guard) -> Result<Option<OwnedFd>> {
        match fd.and_then(|fd| guard.call(move || Ok((fs::fstat(&fd)?, fd)))) {
            Ok((stat, fd)) if attributes::id(&stat) == self.id => Ok(Some(fd)),
            Err(errno) if exhausts(errno) => Err(error("return to a folder", errno)),
            _ => Ok(None),
        }
    }
}
