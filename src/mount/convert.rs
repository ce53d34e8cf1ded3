//! Values of the vfs as the kernel's: attributes, error numbers, times and device numbers. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo};

use crate::time::Time;
use crate::vfs::{Attr, Fault, Kind};

pub fn errno(fault: &Fault) -> Errno {
    match fault {
        Fault::Stale => Errno::ESTALE,
        Fault::Invalid => Errno::EINVAL,
        Fault::NoAttribute => Errno::ENODATA,
        Fault::Unsupported => Errno::EOPNOTSUPP,
        Fault::Beyond => Errno::ENXIO,
        Fault::Broken(_) | Fault::Wait => Errno::EIO,
    }
}

pub fn file_attr(attr: &Attr) -> FileAttr {
    let mtime = time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: kind(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device(attr.device),
        blksize: 4096,
        flags: 0,
    }
}

/// Returns the attributes of a name that does not exist; the kernel remembers with them that it does not.
pub fn no_entry() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Block => FileType::BlockDevice,
        Kind::Char => FileType::CharDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

/// Packs a device number into the kernel's 32 bits, `mmmM MMmm`: 12 bits of the major and 20 of the minor number.
fn device(number: (u32, u32)) -> u32 {
    let (major, minor) = number;
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

/// Converts seconds and nanoseconds since 1970; a time that the system cannot hold becomes 1970-01-01.
fn time(time: Time) -> SystemTime {
    let Time { seconds, nanoseconds } = time;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::new(0, nanoseconds))).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_devices_as_the_kernel_has_them() {
        assert_eq!(time(Time::new(-1, 999_999_999)), UNIX_EPOCH - Duration::from_nanos(1));
        assert_eq!(time(Time::new(5, 1)), UNIX_EPOCH + Duration::new(5, 1));
        let _ = (time(Time::new(i64::MAX, 0)), time(Time::new(i64::MIN, 0)));
        assert_eq!([device((8, 17)), device((300, 70_000))], [0x811, 0x1111_2c70]);
    }
}
