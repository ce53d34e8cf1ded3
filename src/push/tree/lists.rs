//! Reference lists of files that have more extents than fit into their node: written as they grow, bottom-up.

use super::writer::Tree;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::{Error, Result};
use crate::format::list::List;
use crate::format::reference::{Extent, PackRef, Ref};

/// A hole ends a page only where that is full: an id for which [`List::ends`] never says so earlier.
const NEVER: Ref = Ref { id: ChunkId([0xff; 16]), pack: PackRef::SELF, offset: 0, stored: 1, len: 1 };

impl Tree<'_> {
    /// Appends to the open list.
    pub fn add_extent(&mut self, extent: Extent) -> Result<()> {
        if self.list.is_empty() {
            self.list.push(List::Leaf(Vec::new()));
        }
        let Some(List::Leaf(extents)) = self.list.first_mut() else { return Err(broken()) };
        extents.push(extent);
        let last = if let Extent::Data(r) = &extent { r } else { &NEVER };
        if List::ends(extents.len() - 1, last) { self.end_list_page(0) } else { Ok(()) }
    }

    /// Closes the open list and gives its top page.
    pub fn finish_list(&mut self) -> Result<Ref> {
        loop {
            let lowest = self.list.iter().position(|list| rows(list) > 0).ok_or_else(broken)?;
            if let (List::Upper(top), true) = (&self.list[lowest], lowest + 1 == self.list.len())
                && let [(_, page)] = top[..]
            {
                self.list.clear();
                return Ok(page);
            }
            self.end_list_page(lowest)?;
        }
    }

    fn end_list_page(&mut self, level: usize) -> Result<()> {
        let page = self.write_list(level)?;
        let list = &mut self.list[level];
        let span = list.span();
        match list {
            List::Leaf(extents) => extents.clear(),
            List::Upper(rows) => rows.clear(),
        }
        if self.list.len() == level + 1 {
            self.list.push(List::Upper(Vec::new()));
        }
        let List::Upper(rows) = &mut self.list[level + 1] else { return Err(broken()) };
        rows.push((span, page));
        if List::ends(rows.len() - 1, &page) { self.end_list_page(level + 1) } else { Ok(()) }
    }

    fn write_list(&mut self, level: usize) -> Result<Ref> {
        loop {
            let list = &self.list[level];
            let own = match list {
                List::Leaf(_) => None,
                List::Upper(rows) => rows.last().map(|(_, page)| page.pack),
            };
            if own != Some(PackRef::SELF) {
                // The same stretch of the same file was perhaps written by an earlier run.
                let plain = list.encode(&own.unwrap_or(PackRef::SELF));
                if let Some(old) = self.meta.earlier(ChunkKind::List, &plain, own)? {
                    return Ok(old);
                }
            }
            match self.meta.add(ChunkKind::List, &list.encode(&PackRef::SELF))? {
                Some(page) => return Ok(page),
                None => self.turn()?,
            }
        }
    }
}

fn rows(list: &List) -> usize {
    match list {
        List::Leaf(extents) => extents.len(),
        List::Upper(rows) => rows.len(),
    }
}

/// Cannot happen: leaves are at the bottom, upper pages above them.
fn broken() -> Error {
    Error::failed("a reference list is out of shape")
}
