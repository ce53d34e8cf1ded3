//! Marks: changes of snapshots after their push, such as forgetting. One record commits all marks of a command. The fold
//! of marks is here too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Repository, State};
use crate::context::Context;
use crate::error::Result;
use crate::format::record::{Action, Head, Mark, Snapshot, SnapshotId};
use crate::name::ObjectId;

/// Minimum time for which a forgotten snapshot can be undeleted, in seconds.
pub const KEEP_FORGOTTEN: i64 = 14 * 24 * 3600;

/// A forgotten snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Forgotten {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Time of the mark by its writer's clock, in seconds since the epoch.
    pub time: i64,
}

impl State {
    /// Returns the snapshots that are not forgotten, oldest first, with their current tags.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let (shown, _) = self.fold();
        shown
    }

    /// Returns the forgotten snapshots, oldest first.
    pub fn forgotten(&self) -> Vec<Snapshot> {
        self.forgotten_since().into_iter().map(|forgotten| forgotten.snapshot).collect()
    }

    /// Returns the snapshots that have been undeleted at some time.
    pub fn once_undeleted(&self) -> BTreeSet<SnapshotId> {
        let marks = self.live().flat_map(|(_, known)| &known.record.head.marks);
        marks.filter(|mark| matches!(mark.action, Action::Undelete)).map(|mark| mark.snapshot).collect()
    }

    /// Returns the forgotten snapshots, each with the time of its mark, oldest snapshot first.
    pub fn forgotten_since(&self) -> Vec<Forgotten> {
        let (_, forgotten) = self.fold();
        forgotten
    }

    fn fold(&self) -> (Vec<Snapshot>, Vec<Forgotten>) {
        let mut all: BTreeMap<SnapshotId, Snapshot> = BTreeMap::new();
        let mut marks = Vec::new();
        for (id, known) in self.live() {
            let head = &known.record.head;
            all.extend(head.snapshots.iter().map(|s| (s.id, s.clone())));
            marks.extend(head.marks.iter().map(|m| ((m.sequence, m.record.unwrap_or(*id)), m)));
        }
        marks.sort_by_key(|(order, _)| *order);
        let mut forgotten = HashMap::new();
        for (_, mark) in marks {
            match &mark.action {
                Action::Forget => drop(forgotten.insert(mark.snapshot, mark.time)),
                Action::Undelete => drop(forgotten.remove(&mark.snapshot)),
                Action::Tag(tags) => {
                    if let Some(s) = all.get_mut(&mark.snapshot) {
                        s.tags.clone_from(tags);
                    }
                }
            }
        }
        let mut ordered: Vec<_> = all.into_values().collect();
        ordered.sort_by_key(|s| (s.time, s.id));
        let (hidden, shown) = ordered.into_iter().partition::<Vec<_>, _>(|s| forgotten.contains_key(&s.id));
        let hidden = hidden.into_iter().map(|snapshot| Forgotten { time: forgotten[&snapshot.id], snapshot });
        (shown, hidden.collect())
    }
}

impl Repository {
    /// Commits one change of each of these snapshots in one record, in any order. Returns its id; `None` if there are no
    /// changes.
    pub fn commit_marks(
        &self,
        ctx: &Context,
        state: &mut State,
        changes: impl IntoIterator<Item = (SnapshotId, Action)>,
    ) -> Result<Option<ObjectId>> {
        let time = self.now().seconds;
        let mut marks: Vec<Mark> = changes.into_iter().map(|(id, action)| Mark::new(id, time, action)).collect();
        marks.sort_by_key(Mark::order);
        marks.dedup_by_key(|mark| mark.order());
        if marks.is_empty() {
            return Ok(None);
        }
        // A stop does not end the commit: then it would not be known whether it took place.
        let ctx = &ctx.with_grace(Duration::MAX);
        let id = self.commit(ctx, state, Head { marks, ..Head::default() }, &[])?;
        Ok(Some(id))
    }

    /// Returns when each forgotten snapshot was forgotten, in seconds since the epoch: the time of its mark, moved between
    /// the looks of this machine before and after it. Without seen data the time of the mark counts, at most now.
    pub fn forgotten_at(&self, forgotten: &[Forgotten]) -> Result<Vec<i64>> {
        let now = self.now().seconds;
        let padded = |forgotten: &Forgotten| forgotten.snapshot.id.padded();
        let sights = self.look("forgotten", forgotten.iter().map(padded), now)?;
        let bound = |one: &Forgotten| match &sights {
            Some(sights) => sights.first_seen(&padded(one)).bound(one.time),
            None => one.time.min(now),
        };
        Ok(forgotten.iter().map(bound).collect())
    }
}
