//! Flags of inodes (`chattr`). Those that a file system does not know, or that this user may not set, are left out and
//! counted.
//!
//! An inode that is immutable or append-only takes no attributes, names or links any more. So these two flags come last:
//! for a directory when everything below it is done, for a file when it has its name, for a file with several names at the
//! end of the restore.

use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::fs::IFlags;
use rustix::io::Errno;

use super::{Run, add, saved};
use crate::error::{Error, Kind};
use crate::format::node::Node;
use crate::inode_flags::{self, EARLY, LOCKING, PLAIN};

/// Files with several names that are locked at the end.
#[derive(Default)]
pub(super) struct Locks(Mutex<Vec<Lock>>);

/// A file that is locked at the end.
pub(super) struct Lock {
    /// Relative to the target.
    pub path: Vec<u8>,
    /// Device and inode.
    pub id: (u64, u64),
    pub flags: IFlags,
}

impl Locks {
    /// Takes all files out.
    pub fn take(&self) -> Vec<Lock> {
        std::mem::take(&mut *self.0.lock().expect("no holder panics"))
    }
}

/// Sets the flags that a new file must have before it has contents.
pub(super) fn begin(run: &Run<'_>, fd: &OwnedFd, node: &Node) {
    let early = saved::flags(run, node) & EARLY;
    let _ = change(fd, IFlags::empty(), early); // what fails is tried again, and counted, with the other flags
}

/// Sets the saved flags but those that lock the inode. `is_new`: it keeps the flags that it inherited from its directory.
pub(super) fn set(run: &Run<'_>, fd: &OwnedFd, flags: IFlags, is_new: bool) {
    let cleared = if is_new { IFlags::empty() } else { PLAIN };
    count(run, change(fd, cleared, flags - LOCKING));
}

/// Locks an inode to which nothing else is done.
pub(super) fn lock(run: &Run<'_>, fd: &OwnedFd, flags: IFlags) {
    count(run, change(fd, IFlags::empty(), flags & LOCKING));
}

/// Locks a file at the end of the restore. `path`: relative to the target; `id`: device and inode.
pub(super) fn lock_later(run: &Run<'_>, path: Vec<u8>, id: (u64, u64), flags: IFlags) {
    let flags = flags & LOCKING;
    if !flags.is_empty() {
        run.locks.0.lock().expect("no holder panics").push(Lock { path, id, flags });
    }
}

fn count(run: &Run<'_>, result: Result<(), Errno>) {
    if result.is_err() {
        count_failure(run);
    }
}

/// Counts an inode whose flags could not be set.
pub(super) fn count_failure(run: &Run<'_>) {
    add(&run.tally.flags, 1);
}

/// Clears flags, then sets others. One that fails does not keep the others.
fn change(fd: &OwnedFd, cleared: IFlags, wanted: IFlags) -> Result<(), Errno> {
    if cleared.is_empty() && wanted.is_empty() {
        return Ok(());
    }
    let mut now = match inode_flags::read(fd) {
        Err(_) if wanted.is_empty() => return Ok(()), // nothing that could be cleared
        result => result?,
    };
    let goal = (now - (cleared - wanted)) | wanted;
    if goal == now || inode_flags::write(fd, goal).is_ok() {
        return Ok(());
    }
    let mut result = Ok(());
    for flag in (goal ^ now).iter() {
        match inode_flags::write(fd, now ^ flag) {
            Ok(()) => now ^= flag,
            Err(errno) => result = Err(errno),
        }
    }
    result
}

/// Returns why an existing entry is neither replaced nor changed.
pub(super) fn locked() -> Error {
    Error::new(
        Kind::Exists,
        "it is immutable or append-only in the target; `chattr -i -a` on it lets the restore go on",
    )
}

/// Returns why nothing is made in an existing directory.
pub(super) fn locked_directory() -> Error {
    let text = "its folder is immutable or append-only in the target; `chattr -i -a` on it lets the restore go on";
    Error::new(Kind::Exists, text)
}
