//! Nodes: the entries of directories. [`super::page`] encodes them in pages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use super::codec::{self, malformed};
use super::limits;
use super::reference::{Extent, Ref};
use crate::error::Result;
use crate::time::Time;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// 1 to 255 bytes, none of them `/` or NUL; not `.` or `..`.
    pub name: Vec<u8>,
    /// Mode and owner; most nodes of a directory share one.
    pub attrs: Arc<Attrs>,
    /// Modification time.
    pub mtime: Time,
    /// Status change time in nanoseconds since the epoch. Only compared, to detect changed files.
    pub ctime: i64,
    /// Inode number at the source. Only compared.
    pub inode: u64,
    /// Number of links at the source. For a directory: 2 + its subdirectories in the snapshot.
    pub nlink: u32,
    /// Bit 0: [`PARTIAL`]. Bit 1: [`CHANGED`].
    pub flags: u8,
    /// Extended attributes, POSIX ACLs included.
    pub xattrs: Xattrs,
    /// Type and content.
    pub content: Content,
}

/// The content is only the beginning of the file (in a checkpoint of a push).
pub const PARTIAL: u8 = 1;
/// The file changed while it was read. The content is the one that was read last.
pub const CHANGED: u8 = 2;

/// Mode and owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attrs {
    /// The twelve permission bits.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Name of the owner at the source, empty if unknown; at most 255 bytes.
    #[serde(with = "serde_bytes")]
    pub user: Vec<u8>,
    /// Name of the group at the source, empty if unknown; at most 255 bytes.
    #[serde(with = "serde_bytes")]
    pub group: Vec<u8>,
    /// Number of the file system within the snapshot: 0, 1, .. in the order of the walk.
    pub fs: u32,
}

/// Extended attributes as (name, value), ascending by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Xattrs {
    /// In the node: at most [`limits::INLINE_XATTRS`] bytes, empty for most nodes.
    Inline(Vec<(Vec<u8>, Vec<u8>)>),
    /// In a chunk of kind `Xattrs`, see [`encode_xattrs`].
    Stored(Ref),
}

/// Type and content of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A file of at most [`limits::INLINE_EXTENTS`] extents; its size is their sum.
    File(Vec<Extent>),
    /// A file of more extents: its size and its reference list.
    Large {
        /// Bytes, holes included.
        size: u64,
        /// The top page of the list.
        list: Ref,
    },
    /// A directory with its top page; `None` for an empty one.
    Directory(Option<Ref>),
    /// The target of a symbolic link, at most [`limits::TARGET`] bytes.
    Symlink(Vec<u8>),
    /// A block device: major, minor.
    Block(u32, u32),
    /// A character device: major, minor.
    Char(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A source file that could not be read, with the error number. Reported, never shown as a file.
    Unreadable(u32),
}

impl Content {
    /// Returns whether it is a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self, Content::File(_) | Content::Large { .. })
    }

    /// Returns the size in bytes as `stat` shows it.
    pub fn size(&self) -> u64 {
        match self {
            Content::File(extents) => extents.iter().fold(0, |sum, e| sum.saturating_add(e.len())),
            Content::Large { size, .. } => *size,
            Content::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }
}

impl Node {
    /// Checks all fields except the name. Readers refuse a node that fails, so writers must not write one.
    pub fn check(&self) -> Result<()> {
        let short = |name: &[u8]| name.len() <= limits::NAME;
        let fits = self.mtime.is_valid()
            && self.nlink > 0
            && self.flags <= PARTIAL | CHANGED
            && self.attrs.mode <= 0o7777
            && short(&self.attrs.user)
            && short(&self.attrs.group)
            && self.content.size() <= limits::FILE
            && match &self.content {
                Content::File(list) => list.len() <= limits::INLINE_EXTENTS && list.iter().all(|e| !e.is_empty()),
                Content::Large { size, .. } => *size > 0,
                Content::Symlink(target) => (1..=limits::TARGET).contains(&target.len()) && !target.contains(&0),
                _ => true,
            };
        let xattrs = match &self.xattrs {
            Xattrs::Inline(list) => valid_xattrs(list, limits::INLINE_XATTRS),
            Xattrs::Stored(_) => true,
        };
        if fits && xattrs { Ok(()) } else { Err(malformed("a directory entry", "out of bounds")) }
    }

    /// Returns an upper bound of the bytes of the node in a page. A page ends before the sum of these bounds exceeds
    /// [`limits::PAGE`].
    pub fn weight(&self) -> usize {
        const REF: usize = 16 + 5 + 6 + 5 + 5 + 37 + 1;
        let content = match &self.content {
            Content::File(extents) => 2 + REF * extents.len(),
            Content::Symlink(target) => 4 + target.len(),
            _ => 12 + REF,
        };
        let xattrs = match &self.xattrs {
            Xattrs::Inline(list) => list.iter().map(|(name, value)| 6 + name.len() + value.len()).sum(),
            Xattrs::Stored(_) => REF,
        };
        60 + self.name.len() + self.attrs.user.len() + self.attrs.group.len() + 20 + content + xattrs
    }
}

/// Returns whether a directory entry may have this name.
pub fn valid_name(name: &[u8]) -> bool {
    (1..=limits::NAME).contains(&name.len())
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

fn valid_xattrs<B: AsRef<[u8]>>(list: &[(B, B)], most: usize) -> bool {
    let names = || list.iter().map(|(name, _)| name.as_ref());
    names().all(|name| (1..=limits::NAME).contains(&name.len()) && !name.contains(&0))
        && names().is_sorted_by(|a, b| a < b)
        && list.iter().map(|(name, value)| name.as_ref().len() + value.as_ref().len()).sum::<usize>() <= most
}

/// Encodes a chunk of extended attributes.
pub fn encode_xattrs(list: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    codec::encode(&list.iter().map(|(name, value)| (Bytes::new(name), Bytes::new(value))).collect::<Vec<_>>())
}

/// Inverts [`encode_xattrs`].
pub fn decode_xattrs(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let list: Vec<(&Bytes, &Bytes)> = codec::decode("a chunk of extended attributes", bytes)?;
    if list.is_empty() || !valid_xattrs(&list, limits::CHUNK) {
        return Err(malformed("a chunk of extended attributes", "out of bounds"));
    }
    Ok(list.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}
