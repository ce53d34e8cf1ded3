//! Reads the pages of many directories before a walk comes to them, many at a time. A walk alone would wait for one round
//! trip after another. A page that the walk then asks for is in the cache of blocks.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::stretches::{Answer, Request, Stretches};
use super::{Branch, Trees};
use crate::context::Context;
use crate::crypto::keys::ChunkId;
use crate::error::Result;
use crate::format::node::Content;
use crate::format::page::Page;
use crate::format::reference::Ref;

/// Directories that are read in step.
const DIRECTORIES: usize = 64;
/// Blocks of 64 KiB that are read ahead: a third of the cache, so that they are used before they are evicted.
const MOST: usize = 512;
/// Directories of which is remembered that they were read. A walk that visits none of them makes the memory useless.
const KNOWN: usize = 64 << 10;

/// A directory at one path: its top pages in one or more trees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tops {
    /// Each side has the top pages of one or more trees. Pages that two sides have in common are not read.
    sides: Vec<Vec<Ref>>,
}

impl Tops {
    /// Announces that all pages of these trees will be read.
    pub fn all(mut tops: Vec<Ref>) -> Self {
        // In one order, so that the directories of a walk are recognised.
        tops.sort_unstable_by_key(|top| top.id);
        Tops { sides: vec![tops] }
    }

    /// Announces that the pages in which the two trees differ will be read.
    pub fn pair(old: Option<Ref>, new: Option<Ref>) -> Self {
        Tops { sides: [old, new].map(|top| top.into_iter().collect()).into() }
    }

    fn key(&self) -> Vec<Vec<ChunkId>> {
        self.sides.iter().map(|side| side.iter().map(|top| top.id).collect()).collect()
    }
}

/// The directories of one side below a directory: their top pages, by name.
type Subdirectories = BTreeMap<Vec<u8>, Vec<Ref>>;

/// A directory whose pages are being read.
struct Job {
    open: Vec<Vec<Branch>>,
    below: Vec<Subdirectories>,
}

/// The directory, by its number in the batch, and the side that a page belongs to.
struct Owner {
    job: usize,
    side: usize,
}

/// Reads ahead of one walk.
pub struct Ahead<'t> {
    ctx: &'t Context<'t>,
    trees: &'t Trees<'t>,
    /// Directories that the walk will visit, the next one last.
    open: Vec<Tops>,
    /// Directories that were read and not visited yet.
    known: HashSet<Vec<Vec<ChunkId>>>,
}

impl<'t> Ahead<'t> {
    /// Makes a reader that knows no directory yet.
    pub fn new(ctx: &'t Context<'t>, trees: &'t Trees<'t>) -> Self {
        Ahead { ctx, trees, open: Vec::new(), known: HashSet::new() }
    }

    /// Adds directories that the walk will visit next, in their order.
    pub fn add(&mut self, tops: Vec<Tops>) {
        self.open.extend(tops.into_iter().rev());
    }

    /// Prepares a visit of this directory. If its pages were not read yet, they are read now, with pages of the directories
    /// that will be visited after it.
    ///
    /// # Errors
    ///
    /// Errors that are no damage. Damage is reported to the walk when it reads the page.
    pub fn visit(&mut self, tops: &Tops) -> Result<()> {
        if self.known.remove(&tops.key()) {
            return Ok(());
        }
        if let Some(i) = self.open.iter().rposition(|open| open == tops) {
            self.open.remove(i);
        }
        self.open.push(tops.clone());
        let mut blocks = 0;
        while blocks < MOST && !self.open.is_empty() {
            let batch = self.open.split_off(self.open.len().saturating_sub(DIRECTORIES));
            blocks += self.read(batch, MOST - blocks)?;
        }
        self.known.remove(&tops.key());
        Ok(())
    }

    /// Reads all wanted pages of these directories and adds the directories below them. Returns the number of blocks.
    fn read(&mut self, batch: Vec<Tops>, most: usize) -> Result<usize> {
        if self.known.len() > KNOWN {
            self.known.clear();
        }
        self.known.extend(batch.iter().map(Tops::key));
        // The next directory is the last one of the batch.
        let mut jobs: Vec<Job> = batch.iter().map(Job::new).collect();
        let mut blocks = 0;
        while blocks < most {
            let wanted: Vec<Request<Owner>> = jobs.iter_mut().enumerate().flat_map(Job::take).collect();
            if wanted.is_empty() {
                break;
            }
            let stretches = Stretches::of(wanted.iter().map(|request| &request.branch.page));
            blocks += stretches.blocks();
            stretches.read(self.ctx, self.trees, wanted, |Answer { request, page }| {
                match page {
                    Ok(page) => jobs[request.owner.job].add(request.owner.side, &request.branch, page),
                    Err(e) if e.kind().is_damage() => {}
                    Err(e) => return Err(e),
                }
                Ok(())
            })?;
        }
        self.open.extend(jobs.into_iter().flat_map(|job| job.below().into_iter().rev()));
        Ok(blocks)
    }
}

impl Job {
    fn new(tops: &Tops) -> Self {
        let open = tops.sides.iter().map(|side| side.iter().copied().map(Branch::top).collect()).collect();
        Job { open, below: tops.sides.iter().map(|_| Subdirectories::new()).collect() }
    }

    /// Takes the pages that are to be read next.
    fn take((number, job): (usize, &mut Job)) -> Vec<Request<Owner>> {
        let mut sides: HashMap<ChunkId, HashSet<usize>> = HashMap::new();
        for (i, side) in job.open.iter().enumerate() {
            side.iter().for_each(|branch| {
                sides.entry(branch.page.id).or_default().insert(i);
            });
        }
        let mut wanted = Vec::new();
        for (i, side) in job.open.iter_mut().enumerate() {
            for branch in std::mem::take(side) {
                if sides.get(&branch.page.id).is_some_and(|sides| sides.len() == 1) {
                    sides.remove(&branch.page.id);
                    wanted.push(Request { owner: Owner { job: number, side: i }, branch });
                }
            }
        }
        wanted
    }

    fn add(&mut self, side: usize, branch: &Branch, page: Page) {
        match page {
            Page::Upper(rows) => self.open[side].extend(branch.children(&rows)),
            Page::Leaf(nodes) => {
                for node in nodes {
                    let Content::Directory(top) = node.content else { continue };
                    let tops = self.below[side].entry(node.name).or_default();
                    tops.extend(top.filter(|top| tops.iter().all(|known| known.id != top.id)));
                }
            }
        }
    }

    /// Returns the directories below that the walk will visit: with one side all of them, with two those that differ.
    fn below(self) -> Vec<Tops> {
        let mut sides = self.below.into_iter();
        match (sides.next(), sides.next()) {
            (Some(all), None) => all.into_values().filter(|tops| !tops.is_empty()).map(Tops::all).collect(),
            (Some(old), Some(mut new)) => {
                let pairs = old.into_iter().filter_map(|(name, old)| {
                    let new = new.remove(&name)?;
                    let id = |tops: &[Ref]| tops.first().map(|top| top.id);
                    (id(&old) != id(&new)).then(|| Tops { sides: vec![old, new] })
                });
                pairs.collect()
            }
            _ => Vec::new(),
        }
    }
}
