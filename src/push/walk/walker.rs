//! Walks the sources in tree order and in step with the parents, and decides which files must be read. One thread is enough:
//! it needs at most a fifth of the time of the workers behind it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::batcher::Batcher;
use super::levels::{Level, Levels};
use super::listing::Listing;
use super::picker::Picker;
use super::sources::Plan;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node, PARTIAL, Xattrs};
use crate::progress::Event;
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::compare::parents::Parents;
use crate::push::compare::renames::{Renames, SourceFile};
use crate::push::read::attributes::{self, Nodes, error};
use crate::push::read::dir::{Dir, OpenDirs, Place};
use crate::push::read::item::{Change, Enter, Item, Job, Link};
use crate::push::read::partial::LARGE;
use crate::time::Time;
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
}

struct Walker<'w> {
    walk: Walk<'w>,
    picker: Picker<'w>,
    batcher: Batcher<'w>,
    levels: Levels<'w>,
    open: OpenDirs,
    links: HashMap<Link, KnownLink>,
}

/// A file with several links, of which some are still to come.
struct KnownLink {
    mtime: Time,
    ctime: i64,
    left: u32,
}

impl<'w> Walk<'w> {
    /// Walks all sources and closes the queue.
    pub fn run(self, plan: &'w Plan, mut picker: Picker<'w>, batcher: Batcher<'w>) -> Result<()> {
        let fd = fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, fs::Mode::empty());
        let fd = fd.map_err(|e| error("open /", e))?;
        let open = OpenDirs::new();
        let dir = Arc::new(Dir::new(fd, Vec::new(), open.place(self.ctx)?));
        let stat = fs::fstat(&dir.fd).map_err(|e| error("open /", e))?;
        let old = self.parents.roots(self.ctx, self.trees);
        let listing = if plan.whole {
            let listing = picker.marked(&dir)?.unwrap_or_else(|| Listing::read(&dir.fd).0);
            picker.enter(0, &dir, &listing)?;
            listing
        } else {
            Listing::of(plan.below.keys())
        };
        let plan = Some(plan).filter(|plan| !plan.whole);
        let id = attributes::id(&stat);
        let level = Level { dir: Some(dir), path: Vec::new(), id, listing, plan, old };
        let levels = Levels::new(level, &open);
        Walker { walk: self, picker, batcher, levels, open, links: HashMap::new() }.run()
    }
}

impl<'w> Walker<'w> {
    fn run(mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            match level.listing.next() {
                Some(name) => self.entry(name)?,
                None => self.leave()?,
            }
        }
        self.batcher.close()
    }

    fn leave(&mut self) -> Result<()> {
        let below = self.levels.pop();
        self.picker.leave(self.levels.len());
        if self.levels.last().is_some_and(|level| level.dir.is_none()) {
            self.reopen(below.and_then(|below| below.dir).as_deref())?;
        }
        if self.levels.len() > 0 { self.batcher.push(Item::Leave) } else { Ok(()) }
    }

    /// Opens the current directory again, from `below` it.
    fn reopen(&mut self, below: Option<&Dir>) -> Result<()> {
        let place = self.place()?;
        if let Some(level) = self.levels.last_mut()
            && !level.reopen(below, place)?
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
    fn entry(&mut self, name: Vec<u8>) -> Result<()> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(dir) = level.dir.clone() else { return Ok(()) };
        let plan = level.plan.and_then(|plan| plan.below.get(&name)).filter(|plan| !plan.whole);
        let is_selected = level.plan.is_none();
        let found = self.batcher.seek(self.walk.parents, &mut level.old, &name)?;
        let flags = if plan.is_some() { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let stat = match fs::statat(&dir.fd, name.as_slice(), flags) {
            Err(Errno::NOENT) => return Ok(()), // removed meanwhile
            other => other,
        };
        if is_selected && self.picker.excludes(&dir, &name, stat.as_ref().ok()) {
            return Ok(());
        }
        let stat = match stat {
            Ok(stat) => stat,
            Err(errno) => {
                let node = self.walk.nodes.unknown(name, errno);
                return self.unreadable(&dir, node, "look at it", errno);
            }
        };
        if self.is_backup(&stat) {
            let path = String::from_utf8_lossy(&dir.path_of(&name)).into_owned();
            self.walk.ctx.warn(&format!("left out {path}: it is the repository itself or a mounted backup"));
            return Ok(());
        }
        match attributes::kind(&stat) {
            FileType::Directory => self.directory(&dir, name, &stat, plan, found),
            FileType::RegularFile => self.file(dir, name, &stat, found),
            _ => self.other(&dir, name, &stat, found),
        }
    }

    /// Returns whether this is the repository itself or a mounted backup, which must not be saved into itself.
    fn is_backup(&self, stat: &Stat) -> bool {
        self.picker.is_backup(stat) || self.walk.exclude.contains(&attributes::id(stat))
    }

    fn unreadable(&mut self, dir: &Dir, mut node: Node, doing: &str, errno: Errno) -> Result<()> {
        attributes::skip(self.walk.ctx, &dir.path_of(&node.name), error(doing, errno))?;
        node.content = attributes::unreadable(errno);
        self.batcher.push(Item::Node { node, change: Change::New, link: None })
    }

    fn directory(
        &mut self,
        dir: &Dir,
        name: Vec<u8>,
        stat: &Stat,
        plan: Option<&'w Plan>,
        found: Vec<Option<OldNode>>,
    ) -> Result<()> {
        if plan.is_none() && self.levels.last().is_some_and(|up| up.plan.is_none()) && self.picker.is_elsewhere(stat) {
            return self.mount_point(dir, name, stat, found);
        }
        let place = self.place()?;
        let fd = match self.open(dir, &name, plan.is_some()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => {
                let node = self.walk.nodes.node(name, stat, Content::Directory(None));
                return self.unreadable(dir, node, "open the folder", errno);
            }
        };
        // Another directory may have taken its place since `statat`.
        let stat = &fs::fstat(&fd).unwrap_or(*stat);
        let mut node = self.walk.nodes.node(name, stat, Content::Directory(None));
        let below = Arc::new(Dir::new(fd, dir.path_of(&node.name), place));
        let listing = self.listing(&below, plan)?;
        node.xattrs = self.xattrs(&found, stat, &below.path, || attributes::xattrs_of(&below.fd))?;
        let old = self.old_directories(stat, listing.len(), &found)?;
        let id = attributes::id(stat);
        self.levels.push(Level { path: below.path.clone(), dir: Some(below), id, listing, plan, old });
        self.batcher.push(Item::Enter(Box::new(Enter { node, passage: plan.is_some(), old: newest(found) })))
    }

    /// Saves a directory of another file system as an empty one, without opening it.
    fn mount_point(&mut self, dir: &Dir, name: Vec<u8>, stat: &Stat, found: Vec<Option<OldNode>>) -> Result<()> {
        let node = self.walk.nodes.node(name, stat, Content::Directory(None));
        self.walk.ctx.event(Event::Excluded { path: &[&dir.path_of(&node.name), b"/".as_slice()].concat() });
        self.batcher.push(Item::Enter(Box::new(Enter { node, passage: false, old: newest(found) })))?;
        self.batcher.push(Item::Leave)
    }

    fn open(&self, dir: &Dir, name: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        if self.levels.len() > limits::DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let follow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        dir.open(name, OFlags::DIRECTORY | follow)
    }

    /// Returns the names to save in a directory.
    fn listing(&mut self, dir: &Dir, plan: Option<&Plan>) -> Result<Listing> {
        if let Some(plan) = plan {
            return Ok(Listing::of(plan.below.keys()));
        }
        let listing = match self.picker.marked(dir)? {
            Some(marks) => marks,
            None => self.list(dir)?,
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

    fn list(&self, dir: &Dir) -> Result<Listing> {
        let (listing, errno) = Listing::read(&dir.fd);
        if let Some(errno) = errno {
            attributes::skip(self.walk.ctx, &dir.path, error("read all of the folder", errno))?;
        }
        Ok(listing)
    }

    /// Returns the extended attributes: those in a parent if the file did not change since, else reads them.
    fn xattrs(
        &self,
        found: &[Option<OldNode>],
        stat: &Stat,
        path: &[u8],
        read: impl Fn() -> Result<attributes::Pairs, Errno>,
    ) -> Result<Xattrs> {
        let parents = self.walk.parents;
        let same = |old: &&OldNode| parents.untouched(old, stat) && parents.xattrs_last(&old.node);
        if let Some(old) = found.iter().flatten().find(same) {
            return Ok(old.node.xattrs.clone());
        }
        let pairs = read().or_else(|errno| {
            attributes::skip(self.walk.ctx, path, error("read its extended attributes", errno))?;
            Ok::<_, Error>(Vec::new())
        });
        pairs.map(Xattrs::Inline)
    }

    fn file(&mut self, dir: Arc<Dir>, name: Vec<u8>, stat: &Stat, mut found: Vec<Option<OldNode>>) -> Result<()> {
        let mut node = self.walk.nodes.node(name, stat, Content::File(Vec::new()));
        let size = stat.st_size as u64;
        self.batcher.met(size);
        let link = (attributes::nlink(stat) > 1).then_some(attributes::id(stat));
        if let Some(OldNode { node: old, renamed, .. }) = self.same_content(&dir, &node.name, stat, &mut found)? {
            node.content.clone_from(&old.content);
            node.xattrs.clone_from(&old.xattrs);
            let change = if renamed { Change::Renamed } else { Change::compare(Some(&old), &node) };
            self.batcher.done(size);
            link.map(|link| self.is_further(link, stat));
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
        if let Some(link) = link.filter(|link| self.is_further(*link, stat)) {
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
        dir: &Dir,
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

    /// Returns whether this is a further link to a file that came before and did not change since. If not, it is treated as
    /// the first link.
    fn is_further(&mut self, link: Link, stat: &Stat) -> bool {
        let (mtime, ctime) = (attributes::mtime(stat), attributes::ctime(stat));
        if let Some(known) = self.links.get_mut(&link) {
            let same = (known.mtime, known.ctime) == (mtime, ctime);
            known.left -= 1;
            if known.left == 0 {
                self.links.remove(&link);
            }
            return same;
        }
        self.links.insert(link, KnownLink { mtime, ctime, left: attributes::nlink(stat) - 1 });
        false
    }

    fn other(&mut self, dir: &Dir, name: Vec<u8>, stat: &Stat, found: Vec<Option<OldNode>>) -> Result<()> {
        let content = match self.content(dir, &name, stat) {
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

    fn content(&self, dir: &Dir, name: &[u8], stat: &Stat) -> Result<Content, Errno> {
        let device = (fs::major(stat.st_rdev as _), fs::minor(stat.st_rdev as _));
        Ok(match attributes::kind(stat) {
            FileType::Symlink => {
                let target = fs::readlinkat(&dir.fd, name, Vec::new())?.into_bytes();
                let fits = (1..=limits::TARGET).contains(&target.len());
                Content::Symlink(Some(target).filter(|_| fits).ok_or(Errno::NAMETOOLONG)?)
            }
            FileType::BlockDevice => Content::Block(device.0, device.1),
            FileType::CharacterDevice => Content::Char(device.0, device.1),
            FileType::Fifo => Content::Fifo,
            FileType::Socket => Content::Socket,
            _ => return Err(Errno::OPNOTSUPP),
        })
    }
}

/// Returns the node of the first parent that has one.
fn newest(found: Vec<Option<OldNode>>) -> Option<Node> {
    found.into_iter().flatten().next().map(|found| found.node)
}
