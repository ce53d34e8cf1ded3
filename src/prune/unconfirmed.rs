//! Snapshots that no push has reported as saved, and that lack pages. They are left by a writer that was killed between its
//! record and its second listing, while `prune` deleted packs that its tree names. Without them the trees are complete.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Kind, Result};
use crate::format::node::Node;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::repo::{Index, Repository, State};
use crate::trees::{Lookup, Trees, Visit, walk_one_by_one};

/// Returns the snapshots that lack a page because its pack was dropped and deleted. None, if a page is lost in any other
/// way, if they are most of all snapshots, or if one of them was undeleted once.
///
/// A writer whose second listing shows the drop record reports no success. If that listing is older than the drop record,
/// the deleting run has seen the record of the writer, and has copied the page (format.md 11.6). So a snapshot that lacks
/// such a page was never reported as saved. A copy that is lost has a row in the index, and so has a page whose pack the
/// server lost.
pub(super) fn find(
    ctx: &Context,
    repo: &Repository,
    state: &State,
    is_listed: &dyn Fn(&ObjectId) -> bool,
    memory: u64,
) -> Result<Vec<Snapshot>> {
    let snapshots: Vec<Snapshot> = state.snapshots().into_iter().filter(|s| s.root.is_some()).collect();
    let roots: Vec<Ref> = snapshots.iter().filter_map(|s| s.root).collect();
    let trees = Trees::with(repo, Arc::new(Lookup::fixed(state.clone())));
    let lost = Lost::default();
    walk_one_by_one(ctx, &trees, &roots, memory / 2, &lost)?;
    let (dropped, index) = (state.dropped_packs(), Index::new(state));
    let mut found = BTreeSet::new();
    for (number, page, kind) in lost.pages.into_inner().expect("no holder panics") {
        let is_deleted = dropped.contains(&page.pack.id) && !is_listed(&page.pack.id);
        let mut has_place = false;
        index.visit(ctx, repo, &page.id, |row| {
            has_place |= is_listed(&row.place.pack.id) || !dropped.contains(&row.place.pack.id);
            ControlFlow::Continue(())
        })?;
        if kind != Kind::Missing || !is_deleted || has_place {
            return Ok(Vec::new());
        }
        found.insert(number);
    }
    let found: Vec<Snapshot> = found.into_iter().map(|number| snapshots[number].clone()).collect();
    // An undelete is not a push: it may have reported success before the drop record.
    let undeleted = state.once_undeleted();
    let is_doubtful = 2 * found.len() > snapshots.len() || found.iter().any(|s| undeleted.contains(&s.id));
    Ok(if is_doubtful { Vec::new() } else { found })
}

/// Collects the pages that cannot be read.
#[derive(Default)]
struct Lost {
    /// The number of the snapshot that is being read.
    snapshot: AtomicUsize,
    pages: Mutex<Vec<(usize, Ref, Kind)>>,
}

impl Visit for Lost {
    fn references(&self, _: &[(ChunkKind, Ref)]) {}

    fn read(&self, _: u64, _: &[Node]) {}

    fn wave(&self, number: usize) {
        self.snapshot.store(number, Ordering::Relaxed);
    }

    fn unreadable(&self, page: &Ref, why: &Error) {
        let snapshot = self.snapshot.load(Ordering::Relaxed);
        self.pages.lock().expect("no holder panics").push((snapshot, *page, why.kind()));
    }
}
