//! Shows forgotten snapshots again.

use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::record::{Action, Snapshot};
use crate::format::reference::Ref;
use crate::repo::{Repository, State};
use crate::trees::{Branch, Lookup, Trees, names_new};

/// Bytes of memory for the search after the commit.
const MEMORY: u64 = 16 << 20;

/// Undeletes these snapshots in one record, and adds it to `state`.
///
/// # Errors
///
/// The root directory of one cannot be read, since its data was removed: then nothing is written. `prune` dropped data of
/// one while the record was written. Errors of a commit.
pub fn undelete(ctx: &Context, repo: &Repository, state: &mut State, snapshots: &[Snapshot]) -> Result<()> {
    let trees = Trees::with(repo, Arc::new(Lookup::fixed(state.clone())));
    for snapshot in snapshots {
        if let Some(root) = snapshot.root {
            trees.page(ctx, &Branch::top(root)).map_err(|e| explained(e, snapshot))?;
        }
    }
    let dropped = state.dropped_packs();
    repo.commit_marks(ctx, state, snapshots.iter().map(|snapshot| (snapshot.id, Action::Undelete)))?;
    let trees = Trees::with(repo, Arc::new(Lookup::fixed(state.clone())));
    let roots: Vec<Ref> = snapshots.iter().filter_map(|snapshot| snapshot.root).collect();
    if names_new(ctx, &trees, &roots, &dropped, &state.dropped_packs(), MEMORY)? {
        return Err(Error::failed("`nfreezer prune` removed data of the snapshots while they were undeleted")
            .hint("`nfreezer check` lists what of them is left"));
    }
    Ok(())
}

fn explained(e: Error, snapshot: &Snapshot) -> Error {
    if !e.kind().is_damage() {
        return e;
    }
    let hint = format!("`nfreezer check {}` lists what of it is left", snapshot.id.short());
    e.while_doing(format!("snapshot {} cannot be shown again: its data is gone", snapshot.id.short())).hint(hint)
}
