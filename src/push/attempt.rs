//! Attempts to take the snapshot. An attempt is repeated, with everything stored by then, if other clients condemned
//! packs meanwhile.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_bytes::ByteBuf;

use super::advice;
use super::budget::Budget;
use super::compare::parents::Parents;
use super::compare::times;
use super::counts::Counts;
use super::options::{Options, Summary};
use super::pipeline::{self, Done, Setup, Sources};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::record::{NOT_SYNCED, Snapshot, SnapshotId, Stats};
use crate::name::ObjectId;
use crate::progress::Event;
use crate::repo::{Repository, State};
use crate::time::Time;

/// Bytes of the index for each byte of memory that the index can use: its fingerprints, and room for whole sections.
const FINGERPRINTS: u64 = 6;

/// Packs whose presence a push verifies: 1 MB of listings at most. If there are more, each push verifies other ones.
const VERIFIED: u64 = 4096;

/// Attempts before the push fails because packs were condemned meanwhile.
const ATTEMPTS: usize = 4;

/// Takes the snapshot.
pub fn save(
    ctx: &Context,
    repo: &Repository,
    options: &Options,
    paths: &[PathBuf],
    mut sources: Sources<'_>,
) -> Result<Summary> {
    let outdated = AtomicBool::new(false);
    for _ in 1..ATTEMPTS {
        let result = attempt(ctx, repo, options, paths, &mut sources, &outdated).map_err(interrupted);
        // Streams can be read only once.
        if !outdated.swap(false, Ordering::Relaxed) || matches!(sources, Sources::Streams(_)) {
            return result;
        }
    }
    attempt(ctx, repo, options, paths, &mut sources, &outdated).map_err(interrupted)
}

fn attempt(
    ctx: &Context,
    repo: &Repository,
    options: &Options,
    paths: &[PathBuf],
    sources: &mut Sources<'_>,
    outdated: &AtomicBool,
) -> Result<Summary> {
    let started = Instant::now();
    let begun = repo.now();
    let traffic = repo.storage().traffic();
    let counts = Counts::new(ctx);
    let ctx = &ctx.with_progress(&counts);
    ctx.check()?;
    let mut state = repo.state(ctx)?;
    state.warnings().iter().for_each(|text| ctx.warn(text));
    state.warning_details().iter().for_each(|text| ctx.event(Event::Detail { text }));
    let draft = draft(repo, options, begun, paths);
    let Chosen { parents, newest, missing } = choose_parents(ctx, repo, options, &state, &draft, begun)?;
    let cores = options.threads.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from));
    let budget = Budget::new(options.memory, state.index_len() / FINGERPRINTS, cores)?;
    let cache = repo.set_cache(budget.cache);
    let parents = &parents;
    let setup = Setup { repo, options, ctx, parents, budget, started, missing, outdated, draft, newest };
    let done = pipeline::run(&setup, sources, &mut state);
    repo.set_cache(cache);
    let done = done?;
    let sequence = done.committed.record.and_then(|id| state.sequence(&id));
    merge_log(ctx, repo, &mut state);
    if matches!(sources, Sources::Files(..)) && done.committed.record.is_some() {
        let warnings = advice::on_snapshot(&done.committed.snapshot, parents.snapshots.first(), &options.select);
        warnings.iter().for_each(|text| ctx.warn(text));
    }
    let now = repo.storage().traffic();
    Ok(Summary { sequence, sent: now.0 - traffic.0, received: now.1 - traffic.1, ..summary(&setup, &counts, done) })
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
    /// Packs that the server does not have. They are condemned in `parents`.
    missing: BTreeSet<ObjectId>,
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
    let missing = repo.absent_packs(ctx, state, VERIFIED)?;
    if !missing.is_empty() {
        ctx.warn(&missing_text(missing.len()));
        parents.condemn(&missing);
    }
    Ok(Chosen { parents, newest: newest.filter(|_| options.skip_if_unchanged), missing })
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

/// The summary without the figures of the storage.
fn summary(setup: &Setup<'_>, counts: &Counts<'_>, done: Done) -> Summary {
    let stats = done.committed.snapshot.stats;
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
        duration: setup.started.elapsed(),
    }
}

/// The snapshot to be, without id, root and figures.
fn draft(repo: &Repository, options: &Options, begun: Time, paths: &[PathBuf]) -> Snapshot {
    let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_os_str().as_bytes()).collect();
    Snapshot {
        id: SnapshotId::default(),
        time: options.time.unwrap_or(begun),
        host: options.host.clone(),
        user: options.user.clone(),
        group: group(repo, &options.host, &paths),
        paths: paths.into_iter().map(|path| ByteBuf::from(path.to_vec())).collect(),
        more_paths: 0,
        tags: sorted(&options.tags),
        description: options.description.clone(),
        root: None,
        partial: false,
        warnings: if repo.storage().capabilities().durable_put { 0 } else { NOT_SYNCED },
        stats: Stats::default(),
        program: concat!("nfreezer ", env!("CARGO_PKG_VERSION")).into(),
        extra: times::note_begin(options.time.unwrap_or(begun), begun),
    }
}

/// `name_hash(2, host || 0 || path || 0 || ..)`
fn group(repo: &Repository, host: &str, paths: &[&[u8]]) -> u64 {
    let parts = std::iter::once(host.as_bytes()).chain(paths.iter().copied());
    let bytes: Vec<u8> = parts.flat_map(|part| part.iter().copied().chain([0])).collect();
    repo.keys().name_hash(2, &bytes)
}

fn sorted(tags: &[String]) -> Vec<String> {
    let mut tags = tags.to_vec();
    tags.sort();
    tags.dedup();
    tags
}

fn missing_text(packs: usize) -> String {
    let rest = "contents are uploaded again where the source files still exist; `nfreezer check` shows what is lost";
    if packs == 1 {
        return format!("1 pack is missing on the server: its {rest}");
    }
    format!("{packs} packs are missing on the server: their {rest}")
}
