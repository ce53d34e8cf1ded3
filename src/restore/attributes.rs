//! Owners, modes, extended attributes and times. An attribute that this user may not set, or that this file system does
//! not know, is left out and counted; that is not a failure.
//!
//! The rule for access: no other user gets more than the snapshot granted. So setuid and setgid need the saved owner and
//! group, a group that could not be set has the rights of others, and without its ACL a file grants its group only the
//! rights that the ACL granted to that group.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, IFlags, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::saved::Saved;
use super::{Run, add, flags};
use crate::acl;
use crate::error::Error;
use crate::format::node::Node;
use crate::inode_flags;
use crate::xattr;

const CWD: rustix::fd::BorrowedFd<'static> = rustix::fs::CWD;

/// Returns the path of an inode that is held by a descriptor of any sort, for calls that take only paths. No link is
/// followed beyond it.
pub(super) fn proc_path(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Sets all attributes of a file or directory that is open. The order matters: a new owner clears setuid and
/// capabilities; a mode without write permission keeps the owner from setting extended attributes; times come last.
/// Returns the saved flags; those that lock the inode are not set yet. `is_new`: this run has made it.
pub(super) fn of_open(run: &Run<'_>, fd: &OwnedFd, node: &Node, is_new: bool, path: &dyn Fn() -> Vec<u8>) -> IFlags {
    let owned = set_owner(run, node, |uid, gid| rustix::fs::fchown(fd, uid, gid));
    let saved = read_saved(run, node, path);
    let access = set_xattrs(run, saved.as_ref(), owned, &Inode::Open(fd));
    counted(run, rustix::fs::fchmod(fd, mode(node, owned, access)));
    let flags = saved.map_or(IFlags::empty(), |saved| saved.flags);
    flags::set(run, fd, flags, is_new);
    counted(run, rustix::fs::futimens(fd, &times(node)));
    flags
}

/// Returns whether an existing inode has all attributes as they would be set.
pub(super) fn are_set(run: &Run<'_>, fd: &OwnedFd, node: &Node, path: &dyn Fn() -> Vec<u8>) -> bool {
    let (Ok(stat), Some(saved)) = (rustix::fs::fstat(fd), read_saved(run, node, path)) else { return false };
    are_equal(run, node, &stat, &saved, &Inode::Open(fd))
        && stat.st_mode & 0o7777 == u32::from(node.attrs.mode)
        && inode_flags::read(fd).is_ok_and(|flags| flags & inode_flags::SAVED == saved.flags)
}

/// Returns the same as [`are_set`] for a special file or symbolic link that is held by an `O_PATH` descriptor.
pub(super) fn are_set_of_path(
    run: &Run<'_>,
    fd: &OwnedFd,
    node: &Node,
    symlink: bool,
    path: &dyn Fn() -> Vec<u8>,
) -> bool {
    let (Ok(stat), Some(saved)) = (rustix::fs::fstat(fd), read_saved(run, node, path)) else { return false };
    are_equal(run, node, &stat, &saved, &Inode::Path(&proc_path(fd)))
        && (symlink || stat.st_mode & 0o7777 == u32::from(node.attrs.mode))
}

/// Compares time, owner and extended attributes.
fn are_equal(run: &Run<'_>, node: &Node, stat: &Stat, saved: &Saved, inode: &Inode<'_>) -> bool {
    let time = times(node).last_modification;
    #[allow(clippy::unnecessary_cast)] // types differ between architectures
    let is_time = (stat.st_mtime as i64, stat.st_mtime_nsec as i64) == (time.tv_sec, time.tv_nsec as i64);
    let has = |(name, value): &(Vec<u8>, Vec<u8>)| inode.get(name).is_ok_and(|there| there == *value);
    let is_foreign = |name: &[u8]| is_removable(name) && !saved.xattrs.iter().any(|(known, _)| known == name);
    is_time
        && (stat.st_uid, stat.st_gid) == run.owners.of(&node.attrs)
        && saved.xattrs.iter().all(has)
        && inode.list().is_ok_and(|names| !xattr::names(&names).any(is_foreign))
}

fn read_saved(run: &Run<'_>, node: &Node, path: &dyn Fn() -> Vec<u8>) -> Option<Saved> {
    let saved = Saved::read(run, node, path);
    let failed =
        |e| run.skip(&path(), Error::while_doing(e, "it is restored without its extended attributes and ACLs"));
    saved.map_err(failed).ok()
}

/// Returns the same for a special file or symbolic link that is held by an `O_PATH` descriptor.
pub(super) fn of_path(run: &Run<'_>, fd: &OwnedFd, node: &Node, symlink: bool, path: &dyn Fn() -> Vec<u8>) {
    let owned = set_owner(run, node, |uid, gid| rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH));
    let inode = proc_path(fd);
    let saved = read_saved(run, node, path);
    let access = set_xattrs(run, saved.as_ref(), owned, &Inode::Path(&inode));
    if !symlink {
        counted(run, rustix::fs::chmod(&*inode, mode(node, owned, access)));
    }
    counted(run, rustix::fs::utimensat(CWD, &*inode, &times(node), AtFlags::empty()));
}

fn counted(run: &Run<'_>, result: Result<(), Errno>) -> bool {
    add(&run.tally.attributes, u64::from(result.is_err()));
    result.is_ok()
}

/// Which of owner and group are the saved ones.
#[derive(Clone, Copy)]
struct Owned {
    user: bool,
    group: bool,
}

fn set_owner(run: &Run<'_>, node: &Node, chown: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>) -> Owned {
    let (uid, gid) = run.owners.of(&node.attrs);
    let gid = Some(Gid::from_raw(gid));
    if counted(run, chown(Some(Uid::from_raw(uid)), gid)) {
        return Owned { user: true, group: true };
    }
    // An ordinary user may still assign one of the groups that he belongs to.
    Owned { user: false, group: chown(None, gid).is_ok() }
}

/// The state of the access ACL of a file after its extended attributes were set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// None was saved, and there is none.
    NoAcl,
    /// It is the saved one. The group bits of the mode are its mask.
    Saved,
    /// It could not be set, and there is none. It granted these three bits to the owning group.
    Lost(u32),
    /// It is not known, or a foreign one could not be removed.
    Unknown,
}

/// Returns the saved mode, reduced by the rule above.
fn mode(node: &Node, owned: Owned, access: Access) -> Mode {
    let mut mode = u32::from(node.attrs.mode);
    if !(owned.user && owned.group) {
        mode &= 0o1777;
    }
    match access {
        Access::NoAcl | Access::Saved => {}
        Access::Lost(group) => mode &= !0o070 | group << 3,
        Access::Unknown => mode &= 0o700,
    }
    if !owned.group && access != Access::Saved {
        mode &= !0o070 | (mode & 0o007) << 3;
    }
    Mode::from_raw_mode(mode)
}

/// Removes inherited and earlier extended attributes from an inode, then sets the saved ones. Counts the attributes that
/// cannot be set. `saved`: `None` if they could not be read.
fn set_xattrs(run: &Run<'_>, saved: Option<&Saved>, owned: Owned, inode: &Inode<'_>) -> Access {
    let known = saved.map_or(&[][..], |saved| saved.xattrs.as_slice());
    let foreign_acl = !remove_foreign(run, known, inode);
    if saved.is_none() {
        return Access::Unknown;
    }
    let mut access = if foreign_acl { Access::Unknown } else { Access::NoAcl };
    for (name, value) in known {
        if name == acl::ACCESS {
            access = set_acl(run, value, owned, inode);
        } else {
            counted(run, inode.set(name, value));
        }
    }
    access
}

fn set_acl(run: &Run<'_>, saved: &[u8], owned: Owned, inode: &Inode<'_>) -> Access {
    let limited = if owned.group { None } else { acl::with_group_like_others(saved) };
    if counted(run, inode.set(acl::ACCESS, limited.as_deref().unwrap_or(saved))) {
        return Access::Saved;
    }
    match inode.remove(acl::ACCESS) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {
            acl::group_permissions(saved).map_or(Access::Unknown, |bits| Access::Lost(bits.into()))
        }
        Err(_) => Access::Unknown,
    }
}

/// Removes the attributes that the snapshot does not have. Returns `false` if an access ACL may be left.
fn remove_foreign(run: &Run<'_>, saved: &[(Vec<u8>, Vec<u8>)], inode: &Inode<'_>) -> bool {
    let names = match inode.list() {
        Ok(names) => names,
        Err(errno) => return errno == Errno::NOTSUP,
    };
    let mut clean = true;
    for name in xattr::names(&names).filter(|name| is_removable(name)) {
        if !saved.iter().any(|(known, _)| known == name) && !counted(run, inode.remove(name)) {
            clean &= name != acl::ACCESS;
        }
    }
    clean
}

/// Labels of security modules (`security.selinux`, ..) are assigned by this machine's policy, and `system.nfs4_acl` only
/// mirrors the mode: they stay.
fn is_removable(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || [acl::ACCESS, acl::DEFAULT, b"security.capability"].contains(&name)
}

/// An inode for calls on extended attributes, by a descriptor or by a path that the kernel does not follow further.
enum Inode<'a> {
    Open(&'a OwnedFd),
    Path(&'a str),
}

impl Inode<'_> {
    fn set(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            Inode::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Inode::Path(path) => rustix::fs::setxattr(*path, name, value, XattrFlags::empty()),
        }
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Inode::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Inode::Path(path) => rustix::fs::removexattr(*path, name),
        }
    }

    fn get(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        xattr::read(|value| match self {
            Inode::Open(fd) => rustix::fs::fgetxattr(fd, name, value),
            Inode::Path(path) => rustix::fs::getxattr(*path, name, value),
        })
    }

    /// Returns the names, each ended by a zero byte.
    fn list(&self) -> Result<Vec<u8>, Errno> {
        xattr::read(|names| match self {
            Inode::Open(fd) => rustix::fs::flistxattr(fd, names),
            Inode::Path(path) => rustix::fs::listxattr(*path, names),
        })
    }
}

fn times(node: &Node) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: node.mtime.seconds, tv_nsec: node.mtime.nanoseconds.into() },
    }
}
