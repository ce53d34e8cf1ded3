//! Reads every page of many trees once, by several threads, and reports the references in them. Pages are known by their
//! reference and by the row of the page above, so a page that many snapshots share is read once, and a page that is valid in
//! one place is not taken for valid in another.

use std::sync::{Condvar, Mutex, MutexGuard};

use super::Trees;
use super::branch::{Branch, ListBranch};
use super::chunk_lookup::Lookup;
use super::visited::Visited;
use crate::allowance::Allowance;
use crate::context::{Context, Group};
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::list::List;
use crate::format::node::{self, Content, Node, Xattrs};
use crate::format::page::Page;
use crate::format::reference::{Extent, Ref};
use crate::repo::{Repository, Span};

/// Threads: most of them wait for the server, since old trees lie in many small packs.
const THREADS: usize = 48;
/// Metadata is read in stretches of 4 MiB: all of it will be wanted.
const STRETCH: Span = Span::Blocks(64);
/// Bytes of a stretch.
const STRETCH_BYTES: u64 = 4 << 20;
/// Bytes that the threads read at the same time.
const IN_FLIGHT: u64 = 12 * STRETCH_BYTES;

/// Receives the reports of a walk over all pages. Every call may come from several threads at once.
pub trait Visit: Sync {
    /// Takes the references in one page, with the kinds of their chunks.
    fn references(&self, references: &[(ChunkKind, Ref)]);

    /// Takes the nodes of one page, which has `bytes` stored bytes. Pages without nodes are reported too.
    fn read(&self, bytes: u64, nodes: &[Node]);

    /// Takes an error of the page at this place, which is damage; its entries are left out.
    fn unreadable(&self, page: &Ref, why: &Error);

    /// Takes the number of the wave of roots that begins.
    fn wave(&self, _: usize) {}
}

/// Reads all pages of the trees with these roots. With a `lookup`, a page that is not at its place is read from another
/// one. About `memory` bytes hold the visited pages.
///
/// # Errors
///
/// Errors other than damage.
pub fn walk(
    ctx: &Context,
    repo: &Repository,
    lookup: Option<&Lookup>,
    roots: &[Ref],
    memory: u64,
    visit: &dyn Visit,
) -> Result<()> {
    walk_in_waves(ctx, repo, lookup, &[roots], memory, visit)
}

/// Reads all pages like [`walk`], one root after the other. Each root begins a wave.
///
/// # Errors
///
/// Errors that are no damage.
pub fn walk_one_by_one(ctx: &Context, trees: &Trees<'_>, roots: &[Ref], memory: u64, visit: &dyn Visit) -> Result<()> {
    let waves: Vec<&[Ref]> = roots.chunks(1).collect();
    walk_in_waves(ctx, trees.repo(), Some(trees.lookup()), &waves, memory, visit)
}

/// Reads all pages like [`walk`]: first the pages of the first wave of roots, then pages that only later waves reach.
pub(super) fn walk_in_waves(
    ctx: &Context,
    repo: &Repository,
    lookup: Option<&Lookup>,
    waves: &[&[Ref]],
    memory: u64,
    visit: &dyn Visit,
) -> Result<()> {
    let group = Group::new(ctx);
    let (queue, changed) = Default::default();
    let visited = Mutex::new(Visited::new(memory));
    let allowance = Allowance::new(IN_FLIGHT);
    let walk = Walk { ctx: group.context(), repo, lookup, visit, visited, queue, changed, allowance };
    for (number, roots) in waves.iter().enumerate() {
        visit.wave(number);
        walk.enter(roots.iter().map(|root| Task::Page(Branch::top(*root), 0)).collect());
        walk.run(&group);
    }
    group.result()
}

#[derive(PartialEq, Eq, Hash)]
enum Task {
    /// A page of a directory this deep below the root.
    Page(Branch, usize),
    List(ListBranch),
    Xattrs(Ref),
}

impl Task {
    fn place(&self) -> &Ref {
        match self {
            Task::Page(branch, _) => &branch.page,
            Task::List(branch) => &branch.list,
            Task::Xattrs(r) => r,
        }
    }
}

#[derive(Default)]
struct Queue {
    open: Vec<Task>,
    busy: usize,
}

struct Walk<'w> {
    ctx: &'w Context<'w>,
    repo: &'w Repository,
    lookup: Option<&'w Lookup>,
    visit: &'w dyn Visit,
    visited: Mutex<Visited>,
    queue: Mutex<Queue>,
    changed: Condvar,
    allowance: Allowance,
}

/// The pages and references in one page.
#[derive(Default)]
struct Children {
    tasks: Vec<Task>,
    references: Vec<(ChunkKind, Ref)>,
}

impl Children {
    fn extents(&mut self, extents: &[Extent]) {
        for extent in extents {
            if let Extent::Data(r) = extent {
                self.references.push((ChunkKind::Data, *r));
            }
        }
    }

    fn task(&mut self, task: Task) {
        self.references.push(match &task {
            Task::Page(branch, _) => (ChunkKind::Page, branch.page),
            Task::List(branch) => (ChunkKind::List, branch.list),
            Task::Xattrs(r) => (ChunkKind::Xattrs, *r),
        });
        self.tasks.push(task);
    }

    fn node(&mut self, node: &Node, depth: usize) -> Result<()> {
        if let Xattrs::Stored(r) = &node.xattrs {
            self.task(Task::Xattrs(*r));
        }
        match &node.content {
            Content::File(extents) => self.extents(extents),
            Content::Large { size, list } => self.task(Task::List(ListBranch::top(*list, *size))),
            Content::Directory(_) if depth >= limits::DEPTH => {
                return Err(Error::damaged("the directories are nested too deeply"));
            }
            Content::Directory(Some(page)) => self.task(Task::Page(Branch::top(*page), depth + 1)),
            _ => {}
        }
        Ok(())
    }
}

impl Walk<'_> {
    fn run(&self, group: &Group<'_>) {
        #[cfg(test)]
        if crate::repo::deterministic::is_on() {
            group.run(|| self.work());
            return;
        }
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| group.run(|| self.work()));
            }
        });
    }

    fn work(&self) -> Result<()> {
        while let Some(task) = self.next()? {
            let _busy = Busy(self);
            match self.task(&task) {
                Err(e) if e.kind().is_damage() => self.visit.unreadable(task.place(), &e),
                other => other?,
            }
        }
        Ok(())
    }

    /// Returns the next task; `None` when all is done.
    fn next(&self) -> Result<Option<Task>> {
        let mut queue = self.lock();
        loop {
            self.ctx.check()?;
            if let Some(task) = queue.open.pop() {
                queue.busy += 1;
                return Ok(Some(task));
            }
            if queue.busy == 0 {
                return Ok(None);
            }
            queue = self.ctx.wait(&self.changed, queue)?;
        }
    }

    /// Adds the tasks that are new.
    fn enter(&self, tasks: Vec<Task>) {
        let mut visited = self.visited.lock().expect("no holder panics");
        let mut new: Vec<Task> = tasks.into_iter().filter(|task| visited.insert(task)).collect();
        drop(visited);
        if !new.is_empty() {
            // The first one is taken first: neighbours in a pack are read one after the other.
            new.reverse();
            self.lock().open.append(&mut new);
            self.changed.notify_all();
        }
    }

    fn task(&self, task: &Task) -> Result<()> {
        match task {
            Task::Page(branch, depth) => self.page(branch, *depth),
            Task::List(branch) => self.list(branch),
            Task::Xattrs(r) => {
                self.chunk(ChunkKind::Xattrs, r, |_, plain| node::decode_xattrs(plain))?;
                self.done(r, &[], Children::default());
                Ok(())
            }
        }
    }

    fn page(&self, branch: &Branch, depth: usize) -> Result<()> {
        let page = self.chunk(ChunkKind::Page, &branch.page, |r, plain| Page::decode(plain, &r.pack))?;
        branch.check(&page)?;
        let mut below = Children::default();
        match &page {
            Page::Upper(rows) => {
                branch.children(rows).for_each(|child| below.task(Task::Page(child, depth)));
                self.done(&branch.page, &[], below);
            }
            Page::Leaf(nodes) => {
                nodes.iter().try_for_each(|node| below.node(node, depth))?;
                self.done(&branch.page, nodes, below);
            }
        }
        Ok(())
    }

    fn list(&self, branch: &ListBranch) -> Result<()> {
        let list = self.chunk(ChunkKind::List, &branch.list, |r, plain| List::decode(plain, &r.pack))?;
        branch.check(&list)?;
        let mut below = Children::default();
        match &list {
            List::Leaf(extents) => below.extents(extents),
            List::Upper(rows) => rows.iter().for_each(|row| below.task(Task::List(branch.child(row)))),
        }
        self.done(&branch.list, &[], below);
        Ok(())
    }

    fn chunk<T>(&self, kind: ChunkKind, r: &Ref, decode: impl Fn(&Ref, &[u8]) -> Result<T>) -> Result<T> {
        let read = |r: &Ref| {
            let _share = self.allowance.take(self.ctx, STRETCH_BYTES.min(r.pack.len.into()))?;
            decode(r, &self.repo.chunk(self.ctx, kind, r, STRETCH)?)
        };
        match self.lookup {
            Some(lookup) => lookup.read(self.ctx, self.repo, kind, r, read),
            None => read(r),
        }
    }

    fn done(&self, r: &Ref, nodes: &[Node], below: Children) {
        self.visit.references(&below.references);
        self.visit.read(r.stored.into(), nodes);
        self.enter(below.tasks);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder panics")
    }
}

/// A task at hand. The walk is over when there is none and no task is open.
struct Busy<'w>(&'w Walk<'w>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.changed.notify_all();
    }
}
