//! Nodes: the entries of directories. How they stand in pages is in [`super::page`].

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
    /// Modification time: seconds since the epoch (before 1970 negative) and nanoseconds below 10^9.
    pub mtime: Time,
    /// Status change time in nanoseconds since the epoch; only compared, to see that a file was not touched.
    pub ctime: i64,
    /// Inode number at the source; only compared.
    pub inode: u64,
    /// Number of links at the source; of a directory: 2 + its subdirectories in the snapshot.
    pub nlink: u32,
    /// Bit 0: the content is an unfinished beginning. Bit 1: it changed while it was read.
    pub flags: u8,
    /// Extended attributes, POSIX ACLs included.
    pub xattrs: Xattrs,
    /// What it is and holds.
    pub content: Content,
}

/// The content is an unfinished beginning (a checkpoint of a push).
pub const PARTIAL: u8 = 1;
/// The file changed while it was read, and what was read last is kept.
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
    /// The owner's name at the source, empty if there was none; at most 255 bytes.
    #[serde(with = "serde_bytes")]
    pub user: Vec<u8>,
    /// The group's name at the source, empty if there was none; at most 255 bytes.
    #[serde(with = "serde_bytes")]
    pub group: Vec<u8>,
    /// Which file system of the snapshot it was on: 0, 1, .. in the order in which they were met.
    pub fs: u32,
}

/// Extended attributes as (name, value), ascending by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Xattrs {
    /// At most [`limits::INLINE_XATTRS`] bytes, here; most nodes have none.
    Inline(Vec<(Vec<u8>, Vec<u8>)>),
    /// In a chunk of kind `Xattrs`, see [`encode_xattrs`].
    Stored(Ref),
}

/// What a node is and holds.
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
    /// A directory and its top page; `None` if it is empty.
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
    /// It was there, but could not be read: the error number. Reported, never shown as a file.
    Unreadable(u32),
}

impl Content {
    /// Size in bytes as `stat` shows it.
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
    /// Checks everything but the name: what fails here is refused by every reader, so a writer must not write it.
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

    /// An upper bound of its bytes in a page; a page is closed before the bounds of its entries pass [`limits::PAGE`].
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

/// Whether a name may stand in a directory.
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

/// The plaintext of a chunk of extended attributes.
pub fn encode_xattrs(list: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    codec::encode(&list.iter().map(|(name, value)| (Bytes::new(name), Bytes::new(value))).collect::<Vec<_>>())
}

/// The inverse of [`encode_xattrs`].
pub fn decode_xattrs(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let list: Vec<(&Bytes, &Bytes)> = codec::decode("a chunk of extended attributes", bytes)?;
    if list.is_empty() || !valid_xattrs(&list, limits::CHUNK) {
        return Err(malformed("a chunk of extended attributes", "out of bounds"));
    }
    Ok(list.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}
