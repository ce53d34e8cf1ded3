//! Checks whether everything that the snapshots need is present and valid, and finds the files that lost data.
//!
//! ```text
//! log ----> records that are missing or incomplete
//!  |------> tables of packs, index sections ---.
//!  '------> trees: every page once (census) ---+--> packs that are needed <-- listing of packs (names, sizes)
//!                                              |--> blocks of packs (data, audit), where that is wanted
//!                                              '--> damage? affected trees once more, for their paths (survey)
//! ```
//!
//! The check uses verified bytes, and names and sizes of packs in listings. A false listing can make a pack look missing; it
//! cannot make a damaged pack pass, since reading verifies it. Memory: pages that were visited (bounded, [`crate::trees::Visited`]),
//! about 100 bytes for each pack that a record or tree names, and the cache.

mod audit;
mod census;
mod data;
mod packs;
mod repair;
mod survey;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::record::Snapshot;
use crate::name::{Name, ObjectId};
use crate::progress::Event;
use crate::repo::{Deleted, Repository, SectionKey, State};
use crate::trees::{Lookup, Trees, deep};

pub use audit::{Audit, intact};
pub use data::Part;
pub use repair::{Consent, Repaired, repair};

use census::Census;
use packs::Packs;
use survey::Survey;

/// Options of a check.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these snapshots, and no index; all of them and the whole log if empty.
    pub snapshots: Vec<Snapshot>,
    /// Which packs are read and verified byte by byte.
    pub read: Option<Part>,
    /// Random blocks with this many bytes together are verified.
    pub audit: Option<u64>,
    /// Most bytes of memory, beside the block cache's and 100 bytes a pack.
    pub memory: u64,
}

impl Default for Options {
    /// Returns the options for a check of the structure of everything.
    fn default() -> Self {
        Options { snapshots: Vec::new(), read: None, audit: None, memory: 256 << 20 }
    }
}

/// Something that is wrong.
#[derive(Debug)]
pub enum Finding<'a> {
    /// An object, by its path in the repository.
    Object {
        /// `packs/3/3f..`, `log/..`.
        name: String,
        /// The fault.
        why: String,
    },
    /// A path that lost data.
    Path {
        /// Of this snapshot.
        snapshot: &'a Snapshot,
        /// Absolute.
        path: &'a [u8],
        /// The part that is lost.
        what: Lost,
        /// Why.
        why: &'a str,
    },
}

/// The part of an entry that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The whole snapshot.
    Snapshot,
    /// All entries of a directory.
    Directory,
    /// Some entries of a directory, counted by the page above.
    Entries(u64),
    /// Contents of a file.
    Contents,
    /// Extended attributes.
    Attributes,
}

/// The result of a check.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Snapshots that were walked.
    pub snapshots: u64,
    /// Files in distinct pages of directories.
    pub files: u64,
    /// Directories in these pages.
    pub directories: u64,
    /// Other entries of these pages.
    pub others: u64,
    /// Distinct pages of directories and reference lists, and stored attributes.
    pub pages: u64,
    /// References to chunks in them.
    pub references: u64,
    /// Entries of the index.
    pub entries: u64,
    /// Packs that trees or the index name and that are not condemned, and the bytes of their files.
    pub packs: (u64, u64),
    /// Packs that no record names: of pushes that are running or were interrupted, or that prune will remove.
    pub unused: (u64, u64),
    /// Unused packs with a size that no complete pack has.
    pub torsos: u64,
    /// Packs that were read to their end, and the bytes of their files.
    pub read: (u64, u64),
    /// Of the audit.
    pub audit: Option<Audit>,
    /// Records that the server has lost or hides.
    pub missing_records: Vec<ObjectId>,
    /// Objects that were deleted although they are needed, and of which the server keeps a version.
    pub deleted: Vec<Name>,
    /// Objects that were overwritten, and of which the server keeps the right version.
    pub overwritten: Vec<Name>,
    /// Records that claim to contain others and do not.
    pub false_records: Vec<ObjectId>,
    /// Records that were complete once and cannot be read.
    pub damaged_records: Vec<ObjectId>,
    /// Records that an interrupted commit left.
    pub torn_records: u64,
    /// Records of which an index or a table of packs cannot be used.
    pub damaged_indexes: Vec<ObjectId>,
    /// Packs that are missing, cut off or damaged.
    pub damaged_packs: u64,
    /// Snapshots of which something is lost.
    pub hit: u64,
    /// Paths in all snapshots at which something is lost.
    pub paths: u64,
    /// Entries that `repair` has marked: something of them is lost, or was when it did.
    pub known: u64,
    /// Its duration.
    pub duration: Duration,
}

impl Report {
    /// Returns whether anything is damaged that was not known to be.
    pub fn is_damaged(&self) -> bool {
        !(self.damaged_records.is_empty() && self.damaged_indexes.is_empty())
            || self.damaged_packs + self.paths + self.hit > 0
            || self.audit.as_ref().is_some_and(|audit| audit.bad > 0)
    }

    /// Returns whether the log shows less than it must.
    pub fn is_rolled_back(&self) -> bool {
        let mut hidden = self.deleted.iter().chain(&self.overwritten);
        let hides_records = hidden.any(|name| matches!(name, Name::Record { .. }));
        !self.missing_records.is_empty() || !self.false_records.is_empty() || hides_records
    }
}

/// Checks a repository as of `state`. Findings go to `found` as they turn up.
///
/// # Errors
///
/// A lost connection, the user's stop. Damage is a finding and no error.
pub fn check(
    ctx: &Context,
    repo: &Repository,
    state: &State,
    options: &Options,
    found: &mut (dyn FnMut(Finding<'_>) + Send),
) -> Result<Report> {
    let started = Instant::now();
    let mut state = state.clone();
    repo.verify_superseding(ctx, &mut state).map_err(interrupted)?;
    let mut examined = examine(ctx, repo, &state, options, found).map_err(interrupted)?;
    if examined.suspect {
        let tally = deep(|| {
            let mut survey = Survey::new(ctx, repo, &examined, found, None);
            examined.snapshots.iter().try_for_each(|snapshot| survey.snapshot(snapshot))?;
            Ok(survey.tally)
        })
        .map_err(interrupted)?;
        (examined.report.hit, examined.report.paths) = (tally.hit, tally.paths);
    }
    examined.report.duration = started.elapsed();
    Ok(examined.report)
}

/// The findings before paths are looked for.
struct Examined<'r> {
    snapshots: Vec<Snapshot>,
    packs: Packs,
    trees: Trees<'r>,
    memory: u64,
    /// Something that a tree names may be lost.
    suspect: bool,
    deleted: Deleted,
    indexes: Badly,
    report: Report,
}

/// The faults of the index.
#[derive(Default)]
struct Badly {
    /// Sections that cannot be used.
    sections: BTreeSet<SectionKey>,
    /// Packs in tables that can be read.
    listed: HashSet<ObjectId>,
}

fn examine<'r>(
    ctx: &Context,
    repo: &'r Repository,
    state: &State,
    options: &Options,
    found: &mut (dyn FnMut(Finding<'_>) + Send),
) -> Result<Examined<'r>> {
    let sums = Default::default();
    let meter = Meter { ctx, sums: &sums };
    let mut report = Report::default();
    let whole = options.snapshots.is_empty();
    let snapshots = if whole { state.snapshots() } else { options.snapshots.clone() };
    report.snapshots = snapshots.len() as u64;
    let packs = Packs::new(state.condemned_packs());
    repo.forget_blocks();
    log(state, &mut report, found);
    let mut indexes_bad = Badly::default();
    if whole {
        indexes_bad = indexes(repo, state, &packs, meter, &mut report, found)?;
    }
    let mut suspect = Census::take(repo, &snapshots, &packs, meter, options.memory / 2)?.report(&mut report);
    let mut packs = packs;
    packs.list(repo, meter, &mut report)?;
    let wanted = packs.wanted();
    report.packs = (wanted.len() as u64, wanted.iter().map(|(pack, _)| pack.file_len()).sum());
    if let Some(part) = &options.read {
        data::read(repo, &packs, part, options.memory, meter, &mut report)?;
    }
    if let Some(bytes) = options.audit {
        report.audit = Some(audit::run(repo, &mut packs, bytes, meter)?);
    }
    let deleted = if whole { deleted(repo, state, &packs, meter, &mut report, found)? } else { Deleted::default() };
    report.damaged_packs = packs.report(found);
    suspect |= packs.is_suspect();
    let lookup = Lookup::fixed(state.clone()).with_memory((options.memory / 4) as usize);
    let trees = Trees::with(repo, Arc::new(lookup));
    if !whole {
        report.unused = (0, 0); // other snapshots may need these packs
    }
    Ok(Examined { snapshots, packs, trees, memory: options.memory, suspect, deleted, indexes: indexes_bad, report })
}

/// Looks for versions of records that nothing explains, and of packs that are missing or damaged. A needed pack that the server
/// shows as overwritten is read first.
fn deleted(
    repo: &Repository,
    state: &State,
    packs: &Packs,
    meter: Meter<'_>,
    report: &mut Report,
    found: &mut (dyn FnMut(Finding<'_>) + Send),
) -> Result<Deleted> {
    let kept = repo.kept(meter.ctx, &packs.bad())?;
    let suspects = kept.values().filter(|kept| !kept.is_hidden).map(|kept| kept.name).collect();
    data::read_suspects(repo, packs, &suspects, meter)?;
    let mut bad = packs.bad();
    bad.extend(report.damaged_indexes.iter().chain(&report.damaged_records));
    let deleted = repo.deleted(meter.ctx, state, kept, &bad)?;
    (report.deleted, report.overwritten) = (deleted.deleted().collect(), deleted.overwritten().collect());
    let all = report.deleted.iter().map(|name| (name, "deleted"));
    for (name, what) in all.chain(report.overwritten.iter().map(|name| (name, "overwritten"))) {
        let why = format!("{what}: the store keeps a version of it, which `nfreezer repair` brings back");
        found(Finding::Object { name: name.path(), why });
    }
    Ok(deleted)
}

fn log(state: &State, report: &mut Report, found: &mut (dyn FnMut(Finding<'_>) + Send)) {
    let faults = state.faults();
    for id in &faults.missing {
        let why = "missing: another record follows it; the server has lost it or hides it".to_owned();
        found(Finding::Object { name: format!("log/*-{id}"), why });
    }
    for record in faults.incomplete {
        if record.lost {
            found(Finding::Object { name: format!("log/*-{}", record.id), why: record.why });
            report.damaged_records.push(record.id);
        } else {
            report.torn_records += 1;
        }
    }
    report.missing_records = faults.missing;
    for (claim, what) in state.false_claims() {
        let why = format!("it claims to contain record {}, but lacks {what}", claim.of.short());
        found(Finding::Object { name: format!("log/*-{}", claim.by), why });
        if !report.false_records.contains(&claim.by) {
            report.false_records.push(claim.by);
        }
    }
}

fn indexes(
    repo: &Repository,
    state: &State,
    packs: &Packs,
    meter: Meter<'_>,
    report: &mut Report,
    found: &mut (dyn FnMut(Finding<'_>) + Send),
) -> Result<Badly> {
    let tables = repo.tables(meter.ctx, state)?;
    tables.packs().for_each(|(pack, kind)| packs.note(*kind, pack, false));
    let done = |bytes| {
        meter.done(0, bytes);
        meter.ctx.check()
    };
    let (entries, problems) = repo.check_indexes(meter.ctx, state, &tables, &done)?;
    report.entries = entries;
    let mut bad = Badly::default();
    bad.listed.extend(tables.packs().map(|(pack, _)| pack.id));
    for (key, why) in tables.problems.into_iter().chain(problems) {
        let id = key.0;
        bad.sections.insert(key);
        if !report.damaged_indexes.contains(&id) {
            found(Finding::Object { name: format!("log/*-{id}"), why: why.to_string() });
            report.damaged_indexes.push(id);
        }
    }
    Ok(bad)
}

/// Words the error of an interrupted check.
fn interrupted(e: Error) -> Error {
    match e.kind() {
        Kind::Interrupted(_) => Error::new(e.kind(), "interrupted: nothing was changed"),
        _ => e,
    }
}

/// The context of a check, and the sums of its progress.
#[derive(Clone, Copy)]
struct Meter<'a> {
    ctx: &'a Context<'a>,
    /// Files and bytes so far.
    sums: &'a [AtomicU64; 2],
}

impl Meter<'_> {
    fn done(&self, files: u64, bytes: u64) {
        self.sums[0].fetch_add(files, Ordering::Relaxed);
        self.sums[1].fetch_add(bytes, Ordering::Relaxed);
        self.ctx.event(Event::Done { files, bytes });
    }

    /// Announces further bytes.
    fn more(&self, bytes: u64) {
        let [files, done] = self.sums.each_ref().map(|sum| sum.load(Ordering::Relaxed));
        self.ctx.event(Event::Total { files, bytes: done.saturating_add(bytes), complete: true });
    }
}
