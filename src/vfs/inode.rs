//! Inode numbers: 64 bits, stable across remounts, never 0, 1 only for the root.
//!
//! ```text
//! directory  = H("d" || number of its parent || name)        each path of the view has its own
//! snapshot   = H("s" || number of its parent || snapshot id) so `latest` gets new numbers when it moves on
//!              (under a name that is not listed, the parent is the directory of this name)
//! one link   = H("1" || file system || inode || attributes || extended attributes || contents)
//! no inode   = H("m" || number of its parent || name || attributes || extended attributes || contents)
//! more links = H("n" || snapshot id || file system || inode || ctime || contents)
//! ```
//!
//! `H` is `name_hash(3, ..)`, keyed. A file that stays the same keeps its number in all snapshots, and so the kernel's page
//! cache. Two nodes of one snapshot share a number only if they are links of each other: `busybox cp` and `du` take nodes
//! with equal numbers for links, whatever their link counts. Streams and imports have no inode number of a source.
//!
//! With shared numbers ([`super::Options::shared_inodes`]), `one link` and `no inode` are `H("1" || attributes || extended
//! attributes || contents)`: equal files share a number, and so the page cache, wherever they are.
//!
//! The first bits of a number are the place of the contents: 8 bits of the name of the pack, then 8 bits of the offset in
//! it for a file, 16 bits for a directory. `cp` and other programs read a directory in the order of inode numbers, which
//! is then the order on the server. At least 40 bits remain to distinguish nodes at the same place.

use crate::crypto::keys::Keys;
use crate::crypto::seal::BLOCK;
use crate::format::node::{Attrs, Content, Node, Xattrs};
use crate::format::record::SnapshotId;
use crate::format::reference::{Extent, Ref};

/// Inode number of the root.
pub const ROOT: u64 = 1;

/// Returns the number of the directory `name` in the directory `parent`; `page` is its top page.
pub fn directory(keys: &Keys, parent: u64, name: &[u8], page: Option<&Ref>) -> u64 {
    let number = hash(keys, &[b"d".as_slice(), &parent.to_be_bytes(), name].concat());
    let Some(r) = page else { return number };
    let place = u64::from(r.pack.id.0[1]) << 16 | u64::from(r.offset >> 8) & 0xffff;
    above_root(place << 40 | number >> 24)
}

/// Returns the number of the root of a snapshot in the directory `parent`.
pub fn snapshot(keys: &Keys, parent: u64, id: &SnapshotId) -> u64 {
    hash(keys, &[b"s".as_slice(), &parent.to_be_bytes(), &id.0].concat())
}

/// Returns the number of a node, if it depends neither on the snapshot nor on the path, or 0. `shared`: equal files share
/// their numbers.
pub fn fixed(keys: &Keys, node: &Node, shared: bool) -> u64 {
    if node.nlink != 1 || matches!(node.content, Content::Directory(_)) {
        return 0;
    }
    let mut bytes = Vec::with_capacity(128);
    bytes.push(b'1');
    if !shared {
        if node.inode == 0 {
            return 0;
        }
        bytes.extend_from_slice(&node.attrs.fs.to_be_bytes());
        bytes.extend_from_slice(&node.inode.to_be_bytes());
    }
    visible(&mut bytes, node);
    placed(keys, node, &bytes)
}

/// Returns the number of a node that is not a directory and has no fixed number; `parent` is its directory.
pub fn in_directory(keys: &Keys, parent: u64, id: &SnapshotId, node: &Node) -> u64 {
    if node.nlink != 1 {
        return linked(keys, id, node);
    }
    let mut bytes = Vec::with_capacity(128);
    bytes.push(b'm');
    bytes.extend_from_slice(&parent.to_be_bytes());
    put(&mut bytes, &node.name);
    visible(&mut bytes, node);
    placed(keys, node, &bytes)
}

/// Appends bytes that identify the attributes, extended attributes and contents of a node.
fn visible(bytes: &mut Vec<u8>, node: &Node) {
    let Attrs { mode, uid, gid, .. } = &*node.attrs;
    bytes.extend_from_slice(&mode.to_be_bytes());
    bytes.extend_from_slice(&uid.to_be_bytes());
    bytes.extend_from_slice(&gid.to_be_bytes());
    bytes.extend_from_slice(&node.mtime.seconds.to_be_bytes());
    bytes.extend_from_slice(&node.mtime.nanoseconds.to_be_bytes());
    match &node.xattrs {
        Xattrs::Inline(list) => {
            put(bytes, &(list.len() as u32).to_be_bytes());
            for (name, value) in list {
                put(bytes, name);
                put(bytes, value);
            }
        }
        Xattrs::Stored(r) => put(bytes, &r.id.0),
    }
    contents(bytes, &node.content);
}

/// Returns the number of a node with several links.
fn linked(keys: &Keys, id: &SnapshotId, node: &Node) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(b'n');
    bytes.extend_from_slice(&id.0);
    bytes.extend_from_slice(&node.attrs.fs.to_be_bytes());
    bytes.extend_from_slice(&node.inode.to_be_bytes());
    bytes.extend_from_slice(&node.ctime.to_be_bytes());
    contents(&mut bytes, &node.content);
    placed(keys, node, &bytes)
}

/// Appends bytes that identify contents: type and chunks; the type only for a directory.
pub fn contents(bytes: &mut Vec<u8>, content: &Content) {
    let (kind, numbers) = match content {
        Content::File(_) => (1, [0; 2]),
        Content::Large { size, list } => {
            put(bytes, &list.id.0);
            (2, [(*size >> 32) as u32, *size as u32])
        }
        Content::Directory(_) => (3, [0; 2]),
        Content::Symlink(target) => {
            put(bytes, target);
            (4, [0; 2])
        }
        Content::Block(major, minor) => (5, [*major, *minor]),
        Content::Char(major, minor) => (6, [*major, *minor]),
        Content::Fifo => (7, [0; 2]),
        Content::Socket => (8, [0; 2]),
        Content::Unreadable(errno) => (9, [*errno, 0]),
    };
    bytes.push(kind);
    numbers.iter().for_each(|n| bytes.extend_from_slice(&n.to_be_bytes()));
    let Content::File(extents) = content else { return };
    for extent in extents {
        match extent {
            Extent::Data(r) => put(bytes, &r.id.0),
            Extent::Hole(len) => put(bytes, &len.to_be_bytes()),
        }
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
    bytes.extend_from_slice(part);
}

fn placed(keys: &Keys, node: &Node, bytes: &[u8]) -> u64 {
    let number = hash(keys, bytes);
    let Some(r) = first(&node.content) else { return number };
    above_root(u64::from(place(r)) << 48 | number >> 16)
}

/// Returns the first 16 bits of the number of a file or directory whose contents begin at `r`: their place on the server.
pub fn place(r: &Ref) -> u16 {
    u16::from(r.pack.id.0[1]) << 8 | ((r.offset / BLOCK as u32) & 0xff) as u16
}

/// Returns the number of a directory of a snapshot of which single nodes appear in the merged directory `merged`. The
/// kernel never learns it.
pub fn hidden(keys: &Keys, merged: u64, page: &Ref, id: &SnapshotId) -> u64 {
    hash(keys, &[b"h".as_slice(), &merged.to_be_bytes(), &page.id.0, &page.pack.id.0, &id.0].concat())
}

/// Returns a hash of a path, as the key of its history.
pub fn path(keys: &Keys, path: &[Box<[u8]>]) -> u64 {
    let mut bytes = vec![b'p'];
    path.iter().for_each(|name| put(&mut bytes, name));
    hash(keys, &bytes)
}

fn first(content: &Content) -> Option<&Ref> {
    let Content::File(extents) = content else { return None };
    extents.iter().find_map(|e| if let Extent::Data(r) = e { Some(r) } else { None })
}

fn hash(keys: &Keys, bytes: &[u8]) -> u64 {
    above_root(keys.name_hash(3, bytes))
}

fn above_root(number: u64) -> u64 {
    if number <= ROOT { number + 2 } else { number }
}
