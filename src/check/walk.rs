//! Reads every page of all trees once, by several threads, and notes which packs they name. Pages are known by their
//! reference and by what the page above says about them, so what many snapshots share is read once, and a page that is
//! right in one place is not taken for right in another.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use super::packs::Packs;
use super::seen::Seen;
use super::{Meter, Report};
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::ObjectType;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::list::List;
use crate::format::node::{self, Content, Node, Xattrs};
use crate::format::page::{Page, Row};
use crate::format::record::Snapshot;
use crate::format::reference::{Extent, PackRef, Ref};
use crate::repo::tree::{LOST, lacks_parts};
use crate::repo::{Repository, Span};

/// Threads: most of them wait for the server.
const THREADS: usize = 12;
/// Metadata is read in stretches of 4 MiB: all of it will be wanted.
const STRETCH: Span = Span::Blocks(64);

/// What the page above says about a page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Said {
    /// Its first name, and how many entries are below it.
    pub row: Option<(Vec<u8>, u64)>,
    /// The first name of the page behind it.
    pub before: Option<Vec<u8>>,
    /// Pages above it in this directory.
    pub levels: u8,
}

impl Said {
    /// What an upper page says about those below it.
    pub fn below(&self, rows: &[Row]) -> Vec<Said> {
        let before = |i: usize| rows.get(i + 1).map(|next| next.first.clone()).or_else(|| self.before.clone());
        let said = |(i, row): (usize, &Row)| Said {
            row: Some((row.first.clone(), row.count)),
            before: before(i),
            levels: self.levels + 1,
        };
        rows.iter().enumerate().map(said).collect()
    }

    /// Whether the page is as it was said to be.
    pub fn check(&self, page: &Page) -> Result<()> {
        let (first, last, count) = match page {
            Page::Leaf(nodes) => (&nodes[0].name, &nodes[nodes.len() - 1].name, nodes.len() as u64),
            Page::Upper(rows) => {
                let count = rows.iter().fold(0, |sum: u64, row| sum.saturating_add(row.count));
                (&rows[0].first, &rows[rows.len() - 1].first, count)
            }
        };
        let fits = self.row.as_ref().is_none_or(|(name, rows)| (name, *rows) == (first, count))
            && self.before.as_ref().is_none_or(|before| last < before)
            && (matches!(page, Page::Leaf(_)) || usize::from(self.levels) < limits::LEVELS);
        fits.then_some(())
            .ok_or_else(|| Error::damaged("a page of a directory is not the one that the page above names"))
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Task {
    Page(Ref, Said, usize),
    List(Ref, u64, usize),
    Xattrs(Ref),
}

#[derive(Default)]
struct Queue {
    open: Vec<Task>,
    busy: usize,
    failed: Option<Error>,
}

pub(super) struct Walk<'a> {
    repo: &'a Repository,
    packs: &'a Packs,
    meter: Meter<'a>,
    seen: Mutex<Seen>,
    queue: Mutex<Queue>,
    more: Condvar,
    suspect: AtomicBool,
    files: AtomicU64,
    directories: AtomicU64,
    others: AtomicU64,
    pages: AtomicU64,
    references: AtomicU64,
    known: AtomicU64,
}

/// What a page leads to.
#[derive(Default)]
struct Below {
    tasks: Vec<Task>,
    packs: HashSet<(ObjectType, PackRef)>,
    references: u64,
}

impl Below {
    fn refer(&mut self, kind: ObjectType, r: &Ref) {
        self.packs.insert((kind, r.pack));
        self.references += 1;
    }

    fn meta(&mut self, r: &Ref, task: Task) {
        self.refer(ObjectType::Meta, r);
        self.tasks.push(task);
    }

    fn extents(&mut self, extents: &[Extent]) {
        for extent in extents {
            if let Extent::Data(r) = extent {
                self.refer(ObjectType::Data, r);
            }
        }
    }
}

impl<'a> Walk<'a> {
    pub fn new(repo: &'a Repository, packs: &'a Packs, meter: Meter<'a>, memory: u64) -> Self {
        let (queue, more, suspect) = Default::default();
        let (files, directories, others, pages, references, known) = Default::default();
        let seen = Mutex::new(Seen::new(memory));
        Walk { repo, packs, meter, seen, queue, more, suspect, files, directories, others, pages, references, known }
    }

    /// Walks the trees of these snapshots.
    pub fn run(&self, snapshots: &[Snapshot]) -> Result<()> {
        let mut below = Below::default();
        for root in snapshots.iter().filter_map(|s| s.root) {
            below.meta(&root, Task::Page(root, Said::default(), 0));
        }
        below.references = 0; // those of pages are counted
        self.enter(below);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| self.work());
            }
        });
        self.queue.lock().expect("no holder panics").failed.take().map_or(Ok(()), Err)
    }

    /// Enters what was found; gives whether something that was named could not be read.
    pub fn figures(&self, report: &mut Report) -> bool {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (report.files, report.directories, report.others) =
            (get(&self.files), get(&self.directories), get(&self.others));
        (report.pages, report.references, report.known) = (get(&self.pages), get(&self.references), get(&self.known));
        self.suspect.load(Ordering::Relaxed)
    }

    fn work(&self) {
        while let Some(task) = self.next() {
            let result = self.meter.ctx.check().and_then(|()| self.task(&task));
            match result {
                Ok(()) => {}
                Err(e) if e.kind().is_damage() => self.suspect.store(true, Ordering::Relaxed),
                Err(e) => drop(self.queue.lock().expect("no holder panics").failed.get_or_insert(e)),
            }
            self.queue.lock().expect("no holder panics").busy -= 1;
            self.more.notify_all();
        }
    }

    /// The next task; `None` when all is done, or nothing more is to be done.
    fn next(&self) -> Option<Task> {
        let mut queue = self.queue.lock().expect("no holder panics");
        loop {
            if queue.failed.is_some() {
                return None;
            }
            if let Some(task) = queue.open.pop() {
                queue.busy += 1;
                return Some(task);
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self.more.wait(queue).expect("no holder panics");
        }
    }

    fn enter(&self, below: Below) {
        below.packs.iter().for_each(|(kind, pack)| self.packs.note(*kind, pack, true));
        self.references.fetch_add(below.references, Ordering::Relaxed);
        let mut seen = self.seen.lock().expect("no holder panics");
        let mut new: Vec<Task> = below.tasks.into_iter().filter(|task| seen.insert(task)).collect();
        drop(seen);
        if !new.is_empty() {
            // The first one is taken first: neighbours in a pack are read one after the other.
            new.reverse();
            self.queue.lock().expect("no holder panics").open.append(&mut new);
            self.more.notify_all();
        }
    }

    fn task(&self, task: &Task) -> Result<()> {
        let mut below = Below::default();
        let read = match task {
            Task::Page(r, said, depth) => {
                let plain = self.repo.chunk(self.meter.ctx, ChunkKind::Page, r, STRETCH)?;
                let page = Page::decode(&plain, &r.pack)?;
                said.check(&page)?;
                self.page(&page, said, *depth, &mut below)?;
                r
            }
            Task::List(r, span, levels) => {
                let list = List::decode(&self.repo.chunk(self.meter.ctx, ChunkKind::List, r, STRETCH)?, &r.pack)?;
                check_list(&list, *span, *levels)?;
                match &list {
                    List::Leaf(extents) => below.extents(extents),
                    List::Upper(rows) => {
                        rows.iter().for_each(|(span, r)| below.meta(r, Task::List(*r, *span, levels + 1)));
                    }
                }
                r
            }
            Task::Xattrs(r) => {
                node::decode_xattrs(&self.repo.chunk(self.meter.ctx, ChunkKind::Xattrs, r, STRETCH)?)?;
                r
            }
        };
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.meter.done(0, read.stored.into());
        self.enter(below);
        Ok(())
    }

    fn page(&self, page: &Page, said: &Said, depth: usize, below: &mut Below) -> Result<()> {
        match page {
            Page::Upper(rows) => {
                for (row, said) in rows.iter().zip(said.below(rows)) {
                    below.meta(&row.page, Task::Page(row.page, said, depth));
                }
            }
            Page::Leaf(nodes) => {
                let mut files = 0;
                for node in nodes {
                    files += u64::from(self.node(node, depth, below)?);
                }
                self.meter.done(files, 0);
            }
        }
        Ok(())
    }

    /// Gives whether it is a file.
    fn node(&self, node: &Node, depth: usize, below: &mut Below) -> Result<bool> {
        if let Xattrs::Stored(r) = &node.xattrs {
            below.meta(r, Task::Xattrs(*r));
        }
        if node.content == Content::Unreadable(LOST) || lacks_parts(node) {
            self.known.fetch_add(1, Ordering::Relaxed);
        }
        let counter = match &node.content {
            Content::File(extents) => {
                below.extents(extents);
                &self.files
            }
            Content::Large { size, list } => {
                below.meta(list, Task::List(*list, *size, 0));
                &self.files
            }
            Content::Directory(page) => {
                if depth >= limits::DEPTH {
                    return Err(Error::damaged("the directories are nested too deeply"));
                }
                if let Some(page) = page {
                    below.meta(page, Task::Page(*page, Said::default(), depth + 1));
                }
                &self.directories
            }
            _ => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(matches!(node.content, Content::File(_) | Content::Large { .. }))
    }
}

/// Whether a page of a reference list covers what it is said to cover.
pub(super) fn check_list(list: &List, span: u64, levels: usize) -> Result<()> {
    let fits = list.span() == span && (matches!(list, List::Leaf(_)) || levels < limits::LEVELS);
    fits.then_some(()).ok_or_else(|| Error::damaged("a reference list does not cover what it is said to cover"))
}
