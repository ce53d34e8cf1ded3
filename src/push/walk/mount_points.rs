//! The mount points of this machine: the walk looks at them before it touches them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

use crate::context::Context;
use crate::mounts;
use crate::push::read::dir::Dir;
use crate::push::read::guard::Guard;

/// Age from which on the mount table is read again.
const AGE: Duration = Duration::from_secs(5);

/// The mount table, and a guard for each file system that may hang.
pub struct MountPoints {
    ctx: Context<'static>,
    patience: Duration,
    read: Instant,
    /// The last parts of the paths of all mount points.
    names: HashSet<Vec<u8>>,
    /// Devices of file systems that may hang.
    distant: HashSet<u64>,
    guards: HashMap<u64, Guard>,
}

impl MountPoints {
    /// Reads the mount table. A call that takes longer than `patience` is given up.
    pub fn new(ctx: &Context, patience: Duration) -> Self {
        let mut points = MountPoints {
            ctx: ctx.detached(),
            patience,
            read: Instant::now(),
            names: HashSet::new(),
            distant: HashSet::new(),
            guards: HashMap::new(),
        };
        points.refresh();
        points
    }

    fn refresh(&mut self) {
        let table = mounts::table();
        self.names = table.iter().map(|mount| mount.name().to_vec()).collect();
        self.distant = table.iter().filter(|mount| mount.may_hang()).map(|mount| mount.device).collect();
        self.read = Instant::now();
    }

    /// Reads the table again if it is old. Called for each directory.
    pub fn renew(&mut self) {
        if self.read.elapsed() > AGE {
            self.refresh();
        }
    }

    /// Returns whether an entry of this name may be a mount point.
    pub fn may_be(&self, name: &[u8]) -> bool {
        self.names.contains(name)
    }

    /// Returns the way to make calls on the file system of a device.
    pub fn guard(&mut self, device: u64) -> Guard {
        if !self.distant.contains(&device) {
            return Guard::default();
        }
        self.guards.entry(device).or_insert_with(|| Guard::new(&self.ctx, self.patience)).clone()
    }
}

/// Returns the known facts about an entry without a call on the file system that is mounted there. The device is always
/// known.
pub fn look(dir: &Arc<Dir>, name: &[u8], follow: bool) -> Result<Statx, Errno> {
    let follow = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let flags = follow | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    dir.on_entry(name, move |dir, name| {
        // A mount of another user refuses all but the device.
        statx(&dir.fd, name, flags, StatxFlags::BASIC_STATS)
            .or_else(|_| statx(&dir.fd, name, flags, StatxFlags::empty()))
    })
}

/// Returns whether something may be mounted at an entry. Kernels before 5.8 do not know.
pub fn may_be_mount(found: &Statx) -> bool {
    let is_known = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    !is_known || found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}
