//! Attempts to take the snapshot. An attempt is repeated, with everything stored by then, for the repositories where other
//! clients condemned packs meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_bytes::ByteBuf;

use super::advice;
use super::budget::Budget;
use super::compare::copies::{self, Copied};
use super::compare::parents::Parents;
use super::compare::times;
use super::counts::Counts;
use super::named::Named;
use super::options::{Destination, Options, Summary};
use super::pipeline::{self, Done, Sources};
use super::read::saved::Saved;
use super::stock::Setup;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::record::{COPY_OF, NOT_SYNCED, Snapshot, SnapshotId, Stats};
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::progress::Event;
use crate::repo::{Repository, SeenPacks, State, VERIFIED, parallel};
use crate::time::Time;
use crate::trees::names_condemned_since;

/// Bytes of the index for each byte of memory that the index can use: its fingerprints, and room for whole sections.
const FINGERPRINTS: u64 = 6;

/// Memory of the search for condemned packs in the tree of a copy.
const MEMORY: u64 = 8 << 20;

/// Attempts before the push fails because packs were condemned meanwhile.
const ATTEMPTS: usize = 4;

/// Takes the snapshot in each repository. Returns the results in the order of `destinations`.
pub fn save(
    ctx: &Context,
    destinations: &[Destination<'_>],
    options: &Options,
    paths: &[PathBuf],
    mut sources: Sources<'_>,
) -> Vec<Result<Summary>> {
    let mut results: BTreeMap<usize, Result<Summary>> = BTreeMap::new();
    let mut left: Vec<usize> = (0..destinations.len()).collect();
    for number in 1..=ATTEMPTS {
        let outdated: Vec<AtomicBool> = left.iter().map(|_| AtomicBool::new(false)).collect();
        let now: Vec<&Destination<'_>> = left.iter().map(|i| &destinations[*i]).collect();
        let done = attempt(ctx, &now, options, paths, &mut sources, &outdated);
        results.extend(left.iter().copied().zip(done.into_iter().map(|result| result.map_err(interrupted))));
        // Streams can be read only once.
        if number == ATTEMPTS || matches!(sources, Sources::Streams(_)) {
            break;
        }
        left = left
            .into_iter()
            .zip(outdated)
            .filter(|(_, outdated)| outdated.load(Ordering::Relaxed))
            .map(|(i, _)| i)
            .collect();
        if left.is_empty() {
            break;
        }
    }
    results.into_values().collect()
}

/// Returns the result of the only repository.
pub fn only(results: Vec<Result<Summary>>) -> Result<Summary> {
    results.into_iter().next().unwrap_or_else(|| Err(Error::failed("a push without a repository")))
}

fn attempt(
    ctx: &Context,
    destinations: &[&Destination<'_>],
    options: &Options,
    paths: &[PathBuf],
    sources: &mut Sources<'_>,
    outdated: &[AtomicBool],
) -> Vec<Result<Summary>> {
    let counts = Counts::new(ctx);
    let ctx = &ctx.with_progress(&counts);
    let names: Vec<Named<'_>> = destinations.iter().map(|to| Named::new(ctx, to.name)).collect();
    let contexts: Vec<Context<'_>> = names.iter().map(|name| ctx.with_progress(name)).collect();
    let (mut setups, mut states, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let saved = sources.saved();
    // Several repositories are prepared and finished at the same time: each waits for its own server.
    let prepared = parallel(destinations.len(), (0..destinations.len()).collect(), |i| {
        let draft = Draft { repo: destinations[i].repo, options, paths, repositories: destinations.len() };
        draft.prepare(&contexts[i], saved, &outdated[i])
    });
    for (i, prepared) in prepared.into_iter().enumerate() {
        match prepared {
            Ok((setup, state)) => {
                setups.push(setup);
                states.push(state);
            }
            Err(error) => failed.push((i, Err(error))),
        }
    }
    let caches: Vec<usize> = setups.iter().map(|setup| setup.repo.set_cache(setup.budget.cache)).collect();
    let done = if setups.is_empty() { Vec::new() } else { pipeline::run(ctx, &setups, sources, &mut states) };
    for (setup, cache) in setups.iter().zip(caches) {
        setup.repo.set_cache(cache);
    }
    let is_saved = |done: &Result<Done>| done.as_ref().is_ok_and(|done| done.committed.record.is_some());
    let is_files = matches!(sources, Sources::Files(..));
    if is_files && done.iter().any(is_saved) {
        advice::on_patterns(&options.select).iter().for_each(|text| ctx.warn(text));
    }
    let all = setups.iter().zip(&mut states).zip(done).collect();
    let mut results =
        parallel(destinations.len(), all, |((setup, state), done)| finish(setup, state, is_files, &counts, done?));
    failed.into_iter().for_each(|(i, error)| results.insert(i, error));
    results
}

/// Merges records and makes the summary.
fn finish(setup: &Setup<'_>, state: &mut State, is_files: bool, counts: &Counts<'_>, done: Done) -> Result<Summary> {
    let Setup { repo, ctx, .. } = *setup;
    let sequence = done.committed.record.and_then(|id| state.sequence(&id));
    merge_log(ctx, repo, state);
    if is_files && done.committed.record.is_some() {
        let warnings = advice::on_snapshot(&done.committed.snapshot, setup.parents.snapshots.first());
        warnings.iter().for_each(|text| ctx.warn(text));
    }
    let (now, before) = (repo.storage().traffic(), setup.traffic);
    Ok(Summary { sequence, sent: now.0 - before.0, received: now.1 - before.1, ..summary(setup, counts, done) })
}

/// The inputs of a push into one repository.
struct Draft<'r> {
    repo: &'r Repository,
    options: &'r Options,
    paths: &'r [PathBuf],
    /// The number of repositories that share the memory.
    repositories: usize,
}

impl<'r> Draft<'r> {
    /// Reads the state of the repository, and chooses the parents.
    fn prepare(
        &self,
        ctx: &'r Context<'r>,
        saved: Option<&Saved<'_>>,
        outdated: &'r AtomicBool,
    ) -> Result<(Setup<'r>, State)> {
        let Draft { repo, options, paths, repositories } = *self;
        let started = Instant::now();
        let begun = repo.now();
        let traffic = repo.storage().traffic();
        ctx.check()?;
        let state = repo.state(ctx)?;
        state.warnings().iter().for_each(|text| ctx.warn(text));
        state.warning_details().iter().for_each(|text| ctx.event(Event::Detail { text }));
        let draft = match saved {
            Some(saved) => copy_draft(repo, saved.snapshot),
            None => draft(repo, options, begun, paths),
        };
        let Chosen { parents, newest, packs, copies } = match saved {
            Some(saved) => choose_copies(ctx, repo, &state, saved)?,
            None => choose_parents(ctx, repo, options, &state, &draft, begun)?,
        };
        let cores = options.threads.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from));
        let budget = Budget::new(repositories, options.memory, state.index_len() / FINGERPRINTS, cores)?;
        let setup =
            Setup { repo, options, ctx, parents, budget, started, traffic, packs, outdated, draft, newest, copies };
        Ok((setup, state))
    }
}

/// Adds to an interruption that the snapshot is not complete.
fn interrupted(error: Error) -> Error {
    if !matches!(error.kind(), Kind::Interrupted(_)) {
        return error;
    }
    let named = Error::new(error.kind(), "interrupted before the snapshot was complete");
    match error.hint_text() {
        Some(hint) => named.hint(hint),
        None => named,
    }
}

/// The snapshots to compare with.
struct Chosen {
    parents: Parents,
    /// The newest whole snapshot of the group, if none is made for the same tree.
    newest: Option<Snapshot>,
    /// Packs that the server has and does not have. The latter are condemned in `parents`.
    packs: SeenPacks,
    /// The pairs of snapshots with which a snapshot of another repository is compared; the copies are `parents`.
    copies: Vec<Copied>,
}

fn choose_parents(
    ctx: &Context,
    repo: &Repository,
    options: &Options,
    state: &State,
    draft: &Snapshot,
    begun: Time,
) -> Result<Chosen> {
    let mut parents = Parents::choose(state, &options.host, draft.group, begun);
    let newest = parents.snapshots.iter().find(|s| !s.partial && s.group == draft.group).cloned();
    apply_options(&mut parents, options, state, begun)?;
    let packs = see_packs(ctx, repo, state, &mut parents)?;
    Ok(Chosen { parents, newest: newest.filter(|_| options.skip_if_unchanged), packs, copies: Vec::new() })
}

/// Looks which packs the server has, and condemns those in `parents` that it has not.
fn see_packs(ctx: &Context, repo: &Repository, state: &State, parents: &mut Parents) -> Result<SeenPacks> {
    let packs = repo.see_packs(ctx, state, VERIFIED)?;
    if !packs.absent.is_empty() {
        ctx.warn(&missing_text(packs.absent.len()));
        parents.condemn(&packs.absent);
    }
    Ok(packs)
}

fn choose_copies(ctx: &Context, repo: &Repository, state: &State, saved: &Saved<'_>) -> Result<Chosen> {
    let mut copies = copies::choose(&state.snapshots(), saved.others, saved.snapshot);
    let mut parents = Parents::of(copies.iter().map(|copied| copied.copy.clone()).collect(), state);
    let packs = see_packs(ctx, repo, state, &mut parents)?;
    saved.searched.begin(state.condemned_packs());
    for copied in copies.iter_mut().filter(|copied| copied.original.is_some() && packs.absent.is_empty()) {
        let root: Vec<Ref> = copied.copy.root.into_iter().collect();
        let search = |known: &HashSet<ObjectId>| names_condemned_since(ctx, repo, state, known, &root, MEMORY);
        copied.is_intact = saved.searched.is_intact(&copied.copy.id, search)?;
    }
    Ok(Chosen { parents, newest: None, packs, copies })
}

/// Merges records. A failure is only a warning: the snapshot is committed.
fn merge_log(ctx: &Context, repo: &Repository, state: &mut State) {
    let Err(error) = repo.merge(ctx, state) else { return };
    if !ctx.is_stopped() {
        ctx.warn(&format!("the record log could not be merged, the next push tries again: {error}"));
    }
}

/// Applies `--parent` and `--force`.
fn apply_options(parents: &mut Parents, options: &Options, state: &State, begun: Time) -> Result<()> {
    if let Some(text) = &options.parent {
        let parent = state.select(text)?;
        if times::begun(&parent) > begun {
            return Err(Error::failed(format!("snapshot {text} is from the future: it proves nothing about files")));
        }
        parents.snapshots = vec![parent];
    }
    if options.force {
        parents.snapshots.clear();
    }
    Ok(())
}

/// Returns the summary without the figures of the storage.
fn summary(setup: &Setup<'_>, counts: &Counts<'_>, done: Done) -> Summary {
    let stats = done.stats;
    Summary {
        snapshot: done.committed.snapshot,
        record: done.committed.record,
        sequence: None,
        parent: setup.parents.snapshots.first().map(|parent| parent.id),
        new: stats.new,
        changed: stats.changed,
        unchanged: done.unchanged,
        renamed: done.renamed,
        read: done.read,
        added: stats.added,
        stored: stats.stored,
        sent: 0,
        received: 0,
        skipped: counts.skipped(),
        changed_while_read: done.unsteady,
        excluded: counts.excluded(),
        grew: done.grew,
        packs: done.packs,
        duration: done.duration,
    }
}

/// Returns the snapshot to be, without id, root and figures.
fn draft(repo: &Repository, options: &Options, begun: Time, paths: &[PathBuf]) -> Snapshot {
    let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_os_str().as_bytes()).collect();
    Snapshot {
        id: SnapshotId::default(),
        time: options.time.unwrap_or(begun),
        host: options.host.clone(),
        user: options.user.clone(),
        group: repo.group(&options.host, paths.iter().copied()),
        paths: paths.into_iter().map(|path| ByteBuf::from(path.to_vec())).collect(),
        more_paths: 0,
        tags: sorted(&options.tags),
        description: options.description.clone(),
        root: None,
        partial: false,
        warnings: not_synced(repo),
        stats: Stats::default(),
        program: concat!("nfreezer ", env!("CARGO_PKG_VERSION")).into(),
        extra: times::note_begin(options.time.unwrap_or(begun), begun),
    }
}

/// Returns the copy of a snapshot of another repository, without id, root and figures.
fn copy_draft(repo: &Repository, original: &Snapshot) -> Snapshot {
    let mut draft = Snapshot {
        id: SnapshotId::default(),
        group: repo.group(&original.host, original.paths.iter().map(|path| path.as_slice())),
        root: None,
        stats: Stats::default(),
        warnings: original.warnings & !NOT_SYNCED | not_synced(repo),
        ..original.clone()
    };
    draft.set_extra(COPY_OF, original.origin().0.to_vec());
    draft
}

fn not_synced(repo: &Repository) -> u32 {
    if repo.storage().capabilities().durable_put { 0 } else { NOT_SYNCED }
}

fn sorted(tags: &[String]) -> Vec<String> {
    let mut tags = tags.to_vec();
    tags.sort();
    tags.dedup();
    tags
}

fn missing_text(packs: usize) -> String {
    let rest = "contents are uploaded again where the source files still exist; `nfreezer check` shows the losses";
    if packs == 1 {
        return format!("1 pack is missing on the server: its {rest}");
    }
    format!("{packs} packs are missing on the server: their {rest}")
}
