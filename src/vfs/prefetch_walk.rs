//! The walk of the prefetch: fetches the names of a snapshot, front to back, before they are asked for. It uses at most half
//! of the cache of blocks, a part that file contents do not displace (`repo::fetch`).

use std::collections::HashSet;

use super::attr::Fault;
use super::{Vfs, latest};
use crate::context::Context;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::trees::Branch;

/// Depth of pages below which nothing is fetched ahead.
const DEPTH: usize = 100;
/// Bytes of metadata that are fetched at once.
const STRETCH: u32 = 1 << 20;

/// The progress of the prefetch.
pub struct PrefetchWalk {
    /// Pages that are still to be visited, by level.
    rest: Vec<std::vec::IntoIter<Branch>>,
    /// The page that could not be fetched and is tried again.
    again: Option<Branch>,
    /// The ranges of packs that the visited pages lie in.
    stretches: HashSet<(ObjectId, u32)>,
    /// Largest number of these ranges.
    most: usize,
}

impl PrefetchWalk {
    /// Begins at this page and fetches at most `most` bytes.
    pub(super) fn new(root: Option<Ref>, most: usize) -> Self {
        let rest = vec![root.map(Branch::top).into_iter().collect::<Vec<_>>().into_iter()];
        PrefetchWalk { rest, again: None, stretches: HashSet::new(), most: most / STRETCH as usize }
    }

    fn next(&mut self) -> Option<Branch> {
        if let Some(page) = self.again.take() {
            return Some(page);
        }
        while let Some(level) = self.rest.last_mut() {
            match level.next() {
                Some(page) => return Some(page),
                None => drop(self.rest.pop()),
            }
        }
        None
    }

    /// Counts the ranges that a page lies in; returns false if there are too many.
    fn fits(&mut self, page: &Ref) -> bool {
        let first = page.offset / STRETCH;
        let last = page.offset.saturating_add(page.stored.max(1) - 1) / STRETCH;
        self.stretches.extend((first..=last).map(|i| (page.pack.id, i)));
        self.stretches.len() <= self.most
    }
}

impl Vfs {
    /// Begins a walk over the names of `latest`, or of the only visible directory.
    pub fn walk(&self) -> PrefetchWalk {
        let root = *self.first_page.lock().expect("no holder panics");
        PrefetchWalk::new(root, self.options.cache / 2)
    }

    /// Fetches one page; returns false after the last page or when the room is used up. Damaged pages are skipped; after
    /// another error the next step tries the same page again.
    pub fn step(&self, ctx: &Context, walk: &mut PrefetchWalk) -> Result<bool, Fault> {
        let Some(page) = walk.next() else { return Ok(false) };
        if !walk.fits(&page.page) {
            return Ok(false);
        }
        match self.pages.below(ctx, &page) {
            Ok(pages) if walk.rest.len() < DEPTH => walk.rest.push(pages.into_iter()),
            Ok(_) => {}
            Err(Fault::Broken(e)) if e.kind().is_damage() => {}
            Err(fault) => {
                walk.again = Some(page);
                return Err(fault);
            }
        }
        Ok(true)
    }
}

/// Returns the first page of the prefetch.
pub(super) fn first_page(snapshots: &[Snapshot]) -> Option<Ref> {
    latest(snapshots).and_then(|s| s.root)
}
