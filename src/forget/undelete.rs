//! Shows forgotten snapshots again.

use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::record::{Action, Snapshot};
use crate::repo::{Repository, State};
use crate::trees::{Branch, Lookup, Trees};

/// Undeletes these snapshots in one record, and adds it to `state`.
///
/// # Errors
///
/// The root directory of one cannot be read, since its data was removed: then nothing is written. Errors of a commit.
pub fn undelete(ctx: &Context, repo: &Repository, state: &mut State, snapshots: &[Snapshot]) -> Result<()> {
    let trees = Trees::with(repo, Arc::new(Lookup::fixed(state.clone())));
    for snapshot in snapshots {
        if let Some(root) = snapshot.root {
            trees.page(ctx, &Branch::top(root)).map_err(|e| explained(e, snapshot))?;
        }
    }
    repo.commit_marks(ctx, state, snapshots.iter().map(|snapshot| (snapshot.id, Action::Undelete)))?;
    Ok(())
}

fn explained(e: Error, snapshot: &Snapshot) -> Error {
    if !e.kind().is_damage() {
        return e;
    }
    let hint = format!("`nfreezer check {}` lists what of it is left", snapshot.id.short());
    e.while_doing(format!("snapshot {} cannot be shown again: its data is gone", snapshot.id.short())).hint(hint)
}
