//! The scan of many directories: visits all their nodes, and each shared page once.

use std::collections::HashMap;
use std::sync::Arc;

use super::history::THREADS;
use crate::context::Context;
use crate::error::Error;
use crate::format::node::Node;
use crate::format::page::Page;
use crate::format::reference::Ref;
use crate::repo::parallel;
use crate::trees::Branch;
use crate::vfs::attr::{Fault, passing};
use crate::vfs::pages::Directory;
use crate::vfs::{Mode, Vfs};

/// Pages that are held at once.
const BATCH: usize = 64;

/// A node that [`Vfs::scan`] visits.
pub struct ScannedNode<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its inode number, or 0 where that depends on the snapshot or the path.
    pub ino: u64,
    /// Its directory.
    pub top: &'a ScanTop,
    /// Its position in the directory.
    pub position: u32,
}

/// A directory to scan.
#[derive(Clone, Copy)]
pub struct ScanTop {
    /// Its top page.
    pub page: Ref,
    /// The last snapshot with this page.
    pub last: u32,
}

/// A page that a scan has still to read.
struct ScanPage {
    branch: Branch,
    top: ScanTop,
    /// Entries of the directory before it.
    before: u64,
}

impl Vfs {
    /// Visits every node of these directories. A page that several of them share is visited once, for the newest snapshot.
    /// Returns the first error of pages that could not be read.
    pub(super) fn scan(
        &self,
        ctx: &Context,
        tops: &[ScanTop],
        each: &mut dyn FnMut(ScannedNode<'_>),
    ) -> Result<Option<Error>, Fault> {
        let mut damage = None;
        let mut seen: HashMap<Ref, u32> = HashMap::new();
        let mut level: Vec<ScanPage> = tops.iter().map(ScanPage::top).collect();
        while !level.is_empty() {
            level.sort_by_key(|page| std::cmp::Reverse(page.top.last));
            level.retain(|page| {
                let known = seen.get(&page.branch.page).is_some_and(|last| *last >= page.top.last);
                if !known {
                    seen.insert(page.branch.page, page.top.last);
                }
                !known
            });
            let mut below = Vec::new();
            let mut wanted = level.into_iter().peekable();
            while wanted.peek().is_some() {
                for (directory, page) in self.fetch_pages(ctx, wanted.by_ref().take(BATCH).collect()) {
                    match directory.and_then(|d| page.branch.check(&d.page).map(|()| d).map_err(Fault::from)) {
                        Ok(directory) => page.open(&directory, &mut below, each),
                        Err(fault) => drop(damage.get_or_insert(damage_of(fault)?)),
                    }
                }
            }
            level = below;
        }
        Ok(damage)
    }

    /// Fetches these pages and returns them in their order.
    fn fetch_pages(&self, ctx: &Context, batch: Vec<ScanPage>) -> Vec<(Result<Arc<Directory>, Fault>, ScanPage)> {
        let in_memory = batch.iter().all(|page| self.pages.directory(&page.branch.page, Mode::Cached).is_ok());
        if in_memory {
            // Without the cost of threads.
            batch.into_iter().map(|page| self.fetch_page(ctx, page)).collect()
        } else {
            parallel(THREADS, batch, |page| self.fetch_page(ctx, page))
        }
    }

    fn fetch_page(&self, ctx: &Context, page: ScanPage) -> (Result<Arc<Directory>, Fault>, ScanPage) {
        (self.pages.directory(&page.branch.page, Mode::Fetch(ctx)), page)
    }
}

impl ScanPage {
    fn top(top: &ScanTop) -> Self {
        ScanPage { branch: Branch::top(top.page), top: *top, before: 0 }
    }

    /// Hands out the nodes of the page, or adds the pages below it.
    fn open(self, directory: &Directory, below: &mut Vec<ScanPage>, each: &mut dyn FnMut(ScannedNode<'_>)) {
        let mut before = self.before;
        match &directory.page {
            Page::Leaf(nodes) => {
                for (i, (node, ino)) in nodes.iter().zip(&directory.inos).enumerate() {
                    let Ok(position) = u32::try_from(before.saturating_add(i as u64)) else { return };
                    each(ScannedNode { node, ino: *ino, top: &self.top, position });
                }
            }
            Page::Upper(rows) => {
                for (branch, row) in self.branch.children(rows).zip(rows) {
                    below.push(ScanPage { branch, top: self.top, before });
                    before = before.saturating_add(row.count);
                }
            }
        }
    }
}

/// Returns the error of damage, which hides a part of the result only. Every other fault ends the operation.
fn damage_of(fault: Fault) -> Result<Error, Fault> {
    match fault {
        Fault::Broken(e) if !passing(&e) => Ok(e),
        other => Err(other),
    }
}
