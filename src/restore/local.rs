//! Files that the target already has: opens and reads them, and compares them with saved contents.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file::File;
use super::{Overwrite, Run};
use crate::error::{Error, Result};
use crate::format::reference::Ref;

/// Opens the entry under the name of a file. It may turn out to be another kind of file.
pub(super) fn open(file: &File) -> Result<OwnedFd, Errno> {
    // NONBLOCK: should it have become a named pipe meanwhile.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(&file.held.fd, &file.node.name, flags, Mode::empty())
}

/// Returns the open file if its contents are equal. Only reference lists are fetched; chunk ids are compared.
pub(super) fn compare(run: &Run<'_>, file: &File) -> Result<Option<OwnedFd>> {
    let fd = match open(file) {
        // Its owner may have no right to read it. Then it is replaced without comparing.
        Err(Errno::ACCESS) if run.options.overwrite == Overwrite::IfChanged => return Ok(None),
        result => result.map_err(failed)?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    // A further link may lie outside of the target, where nothing may change: the file is replaced instead.
    let shared = stat.st_nlink > 1 && run.options.overwrite == Overwrite::IfChanged;
    if !regular || shared || stat.st_size as u64 != file.node.content.size() {
        return Ok(None);
    }
    has_contents(run, &fd, file).map(|equal| equal.then_some(fd))
}

/// Returns whether an open file of the right size has the contents of a saved one.
pub(super) fn has_contents(run: &Run<'_>, fd: &OwnedFd, file: &File) -> Result<bool> {
    run.trees.equals_file(run.ctx(), &file.node.content, fd)
}

/// Returns the bytes at `offset` if they are the contents of a chunk.
pub(super) fn chunk(run: &Run<'_>, fd: &OwnedFd, r: &Ref, offset: u64) -> Result<Option<Vec<u8>>, Errno> {
    run.trees.chunk_of_file(fd, r, offset)
}

fn failed(e: Errno) -> Error {
    Error::io("compare what is there", e.into())
}
