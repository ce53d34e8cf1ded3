//! Makes nodes of the tree from `stat`: attributes, owners, extended attributes.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{self, FileType, IFlags, Stat, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use super::dir::Dir;
use super::guard::Guard;
use crate::accounts;
use crate::acl::{self, Named};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::limits;
use crate::format::node::{Attrs, Content, Node, Xattrs};
use crate::format::own;
use crate::inode_flags;
use crate::time::Time;
use crate::xattr;

/// Returns the file type.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns device and inode number. (Types differ between architectures, here and below.)
#[allow(clippy::unnecessary_cast)]
pub fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Returns the device.
pub fn device(statx: &Statx) -> u64 {
    fs::makedev(statx.stx_dev_major, statx.stx_dev_minor)
}

/// Returns the modification time.
#[allow(clippy::unnecessary_cast)]
pub fn mtime(stat: &Stat) -> Time {
    Time::new(stat.st_mtime as i64, (stat.st_mtime_nsec as u32).min(999_999_999))
}

/// Returns the status change time in nanoseconds.
#[allow(clippy::unnecessary_cast)]
pub fn ctime(stat: &Stat) -> i64 {
    nanoseconds(Time::new(stat.st_ctime as i64, stat.st_ctime_nsec as u32))
}

/// Converts a time to nanoseconds since the epoch. Times outside of the years 1678 to 2262 are clamped.
pub fn nanoseconds(time: Time) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanoseconds.into())
}

/// Returns the number of links: at least one, even if the file was just removed.
pub fn nlink(stat: &Stat) -> u32 {
    u32::try_from(stat.st_nlink).unwrap_or(u32::MAX).max(1)
}

/// Returns whether both describe the same file, unchanged.
pub fn same(a: &Stat, b: &Stat) -> bool {
    id(a) == id(b) && a.st_size == b.st_size && mtime(a) == mtime(b) && ctime(a) == ctime(b)
}

/// Returns the error `cannot {doing}: {errno}`.
pub fn error(doing: &str, errno: Errno) -> Error {
    if errno == Errno::TIMEDOUT {
        return Error::failed(format!("cannot {doing}: its file system does not answer"));
    }
    Error::io(doing, errno.into())
}

/// Reports a path that is left out because of `why`.
///
/// # Errors
///
/// Returns `why` if it is no fault of the path: the system has no descriptors or no memory left. Then the push ends.
pub fn skip(ctx: &Context, path: &[u8], why: Error) -> Result<()> {
    ctx.check()?; // a call on a file system that hangs also ends when the push must end
    if why.kind() == Kind::Exhausted {
        return Err(why.while_doing(String::from_utf8_lossy(path)));
    }
    ctx.skip(path, &why);
    Ok(())
}

/// Mode, uid, gid, file system.
type AttrsKey = (u16, u32, u32, u32);

/// Makes nodes. Remembers the names of owners, and numbers file systems in the order of their first file.
#[derive(Default)]
pub struct Nodes {
    attrs: Mutex<HashMap<AttrsKey, Arc<Attrs>>>,
    users: Mutex<HashMap<u32, Vec<u8>>>,
    groups: Mutex<HashMap<u32, Vec<u8>>>,
    devices: Mutex<Vec<u64>>,
}

/// The attributes of a mount point, as far as they are known without asking its file system.
pub struct MountPoint {
    pub name: Vec<u8>,
    pub statx: Statx,
}

/// The attributes of a node that is not on a file system.
pub struct Made {
    pub name: Vec<u8>,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
}

impl Nodes {
    /// Makes a node without extended attributes.
    pub fn node(&self, name: Vec<u8>, stat: &Stat, content: Content) -> Node {
        Node {
            name,
            attrs: self.attrs((stat.st_mode & 0o7777) as u16, stat.st_uid, stat.st_gid, id(stat).0),
            mtime: mtime(stat),
            ctime: ctime(stat),
            inode: id(stat).1,
            nlink: nlink(stat),
            flags: 0,
            xattrs: Xattrs::Inline(Vec::new()),
            content,
        }
    }

    /// Makes a node that is not on a file system, without extended attributes. No file has its inode number, 0.
    pub fn made(&self, made: Made, content: Content) -> Node {
        let Made { name, mode, uid, gid, mtime } = made;
        let ctime = nanoseconds(mtime);
        let attrs = self.attrs(mode & 0o7777, uid, gid, 0);
        let xattrs = Xattrs::Inline(Vec::new());
        Node { name, attrs, mtime, ctime, inode: 0, nlink: 1, flags: 0, xattrs, content }
    }

    /// Makes a node for the directory of another file system, empty and without extended attributes.
    pub fn mount_point(&self, mount: MountPoint) -> Node {
        let MountPoint { name, statx } = mount;
        let is_known = StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::MODE);
        let mode = if is_known { statx.stx_mode & 0o7777 } else { 0o755 };
        let attrs = self.attrs(mode, statx.stx_uid, statx.stx_gid, device(&statx));
        let time = |time: StatxTimestamp| Time::new(time.tv_sec, time.tv_nsec.min(999_999_999));
        let (mtime, ctime) = (time(statx.stx_mtime), nanoseconds(time(statx.stx_ctime)));
        let (xattrs, content) = (Xattrs::Inline(Vec::new()), Content::Directory(None));
        let nlink = statx.stx_nlink.max(1);
        Node { name, attrs, mtime, ctime, inode: statx.stx_ino, nlink, flags: 0, xattrs, content }
    }

    /// Makes a node for an entry whose attributes could not be read.
    pub fn unknown(&self, name: Vec<u8>, errno: Errno) -> Node {
        let attrs = Attrs { mode: 0, uid: 0, gid: 0, user: Vec::new(), group: Vec::new(), fs: 0 };
        Node {
            name,
            attrs: Arc::new(attrs),
            mtime: Time::default(),
            ctime: 0,
            inode: 0,
            nlink: 1,
            flags: 0,
            xattrs: Xattrs::Inline(Vec::new()),
            content: unreadable(errno),
        }
    }

    fn attrs(&self, mode: u16, uid: u32, gid: u32, device: u64) -> Arc<Attrs> {
        let fs = self.file_system(device);
        let mut known = self.attrs.lock().expect("no holder panics");
        if known.len() > MANY_ATTRS {
            known.clear();
        }
        let new = || Arc::new(Attrs { mode, uid, gid, user: self.user(uid), group: self.group(gid), fs });
        Arc::clone(known.entry((mode, uid, gid, fs)).or_insert_with(new))
    }

    fn file_system(&self, device: u64) -> u32 {
        let mut devices = self.devices.lock().expect("no holder panics");
        let known = devices.iter().position(|d| *d == device);
        known.unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        }) as u32
    }

    /// Returns the extended attributes that were found, with the names of the users and groups in their ACLs. Reports those
    /// that could not be read, one by one or all.
    pub fn xattrs(&self, ctx: &Context, path: &[u8], found: Result<FoundXattrs, Errno>) -> Result<Xattrs> {
        let pairs = match found {
            Ok(found) => found.report(ctx, path)?,
            Err(errno) => skip(ctx, path, error("read its extended attributes", errno)).map(|()| Pairs::new())?,
        };
        Ok(self.with_names(&Xattrs::Inline(pairs)))
    }

    /// Returns the extended attributes with the names that the users and groups in their ACLs have now. The owners of a file
    /// that did not change are looked up anew by each push as well. A list in a chunk of its own keeps its names.
    pub fn with_names(&self, xattrs: &Xattrs) -> Xattrs {
        let Xattrs::Inline(pairs) = xattrs else { return xattrs.clone() };
        let mut pairs = pairs.clone();
        pairs.retain(|(name, _)| name != own::ACL_NAMES);
        let acls = pairs.iter().filter(|(name, _)| [acl::ACCESS, acl::DEFAULT].contains(&name.as_slice()));
        let name = |Named { group, id }| if group { self.group(id) } else { self.user(id) };
        let names = acl::Names::of(acls.map(|(_, value)| value.as_slice()), name);
        if !names.is_empty() {
            insert(&mut pairs, own::ACL_NAMES, names.encode());
        }
        Xattrs::Inline(pairs)
    }

    /// Looks up a user name by the system's rules (files, LDAP, ..), once for each id; empty if there is none.
    fn user(&self, uid: u32) -> Vec<u8> {
        let ask = || accounts::user_name(uid).map(short);
        let mut users = self.users.lock().expect("no holder panics");
        users.entry(uid).or_insert_with(|| ask().unwrap_or_default()).clone()
    }

    fn group(&self, gid: u32) -> Vec<u8> {
        let ask = || accounts::group_name(gid).map(short);
        let mut groups = self.groups.lock().expect("no holder panics");
        groups.entry(gid).or_insert_with(|| ask().unwrap_or_default()).clone()
    }
}

/// Combinations of mode and owner that are remembered; then the memory is cleared.
const MANY_ATTRS: usize = 4096;

fn short(name: String) -> Vec<u8> {
    Some(name.into_bytes()).filter(|name| name.len() <= limits::NAME).unwrap_or_default()
}

/// Returns the content of a node that could not be read.
pub fn unreadable(errno: Errno) -> Content {
    Content::Unreadable(errno.raw_os_error().unsigned_abs())
}

/// Extended attributes with their values, ascending by name.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The extended attributes of a file.
#[derive(Default)]
pub struct FoundXattrs {
    pub pairs: Pairs,
    /// The names of those that could not be read.
    pub failed: Vec<(Vec<u8>, Errno)>,
}

impl FoundXattrs {
    /// Reports those that could not be read. Returns the others.
    fn report(self, ctx: &Context, path: &[u8]) -> Result<Pairs> {
        for (name, errno) in &self.failed {
            let doing = match name.as_slice() {
                own::FLAGS => "read its flags (lsattr)".to_owned(),
                name => format!("read its extended attribute {}", String::from_utf8_lossy(name)),
            };
            skip(ctx, path, error(&doing, *errno))?;
        }
        Ok(self.pairs)
    }
}

/// Reads the extended attributes and flags of an open file or directory.
pub fn xattrs_of(fd: impl AsFd, guard: &Guard) -> Result<FoundXattrs, Errno> {
    let mut found = read_xattrs(|list| fs::flistxattr(&fd, list), |name, value| fs::fgetxattr(&fd, name, value))?;
    match flags_of(fd, guard) {
        Ok(flags) if flags.is_empty() => {}
        Ok(flags) => insert(&mut found.pairs, own::FLAGS, inode_flags::encode(flags)),
        Err(errno) => found.failed.push((own::FLAGS.to_vec(), errno)),
    }
    Ok(found)
}

/// Reads the flags that are saved. A file system of a program that has none is not asked again: each time costs it three
/// requests.
fn flags_of(fd: impl AsFd, guard: &Guard) -> Result<IFlags, Errno> {
    if guard.lacks_flags() {
        return Ok(IFlags::empty());
    }
    match inode_flags::read(fd) {
        Ok(flags) => Ok(flags & inode_flags::SAVED),
        Err(_) if guard.is_needed() => {
            guard.note_lack_of_flags();
            Ok(IFlags::empty())
        }
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::ACCESS) => {
            Ok(IFlags::empty())
        }
        Err(errno) => Err(errno),
    }
}

/// Inserts a pair at its place.
fn insert(pairs: &mut Pairs, name: &[u8], value: Vec<u8>) {
    let at = pairs.partition_point(|(other, _)| other.as_slice() < name);
    pairs.insert(at, (name.to_vec(), value));
}

/// Reads the extended attributes of an entry that must not be opened: a symlink, a fifo, a device, an unreadable file.
pub fn xattrs_at(dir: &Arc<Dir>, name: &[u8]) -> Result<FoundXattrs, Errno> {
    dir.on_entry(name, |dir, name| {
        let path = [format!("/proc/self/fd/{}/", dir.fd.as_raw_fd()).as_bytes(), name].concat();
        let path = path.as_slice();
        match read_xattrs(|list| fs::llistxattr(path, list), |name, value| fs::lgetxattr(path, name, value)) {
            Err(Errno::NOENT) => Ok(FoundXattrs::default()),
            other => other,
        }
    })
}

fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<FoundXattrs, Errno> {
    let names = match xattr::read(list) {
        Err(Errno::NOTSUP) => return Ok(FoundXattrs::default()),
        other => other?,
    };
    let mut found = FoundXattrs::default();
    // A file system in user space may show any name.
    for name in xattr::names(&names).filter(|name| !own::is_own(name)) {
        match xattr::read(|value| get(name, value)) {
            Ok(value) => found.pairs.push((name.to_vec(), value)),
            Err(Errno::NODATA) => {} // removed meanwhile
            Err(errno) => found.failed.push((name.to_vec(), errno)),
        }
    }
    found.pairs.sort_unstable();
    found.pairs.dedup_by(|a, b| a.0 == b.0);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_that_cannot_be_read_is_named_and_the_others_are_kept() {
        let list = |buffer: &mut [u8]| {
            let names = b"user.z\0nfreezer.acl-names\0user.bad\0user.gone\0user.a\0";
            buffer[..names.len()].copy_from_slice(names);
            Ok(names.len())
        };
        let get = |name: &[u8], value: &mut [u8]| match name {
            b"user.bad" => Err(Errno::IO),
            b"user.gone" => Err(Errno::NODATA),
            _ => {
                value[0] = name[5];
                Ok(1)
            }
        };
        let found = read_xattrs(list, get).unwrap();
        assert_eq!(found.failed, [(b"user.bad".to_vec(), Errno::IO)]);
        let pairs = [(b"user.a".to_vec(), b"a".to_vec()), (b"user.z".to_vec(), b"z".to_vec())];
        assert_eq!(found.pairs, pairs);
    }

    #[test]
    fn a_lack_of_descriptors_ends_the_push_and_is_no_fault_of_a_file() {
        for (errno, ends) in [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::NOMEM, true), (Errno::IO, false)] {
            let result = skip(crate::context::background(), b"/a", error("read the file", errno));
            assert_eq!(result.is_err(), ends, "{errno}");
        }
    }
}
