//! The history of a path: its versions over all snapshots. Equal subtrees are the same page by reference, so each page is
//! read once, whatever the number of snapshots. Only bounded caches of histories are kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::timeline::Timeline;
use crate::context::Context;
use crate::error::Error;
use crate::format::node::{Content, Node, PARTIAL, Xattrs};
use crate::format::record::SnapshotId;
use crate::format::reference::Ref;
use crate::repo::parallel;
use crate::time::Time;
use crate::trees::root;
use crate::vfs::attr::{Attr, Fault, again, passing};
use crate::vfs::inode;
use crate::vfs::tree::FoundNode;
use crate::vfs::{Mode, Vfs};

/// Pages that are fetched at the same time: a thousand snapshots over a network of 50 ms take 3 s for one directory.
pub const THREADS: usize = 16;

/// A path below the root of a snapshot, as names.
pub type NamePath = [Box<[u8]>];

/// One version of a path: a node that is equal in one or more snapshots.
pub struct Version {
    /// The node in the last of these snapshots.
    pub node: Arc<Node>,
    /// The first snapshot with this version, as an index into [`Timeline::snapshots`].
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// The place of the node in the last one; `None` for the root.
    pub place: Option<EntryPlace>,
}

/// The place of a node in a directory.
#[derive(Clone, Copy)]
pub struct EntryPlace {
    /// The top page of the directory.
    pub page: Ref,
    /// The position of the node in it.
    pub position: u32,
}

/// The versions of a path, ascending by their first snapshot.
#[derive(Default)]
pub struct History {
    /// The versions.
    pub versions: Vec<Version>,
    /// The reason why some versions are missing.
    pub error: Option<Error>,
}

impl History {
    /// Returns its size in memory, in bytes.
    pub fn weight(&self) -> usize {
        64 + self.versions.iter().map(Version::weight).sum::<usize>()
    }

    fn add_error(&mut self, error: &Error) {
        self.error.get_or_insert_with(|| again(error));
    }
}

impl Version {
    fn weight(&self) -> usize {
        let xattrs: usize = match &self.node.xattrs {
            Xattrs::Inline(list) => list.iter().map(|(name, value)| name.len() + value.len() + 48).sum(),
            Xattrs::Stored(_) => 0,
        };
        size_of::<Version>() + size_of::<Node>() + 400 + xattrs
    }
}

/// A summary of all nodes that ever had one name. The order in which they are added does not matter.
#[derive(Default, Clone)]
pub struct NameSummary {
    /// The last snapshot with a node of this name.
    pub newest: Option<u32>,
    /// Modification time of the newest node.
    pub mtime: Time,
    /// Owner of the newest node.
    pub owner: (u32, u32),
    /// Permissions that every directory of this name allows.
    pub mode: Option<u16>,
    /// The nodes have different owners.
    pub several_owners: bool,
    /// Mode of the newest node that is not a directory.
    pub file_mode: u16,
}

impl NameSummary {
    /// Summarises the versions of a path.
    pub fn of(history: &History) -> Self {
        let mut summary = NameSummary::default();
        for version in &history.versions {
            summary.add(&version.node, version.last);
        }
        summary
    }

    /// Adds a node of this name, and the last snapshot that has it.
    pub fn add(&mut self, node: &Node, last: u32) {
        let owner = (node.attrs.uid, node.attrs.gid);
        self.several_owners |= self.newest.is_some() && self.owner != owner;
        let is_directory = matches!(node.content, Content::Directory(_));
        if is_directory {
            self.mode = Some(self.mode.unwrap_or(0o7777) & node.attrs.mode);
        }
        if self.newest.is_none_or(|newest| last >= newest) {
            self.newest = Some(last);
            self.mtime = node.mtime;
            self.owner = owner;
            if !is_directory {
                self.file_mode = node.attrs.mode;
            }
        }
    }
}

/// Builds a history from nodes in the order of their snapshots.
struct HistoryBuilder<'t> {
    time: &'t Timeline,
    history: History,
    /// The present version at each host, as an index.
    current: HashMap<&'t str, usize>,
}

impl<'t> HistoryBuilder<'t> {
    fn new(time: &'t Timeline) -> Self {
        HistoryBuilder { time, history: History::default(), current: HashMap::new() }
    }

    /// Adds a version, ascending by the first snapshot. A node that comes back after another one is a new version; equal
    /// nodes of two hosts at the same time are one version.
    fn add(&mut self, version: Version) {
        if !is_version(&version.node) {
            return;
        }
        let host = self.time.snapshots[version.first as usize].host.as_str();
        let versions = &mut self.history.versions;
        let equal = self.current.values().copied().find(|at| equal(&versions[*at].node, &version.node));
        let at = equal.unwrap_or(versions.len());
        match versions.get_mut(at) {
            None => versions.push(version),
            Some(old) if version.last > old.last => *old = Version { first: old.first, ..version },
            Some(_) => {}
        }
        self.current.insert(host, at);
    }
}

/// Returns whether a node is a version of its path: nodes that could not be read, and the beginning of a file that was not
/// read to its end, are not.
pub fn is_version(node: &Node) -> bool {
    let partial = node.flags & PARTIAL != 0 && matches!(node.content, Content::File(_) | Content::Large { .. });
    !partial && !matches!(node.content, Content::Unreadable(_))
}

/// Returns whether two nodes are the same version. The id of a page is a hash of all ids below it, so directories with
/// equal ids are equal wherever they are stored.
fn equal(a: &Node, b: &Node) -> bool {
    match (&a.content, &b.content) {
        (Content::Directory(p), Content::Directory(q)) => p.map(|p| p.id) == q.map(|q| q.id) && a.attrs == b.attrs,
        // A reference list names the packs of its chunks, so it changes when they are relocated.
        (Content::Large { size: p, .. }, Content::Large { size: q, .. }) if p == q && a.mtime == b.mtime => true,
        _ => content_bytes(a) == content_bytes(b),
    }
}

fn content_bytes(node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    inode::contents(&mut bytes, &node.content);
    bytes
}

impl Vfs {
    /// Returns the history of a path.
    pub(super) fn history(&self, time: &Timeline, path: &NamePath, mode: Mode) -> Result<Arc<History>, Fault> {
        let key = (time.generation, inode::path(self.repo.keys(), path));
        if let Some(history) = self.histories.cached(&key) {
            return Ok(history);
        }
        let Mode::Fetch(ctx) = mode else { return Err(Fault::Wait) };
        let history = match path.split_last() {
            None => roots(time),
            Some((name, parent)) => {
                let parent = self.history(time, parent, mode)?;
                self.history_below(ctx, time, &parent, name)?
            }
        };
        let weight = history.weight();
        let history = Arc::new(history);
        self.histories.put(key, Arc::clone(&history), weight);
        Ok(history)
    }

    /// Returns the history of `name` in a directory with this history. May wait for the storage.
    fn history_below(&self, ctx: &Context, time: &Timeline, parent: &History, name: &[u8]) -> Result<History, Fault> {
        let mut found = self.entries_of(ctx, parent, name);
        let mut builder = HistoryBuilder::new(time);
        if let Some(error) = &parent.error {
            builder.history.add_error(error);
        }
        for version in &parent.versions {
            let Some(page) = page(&version.node) else { continue };
            match found.get_mut(&page) {
                Some(Ok(Some(at))) => {
                    let Some((node, _)) = at.node() else { continue };
                    let node = Arc::new(node.clone());
                    let place = Some(EntryPlace { page, position: at.position });
                    builder.add(Version { node, first: version.first, last: version.last, place });
                }
                Some(Err(Fault::Broken(error))) if !passing(error) => builder.history.add_error(error),
                Some(Err(fault)) => return Err(std::mem::replace(fault, Fault::Wait)),
                _ => {}
            }
        }
        Ok(builder.history)
    }

    /// Looks for `name` in each different directory of a history: in memory first, then in the storage, several at a time.
    fn entries_of(
        &self,
        ctx: &Context,
        directories: &History,
        name: &[u8],
    ) -> HashMap<Ref, Result<Option<FoundNode>, Fault>> {
        let mut found = HashMap::new();
        let mut known = HashSet::new();
        let mut missing = Vec::new();
        let pages = directories.versions.iter().filter_map(|version| page(&version.node));
        for page in pages.filter(|page| known.insert(*page)) {
            match self.entry(&page, name, Mode::Cached) {
                Err(Fault::Wait) => missing.push(page),
                entry => drop(found.insert(page, entry)),
            }
        }
        found.extend(parallel(THREADS, missing, |page| (page, self.entry(&page, name, Mode::Fetch(ctx)))));
        found
    }

    /// Returns the entry `name` of the directory with this top page.
    pub(super) fn entry(&self, page: &Ref, name: &[u8], mode: Mode) -> Result<Option<FoundNode>, Fault> {
        let found = self.find(Some(*page), name, mode)?;
        Ok(found.filter(|at| at.node().is_some_and(|(node, _)| node.name == name)))
    }

    /// Returns the inode number of a node, if it depends neither on the snapshot nor on the path, or 0.
    pub(super) fn fixed_ino(&self, node: &Node) -> u64 {
        inode::fixed(self.repo.keys(), node, self.options.shared_inodes)
    }

    /// Returns the attributes of a node of this snapshot that is not a directory.
    pub(in crate::vfs) fn attr_in(&self, snapshot: &SnapshotId, node: &Node, ino: u64) -> Attr {
        let ino = if ino == 0 { inode::in_directory(self.repo.keys(), inode::ROOT, snapshot, node) } else { ino };
        Attr::of(node, ino, self.options.rights)
    }
}

/// Returns the history of the root.
fn roots(time: &Timeline) -> History {
    let mut builder = HistoryBuilder::new(time);
    for (snapshot, at) in time.snapshots.iter().zip(0..) {
        builder.add(Version { node: Arc::new(root(snapshot)), first: at, last: at, place: None });
    }
    builder.history
}

/// Returns the top page of a directory that is not empty.
pub fn page(node: &Node) -> Option<Ref> {
    if let Content::Directory(page) = node.content { page } else { None }
}
