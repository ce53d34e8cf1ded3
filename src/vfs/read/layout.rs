//! The layout of a file: from positions in the file to extents, and from there to chunks.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Kind};
use crate::format::list::List;
use crate::format::node::{Content, Node};
use crate::format::reference::{Extent, Ref};
use crate::trees::ListBranch;
use crate::vfs::attr::Fault;
use crate::vfs::inode_table::Inode;
use crate::vfs::pages::Extents;
use crate::vfs::{Mode, Vfs};

/// The places of the contents of one file.
pub(super) struct FileLayout {
    /// Inode number of the directory in which the file was first seen.
    pub dir: u64,
    /// Position in that directory.
    pub position: u32,
    /// Bytes of the file.
    pub size: u64,
    root: ExtentsRoot,
}

enum ExtentsRoot {
    Inline(Arc<Extents>),
    List(Ref),
}

/// A part of a read, from one extent.
pub(super) enum Segment {
    /// Zero bytes.
    Hole(usize),
    /// A range of a chunk's plaintext.
    Chunk(Ref, Range<u32>),
}

impl Segment {
    /// Returns its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Segment::Hole(len) => *len,
            Segment::Chunk(_, part) => part.len(),
        }
    }
}

impl FileLayout {
    /// Returns the layout of a node; `None` if it is not a file.
    pub fn of(dir: u64, position: u32, node: &Node) -> Option<FileLayout> {
        let root = extents_root(&node.content)?;
        Some(FileLayout { dir, position, size: node.content.size(), root })
    }
}

impl Vfs {
    /// Returns the layout of a file.
    pub(super) fn layout(&self, ino: u64, mode: Mode) -> Result<Arc<FileLayout>, Fault> {
        if let Some(file) = self.contents.layouts.lock().expect("no holder panics").get(&ino) {
            return Ok(Arc::clone(file));
        }
        let (dir, position) = match self.known_inode(ino) {
            Some(Inode::Entry(dir, position)) => (dir.attr.ino, position),
            _ => (ino, 0),
        };
        let file = self.with_node(ino, mode, |node| FileLayout::of(dir, position, node))?;
        let file = Arc::new(file.ok_or(Fault::Invalid)?);
        self.contents.layouts.lock().expect("no holder panics").put(ino, Arc::clone(&file));
        Ok(file)
    }

    /// Returns the leaf of the reference list that holds a position, and the position in the file at which it begins.
    pub(super) fn list_leaf(&self, file: &FileLayout, position: u64, mode: Mode) -> Result<(Arc<Extents>, u64), Fault> {
        let list = match &file.root {
            ExtentsRoot::Inline(leaf) => return Ok((Arc::clone(leaf), 0)),
            ExtentsRoot::List(list) => *list,
        };
        let (mut branch, mut base) = (ListBranch::top(list, file.size), 0);
        loop {
            let page = self.pages.list(&branch.list, mode)?;
            branch.check(&page.list)?;
            if position - base >= branch.span {
                return Err(malformed_list());
            }
            let List::Upper(rows) = &page.list else { return Ok((page, base)) };
            let row = page.ends.partition_point(|end| base + end <= position);
            branch = branch.child(rows.get(row).ok_or_else(malformed_list)?);
            base += if row > 0 { page.ends[row - 1] } else { 0 };
        }
    }

    /// Returns the segments that make up a range of a file.
    pub(super) fn segments(&self, file: &FileLayout, range: Range<u64>, mode: Mode) -> Result<Vec<Segment>, Fault> {
        let mut segments = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (leaf, base) = self.list_leaf(file, at, mode)?;
            let (List::Leaf(extents), ends) = (&leaf.list, &leaf.ends) else { return Err(malformed_list()) };
            let before = at;
            for i in ends.partition_point(|end| base + end <= at)..extents.len() {
                let start = base + ends[i] - extents[i].len();
                let end = (base + ends[i]).min(range.end);
                segments.push(match &extents[i] {
                    Extent::Hole(_) => Segment::Hole((end - at) as usize),
                    Extent::Data(r) => Segment::Chunk(*r, (at - start) as u32..(end - start) as u32),
                });
                at = end;
                if at >= range.end {
                    break;
                }
            }
            if at == before {
                return Err(malformed_list());
            }
        }
        Ok(segments)
    }
}

fn extents_root(content: &Content) -> Option<ExtentsRoot> {
    match content {
        Content::File(extents) => Some(ExtentsRoot::Inline(Arc::new(Extents::new(List::Leaf(extents.clone()))))),
        Content::Large { list, .. } => Some(ExtentsRoot::List(*list)),
        _ => None,
    }
}

pub(super) fn malformed_list() -> Fault {
    Fault::Broken(Error::new(Kind::Damaged, "the reference list of a file does not cover its size"))
}
