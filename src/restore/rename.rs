//! Gives a complete entry its final name.

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::dir::Held;
use crate::error::{Error, Kind, Result};

/// Renames a complete entry to its final name. Without `replace` an entry of that name stays, and the error is `Exists`.
pub(super) fn place(held: &Held, temporary: &[u8], name: &[u8], replace: bool) -> Result<()> {
    rename(held, temporary, name, replace).map_err(|errno| {
        held.unlink(temporary);
        match errno {
            Errno::EXIST => Error::new(Kind::Exists, "an entry of this name appeared during the restore"),
            Errno::ISDIR => Error::new(Kind::Exists, "a directory is in its place"),
            errno => Error::io("give it its name", errno.into()),
        }
    })
}

fn rename(held: &Held, temporary: &[u8], name: &[u8], replace: bool) -> Result<(), Errno> {
    use rustix::fs::{RenameFlags, linkat, openat, renameat, renameat_with};
    let fd = &held.fd;
    if replace {
        return renameat(fd, temporary, fd, name);
    }
    match renameat_with(fd, temporary, fd, name, RenameFlags::NOREPLACE) {
        // Unknown to this file system (NFS, FUSE).
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        result => return result,
    }
    match linkat(fd, temporary, fd, name, AtFlags::empty()) {
        // It has no hard links either (exFAT, FUSE).
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {}
        result => return result.inspect(|()| held.unlink(temporary)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(openat(fd, name, flags, Mode::RUSR | Mode::WUSR)?);
    renameat(fd, temporary, fd, name).inspect_err(|_| held.unlink(name))
}
