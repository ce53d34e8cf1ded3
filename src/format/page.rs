//! Directories: pages of nodes in strictly ascending byte order of their names.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use super::codec::{self, malformed};
use super::limits;
use super::node::{Attrs, Content, Node, Xattrs, valid_name};
use super::reference::{PackRef, PackTable, Ref, WireExtent, WireRef};
use crate::crypto::keys::Keys;
use crate::error::Result;
use crate::time::Time;

/// A page of a directory. Never empty.
#[derive(Clone, Debug, PartialEq)]
pub enum Page {
    /// A leaf: nodes of the directory.
    Leaf(Vec<Node>),
    /// An upper page: rows that refer to pages below.
    Upper(Vec<Row>),
}

/// A row of an upper page.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// First name in the page below.
    pub first: Vec<u8>,
    /// Number of nodes below.
    pub count: u64,
    /// The page below.
    pub page: Ref,
}

/// Returns whether a page ends after the entry `name`, its `entries`-th. From the 128th entry on a PRF of the name
/// decides with a probability of 1 in 512, so that one changed entry changes one page of each level.
pub fn page_ends(keys: &Keys, entries: usize, name: &[u8]) -> bool {
    entries >= 128 && keys.name_hash(1, name) & 511 == 0
}

#[derive(Serialize, Deserialize)]
struct WirePage<'a> {
    packs: Vec<PackRef>,
    attrs: Vec<Attrs>,
    #[serde(borrow)]
    rows: WireRows<'a>,
}

#[derive(Serialize, Deserialize)]
enum WireRows<'a> {
    #[serde(borrow)]
    Leaf(Vec<WireNode<'a>>),
    #[serde(borrow)]
    Upper(Vec<(&'a Bytes, u64, WireRef)>),
}

/// Times and inode numbers are differences to the previous node (to 0 for the first), in wrapping arithmetic.
#[derive(Serialize, Deserialize)]
struct WireNode<'a> {
    #[serde(borrow)]
    name: &'a Bytes,
    attrs: u32,
    mtime: i64,
    mtime_ns: u32,
    ctime: i64,
    inode: i64,
    #[serde(borrow)]
    extra: Option<WireExtra<'a>>,
    #[serde(borrow)]
    content: WireContent<'a>,
}

/// Absent for a node with one link, no flags and no extended attributes.
#[derive(Serialize, Deserialize)]
struct WireExtra<'a> {
    nlink: u32,
    flags: u8,
    #[serde(borrow)]
    xattrs: WireXattrs<'a>,
}

#[derive(Serialize, Deserialize)]
enum WireXattrs<'a> {
    #[serde(borrow)]
    Inline(Vec<(&'a Bytes, &'a Bytes)>),
    Stored(WireRef),
}

#[derive(Serialize, Deserialize)]
enum WireContent<'a> {
    File(Vec<WireExtent>),
    Large(u64, WireRef),
    Directory(Option<WireRef>),
    #[serde(borrow)]
    Symlink(&'a Bytes),
    Block(u32, u32),
    Char(u32, u32),
    Fifo,
    Socket,
    Unreadable(u32),
}

#[derive(Default)]
struct Previous {
    mtime: i64,
    ctime: i64,
    inode: u64,
}

impl Page {
    /// Encodes the page as a chunk of the pack `own` ([`PackRef::SELF`] for an open pack).
    pub fn encode(&self, own: &PackRef) -> Vec<u8> {
        let (mut packs, mut attrs) = (PackTable::new(), Vec::new());
        let rows = match self {
            Page::Leaf(nodes) => {
                let mut previous = Previous::default();
                WireRows::Leaf(nodes.iter().map(|n| wire_node(n, &mut packs, &mut attrs, &mut previous)).collect())
            }
            Page::Upper(rows) => {
                WireRows::Upper(rows.iter().map(|r| (Bytes::new(&r.first), r.count, packs.encode(&r.page))).collect())
            }
        };
        codec::encode(&WirePage { packs: packs.rows(own), attrs: attrs.into_iter().cloned().collect(), rows })
    }

    /// Inverts [`Page::encode`]. Refuses all other bytes.
    pub fn decode(bytes: &[u8], own: &PackRef) -> Result<Self> {
        let wrong = |why| malformed("a directory page", why);
        if bytes.len() > limits::PAGE {
            return Err(wrong("it is too long"));
        }
        let wire: WirePage<'_> = postcard::from_bytes(bytes).map_err(|_| wrong("it does not parse"))?;
        let mut packs = PackTable::read(wire.packs, own);
        let attrs: Vec<_> = wire.attrs.into_iter().map(Arc::new).collect();
        let page = match &wire.rows {
            WireRows::Leaf(nodes) => {
                let mut previous = Previous::default();
                let nodes = nodes.iter().map(|w| read_node(w, &mut packs, &attrs, &mut previous));
                Page::Leaf(nodes.collect::<Result<_>>()?)
            }
            WireRows::Upper(rows) => {
                let row = |(first, count, page): &(&Bytes, u64, WireRef)| {
                    Ok(Row { first: first.to_vec(), count: *count, page: packs.decode(page)? })
                };
                Page::Upper(rows.iter().map(row).collect::<Result<_>>()?)
            }
        };
        page.check()?;
        if page.encode(own) != bytes {
            return Err(wrong("not in canonical form"));
        }
        Ok(page)
    }

    /// Returns the first name in the page.
    pub fn first(&self) -> &[u8] {
        match self {
            Page::Leaf(nodes) => &nodes[0].name,
            Page::Upper(rows) => &rows[0].first,
        }
    }

    /// Returns the last name in the page. For an upper page this is the first name of the last page below.
    pub fn last(&self) -> &[u8] {
        match self {
            Page::Leaf(nodes) => &nodes[nodes.len() - 1].name,
            Page::Upper(rows) => &rows[rows.len() - 1].first,
        }
    }

    /// Returns the number of nodes in and below the page.
    pub fn count(&self) -> u64 {
        match self {
            Page::Leaf(nodes) => nodes.len() as u64,
            Page::Upper(rows) => rows.iter().fold(0, |sum, row| sum.saturating_add(row.count)),
        }
    }

    fn check(&self) -> Result<()> {
        let wrong = |why| malformed("a directory page", why);
        let names: Vec<&[u8]> = match self {
            Page::Leaf(nodes) => nodes.iter().map(|n| n.name.as_slice()).collect(),
            Page::Upper(rows) => rows.iter().map(|r| r.first.as_slice()).collect(),
        };
        if names.is_empty() || !names.iter().all(|n| valid_name(n)) || !names.is_sorted_by(|a, b| a < b) {
            return Err(wrong("its names"));
        }
        match self {
            Page::Leaf(nodes) => nodes.iter().try_for_each(Node::check),
            Page::Upper(rows) if rows.iter().any(|r| r.count == 0) => Err(wrong("an empty page below it")),
            Page::Upper(_) => Ok(()),
        }
    }
}

fn wire_node<'a>(
    n: &'a Node,
    packs: &mut PackTable,
    table: &mut Vec<&'a Attrs>,
    previous: &mut Previous,
) -> WireNode<'a> {
    let attrs = table.iter().rposition(|a| **a == *n.attrs).unwrap_or_else(|| {
        table.push(&n.attrs);
        table.len() - 1
    });
    let plain = n.nlink == 1 && n.flags == 0 && n.xattrs == Xattrs::Inline(Vec::new());
    let extra = (!plain).then(|| WireExtra {
        nlink: n.nlink,
        flags: n.flags,
        xattrs: match &n.xattrs {
            Xattrs::Inline(list) => {
                WireXattrs::Inline(list.iter().map(|(k, v)| (Bytes::new(k), Bytes::new(v))).collect())
            }
            Xattrs::Stored(r) => WireXattrs::Stored(packs.encode(r)),
        },
    });
    let content = match &n.content {
        Content::File(extents) => WireContent::File(extents.iter().map(|e| packs.encode_extent(e)).collect()),
        Content::Large { size, list } => WireContent::Large(*size, packs.encode(list)),
        Content::Directory(page) => WireContent::Directory(page.as_ref().map(|p| packs.encode(p))),
        Content::Symlink(target) => WireContent::Symlink(Bytes::new(target)),
        Content::Block(major, minor) => WireContent::Block(*major, *minor),
        Content::Char(major, minor) => WireContent::Char(*major, *minor),
        Content::Fifo => WireContent::Fifo,
        Content::Socket => WireContent::Socket,
        Content::Unreadable(errno) => WireContent::Unreadable(*errno),
    };
    let wire = WireNode {
        name: Bytes::new(&n.name),
        attrs: attrs as u32,
        mtime: n.mtime.seconds.wrapping_sub(previous.mtime),
        mtime_ns: n.mtime.nanoseconds,
        ctime: n.ctime.wrapping_sub(previous.ctime),
        inode: n.inode.wrapping_sub(previous.inode) as i64,
        extra,
        content,
    };
    *previous = Previous { mtime: n.mtime.seconds, ctime: n.ctime, inode: n.inode };
    wire
}

fn read_node(w: &WireNode<'_>, packs: &mut PackTable, table: &[Arc<Attrs>], previous: &mut Previous) -> Result<Node> {
    let attrs = table.get(w.attrs as usize).ok_or_else(|| malformed("a directory entry", "its attributes"))?;
    let xattrs = match w.extra.as_ref().map(|e| &e.xattrs) {
        None => Xattrs::Inline(Vec::new()),
        Some(WireXattrs::Inline(list)) => Xattrs::Inline(list.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect()),
        Some(WireXattrs::Stored(r)) => Xattrs::Stored(packs.decode(r)?),
    };
    let content = match &w.content {
        WireContent::File(extents) => {
            Content::File(extents.iter().map(|e| packs.decode_extent(e)).collect::<Result<_>>()?)
        }
        WireContent::Large(size, list) => Content::Large { size: *size, list: packs.decode(list)? },
        WireContent::Directory(page) => Content::Directory(page.as_ref().map(|p| packs.decode(p)).transpose()?),
        WireContent::Symlink(target) => Content::Symlink(target.to_vec()),
        WireContent::Block(major, minor) => Content::Block(*major, *minor),
        WireContent::Char(major, minor) => Content::Char(*major, *minor),
        WireContent::Fifo => Content::Fifo,
        WireContent::Socket => Content::Socket,
        WireContent::Unreadable(errno) => Content::Unreadable(*errno),
    };
    let node = Node {
        name: w.name.to_vec(),
        attrs: Arc::clone(attrs),
        mtime: Time::new(previous.mtime.wrapping_add(w.mtime), w.mtime_ns),
        ctime: previous.ctime.wrapping_add(w.ctime),
        inode: previous.inode.wrapping_add(w.inode as u64),
        nlink: w.extra.as_ref().map_or(1, |e| e.nlink),
        flags: w.extra.as_ref().map_or(0, |e| e.flags),
        xattrs,
        content,
    };
    *previous = Previous { mtime: node.mtime.seconds, ctime: node.ctime, inode: node.inode };
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::ChunkId;
    use crate::name::ObjectId;

    #[test]
    fn a_page_knows_its_names_and_entries() {
        let pack = PackRef { id: ObjectId([7; 32]), len: 1 << 20 };
        let page = Ref { id: ChunkId([1; 16]), pack, offset: 0, stored: 9, len: 9 };
        let row = |first: &str, count| Row { first: first.into(), count, page };
        let upper = Page::Upper(vec![row("a", 200), row("k", u64::MAX), row("m", 1)]);
        assert_eq!((upper.first(), upper.last(), upper.count()), (b"a".as_slice(), b"m".as_slice(), u64::MAX));
        let attrs = Attrs { mode: 0, uid: 0, gid: 0, user: Vec::new(), group: Vec::new(), fs: 0 };
        let node = |name: &str| Node {
            name: name.into(),
            attrs: Arc::new(attrs.clone()),
            mtime: Time::new(0, 0),
            ctime: 0,
            inode: 0,
            nlink: 1,
            flags: 0,
            xattrs: Xattrs::Inline(Vec::new()),
            content: Content::Fifo,
        };
        let leaf = Page::Leaf(["b", "c", "d"].map(node).into());
        assert_eq!((leaf.first(), leaf.last(), leaf.count()), (b"b".as_slice(), b"d".as_slice(), 3));
    }
}
