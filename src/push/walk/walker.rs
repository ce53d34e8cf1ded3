//! Walks the sources in tree order and in step with the parents, and decides which files must be read. One thread is enough:
//! it needs at most a fifth of the time of the workers behind it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{self, FileType, OFlags, Stat, Statx};
use rustix::io::Errno;

use super::batcher::Batcher;
use super::known_links::KnownLinks;
use super::levels::{Level, Levels};
use super::listing::{Entry, EntryKind, Listing};
use super::mount_points::{self, MountPoints};
use super::picker::Picker;
use super::sources::Plan;
use super::special;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node, PARTIAL, Xattrs};
use crate::progress::Event;
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::compare::parents::Parents;
use crate::push::compare::renames::{Renames, SourceFile};
use crate::push::read::attributes::{self, FoundXattrs, MountPoint, Nodes, error};
use crate::push::read::dir::{Dir, OpenDirs, Place};
use crate::push::read::guard::Guard;
use crate::push::read::item::{Change, Enter, Item, Job};
use crate::push::read::partial::LARGE;
use crate::trees::Trees;

/// The inputs of a walk over files.
pub struct Walk<'w> {
    pub trees: &'w Trees<'w>,
    pub ctx: &'w Context<'w>,
    pub parents: &'w Parents,
    pub renames: &'w Renames<'w>,
    pub nodes: &'w Nodes,
    /// Directories, by device and inode, that are never entered: the repository itself.
    pub exclude: &'w [(u64, u64)],
    /// Time after which a call on a file system that may hang is given up.
    pub patience: Duration,
}

struct Walker<'w> {
    walk: Walk<'w>,
    picker: Picker<'w>,
    batcher: Batcher<'w>,
    levels: Levels<'w>,
    open: OpenDirs,
    mounts: MountPoints,
    links: KnownLinks,
}

impl<'w> Walk<'w> {
    /// Walks all sources and closes the queue.
    pub fn run(self, plan: &'w Plan, mut picker: Picker<'w>, batcher: Batcher<'w>) -> Result<()> {
        let fd = fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, fs::Mode::empty());
        let fd = fd.map_err(|e| error("open /", e))?;
        let open = OpenDirs::new();
        let stat = fs::fstat(&fd).map_err(|e| error("open /", e))?;
        let mut mounts = MountPoints::new(self.ctx, self.patience);
        let guard = mounts.guard(attributes::id(&stat).0);
        let dir = Arc::new(Dir::new(fd, Vec::new(), guard, open.place(self.ctx)?));
        let old = self.parents.roots(self.ctx, self.trees);
        let listing = if plan.whole {
            let listing = match picker.marked(&dir)? {
                Some(marks) => marks,
                None => Listing::all(self.ctx, &dir)?,
            };
            picker.enter(0, &dir, &listing)?;
            listing
        } else {
            Listing::of(plan.below.keys())
        };
        let plan = Some(plan).filter(|plan| !plan.whole);
        let id = attributes::id(&stat);
        let level = Level { dir: Some(dir), path: Vec::new(), id, listing, plan, old };
        let levels = Levels::new(level, &open);
        Walker { walk: self, picker, batcher, levels, open, mounts, links: KnownLinks::default() }.run()
    }
}

impl<'w> Walker<'w> {
    fn run(mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            match level.listing.next() {
                Some(entry) => self.entry(entry)?,
                None => self.leave()?,
            }
        }
        self.batcher.close()
    }

    fn leave(&mut self) -> Result<()> {
        let below = self.levels.pop();
        self.picker.leave(self.levels.len());
        if self.levels.last().is_some_and(|level| level.dir.is_none()) {
            self.reopen(below.and_then(|below| below.dir).as_ref())?;
        }
        if self.levels.len() > 0 { self.batcher.push(Item::Leave) } else { Ok(()) }
    }

    /// Opens the current directory again, from `below` it.
    fn reopen(&mut self, below: Option<&Arc<Dir>>) -> Result<()> {
        let place = self.place()?;
        if let Some(level) = self.levels.last_mut()
            && !level.reopen(below, self.mounts.guard(level.id.0), place)?
        {
            self.walk.ctx.skip(&level.path, &Error::failed("the folder was moved while it was being saved"));
            level.listing = Listing::default();
        }
        Ok(())
    }

    /// Waits until one more directory may be open. The workers get all files so far, since they hold directories open.
    fn place(&mut self) -> Result<Place> {
        if let Some(place) = self.open.try_place() {
            return Ok(place);
        }
        self.batcher.send()?;
        self.open.place(self.walk.ctx)
    }

    /// Saves one entry of the current directory.
    fn entry(&mut self, Entry { name, kind }: Entry) -> Result<()> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(dir) = level.dir.clone() else { return Ok(()) };
        if dir.guard.is_lost() {
            level.listing = Listing::default();
            return attributes::skip(self.walk.ctx, &dir.path, error("read the rest of the folder", Errno::TIMEDOUT));
        }
        let plan = level.plan.and_then(|plan| plan.below.get(&name)).filter(|plan| !plan.whole);
        let is_selected = level.plan.is_none();
        let is_known = is_selected && kind != EntryKind::Unknown;
        if is_known && self.picker.excludes_name(&dir, &name, kind == EntryKind::Directory) {
            return Ok(());
        }
        let found = self.batcher.seek(self.walk.parents, &mut level.old, &name)?;
        let mounted = if self.mounts.may_be(&name) { self.mounted_at(&dir, &name, plan.is_some()) } else { None };
        if let Some(statx) = &mounted
            && self.stays_out(&dir, &name, statx, is_selected, &found)?
        {
            return Ok(());
        }
        let guard = mounted.map_or_else(Guard::default, |statx| self.mounts.guard(attributes::device(&statx)));
        let stat = match dir.stat_mounted(&name, &guard, plan.is_some()) {
            Err(Errno::NOENT) => return Ok(()), // removed meanwhile
            other => other,
        };
        let is_directory = stat.is_ok_and(|stat| attributes::kind(&stat) == FileType::Directory);
        if is_selected && !is_known && self.picker.excludes_name(&dir, &name, is_directory) {
            return Ok(());
        }
        let stat = match stat {
            Ok(stat) => stat,
            Err(errno) => {
                let node = self.walk.nodes.unknown(name, errno);
                return self.unreadable(&dir, node, "look at it", errno);
            }
        };
        if is_selected && self.picker.excludes(&dir, &name, &stat) {
            return Ok(());
        }
        self.found(dir, name, &stat, plan, found)
    }

    /// Saves an entry that is not excluded.
    fn found(
        &mut self,
        dir: Arc<Dir>,
        name: Vec<u8>,
        stat: &Stat,
        plan: Option<&'w Plan>,
        found: Vec<Option<OldNode>>,
    ) -> Result<()> {
        // The repository itself or a mounted backup must not be saved into itself.
        if self.picker.is_backup(attributes::id(stat).0) || self.walk.exclude.contains(&attributes::id(stat)) {
            self.leave_out(&dir, &name);
            return Ok(());
        }
        match attributes::kind(stat) {
            FileType::Directory => self.directory(&dir, name, stat, plan, found),
            FileType::RegularFile => self.file(dir, name, stat, found),
            _ => self.other(&dir, name, stat, found),
        }
    }

    /// Returns the status of another file system that is mounted at an entry, as far as it is known without asking it.
    fn mounted_at(&self, dir: &Arc<Dir>, name: &[u8], follow: bool) -> Option<Statx> {
        let here = self.levels.last()?.id.0;
        let found = mount_points::look(dir, name, follow).ok()?;
        (attributes::device(&found) != here && mount_points::may_be_mount(&found)).then_some(found)
    }

    /// Decides whether the walk stays out of a mount. Then saves its mount point as an empty directory, or reports it.
    fn stays_out(
        &mut self,
        dir: &Arc<Dir>,
        name: &[u8],
        statx: &Statx,
        is_selected: bool,
        found: &[Option<OldNode>],
    ) -> Result<bool> {
        let device = attributes::device(statx);
        if self.picker.is_backup(device) {
            self.leave_out(dir, name);
            return Ok(true);
        }
        if !is_selected || !self.picker.is_elsewhere(device) {
            return Ok(false);
        }
        // A mount that does not show its type is taken for a directory.
        let kind = FileType::from_raw_mode(statx.stx_mode.into());
        if statx.stx_mask != 0 && kind != FileType::Directory {
            self.walk.ctx.event(Event::Excluded { path: &dir.path_of(name) });
            return Ok(true);
        }
        let mount = MountPoint { name: name.to_vec(), statx: *statx };
        self.mount_point(dir, self.walk.nodes.mount_point(mount), found).map(|()| true)
    }

    fn leave_out(&self, dir: &Dir, name: &[u8]) {
        let path = dir.path_of(name);
        let path = String::from_utf8_lossy(&path);
        self.walk.ctx.warn(&format!("left out {path}: it is the repository itself or a mounted backup"));
    }

    fn unreadable(&mut self, dir: &Dir, mut node: Node, doing: &str, errno: Errno) -> Result<()> {
        attributes::skip(self.walk.ctx, &dir.path_of(&node.name), error(doing, errno))?;
        node.content = attributes::unreadable(errno);
        self.batcher.push(Item::Node { node, change: Change::New, link: None })
    }

    fn directory(
        &mut self,
        dir: &Arc<Dir>,
        name: Vec<u8>,
        stat: &Stat,
        plan: Option<&'w Plan>,
        found: Vec<Option<OldNode>>,
    ) -> Result<()> {
        let is_selected = plan.is_none() && self.levels.last().is_some_and(|up| up.plan.is_none());
        if is_selected && self.picker.is_elsewhere(attributes::id(stat).0) {
            let node = self.walk.nodes.node(name, stat, Content::Directory(None));
            return self.mount_point(dir, node, &found);
        }
        let place = self.place()?;
        let guard = self.mounts.guard(attributes::id(stat).0);
        let fd = match self.open(dir, &name, &guard, plan.is_some()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => {
                let node = self.walk.nodes.node(name, stat, Content::Directory(None));
                return self.unreadable(dir, node, "open the folder", errno);
            }
        };
        let below = Arc::new(Dir::new(fd, dir.path_of(&name), guard, place));
        // Another directory may have taken its place since `statat`.
        let stat = &below.call(|below| fs::fstat(&below.fd)).unwrap_or(*stat);
        let mut node = self.walk.nodes.node(name, stat, Content::Directory(None));
        let listing = self.listing(&below, plan)?;
        self.mounts.renew();
        node.xattrs = self
            .xattrs(&found, stat, &below.path, || below.call(|below| attributes::xattrs_of(&below.fd, &below.guard)))?;
        let old = self.old_directories(stat, listing.len(), &found)?;
        let id = attributes::id(stat);
        self.levels.push(Level { path: below.path.clone(), dir: Some(below), id, listing, plan, old });
        self.batcher.push(Item::Enter(Box::new(Enter { node, passage: plan.is_some(), old: OldNode::newest(&found) })))
    }

    /// Saves a directory of another file system as an empty one, without opening it.
    fn mount_point(&mut self, dir: &Dir, node: Node, found: &[Option<OldNode>]) -> Result<()> {
        self.walk.ctx.event(Event::Excluded { path: &[&dir.path_of(&node.name), b"/".as_slice()].concat() });
        self.batcher.push(Item::Enter(Box::new(Enter { node, passage: false, old: OldNode::newest(found) })))?;
        self.batcher.push(Item::Leave)
    }

    /// Opens a directory by the guard of its own file system.
    fn open(&self, dir: &Arc<Dir>, name: &[u8], guard: &Guard, follow: bool) -> Result<OwnedFd, Errno> {
        if self.levels.len() > limits::DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let flags = OFlags::DIRECTORY | if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        dir.on_mounted(name, guard, move |dir, name| dir.open(name, flags))
    }

    /// Returns the names to save in a directory.
    fn listing(&mut self, dir: &Arc<Dir>, plan: Option<&Plan>) -> Result<Listing> {
        if let Some(plan) = plan {
            return Ok(Listing::of(plan.below.keys()));
        }
        let listing = match self.picker.marked(dir)? {
            Some(marks) => marks,
            None => Listing::all(self.walk.ctx, dir)?,
        };
        self.picker.enter(self.levels.len(), dir, &listing)?;
        Ok(listing)
    }

    /// Returns the directories of the parents to compare with: those at the same path, and one at another path if this
    /// directory was renamed.
    fn old_directories(&self, stat: &Stat, entries: usize, found: &[Option<OldNode>]) -> Result<Vec<OldDirectory<'w>>> {
        let Walk { trees, ctx, renames, .. } = self.walk;
        let above = self.levels.last().map_or(&[][..], |level| &level.old);
        let same_path = above.iter().zip(found).filter_map(|(old, found)| old.below(found.as_ref()?));
        let mut old: Vec<_> = same_path.collect();
        old.extend(renames.directory(ctx, trees, stat, entries, found)?);
        Ok(old)
    }

    /// Returns the extended attributes: those in a parent if the file did not change since, else reads them.
    fn xattrs(
        &self,
        found: &[Option<OldNode>],
        stat: &Stat,
        path: &[u8],
        read: impl Fn() -> Result<FoundXattrs, Errno>,
    ) -> Result<Xattrs> {
        let parents = self.walk.parents;
        let same = |old: &&OldNode| parents.untouched(old, stat) && parents.xattrs_last(&old.node);
        if let Some(old) = found.iter().flatten().find(same) {
            return Ok(self.walk.nodes.with_names(&old.node.xattrs));
        }
        self.walk.nodes.xattrs(self.walk.ctx, path, read())
    }

    fn file(&mut self, dir: Arc<Dir>, name: Vec<u8>, stat: &Stat, mut found: Vec<Option<OldNode>>) -> Result<()> {
        let mut node = self.walk.nodes.node(name, stat, Content::File(Vec::new()));
        let size = stat.st_size as u64;
        self.batcher.met(size);
        let link = (attributes::nlink(stat) > 1).then_some(attributes::id(stat));
        if let Some(OldNode { node: old, renamed, .. }) = self.same_content(&dir, &node.name, stat, &mut found)? {
            node.content.clone_from(&old.content);
            node.xattrs = self.walk.nodes.with_names(&old.xattrs);
            let change = if renamed { Change::Renamed } else { Change::compare(Some(&old), &node) };
            self.batcher.same(&dir.path_of(&node.name), size, renamed);
            link.map(|link| self.links.is_further(link, stat));
            return self.batcher.push(Item::Node { node, change, link });
        }
        let (mut prefix, mut old) = (None, None);
        for found in found.into_iter().flatten() {
            let is_partial = found.node.flags & PARTIAL != 0;
            if is_partial && prefix.is_none() && self.is_beginning(&found, stat) {
                prefix = Some(found.node.content);
            } else if !is_partial && old.is_none() {
                old = Some(Box::new(found.node));
            }
        }
        if let Some(link) = link.filter(|link| self.links.is_further(*link, stat)) {
            self.batcher.done(size);
            return self.batcher.push(Item::Link { node, link, old });
        }
        if size >= LARGE {
            self.batcher.send()?; // it is alone in its batch
        }
        let job = Job { dir: Some(dir), stat: *stat, node, old, link, prefix, pieces: Vec::new(), gone: false };
        self.batcher.read(Item::File(Box::new(job)), size)
    }

    /// Returns the file in a parent whose content can be taken over, at the same path or at another one.
    fn same_content(
        &self,
        dir: &Arc<Dir>,
        name: &[u8],
        stat: &Stat,
        found: &mut [Option<OldNode>],
    ) -> Result<Option<OldNode>> {
        let Walk { trees, ctx, parents, renames, .. } = self.walk;
        for old in found.iter_mut() {
            if old.as_ref().is_some_and(|old| parents.same_file(ctx, trees, old, stat)) {
                return Ok(old.take());
            }
        }
        renames.file(ctx, trees, &SourceFile { dir, name, stat }, found)
    }

    /// Returns whether the file continues this partial file of a parent.
    fn is_beginning(&self, old: &OldNode, stat: &Stat) -> bool {
        self.walk.parents.same_beginning(self.walk.ctx, self.walk.trees, old, stat)
    }

    fn other(&mut self, dir: &Arc<Dir>, name: Vec<u8>, stat: &Stat, found: Vec<Option<OldNode>>) -> Result<()> {
        let content = match special::content(dir, &name, stat) {
            Ok(content) => content,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => {
                let node = self.walk.nodes.node(name, stat, Content::Fifo);
                return self.unreadable(dir, node, "read the link", errno);
            }
        };
        let mut node = self.walk.nodes.node(name, stat, content);
        let path = dir.path_of(&node.name);
        node.xattrs = self.xattrs(&found, stat, &path, || attributes::xattrs_at(dir, &node.name))?;
        self.batcher.push(Item::Node { node, change: Change::Unchanged, link: None })
    }
}
