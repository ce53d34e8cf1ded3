//! The meaning of `latest`: the newest whole snapshot that was not taken in the future.

use std::collections::HashSet;
use std::ops::Deref;

use crate::format::record::Snapshot;
use crate::time::Time;

/// Seconds by which the clocks of two machines may differ.
const TOLERANCE: i64 = 600;

/// Returns the whole snapshots in the order of `latest`, `latest~1` and so on: the newest first, and those that were taken
/// in the future (by a wrong clock) after all others. `snapshots` ascend by time.
pub fn latest_first<S>(snapshots: impl DoubleEndedIterator<Item = S> + Clone, now: Time) -> impl Iterator<Item = S>
where
    S: Deref<Target = Snapshot>,
{
    let whole = snapshots.rev().filter(|snapshot| !snapshot.partial);
    let future = whole.clone().filter(move |snapshot| is_in_future(snapshot, now));
    whole.filter(move |snapshot| !is_in_future(snapshot, now)).chain(future)
}

/// Returns the first snapshot of each host and paths.
pub fn first_of_each_group<S>(snapshots: impl Iterator<Item = S>) -> impl Iterator<Item = S>
where
    S: Deref<Target = Snapshot>,
{
    let mut groups = HashSet::new();
    snapshots.filter(move |snapshot| groups.insert((snapshot.host.clone(), snapshot.group)))
}

fn is_in_future(snapshot: &Snapshot, now: Time) -> bool {
    snapshot.time.seconds > now.seconds.saturating_add(TOLERANCE)
}
