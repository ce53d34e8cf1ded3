//! The names of a snapshot, front to back, before anybody asks for them: within half of the memory for blocks, which file
//! contents cannot take away from names (`repo::fetch`).

use std::collections::HashSet;

use super::attr::Fault;
use super::{Vfs, latest};
use crate::context::Context;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::trees::Branch;

/// Directories that lie deeper are fetched when somebody looks.
const DEPTH: usize = 100;
/// Metadata comes in stretches of so many bytes.
const STRETCH: u32 = 1 << 20;

/// How far it has come.
pub struct Walk {
    /// Pages that are to be visited, by level.
    rest: Vec<std::vec::IntoIter<Branch>>,
    /// The page that could not be fetched.
    again: Option<Branch>,
    stretches: HashSet<(ObjectId, u32)>,
    most: usize,
}

impl Walk {
    /// From this page on, within so many bytes.
    pub(super) fn new(root: Option<Ref>, most: usize) -> Self {
        let rest = vec![root.map(Branch::top).into_iter().collect::<Vec<_>>().into_iter()];
        Walk { rest, again: None, stretches: HashSet::new(), most: most / STRETCH as usize }
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

    /// Counts the stretches that a page lies in; false if they are too many.
    fn fits(&mut self, page: &Ref) -> bool {
        let (first, last) = (page.offset / STRETCH, page.offset.saturating_add(page.stored.max(1) - 1) / STRETCH);
        self.stretches.extend((first..=last).map(|i| (page.pack.id, i)));
        self.stretches.len() <= self.most
    }
}

impl Vfs {
    /// A walk over the names that are most likely wanted: those of the newest whole snapshot, or of what is shown alone.
    pub fn walk(&self) -> Walk {
        let root = *self.first_page.lock().expect("no holder panics");
        Walk::new(root, self.options.cache / 2)
    }

    /// Fetches one page; false: that was all, or there is no more room. What is damaged is left to whoever looks there;
    /// after another error the next step tries the same page again.
    pub fn step(&self, ctx: &Context, walk: &mut Walk) -> Result<bool, Fault> {
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

/// The page that names are read from first.
pub(super) fn first_page(snapshots: &[Snapshot]) -> Option<Ref> {
    latest(snapshots).and_then(|s| s.root)
}
