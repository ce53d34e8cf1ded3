//! The options of a push, and its summary.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tree::checkpoint::Checkpoints;
use super::walk::select::Select;
use crate::format::record::{Snapshot, SnapshotId};
use crate::name::ObjectId;
use crate::repo::Repository;
use crate::time::Time;

/// The default of [`Options::patience`].
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A repository that a push writes to.
#[derive(Clone, Copy)]
pub struct Destination<'r> {
    /// The repository.
    pub repo: &'r Repository,
    /// Its name in warnings about it; empty if it is the only one.
    pub name: &'r str,
}

/// The things to push, and the attributes of the snapshot.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute paths. A path inside another one is saved once. For [`super::push_streams`]: the paths that the snapshot
    /// lists, which need not exist.
    pub sources: Vec<PathBuf>,
    /// The name of this machine.
    pub host: String,
    /// The user who runs the push.
    pub user: String,
    /// Labels, in any order.
    pub tags: Vec<String>,
    /// Free text.
    pub description: String,
    /// The time of the snapshot (seconds since the epoch, nanoseconds); `None`: now.
    pub time: Option<Time>,
    /// Level of zstd, 1 to 22. 0: file contents are not compressed (metadata always is).
    pub compression: i32,
    /// The rules that exclude files. They do not affect the group of the snapshot, which is host and sources.
    pub select: Arc<Select>,
    /// Directories, by (device, inode), that are excluded with a warning: the repository itself.
    pub exclude_dev_ino: Vec<(u64, u64)>,
    /// The folders with the state and the cache of this program, by (device, inode), which are excluded below a source: they
    /// change with each run.
    pub own_dev_ino: Vec<(u64, u64)>,
    /// Devices that are excluded with a warning: mounted backups.
    pub exclude_devices: Vec<u64>,
    /// Reads all files again, without a comparison with earlier snapshots.
    pub force: bool,
    /// The snapshot to compare with, in the syntax of `State::select`, instead of the newest one of the group.
    pub parent: Option<String>,
    /// Makes no snapshot if the tree would be the same as in the newest whole snapshot of the group.
    pub skip_if_unchanged: bool,
    /// Bound of the memory in bytes, besides the memory of the KDF; at least [`super::LEAST`].
    pub memory: u64,
    /// Time after which a call on a file system of the sources is given up, if that belongs to a program or to another
    /// machine. Then the rest of the file system is left out.
    pub patience: Duration,
    /// When to commit partial snapshots.
    pub checkpoints: Checkpoints,
    /// Pads every pack to the full size, so that sizes reveal nothing about single files.
    pub full_packs: bool,
    /// Threads that read files, at most; `None`: as the machine has cores.
    pub threads: Option<usize>,
}

impl Default for Options {
    /// Without sources, host and user, which the caller must set.
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
            own_dev_ino: Vec::new(),
            exclude_devices: Vec::new(),
            force: false,
            parent: None,
            skip_if_unchanged: false,
            memory: 256 << 20,
            patience: PATIENCE,
            checkpoints: Checkpoints::default(),
            full_packs: false,
            threads: None,
        }
    }
}

/// The result of a push.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The snapshot that was committed. If none was needed: the snapshot that was not.
    pub snapshot: Snapshot,
    /// The record that holds it; `None` with `skip_if_unchanged` if nothing changed.
    pub record: Option<ObjectId>,
    /// The sequence of the record.
    pub sequence: Option<u32>,
    /// The parent: the snapshot that the sources were compared with.
    pub parent: Option<SnapshotId>,
    /// Files that the parent does not have.
    pub new: u64,
    /// Files whose contents or attributes differ from the parent.
    pub changed: u64,
    /// Files that are the same as in the parent.
    pub unchanged: u64,
    /// Files that have another path in the parent, recognised without reading them.
    pub renamed: u64,
    /// Bytes of files that were read.
    pub read: u64,
    /// Plaintext bytes of new chunks, metadata included.
    pub added: u64,
    /// Bytes of the packs with these chunks.
    pub stored: u64,
    /// Bytes sent to the storage, as the storage counts them.
    pub sent: u64,
    /// Bytes received from the storage, as the storage counts them.
    pub received: u64,
    /// Nodes that could not be saved completely; each was reported.
    pub skipped: u64,
    /// Files that changed each time they were read. The last content is kept and marked; each was reported.
    pub changed_while_read: u64,
    /// Entries that the selection excluded; a directory counts as one.
    pub excluded: u64,
    /// The directories that grew most, with the new bytes in and below them. Bytes of a listed directory do not count for
    /// the directories above it. At most ten, most bytes first.
    pub grew: Vec<(Vec<u8>, u64)>,
    /// Packs written.
    pub packs: u64,
    /// Time from the start to the commit.
    pub duration: Duration,
}
