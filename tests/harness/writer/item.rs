//! The trees that a [`super::Writer`] writes.

use std::collections::BTreeMap;

use nfreezer::format::node::Content;
use nfreezer::time::Time;

#[derive(Clone, Debug)]
pub enum Segment {
    Bytes(Vec<u8>),
    /// [`noise`](super::noise) with a seed and a length, generated chunk by chunk.
    Noise(u64, u64),
    Hole(u64),
}

#[derive(Clone, Debug)]
pub enum Body {
    File(Vec<Segment>),
    Directory(BTreeMap<Vec<u8>, Item>),
    /// A node that is complete without contents.
    Other(Content),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub body: Body,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub inode: u64,
    pub nlink: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Item {
    pub fn new(body: Body) -> Item {
        let mode = if matches!(body, Body::Directory(_)) { 0o755 } else { 0o644 };
        Item { body, mode, uid: 0, gid: 0, mtime: Time::new(1_700_000_000, 5), inode: 0, nlink: 1, xattrs: Vec::new() }
    }

    pub fn file(bytes: impl AsRef<[u8]>) -> Item {
        let bytes = bytes.as_ref().to_vec();
        Item::new(Body::File(if bytes.is_empty() { Vec::new() } else { vec![Segment::Bytes(bytes)] }))
    }

    /// Makes a link, a device, a pipe, a socket or an unreadable file.
    pub fn other(content: Content) -> Item {
        Item::new(Body::Other(content))
    }

    pub fn dir<N: Into<Vec<u8>>>(entries: impl IntoIterator<Item = (N, Item)>) -> Item {
        Item::new(Body::Directory(entries.into_iter().map(|(name, item)| (name.into(), item)).collect()))
    }
}
