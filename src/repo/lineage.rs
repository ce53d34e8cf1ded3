//! Where a snapshot comes from: its group, the snapshot that it replaces, the one that it is a copy of.

use super::Repository;
use crate::format::record::{COPY_OF, REPLACES, Snapshot, SnapshotId};

impl Repository {
    /// Returns the group of the snapshots of this host and these paths: `name_hash(2, host || 0 || path || 0 || ..)`.
    pub fn group<'p>(&self, host: &'p str, paths: impl Iterator<Item = &'p [u8]>) -> u64 {
        let parts = std::iter::once(host.as_bytes()).chain(paths);
        let bytes: Vec<u8> = parts.flat_map(|part| part.iter().copied().chain([0])).collect();
        self.keys.name_hash(2, &bytes)
    }
}

impl Snapshot {
    /// Returns the id of the snapshot of another repository that this one is a copy of: the first one, if that was a copy
    /// itself.
    pub fn copy_of(&self) -> Option<SnapshotId> {
        let (_, id) = self.extra.iter().find(|extra| extra.0 == COPY_OF)?;
        id.as_slice().try_into().ok().map(SnapshotId)
    }

    /// Returns the id that this snapshot and all copies of it have in common.
    pub fn origin(&self) -> SnapshotId {
        self.copy_of().unwrap_or(self.id)
    }

    /// Sets the value of a key in `extra`.
    pub fn set_extra(&mut self, key: u32, value: Vec<u8>) {
        self.extra.retain(|extra| extra.0 != key);
        self.extra.push((key, value.into()));
        self.extra.sort_by_key(|extra| extra.0);
    }

    /// Makes this the replacement of another snapshot. A replacement is no copy: its contents may differ.
    pub fn set_replaces(&mut self, old: &SnapshotId) {
        self.extra.retain(|extra| extra.0 != COPY_OF);
        self.set_extra(REPLACES, old.0.to_vec());
    }
}
