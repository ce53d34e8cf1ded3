//! Files that the target already has: opens and reads them, and compares them with saved contents.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Run;
use super::dir::{self, Held};
use crate::error::{Error, Kind, Result};
use crate::format::node::Node;
use crate::format::reference::Ref;

/// Opens the entry under the name of a file. It may turn out to be another kind of file.
pub(super) fn open(held: &Held, name: &[u8]) -> Result<OwnedFd, Errno> {
    // NONBLOCK: should it have become a named pipe meanwhile.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(&held.fd, name, flags, Mode::empty())
}

/// Returns the open file if its contents are equal. Only reference lists are fetched; chunk ids are compared.
pub(super) fn compare(run: &Run<'_>, held: &Held, node: &Node) -> Result<Option<OwnedFd>> {
    let fd = match open(held, &node.name) {
        // Its owner may have no right to read it. Then it is replaced without comparing.
        Err(Errno::ACCESS) if run.options.overwrite.compares() => return Ok(None),
        result => result.map_err(failed)?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    // A further link may lie outside of the target, where nothing may change: the file is replaced instead. One with as many
    // links as saved is kept if nothing of it is to be changed.
    let is_other = run.options.overwrite.compares() && !dir::has_links(&stat, node);
    if !regular || is_other || stat.st_size as u64 != node.content.size() {
        return Ok(None);
    }
    has_contents(run, &fd, node).map(|equal| equal.then_some(fd))
}

/// Returns whether an open file of the right size has the contents of a saved one.
pub(super) fn has_contents(run: &Run<'_>, fd: &OwnedFd, node: &Node) -> Result<bool> {
    run.trees.equals_file(run.ctx(), &node.content, fd)
}

/// Returns the bytes at `offset` if they are the contents of a chunk.
pub(super) fn chunk(run: &Run<'_>, fd: &OwnedFd, r: &Ref, offset: u64) -> Result<Option<Vec<u8>>, Errno> {
    run.trees.chunk_of_file(fd, r, offset)
}

fn failed(e: Errno) -> Error {
    Error::io("compare what is there", e.into())
}

/// Returns the error of a part that was not written because another part has failed.
pub(super) fn ended() -> Error {
    Error::new(Kind::Cancelled, "ended early")
}
