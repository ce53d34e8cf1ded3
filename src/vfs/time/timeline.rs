//! The snapshots in the order of time: which one was the newest at a moment, and which ones describe the present. Pure.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;

use crate::format::record::{Snapshot, SnapshotId};
use crate::repo::{first_of_each_group, latest_first};
use crate::time::Time;

/// The snapshots in the order of time.
#[derive(Default)]
pub struct Timeline {
    /// Oldest first.
    pub snapshots: Vec<Arc<Snapshot>>,
    /// A hash of the snapshots, as a part of cache keys.
    pub generation: u64,
    /// See [`Timeline::heads`].
    heads: Vec<Arc<Snapshot>>,
    /// Snapshots without extended attributes.
    bare: HashSet<SnapshotId>,
}

impl Timeline {
    /// Takes snapshots, oldest first.
    pub fn new(snapshots: Vec<Arc<Snapshot>>, now: Time) -> Self {
        let latest = latest_first(snapshots.iter().cloned(), now);
        let heads: Vec<Arc<Snapshot>> = first_of_each_group(latest).collect();
        let mut hasher = DefaultHasher::new();
        snapshots.iter().chain(&heads).for_each(|s| s.id.hash(&mut hasher));
        let bare = snapshots.iter().filter(|s| s.stats.xattrs == 0).map(|s| s.id).collect();
        Timeline { generation: hasher.finish(), heads, bare, snapshots }
    }

    /// Returns the newest whole snapshot of this moment or before.
    pub fn at(&self, moment: Timestamp) -> Option<&Arc<Snapshot>> {
        let moment = (moment.as_second(), moment.subsec_nanosecond());
        self.snapshots.iter().rev().find(|s| !s.partial && (s.time.seconds, s.time.nanoseconds as i32) <= moment)
    }

    /// Returns whether nodes of this snapshot may have extended attributes.
    pub fn has_xattrs(&self, snapshot: &SnapshotId) -> bool {
        !self.bare.contains(snapshot)
    }

    /// Returns whether any of the snapshots has extended attributes.
    pub fn any_xattrs(&self) -> bool {
        self.bare.len() < self.snapshots.len()
    }

    /// Returns the newest whole snapshot of each host and set of sources, newest first.
    pub fn heads(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.heads.iter()
    }

    /// Returns whether a newer head of the same host covers `path`, so that the head `snapshot` does not describe it any
    /// more.
    pub fn outdated(&self, snapshot: &Snapshot, path: &[u8]) -> bool {
        let mut newer = self.heads.iter().take_while(|head| head.id != snapshot.id);
        newer.any(|head| head.host == snapshot.host && covers(head, path))
    }
}

/// Returns whether a path is below a source of a snapshot, or above one.
fn covers(snapshot: &Snapshot, path: &[u8]) -> bool {
    snapshot.more_paths > 0
        || snapshot.paths.is_empty()
        || snapshot.paths.iter().any(|source| is_below(path, source) || is_below(source, path))
}

fn is_below(path: &[u8], top: &[u8]) -> bool {
    let top = top.strip_suffix(b"/").unwrap_or(top);
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::Stats;
    use crate::time::Time;

    fn snapshot(n: u8, host: &str, paths: &[&str], partial: bool) -> Arc<Snapshot> {
        let text = String::new;
        Arc::new(Snapshot {
            id: SnapshotId([n; 16]),
            time: Time::new(i64::from(n) * 100, 500),
            host: host.into(),
            user: text(),
            paths: paths.iter().map(|p| serde_bytes::ByteBuf::from(p.as_bytes())).collect(),
            more_paths: 0,
            group: paths.len() as u64 + 10 * paths.first().map_or(0, |p| p.len() as u64),
            tags: Vec::new(),
            description: text(),
            root: None,
            partial,
            warnings: 0,
            stats: Stats { xattrs: u64::from(n == 1), ..Stats::default() },
            program: text(),
            extra: Vec::new(),
        })
    }

    #[test]
    fn the_newest_of_a_moment_and_what_says_what_is_now() {
        let snapshots = vec![
            snapshot(1, "a", &["/home/jo"], false),
            snapshot(2, "a", &["/etc", "/home/jo"], false),
            snapshot(3, "b", &["/home/jo"], false),
            snapshot(4, "a", &["/srv"], false),
            snapshot(5, "a", &["/srv"], true),
        ];
        let time = Timeline::new(snapshots.clone(), Time::new(1000, 0));
        let at = |second, ns| time.at(Timestamp::new(second, ns).unwrap()).map(|s| s.id.0[0]);
        assert_eq!([at(100, 499), at(100, 500), at(399, 0), at(9999, 0)], [None, Some(1), Some(3), Some(4)]);
        let heads: Vec<u8> = time.heads().map(|s| s.id.0[0]).collect();
        assert_eq!(heads, [4, 3, 2, 1]);
        let wrong_clock: Vec<u8> = Timeline::new(snapshots, Time::new(-300, 0)).heads().map(|s| s.id.0[0]).collect();
        assert_eq!(wrong_clock, [3, 2, 1, 4], "a snapshot from the future comes last");
        let present = |path: &str| -> Vec<u8> {
            time.heads().filter(|s| !time.outdated(s, path.as_bytes())).map(|s| s.id.0[0]).collect()
        };
        assert_eq!(present("/home/jo/x"), [4, 3, 2], "1 is older than 2 and had the same source");
        assert_eq!(present("/home"), [4, 3, 2]);
        assert_eq!(present("/home/joe"), [4, 3, 2, 1], "no newer snapshot has this source");
        assert_eq!(present("/srv/x"), [4, 3], "only 4 describes it for host a");
        assert!(time.any_xattrs() && time.has_xattrs(&SnapshotId([1; 16])) && !time.has_xattrs(&SnapshotId([2; 16])));
        assert!(time.has_xattrs(&SnapshotId([99; 16])), "an unknown snapshot may have them");
    }
}
