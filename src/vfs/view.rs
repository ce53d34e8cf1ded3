//! The view: the directories above the snapshots (`latest`, `snapshots/`, `hosts/`, `tags/`, `ids/`) and the tops of the
//! time views (`at/`, `versions/`, `deleted/`). It is made anew for each state of the record log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::snapshot_names::{file_name, is_id_suffix, names_by_id, names_by_time};
use super::time::timeline::Timeline;
use super::{inode, readme};
use crate::crypto::keys::Keys;
use crate::format::record::Snapshot;
use crate::moment::shadow;
use crate::repo::latest_first;
use crate::time::Time;

/// The node behind a name in a directory of the view.
#[derive(Clone)]
pub enum Target {
    /// Another directory of the view, as an index into [`View::dirs`].
    Dir(usize),
    /// The root of a snapshot.
    Snapshot(Arc<Snapshot>),
    /// The file `README`.
    Readme,
}

impl Target {
    fn is_same(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Dir(_), Target::Dir(_)) | (Target::Readme, Target::Readme) => true,
            (Target::Snapshot(a), Target::Snapshot(b)) => a.id == b.id,
            _ => false,
        }
    }

    fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        match self {
            Target::Snapshot(snapshot) => Some(snapshot),
            Target::Dir(_) | Target::Readme => None,
        }
    }
}

/// The source of the entries of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// From a list, or from the pages of a snapshot.
    Plain,
    /// From expressions for moments, each of which leads to a snapshot.
    At,
    /// From all snapshots: all names that ever were at its path, and all versions of a file at its path.
    Versions,
    /// From all snapshots: the nodes that once were at its path and do not exist now.
    Deleted,
}

impl Role {
    /// Returns whether the entries come from all snapshots.
    pub fn merges(self) -> bool {
        matches!(self, Role::Versions | Role::Deleted)
    }
}

/// A directory of the view.
pub struct ViewDir {
    /// Its inode number.
    pub ino: u64,
    /// The source of its entries.
    pub role: Role,
    /// Index of its parent directory; the root is its own parent.
    pub parent: usize,
    /// Its name.
    pub name: Vec<u8>,
    /// Its entries, ascending by name.
    pub entries: Vec<(Vec<u8>, Target)>,
    /// Time of the newest snapshot in it or below it.
    pub newest: Time,
}

/// The directories of the view. There are none in a mount that shows one directory of a snapshot.
#[derive(Default)]
pub struct View {
    /// The directories; the first is the root.
    pub dirs: Vec<ViewDir>,
    /// The snapshots.
    pub time: Arc<Timeline>,
    /// Inode number of the file `README` in the root, or 0.
    pub readme: u64,
    by_ino: HashMap<u64, usize>,
}

/// A cached item that the kernel must drop after a change of the view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invalidation {
    /// A name in a directory.
    Entry(u64, Vec<u8>),
    /// The listing and the attributes of a directory.
    Listing(u64),
}

impl View {
    /// Creates the view of these snapshots, oldest first.
    pub fn new(keys: &Keys, snapshots: Vec<Snapshot>, zone: &TimeZone, now: Time) -> Self {
        let snapshots: Vec<_> = snapshots.into_iter().map(Arc::new).collect();
        let mut view = View::default();
        view.add(0, b"", inode::ROOT);
        view.readme = readme::number(keys);
        view.dirs[0].entries.push((readme::NAME.to_vec(), Target::Readme));
        if let Some(latest) = latest(&snapshots, now) {
            view.dirs[0].entries.push((b"latest".to_vec(), Target::Snapshot(latest)));
        }
        let by_time = view.add_below(keys, 0, b"snapshots");
        view.dirs[by_time].entries = targets(names_by_time(&snapshots, zone), &snapshots);
        let by_id = view.add_below(keys, 0, b"ids");
        view.dirs[by_id].entries = targets(names_by_id(&snapshots), &snapshots);
        let mut hosts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut tags: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for snapshot in &snapshots {
            hosts.entry(file_name(&snapshot.host)).or_default().push(Arc::clone(snapshot));
            for tag in &snapshot.tags {
                tags.entry(file_name(tag)).or_default().push(Arc::clone(snapshot));
            }
        }
        view.add_groups(keys, b"hosts", hosts, zone, now);
        view.add_groups(keys, b"tags", tags, zone, now);
        for (name, role) in [(b"at".as_slice(), Role::At), (b"deleted", Role::Deleted), (b"versions", Role::Versions)] {
            let top = view.add_below(keys, 0, name);
            view.dirs[top].role = role;
        }
        view.finish(&snapshots);
        view.time = Arc::new(Timeline::new(snapshots, now));
        view
    }

    fn add(&mut self, parent: usize, name: &[u8], ino: u64) -> usize {
        let index = self.dirs.len();
        self.by_ino.insert(ino, index);
        let name = name.to_vec();
        self.dirs.push(ViewDir { ino, role: Role::Plain, parent, name, entries: Vec::new(), newest: Time::default() });
        index
    }

    fn add_below(&mut self, keys: &Keys, parent: usize, name: &[u8]) -> usize {
        let ino = inode::directory(keys, self.dirs[parent].ino, name, None);
        let index = self.add(parent, name, ino);
        self.dirs[parent].entries.push((name.to_vec(), Target::Dir(index)));
        index
    }

    /// Adds a directory of the root with one directory for each group of snapshots.
    fn add_groups(
        &mut self,
        keys: &Keys,
        name: &[u8],
        groups: BTreeMap<Vec<u8>, Vec<Arc<Snapshot>>>,
        zone: &TimeZone,
        now: Time,
    ) {
        let parent = self.add_below(keys, 0, name);
        for (name, group) in groups {
            let index = self.add_below(keys, parent, &name);
            let mut entries = targets(names_by_time(&group, zone), &group);
            if let Some(latest) = latest(&group, now) {
                entries.push((b"latest".to_vec(), Target::Snapshot(latest)));
            }
            self.dirs[index].entries = entries;
        }
    }

    /// Sorts the entries and sets the times of the directories.
    fn finish(&mut self, snapshots: &[Arc<Snapshot>]) {
        let newest = snapshots.last().map_or(Time::default(), |s| s.time);
        for dir in &mut self.dirs {
            dir.entries.sort_by(|a, b| a.0.cmp(&b.0));
            let times = dir.entries.iter().filter_map(|(_, target)| target.snapshot().map(|s| s.time));
            dir.newest = times.max().unwrap_or(newest);
        }
    }

    /// Returns the directory with this inode number.
    pub fn find(&self, ino: u64) -> Option<&ViewDir> {
        self.by_ino.get(&ino).map(|index| &self.dirs[*index])
    }

    /// Returns the directory with this inode number, if it lists its own entries.
    pub fn listed_dir(&self, ino: u64) -> Option<&ViewDir> {
        self.find(ino).filter(|dir| !dir.role.merges())
    }

    /// Returns the names of this directory and of its parents, up to the root.
    pub fn names_upwards(&self, ino: u64) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let mut next = self.find(ino);
        while let Some(dir) = next.filter(|dir| dir.ino != inode::ROOT) {
            names.push(dir.name.clone());
            next = self.dirs.get(dir.parent);
        }
        names
    }

    /// Returns the snapshot behind a name that is not listed: one like `@GMT-2026.11.22-10.00.00`, as Samba writes it, or
    /// the time of several snapshots without an id.
    pub fn unlisted(&self, dir: &ViewDir, name: &[u8], now: Time) -> Option<Arc<Snapshot>> {
        match shadow(std::str::from_utf8(name).ok()?) {
            Some(second) => self.shadow(dir, second, now),
            None => dir.of_equal_time(name, now),
        }
    }

    /// Returns the snapshot of a second in a directory: one of the snapshots in it, in the root one of all.
    fn shadow(&self, dir: &ViewDir, second: i64, now: Time) -> Option<Arc<Snapshot>> {
        let mut found: Vec<_> = if dir.ino == inode::ROOT {
            self.time.snapshots.clone()
        } else {
            dir.entries.iter().filter_map(|(_, target)| target.snapshot().cloned()).collect()
        };
        found.retain(|snapshot| snapshot.time.seconds == second);
        found.sort_by_key(|snapshot| snapshot.time);
        latest(&found, now)
    }

    /// Returns what the kernel must drop when this view replaces `old`.
    pub fn changes(&self, old: &View) -> Vec<Invalidation> {
        let mut changes = Vec::new();
        for old_dir in &old.dirs {
            let names = self.changed_names(old_dir);
            let merges = old_dir.role.merges() && old.time.generation != self.time.generation;
            if merges || !names.is_empty() {
                changes.extend(names.into_iter().map(|name| Invalidation::Entry(old_dir.ino, name)));
                changes.push(Invalidation::Listing(old_dir.ino));
            }
        }
        changes
    }

    /// Returns the names in an old directory that mean another node now, and then the new names.
    fn changed_names(&self, old: &ViewDir) -> Vec<Vec<u8>> {
        let new = self.find(old.ino);
        let mut names = Vec::new();
        for (name, target) in &old.entries {
            let now = new.and_then(|new| new.target(name));
            if !now.is_some_and(|now| now.is_same(target)) {
                names.push(name.clone());
            }
        }
        let new_entries = new.iter().flat_map(|new| &new.entries);
        names.extend(new_entries.filter(|(name, _)| old.target(name).is_none()).map(|(name, _)| name.clone()));
        names
    }
}

impl ViewDir {
    /// Returns the node behind a listed name.
    pub fn target(&self, name: &[u8]) -> Option<&Target> {
        let found = self.entries.binary_search_by(|entry| entry.0.as_slice().cmp(name));
        found.ok().map(|at| &self.entries[at].1)
    }

    /// Returns the newest of the snapshots whose names are this time and their id.
    fn of_equal_time(&self, time: &[u8], now: Time) -> Option<Arc<Snapshot>> {
        let start = self.entries.partition_point(|(name, _)| name.as_slice() < time);
        let named = self.entries[start..].iter().take_while(|(name, _)| name.starts_with(time));
        let snapshots = named.filter_map(|(name, target)| Some((name, target.snapshot()?)));
        let mut found: Vec<_> =
            snapshots.filter(|(name, s)| is_id_suffix(&name[time.len()..], s)).map(|(_, s)| Arc::clone(s)).collect();
        found.sort_by_key(|snapshot| snapshot.time);
        latest(&found, now)
    }
}

fn targets(names: Vec<Vec<u8>>, snapshots: &[Arc<Snapshot>]) -> Vec<(Vec<u8>, Target)> {
    names.into_iter().zip(snapshots).map(|(name, s)| (name, Target::Snapshot(Arc::clone(s)))).collect()
}

/// Returns the snapshot that `latest` means among these, which ascend by time.
fn latest(snapshots: &[Arc<Snapshot>], now: Time) -> Option<Arc<Snapshot>> {
    latest_first(snapshots.iter().cloned(), now).next()
}
