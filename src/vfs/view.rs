//! The folders above the snapshots: `latest`, `snapshots/`, `hosts/`, `tags/`, `ids/`, and the tops of `at/`, `versions/`,
//! `deleted/`. Made anew for each state of the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::inode;
use super::time::moment::shadow;
use super::time::timeline::Timeline;
use crate::crypto::keys::Keys;
use crate::format::node::valid_name;
use crate::format::record::Snapshot;
use crate::time::Time;

/// What a name in a folder of the view stands for.
#[derive(Clone)]
pub enum Target {
    /// Another folder of the view, by its place in [`View::folders`].
    Folder(usize),
    /// The root of a snapshot.
    Snapshot(Arc<Snapshot>),
}

/// How a directory gets its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has those that it lists.
    Plain,
    /// Any expression for a moment leads to a snapshot.
    At,
    /// All that ever was in the folder at its path, and all versions of a file at its path.
    Versions,
    /// What was once in the folder at its path and is not now.
    Deleted,
}

impl Role {
    /// Whether its entries come from all snapshots.
    pub fn merges(self) -> bool {
        matches!(self, Role::Versions | Role::Deleted)
    }
}

/// A folder of the view.
pub struct Folder {
    /// Its inode number.
    pub ino: u64,
    /// What it shows.
    pub role: Role,
    /// The folder that holds it; the root holds itself.
    pub parent: usize,
    /// Its name.
    pub name: Vec<u8>,
    /// Its entries, ascending by name.
    pub entries: Vec<(Vec<u8>, Target)>,
    /// When the newest snapshot in it or below it was taken.
    pub newest: Time,
}

/// All folders of the view. The first is the root; there is none at all where one snapshot is the root of the mount.
#[derive(Default)]
pub struct View {
    /// See above.
    pub folders: Vec<Folder>,
    /// The snapshots.
    pub time: Arc<Timeline>,
    by_ino: HashMap<u64, usize>,
}

/// What the kernel must drop after a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invalidation {
    /// What it knows of this name in this directory.
    Entry(u64, Vec<u8>),
    /// The listing and the attributes of this directory.
    Listing(u64),
}

impl View {
    /// The view of these snapshots (oldest first, as [`crate::repo::State::snapshots`] gives them).
    pub fn new(keys: &Keys, snapshots: Vec<Snapshot>, zone: &TimeZone) -> Self {
        let snapshots: Vec<_> = snapshots.into_iter().map(Arc::new).collect();
        let newest = snapshots.last().map_or(Time::default(), |s| s.time);
        let mut view = View::default();
        view.folder(0, b"", inode::ROOT);
        let all: Vec<_> = snapshots.iter().collect();
        if let Some(latest) = latest(&all) {
            view.folders[0].entries.push((b"latest".to_vec(), Target::Snapshot(latest)));
        }
        let by_time = view.below(keys, 0, b"snapshots");
        view.folders[by_time].entries = timed(&all, zone);
        let (mut hosts, mut tags): (BTreeMap<_, Vec<_>>, BTreeMap<_, Vec<_>>) = Default::default();
        for s in &snapshots {
            hosts.entry(file_name(&s.host)).or_default().push(s);
            s.tags.iter().for_each(|tag| tags.entry(file_name(tag)).or_default().push(s));
        }
        for (name, groups) in [(b"hosts".as_slice(), hosts), (b"tags", tags)] {
            let folder = view.below(keys, 0, name);
            for (name, group) in groups {
                let at = view.below(keys, folder, &name);
                let newest = latest(&group).map(|s| (b"latest".to_vec(), Target::Snapshot(s)));
                view.folders[at].entries = timed(&group, zone).into_iter().chain(newest).collect();
            }
        }
        let ids = view.below(keys, 0, b"ids");
        view.folders[ids].entries = by_id(&all);
        for (name, role) in [(b"at".as_slice(), Role::At), (b"deleted", Role::Deleted), (b"versions", Role::Versions)] {
            let at = view.below(keys, 0, name);
            view.folders[at].role = role;
        }
        for folder in &mut view.folders {
            folder.entries.sort_by(|a, b| a.0.cmp(&b.0));
            let time = |(_, t): &(_, Target)| if let Target::Snapshot(s) = t { Some(s.time) } else { None };
            folder.newest = folder.entries.iter().filter_map(time).max().unwrap_or(newest);
        }
        view.time = Arc::new(Timeline::new(snapshots));
        view
    }

    fn folder(&mut self, parent: usize, name: &[u8], ino: u64) -> usize {
        self.by_ino.insert(ino, self.folders.len());
        let (name, entries, newest) = (name.to_vec(), Vec::new(), Time::default());
        self.folders.push(Folder { ino, role: Role::Plain, parent, name, entries, newest });
        self.folders.len() - 1
    }

    fn below(&mut self, keys: &Keys, parent: usize, name: &[u8]) -> usize {
        let ino = inode::directory(keys, self.folders[parent].ino, name, None);
        let at = self.folder(parent, name, ino);
        self.folders[parent].entries.push((name.to_vec(), Target::Folder(at)));
        at
    }

    /// The folder of this number.
    pub fn find(&self, ino: u64) -> Option<&Folder> {
        self.by_ino.get(&ino).map(|at| &self.folders[*at])
    }

    /// What a name stands for.
    pub fn target<'a>(&'a self, folder: &'a Folder, name: &[u8]) -> Option<&'a Target> {
        let found = folder.entries.binary_search_by(|entry| entry.0.as_slice().cmp(name));
        found.ok().map(|at| &folder.entries[at].1)
    }

    /// The snapshot that Samba means by a name like `@GMT-2026.11.22-10.00.00` in a folder: one of those in it, in the root
    /// one of all. Such names are not listed.
    pub fn shadow(&self, folder: &Folder, name: &[u8]) -> Option<Arc<Snapshot>> {
        let second = shadow(std::str::from_utf8(name).ok()?)?;
        let fits = |s: &&Arc<Snapshot>| s.time.seconds == second;
        if folder.ino == inode::ROOT {
            return latest(&self.time.snapshots.iter().filter(fits).collect::<Vec<_>>());
        }
        let snapshots =
            folder.entries.iter().filter_map(|(_, t)| if let Target::Snapshot(s) = t { Some(s) } else { None });
        let mut found: Vec<_> = snapshots.filter(fits).collect();
        found.sort_by_key(|s| s.time);
        latest(&found)
    }

    /// What the kernel must drop when `self` takes the place of `old`.
    pub fn changes(&self, old: &View) -> Vec<Invalidation> {
        let mut changes = Vec::new();
        for folder in &old.folders {
            let same = |a: &Target, b: &Target| match (a, b) {
                (Target::Folder(_), Target::Folder(_)) => true,
                (Target::Snapshot(a), Target::Snapshot(b)) => a.id == b.id,
                _ => false,
            };
            let new = self.find(folder.ino);
            let now = |name: &[u8]| new.and_then(|new| self.target(new, name));
            let gone = folder.entries.iter().filter(|(name, t)| !now(name).is_some_and(|n| same(t, n)));
            let added = new.iter().flat_map(|new| &new.entries).filter(|(name, _)| old.target(folder, name).is_none());
            let names = gone.chain(added).map(|(name, _)| Invalidation::Entry(folder.ino, name.clone()));
            let before = changes.len();
            changes.extend(names);
            let merges = folder.role.merges() && old.time.generation != self.time.generation;
            if changes.len() > before || merges {
                changes.push(Invalidation::Listing(folder.ino));
            }
        }
        changes
    }
}

/// The newest whole snapshot.
fn latest(snapshots: &[&Arc<Snapshot>]) -> Option<Arc<Snapshot>> {
    snapshots.iter().rev().find(|s| !s.partial).map(|s| Arc::clone(s))
}

/// A time as the name of a file.
pub fn local(seconds: i64, zone: &TimeZone) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default().to_zoned(zone.clone());
    time.strftime("%Y-%m-%d_%H-%M-%S").to_string()
}

/// Snapshots by local time. Where two collide, the first keeps the plain name and the others get their id.
fn timed(snapshots: &[&Arc<Snapshot>], zone: &TimeZone) -> Vec<(Vec<u8>, Target)> {
    let mut taken: BTreeMap<String, ()> = BTreeMap::new();
    let name = |s: &Arc<Snapshot>| {
        let mut name = local(s.time.seconds, zone);
        if s.partial {
            name.push_str("-partial");
        }
        if taken.contains_key(&name) {
            name = format!("{name}-{}", s.id.short());
        }
        if taken.contains_key(&name) {
            name = format!("{name}-{}", s.id.to_string());
        }
        taken.insert(name.clone(), ());
        name.into_bytes()
    };
    snapshots.iter().copied().map(name).zip(snapshots).map(|(n, s)| (n, Target::Snapshot(Arc::clone(s)))).collect()
}

/// Snapshots by the first eight digits of their id; by all of them where those collide.
fn by_id(snapshots: &[&Arc<Snapshot>]) -> Vec<(Vec<u8>, Target)> {
    let mut named: BTreeMap<Vec<u8>, Target> = BTreeMap::new();
    for s in snapshots {
        let short = s.id.short().into_bytes();
        let name = if named.contains_key(&short) { s.id.to_string().into_bytes() } else { short };
        named.insert(name, Target::Snapshot(Arc::clone(s)));
    }
    named.into_iter().collect()
}

/// A host's name or a tag as the name of a file: `/`, `%`, control characters, a dot at the beginning and what is too
/// long are written as `%` and two hex digits a byte, or cut and marked with a `%` at the end.
pub fn file_name(text: &str) -> Vec<u8> {
    let mut name = String::new();
    for (i, c) in text.char_indices() {
        if c == '/' || c == '%' || c.is_control() || (i == 0 && c == '.') {
            let mut buffer = [0; 4];
            c.encode_utf8(&mut buffer).bytes().for_each(|b| name.push_str(&format!("%{b:02X}")));
        } else {
            name.push(c);
        }
        if name.len() > 200 {
            name.push('%');
            break;
        }
    }
    if name.is_empty() {
        name.push('%');
    }
    debug_assert!(valid_name(name.as_bytes()));
    name.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_and_tags_become_file_names() {
        for (text, name) in [
            ("laptop", "laptop"),
            ("", "%"),
            ("..", "%2E."),
            ("a/b", "a%2Fb"),
            ("50%", "50%25"),
            ("x\ny", "x%0Ay"),
            ("é", "é"),
        ] {
            assert_eq!(String::from_utf8(file_name(text)).unwrap(), name);
        }
        assert!(valid_name(&file_name(&"é/".repeat(300))));
    }
}
