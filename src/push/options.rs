//! What a push is asked to do, and what it did.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use super::tree::checkpoint::Checkpoints;
use super::walk::select::Select;
use crate::format::record::{Snapshot, SnapshotId};
use crate::name::ObjectId;
use crate::time::Time;

/// What to push, and what to write on the snapshot.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute paths; what lies inside another one is saved once. Of [`push_streams`]: what the snapshot says that it
    /// was taken of, which need not exist.
    pub sources: Vec<PathBuf>,
    /// The machine's name.
    pub host: String,
    /// Who runs the push.
    pub user: String,
    /// Labels, in any order.
    pub tags: Vec<String>,
    /// Free text.
    pub description: String,
    /// The snapshot's time (seconds since the epoch, nanoseconds) if not now.
    pub time: Option<Time>,
    /// Level of zstd, 1 to 22; 0: file contents are not compressed (metadata always is).
    pub compression: i32,
    /// What is left out below the sources. It makes no snapshot another one's kind: that is said by host and sources.
    pub select: Arc<Select>,
    /// Directories, by (device, inode), that are left out with a warning: the repository itself.
    pub exclude_dev_ino: Vec<(u64, u64)>,
    /// Devices of which everything is left out with a warning: mounted backups.
    pub exclude_devices: Vec<u64>,
    /// Reads everything again, whatever earlier snapshots say.
    pub force: bool,
    /// The snapshot to compare with, as [`State::select`] takes it, instead of the newest one of the same kind.
    pub parent: Option<String>,
    /// Makes no snapshot if it would hold just what the last whole one of the same host and sources holds.
    pub skip_if_unchanged: bool,
    /// Most bytes of memory that it uses, beside those of the KDF; at least 104 MiB.
    pub memory: u64,
    /// When to commit what there is so far.
    pub checkpoints: Checkpoints,
    /// The number of the signal that asks to stop; 0 as long as there is none.
    pub stop: Arc<AtomicI32>,
}

impl Default for Options {
    /// Of nothing yet, by nobody.
    fn default() -> Self {
        Options {
            sources: Vec::new(),
            host: String::new(),
            user: String::new(),
            tags: Vec::new(),
            description: String::new(),
            time: None,
            compression: 3,
            select: Arc::default(),
            exclude_dev_ino: Vec::new(),
            exclude_devices: Vec::new(),
            force: false,
            parent: None,
            skip_if_unchanged: false,
            memory: 256 << 20,
            checkpoints: Checkpoints::default(),
            stop: Arc::default(),
        }
    }
}

/// What a push did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The snapshot as it was committed, or would have been.
    pub snapshot: Snapshot,
    /// The record that holds it; none if `skip_if_unchanged` was wanted and nothing has changed.
    pub record: Option<ObjectId>,
    /// The record's sequence.
    pub sequence: Option<u32>,
    /// The snapshot that it was compared with.
    pub parent: Option<SnapshotId>,
    /// Files that were not there before.
    pub new: u64,
    /// Files with other contents or attributes than before.
    pub changed: u64,
    /// Files that were there just so.
    pub unchanged: u64,
    /// Files that were somewhere else before, recognised without reading them.
    pub renamed: u64,
    /// Bytes of files that were read.
    pub read: u64,
    /// Plaintext bytes of chunks that the repository did not have, metadata included.
    pub added: u64,
    /// Bytes of the packs that were written for them.
    pub stored: u64,
    /// Bytes that went to the storage, as it counts them.
    pub sent: u64,
    /// Bytes that came from the storage, as it counts them.
    pub received: u64,
    /// Nodes that could not be saved, or not completely; each was reported.
    pub skipped: u64,
    /// Files that changed each time they were read. What was read last is kept and marked; each was reported.
    pub changed_while_read: u64,
    /// Entries that were left out because `select` says so; a folder counts as one.
    pub excluded: u64,
    /// The folders that grew most, with the bytes of files in and below them whose contents the repository did not have;
    /// what counts for one does not count for those above it. At most ten, most first.
    pub grew: Vec<(Vec<u8>, u64)>,
    /// Packs written.
    pub packs: u64,
    /// From the beginning to the commit.
    pub duration: Duration,
}
