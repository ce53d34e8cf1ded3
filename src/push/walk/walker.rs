//! Walks the sources in tree order and in step with the parents, and decides which files must be read. One thread is enough:
//! it needs at most a fifth of the time of the workers behind it.

use std::iter::repeat_n;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{self, FileType, OFlags, Stat, Statx};
use rustix::io::Errno;

use super::batcher::Batcher;
use super::destination::{self, Destination};
use super::file::MetFile;
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
use crate::format::node::{Content, Node, Xattrs};
use crate::progress::Event;
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::read::attributes::{self, FoundXattrs, MountPoint, Nodes, error};
use crate::push::read::dir::{Dir, OpenDirs, Place};
use crate::push::read::guard::Guard;
use crate::push::read::item::{Change, Enter, Item, Job};
use crate::push::read::partial::LARGE;

/// The inputs of a walk over files.
pub struct Walk<'w> {
    pub ctx: &'w Context<'w>,
    pub destinations: &'w [Destination<'w>],
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
        let old = destination::roots(self.destinations);
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
            self.batcher.send_if_full()?;
        }
        self.batcher.close()
    }

    fn leave(&mut self) -> Result<()> {
        let below = self.levels.pop();
        self.picker.leave(self.levels.len());
        if self.levels.last().is_some_and(|level| level.dir.is_none()) {
            self.reopen(below.and_then(|below| below.dir).as_ref())?;
        }
        if self.levels.len() > 0 {
            self.batcher.leave();
        }
        Ok(())
    }

    /// Returns the places of a destination among the nodes that were found in the parents.
    fn places(&self, destination: usize) -> Range<usize> {
        self.levels.last().map_or(0..0, |level| OldDirectory::places(&level.old, destination))
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
        let found = self.batcher.seek(&mut level.old, &name)?;
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

    /// Returns the status of another file system that is mounted at an entry, if it is known without a call to that file system.
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
        self.mount_point(dir, self.walk.nodes.mount_point(mount), found);
        Ok(true)
    }

    fn leave_out(&self, dir: &Dir, name: &[u8]) {
        let path = dir.path_of(name);
        let path = String::from_utf8_lossy(&path);
        self.walk.ctx.warn(&format!("left out {path}: it is the repository itself or a mounted backup"));
    }

    fn unreadable(&mut self, dir: &Dir, mut node: Node, doing: &str, errno: Errno) -> Result<()> {
        attributes::skip(self.walk.ctx, &dir.path_of(&node.name), error(doing, errno))?;
        node.content = attributes::unreadable(errno);
        for (destination, node) in repeat_n(node, self.walk.destinations.len()).enumerate() {
            self.batcher.push(destination, Item::Node { node, change: Change::New, link: None });
        }
        Ok(())
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
            self.mount_point(dir, node, &found);
            return Ok(());
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
        let node = self.walk.nodes.node(name, stat, Content::Directory(None));
        let listing = self.listing(&below, plan)?;
        self.mounts.renew();
        let read = |_: &[u8]| below.call(|below| attributes::xattrs_of(&below.fd, &below.guard));
        let passage = plan.is_some();
        self.with_xattrs(node, &found, stat, &below.path, read, |found, node| {
            Item::Enter(Box::new(Enter { node, passage, old: OldNode::newest(found) }))
        })?;
        let above = self.levels.last().map_or(&[][..], |level| &level.old);
        let old = destination::directories(self.walk.destinations, above, &found, stat, listing.len())?;
        let id = attributes::id(stat);
        self.levels.push(Level { path: below.path.clone(), dir: Some(below), id, listing, plan, old });
        Ok(())
    }

    /// Saves a directory of another file system as an empty one, without opening it.
    fn mount_point(&mut self, dir: &Dir, node: Node, found: &[Option<OldNode>]) {
        self.walk.ctx.event(Event::Excluded { path: &[&dir.path_of(&node.name), b"/".as_slice()].concat() });
        for (destination, node) in repeat_n(node, self.walk.destinations.len()).enumerate() {
            let old = OldNode::newest(&found[self.places(destination)]);
            self.batcher.push(destination, Item::Enter(Box::new(Enter { node, passage: false, old })));
        }
        self.batcher.leave();
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

    /// Adds a step with a node for each destination. The extended attributes are those in a parent if the file did not change
    /// since, else they are read.
    fn with_xattrs(
        &mut self,
        node: Node,
        found: &[Option<OldNode>],
        stat: &Stat,
        path: &[u8],
        read: impl Fn(&[u8]) -> Result<FoundXattrs, Errno>,
        item: impl Fn(&[Option<OldNode>], Node) -> Item,
    ) -> Result<()> {
        let Walk { ctx, destinations, nodes, .. } = self.walk;
        let mut now: Option<Xattrs> = None;
        for (i, mut node) in repeat_n(node, destinations.len()).enumerate() {
            let (found, parents) = (&found[self.places(i)], destinations[i].parents);
            let same = |old: &&OldNode| parents.untouched(old, stat) && parents.xattrs_last(&old.node);
            node.xattrs = match (found.iter().flatten().find(same), &now) {
                (Some(old), _) => nodes.with_names(&old.node.xattrs),
                (None, Some(now)) => now.clone(),
                (None, None) => now.insert(nodes.xattrs(ctx, path, read(&node.name))?).clone(),
            };
            self.batcher.push(i, item(found, node));
        }
        Ok(())
    }

    fn file(&mut self, dir: Arc<Dir>, name: Vec<u8>, stat: &Stat, mut found: Vec<Option<OldNode>>) -> Result<()> {
        let node = self.walk.nodes.node(name, stat, Content::File(Vec::new()));
        let size = stat.st_size as u64;
        self.batcher.met(size);
        let link = (attributes::nlink(stat) > 1).then_some(attributes::id(stat));
        let is_further = link.is_some_and(|link| self.links.is_further(link, stat));
        let above = self.levels.last().map_or(&[][..], |level| &level.old);
        let file = MetFile { dir: &dir, stat, link, is_further };
        match file.decide(&mut self.batcher, self.walk.nodes, node, above, &mut found)? {
            Some(job) => self.read(job, dir, size),
            None => Ok(()),
        }
    }

    /// Sends a file to the workers.
    fn read(&mut self, mut job: Box<Job>, dir: Arc<Dir>, size: u64) -> Result<()> {
        if size >= LARGE {
            self.batcher.send()?; // it is alone in its batch
        }
        job.dir = Some(dir);
        let destination = job.destination;
        self.batcher.read(destination, &mut job.others, size);
        self.batcher.push(destination, Item::File(job));
        Ok(())
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
        let path = dir.path_of(&name);
        let node = self.walk.nodes.node(name, stat, content);
        let read = |name: &[u8]| attributes::xattrs_at(dir, name);
        let item = |_: &[_], node| Item::Node { node, change: Change::Unchanged, link: None };
        self.with_xattrs(node, &found, stat, &path, read, item)
    }
}
