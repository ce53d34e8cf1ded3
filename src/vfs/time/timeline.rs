//! The snapshots as a line in time: which one was the newest at a moment, and which say what there is now.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;

use crate::format::record::{Snapshot, SnapshotId};

/// See the module.
#[derive(Default)]
pub struct Timeline {
    /// Oldest first.
    pub snapshots: Vec<Arc<Snapshot>>,
    /// Another number for other snapshots: what was worked out from these is kept under it.
    pub generation: u64,
    /// See [`Timeline::heads`].
    heads: Vec<Arc<Snapshot>>,
    bare: HashSet<SnapshotId>,
}

impl Timeline {
    /// Of these snapshots, oldest first.
    pub fn new(snapshots: Vec<Arc<Snapshot>>) -> Self {
        let mut hasher = DefaultHasher::new();
        snapshots.iter().for_each(|s| s.id.hash(&mut hasher));
        let mut groups: HashMap<(&str, u64), ()> = HashMap::new();
        let newest = snapshots.iter().rev().filter(|s| !s.partial);
        let heads = newest.filter(|s| groups.insert((&s.host, s.group), ()).is_none()).cloned().collect();
        let bare = snapshots.iter().filter(|s| s.stats.xattrs == 0).map(|s| s.id).collect();
        Timeline { generation: hasher.finish(), heads, bare, snapshots }
    }

    /// The newest whole snapshot of this moment or before.
    pub fn at(&self, moment: Timestamp) -> Option<&Arc<Snapshot>> {
        let moment = (moment.as_second(), moment.subsec_nanosecond());
        let taken = |s: &Snapshot| (s.time.seconds, i32::try_from(s.time.nanoseconds).unwrap_or(i32::MAX));
        self.snapshots.iter().rev().find(|s| !s.partial && taken(s) <= moment)
    }

    /// Whether a node of this snapshot can have extended attributes.
    pub fn has_xattrs(&self, snapshot: &SnapshotId) -> bool {
        !self.bare.contains(snapshot)
    }

    /// Whether any of the snapshots has extended attributes.
    pub fn any_xattrs(&self) -> bool {
        self.bare.len() < self.snapshots.len()
    }

    /// The newest whole snapshot of each host and set of sources, newest first.
    pub fn heads(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.heads.iter()
    }

    /// Whether a newer snapshot of the same host as the head `snapshot` says whether there is anything at `path`.
    pub fn outdated(&self, snapshot: &Snapshot, path: &[u8]) -> bool {
        let mut newer = self.heads.iter().take_while(|head| head.id != snapshot.id);
        newer.any(|head| head.host == snapshot.host && covers(head, path))
    }
}

/// Whether a path is below a source of a snapshot or leads to one.
fn covers(snapshot: &Snapshot, path: &[u8]) -> bool {
    let below = |path: &[u8], top: &[u8]| {
        let top = top.strip_suffix(b"/").unwrap_or(top);
        path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    snapshot.more_paths > 0
        || snapshot.paths.is_empty()
        || snapshot.paths.iter().any(|source| below(path, source) || below(source, path))
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
        let time = Timeline::new(vec![
            snapshot(1, "a", &["/home/jo"], false),
            snapshot(2, "a", &["/etc", "/home/jo"], false),
            snapshot(3, "b", &["/home/jo"], false),
            snapshot(4, "a", &["/srv"], false),
            snapshot(5, "a", &["/srv"], true),
        ]);
        let at = |second, ns| time.at(Timestamp::new(second, ns).unwrap()).map(|s| s.id.0[0]);
        assert_eq!([at(100, 499), at(100, 500), at(399, 0), at(9999, 0)], [None, Some(1), Some(3), Some(4)]);
        let heads: Vec<u8> = time.heads().map(|s| s.id.0[0]).collect();
        assert_eq!(heads, [4, 3, 2, 1]);
        let now = |path: &str| -> Vec<u8> {
            time.heads().filter(|s| !time.outdated(s, path.as_bytes())).map(|s| s.id.0[0]).collect()
        };
        assert_eq!(now("/home/jo/x"), [4, 3, 2], "1 is older than 2 and had the same source");
        assert_eq!(now("/home"), [4, 3, 2]);
        assert_eq!(now("/home/joe"), [4, 3, 2, 1], "of no newer one a source");
        assert_eq!(now("/srv/x"), [4, 3], "only 4 of a says it");
        assert!(time.any_xattrs() && time.has_xattrs(&SnapshotId([1; 16])) && !time.has_xattrs(&SnapshotId([2; 16])));
        assert!(time.has_xattrs(&SnapshotId([99; 16])), "of an unknown one nothing is known");
    }
}
