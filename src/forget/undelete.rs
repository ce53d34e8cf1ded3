//! Shows forgotten snapshots again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::record::{Action, Snapshot};
use crate::format::reference::Ref;
use crate::repo::{Repository, State};
use crate::trees::{Lookup, Reachable, Scope, Trees};

/// Bytes of memory for the chunks whose packs were dropped.
const MEMORY: u64 = 64 << 20;

/// Undeletes these snapshots in one record, and adds it to `state`.
///
/// # Errors
///
/// The data of one was removed: then nothing is written. `prune` dropped data of one while the record was written. Errors
/// of a commit.
pub fn undelete(ctx: &Context, repo: &Repository, state: &mut State, snapshots: &[Snapshot]) -> Result<()> {
    for snapshot in snapshots {
        if !is_kept(ctx, repo, state, snapshot)? {
            return Err(gone(snapshot));
        }
    }
    repo.commit_marks(ctx, state, snapshots.iter().map(|snapshot| (snapshot.id, Action::Undelete)))?;
    for snapshot in snapshots {
        if !is_kept(ctx, repo, state, snapshot)? {
            let text = format!("`nfreezer prune` removed data of snapshot {} meanwhile", snapshot.id.short());
            return Err(Error::failed(text).hint("`nfreezer check` lists what of it is left"));
        }
    }
    Ok(())
}

/// Returns whether each chunk of a snapshot has a place that was not dropped. A dropped pack may still be there, but it is
/// about to be deleted. A page that cannot be read has none.
fn is_kept(ctx: &Context, repo: &Repository, state: &State, snapshot: &Snapshot) -> Result<bool> {
    let roots: Vec<Ref> = snapshot.root.into_iter().collect();
    let dropped = state.dropped_packs();
    let trees = Trees::with(repo, Arc::new(Lookup::fixed(state.clone())));
    let scope = Scope { is_wanted: &|_| false, condemned: &dropped, memory: MEMORY };
    let reachable = match Reachable::of(ctx, &trees, &roots, &scope) {
        Err(e) if e.kind().is_damage() => return Ok(false),
        other => other?,
    };
    if !reachable.has_displaced() {
        return Ok(true);
    }
    let found = Mutex::new(BTreeSet::new());
    let tables = repo.tables(ctx, state)?;
    repo.index_rows(ctx, state, &tables, &|pack, entry| {
        if reachable.is_displaced(&entry.id) && !dropped.contains(&pack.id) {
            found.lock().expect("no holder panics").insert(entry.id.0);
        }
    })?;
    Ok(found.into_inner().expect("no holder panics").len() as u64 >= reachable.displaced())
}

fn gone(snapshot: &Snapshot) -> Error {
    let text = format!("snapshot {} cannot be shown again: its data is gone", snapshot.id.short());
    let id = snapshot.id.short();
    Error::damaged(text).hint(format!(
        "`nfreezer prune` deletes data of forgotten snapshots after 14 days; `nfreezer restore {id} --target DIR` restores \
         the parts that other snapshots still need"
    ))
}
