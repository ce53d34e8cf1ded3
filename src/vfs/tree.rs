//! Nodes in the pages of a snapshot, by name or by position.

use std::sync::Arc;

use super::attr::Fault;
use super::inode_table::{DirInode, Inode};
use super::pages::Directory;
use super::{Mode, Vfs};
use crate::error::Error;
use crate::format::node::Node;
use crate::format::page::Page;
use crate::format::reference::Ref;
use crate::trees::{self, Branch, Spot, Wanted};

/// A node in a decoded leaf page.
pub(super) struct FoundNode {
    leaf: Arc<Directory>,
    index: usize,
    /// Its position in the directory.
    pub position: u32,
}

impl FoundNode {
    /// Moves to the next node of the page; [`FoundNode::node`] returns `None` after the last.
    pub fn advance(&mut self) {
        self.index += 1;
        self.position += 1;
    }

    /// Returns the node and its inode number; 0 where the number depends on the snapshot or the path.
    pub fn node(&self) -> Option<(&Node, u64)> {
        match &self.leaf.page {
            Page::Leaf(nodes) => Some((nodes.get(self.index)?, *self.leaf.inos.get(self.index)?)),
            Page::Upper(_) => None,
        }
    }
}

impl Vfs {
    /// Returns the node with this inode number, if the kernel knows it.
    pub(super) fn known_inode(&self, ino: u64) -> Option<Inode> {
        self.table().get(ino)
    }

    /// Calls `f` with a node of a snapshot.
    pub(super) fn with_node<T>(&self, ino: u64, mode: Mode<'_>, f: impl FnOnce(&Node) -> T) -> Result<T, Fault> {
        let (dir, position) = match self.known_inode(ino).ok_or(Fault::Stale)? {
            Inode::Dir(dir) if dir.role.merges() => return Err(Fault::Invalid),
            Inode::Entry(dir, position) => (dir, position),
            Inode::Dir(dir) => match (&dir.node, dir.parent) {
                (Some(node), _) => return Ok(f(node)),
                (None, Some((number, position))) => (self.table().get_dir(number).ok_or(Fault::Stale)?, position),
                (None, None) => return Err(Fault::Invalid),
            },
        };
        let at = self.at(&dir, position.into(), mode)?;
        let node = at.as_ref().and_then(FoundNode::node).ok_or_else(|| damaged("it ends too early"))?;
        Ok(f(node.0))
    }

    /// Returns the node at a position of a directory; `None` after the last.
    pub(super) fn at(&self, dir: &DirInode, position: u64, mode: Mode<'_>) -> Result<Option<FoundNode>, Fault> {
        self.descend(dir.page, Wanted::Position(position), mode)
    }

    /// Returns the node of a name in a directory.
    pub(super) fn find(&self, top: Option<Ref>, name: &[u8], mode: Mode<'_>) -> Result<Option<FoundNode>, Fault> {
        self.descend(top, Wanted::Name(name), mode)
    }

    fn descend(&self, top: Option<Ref>, wanted: Wanted<'_>, mode: Mode<'_>) -> Result<Option<FoundNode>, Fault> {
        let Some(top) = top else { return Ok(None) };
        let read = |branch: &Branch| self.pages.directory(&branch.page, mode);
        let Some(Spot { leaf, index, position }) = trees::descend(top, wanted, read)? else { return Ok(None) };
        let position = u32::try_from(position).ok().filter(|p| *p < u32::MAX);
        let position = position.ok_or_else(|| damaged("too many entries"))?;
        Ok(Some(FoundNode { leaf, index, position }))
    }
}

/// Returns the fault for a directory that breaks the rules of the format.
pub(super) fn damaged(why: &str) -> Fault {
    Fault::Broken(Error::damaged(format!("a directory is malformed: {why}")))
}
