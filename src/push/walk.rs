//! Walks the sources in the order of the tree, in step with the previous snapshot, and sorts what is to be read from
//! what is not. One thread: it needs no more than a fifth of the time of the workers behind it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Sender;
use rustix::fs::{self, AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::control::Control;
use super::item::{Batch, Enter, Item, Job, Link, Was};
use super::line::Line;
use super::listing::Listing;
use super::meta::{self, Dir, Nodes, error};
use super::parent::{Found, Old, Parents};
use super::source::Plan;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::tree::{Content, Node, Xattrs};
use crate::progress::Event;
use crate::repo::Repository;

/// A batch is full at so many items ..
const ITEMS: usize = 256;
/// .. or so many bytes to read.
const BYTES: u64 = 2 << 20;
/// Directories that are kept open on the way down; above them they are opened again from below.
const OPEN: usize = 128;

/// What the walker is given.
pub(super) struct Walk<'w> {
    pub repo: &'w Repository,
    pub control: &'w Control<'w>,
    pub parents: &'w Parents,
    pub nodes: &'w Nodes,
    pub line: &'w Line<'w, Batch>,
    pub work: Sender<(u64, Batch)>,
    /// Directories, by device and inode, that are never entered: the repository itself, mounted snapshots.
    pub exclude: &'w [(u64, u64)],
}

struct Walker<'w> {
    walk: Walk<'w>,
    levels: Vec<Level<'w>>,
    batch: Batch,
    links: HashMap<Link, Links>,
    total: (u64, u64),
    done: (u64, u64),
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
    mtime: (i64, u32),
    ctime: i64,
    left: u32,
}

impl<'w> Walk<'w> {
    /// Walks everything and closes the line.
    pub fn run(self, plan: &'w Plan) -> Result<()> {
        let fd = fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, fs::Mode::empty());
        let fd = fd.map_err(|e| error("open /", e))?;
        let dir = Arc::new(Dir { fd, path: Vec::new() });
        let stat = fs::fstat(&dir.fd).map_err(|e| error("open /", e))?;
        let old = self.parents.roots(self.repo, self.control);
        let listing = match plan.whole {
            true => Listing::read(&dir.fd).0,
            false => Listing::of(plan.below.keys()),
        };
        let plan = Some(plan).filter(|plan| !plan.whole);
        let id = meta::id(&stat);
        let level = Level { dir: Some(dir), path: Vec::new(), id, listing, plan, old };
        let (batch, links) = Default::default();
        Walker { walk: self, levels: vec![level], batch, links, total: (0, 0), done: (0, 0) }.run()
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
        self.send()?;
        self.walk.line.close();
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let below = self.levels.pop();
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        if level.dir.is_none() {
            level.dir = reopen(below.and_then(|below| below.dir).as_deref(), &level.path, level.id);
            if level.dir.is_none() {
                let moved = Error::failed("the folder was moved while it was being saved");
                self.walk.control.skip(&level.path, &moved);
                level.listing = Listing::default();
            }
        }
        self.push(Item::Leave)
    }

    /// Adds a step; a full batch goes to the workers.
    fn push(&mut self, item: Item) -> Result<()> {
        self.batch.items.push(item);
        if self.batch.items.len() >= ITEMS || self.batch.bytes >= BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        self.walk.control.check()?;
        let batch = std::mem::replace(&mut self.batch, Batch { items: Vec::with_capacity(ITEMS), files: 0, bytes: 0 });
        self.walk.control.event(Event::Total { files: self.total.0, bytes: self.total.1 });
        let (files, bytes) = std::mem::take(&mut self.done);
        self.walk.control.event(Event::Done { files, bytes });
        let number = self.walk.line.enter(batch.items.len())?;
        if batch.files == 0 {
            self.walk.line.finish(number, batch);
            return Ok(());
        }
        self.walk.control.send(&self.walk.work, (number, batch))
    }

    /// One name of the directory at hand.
    fn entry(&mut self, name: Vec<u8>) -> Result<()> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(dir) = level.dir.clone() else { return Ok(()) };
        let plan = level.plan.and_then(|plan| plan.below.get(&name)).filter(|plan| !plan.whole);
        let mut found = Vec::with_capacity(level.old.len());
        for old in &mut level.old {
            found.push(old.seek(&name)?);
            for (first, page) in old.take_pages() {
                if self.walk.parents.lasts(&page) {
                    self.batch.items.push(Item::Page(first, page));
                }
            }
        }
        let flags = if plan.is_some() { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        match fs::statat(&dir.fd, name.as_slice(), flags) {
            Err(Errno::NOENT) => Ok(()), // removed meanwhile
            Err(errno) => self.unreadable(&dir, self.walk.nodes.unknown(name, errno), "look at it", errno),
            Ok(stat) => match meta::kind(&stat) {
                FileType::Directory => self.directory(&dir, name, &stat, plan, found),
                FileType::RegularFile => self.file(dir, name, &stat, found),
                _ => self.other(&dir, name, &stat, found),
            },
        }
    }

    fn unreadable(&mut self, dir: &Dir, mut node: Node, doing: &str, errno: Errno) -> Result<()> {
        self.walk.control.skip(&dir.path_of(&node.name), &error(doing, errno));
        node.content = meta::unreadable(errno);
        self.push(Item::Node { node, was: Was::New, link: None })
    }

    fn directory(
        &mut self,
        dir: &Dir,
        name: Vec<u8>,
        stat: &Stat,
        plan: Option<&'w Plan>,
        found: Vec<Option<Found>>,
    ) -> Result<()> {
        if self.walk.exclude.contains(&meta::id(stat)) {
            let path = String::from_utf8_lossy(&dir.path_of(&name)).into_owned();
            self.walk.control.warn(&format!("left out {path}: it holds the repository itself or a mounted snapshot"));
            return Ok(());
        }
        let mut node = self.walk.nodes.node(name, stat, Content::Directory(None));
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
            None => self.list(&below),
        };
        node.xattrs = self.xattrs(&found, stat, &below.path, || meta::xattrs_of(&below.fd));
        let old = self.levels.last().map_or(&[][..], |level| &level.old);
        let mut old: Vec<_> = old.iter().zip(&found).filter_map(|(old, found)| old.below(found.as_ref()?)).collect();
        let Walk { repo, control, parents, .. } = self.walk;
        old.extend(parents.elsewhere(repo, control, stat, listing.len(), &found)?);
        let id = meta::id(stat);
        let level = Level { path: below.path.clone(), dir: Some(below), id, listing, plan, old };
        self.levels.push(level);
        if let Some(up) = self.levels.len().checked_sub(OPEN + 1) {
            self.levels[up].dir = None;
        }
        let old = found.into_iter().flatten().next().map(|found| found.node);
        self.push(Item::Enter(Box::new(Enter { node, passage: plan.is_some(), old })))
    }

    fn list(&self, dir: &Dir) -> Listing {
        let (listing, errno) = Listing::read(&dir.fd);
        if let Some(errno) = errno {
            self.walk.control.skip(&dir.path, &error("read all of the folder", errno));
        }
        listing
    }

    /// Extended attributes: those of the snapshot before, if nothing was touched since.
    fn xattrs(
        &self,
        found: &[Option<Found>],
        stat: &Stat,
        path: &[u8],
        read: impl Fn() -> Result<meta::Pairs, Errno>,
    ) -> Xattrs {
        let parents = self.walk.parents;
        let same = |old: &&Found| parents.untouched(old, stat) && parents.xattrs_last(&old.node);
        if let Some(old) = found.iter().flatten().find(same) {
            return old.node.xattrs.clone();
        }
        Xattrs::Inline(read().unwrap_or_else(|errno| {
            self.walk.control.skip(path, &error("read its extended attributes", errno));
            Vec::new()
        }))
    }

    fn file(&mut self, dir: Arc<Dir>, name: Vec<u8>, stat: &Stat, found: Vec<Option<Found>>) -> Result<()> {
        let mut node = self.walk.nodes.node(name, stat, Content::File(Vec::new()));
        let (walk, size) = (&self.walk, stat.st_size as u64);
        self.total = (self.total.0 + 1, self.total.1 + size);
        let same = found.iter().flatten().position(|old| walk.parents.same_file(walk.repo, old, stat));
        let renamed = match same {
            None => walk.parents.renamed(walk.repo, walk.control, (&dir, &node.name), stat, &found)?,
            Some(_) => None,
        };
        let mut found = found.into_iter().flatten();
        let link = (meta::nlink(stat) > 1).then_some(meta::id(stat));
        if let Some(Found { node: old, moved, .. }) = renamed.or_else(|| found.nth(same?)) {
            node.content.clone_from(&old.content);
            node.xattrs.clone_from(&old.xattrs);
            let was = if moved { Was::Renamed } else { Was::compare(Some(&old), &node) };
            self.done = (self.done.0 + 1, self.done.1 + size);
            link.map(|link| self.is_further(link, stat));
            return self.push(Item::Node { node, was, link });
        }
        let old = found.next().map(|found| Box::new(found.node));
        match link {
            Some(link) if self.is_further(link, stat) => {
                self.done = (self.done.0 + 1, self.done.1 + size);
                self.push(Item::Link { node, link, old })
            }
            link => {
                self.batch.files += 1;
                self.batch.bytes += size;
                let job = Job { dir, stat: *stat, node, old, link, pieces: Vec::new(), gone: false };
                self.push(Item::File(Box::new(job)))
            }
        }
    }

    /// Whether this is a further link to a file that came before and is still the same; if not, it is the first one.
    fn is_further(&mut self, link: Link, stat: &Stat) -> bool {
        let (mtime, ctime) = (meta::mtime(stat), meta::ctime(stat));
        if let Some(known) = self.links.get_mut(&link) {
            let same = (known.mtime, known.ctime) == (mtime, ctime);
            known.left -= 1;
            if known.left == 0 {
                self.links.remove(&link);
            }
            return same;
        }
        self.links.insert(link, Links { mtime, ctime, left: meta::nlink(stat) - 1 });
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
        node.xattrs = self.xattrs(&found, stat, &path, || meta::xattrs_at(dir, &node.name));
        self.push(Item::Node { node, was: Was::Unchanged, link: None })
    }

    fn content(&self, dir: &Dir, name: &[u8], stat: &Stat) -> Result<Content, Errno> {
        let device = (fs::major(stat.st_rdev as _), fs::minor(stat.st_rdev as _));
        Ok(match meta::kind(stat) {
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
    let ours = |fd: OwnedFd| fs::fstat(&fd).is_ok_and(|stat| meta::id(&stat) == id).then_some(fd);
    let above = below.and_then(|below| below.open(b"..", OFlags::DIRECTORY).ok()).and_then(ours);
    let fd = above.or_else(|| {
        let path = if path.is_empty() { b"/" } else { path };
        fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, fs::Mode::empty()).ok().and_then(ours)
    })?;
    Some(Arc::new(Dir { fd, path: path.to_vec() }))
}
