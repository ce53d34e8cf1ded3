//! Walks the sources in the order of the tree, in step with the previous snapshot, and sorts what is to be read from
//! what is not. One thread: it needs no more than a fifth of the time of the workers behind it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::batcher::Batcher;
use super::listing::Listing;
use super::picker::Picker;
use super::sources::Plan;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node, PARTIAL, Xattrs};
use crate::progress::Event;
use crate::push::compare::parents::{Found, Old, Parents};
use crate::push::read::attributes::{self, Dir, Nodes, error};
use crate::push::read::item::{Change, Enter, Item, Job, Link};
use crate::push::read::partial::LARGE;
use crate::time::Time;
use crate::trees::Trees;

/// Directories that are kept open on the way down; above them they are opened again from below.
const OPEN: usize = 128;

/// What the walker is given.
pub struct Walk<'w> {
    pub trees: &'w Trees<'w>,
    pub ctx: &'w Context<'w>,
    pub parents: &'w Parents,
    pub nodes: &'w Nodes,
    /// Directories, by device and inode, that are never entered: the repository itself.
    pub exclude: &'w [(u64, u64)],
}

struct Walker<'w> {
    walk: Walk<'w>,
    picker: Picker<'w>,
    feed: Batcher<'w>,
    levels: Vec<Level<'w>>,
    links: HashMap<Link, Links>,
}

/// A directory on the way down.
struct Level<'w> {
    dir: Option<Arc<Dir>>,
    path: Vec<u8>,
    id: (u64, u64),
    listing: Listing,
    plan: Option<&'w Plan>,
    old: Vec<Old<'w>>,
}

/// A file with several links, of which some are still to come.
struct Links {
    mtime: Time,
    ctime: i64,
    left: u32,
}

impl<'w> Walk<'w> {
    /// Walks everything and closes the line.
    pub fn run(self, plan: &'w Plan, mut picker: Picker<'w>, feed: Batcher<'w>) -> Result<()> {
        let fd = fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, fs::Mode::empty());
        let fd = fd.map_err(|e| error("open /", e))?;
        let dir = Arc::new(Dir { fd, path: Vec::new() });
        let stat = fs::fstat(&dir.fd).map_err(|e| error("open /", e))?;
        let old = self.parents.roots(self.ctx, self.trees);
        let listing = match plan.whole {
            true => {
                let listing = picker.marked(&dir).unwrap_or_else(|| Listing::read(&dir.fd).0);
                picker.enter(0, &dir, &listing);
                listing
            }
            false => Listing::of(plan.below.keys()),
        };
        let plan = Some(plan).filter(|plan| !plan.whole);
        let id = attributes::id(&stat);
        let level = Level { dir: Some(dir), path: Vec::new(), id, listing, plan, old };
        Walker { walk: self, picker, feed, levels: vec![level], links: HashMap::new() }.run()
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
        self.feed.close()
    }

    fn leave(&mut self) -> Result<()> {
        let below = self.levels.pop();
        self.picker.leave(self.levels.len());
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        if level.dir.is_none() {
            level.dir = reopen(below.and_then(|below| below.dir).as_deref(), &level.path, level.id);
            if level.dir.is_none() {
                let moved = Error::failed("the folder was moved while it was being saved");
                self.walk.ctx.skip(&level.path, &moved);
                level.listing = Listing::default();
            }
        }
        self.feed.push(Item::Leave)
    }

    /// One name of the directory at hand.
    fn entry(&mut self, name: Vec<u8>) -> Result<()> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(dir) = level.dir.clone() else { return Ok(()) };
        let plan = level.plan.and_then(|plan| plan.below.get(&name)).filter(|plan| !plan.whole);
        let found = self.feed.seek(self.walk.parents, &mut level.old, &name)?;
        let flags = if plan.is_some() { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let picking = level.plan.is_none();
        let stat = fs::statat(&dir.fd, name.as_slice(), flags);
        let gone = matches!(stat, Err(Errno::NOENT));
        if picking && !gone && self.picker.leaves_out(&dir, &name, stat.as_ref().ok()) {
            return Ok(());
        }
        match stat {
            Err(Errno::NOENT) => Ok(()), // removed meanwhile
            Err(errno) => self.unreadable(&dir, self.walk.nodes.unknown(name, errno), "look at it", errno),
            Ok(stat) if self.is_ours(&stat) => {
                let path = String::from_utf8_lossy(&dir.path_of(&name)).into_owned();
                self.walk.ctx.warn(&format!("left out {path}: it is the repository itself or a mounted backup"));
                Ok(())
            }
            Ok(stat) => match attributes::kind(&stat) {
                FileType::Directory => self.directory(&dir, name, &stat, plan, found),
                FileType::RegularFile => self.file(dir, name, &stat, found),
                _ => self.other(&dir, name, &stat, found),
            },
        }
    }

    /// Whether it is what must not be saved into itself.
    fn is_ours(&self, stat: &Stat) -> bool {
        self.picker.is_backup(stat) || self.walk.exclude.contains(&attributes::id(stat))
    }

    fn unreadable(&mut self, dir: &Dir, mut node: Node, doing: &str, errno: Errno) -> Result<()> {
        self.walk.ctx.skip(&dir.path_of(&node.name), &error(doing, errno));
        node.content = attributes::unreadable(errno);
        self.feed.push(Item::Node { node, change: Change::New, link: None })
    }

    fn directory(
        &mut self,
        dir: &Dir,
        name: Vec<u8>,
        stat: &Stat,
        plan: Option<&'w Plan>,
        found: Vec<Option<Found>>,
    ) -> Result<()> {
        let mut node = self.walk.nodes.node(name, stat, Content::Directory(None));
        if plan.is_none() && self.levels.last().is_some_and(|up| up.plan.is_none()) && self.picker.is_elsewhere(stat) {
            // A mount point: what is mounted there is not even opened.
            self.walk.ctx.event(Event::Excluded { path: &[&dir.path_of(&node.name), b"/".as_slice()].concat() });
            let old = found.into_iter().flatten().next().map(|found| found.node);
            self.feed.push(Item::Enter(Box::new(Enter { node, passage: false, old })))?;
            return self.feed.push(Item::Leave);
        }
        let follow = if plan.is_some() { OFlags::empty() } else { OFlags::NOFOLLOW };
        let deep = if self.levels.len() > limits::DEPTH { Err(Errno::NAMETOOLONG) } else { Ok(()) };
        let fd = match deep.and_then(|()| dir.open(&node.name, OFlags::DIRECTORY | follow)) {
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return self.unreadable(dir, node, "open the folder", errno),
            Ok(fd) => fd,
        };
        // Another one may have taken its place since it was looked at.
        let stat = &fs::fstat(&fd).unwrap_or(*stat);
        node = self.walk.nodes.node(node.name, stat, node.content);
        let below = Arc::new(Dir { fd, path: dir.path_of(&node.name) });
        let listing = match plan {
            Some(plan) => Listing::of(plan.below.keys()),
            None => {
                let listing = self.picker.marked(&below).unwrap_or_else(|| self.list(&below));
                self.picker.enter(self.levels.len(), &below, &listing);
                listing
            }
        };
        node.xattrs = self.xattrs(&found, stat, &below.path, || attributes::xattrs_of(&below.fd));
        let old = self.levels.last().map_or(&[][..], |level| &level.old);
        let mut old: Vec<_> = old.iter().zip(&found).filter_map(|(old, found)| old.below(found.as_ref()?)).collect();
        let Walk { trees, ctx, parents, .. } = self.walk;
        old.extend(parents.elsewhere(ctx, trees, stat, listing.len(), &found)?);
        let id = attributes::id(stat);
        let level = Level { path: below.path.clone(), dir: Some(below), id, listing, plan, old };
        self.levels.push(level);
        if let Some(up) = self.levels.len().checked_sub(OPEN + 1) {
            self.levels[up].dir = None;
        }
        let old = found.into_iter().flatten().next().map(|found| found.node);
        self.feed.push(Item::Enter(Box::new(Enter { node, passage: plan.is_some(), old })))
    }

    fn list(&self, dir: &Dir) -> Listing {
        let (listing, errno) = Listing::read(&dir.fd);
        if let Some(errno) = errno {
            self.walk.ctx.skip(&dir.path, &error("read all of the folder", errno));
        }
        listing
    }

    /// Extended attributes: those of the snapshot before, if nothing was touched since.
    fn xattrs(
        &self,
        found: &[Option<Found>],
        stat: &Stat,
        path: &[u8],
        read: impl Fn() -> Result<attributes::Pairs, Errno>,
    ) -> Xattrs {
        let parents = self.walk.parents;
        let same = |old: &&Found| parents.untouched(old, stat) && parents.xattrs_last(&old.node);
        if let Some(old) = found.iter().flatten().find(same) {
            return old.node.xattrs.clone();
        }
        Xattrs::Inline(read().unwrap_or_else(|errno| {
            self.walk.ctx.skip(path, &error("read its extended attributes", errno));
            Vec::new()
        }))
    }

    fn file(&mut self, dir: Arc<Dir>, name: Vec<u8>, stat: &Stat, found: Vec<Option<Found>>) -> Result<()> {
        let mut node = self.walk.nodes.node(name, stat, Content::File(Vec::new()));
        let (walk, size) = (&self.walk, stat.st_size as u64);
        self.feed.met(size);
        let same = found.iter().flatten().position(|old| walk.parents.same_file(walk.ctx, walk.trees, old, stat));
        let renamed = match same {
            None => walk.parents.renamed(walk.ctx, walk.trees, (&dir, &node.name), stat, &found)?,
            Some(_) => None,
        };
        let mut found = found.into_iter().flatten();
        let link = (attributes::nlink(stat) > 1).then_some(attributes::id(stat));
        if let Some(Found { node: old, moved, .. }) = renamed.or_else(|| found.nth(same?)) {
            node.content.clone_from(&old.content);
            node.xattrs.clone_from(&old.xattrs);
            let change = if moved { Change::Renamed } else { Change::compare(Some(&old), &node) };
            self.feed.done(size);
            link.map(|link| self.is_further(link, stat));
            return self.feed.push(Item::Node { node, change, link });
        }
        let (mut prefix, mut old) = (None, None);
        for found in found {
            let partial = found.node.flags & PARTIAL != 0;
            if partial && prefix.is_none() && walk.parents.same_beginning(walk.ctx, walk.trees, &found, stat) {
                prefix = Some(found.node.content);
            } else if !partial && old.is_none() {
                old = Some(Box::new(found.node));
            }
        }
        match link {
            Some(link) if self.is_further(link, stat) => {
                self.feed.done(size);
                self.feed.push(Item::Link { node, link, old })
            }
            link => {
                if size >= LARGE {
                    self.feed.send()?; // it travels alone
                }
                let job = Job { dir, stat: *stat, node, old, link, prefix, pieces: Vec::new(), gone: false };
                self.feed.read(Item::File(Box::new(job)), size)
            }
        }
    }

    /// Whether this is a further link to a file that came before and is still the same; if not, it is the first one.
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
        self.links.insert(link, Links { mtime, ctime, left: attributes::nlink(stat) - 1 });
        false
    }

    fn other(&mut self, dir: &Dir, name: Vec<u8>, stat: &Stat, found: Vec<Option<Found>>) -> Result<()> {
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
        node.xattrs = self.xattrs(&found, stat, &path, || attributes::xattrs_at(dir, &node.name));
        self.feed.push(Item::Node { node, change: Change::Unchanged, link: None })
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

/// The directory that `below` is in, if it is still the one that we came from; else the one at its path, if that is.
fn reopen(below: Option<&Dir>, path: &[u8], id: (u64, u64)) -> Option<Arc<Dir>> {
    let ours = |fd: OwnedFd| fs::fstat(&fd).is_ok_and(|stat| attributes::id(&stat) == id).then_some(fd);
    let above = below.and_then(|below| below.open(b"..", OFlags::DIRECTORY).ok()).and_then(ours);
    let fd = above.or_else(|| {
        let path = if path.is_empty() { b"/" } else { path };
        fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, fs::Mode::empty()).ok().and_then(ours)
    })?;
    Some(Arc::new(Dir { fd, path: path.to_vec() }))
}
