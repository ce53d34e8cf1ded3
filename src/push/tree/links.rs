//! Hard links: the further links of a file take over content and attributes of its first one.

use std::collections::HashMap;

use crate::format::node::{Content, Node, Xattrs};
use crate::format::reference::PackRef;
use crate::push::read::item::Link;
use crate::trees::SelfRefs;

/// Files with links that the walk has not reached yet.
#[derive(Default)]
pub struct Links(HashMap<Link, Linked>);

struct Linked {
    content: Content,
    xattrs: Xattrs,
    flags: u8,
    /// Links that the walk has not reached yet.
    left: u32,
}

impl Links {
    /// Counts one link of a file; remembers the node until the last link.
    pub fn remember(&mut self, link: Link, node: &Node) {
        let left = self.0.remove(&link).map_or(node.nlink, |linked| linked.left).saturating_sub(1);
        if left > 0 {
            let Node { content, xattrs, flags, .. } = node;
            self.0.insert(link, Linked { content: content.clone(), xattrs: xattrs.clone(), flags: *flags, left });
        }
    }

    /// Returns whether the node of a file is remembered.
    pub fn knows(&self, link: &Link) -> bool {
        self.0.contains_key(link)
    }

    /// Fills in a further link of a file. Returns whether the first one is known.
    pub fn fill_in(&self, link: &Link, node: &mut Node) -> bool {
        let Some(first) = self.0.get(link) else { return false };
        node.content.clone_from(&first.content);
        node.xattrs.clone_from(&first.xattrs);
        node.flags = first.flags;
        true
    }
}

impl SelfRefs for Links {
    fn replace_self(&mut self, pack: PackRef) {
        for linked in self.0.values_mut() {
            linked.content.replace_self(pack);
            linked.xattrs.replace_self(pack);
        }
    }
}
