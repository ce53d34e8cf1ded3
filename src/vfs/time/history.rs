//! What one path was over all snapshots, and what a folder held over all of them. Equal subtrees are the same page by
//! reference, so each page is looked at once however many snapshots have it. Of all this only bounded caches are kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::timeline::Timeline;
use crate::error::Error;
use crate::format::limits::LEVELS;
use crate::format::record::SnapshotId;
use crate::format::reference::Ref;
use crate::format::tree::{Content, Node, PARTIAL, Xattrs};
use crate::repo::{parallel, tree::root};
use crate::vfs::attr::{Attr, Fault, again, passing};
use crate::vfs::inode;
use crate::vfs::pages::Directory;
use crate::vfs::tree::{At, damaged};
use crate::vfs::{Mode, Vfs};

/// Pages that are fetched at the same time: a thousand snapshots over a line of 50 ms take 3 s for one folder.
const THREADS: usize = 16;
/// Pages that are held at once while a folder is read in all snapshots.
const BATCH: usize = 64;

/// A path below the root, as names.
pub type Path = [Box<[u8]>];

/// One state of a path: the same contents, or the same entries and attributes, in one or more snapshots.
pub struct Run {
    /// The node as it was last.
    pub node: Arc<Node>,
    /// The first snapshot that has it, by its place in [`Timeline::snapshots`].
    pub first: u32,
    /// The last one; the fields above and below are from it.
    pub last: u32,
    /// The top page of the directory that holds it, and its position there; none for the root.
    pub place: Option<(Ref, u32)>,
}

/// The states of a path, ascending by the first snapshot.
#[derive(Default)]
pub struct Line {
    /// See above.
    pub runs: Vec<Run>,
    /// Why some are missing.
    pub broken: Option<Error>,
}

impl Line {
    /// Bytes.
    pub fn weight(&self) -> usize {
        let inline = |n: &Node| match &n.xattrs {
            Xattrs::Inline(list) => list.iter().map(|(name, value)| name.len() + value.len() + 48).sum(),
            Xattrs::Stored(_) => 0,
        };
        64 + self.runs.iter().map(|r| size_of::<Run>() + size_of::<Node>() + 400 + inline(&r.node)).sum::<usize>()
    }

    fn add_broken(&mut self, error: &Option<Error>) {
        self.broken = self.broken.take().or(error.as_ref().map(again));
    }
}

/// What is known of a name from all nodes that ever bore it. The order in which they are met does not matter.
#[derive(Default, Clone)]
pub struct Seen {
    /// The last snapshot that has any of them.
    pub newest: Option<u32>,
    /// That of the newest.
    pub mtime: (i64, u32),
    /// That of the newest.
    pub owner: (u32, u32),
    /// What every folder of this name allowed.
    pub mode: Option<u16>,
    /// Not all have the same owner.
    pub several_owners: bool,
    /// That of the newest that is no folder.
    pub file_mode: u16,
}

impl Seen {
    /// A node of that name, and the last snapshot that has it.
    pub fn add(&mut self, node: &Node, last: u32) {
        let owner = (node.attrs.uid, node.attrs.gid);
        self.several_owners |= self.newest.is_some() && self.owner != owner;
        let folder = matches!(node.content, Content::Directory(_));
        if folder {
            self.mode = Some(self.mode.unwrap_or(0o7777) & node.attrs.mode);
        }
        if self.newest.is_none_or(|newest| last >= newest) {
            (self.newest, self.mtime, self.owner) = (Some(last), node.mtime, owner);
            if !folder {
                self.file_mode = node.attrs.mode;
            }
        }
    }

    /// What is known of the name of a line.
    pub fn of(line: &Line) -> Self {
        let mut seen = Seen::default();
        line.runs.iter().for_each(|run| seen.add(&run.node, run.last));
        seen
    }
}

/// A line in the making.
struct Growing<'t> {
    time: &'t Timeline,
    line: Line,
    /// The present state at each host.
    now: HashMap<&'t str, usize>,
}

impl<'t> Growing<'t> {
    fn new(time: &'t Timeline) -> Self {
        Growing { time, line: Line::default(), now: HashMap::new() }
    }

    /// Runs come ascending by the first snapshot. A state that came back after another one is a new one; what two hosts
    /// have at the same time is one.
    fn add(&mut self, run: Run) {
        if !shown(&run.node) {
            return;
        }
        let host = self.time.snapshots[run.first as usize].host.as_str();
        let same = self.now.values().copied().find(|at| same(&self.line.runs[*at].node, &run.node));
        let at = same.unwrap_or(self.line.runs.len());
        match self.line.runs.get_mut(at) {
            None => self.line.runs.push(run),
            Some(old) if run.last > old.last => *old = Run { first: old.first, ..run },
            Some(_) => {}
        }
        self.now.insert(host, at);
    }
}

/// What could not be read and the unfinished beginning of a file are no version of anything.
pub fn shown(node: &Node) -> bool {
    let unfinished = node.flags & PARTIAL != 0 && matches!(node.content, Content::File(_) | Content::Large { .. });
    !unfinished && !matches!(node.content, Content::Unreadable(_))
}

/// The id of a page is a hash of all ids below it, so folders of one id are equal wherever they are stored.
fn same(a: &Node, b: &Node) -> bool {
    let contents = |node: &Node| {
        let mut bytes = Vec::new();
        inode::contents(&mut bytes, &node.content);
        bytes
    };
    match (&a.content, &b.content) {
        (Content::Directory(p), Content::Directory(q)) => p.map(|p| p.id) == q.map(|q| q.id) && a.attrs == b.attrs,
        // A list says where chunks are, so it changes when they are moved.
        (Content::Large { size: p, .. }, Content::Large { size: q, .. }) if p == q && a.mtime == b.mtime => true,
        _ => contents(a) == contents(b),
    }
}

/// A node that [`Vfs::scan`] comes by.
pub struct Met<'a> {
    /// It.
    pub node: &'a Node,
    /// Its inode number, if it can be known without the snapshot.
    pub ino: u64,
    /// The directory in which it was met.
    pub top: &'a Top,
    /// Its position there.
    pub position: u32,
}

/// The top page of a directory, and the last snapshot in which the directory is so.
#[derive(Clone, Copy)]
pub struct Top {
    pub page: Ref,
    pub last: u32,
}

struct Branch {
    page: Ref,
    top: Top,
    before: u64,
    /// First name and entries, as the page above says.
    told: Option<(Vec<u8>, u64)>,
    /// The first name of the page behind it.
    next: Option<Vec<u8>>,
}

impl Vfs {
    /// The states of a path.
    pub(in crate::vfs) fn line(&self, time: &Timeline, path: &Path, mode: Mode) -> Result<Arc<Line>, Fault> {
        let key = (time.generation, inode::path(self.repo.keys(), path));
        if let Some(line) = self.lines.cached(&key) {
            return Ok(line);
        }
        if mode == Mode::Cached {
            return Err(Fault::Wait);
        }
        let line = match path.split_last() {
            None => roots(time),
            Some((name, above)) => {
                let above = self.line(time, above, mode)?;
                self.line_below(time, &above, name)?
            }
        };
        let (weight, line) = (line.weight(), Arc::new(line));
        self.lines.put(key, Arc::clone(&line), weight);
        Ok(line)
    }

    /// The states of `name` in a folder of these states. Asked for only where somebody may wait.
    fn line_below(&self, time: &Timeline, above: &Line, name: &[u8]) -> Result<Line, Fault> {
        let mut wanted: HashSet<Ref> = HashSet::new();
        let pages = above.runs.iter().filter_map(|run| page(&run.node));
        let (mut found, mut rest) = (HashMap::<Ref, Result<Option<At>, Fault>>::new(), Vec::new());
        for page in pages.filter(|page| wanted.insert(*page)) {
            match self.entry(&page, name, Mode::Cached) {
                Err(Fault::Wait) => rest.push(page),
                here => drop(found.insert(page, here)),
            }
        }
        found.extend(parallel(THREADS, rest, |page| (page, self.entry(&page, name, Mode::Fetch))));
        let mut growing = Growing::new(time);
        growing.line.add_broken(&above.broken);
        for run in &above.runs {
            let Some(page) = page(&run.node) else { continue };
            match found.get_mut(&page) {
                Some(Ok(Some(at))) => {
                    let Some((node, _)) = at.node() else { continue };
                    let (node, place) = (Arc::new(node.clone()), Some((page, at.position)));
                    growing.add(Run { node, first: run.first, last: run.last, place });
                }
                Some(Err(fault)) => growing.line.add_broken(&Some(lasting(std::mem::replace(fault, Fault::Wait))?)),
                _ => {}
            }
        }
        Ok(growing.line)
    }

    /// The entry `name` of a directory with this top page.
    pub(in crate::vfs) fn entry(&self, page: &Ref, name: &[u8], mode: Mode) -> Result<Option<At>, Fault> {
        let found = self.find(Some(*page), name, mode)?;
        Ok(found.filter(|at| at.node().is_some_and(|(node, _)| node.name == name)))
    }

    /// Comes by all nodes of these directories; by those of a page that several of them have once, in the one that was
    /// seen last. Gives why some could not be read.
    pub(in crate::vfs) fn scan(&self, tops: &[Top], each: &mut dyn FnMut(Met<'_>)) -> Result<Option<Error>, Fault> {
        let mut broken = None;
        let mut seen: HashMap<Ref, u32> = HashMap::new();
        let branch = |top: &Top| Branch { page: top.page, top: *top, before: 0, told: None, next: None };
        let mut level: Vec<Branch> = tops.iter().map(branch).collect();
        for _ in 0..=LEVELS {
            level.sort_by_key(|branch| std::cmp::Reverse(branch.top.last));
            level.retain(|b| {
                let known = seen.get(&b.page).is_some_and(|last| *last >= b.top.last);
                if !known {
                    seen.insert(b.page, b.top.last);
                }
                !known
            });
            let mut wanted = level.into_iter();
            let mut below = Vec::new();
            loop {
                let batch: Vec<Branch> = wanted.by_ref().take(BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                for (directory, branch) in self.branches(batch) {
                    let directory = directory.and_then(|d| if branch.told(&d) { Ok(d) } else { Err(mismatch()) });
                    match directory {
                        Ok(directory) => branch.open(&directory, &mut below, each),
                        Err(fault) => broken = Some(lasting(fault)?),
                    }
                }
            }
            level = below;
        }
        Ok(if level.is_empty() { broken } else { Some(Error::damaged("a directory has too many levels of pages")) })
    }

    /// The pages of these branches, in their order.
    fn branches(&self, batch: Vec<Branch>) -> Vec<(Result<Arc<Directory>, Fault>, Branch)> {
        let away = |b: &Branch| matches!(self.pages.directory(&b.page, Mode::Cached), Err(Fault::Wait));
        let fetch = |b: Branch| (self.pages.directory(&b.page, Mode::Fetch), b);
        match batch.iter().any(away) {
            true => parallel(THREADS, batch, fetch),
            // No threads for what is in memory.
            false => batch.into_iter().map(fetch).collect(),
        }
    }

    /// What `stat` shows of a node of this snapshot that is no directory.
    pub(in crate::vfs) fn shown_as(&self, snapshot: &SnapshotId, node: &Node, ino: u64) -> Attr {
        let ino = if ino == 0 { inode::linked(self.repo.keys(), snapshot, node) } else { ino };
        Attr::of(node, ino, self.options.owner)
    }
}

impl Branch {
    /// Whether a page holds what is said above it.
    fn told(&self, directory: &Directory) -> bool {
        let (first, last, count) = directory.extent();
        self.told.as_ref().is_none_or(|(name, n)| name == first && *n == count)
            && self.next.as_ref().is_none_or(|next| last < next.as_slice())
    }

    fn open(self, directory: &Directory, below: &mut Vec<Branch>, each: &mut dyn FnMut(Met<'_>)) {
        match directory {
            Directory::Leaf(nodes, inos) => {
                for (i, (node, ino)) in nodes.iter().zip(inos).enumerate() {
                    let Ok(position) = u32::try_from(self.before + i as u64) else { return };
                    each(Met { node, ino: *ino, top: &self.top, position });
                }
            }
            Directory::Upper(rows, ends) => {
                for (i, (first, page)) in rows.iter().enumerate() {
                    let start = if i > 0 { ends[i - 1] } else { 0 };
                    let next = rows.get(i + 1).map(|row| row.0.clone()).or_else(|| self.next.clone());
                    let told = Some((first.clone(), ends[i] - start));
                    below.push(Branch { page: *page, top: self.top, before: self.before + start, told, next });
                }
            }
        }
    }
}

/// The roots of all snapshots.
fn roots(time: &Timeline) -> Line {
    let mut growing = Growing::new(time);
    for (snapshot, at) in time.snapshots.iter().zip(0..) {
        growing.add(Run { node: Arc::new(root(snapshot)), first: at, last: at, place: None });
    }
    growing.line
}

/// The top page of a directory that is not empty.
pub fn page(node: &Node) -> Option<Ref> {
    if let Content::Directory(page) = node.content { page } else { None }
}

fn mismatch() -> Fault {
    damaged("a page does not hold what the one above it says")
}

/// What will still be so at the next attempt and hides a part only. Everything else ends the operation.
fn lasting(fault: Fault) -> Result<Error, Fault> {
    match fault {
        Fault::Broken(e) if !passing(&e) => Ok(e),
        other => Err(other),
    }
}
