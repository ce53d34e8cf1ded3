//! Changes which snapshots are shown: forgets and undeletes them, by ids or by a policy.
//!
//! In: snapshots of a state, a policy. Out: a plan, then one record of marks. No object is removed, so everything here works
//! on an append-only server and can be undone.
//!
//! | file | purpose |
//! |---|---|
//! | `policy` | which snapshots of a group are kept, and why |
//! | `plan` | groups; objections to a plan |
//! | `tags` | changes tags; a pin is a tag |
//! | `undelete` | shows snapshots again |

mod plan;
mod policy;
mod tags;
mod undelete;

pub use plan::{Group, GroupBy, GroupKey, Plan, objections, pinned};
pub use policy::{Candidate, Judged, Period, Policy, RECENT, Within};
pub use tags::{TagChange, tag};
pub use undelete::undelete;

use crate::context::Context;
use crate::error::Result;
use crate::format::record::{Action, Snapshot, SnapshotId};
use crate::repo::{Repository, State};
use crate::time::Time;

/// Returns snapshots of a state with the times that count for a policy: the time in the record, moved into the span in which
/// this machine saw the snapshot appear. Without seen data only times in the future are moved.
pub fn candidates(repo: &Repository, state: &State, snapshots: Vec<Snapshot>) -> Result<Vec<Candidate>> {
    let now = repo.now().seconds;
    let sights = repo.look_at_snapshots(state)?;
    let candidate = |snapshot: Snapshot| {
        let own = snapshot.time;
        let sight = sights.as_ref().map(|sights| sights.first_seen(&snapshot.id.padded()));
        let seconds = sight.map_or(own.seconds.min(now), |sight| sight.bound(own.seconds).min(now));
        let time = if seconds == own.seconds { own } else { Time::from_seconds(seconds) };
        let is_new = sight.is_some_and(|s| s.previous.is_some() && s.first > now.saturating_sub(RECENT));
        Candidate { snapshot, time, is_new }
    };
    Ok(snapshots.into_iter().map(candidate).collect())
}

/// Forgets these snapshots in one record, and adds it to `state`.
pub fn forget(
    ctx: &Context,
    repo: &Repository,
    state: &mut State,
    ids: impl IntoIterator<Item = SnapshotId>,
) -> Result<()> {
    repo.commit_marks(ctx, state, ids.into_iter().map(|id| (id, Action::Forget))).map(drop)
}
