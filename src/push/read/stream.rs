//! Sources that are not files of this machine: standard input, the output of a command, the files of an import.

use std::cmp::Ordering;
use std::io::Read;

use crate::error::Result;
use crate::time::Time;

/// A node to save that is not on a file system: a file whose contents come from a reader, or a directory.
pub struct Stream {
    /// The path in the snapshot: absolute, without `.`, `..` and empty parts.
    pub path: Vec<u8>,
    /// Permission bits, a subset of `0o7777`.
    pub mode: u16,
    /// The owner. Its name is looked up on this machine.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Modification time: seconds since the epoch, nanoseconds.
    pub mtime: Time,
    /// The kind of node.
    pub kind: StreamKind,
}

/// The kind of a [`Stream`].
pub enum StreamKind {
    /// A directory. Directories above a file are added if they are missing, with mode 0755, the user who runs the push and
    /// the time of the snapshot.
    Folder,
    /// A regular file.
    File {
        /// Expected size in bytes, for display only.
        size: Option<u64>,
        /// The consequence of an error of `open` or of the reader.
        failure: Failure,
        /// Called once, in the thread that reads the stream. Several streams are read at the same time.
        open: Opener,
    },
}

/// Opens the contents of a [`Stream`]. A reader that can block for long returns [`std::io::ErrorKind::WouldBlock`] from
/// time to time, so that the push can check whether it is cancelled; then it reads again. A [`crate::error::Error`] inside
/// an [`std::io::Error`] (made by [`std::io::Error::other`]) is reported unchanged.
pub type Opener = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>;

/// The consequence if a stream cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The push fails, without a snapshot.
    Fatal,
    /// The file is reported and saved as unreadable, like a file of this machine. Errors of kind
    /// [`crate::error::Kind::Connection`] and [`crate::error::Kind::Interrupted`] still end the push.
    Skip,
}

/// Compares two paths in tree order, part by part: `/a/z` comes before `/a.b`. Streams must come in this order.
pub fn tree_order(a: &[u8], b: &[u8]) -> Ordering {
    let parts = |path| <[u8]>::split(path, |byte: &u8| *byte == b'/');
    parts(a).cmp(parts(b))
}
