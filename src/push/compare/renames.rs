//! Recognises files and directories that were renamed since the parents were saved. They are found by their inode number,
//! and a file is not read again if it is proven that nothing else happened to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{self, Stat};
use rustix::io::Errno;

use super::inode_index::{Candidate, DIRECTORY, InodeIndex, OldPath, tag};
use super::old::{OldDirectory, OldNode};
use super::parents::Parents;
use super::times::{GRANULE, begun_nanoseconds};
use crate::context::Context;
use crate::error::Result;
use crate::format::node::{Content, Xattrs};
use crate::push::read::attributes::{self, same};
use crate::push::read::dir::Dir;
use crate::push::read::open_file::OpenFile;
use crate::trees::Trees;

/// Entries from which on a young directory is looked up in the parents too.
const WORTH_LOOKING: usize = 64;
/// Nanoseconds between mtime and ctime of a file that was written in the usual way. A larger difference means that a program
/// has set mtime, which then proves nothing.
const TOGETHER: i64 = 2_000_000_000;

/// Finds renamed files and directories.
pub struct Renames<'p> {
    parents: &'p Parents,
    /// Made for the first file or directory that is older than the parents and not at its path in them.
    index: OnceLock<InodeIndex>,
    /// The devices of the parents' file systems on this machine.
    devices: Mutex<HashMap<OldFileSystem, u64>>,
}

/// A file system of a parent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct OldFileSystem {
    /// When the push of the parent started, in nanoseconds.
    begun: i64,
    /// Its number in the parent.
    fs: u32,
}

impl OldFileSystem {
    fn of(old: &OldNode) -> Self {
        OldFileSystem { begun: old.begun, fs: old.node.attrs.fs }
    }
}

impl<'p> Renames<'p> {
    /// Looks for files in these parents.
    pub fn new(parents: &'p Parents) -> Self {
        Renames { parents, index: OnceLock::new(), devices: Mutex::default() }
    }

    /// Returns the same directory at another path of the parents. Its files must be compared one by one. `entries`: number
    /// of entries that it has now; `found`: the nodes at its path in the parents.
    pub fn directory<'r>(
        &self,
        ctx: &'r Context<'r>,
        trees: &'r Trees<'r>,
        stat: &Stat,
        entries: usize,
        found: &[Option<OldNode>],
    ) -> Result<Option<OldDirectory<'r>>> {
        self.learn_device(stat, found);
        // Renaming a directory changes its ctime and not its mtime. If entries were added since, its mtime is new too; then a
        // lookup is worth its cost if the directory has many entries.
        let look = entries > 0 && (self.index.get().is_some() || self.is_older(stat) || entries >= WORTH_LOOKING);
        if !look || is_here(stat, found) {
            return Ok(None);
        }
        let mut candidates = self.index(ctx, trees)?.find(ctx, trees, attributes::id(stat).1, DIRECTORY)?;
        candidates.retain(|candidate| matches!(candidate.old.node.content, Content::Directory(_)));
        let Some(Candidate { old, .. }) = self.on_device(candidates, stat).into_iter().next() else { return Ok(None) };
        let Content::Directory(page) = old.node.content else { return Ok(None) };
        Ok(Some(OldDirectory::renamed(ctx, trees, old.begun, page)))
    }

    /// Returns the same regular file at another path of the parents, if it is proven that its contents are the same. The node
    /// has the extended attributes that the file has now.
    pub fn file(
        &self,
        ctx: &Context,
        trees: &Trees<'_>,
        file: &SourceFile<'_>,
        found: &[Option<OldNode>],
    ) -> Result<Option<OldNode>> {
        let stat = file.stat;
        if is_here(stat, found) || !self.is_older(stat) {
            return Ok(None);
        }
        let index = self.index(ctx, trees)?;
        let tag = tag(stat.st_size as u64, attributes::mtime(stat));
        let candidates = index.find(ctx, trees, attributes::id(stat).1, tag)?;
        for mut candidate in self.on_device(candidates, stat) {
            if self.parents.same_file(ctx, trees, &candidate.old, stat) {
                return Ok(Some(candidate.old));
            }
            if self.was_only_renamed(ctx, trees, &candidate.old, stat)
                && let Some(directory) = index.directory(ctx, trees, &candidate)?
                && is_gone(file.dir, &directory, &candidate.old.node.name, stat)
                && is_explained(file.dir, &directory, stat)
                && let Ok(pairs) = xattrs_now(file)
            {
                candidate.old.node.xattrs = Xattrs::Inline(pairs);
                return Ok(Some(candidate.old));
            }
        }
        Ok(None)
    }

    /// Returns whether the entry, by its mtime, existed when a parent was saved.
    fn is_older(&self, stat: &Stat) -> bool {
        let mtime = attributes::nanoseconds(attributes::mtime(stat));
        self.parents.snapshots.iter().any(|s| mtime < begun_nanoseconds(s))
    }

    fn index(&self, ctx: &Context, trees: &Trees<'_>) -> Result<&InodeIndex> {
        if self.index.get().is_none() {
            let _ = self.index.set(InodeIndex::read(ctx, trees, &self.parents.snapshots)?);
        }
        Ok(self.index.get().expect("it was just set"))
    }

    /// Learns the device of a parent's file system from a directory that was not renamed.
    fn learn_device(&self, stat: &Stat, found: &[Option<OldNode>]) {
        let here = found.iter().flatten().filter(|old| !old.renamed && old.node.inode == attributes::id(stat).1);
        let mut devices = self.devices.lock().expect("no holder panics");
        for old in here {
            devices.entry(OldFileSystem::of(old)).or_insert(attributes::id(stat).0);
        }
    }

    /// Drops candidates on other devices. Inode numbers belong to one file system, and a parent only numbers its file
    /// systems. If the devices of several remaining file systems are unknown, drops all candidates.
    fn on_device(&self, mut candidates: Vec<Candidate>, stat: &Stat) -> Vec<Candidate> {
        let devices = self.devices.lock().expect("no holder panics");
        let device = |candidate: &Candidate| devices.get(&OldFileSystem::of(&candidate.old)).copied();
        candidates.retain(|candidate| device(candidate).is_none_or(|device| device == attributes::id(stat).0));
        if candidates.iter().any(|candidate| device(candidate).is_some()) {
            candidates.retain(|candidate| device(candidate).is_some());
        } else if candidates.windows(2).any(|two| two[0].old.node.attrs.fs != two[1].old.node.attrs.fs) {
            candidates.clear();
        }
        candidates
    }

    /// Returns whether the two states of the file differ only by a renaming, as far as the file itself shows: the same
    /// contents if mtime is right, and a change of ctime after the parent was saved.
    fn was_only_renamed(&self, ctx: &Context, trees: &Trees<'_>, old: &OldNode, stat: &Stat) -> bool {
        let (node, attrs) = (&old.node, &old.node.attrs);
        let (mtime, ctime) = (attributes::nanoseconds(node.mtime), attributes::ctime(stat));
        let before = old.begun.saturating_sub(GRANULE);
        self.parents.has_contents(ctx, trees, node, stat)
            && (node.nlink, attributes::nlink(stat)) == (1, 1)
            && node.mtime == attributes::mtime(stat)
            && (attrs.mode, attrs.uid, attrs.gid) == ((stat.st_mode & 0o7777) as u16, stat.st_uid, stat.st_gid)
            && mtime.max(node.ctime) < before
            && mtime.abs_diff(node.ctime) <= TOGETHER.unsigned_abs()
            && ctime >= before
            && stat.st_ctime_nsec != 0 // whole seconds cannot tell one change from another
    }
}

/// A file of the sources: its directory, its name there, and its `stat`.
pub struct SourceFile<'a> {
    pub dir: &'a Arc<Dir>,
    pub name: &'a [u8],
    pub stat: &'a Stat,
}

/// Returns whether a parent has the entry at the same path, changed or not.
fn is_here(stat: &Stat, found: &[Option<OldNode>]) -> bool {
    found.iter().flatten().any(|old| old.node.inode == attributes::id(stat).1)
}

/// Returns whether the file is no longer at its old path. The device is not compared: if another file system has a file of
/// the same inode number there, the node may describe that file.
fn is_gone(dir: &Arc<Dir>, directory: &OldPath, name: &[u8], stat: &Stat) -> bool {
    let path = [&directory.path, b"/".as_slice(), name].concat();
    match dir.call(|_| fs::lstat(path)) {
        Ok(there) => attributes::id(&there).1 != attributes::id(stat).1,
        Err(errno) => matches!(errno, Errno::NOENT | Errno::NOTDIR),
    }
}

/// Returns whether the last change of the file's ctime was its renaming, which changes both directories at the same time.
fn is_explained(dir: &Arc<Dir>, from: &OldPath, stat: &Stat) -> bool {
    let is_from = |dir: &Stat| attributes::id(dir).1 == from.inode;
    let path = from.path.clone();
    dir.call(|dir| fs::fstat(&dir.fd)).is_ok_and(|dir| changed_with(&dir, stat))
        || dir.call(|_| fs::stat(path)).is_ok_and(|dir| is_from(&dir) && changed_with(&dir, stat))
}

/// Returns whether a directory changed at the ctime of the file.
fn changed_with(dir: &Stat, file: &Stat) -> bool {
    let times = [attributes::nanoseconds(attributes::mtime(dir)), attributes::ctime(dir)];
    times.iter().any(|time| time.abs_diff(attributes::ctime(file)) <= GRANULE.unsigned_abs())
}

/// Reads the extended attributes. They may have been set before the file was renamed, which mtime does not show.
fn xattrs_now(file: &SourceFile<'_>) -> Result<attributes::Pairs, Errno> {
    let open = OpenFile::open(file.dir, file.name)?;
    if !same(file.stat, &open.stat()?) {
        return Err(Errno::STALE);
    }
    let found = open.xattrs()?;
    found.failed.first().map_or(Ok(found.pairs), |(_, errno)| Err(*errno))
}
