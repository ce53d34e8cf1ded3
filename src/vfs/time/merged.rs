//! The directories below `versions/` and `deleted/`, as the kernel sees them: look-ups, attributes and listings. The nodes
//! in them are nodes of snapshots or further such directories.

use std::sync::Arc;

use super::former::NodePlace;
use super::history::NameSummary;
use super::timeline::Timeline;
use crate::error::Error;
use crate::format::record::SnapshotId;
use crate::vfs::attr::{Attr, Fault, Kind, again};
use crate::vfs::inode;
use crate::vfs::inode_table::{DirInode, Inode, InodeTable};
use crate::vfs::readdir::{AddEntry, Entry, add_dots};
use crate::vfs::view::Role;
use crate::vfs::{Mode, Vfs};

/// A directory that is merged from all snapshots.
pub(in crate::vfs) struct MergedDir {
    pub role: Role,
    pub ino: u64,
    /// Inode number of its parent directory.
    above: u64,
    pub path: Vec<Box<[u8]>>,
    /// The directory in the inode table; `None` for `versions/` and `deleted/` themselves, which are not in it.
    dir: Option<Arc<DirInode>>,
}

/// An entry of a merged directory.
#[derive(Clone)]
pub(in crate::vfs) struct MergedEntry {
    pub name: Box<[u8]>,
    pub attr: Attr,
    /// The node of a snapshot; `None`: a further merged directory.
    pub(super) node: Option<NodePlace>,
}

/// The entries of a merged directory, ascending by name.
#[derive(Default)]
pub(in crate::vfs) struct MergedListing {
    pub entries: Vec<MergedEntry>,
    /// The reason why some entries are missing.
    pub error: Option<Error>,
}

impl MergedListing {
    /// Returns its size in memory, in bytes.
    fn weight(&self) -> usize {
        self.entries.iter().map(|entry| entry.name.len() + size_of::<MergedEntry>() + 16).sum()
    }

    fn get(&self, name: &[u8]) -> Option<&MergedEntry> {
        let at = self.entries.binary_search_by(|entry| (*entry.name).cmp(name)).ok()?;
        self.entries.get(at)
    }
}

impl MergedDir {
    /// Returns a directory below this one for the inode table, without name, page and snapshot.
    fn child(&self, number: u32, role: Role, attr: Attr) -> DirInode {
        DirInode {
            number,
            role,
            parent: self.dir.as_ref().map(|dir| (dir.number, 0)),
            above: self.ino,
            name: Box::default(),
            page: None,
            snapshot: SnapshotId::default(),
            attr,
            node: None,
        }
    }

    /// Returns the path of an entry.
    pub fn path_of(&self, name: &[u8]) -> Vec<Box<[u8]>> {
        [self.path.as_slice(), &[name.into()]].concat()
    }
}

impl Vfs {
    /// Returns the merged directory with this inode number.
    pub(in crate::vfs) fn merged(&self, ino: u64) -> Option<MergedDir> {
        if let Some(role) = self.view().find(ino).map(|dir| dir.role) {
            let top = MergedDir { role, ino, above: inode::ROOT, path: Vec::new(), dir: None };
            return role.merges().then_some(top);
        }
        let table = self.table();
        let Some(Inode::Dir(dir)) = table.get(ino) else { return None };
        dir.role.merges().then_some(())?;
        let mut path = vec![dir.name.clone()];
        let mut parent = dir.parent;
        while let Some((number, _)) = parent {
            let up = table.get_dir(number)?;
            path.push(up.name.clone());
            parent = up.parent;
        }
        path.reverse();
        Some(MergedDir { role: dir.role, ino, above: dir.above, path, dir: Some(dir) })
    }

    pub(in crate::vfs) fn merged_attr(&self, merged: &MergedDir, mode: Mode) -> Result<Attr, Fault> {
        if merged.path.is_empty() {
            return self.view().find(merged.ino).map(|dir| self.view_attr(dir)).ok_or(Fault::Stale);
        }
        let history = self.history(&self.time(), &merged.path, mode)?;
        match &history.error {
            Some(error) if history.versions.is_empty() => Err(Fault::Broken(again(error))),
            None if history.versions.is_empty() => Err(Fault::Stale),
            _ => Ok(self.merged_dir_attr(merged.ino, &NameSummary::of(&history))),
        }
    }

    /// Returns the attributes of a merged directory. It allows only what all directories that it shows allow; the link
    /// count 1 means that the number of subdirectories is not known.
    pub(super) fn merged_dir_attr(&self, ino: u64, summary: &NameSummary) -> Attr {
        let owner = if summary.several_owners { self.options.mounter } else { summary.owner };
        let (uid, gid) = self.options.rights.owner.unwrap_or(owner);
        let readable = summary.file_mode & 0o444;
        let mode = summary.mode.unwrap_or(readable | readable >> 2) & 0o777;
        let kind = Kind::Directory;
        Attr { ino, kind, mode, nlink: 1, uid, gid, size: 0, blocks: 0, mtime: summary.mtime, device: (0, 0) }
    }

    pub(in crate::vfs) fn merged_lookup(
        &self,
        merged: &MergedDir,
        name: &[u8],
        mode: Mode,
    ) -> Result<Option<Attr>, Fault> {
        let time = self.time();
        let listing = self.listings.cached(&self.listing_key(&time, merged)).filter(|l| l.error.is_none());
        let entry = match listing {
            Some(listing) => listing.get(name).cloned(),
            None => self.merged_entry(&time, merged, name, mode)?,
        };
        match entry {
            Some(entry) if self.hold_merged(merged, &entry) => Ok(Some(entry.attr)),
            Some(_) => Err(Fault::Stale),
            None => Ok(None),
        }
    }

    pub(in crate::vfs) fn merged_readdir(
        &self,
        merged: &MergedDir,
        offset: u64,
        hold: bool,
        mode: Mode<'_>,
        add: &mut AddEntry<'_>,
    ) -> Result<(), Fault> {
        let listing = self.merged_listing(&self.time(), merged, mode)?;
        let own = match &merged.dir {
            Some(dir) => dir.attr,
            None => self.merged_attr(merged, mode)?,
        };
        if add_dots(own, Attr { ino: merged.above, ..own }, offset, add) {
            return Ok(());
        }
        let skip = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        for (i, entry) in listing.entries.iter().enumerate().skip(skip) {
            let full = add(&Entry { name: &entry.name, attr: entry.attr, next: i as u64 + 3 });
            if full || (hold && !self.hold_merged(merged, entry)) {
                return Ok(());
            }
        }
        match &listing.error {
            // Reported at the end, so that the readable entries are listed first.
            Some(error) if skip >= listing.entries.len() => Err(Fault::Broken(again(error))),
            _ => Ok(()),
        }
    }

    fn listing_key(&self, time: &Timeline, merged: &MergedDir) -> (u64, u64, bool) {
        (time.generation, inode::path(self.repo.keys(), &merged.path), merged.role == Role::Deleted)
    }

    fn merged_listing(&self, time: &Timeline, merged: &MergedDir, mode: Mode) -> Result<Arc<MergedListing>, Fault> {
        let key = self.listing_key(time, merged);
        if let Some(listing) = self.listings.cached(&key) {
            return Ok(listing);
        }
        let history = self.history(time, &merged.path, mode)?;
        let Mode::Fetch(ctx) = mode else { return Err(Fault::Wait) };
        let mut listing = self.list_merged(ctx, time, merged, &history)?;
        listing.entries.sort_by(|a, b| a.name.cmp(&b.name));
        if let (None, Some(error)) = (&listing.error, &history.error) {
            listing.error = Some(again(error));
        }
        let weight = listing.weight();
        let listing = Arc::new(listing);
        self.listings.put(key, Arc::clone(&listing), weight);
        Ok(listing)
    }

    /// Counts a look-up of an entry; returns false if the inode table does not know the directory any more.
    fn hold_merged(&self, merged: &MergedDir, entry: &MergedEntry) -> bool {
        let mut table = self.table();
        if let Some(dir) = &merged.dir
            && !table.get_dir(dir.number).is_some_and(|known| Arc::ptr_eq(&known, dir))
        {
            return false;
        }
        match &entry.node {
            None => table.hold_dir(entry.attr.ino, |number| DirInode {
                name: entry.name.clone(),
                ..merged.child(number, merged.role, entry.attr)
            }),
            Some(place) => self.hold_node(&mut table, merged, entry.attr, place),
        }
        true
    }

    /// Counts a look-up of a node of a snapshot. The node is known by its place in a directory of the snapshot, which no
    /// request of the kernel names.
    fn hold_node(&self, table: &mut InodeTable, merged: &MergedDir, attr: Attr, place: &NodePlace) {
        let page = place.entry.page;
        let ino = inode::hidden(self.repo.keys(), merged.ino, &page, &place.snapshot);
        let dir_attr = Attr { ino, kind: Kind::Directory, ..attr };
        table.hold_dir(ino, |number| DirInode {
            page: Some(page),
            snapshot: place.snapshot,
            ..merged.child(number, Role::Plain, dir_attr)
        });
        if let Some(Inode::Dir(dir)) = table.get(ino) {
            table.hold_entry(attr.ino, dir.number, place.entry.position);
        }
        table.forget(ino, 1);
    }

    pub(in crate::vfs) fn time(&self) -> Arc<Timeline> {
        Arc::clone(&self.view().time)
    }
}
