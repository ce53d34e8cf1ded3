//! Flags of inodes, as `chattr` sets them and `lsattr` shows them (`ioctl_iflags(2)`).

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, IFlags, StatxAttributes, StatxFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use crate::error::Result;
use crate::format::codec;

/// The flags that are saved: those that users set. The others state how a file system stores an inode.
pub const SAVED: IFlags = LOCKING.union(EARLY).union(PLAIN);
/// Flags of inodes that nothing can change, or that can only grow.
pub const LOCKING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
/// Flags that a file must have before it has contents.
pub const EARLY: IFlags = IFlags::COMPRESSED.union(IFlags::NOCOW);
/// Flags that can be set and cleared at any time.
pub const PLAIN: IFlags = IFlags::NODUMP
    .union(IFlags::NOATIME)
    .union(IFlags::SYNC)
    .union(IFlags::DIRSYNC)
    .union(IFlags::TOPDIR)
    .union(IFlags::JOURNALING);

/// Reads all flags of an open file or directory.
pub fn read(fd: impl AsFd) -> Result<IFlags, Errno> {
    ioctl_getflags(fd)
}

/// Sets all flags of an open file or directory.
pub fn write(fd: impl AsFd, flags: IFlags) -> Result<(), Errno> {
    ioctl_setflags(fd, flags)
}

/// Returns the attributes of an entry that the file system shows without opening it. An empty name is the descriptor
/// itself.
pub fn shown(dir: impl AsFd, name: &[u8]) -> StatxAttributes {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let statx = rustix::fs::statx(dir, name, flags, StatxFlags::empty());
    statx.map_or(StatxAttributes::empty(), |statx| statx.stx_attributes)
}

/// Returns whether an entry is immutable or append-only, see [`shown`].
pub fn is_locked(dir: impl AsFd, name: &[u8]) -> bool {
    shown(dir, name).intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// Encodes the saved flags.
pub fn encode(flags: IFlags) -> Vec<u8> {
    codec::encode(&(flags & SAVED).bits())
}

/// Inverts [`encode`]. Flags that are never saved are ignored.
pub fn decode(bytes: &[u8]) -> Result<IFlags> {
    codec::decode::<u32>("the flags of a file", bytes).map(|bits| IFlags::from_bits_retain(bits) & SAVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flags_that_users_set_are_taken_over() {
        assert_eq!(SAVED.bits(), 0x0083_40fc);
        assert_eq!(encode(IFlags::IMMUTABLE | IFlags::NODUMP | IFlags::from_bits_retain(0x8_0000)), b"\x50");
        assert_eq!(decode(b"\x50").unwrap(), IFlags::IMMUTABLE | IFlags::NODUMP);
        // Encrypted (0x800) and verity (0x100000) are not set by anyone who wrote a snapshot.
        assert_eq!(decode(&codec::encode(&u32::MAX)).unwrap(), SAVED);
    }

    #[test]
    fn hostile_flags_are_refused() {
        for bad in [&b""[..], b"\x50\x00", b"\xd0\x00", b"\xff\xff\xff\xff\x1f", b"\xff\xff\xff\xff\xff\x01"] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }
}
