//! The reference list of a file with more extents than fit into its node: written as it grows, bottom-up.

use crate::crypto::keys::ChunkId;
use crate::error::{Error, Result};
use crate::format::list::List;
use crate::format::reference::{Extent, PackRef, Ref};
use crate::trees::SelfRefs;

/// Decides where a page ends whose last extent is a hole: only where the page is full, because [`List::ends`] is never
/// true earlier for this id.
const HOLE: Ref = Ref { id: ChunkId([0xff; 16]), pack: PackRef::SELF, offset: 0, stored: 1, len: 1 };

/// The open pages of a reference list, the leaf first.
#[derive(Default)]
pub struct OpenList {
    levels: Vec<List>,
}

/// The next step after the last extent.
pub enum End {
    /// Write the open page of this level.
    Write(usize),
    /// Nothing: this is the top page.
    Complete(Ref),
}

impl OpenList {
    /// Appends an extent. Returns the level whose page ends with it, to be written next.
    pub fn push(&mut self, extent: Extent) -> Result<Option<usize>> {
        if self.levels.is_empty() {
            self.levels.push(List::Leaf(Vec::new()));
        }
        let Some(List::Leaf(extents)) = self.levels.first_mut() else { return Err(out_of_shape()) };
        extents.push(extent);
        let last = if let Extent::Data(r) = &extent { r } else { &HOLE };
        Ok(List::ends(extents.len() - 1, last).then_some(0))
    }

    /// Returns the open page of this level.
    pub fn page(&self, level: usize) -> &List {
        &self.levels[level]
    }

    /// Replaces the open page of this level, which was written as `page`, by a row of the level above. Returns that level
    /// if its page ends here.
    pub fn replace(&mut self, level: usize, page: Ref) -> Result<Option<usize>> {
        let list = &mut self.levels[level];
        let span = list.span();
        match list {
            List::Leaf(extents) => extents.clear(),
            List::Upper(rows) => rows.clear(),
        }
        if self.levels.len() == level + 1 {
            self.levels.push(List::Upper(Vec::new()));
        }
        let List::Upper(rows) = &mut self.levels[level + 1] else { return Err(out_of_shape()) };
        rows.push((span, page));
        Ok(List::ends(rows.len() - 1, &page).then_some(level + 1))
    }

    /// Returns the next step after the last extent. A complete list is emptied.
    pub fn end(&mut self) -> Result<End> {
        let lowest = self.levels.iter().position(|list| rows(list) > 0).ok_or_else(out_of_shape)?;
        if let (List::Upper(top), true) = (&self.levels[lowest], lowest + 1 == self.levels.len())
            && let [(_, page)] = top[..]
        {
            self.levels.clear();
            return Ok(End::Complete(page));
        }
        Ok(End::Write(lowest))
    }
}

impl SelfRefs for OpenList {
    fn replace_self(&mut self, pack: PackRef) {
        self.levels.iter_mut().for_each(|list| list.replace_self(pack));
    }
}

/// Returns the pack of the last page that a page of a list refers to; `None` for a leaf.
pub fn last_pack(list: &List) -> Option<PackRef> {
    match list {
        List::Leaf(_) => None,
        List::Upper(rows) => rows.last().map(|(_, page)| page.pack),
    }
}

fn rows(list: &List) -> usize {
    match list {
        List::Leaf(extents) => extents.len(),
        List::Upper(rows) => rows.len(),
    }
}

/// Cannot happen: leaves are at the bottom, upper pages above them.
fn out_of_shape() -> Error {
    Error::failed("a reference list is out of shape")
}
