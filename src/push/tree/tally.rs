//! Counts the nodes of the tree that is being assembled.

use super::growth::Growth;
use crate::format::node::{Content, Node, Xattrs};
use crate::format::own;
use crate::format::record::Stats;
use crate::push::read::item::Change;

/// Figures of the tree so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Figures that the snapshot stores; `added` and `stored` stay 0.
    pub stats: Stats,
    /// Files with the same content and attributes as before.
    pub unchanged: u64,
    /// Files that were at another path before.
    pub renamed: u64,
    /// Directories that grew most.
    pub growth: Growth,
}

impl Tally {
    /// Counts a node that is complete when it is added.
    pub fn node(&mut self, node: &Node, change: Change) {
        match &node.content {
            Content::File(_) | Content::Large { .. } => {
                self.stats.files += 1;
                self.stats.bytes += node.content.size();
                match change {
                    Change::New => self.stats.new += 1,
                    Change::Changed => self.stats.changed += 1,
                    Change::Unchanged => self.unchanged += 1,
                    Change::Renamed => self.renamed += 1,
                }
            }
            Content::Directory(_) => self.directory(),
            Content::Unreadable(_) => self.stats.unreadable += 1,
            _ => self.stats.others += 1,
        }
    }

    /// Counts a directory.
    pub fn directory(&mut self) {
        self.stats.directories += 1;
    }

    /// Counts a node of any kind if it has extended attributes that are not attributes of nfreezer.
    pub fn xattrs(&mut self, node: &Node) {
        let has_any = match &node.xattrs {
            Xattrs::Inline(pairs) => pairs.iter().any(|(name, _)| !own::is_own(name)),
            Xattrs::Stored(_) => true,
        };
        self.stats.xattrs += u64::from(has_any);
    }
}
