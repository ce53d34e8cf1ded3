//! Locks the files that have several names at the end of the restore, see [`super::flags`].

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::flags::{self, Lock};
use super::{Run, dir, links};

/// Locks all files that wait for it.
pub(super) fn finish(run: &Run<'_>) {
    for file in run.locks.take() {
        match open(run, &file) {
            Ok(fd) => flags::lock(run, &fd, file.flags),
            Err(_) => flags::count_failure(run),
        }
    }
}

fn open(run: &Run<'_>, file: &Lock) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let (directory, name) = links::parent(run, &file.path)?;
    let directory = directory.as_ref().unwrap_or(run.links.target());
    let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    if dir::identity(&rustix::fs::fstat(&fd)?) == file.id { Ok(fd) } else { Err(Errno::STALE) }
}
