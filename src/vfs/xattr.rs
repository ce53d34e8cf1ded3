//! Extended attributes: the saved ones, and `user.nfreezer.*`. The latter are never listed, so that no program copies them
//! into a restored tree.

use std::sync::Arc;

use super::attr::Fault;
use super::inode_table::{DirInode, Inode};
use super::pages::Attributes;
use super::view::Role;
use super::{Mode, Vfs};
use crate::format::list::List;
use crate::format::node::{Content, Xattrs};
use crate::format::own;
use crate::format::record::SnapshotId;
use crate::format::reference::{Extent, Ref};
use crate::name::hex;
use crate::trees::ListBranch;

/// Prefix of the attributes that nfreezer adds.
const OWN: &[u8] = b"user.nfreezer.";

impl Vfs {
    /// Returns whether this mount can ever have saved extended attributes.
    pub fn may_have_xattrs(&self) -> bool {
        self.options.at.is_none() || self.has_xattrs()
    }

    /// Returns whether any visible snapshot has extended attributes.
    pub fn has_xattrs(&self) -> bool {
        match &self.options.at {
            Some((snapshot, _)) => snapshot.stats.xattrs > 0,
            None => self.view().time.any_xattrs(),
        }
    }

    fn may_have(&self, snapshot: &SnapshotId) -> bool {
        match &self.options.at {
            Some((snapshot, _)) => snapshot.stats.xattrs > 0,
            None => self.view().time.has_xattrs(snapshot),
        }
    }

    /// Returns the extended attributes of a node. Fails with [`Fault::Unsupported`] if no node has any; programs then stop
    /// asking.
    pub fn xattrs(&self, ino: u64, mode: Mode<'_>) -> Result<Arc<Attributes>, Fault> {
        if !self.has_xattrs() {
            return Err(Fault::Unsupported);
        }
        match self.known_inode(ino) {
            Some(Inode::Dir(dir) | Inode::Entry(dir, _)) if dir.role == Role::Plain && self.may_have(&dir.snapshot) => {
            }
            None if !self.is_view(ino) => return Err(Fault::Stale),
            _ => return Ok(Arc::default()),
        }
        let node = self.with_node(ino, mode, |node| match &node.xattrs {
            Xattrs::Inline(list) if list.iter().all(|(name, _)| own::is_own(name)) => None,
            _ => Some(node.clone()),
        })?;
        node.map_or(Ok(Arc::default()), |node| self.pages.xattrs(&node, mode))
    }

    /// Returns the value of one extended attribute of a node.
    pub fn getxattr(&self, ino: u64, name: &[u8], mode: Mode<'_>) -> Result<Vec<u8>, Fault> {
        let own = name.strip_prefix(OWN);
        match self.xattrs(ino, mode) {
            Ok(list) => {
                if let Ok(at) = list.binary_search_by(|(n, _)| n.as_slice().cmp(name)) {
                    return Ok(list[at].1.clone());
                }
            }
            Err(Fault::Unsupported) if own.is_some() => {}
            Err(fault) => return Err(fault),
        }
        let own = own.ok_or(Fault::NoAttribute)?;
        match self.known_inode(ino) {
            Some(Inode::Dir(dir) | Inode::Entry(dir, _)) if dir.role == Role::Plain => self.own(ino, &dir, own, mode),
            None if !self.is_view(ino) => Err(Fault::Stale),
            _ => Err(Fault::NoAttribute),
        }
    }

    /// Returns the value of an attribute that nfreezer adds.
    fn own(&self, ino: u64, dir: &DirInode, name: &[u8], mode: Mode<'_>) -> Result<Vec<u8>, Fault> {
        let content = |mode| self.with_node(ino, mode, |node| node.content.clone());
        match name {
            b"snapshot" => Ok(dir.snapshot.to_string().into_bytes()),
            b"id" => id(&content(mode)?).map(String::into_bytes).ok_or(Fault::NoAttribute),
            b"stored-size" => match content(mode)? {
                Content::File(extents) => Ok(stored(&extents).to_string().into_bytes()),
                Content::Large { size, list } => Ok(self.stored_size(list, size, mode)?.to_string().into_bytes()),
                _ => Err(Fault::NoAttribute),
            },
            _ => Err(Fault::NoAttribute),
        }
    }

    /// Returns the bytes that the chunks of a reference list take in packs.
    fn stored_size(&self, list: Ref, size: u64, mode: Mode<'_>) -> Result<u64, Fault> {
        let mut open = vec![ListBranch::top(list, size)];
        let mut sum = 0u64;
        while let Some(branch) = open.pop() {
            let page = self.pages.list(&branch.list, mode)?;
            branch.check(&page.list)?;
            match &page.list {
                List::Leaf(extents) => sum = sum.saturating_add(stored(extents)),
                List::Upper(rows) => open.extend(rows.iter().rev().map(|row| branch.child(row))),
            }
        }
        Ok(sum)
    }
}

/// Returns the bytes that these chunks take in packs.
fn stored(extents: &[Extent]) -> u64 {
    extents.iter().map(|e| if let Extent::Data(r) = e { r.stored.into() } else { 0 }).sum()
}

/// Returns the identity of contents: the chunks and holes of a file, the list of a large file, the page of a directory.
fn id(content: &Content) -> Option<String> {
    match content {
        Content::File(extents) => Some(extents.iter().map(extent_id).collect::<Vec<_>>().join("+")),
        Content::Large { list, .. } => Some(format!("list:{}", hex(&list.id.0))),
        Content::Directory(Some(page)) => Some(format!("page:{}", hex(&page.id.0))),
        _ => None,
    }
}

fn extent_id(extent: &Extent) -> String {
    match extent {
        Extent::Data(r) => hex(&r.id.0),
        Extent::Hole(len) => format!("hole:{len}"),
    }
}
