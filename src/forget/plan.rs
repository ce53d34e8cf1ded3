//! Which snapshots a policy or a list of ids forgets, in groups, and what speaks against it. Pure.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::policy::{Candidate, Judged, Policy};
use crate::format::record::{PINNED, Snapshot, SnapshotId};
use crate::printable;

/// The properties that the snapshots of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// All sources.
    pub paths: bool,
    /// All tags.
    pub tags: bool,
}

impl Default for GroupBy {
    /// Host and sources.
    fn default() -> Self {
        GroupBy { host: true, paths: true, tags: false }
    }
}

/// The common values of a group; empty where they do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// The host.
    pub host: String,
    /// The sources.
    pub paths: Vec<Vec<u8>>,
    /// Stands for the sources that a record leaves out for want of room.
    pub more_paths: u64,
    /// The tags.
    pub tags: Vec<String>,
}

impl GroupBy {
    fn key(self, s: &Snapshot) -> GroupKey {
        GroupKey {
            host: if self.host { s.host.clone() } else { String::new() },
            paths: if self.paths { s.paths.iter().map(|path| path.to_vec()).collect() } else { Vec::new() },
            more_paths: if self.paths && s.more_paths > 0 { s.group } else { 0 },
            tags: if self.tags { s.tags.clone() } else { Vec::new() },
        }
    }
}

/// The snapshots of one group, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The properties that they share.
    pub key: GroupKey,
    /// Each with the reasons for keeping it.
    pub snapshots: Vec<Judged>,
}

/// The verdict on each snapshot, by group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The groups.
    pub groups: Vec<Group>,
}

impl Plan {
    /// Applies a policy to each group. Partial snapshots are not part of it: the next push replaces them.
    pub fn by_policy(policy: &Policy, candidates: Vec<Candidate>, group_by: GroupBy, zone: &TimeZone) -> Self {
        let mut groups: BTreeMap<GroupKey, Vec<Candidate>> = BTreeMap::new();
        for candidate in candidates.into_iter().filter(|candidate| !candidate.snapshot.partial) {
            groups.entry(group_by.key(&candidate.snapshot)).or_default().push(candidate);
        }
        let groups = groups.into_iter();
        Plan { groups: groups.map(|(key, all)| Group { key, snapshots: policy.judge(all, zone) }).collect() }
    }

    /// Returns the snapshots that are forgotten.
    pub fn forgotten(&self) -> Vec<&Snapshot> {
        let all = self.groups.iter().flat_map(|group| &group.snapshots);
        all.filter(|judged| judged.reasons.is_empty()).map(|judged| &judged.candidate.snapshot).collect()
    }

    /// Returns the number of snapshots that were judged.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.snapshots.len()).sum()
    }

    /// Returns whether no snapshot was judged.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// Returns what speaks against forgetting these of all snapshots that are shown: nothing is left of a host and its
/// sources, or more than half of the snapshots is forgotten.
pub fn objections(all: &[Snapshot], forgotten: &[SnapshotId]) -> Vec<String> {
    let whole: Vec<&Snapshot> = all.iter().filter(|s| !s.partial).collect();
    let mut left: BTreeMap<GroupKey, (bool, &Snapshot)> = BTreeMap::new();
    for s in &whole {
        let group = left.entry(GroupBy::default().key(s)).or_insert((false, s));
        group.0 |= !forgotten.contains(&s.id);
    }
    let mut objections: Vec<String> = left
        .values()
        .filter(|(is_left, _)| !is_left)
        .map(|(_, s)| {
            let paths: Vec<_> = s.paths.iter().map(|path| printable::name(path)).collect();
            format!("no snapshot of host {} with {} would be left", s.host, paths.join(" "))
        })
        .collect();
    let gone = whole.iter().filter(|s| forgotten.contains(&s.id)).count();
    if gone * 2 > whole.len() {
        objections.push(format!("{gone} of {} snapshots would be forgotten, more than half", whole.len()));
    }
    objections
}

/// Returns the first pinned snapshot.
pub fn pinned<'s>(mut snapshots: impl Iterator<Item = &'s Snapshot>) -> Option<&'s Snapshot> {
    snapshots.find(|s| s.tags.iter().any(|tag| tag == PINNED))
}
