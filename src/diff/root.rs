//! A directory on the disk that is held open. Paths below it may be longer than the kernel takes in one call.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::xattr;

/// Longest path of one call in bytes, without the zero byte at its end (PATH_MAX).
const LONGEST: usize = 4095;
/// Opens a directory on the way to a path.
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The directory. Its methods take paths relative to it, with or without a slash in front.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Opens a directory by its absolute path.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let top = Root(rustix::fs::open("/", STEP, Mode::empty())?);
        let dir =
            top.call(dir.as_os_str().as_bytes(), |from, name| rustix::fs::openat(from, name, STEP, Mode::empty()))?;
        Ok(Root(dir))
    }

    /// Makes a call on the rest of a path and the directory that it is relative to.
    fn call<T>(&self, path: &[u8], call: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>) -> io::Result<T> {
        let begin = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
        let mut rest = &path[begin..];
        let mut step: Option<OwnedFd> = None;
        while rest.len() > LONGEST {
            let end = rest[..LONGEST].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let from = step.as_ref().unwrap_or(&self.0);
            step = Some(rustix::fs::openat(from, &rest[..end], STEP, Mode::empty())?);
            rest = &rest[end + 1..];
        }
        let name = if rest.is_empty() { b".".as_slice() } else { rest };
        Ok(call(step.as_ref().unwrap_or(&self.0).as_fd(), name)?)
    }

    fn open_with(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.call(path, |from, name| rustix::fs::openat(from, name, flags, Mode::empty()))
    }

    /// Returns the names in a directory, in no order.
    pub fn names(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(self.open_with(path, OFlags::RDONLY | OFlags::DIRECTORY)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Returns the status of an entry; a symbolic link is not followed.
    pub fn stat(&self, path: &[u8]) -> io::Result<Metadata> {
        File::from(self.open_with(path, OFlags::PATH)?).metadata()
    }

    /// Returns the text of a symbolic link.
    pub fn link_target(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let target = self.call(path, |from, name| rustix::fs::readlinkat(from, name, Vec::new()))?;
        Ok(target.into_bytes())
    }

    /// Opens a file to read it. It may have become a named pipe meanwhile, on which nothing waits.
    pub fn file(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Returns the extended attributes of an entry, as far as they can be read.
    pub fn xattrs(&self, path: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.open_with(path, OFlags::PATH).map(|inode| xattr::all(&inode)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_longer_than_a_call_takes_is_walked_in_steps() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let name = vec![b'a'; 200];
        let mut path = Vec::new();
        for _ in 0..50 {
            path = [&path, b"/".as_slice(), &name].concat();
            root.call(&path, |from, name| rustix::fs::mkdirat(from, name, Mode::RWXU)).unwrap();
        }
        let link = [&path, b"/link".as_slice()].concat();
        root.call(&link, |from, name| rustix::fs::symlinkat("text", from, name)).unwrap();
        assert_eq!(root.names(&path).unwrap(), [b"link"]);
        assert_eq!(root.link_target(&link).unwrap(), b"text");
        assert!(root.stat(&link).unwrap().is_symlink() && root.stat(&path).unwrap().is_dir());
        assert_eq!((root.xattrs(&link), root.names(b"").unwrap()), (Vec::new(), vec![name]));
        assert_eq!(root.stat(&vec![b'x'; 5000]).unwrap_err().raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
    }
}
