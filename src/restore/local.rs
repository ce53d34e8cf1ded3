//! Files that the target already has: opens and reads them, and compares them with saved contents.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::file::{File, ended};
use super::{Overwrite, Run};
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::reference::{Extent, Ref};

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
    let mut offset = 0;
    for extent in run.trees.extents(run.ctx(), &file.node.content) {
        if run.halted() {
            return Err(ended());
        }
        let extent = extent?;
        let equal = match &extent {
            Extent::Data(r) => chunk(run, fd, r, offset).map(|bytes| bytes.is_some()),
            Extent::Hole(len) => is_zero(fd, offset, offset.saturating_add(*len)),
        };
        if !equal.map_err(failed)? {
            return Ok(false);
        }
        offset += extent.len();
    }
    file.check_size(offset).map(|()| true)
}

/// Returns the bytes at `offset` if they are the contents of a chunk.
pub(super) fn chunk(run: &Run<'_>, fd: &OwnedFd, r: &Ref, offset: u64) -> Result<Option<Vec<u8>>, Errno> {
    let bytes = read_exact(fd, r.len as usize, offset)?;
    Ok(bytes.filter(|bytes| run.trees.repo().keys().chunk_id(ChunkKind::Data, bytes) == r.id))
}

fn failed(e: Errno) -> Error {
    Error::io("compare what is there", e.into())
}

fn read_exact(fd: &OwnedFd, len: usize, offset: u64) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match rustix::io::pread(fd, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Ok(None),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(bytes))
}

/// Returns whether this range holds zeros only; holes of the file system are not read.
fn is_zero(fd: &OwnedFd, mut from: u64, to: u64) -> Result<bool, Errno> {
    while from < to {
        from = match rustix::fs::seek(fd, SeekFrom::Data(from)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(true),
            Err(e) => return Err(e),
        };
        let len = to.saturating_sub(from).min(1 << 20);
        match read_exact(fd, len as usize, from)? {
            Some(bytes) if bytes.iter().all(|b| *b == 0) => from += len,
            _ => return Ok(false),
        }
    }
    Ok(true)
}
