//! Lists and values of extended attributes, as the calls of the kernel return them.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

/// Linux bounds lists and values to this many bytes.
const MOST: usize = 64 << 10;
/// Most inodes have no attribute, or few.
const FEW: usize = 1 << 10;

/// Reads a list of names or a value by a call that fills a buffer.
pub fn read(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; FEW];
    let mut len = call(&mut bytes);
    if len == Err(Errno::RANGE) {
        bytes.resize(MOST, 0);
        len = call(&mut bytes);
    }
    bytes.truncate(len?);
    Ok(bytes)
}

/// Returns the names in a list, each of which ends with a zero byte.
pub fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}

/// Returns the extended attributes of an inode that is held by a descriptor of any sort, also of a symbolic link, with their
/// values, ascending by name, as far as they can be read.
pub fn all(inode: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    // The calls on descriptors take none of `O_PATH`.
    let path = format!("/proc/self/fd/{}", inode.as_raw_fd());
    let list = read(|list| rustix::fs::listxattr(&*path, list)).unwrap_or_default();
    let value = |name: &[u8]| read(|value| rustix::fs::getxattr(&*path, name, value)).ok();
    let mut all: Vec<_> = names(&list).filter_map(|name| Some((name.to_vec(), value(name)?))).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_read_whole() {
        let long = b"user.a\0user.b\0".repeat(200);
        let call = |buffer: &mut [u8]| {
            buffer.get_mut(..long.len()).ok_or(Errno::RANGE)?.copy_from_slice(&long);
            Ok(long.len())
        };
        assert_eq!(names(&read(call).unwrap()).count(), 400);
        assert_eq!(read(|_| Ok(0)), Ok(Vec::new()));
        assert_eq!(read(|_| Err(Errno::NOTSUP)), Err(Errno::NOTSUP));
    }
}
