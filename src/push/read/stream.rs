//! Sources that are no files of this machine: standard input, the output of a command, what an importer reads elsewhere.

use std::cmp::Ordering;
use std::io::Read;

use crate::error::Result;
use crate::time::Time;

/// Something to save that is not found by walking: a file whose contents come from a reader, or a folder.
pub struct Stream {
    /// Where it stands in the snapshot: an absolute path without `.`, `..` and empty parts.
    pub path: Vec<u8>,
    /// Permission bits, of `0o7777`.
    pub mode: u16,
    /// The owner. Names are those that this machine has for the numbers.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Modification time: seconds since the epoch, nanoseconds.
    pub mtime: Time,
    /// What it is.
    pub kind: StreamKind,
}

/// What a [`Stream`] is.
pub enum StreamKind {
    /// A folder with these attributes. Folders on the way to a file need not be given: they are made with mode 0755, of
    /// the user who runs the push, with the time of the snapshot.
    Folder,
    /// A regular file.
    File {
        /// Bytes that will probably come; only for display.
        size: Option<u64>,
        /// What an error of `open` or of the reader means.
        failure: Failure,
        /// Called once, in the thread that reads it; several streams are read at the same time.
        open: Opener,
    },
}

/// Gives the contents of a [`Stream`]. A reader that can be kept waiting for long gives up every now and then with
/// [`io::ErrorKind::WouldBlock`]: the push asks whether it is to stop, and then for more. An [`Error`] inside of an
/// [`io::Error`] (by [`io::Error::other`]) is told as it is.
pub type Opener = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>;

/// What it means if a stream cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The push fails: there will be no snapshot.
    Fatal,
    /// The file is reported and saved as unreadable, like a file of this machine. Errors of kind
    /// [`Kind::Connection`] and [`Kind::Interrupted`] end the push all the same.
    Skip,
}

/// The order in which streams must come: that of the tree, part by part. (`/a/z` comes before `/a.b`.)
pub fn tree_order(a: &[u8], b: &[u8]) -> Ordering {
    let parts = |path| <[u8]>::split(path, |byte: &u8| *byte == b'/');
    parts(a).cmp(parts(b))
}
