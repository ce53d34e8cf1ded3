//! Attributes of nodes as `stat` shows them, and the faults of operations.

use std::fmt;

use crate::acl;
use crate::error::{Error, Kind as ErrorKind};
use crate::format::node::{Content, Node, Xattrs};
use crate::format::reference::Extent;
use crate::time::Time;

/// The type of a node.
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

/// The attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number, see [`super::inode`].
    pub ino: u64,
    /// Type.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u16,
    /// Number of links; 1 for a directory whose number of subdirectories is not known.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Stored units of 512 bytes, without holes.
    pub blocks: u64,
    /// Modification time; also shown as access time and change time.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// The way in which owners and rights are shown.
#[derive(Clone, Copy, Default)]
pub struct Rights {
    /// Replaces user and group.
    pub owner: Option<(u32, u32)>,
    /// The kernel decides about access by the mode alone. Then the mode is limited to the rights that the ACL granted.
    pub by_mode: bool,
}

impl Rights {
    fn mode(self, node: &Node) -> u16 {
        let mode = node.attrs.mode;
        if !self.by_mode {
            return mode;
        }
        match &node.xattrs {
            Xattrs::Inline(list) => {
                let acl = list.iter().find(|(name, _)| name == acl::ACCESS);
                acl.map_or(mode, |(_, value)| acl::mode_without_acl(mode, value))
            }
            // An ACL may be among them, and to read it for each `stat` would be slow.
            Xattrs::Stored(_) => mode & !0o077,
        }
    }
}

impl Attr {
    /// Returns the attributes of a node.
    pub fn of(node: &Node, ino: u64, rights: Rights) -> Attr {
        let size = node.content.size();
        let (kind, blocks, device) = match &node.content {
            Content::File(extents) => (Kind::File, stored(extents).div_ceil(512), (0, 0)),
            // Only the reference list knows the holes, and reading it for each `ls` would be slow. With one block less
            // than full, `cp` and `tar` search for holes (`lseek`).
            Content::Large { size, .. } => (Kind::File, (size / 512).saturating_sub(1), (0, 0)),
            Content::Directory(_) => (Kind::Directory, 0, (0, 0)),
            Content::Symlink(_) => (Kind::Symlink, 0, (0, 0)),
            Content::Block(major, minor) => (Kind::Block, 0, (*major, *minor)),
            Content::Char(major, minor) => (Kind::Char, 0, (*major, *minor)),
            Content::Fifo => (Kind::Fifo, 0, (0, 0)),
            Content::Socket | Content::Unreadable(_) => (Kind::Socket, 0, (0, 0)),
        };
        let (uid, gid) = rights.owner.unwrap_or((node.attrs.uid, node.attrs.gid));
        let (mode, nlink, mtime) = (rights.mode(node), node.nlink, node.mtime);
        Attr { ino, kind, mode, nlink, uid, gid, size, blocks, mtime, device }
    }
}

fn stored(extents: &[Extent]) -> u64 {
    extents.iter().map(|e| if let Extent::Data(r) = e { r.len.into() } else { 0 }).sum()
}

/// Size of the file system, for `statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of the files in the newest snapshot.
    pub bytes: u64,
    /// Nodes in the newest snapshot.
    pub nodes: u64,
}

/// The reason why an operation has no answer. Errors of the network and of verification are always [`Fault::Broken`].
#[derive(Debug)]
pub enum Fault {
    /// The answer is not in memory: repeat the operation with [`super::Mode::Fetch`].
    Wait,
    /// No node has this inode number any more: its snapshot has left the view.
    Stale,
    /// The operation is not possible for this type of node.
    Invalid,
    /// The node has no extended attribute with this name.
    NoAttribute,
    /// No node of this mount has extended attributes.
    Unsupported,
    /// There is neither data nor a hole after this offset.
    Beyond,
    /// The content could not be fetched or verified.
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
            Fault::Stale => f.write_str("the node does not exist any more"),
            Fault::Invalid => f.write_str("not possible for this type of file"),
            Fault::NoAttribute => f.write_str("no such extended attribute"),
            Fault::Unsupported => f.write_str("no extended attributes in this mount"),
            Fault::Beyond => f.write_str("offset after the last data or hole"),
            Fault::Broken(e) => e.fmt(f),
        }
    }
}

/// Returns a copy of an error, for a repetition of the failed operation.
pub(super) fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

/// Returns whether another attempt may succeed without a repair.
pub fn passing(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing)
}
