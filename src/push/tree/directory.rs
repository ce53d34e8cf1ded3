//! A directory of the new tree between its beginning and its end.

use crate::format::node::{Content, Node, Xattrs};
use crate::format::page::Page;
use crate::format::reference::{PackRef, Ref};
use crate::trees::{Directory, SelfRefs};

/// A directory whose nodes are being added.
#[derive(Clone)]
pub struct OpenDirectory {
    /// The directory itself; `None` for the root.
    pub node: Option<Node>,
    /// It only leads to sources.
    pub passage: bool,
    /// The same directory in the snapshot before.
    pub old: Option<Node>,
    /// Pages of it in earlier snapshots, by their first name.
    pub pages: Vec<(Vec<u8>, Ref)>,
    pub directories: u32,
    /// Bytes of new contents in and below it, see [`super::growth`].
    pub grown: u64,
    /// Its open pages.
    pub entries: Directory,
}

impl OpenDirectory {
    pub fn new(node: Option<Node>, passage: bool, old: Option<Node>) -> Self {
        let (pages, entries) = Default::default();
        OpenDirectory { node, passage, old, pages, directories: 0, grown: 0, entries }
    }
}

impl SelfRefs for OpenDirectory {
    fn replace_self(&mut self, pack: PackRef) {
        self.node.iter_mut().for_each(|node| node.replace_self(pack));
        self.entries.replace_self(pack);
    }
}

/// Returns the path of an entry of the directory on top of the stack.
pub fn path(stack: &[OpenDirectory], name: &[u8]) -> Vec<u8> {
    let directories = stack.iter().filter_map(|directory| directory.node.as_ref()).map(|node| node.name.as_slice());
    directories.chain([name]).flat_map(|name| [b"/", name].concat()).collect()
}

/// Returns the metadata packs that a page refers to.
pub fn meta_packs(page: &Page) -> Box<dyn Iterator<Item = PackRef> + '_> {
    match page {
        Page::Upper(rows) => Box::new(rows.iter().map(|row| row.page.pack)),
        Page::Leaf(nodes) => Box::new(nodes.iter().flat_map(|node| {
            let content = match &node.content {
                Content::Large { list: r, .. } | Content::Directory(Some(r)) => Some(r.pack),
                _ => None,
            };
            let xattrs = match &node.xattrs {
                Xattrs::Stored(r) => Some(r.pack),
                Xattrs::Inline(_) => None,
            };
            content.into_iter().chain(xattrs)
        })),
    }
}
