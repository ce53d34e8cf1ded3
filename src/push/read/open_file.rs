//! Open regular files of the sources.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{self, Advice, OFlags, Stat};
use rustix::io::{self, Errno};

use super::attributes::{FoundXattrs, xattrs_of};
use super::dir::Dir;
use super::guard::Guard;
use crate::holes;

/// An open file.
pub struct OpenFile {
    /// `None` only while it is dropped.
    fd: Option<Arc<OwnedFd>>,
    guard: Guard,
}

impl OpenFile {
    /// Opens an entry of a directory. It may turn out to be another kind of file.
    pub fn open(dir: &Arc<Dir>, name: &[u8]) -> Result<Self, Errno> {
        let fd = dir.open(name, OFlags::NOFOLLOW)?;
        Ok(OpenFile { fd: Some(Arc::new(fd)), guard: dir.guard.clone() })
    }

    pub fn stat(&self) -> Result<Stat, Errno> {
        self.call(|fd| fs::fstat(fd))
    }

    pub fn xattrs(&self) -> Result<FoundXattrs, Errno> {
        let guard = self.guard.clone();
        self.call(move |fd| xattrs_of(fd, &guard))
    }

    /// See [`holes::next_data`].
    pub fn next_data(&self, at: u64, size: u64) -> Result<Range<u64>, Errno> {
        self.call(move |fd| holes::next_data(fd, at, size))
    }

    /// Advises the kernel to read ahead.
    pub fn read_ahead(&self) {
        let _ = self.call(|fd| fs::fadvise(fd, 0, None, Advice::Sequential)); // only advice
    }

    /// Reads once from this offset on. Returns the number of bytes, 0 at the end of the file.
    pub fn read(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        if !self.guard.is_needed() {
            return self
                .fd
                .as_ref()
                .map_or(Err(Errno::BADF), |fd| io::retry_on_intr(|| io::pread(fd, &mut *buffer, at)));
        }
        let want = buffer.len();
        let bytes = self.call(move |fd| {
            let mut bytes = vec![0; want];
            let len = io::retry_on_intr(|| io::pread(fd, &mut bytes[..], at))?;
            bytes.truncate(len);
            Ok(bytes)
        })?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OwnedFd) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        let fd = self.fd.as_ref().ok_or(Errno::BADF)?;
        if !self.guard.is_needed() {
            return work(fd);
        }
        let fd = Arc::clone(fd);
        self.guard.call(move || work(&fd))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take()
            && self.guard.is_needed()
        {
            self.guard.close(fd);
        }
    }
}
