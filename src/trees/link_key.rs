//! Recognises the names of one file: two saved names belong to one inode if they agree in file system, inode number, change
//! time and contents.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::format::node::{Content, Node};
use crate::format::reference::Extent;

/// The identity of a file with several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    fs: u32,
    inode: u64,
    ctime: i64,
    contents: u64,
}

impl LinkKey {
    /// Returns `None` for a node with one name only.
    pub fn of(node: &Node) -> Option<Self> {
        if node.nlink < 2 {
            return None;
        }
        let mut hash = DefaultHasher::new();
        match &node.content {
            Content::File(extents) => extents.iter().for_each(|e| match e {
                Extent::Data(r) => (1, r.id).hash(&mut hash),
                Extent::Hole(len) => (2, len).hash(&mut hash),
            }),
            Content::Large { size, list } => (3, size, list.id).hash(&mut hash),
            Content::Symlink(target) => (4, target).hash(&mut hash),
            Content::Block(major, minor) => (5, major, minor).hash(&mut hash),
            Content::Char(major, minor) => (6, major, minor).hash(&mut hash),
            Content::Fifo => 7.hash(&mut hash),
            Content::Socket => 8.hash(&mut hash),
            Content::Directory(_) | Content::Unreadable(_) => return None,
        }
        Some(LinkKey { fs: node.attrs.fs, inode: node.inode, ctime: node.ctime, contents: hash.finish() })
    }
}
