//! The entries of merged directories.
//!
//! In `versions/`, each name that ever was in a directory is a directory with all names that ever were below it, and with
//! one file for each version that was not a directory. In `deleted/`, a directory shows the nodes that were once in it and
//! do not exist now.

use std::collections::BTreeMap;

use super::former::{CurrentNodes, FormerNodes, NodePlace};
use super::history::{EntryPlace, History, NameSummary, Version, is_version, page};
use super::merged::{MergedDir, MergedEntry, MergedListing};
use super::scan::ScanTop;
use super::timeline::Timeline;
use crate::context::Context;
use crate::format::node::Content;
use crate::vfs::attr::{Fault, again};
use crate::vfs::inode;
use crate::vfs::snapshot_names::local;
use crate::vfs::view::Role;
use crate::vfs::{Mode, Vfs};

/// Suffix of a former file whose name belongs to a directory now.
const FILE: &[u8] = b" (file)";
/// Longest file extension that is kept in the names of versions, in bytes.
const EXTENSION: usize = 16;

impl Vfs {
    /// Returns all entries of a merged directory with this history, in no particular order.
    pub(super) fn list_merged(
        &self,
        ctx: &Context,
        time: &Timeline,
        merged: &MergedDir,
        history: &History,
    ) -> Result<MergedListing, Fault> {
        if merged.role == Role::Deleted {
            self.list_deleted(ctx, time, merged, history)
        } else {
            self.list_versions(ctx, time, merged, history)
        }
    }

    fn list_versions(
        &self,
        ctx: &Context,
        time: &Timeline,
        merged: &MergedDir,
        history: &History,
    ) -> Result<MergedListing, Fault> {
        let mut entries = self.version_files(time, merged, history);
        let mut names: BTreeMap<Vec<u8>, NameSummary> = BTreeMap::new();
        let error = self.scan(ctx, &tops(history), &mut |scanned| {
            if is_version(scanned.node) {
                names.entry(scanned.node.name.clone()).or_default().add(scanned.node, scanned.top.last);
            }
        })?;
        for entry in &entries {
            names.remove(&*entry.name);
        }
        entries.extend(names.into_iter().map(|(name, summary)| self.merged_subdir(merged, name, &summary)));
        Ok(MergedListing { entries, error })
    }

    fn list_deleted(
        &self,
        ctx: &Context,
        time: &Timeline,
        merged: &MergedDir,
        history: &History,
    ) -> Result<MergedListing, Fault> {
        let mut current = self.current_nodes(ctx, time, &merged.path, None)?;
        let no_nodes = CurrentNodes::default();
        let mut names: BTreeMap<Vec<u8>, FormerNodes> = BTreeMap::new();
        let error = self.scan(ctx, &tops(history), &mut |scanned| {
            if is_version(scanned.node) {
                let snapshot = time.snapshots[scanned.top.last as usize].id;
                let place =
                    NodePlace { snapshot, entry: EntryPlace { page: scanned.top.page, position: scanned.position } };
                let current = current.get(&scanned.node.name).unwrap_or(&no_nodes);
                let former = names.entry(scanned.node.name.clone()).or_default();
                former.add(scanned.node, scanned.top.last, place, current, || {
                    self.attr_in(&snapshot, scanned.node, scanned.ino)
                });
            }
        })?;
        let mut entries = Vec::new();
        for (name, former) in names {
            let current = current.remove(&name).unwrap_or_default();
            entries.extend(self.deleted_entries(merged, name, former, &current));
        }
        Ok(MergedListing { entries, error })
    }

    /// Returns one entry without the whole listing.
    pub(super) fn merged_entry(
        &self,
        time: &Timeline,
        merged: &MergedDir,
        name: &[u8],
        mode: Mode,
    ) -> Result<Option<MergedEntry>, Fault> {
        let history = self.history(time, &merged.path, mode)?;
        if merged.role == Role::Versions
            && let Some(file) = self.version_files(time, merged, &history).into_iter().find(|e| *e.name == *name)
        {
            return Ok(Some(file));
        }
        let below = self.history(time, &merged.path_of(name), mode)?;
        if below.versions.is_empty()
            && let Some(error) = &below.error
        {
            return Err(Fault::Broken(again(error)));
        }
        if merged.role == Role::Versions {
            let summary = NameSummary::of(&below);
            return Ok(summary.newest.map(|_| self.merged_subdir(merged, name.to_vec(), &summary)));
        }
        let Mode::Fetch(ctx) = mode else { return Err(Fault::Wait) };
        if let Some(entry) = self.deleted_entry(ctx, time, merged, name, &below, name)? {
            return Ok(Some(entry));
        }
        let Some(plain) = name.strip_suffix(FILE).filter(|plain| !plain.is_empty()) else { return Ok(None) };
        let below = self.history(time, &merged.path_of(plain), mode)?;
        self.deleted_entry(ctx, time, merged, plain, &below, name)
    }

    /// Returns the entry called `wanted` of the former nodes that were called `name`.
    fn deleted_entry(
        &self,
        ctx: &Context,
        time: &Timeline,
        merged: &MergedDir,
        name: &[u8],
        history: &History,
        wanted: &[u8],
    ) -> Result<Option<MergedEntry>, Fault> {
        let current = self.current_nodes(ctx, time, &merged.path, Some(name))?.remove(name).unwrap_or_default();
        let mut former = FormerNodes::default();
        for version in &history.versions {
            let Some(entry) = version.place else { continue };
            let snapshot = time.snapshots[version.last as usize].id;
            let ino = self.fixed_ino(&version.node);
            let attr = || self.attr_in(&snapshot, &version.node, ino);
            former.add(&version.node, version.last, NodePlace { snapshot, entry }, &current, attr);
        }
        let entries = self.deleted_entries(merged, name.to_vec(), former, &current);
        Ok(entries.into_iter().find(|entry| *entry.name == *wanted))
    }

    /// Returns the entries for the former nodes of a name: a directory, a file, or both.
    fn deleted_entries(
        &self,
        merged: &MergedDir,
        name: Vec<u8>,
        former: FormerNodes,
        current: &CurrentNodes,
    ) -> Vec<MergedEntry> {
        let mut entries = Vec::new();
        if former.may_hold_former(current) {
            entries.push(self.merged_subdir(merged, name.clone(), &former.directories));
        }
        if let Some(file) = former.file.filter(|_| !current.file) {
            let name = if entries.is_empty() { name } else { [&name, FILE].concat() };
            entries.push(MergedEntry { name: name.into(), attr: file.attr, node: Some(file.place) });
        }
        entries
    }

    /// Returns a file for each version of this path that was not a directory.
    fn version_files(&self, time: &Timeline, merged: &MergedDir, history: &History) -> Vec<MergedEntry> {
        let extension = extension(merged.path.last().map_or(b"", |name| name));
        let mut files: BTreeMap<Vec<u8>, MergedEntry> = BTreeMap::new();
        for version in &history.versions {
            let (Some(entry), false) = (version.place, is_directory(version)) else { continue };
            let first = &time.snapshots[version.first as usize];
            let last = &time.snapshots[version.last as usize];
            let taken = local(first.time.seconds, &self.options.zone).into_bytes();
            let mut name = [&taken, extension].concat();
            if files.contains_key(&name) {
                name = [&taken, b"-".as_slice(), first.id.short().as_bytes(), extension].concat();
            }
            let attr = self.attr_in(&last.id, &version.node, self.fixed_ino(&version.node));
            let node = Some(NodePlace { snapshot: last.id, entry });
            files.insert(name.clone(), MergedEntry { name: name.into(), attr, node });
        }
        files.into_values().collect()
    }

    fn merged_subdir(&self, merged: &MergedDir, name: Vec<u8>, summary: &NameSummary) -> MergedEntry {
        let ino = inode::directory(self.repo.keys(), merged.ino, &name, None);
        MergedEntry { name: name.into(), attr: self.merged_dir_attr(ino, summary), node: None }
    }
}

fn is_directory(version: &Version) -> bool {
    matches!(version.node.content, Content::Directory(_))
}

/// Returns the directories of a history that are not empty.
fn tops(history: &History) -> Vec<ScanTop> {
    let versions = history.versions.iter();
    versions.filter_map(|version| Some(ScanTop { page: page(&version.node)?, last: version.last })).collect()
}

/// Returns the extension by which programs recognise the type of a file: `.txt`, `.tar.gz`.
fn extension(name: &[u8]) -> &[u8] {
    let Some(dot) = name.iter().rposition(|b| *b == b'.').filter(|dot| (1..name.len() - 1).contains(dot)) else {
        return b"";
    };
    let start = if name[..dot].ends_with(b".tar") && dot > 4 { dot - 4 } else { dot };
    if name.len() - start <= EXTENSION { &name[start..] } else { b"" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions() {
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
            assert_eq!(extension(name.as_bytes()), wanted.as_bytes(), "{name}");
        }
    }
}
