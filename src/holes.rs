//! Finds the holes of sparse files.

use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{self, SeekFrom};
use rustix::io::Errno;

/// Holes shorter than this are read as zeros: a chunk for each range between them would cost more.
pub const LEAST: u64 = 64 << 10;

/// Returns the first range of data from `at` on. It ends at the next hole of at least [`LEAST`] bytes, and is empty if no
/// data follows. It begins at `at` if only a shorter hole comes before it.
pub fn next_data(fd: &OwnedFd, at: u64, size: u64) -> Result<Range<u64>, Errno> {
    let start = match fs::seek(fd, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(size..size),
        // The file system does not know holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(at..size),
        other => other?.min(size),
    };
    if start == size {
        return Ok(size..size);
    }
    let mut end = fs::seek(fd, SeekFrom::Hole(start))?.min(size);
    while end < size {
        match fs::seek(fd, SeekFrom::Data(end)) {
            Ok(next) if next - end < LEAST => end = fs::seek(fd, SeekFrom::Hole(next))?.min(size),
            Err(errno) if errno != Errno::NXIO => return Err(errno),
            _ => break,
        }
    }
    Ok(if start - at < LEAST { at..end } else { start..end })
}
