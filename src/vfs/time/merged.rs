//! The folders below `versions/` and `deleted/`: what they list, and how the nodes in them are known to the kernel.
//!
//! In `versions/` every name that ever was at a place is a folder, which holds all names that ever were below it and one
//! file for each version of what was no folder. In `deleted/` a folder shows what was once in it and is not now.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::{Line, Seen, Top, page, shown};
use super::present::{Gone, Present};
use super::timeline::Timeline;
use crate::error::Error;
use crate::format::record::SnapshotId;
use crate::format::reference::Ref;
use crate::format::tree::Content;
use crate::name::hex;
use crate::vfs::attr::{Attr, Fault, Kind, again};
use crate::vfs::inode;
use crate::vfs::inode_table::{Dir, Place};
use crate::vfs::tree::{Entry, dots};
use crate::vfs::view::{Role, local};
use crate::vfs::{Mode, Vfs};

/// Stands behind the name of a file that was where a folder is now.
const FILE: &[u8] = b" (file)";
/// Longest ending of a name that is kept in the names of versions.
const ENDING: usize = 16;

/// A folder that is merged from all snapshots.
pub(in crate::vfs) struct Merged {
    role: Role,
    ino: u64,
    above: u64,
    path: Vec<Box<[u8]>>,
    /// None for the top folders, which are always known.
    dir: Option<Arc<Dir>>,
}

/// An entry of such a folder.
#[derive(Clone)]
pub(in crate::vfs) struct Row {
    name: Box<[u8]>,
    attr: Attr,
    /// The node of a snapshot that it shows; else it is a folder of this kind.
    found: Option<Found>,
}

/// A node in a directory of a snapshot.
#[derive(Clone, Copy)]
pub(in crate::vfs) struct Found {
    pub snapshot: SnapshotId,
    pub page: Ref,
    pub position: u32,
}

/// The entries of such a folder, ascending by name, and why some are missing.
#[derive(Default)]
pub(in crate::vfs) struct Listing {
    rows: Vec<Row>,
    broken: Option<Error>,
}

impl Vfs {
    /// The merged folder of this number.
    pub(in crate::vfs) fn merged(&self, ino: u64) -> Option<Merged> {
        {
            let view = self.view();
            if let Some(folder) = view.find(ino) {
                let (role, above, path) = (folder.role, inode::ROOT, Vec::new());
                return role.merges().then_some(Merged { role, ino, above, path, dir: None });
            }
        }
        let table = self.table();
        let Some(Place::Dir(dir)) = table.place(ino) else { return None };
        let (role, above) = (dir.role, dir.above);
        role.merges().then_some(())?;
        let mut path = vec![dir.name.clone()];
        let mut parent = dir.parent;
        while let Some((number, _)) = parent {
            let up = table.dir(number)?;
            path.push(up.name.clone());
            parent = up.parent;
        }
        path.reverse();
        Some(Merged { role, ino, above, path, dir: Some(dir) })
    }

    pub(in crate::vfs) fn merged_attr(&self, merged: &Merged, mode: Mode) -> Result<Attr, Fault> {
        if merged.path.is_empty() {
            return self.view().find(merged.ino).map(|folder| self.folder(folder)).ok_or(Fault::Stale);
        }
        let line = self.line(&self.time(), &merged.path, mode)?;
        match (&line.broken, line.runs.is_empty()) {
            (Some(e), true) => Err(Fault::Broken(again(e))),
            (None, true) => Err(Fault::Stale),
            (_, false) => Ok(self.merged_folder(merged.ino, &Seen::of(&line))),
        }
    }

    pub(in crate::vfs) fn merged_lookup(
        &self,
        merged: &Merged,
        name: &[u8],
        mode: Mode,
    ) -> Result<Option<Attr>, Fault> {
        let time = self.time();
        let row = match self.listings.cached(&self.listing_key(&time, merged)).filter(|l| l.broken.is_none()) {
            Some(listing) => {
                let at = listing.rows.binary_search_by(|row| (*row.name).cmp(name));
                at.ok().map(|at| listing.rows[at].clone())
            }
            None => self.row(&time, merged, name, mode)?,
        };
        match row {
            Some(row) if self.hold_row(merged, &row) => Ok(Some(row.attr)),
            Some(_) => Err(Fault::Stale),
            None => Ok(None),
        }
    }

    pub(in crate::vfs) fn merged_readdir(
        &self,
        merged: &Merged,
        offset: u64,
        hold: bool,
        mode: Mode,
        add: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<(), Fault> {
        let listing = self.listing(&self.time(), merged, mode)?;
        let own = match &merged.dir {
            Some(dir) => dir.attr,
            None => self.merged_attr(merged, mode)?,
        };
        if dots(own, Attr { ino: merged.above, ..own }, offset, add) {
            return Ok(());
        }
        let skip = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        for (i, row) in listing.rows.iter().enumerate().skip(skip) {
            let full = add(&Entry { name: &row.name, attr: row.attr, next: i as u64 + 3 });
            if full || (hold && !self.hold_row(merged, row)) {
                return Ok(());
            }
        }
        match &listing.broken {
            // Told at the end, so that what could be read is seen.
            Some(e) if skip >= listing.rows.len() => Err(Fault::Broken(again(e))),
            _ => Ok(()),
        }
    }

    fn listing_key(&self, time: &Timeline, merged: &Merged) -> (u64, u64, bool) {
        (time.generation, inode::path(self.repo.keys(), &merged.path), merged.role == Role::Deleted)
    }

    fn listing(&self, time: &Timeline, merged: &Merged, mode: Mode) -> Result<Arc<Listing>, Fault> {
        let key = self.listing_key(time, merged);
        if let Some(listing) = self.listings.cached(&key) {
            return Ok(listing);
        }
        let line = self.line(time, &merged.path, mode)?;
        if mode == Mode::Cached {
            return Err(Fault::Wait);
        }
        let mut rows = match merged.role {
            Role::Deleted => self.gone_rows(time, merged, &line)?,
            _ => self.version_rows(time, merged, &line)?,
        };
        rows.rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows.broken = rows.broken.or(line.broken.as_ref().map(again));
        let weight = rows.rows.iter().map(|row| row.name.len() + size_of::<Row>() + 16).sum();
        let listing = Arc::new(rows);
        self.listings.put(key, Arc::clone(&listing), weight);
        Ok(listing)
    }

    fn version_rows(&self, time: &Timeline, merged: &Merged, line: &Line) -> Result<Listing, Fault> {
        let mut rows = self.versions(time, merged, line);
        let mut names: BTreeMap<Vec<u8>, Seen> = BTreeMap::new();
        let broken = self.scan(&tops(line), &mut |met| {
            if shown(met.node) {
                names.entry(met.node.name.clone()).or_default().add(met.node, met.top.last);
            }
        })?;
        for row in &rows {
            names.remove(&*row.name);
        }
        rows.extend(names.into_iter().map(|(name, seen)| self.folder_row(merged, name, &seen)));
        Ok(Listing { rows, broken })
    }

    fn gone_rows(&self, time: &Timeline, merged: &Merged, line: &Line) -> Result<Listing, Fault> {
        let present = self.present(time, &merged.path, None)?;
        let (mut names, nothing) = (BTreeMap::<Vec<u8>, Gone>::new(), Present::default());
        let broken = self.scan(&tops(line), &mut |met| {
            if shown(met.node) {
                let now = present.get(&met.node.name).unwrap_or(&nothing);
                let snapshot = time.snapshots[met.top.last as usize].id;
                let found = Found { snapshot, page: met.top.page, position: met.position };
                let attr = || self.shown_as(&snapshot, met.node, met.ino);
                names.entry(met.node.name.clone()).or_default().add(met.node, met.top.last, found, now, attr);
            }
        })?;
        let rows = names.into_iter().flat_map(|(name, gone)| {
            let now = present.get(&name).unwrap_or(&nothing);
            self.rows_gone(merged, name, gone, now)
        });
        Ok(Listing { rows: rows.collect(), broken })
    }

    /// One entry without the whole listing.
    fn row(&self, time: &Timeline, merged: &Merged, name: &[u8], mode: Mode) -> Result<Option<Row>, Fault> {
        let line = self.line(time, &merged.path, mode)?;
        if merged.role == Role::Versions
            && let Some(row) = self.versions(time, merged, &line).into_iter().find(|row| *row.name == *name)
        {
            return Ok(Some(row));
        }
        let path = |name: &[u8]| [merged.path.as_slice(), &[name.into()]].concat();
        let below = self.line(time, &path(name), mode)?;
        if below.runs.is_empty()
            && let Some(e) = &below.broken
        {
            return Err(Fault::Broken(again(e)));
        }
        if merged.role == Role::Versions {
            let seen = Seen::of(&below);
            return Ok(seen.newest.map(|_| self.folder_row(merged, name.to_vec(), &seen)));
        }
        if mode == Mode::Cached {
            return Err(Fault::Wait);
        }
        if let Some(row) = self.row_gone(time, merged, name, &below, name)? {
            return Ok(Some(row));
        }
        let Some(plain) = name.strip_suffix(FILE).filter(|plain| !plain.is_empty()) else { return Ok(None) };
        self.row_gone(time, merged, plain, &*self.line(time, &path(plain), mode)?, name)
    }

    /// The row called `wanted` of those that show what is gone at `name`.
    fn row_gone(
        &self,
        time: &Timeline,
        merged: &Merged,
        name: &[u8],
        line: &Line,
        wanted: &[u8],
    ) -> Result<Option<Row>, Fault> {
        let now = self.present(time, &merged.path, Some(name))?.remove(name).unwrap_or_default();
        let mut gone = Gone::default();
        for run in &line.runs {
            let Some((page, position)) = run.place else { continue };
            let snapshot = time.snapshots[run.last as usize].id;
            let attr = || self.shown_as(&snapshot, &run.node, inode::alone(self.repo.keys(), &run.node));
            gone.add(&run.node, run.last, Found { snapshot, page, position }, &now, attr);
        }
        Ok(self.rows_gone(merged, name.to_vec(), gone, &now).into_iter().find(|row| *row.name == *wanted))
    }

    /// What is gone at a name: a folder, a file, or both.
    fn rows_gone(&self, merged: &Merged, name: Vec<u8>, gone: Gone, now: &Present) -> Vec<Row> {
        let folder = gone.leads_on(now).then(|| self.folder_row(merged, name.clone(), &gone.folder));
        let file = gone.file.filter(|_| !now.file).map(|(_, found, attr)| {
            let name = if folder.is_some() { [&name, FILE].concat() } else { name };
            Row { name: name.into(), attr, found: Some(found) }
        });
        folder.into_iter().chain(file).collect()
    }

    /// The versions of what was no folder at this path.
    fn versions(&self, time: &Timeline, merged: &Merged, line: &Line) -> Vec<Row> {
        let ending = ending(merged.path.last().map_or(b"", |name| name));
        let mut rows: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
        for run in line.runs.iter().filter(|run| !matches!(run.node.content, Content::Directory(_))) {
            let Some((page, position)) = run.place else { continue };
            let (first, last) = (&time.snapshots[run.first as usize], &time.snapshots[run.last as usize]);
            let plain = local(first.time.0, &self.options.zone).into_bytes();
            let mut name = [&plain, ending].concat();
            if rows.contains_key(&name) {
                name = [&plain, b"-".as_slice(), hex(&first.id[..4]).as_bytes(), ending].concat();
            }
            let attr = self.shown_as(&last.id, &run.node, inode::alone(self.repo.keys(), &run.node));
            let found = Some(Found { snapshot: last.id, page, position });
            rows.insert(name.clone(), Row { name: name.into(), attr, found });
        }
        rows.into_values().collect()
    }

    fn folder_row(&self, merged: &Merged, name: Vec<u8>, seen: &Seen) -> Row {
        let ino = inode::directory(self.repo.keys(), merged.ino, &name, None);
        Row { name: name.into(), attr: self.merged_folder(ino, seen), found: None }
    }

    /// It allows no more than every folder that it shows allowed. One link means "how many is not known".
    fn merged_folder(&self, ino: u64, seen: &Seen) -> Attr {
        let owner = if seen.several_owners { self.options.mounter } else { seen.owner };
        let (uid, gid) = self.options.owner.unwrap_or(owner);
        let mode = seen.mode.unwrap_or(seen.file_mode & 0o444 | (seen.file_mode & 0o444) >> 2);
        let (kind, device, mtime) = (Kind::Directory, (0, 0), seen.mtime);
        Attr { ino, kind, mode: mode & 0o777, nlink: 1, uid, gid, size: 0, blocks: 0, mtime, device }
    }

    /// Counts a look-up of an entry. False if the folder itself is not known any more.
    fn hold_row(&self, merged: &Merged, row: &Row) -> bool {
        let keys = self.repo.keys();
        let mut table = self.table();
        let known = |dir: &Arc<Dir>| table.dir(dir.number).is_some_and(|known| Arc::ptr_eq(&known, dir));
        if !merged.dir.as_ref().is_none_or(known) {
            return false;
        }
        let parent = merged.dir.as_ref().map(|dir| (dir.number, 0));
        let (attr, above) = (row.attr, merged.ino);
        match row.found {
            None => table.hold_dir(attr.ino, |number| Dir {
                number,
                role: merged.role,
                parent,
                above,
                name: row.name.clone(),
                page: None,
                snapshot: [0; 16],
                attr,
                node: None,
            }),
            Some(Found { snapshot, page, position }) => {
                let ino = inode::hidden(keys, above, &page, &snapshot);
                let attr = Attr { ino, kind: Kind::Directory, ..attr };
                let (role, name, page) = (Role::Plain, Box::default(), Some(page));
                let dir = |number| Dir { number, role, parent, above, name, page, snapshot, attr, node: None };
                table.hold_dir(ino, dir);
                if let Some(Place::Dir(dir)) = table.place(ino) {
                    table.hold_entry(row.attr.ino, dir.number, position);
                }
                table.forget(ino, 1);
            }
        }
        true
    }

    pub(in crate::vfs) fn time(&self) -> Arc<Timeline> {
        Arc::clone(&self.view().time)
    }
}

/// The directories of a line, each once.
fn tops(line: &Line) -> Vec<Top> {
    line.runs.iter().filter_map(|run| Some(Top { page: page(&run.node)?, last: run.last })).collect()
}

/// `.txt`, `.tar.gz`: what a file manager knows the kind of a file by.
fn ending(name: &[u8]) -> &[u8] {
    let dot = |name: &[u8]| name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0);
    let Some(at) = dot(name).filter(|at| name.len() - at > 1) else { return b"" };
    let at = if name[..at].ends_with(b".tar") && at > 4 { at - 4 } else { at };
    if name.len() - at <= ENDING { &name[at..] } else { b"" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        for (name, wanted) in [
            ("letter.txt", ".txt"),
            ("a.b.jpeg", ".jpeg"),
            ("backup.tar.gz", ".tar.gz"),
            (".tar.gz", ".gz"),
            (".bashrc", ""),
            ("Makefile", ""),
            ("end.", ""),
            ("notes.what I wrote in the summer", ""),
        ] {
            assert_eq!(ending(name.as_bytes()), wanted.as_bytes(), "{name}");
        }
    }
}
