//! Directories and nodes of the parents, as the walk meets them beside the directories and files of the disk.

use std::ops::Range;

use crate::context::Context;
use crate::error::Result;
use crate::format::node::{Content, Node};
use crate::format::reference::Ref;
use crate::trees::{Entries, Trees};

/// A node of a parent.
#[derive(Clone)]
pub struct OldNode {
    pub node: Node,
    /// Whether it was at another path.
    pub renamed: bool,
    /// When the push that saved it started, in nanoseconds.
    pub begun: i64,
}

impl OldNode {
    /// Returns the node of the first parent that has one.
    pub fn newest(found: &[Option<OldNode>]) -> Option<Node> {
        Some(found.iter().flatten().next()?.node.clone())
    }
}

/// A directory of a parent, read in the order of names.
pub struct OldDirectory<'r> {
    /// The number of the repository.
    pub destination: usize,
    ctx: &'r Context<'r>,
    trees: &'r Trees<'r>,
    begun: i64,
    renamed: bool,
    entries: Entries<'r>,
}

impl<'r> OldDirectory<'r> {
    /// Opens a directory of the first repository at the same path. `begun`: start of the push that saved it, in nanoseconds.
    pub fn new(ctx: &'r Context<'r>, trees: &'r Trees<'r>, begun: i64, page: Option<Ref>) -> Self {
        OldDirectory {
            destination: 0,
            ctx,
            trees,
            begun,
            renamed: false,
            entries: trees.entries(ctx, page.as_ref()).keeping_pages(),
        }
    }

    /// Opens a directory that was at another path.
    pub fn renamed(ctx: &'r Context<'r>, trees: &'r Trees<'r>, begun: i64, page: Option<Ref>) -> Self {
        OldDirectory { renamed: true, ..OldDirectory::new(ctx, trees, begun, page) }
    }

    /// Makes this a directory of the repository with this number.
    #[must_use]
    pub fn of(self, destination: usize) -> Self {
        OldDirectory { destination, ..self }
    }

    /// Returns the places of the directories of a repository. They follow each other.
    pub fn places(all: &[Self], destination: usize) -> Range<usize> {
        all.partition_point(|old| old.destination < destination)
            ..all.partition_point(|old| old.destination <= destination)
    }

    /// Opens an entry of this directory, if it is a directory.
    pub fn below(&self, entry: &OldNode) -> Option<OldDirectory<'r>> {
        let Content::Directory(page) = entry.node.content else { return None };
        let below = OldDirectory::new(self.ctx, self.trees, self.begun, page);
        Some(OldDirectory { destination: self.destination, renamed: self.renamed, ..below })
    }

    /// Returns the entry of this name. Names must ascend from call to call. If the directory is damaged, no further entry
    /// is found.
    pub fn seek(&mut self, name: &[u8]) -> Result<Option<OldNode>> {
        match self.entries.seek(name) {
            Ok(node) => Ok(node.map(|node| OldNode { node, renamed: self.renamed, begun: self.begun })),
            Err(e) if e.kind().is_damage() => {
                self.entries.clear();
                let text = "a directory of the parent snapshot cannot be read, its files are read again";
                self.ctx.warn(&format!("{text}: {e}"));
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Returns the pages that were read since the last call, each with its first name. The new tree refers to those that
    /// did not change.
    pub fn take_pages(&mut self) -> Vec<(Vec<u8>, Ref)> {
        self.entries.take_pages()
    }
}
