//! Owners, modes, extended attributes and times. What this user may not set, or this file system does not know, is left
//! out and counted; that is no failure.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Run, add};
use crate::error::Error;
use crate::format::tree::Node;

const CWD: rustix::fd::BorrowedFd<'static> = rustix::fs::CWD;

/// The way to an inode that is held by a descriptor of any sort, for calls that take only paths. No link is followed
/// beyond it.
pub(super) fn proc_path(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Sets all attributes of a file or directory that is open. The order matters: a new owner clears setuid and
/// capabilities; a mode without write permission keeps the owner from setting extended attributes; times come last.
pub(super) fn of_open(run: &Run<'_>, fd: &OwnedFd, node: &Node, path: &dyn Fn() -> Vec<u8>) {
    let owned = own(run, node, |uid, gid| rustix::fs::fchown(fd, uid, gid));
    let set = |name: &[u8], value: &[u8]| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty());
    let exact = set_xattrs(run, node, path, set);
    counted(run, rustix::fs::fchmod(fd, mode(node, owned, exact)));
    counted(run, rustix::fs::futimens(fd, &times(node)));
}

/// The same for a special file or symbolic link that is held by an `O_PATH` descriptor.
pub(super) fn of_path(run: &Run<'_>, fd: &OwnedFd, node: &Node, symlink: bool, path: &dyn Fn() -> Vec<u8>) {
    let owned = own(run, node, |uid, gid| rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH));
    let inode = proc_path(fd);
    let set = |name: &[u8], value: &[u8]| rustix::fs::setxattr(&*inode, name, value, XattrFlags::empty());
    let exact = set_xattrs(run, node, path, set);
    if !symlink {
        counted(run, rustix::fs::chmod(&*inode, mode(node, owned, exact)));
    }
    counted(run, rustix::fs::utimensat(CWD, &*inode, &times(node), AtFlags::empty()));
}

fn counted(run: &Run<'_>, result: Result<(), Errno>) -> bool {
    add(&run.tally.attributes, u64::from(result.is_err()));
    result.is_ok()
}

/// Whether it has the saved owner and group now.
fn own(run: &Run<'_>, node: &Node, chown: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>) -> bool {
    let (uid, gid) = run.owners.of(&node.attrs);
    let gid = Some(Gid::from_raw(gid));
    let done = chown(Some(Uid::from_raw(uid)), gid);
    if done.is_err() {
        // An ordinary user may still give it to one of his groups.
        let _ = chown(None, gid);
    }
    counted(run, done)
}

/// The saved mode. Not setuid for a root that could not give it away (it would run as root), and nothing for group and
/// others if the ACL that went with it cannot be had.
fn mode(node: &Node, owned: bool, exact: bool) -> Mode {
    let mut mode = u32::from(node.attrs.mode);
    if !owned && rustix::process::geteuid().is_root() {
        mode &= 0o1777;
    }
    if !exact {
        mode &= 0o700;
    }
    Mode::from_raw_mode(mode)
}

/// Whether the saved attributes are known; those that cannot be set are only counted.
fn set_xattrs(
    run: &Run<'_>,
    node: &Node,
    path: &dyn Fn() -> Vec<u8>,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> bool {
    match run.repo.xattrs(node) {
        Ok(list) => {
            for (name, value) in &list {
                counted(run, set(name, value));
            }
            true
        }
        Err(e) => {
            run.skip(&path(), Error::while_doing(e, "it is restored without its extended attributes and ACLs"));
            false
        }
    }
}

fn times(node: &Node) -> Timestamps {
    let (seconds, nanoseconds) = node.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}
