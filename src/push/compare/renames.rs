//! What was moved or renamed since the parents were taken is found by its inode number, and not read again where it is
//! proven that nothing else happened to it.
//!
//! The index of the parents is built at most once in a push, when the first thing turns up that is older than they are and
//! was not at its place. It holds [`Entry`] for each file and folder and [`Leaf`] for each page of a folder, no node: a
//! million files in 50,000 folders take 17 + 4 MB. A hit reads the page again.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;
use rustix::fs::{self, OFlags, Stat};
use rustix::io::Errno;

use super::parents::{Found, GRANULE, Old, Parents, begun};
use crate::context::Context;
use crate::error::Result;
use crate::format::node::{Content, Node, Xattrs};
use crate::format::page::Page;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::push::read::attributes::{self, Dir, same};
use crate::time::Time;
use crate::trees::{Branch, Trees};

/// Entries of a new folder from which on it is looked for elsewhere in the old tree even if it is young.
const WORTH_LOOKING: usize = 64;
/// Most bytes of the index. A larger tree is indexed by its folders alone; beyond that, the rest of it is read again.
const MOST: usize = 64 << 20;
/// Decoded pages that are kept: neighbours are mostly moved together.
const PAGES: NonZeroUsize = NonZeroUsize::new(32).expect("positive");
/// Nodes of one inode number that are looked at: links of one file, and other file systems.
const CANDIDATES: usize = 16;
/// How far apart mtime and ctime of a file may be that was written the usual way. Where a program sets mtime, mtime
/// proves nothing.
const TOGETHER: i64 = 2_000_000_000;

/// Inode number (upper and lower half), [`tag`], number of the leaf.
type Entry = [u32; 4];

/// A page of a folder.
struct Leaf {
    page: Ref,
    /// When the push that saved it began.
    time: i64,
    /// The folder's own node: its leaf and its place there. `None`: the root.
    up: Option<(u32, u32)>,
}

/// The index.
pub struct Moved {
    entries: Vec<Entry>,
    leaves: Vec<Leaf>,
    pages: Mutex<LruCache<u32, Arc<Vec<Node>>>>,
}

/// A folder of a parent: where it was, and its inode number.
struct Place {
    path: Vec<u8>,
    inode: u64,
}

impl Parents {
    /// The same folder at another place of the parents. Its files are still compared one by one.
    pub fn elsewhere<'r>(
        &self,
        ctx: &'r Context<'r>,
        trees: &'r Trees<'r>,
        stat: &Stat,
        entries: usize,
        found: &[Option<Found>],
    ) -> Result<Option<Old<'r>>> {
        self.learn(stat, found);
        // A folder that was moved is older than the snapshot inside, though not outside; a new one is worth a look if a
        // lot is in it.
        let look = entries > 0 && (self.moved.get().is_some() || self.older(stat) || entries >= WORTH_LOOKING);
        if !look || is_here(stat, found) {
            return Ok(None);
        }
        let moved = self.index(ctx, trees)?;
        let found = moved.find(ctx, trees, attributes::id(stat).1, FOLDER)?.into_iter().map(|(_, found)| found);
        let found: Vec<Found> = found.filter(|f| matches!(f.node.content, Content::Directory(_))).collect();
        let Some(found) = self.on_device(found, |found| found, stat).into_iter().next() else { return Ok(None) };
        let Content::Directory(page) = found.node.content else { return Ok(None) };
        Ok(Some(Old::moved(ctx, trees, found.time, page)))
    }

    /// The same regular file at another place of the parents, if its contents are proven to be what they were. The node
    /// that is given carries the extended attributes that the file has now.
    pub fn renamed(
        &self,
        ctx: &Context,
        trees: &Trees<'_>,
        (dir, name): (&Dir, &[u8]),
        stat: &Stat,
        found: &[Option<Found>],
    ) -> Result<Option<Found>> {
        if is_here(stat, found) || !self.older(stat) {
            return Ok(None);
        }
        let moved = self.index(ctx, trees)?;
        let tag = tag(stat.st_size as u64, attributes::mtime(stat));
        let found = self.on_device(moved.find(ctx, trees, attributes::id(stat).1, tag)?, |(_, found)| found, stat);
        for (leaf, mut found) in found {
            if self.same_file(ctx, trees, &found, stat) {
                return Ok(Some(found));
            }
            if self.was_calm(ctx, trees, &found, stat)
                && let Some(place) = moved.place(ctx, trees, leaf)?
                && is_gone(&place, &found.node.name, stat)
                && is_explained(dir, &place, stat)
                && let Ok(pairs) = xattrs_now(dir, name, stat)
            {
                found.node.xattrs = Xattrs::Inline(pairs);
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether it was there, as far as its mtime tells, when a parent was taken.
    fn older(&self, stat: &Stat) -> bool {
        let mtime = attributes::nanoseconds(attributes::mtime(stat));
        self.snapshots.iter().any(|s| mtime < begun(s))
    }

    fn index(&self, ctx: &Context, trees: &Trees<'_>) -> Result<&Moved> {
        if self.moved.get().is_none() {
            let _ = self.moved.set(Moved::read(ctx, trees, &self.snapshots)?);
        }
        Ok(self.moved.get().expect("it was just set"))
    }

    /// Which device a file system of a parent is now, as the folders tell that are where they were.
    fn learn(&self, stat: &Stat, found: &[Option<Found>]) {
        let here = found.iter().flatten().filter(|old| !old.moved && old.node.inode == attributes::id(stat).1);
        let mut devices = self.devices.lock().expect("no holder panics");
        for old in here {
            devices.entry((old.time, old.node.attrs.fs)).or_insert(attributes::id(stat).0);
        }
    }

    /// Inode numbers are those of one file system, and a node tells only that its file system was the first, the second..
    /// one. So nodes that are known to be of another one are left out, and where several remain, all.
    fn on_device<T>(&self, found: Vec<T>, get: impl Fn(&T) -> &Found, stat: &Stat) -> Vec<T> {
        let devices = self.devices.lock().expect("no holder panics");
        let device = |found: &Found| devices.get(&(found.time, found.node.attrs.fs)).copied();
        let fits = |found: &T| device(get(found)).is_none_or(|device| device == attributes::id(stat).0);
        let mut found: Vec<T> = found.into_iter().filter(fits).collect();
        if found.iter().any(|f| device(get(f)).is_some()) {
            found.retain(|f| device(get(f)).is_some());
        } else if found.windows(2).any(|two| get(&two[0]).node.attrs.fs != get(&two[1]).node.attrs.fs) {
            found.clear();
        }
        found
    }

    /// All that the two states of the file have to say themselves: the same file with the same contents, as far as mtime
    /// is to be trusted, and a change of ctime after the parent.
    fn was_calm(&self, ctx: &Context, trees: &Trees<'_>, old: &Found, stat: &Stat) -> bool {
        let (node, attrs) = (&old.node, &old.node.attrs);
        let (mtime, ctime) = (attributes::nanoseconds(node.mtime), attributes::ctime(stat));
        let before = old.time.saturating_sub(GRANULE);
        self.whole(ctx, trees, node, stat)
            && (node.nlink, attributes::nlink(stat)) == (1, 1)
            && node.mtime == attributes::mtime(stat)
            && (attrs.mode, attrs.uid, attrs.gid) == ((stat.st_mode & 0o7777) as u16, stat.st_uid, stat.st_gid)
            && mtime.max(node.ctime) < before
            && mtime.abs_diff(node.ctime) <= TOGETHER.unsigned_abs()
            && ctime >= before
            && stat.st_ctime_nsec != 0 // whole seconds cannot tell one change from another
    }
}

/// Whether it is what a parent has at this path, changed or not.
fn is_here(stat: &Stat, found: &[Option<Found>]) -> bool {
    found.iter().flatten().any(|old| old.node.inode == attributes::id(stat).1)
}

/// Whether the file's old path does not show it any more. (The device is not compared: where another file system has a
/// file of the same number there, the node may be that one's.)
fn is_gone(place: &Place, name: &[u8], stat: &Stat) -> bool {
    match fs::lstat([&place.path, b"/".as_slice(), name].concat()) {
        Ok(there) => attributes::id(&there).1 != attributes::id(stat).1,
        Err(errno) => matches!(errno, Errno::NOENT | Errno::NOTDIR),
    }
}

/// Whether the last change of the file's ctime was its renaming: that touches both folders in the same moment.
fn is_explained(dir: &Dir, from: &Place, stat: &Stat) -> bool {
    let near = |time: i64| time.abs_diff(attributes::ctime(stat)) <= GRANULE.unsigned_abs();
    let touched = |dir: &Stat| near(attributes::nanoseconds(attributes::mtime(dir))) || near(attributes::ctime(dir));
    fs::fstat(&dir.fd).is_ok_and(|dir| touched(&dir))
        || fs::stat(from.path.as_slice()).is_ok_and(|dir| attributes::id(&dir).1 == from.inode && touched(&dir))
}

/// They may have been set before the file was renamed, which mtime does not tell.
fn xattrs_now(dir: &Dir, name: &[u8], stat: &Stat) -> Result<attributes::Pairs, Errno> {
    let fd = dir.open(name, OFlags::NOFOLLOW)?;
    if same(stat, &fs::fstat(&fd)?) { attributes::xattrs_of(&fd) } else { Err(Errno::STALE) }
}

/// The tag of folders.
const FOLDER: u32 = 0;

/// Size and mtime of a file in few bits, so that a number which was given to another file costs no page.
fn tag(size: u64, mtime: Time) -> u32 {
    let mix = |sum: u64, part: u64| (sum ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (mix(mix(mix(1, size), mtime.seconds as u64), mtime.nanoseconds.into()) as u32).max(FOLDER + 1)
}

fn entry(node: &Node, leaf: u32, folders_only: bool) -> Option<Entry> {
    let tag = match &node.content {
        Content::Directory(Some(_)) => FOLDER,
        Content::File(_) | Content::Large { .. } if !folders_only => tag(node.content.size(), node.mtime),
        _ => return None,
    };
    Some([(node.inode >> 32) as u32, node.inode as u32, tag, leaf])
}

impl Moved {
    /// Reads the trees of all parents. What is damaged in there is left out: the walk reports it.
    fn read(ctx: &Context, trees: &Trees<'_>, parents: &[Snapshot]) -> Result<Self> {
        let sum = |count: fn(&Snapshot) -> u64| parents.iter().map(count).fold(0, u64::saturating_add);
        let (files, folders) = (sum(|s| s.stats.files), sum(|s| s.stats.directories));
        let bytes = files
            .saturating_mul(size_of::<Entry>() as u64 + 1)
            .saturating_add(folders.saturating_mul((size_of::<Entry>() + size_of::<Leaf>()) as u64));
        let folders_only = bytes > MOST as u64;
        let mut moved = Moved { entries: Vec::new(), leaves: Vec::new(), pages: Mutex::new(LruCache::new(PAGES)) };
        // Twice as much is needed for a moment where a vector grows.
        let expected = if folders_only { folders } else { files.saturating_add(folders) };
        moved.entries.reserve_exact(expected.min((MOST / size_of::<Entry>()) as u64) as usize);
        let mut seen = HashSet::new();
        for parent in parents {
            let mut open: Vec<_> = parent.root.map(|page| (Branch::top(page), None)).into_iter().collect();
            while let Some((branch, up)) = open.pop() {
                ctx.check()?;
                if moved.bytes() > MOST || parents.len() > 1 && !seen.insert(branch.page.id) {
                    continue;
                }
                match trees.page(ctx, &branch) {
                    Ok((_, Page::Upper(rows))) => open.extend(branch.children(&rows).rev().map(|child| (child, up))),
                    Ok((page, Page::Leaf(nodes))) => {
                        let leaf = Leaf { page, time: begun(parent), up };
                        open.extend(moved.add(leaf, &nodes, folders_only));
                    }
                    Err(e) if e.kind().is_damage() => {}
                    Err(e) => return Err(e),
                }
            }
        }
        moved.entries.sort_unstable();
        Ok(moved)
    }

    /// Adds a page; gives the folders in it, the first one last.
    fn add(&mut self, leaf: Leaf, nodes: &[Node], folders_only: bool) -> Vec<(Branch, Option<(u32, u32)>)> {
        let number = self.leaves.len() as u32;
        self.entries.extend(nodes.iter().filter_map(|node| entry(node, number, folders_only)));
        self.leaves.push(leaf);
        let below = |(at, node): (usize, &Node)| match node.content {
            Content::Directory(Some(page)) => Some((Branch::top(page), Some((number, at as u32)))),
            _ => None,
        };
        nodes.iter().enumerate().rev().filter_map(below).collect()
    }

    fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.leaves.len() * size_of::<Leaf>()
    }

    /// The nodes of this inode number and tag, each with its leaf; those of the newest parent first.
    fn find(&self, ctx: &Context, trees: &Trees<'_>, inode: u64, tag: u32) -> Result<Vec<(u32, Found)>> {
        let key = [(inode >> 32) as u32, inode as u32, tag];
        let start = self.entries.partition_point(|entry| entry[..3] < key[..]);
        let mut leaves: Vec<u32> = self.entries[start..].iter().take_while(|e| e[..3] == key).map(|e| e[3]).collect();
        leaves.dedup();
        let mut all = Vec::new();
        for leaf in leaves.into_iter().take(CANDIDATES) {
            let time = self.leaves[leaf as usize].time;
            let nodes = self.nodes(ctx, trees, leaf)?;
            let nodes = nodes.iter().filter(|node| node.inode == inode).take(CANDIDATES);
            all.extend(nodes.map(|node| (leaf, Found { node: node.clone(), moved: true, time })));
        }
        Ok(all)
    }

    fn nodes(&self, ctx: &Context, trees: &Trees<'_>, leaf: u32) -> Result<Arc<Vec<Node>>> {
        if let Some(nodes) = self.pages.lock().expect("no holder panics").get(&leaf) {
            return Ok(Arc::clone(nodes));
        }
        let nodes = Arc::new(match trees.page(ctx, &Branch::top(self.leaves[leaf as usize].page)) {
            Ok((_, Page::Leaf(nodes))) => nodes,
            Err(e) if !e.kind().is_damage() => return Err(e),
            _ => Vec::new(),
        });
        self.pages.lock().expect("no holder panics").put(leaf, Arc::clone(&nodes));
        Ok(nodes)
    }

    /// The folder that a leaf is a page of; `None` for the root and where a page above cannot be read.
    fn place(&self, ctx: &Context, trees: &Trees<'_>, leaf: u32) -> Result<Option<Place>> {
        let (mut parts, mut inode, mut next) = (Vec::new(), None, self.leaves[leaf as usize].up);
        while let Some((leaf, at)) = next {
            let nodes = self.nodes(ctx, trees, leaf)?;
            let Some(node) = nodes.get(at as usize) else { return Ok(None) };
            inode.get_or_insert(node.inode);
            parts.push(node.name.clone());
            next = self.leaves[leaf as usize].up;
        }
        let path = parts.iter().rev().flat_map(|name| [b"/".as_slice(), name]).collect::<Vec<_>>().concat();
        Ok(inode.map(|inode| Place { path, inode }))
    }
}
