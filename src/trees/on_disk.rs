//! Compares a file on the disk with a saved one. The file is read and cut where the saved one was cut; nothing is fetched
//! but reference lists.

use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::Trees;
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::node::Content;
use crate::format::reference::{Extent, Ref};

impl Trees<'_> {
    /// Returns whether an open file has these contents. Its size must be the saved one.
    ///
    /// # Errors
    ///
    /// Damage of a reference list, and errors of the file.
    pub fn equals_file(&self, ctx: &Context, content: &Content, fd: impl AsFd) -> Result<bool> {
        let failed = |e: Errno| Error::io("compare what is there", e.into());
        let mut offset = 0;
        for extent in self.extents(ctx, content) {
            ctx.check()?;
            let extent = extent?;
            let is_equal = match &extent {
                Extent::Data(r) => self.chunk_of_file(&fd, r, offset).map(|bytes| bytes.is_some()),
                Extent::Hole(len) => is_zero(&fd, offset, offset.saturating_add(*len)),
            };
            if !is_equal.map_err(failed)? {
                return Ok(false);
            }
            offset += extent.len();
        }
        check_size(content, offset).map(|()| true)
    }

    /// Returns the bytes at `offset` of an open file if they are the contents of a chunk.
    pub fn chunk_of_file(&self, fd: impl AsFd, r: &Ref, offset: u64) -> Result<Option<Vec<u8>>, Errno> {
        let bytes = read_exact(fd, r.len as usize, offset)?;
        Ok(bytes.filter(|bytes| self.repo().keys().chunk_id(ChunkKind::Data, bytes) == r.id))
    }
}

/// Fails unless the parts of a file cover the size in its node.
pub fn check_size(content: &Content, covered: u64) -> Result<()> {
    let size = content.size();
    let text = || Error::damaged(format!("its parts are {covered} bytes, and it should have {size}"));
    (covered == size).then_some(()).ok_or_else(text)
}

fn read_exact(fd: impl AsFd, len: usize, offset: u64) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match rustix::io::pread(&fd, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Ok(None),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(bytes))
}

/// Returns whether this range holds zeros only; holes of the file system are not read.
fn is_zero(fd: impl AsFd, mut from: u64, to: u64) -> Result<bool, Errno> {
    while from < to {
        from = match rustix::fs::seek(&fd, SeekFrom::Data(from)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(true),
            Err(e) => return Err(e),
        };
        let len = to.saturating_sub(from).min(1 << 20);
        match read_exact(&fd, len as usize, from)? {
            Some(bytes) if bytes.iter().all(|b| *b == 0) => from += len,
            _ => return Ok(false),
        }
    }
    Ok(true)
}
