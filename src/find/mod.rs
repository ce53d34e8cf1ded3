//! Searches the trees of many snapshots for paths, and groups equal nodes of a path to versions.
//!
//! In: snapshots and tests of paths and nodes. Out: for each path that has a match, its versions, each with the snapshots
//! that have it. All trees are walked as one: a page that several snapshots have at one path is read and decoded once, and
//! the pages of many directories are read at the same time.

mod directory;
mod names;
mod report;
mod set;

use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::record::Snapshot;
use crate::trees::{Answer, Request, Stretches, Trees};
use directory::{Directory, Found, Outcome, Reading, Tops};
use set::Set;

pub use report::{Report, TakeVersions, Version};

/// Bytes of the top pages of the directories that are read together.
const DECODED: u64 = 8 << 20;
/// Pages that are requested together, so that no round trip is spent on a few of them.
const PAGES: usize = 2048;
/// Bytes of matches that are kept until the walk comes to their directories. With more of them, directories are read one by
/// one.
const KEPT: usize = 16 << 20;

/// Searches these snapshots, which are in the order of their times. Paths come in the order of a walk.
///
/// # Errors
///
/// Errors other than damage, and errors of `report`.
pub fn find(ctx: &Context, trees: &Trees<'_>, snapshots: &[Snapshot], report: Report<'_>) -> Result<()> {
    let mut roots = Tops::default();
    for (i, snapshot) in snapshots.iter().enumerate() {
        if let Some(root) = snapshot.root {
            roots.add(root, &Arc::new(Set::one(i, snapshots.len())));
        }
    }
    let top = Directory { path: Vec::new(), depth: 0, tops: roots };
    let mut search = Search { ctx, trees, report, open: vec![Step::Read(top)], kept: 0 };
    while let Some(step) = search.open.pop() {
        match step {
            Step::Report(outcome) => search.report(outcome)?,
            Step::Read(directory) => {
                search.open.push(Step::Read(directory));
                search.read()?;
            }
        }
    }
    Ok(())
}

/// A step of the walk.
enum Step {
    /// The pages of a directory are to be read. One step reads the pages of later directories too.
    Read(Directory),
    /// The matches in a directory are to be reported.
    Report(Outcome),
}

/// The directory, by its number in the batch, and the snapshots that a page belongs to.
struct Owner {
    reading: usize,
    snapshots: Set,
}

struct Search<'s, 'r> {
    ctx: &'s Context<'s>,
    trees: &'s Trees<'s>,
    report: Report<'r>,
    /// The steps that are left, the next one last.
    open: Vec<Step>,
    /// Bytes of the matches that are not reported yet.
    kept: usize,
}

impl Search<'_, '_> {
    /// Reads the next directories. Each is replaced by its matches, followed by the directories below it.
    fn read(&mut self) -> Result<()> {
        let start = self.batch();
        let steps = self.open.split_off(start);
        let mut readings: Vec<Reading> = steps.iter().filter_map(Step::reading).collect();
        self.pages(&mut readings)?;
        let mut readings = readings.into_iter();
        for step in steps {
            match step {
                Step::Read(directory) => {
                    let Some(reading) = readings.next() else { continue };
                    let (outcome, below) = reading.end(&directory);
                    if directory.depth >= limits::DEPTH && !below.is_empty() {
                        return Err(Error::damaged("the directories are nested too deeply"));
                    }
                    self.kept += outcome.weight;
                    self.open.extend(below.into_iter().rev().map(Step::Read));
                    self.open.push(Step::Report(outcome));
                }
                report @ Step::Report(_) => self.open.push(report),
            }
        }
        Ok(())
    }

    /// Returns the place in `open` from which on the directories are read now.
    fn batch(&self) -> usize {
        let (mut pages, mut bytes) = (0, 0);
        for (i, step) in self.open.iter().enumerate().rev() {
            let Step::Read(directory) = step else { continue };
            pages += directory.tops.len();
            bytes += directory.tops.bytes();
            if pages >= PAGES || bytes >= DECODED || self.kept >= KEPT {
                return i;
            }
        }
        0
    }

    /// Reads all pages of these directories.
    fn pages(&mut self, readings: &mut [Reading]) -> Result<()> {
        loop {
            let mut wanted = Vec::new();
            for (reading, pages) in readings.iter_mut().map(Reading::take).enumerate() {
                let owner = |snapshots| Owner { reading, snapshots };
                wanted.extend(pages.map(|page| Request { owner: owner(page.snapshots), branch: page.branch }));
            }
            if wanted.is_empty() {
                return Ok(());
            }
            let stretches = Stretches::of(wanted.iter().map(|request| &request.branch.page));
            let report = &self.report;
            stretches.read(self.ctx, self.trees, wanted, |Answer { request, page }| {
                let Owner { reading, snapshots } = request.owner;
                readings[reading].add(report, &request.branch, snapshots, page)
            })?;
        }
    }

    fn report(&mut self, outcome: Outcome) -> Result<()> {
        self.kept -= outcome.weight;
        outcome.unreadable.iter().for_each(|e| (self.report.unreadable)(&outcome.path, e));
        outcome.found.into_iter().try_for_each(|Found { path, versions }| (self.report.found)(&path, versions))
    }
}

impl Step {
    fn reading(&self) -> Option<Reading> {
        match self {
            Step::Read(directory) => Some(Reading::new(directory)),
            Step::Report(_) => None,
        }
    }
}
