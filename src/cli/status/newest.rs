//! The newest complete snapshot of each host and path. Paths whose newest snapshot is the same one share a row.

use std::collections::BTreeMap;

use crate::cli::escape;
use crate::forget::Candidate;
use crate::format::record::Snapshot;
use crate::time::Time;

/// The newest snapshot of some paths of a host.
pub struct Newest {
    pub paths: Vec<Vec<u8>>,
    pub snapshot: Snapshot,
    /// The time that counts: a snapshot of the future counts from when this machine saw it first.
    pub time: Time,
    /// Complete snapshots of this host with the first of these paths.
    pub count: usize,
}

impl Newest {
    /// Returns the paths for people.
    pub fn paths(&self) -> String {
        let paths = self.paths.iter().map(|path| escape::text(path)).collect::<Vec<_>>().join(" ");
        match self.more_paths() {
            0 => paths,
            more => format!("{paths} +{more}"),
        }
    }

    /// Returns the number of further paths that the record of the snapshot leaves out for want of room.
    pub fn more_paths(&self) -> u32 {
        self.snapshot.more_paths
    }
}

/// Returns the rows by host and path.
pub fn newest(candidates: Vec<Candidate>) -> Vec<Newest> {
    let mut by_path: BTreeMap<(String, Vec<u8>), (usize, Candidate)> = BTreeMap::new();
    for candidate in candidates.into_iter().filter(|candidate| !candidate.snapshot.partial) {
        for path in &candidate.snapshot.paths {
            let key = (candidate.snapshot.host.clone(), path.to_vec());
            let (count, newest) = by_path.entry(key).or_insert_with(|| (0, candidate.clone()));
            *count += 1;
            if newest.time <= candidate.time {
                *newest = candidate.clone();
            }
        }
    }
    let mut rows: Vec<Newest> = Vec::new();
    for ((_, path), (count, Candidate { snapshot, time, .. })) in by_path {
        match rows.iter_mut().find(|row| row.snapshot.id == snapshot.id) {
            Some(row) => row.paths.push(path),
            None => rows.push(Newest { paths: vec![path], snapshot, time, count }),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::SnapshotId;

    fn candidate(id: u8, host: &str, paths: &[&str], seconds: i64) -> Candidate {
        let paths = paths.iter().map(|path| path.as_bytes().to_vec().into()).collect();
        let snapshot = Snapshot { id: SnapshotId([id; 16]), host: host.into(), paths, ..Snapshot::default() };
        Candidate { snapshot, time: Time::from_seconds(seconds), is_new: false }
    }

    #[test]
    fn paths_with_the_same_newest_snapshot_share_a_row() {
        let mut partial = candidate(9, "a", &["/x"], 99);
        partial.snapshot.partial = true;
        let rows = newest(vec![
            candidate(1, "a", &["/x", "/y"], 10),
            candidate(2, "a", &["/x", "/y", "/z"], 30),
            candidate(3, "a", &["/y"], 20),
            candidate(4, "a", &["/old"], 5),
            candidate(5, "b", &["/x"], 7),
            partial,
        ]);
        let shown: Vec<_> =
            rows.iter().map(|r| (r.snapshot.host.as_str(), r.paths(), r.time.seconds, r.count)).collect();
        assert_eq!(shown, [("a", "/old".into(), 5, 1), ("a", "/x /y /z".into(), 30, 2), ("b", "/x".to_owned(), 7, 1)]);
    }
}
