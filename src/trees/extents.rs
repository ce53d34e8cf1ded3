//! The extents of one file in order.

use std::vec;

use super::Trees;
use super::branch::ListBranch;
use crate::context::Context;
use crate::error::Result;
use crate::format::list::List;
use crate::format::node::Content;
use crate::format::reference::Extent;

/// The extents of one file; each page of its reference list is fetched when the walk comes to it.
pub struct Extents<'t> {
    ctx: &'t Context<'t>,
    trees: &'t Trees<'t>,
    /// Pages that are still to be read, the next one last.
    open: Vec<ListBranch>,
    extents: vec::IntoIter<Extent>,
}

impl<'t> Extents<'t> {
    pub(super) fn new(ctx: &'t Context<'t>, trees: &'t Trees<'t>, content: &Content) -> Self {
        let (extents, open) = match content {
            Content::File(extents) => (extents.clone(), Vec::new()),
            Content::Large { size, list } => (Vec::new(), vec![ListBranch::top(*list, *size)]),
            _ => (Vec::new(), Vec::new()),
        };
        Extents { ctx, trees, open, extents: extents.into_iter() }
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Result<Extent>> {
        loop {
            if let Some(extent) = self.extents.next() {
                return Some(Ok(extent));
            }
            let branch = self.open.pop()?;
            match self.trees.list(self.ctx, &branch) {
                Ok(List::Leaf(extents)) => self.extents = extents.into_iter(),
                Ok(List::Upper(rows)) => self.open.extend(rows.iter().rev().map(|row| branch.child(row))),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}
