//! What `stat` shows of a node, and why an operation may have no answer.

use std::fmt;

use crate::error::{Error, Kind as ErrorKind};
use crate::format::node::{Content, Node};
use crate::format::reference::Extent;
use crate::time::Time;

/// What sort of node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number, see [`super::inode`].
    pub ino: u64,
    /// Kind.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u16,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes that are not holes.
    pub blocks: u64,
    /// Modification time: seconds and nanoseconds. Also shown as access and change time.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

impl Attr {
    /// The attributes of a node; `owner` replaces user and group.
    pub fn of(node: &Node, ino: u64, owner: Option<(u32, u32)>) -> Attr {
        let size = node.content.size();
        let (kind, blocks, device) = match &node.content {
            Content::File(extents) => (Kind::File, stored(extents).div_ceil(512), (0, 0)),
            // Its holes are known to its list only. One block less than full says "look for holes" (`lseek`) to `cp`
            // and `tar`; reading the list for every `ls` would cost far more than that is wrong.
            Content::Large { size, .. } => (Kind::File, (size / 512).saturating_sub(1), (0, 0)),
            Content::Directory(_) => (Kind::Directory, 0, (0, 0)),
            Content::Symlink(_) => (Kind::Symlink, 0, (0, 0)),
            Content::Block(major, minor) => (Kind::Block, 0, (*major, *minor)),
            Content::Char(major, minor) => (Kind::Char, 0, (*major, *minor)),
            Content::Fifo => (Kind::Fifo, 0, (0, 0)),
            Content::Socket | Content::Unreadable(_) => (Kind::Socket, 0, (0, 0)),
        };
        let (uid, gid) = owner.unwrap_or((node.attrs.uid, node.attrs.gid));
        let (mode, nlink, mtime) = (node.attrs.mode, node.nlink, node.mtime);
        Attr { ino, kind, mode, nlink, uid, gid, size, blocks, mtime, device }
    }
}

fn stored(extents: &[Extent]) -> u64 {
    extents.iter().map(|e| if let Extent::Data(r) = e { r.len.into() } else { 0 }).sum()
}

/// Figures of the file system, for `statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of the files in the newest snapshot.
    pub bytes: u64,
    /// Nodes in it.
    pub nodes: u64,
}

/// Why an operation has no answer. Network and integrity errors are [`Fault::Broken`] and nothing else.
#[derive(Debug)]
pub enum Fault {
    /// It was asked for what is in memory, and this is not: ask again with [`super::Mode::Fetch`].
    Wait,
    /// No node is known by this number: its snapshot is gone from the view.
    Stale,
    /// The operation makes no sense for this kind of node.
    Invalid,
    /// The node has no extended attribute of this name.
    NoAttribute,
    /// There are no extended attributes at all.
    Unsupported,
    /// There is neither data nor a hole from there on.
    Beyond,
    /// It could not be fetched or verified.
    Broken(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Broken(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Wait => f.write_str("not in memory"),
            Fault::Stale => f.write_str("no such node any more"),
            Fault::Invalid => f.write_str("not possible for this kind of file"),
            Fault::NoAttribute => f.write_str("no such attribute"),
            Fault::Unsupported => f.write_str("no attributes here"),
            Fault::Beyond => f.write_str("behind the end"),
            Fault::Broken(e) => e.fmt(f),
        }
    }
}

/// A copy of an error, for whoever asks again within a few seconds.
pub(super) fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

/// Whether the next attempt may well succeed without anything being repaired.
pub(super) fn passing(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing)
}
