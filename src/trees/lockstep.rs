//! Walks the same directory of two or more trees in step.

use super::entries::{Entries, Front};
use crate::crypto::keys::ChunkId;
use crate::error::Result;
use crate::format::node::Node;

/// A name, and the node that each tree has under it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// In the order of the trees.
    pub nodes: Vec<Option<Node>>,
}

impl Step {
    /// Returns the name.
    pub fn name(&self) -> &[u8] {
        self.nodes.iter().flatten().next().map_or(b"", |node| &node.name)
    }
}

/// The names of a directory in two or more trees, ascending. Pages that all of them have in common are neither read nor
/// returned: equal ids stand for equal entries, down to the last byte of every file below.
pub struct Lockstep<'t> {
    sides: Vec<Entries<'t>>,
}

impl<'t> Lockstep<'t> {
    /// Walks these directories, of which nothing was read yet.
    pub fn new(sides: Vec<Entries<'t>>) -> Self {
        Lockstep { sides }
    }

    /// Leaves out the next page if it is the same one on all sides. Returns whether it was.
    fn skip_common(&mut self) -> bool {
        let mut common: Option<ChunkId> = None;
        for side in &mut self.sides {
            match side.front() {
                Some(Front::Page(id, _)) if common.is_none_or(|common| common == id) => common = Some(id),
                _ => return false,
            }
        }
        self.sides.iter_mut().for_each(Entries::skip_page);
        common.is_some()
    }

    /// Returns the sides whose next page must be read before the lowest name is known. Of several
    /// pages that may begin with it, the largest come first, so that a page further down can still turn out to be common.
    fn unread(&mut self) -> Vec<usize> {
        let fronts: Vec<_> = self.sides.iter_mut().map(Entries::front).collect();
        let name = |front: &Option<Front<'_>>| match front {
            Some(Front::Node(name)) => Some(name.to_vec()),
            Some(Front::Page(_, row)) => Some(row.map_or(Vec::new(), |(first, _)| first.to_vec())),
            None => None,
        };
        let lowest = fronts.iter().filter_map(name).min();
        let entries = |front: &Option<Front<'_>>| match front {
            Some(Front::Page(_, row)) if name(front) == lowest => Some(row.map_or(u64::MAX, |(_, count)| count)),
            _ => None,
        };
        let most = fronts.iter().filter_map(entries).max();
        (0..fronts.len()).filter(|i| most.is_some() && entries(&fronts[*i]) == most).collect()
    }

    /// Takes the lowest name from all sides that have it. Every side is at a node, or behind that name.
    fn take(&mut self) -> Option<Step> {
        let names = self.sides.iter_mut().filter_map(|side| match side.front() {
            Some(Front::Node(name)) => Some(name.to_vec()),
            _ => None,
        });
        let lowest = names.min()?;
        let nodes = self.sides.iter_mut().map(|side| match side.front() {
            Some(Front::Node(name)) if name == lowest => side.next_node(),
            _ => None,
        });
        Some(Step { nodes: nodes.collect() })
    }
}

impl Iterator for Lockstep<'_> {
    type Item = Result<Step>;

    /// Returns the next name. After an error the walk continues without the page that could not be read.
    fn next(&mut self) -> Option<Result<Step>> {
        loop {
            if self.skip_common() {
                continue;
            }
            let wanted = self.unread();
            if wanted.is_empty() {
                return self.take().map(Ok);
            }
            for side in wanted {
                if let Err(e) = self.sides[side].open_page() {
                    return Some(Err(e));
                }
            }
        }
    }
}
