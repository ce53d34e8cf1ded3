//! Repairs a repository: keeps everything that can be read and marks the rest as lost, in one record.
//!
//! Missing and damaged packs are condemned, so that nothing new refers to them. The next push uploads their contents again
//! if the source files still exist, and every snapshot that refers to the same chunks finds them through the index. This
//! loses nothing, so it needs no consent. With `yes` each affected snapshot is replaced by one without the lost data (see
//! [`super::survey`]) and is forgotten, and lost records are given up. No object is removed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::survey::{Outcome, Survey, Tally};
use super::{Badly, Examined, Finding, Options, Report, examine, interrupted};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::record::{Action, Head, Mark, NewSection, Snapshot, SnapshotId};
use crate::format::reference::Ref;
use crate::name::{Name, ObjectId};
use crate::repo::{Repository, State, random};
use crate::trees::{MetaPack, SelfRefs, deep};

/// The level of zstd for new pages.
const COMPRESSION: i32 = 3;

/// Times that deleted objects are brought back, each after a look at the whole repository.
const ROUNDS: usize = 3;

/// The consent of the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// Replaces snapshots, gives up records, and believes that most packs are lost.
    pub yes: bool,
    /// Writes nothing.
    pub dry_run: bool,
}

/// The result of a repair, or of a dry run.
#[derive(Clone, Debug, Default)]
pub struct Repaired {
    /// The check before the repair.
    pub report: Report,
    /// Deleted and overwritten objects of which the server had kept versions and that are back.
    pub brought_back: Vec<Name>,
    /// Packs that nothing new refers to from now on.
    pub condemned: Vec<ObjectId>,
    /// Snapshots that lost data, each with its replacement; `None` if all of its data is lost, or without `yes`.
    pub replaced: Vec<(SnapshotId, Option<SnapshotId>)>,
    /// Lost records that later commands do not require; without `yes`, records that would be given up.
    pub given_up: Vec<ObjectId>,
    /// Records with false claims that were replaced, or would be.
    pub false_records: Vec<ObjectId>,
    /// An index was made anew, where a part of one could not be read.
    pub reindexed: bool,
    /// The record of the repair; none if there was nothing to repair.
    pub record: Option<ObjectId>,
}

/// Repairs a repository as of `state`. Reports each finding to `found`, as [`super::check`] does. Ignores the snapshots and
/// the audit of `options`.
///
/// # Errors
///
/// The errors of [`super::check`] and of a commit; most packs are missing and `consent.yes` is not given.
pub fn repair(
    ctx: &Context,
    repo: &Repository,
    state: &mut State,
    options: &Options,
    consent: Consent,
    found: &mut (dyn FnMut(Finding<'_>) + Send),
) -> Result<Repaired> {
    let options = Options { snapshots: Vec::new(), audit: None, ..options.clone() };
    repo.verify_superseding(ctx, state).map_err(interrupted)?;
    let (mut examined, brought_back) = examine_and_bring_back(ctx, repo, state, &options, consent, found)?;
    if examined.packs.are_mostly_missing() && !consent.yes {
        let text = "most packs are missing: nothing was changed";
        return Err(Error::failed(text).hint(
            "is a disk of the server not mounted? If they are lost for good, `nfreezer repair --yes` continues without them",
        ));
    }
    let writes = consent.yes && !consent.dry_run;
    let mut writer = if writes { Some(MetaPack::new(repo, COMPRESSION)?) } else { None };
    let mut outcomes = Vec::new();
    if examined.suspect {
        let (found, tally) = deep(|| survey(ctx, repo, &examined, found, writer.as_mut())).map_err(interrupted)?;
        (examined.report.hit, examined.report.paths) = (tally.hit, tally.paths);
        outcomes = found;
    }
    let report = examined.report.clone();
    let given_up = report.missing_records.iter().chain(&report.damaged_records).copied().collect();
    let condemned = examined.packs.bad().into_iter().collect();
    let false_records = report.false_records.clone();
    let mut repaired = Repaired { brought_back, condemned, given_up, false_records, report, ..Repaired::default() };
    if consent.dry_run {
        repaired.replaced = outcomes.iter().map(|(snapshot, _)| (snapshot.id, None)).collect();
        return Ok(repaired);
    }
    let (mut head, mut sections) = reindexed(ctx, repo, state, &examined).map_err(interrupted)?.unwrap_or_default();
    repaired.reindexed = !head.superseded.is_empty();
    if let Some(writer) = &mut writer {
        if let Some(pack) = writer.finish(ctx, false)? {
            outcomes.iter_mut().for_each(|(_, outcome)| outcome.replace_self(pack));
        }
        sections.extend(writer.sections((head.sections.len() + sections.len()) as u32));
    }
    replace(&mut head, &mut repaired, outcomes, writes, repo.now().seconds)?;
    if head != Head::default() {
        // A stop does not end the commit: then it would not be known whether it took place.
        let ctx = &ctx.with_grace(Duration::MAX);
        repaired.record = Some(commit(ctx, repo, state, head, &sections)?);
    }
    repo.replace_false_records(&ctx.with_grace(Duration::MAX), state)?;
    Ok(repaired)
}

/// Examines the repository, brings deleted objects back that the server keeps, and examines it again: records that are back
/// may need packs that were deleted too.
fn examine_and_bring_back<'r>(
    ctx: &Context,
    repo: &'r Repository,
    state: &mut State,
    options: &Options,
    consent: Consent,
    found: &mut (dyn FnMut(Finding<'_>) + Send),
) -> Result<(Examined<'r>, Vec<Name>)> {
    let (mut back, mut rounds) = (Vec::new(), 0);
    loop {
        let mut findings = Vec::new();
        let mut keep = |finding: Finding<'_>| {
            if let Finding::Object { name, why } = finding {
                findings.push((name, why));
            }
        };
        let mut examined = examine(ctx, repo, state, options, &mut keep).map_err(interrupted)?;
        let is_whole = examined.report.deleted.is_empty() && examined.report.overwritten.is_empty();
        if is_whole || consent.dry_run || rounds == ROUNDS {
            findings.into_iter().for_each(|(name, why)| found(Finding::Object { name, why }));
            return Ok((examined, back));
        }
        back.extend(repo.bring_back(ctx, std::mem::take(&mut examined.deleted))?);
        repo.refresh(ctx, state)?;
        repo.verify_superseding(ctx, state).map_err(interrupted)?;
        rounds += 1;
    }
}

/// Commits unless another client has condemned packs meanwhile, which new trees may name.
fn commit(
    ctx: &Context,
    repo: &Repository,
    state: &mut State,
    head: Head,
    sections: &[NewSection],
) -> Result<ObjectId> {
    let mut known = state.condemned_packs();
    known.extend(head.condemned.iter().map(|(id, _)| *id));
    let commit = repo.commit_if(ctx, state, head, sections, |state| {
        let is_same = state.condemned_packs().is_subset(&known);
        let text = "packs were condemned while the repair went on";
        if is_same { Ok(()) } else { Err(Error::failed(text).hint("run `nfreezer repair` again")) }
    })?;
    commit.doubt.map_or(Ok(commit.record), Err)
}

/// Adds the fate of packs, snapshots and records to the head.
fn replace(
    head: &mut Head,
    repaired: &mut Repaired,
    outcomes: Vec<(Snapshot, Outcome)>,
    writes: bool,
    time: i64,
) -> Result<()> {
    let mut condemned: BTreeMap<_, _> = head.condemned.drain(..).collect();
    for id in &repaired.condemned {
        condemned.entry(*id).or_insert(time);
    }
    head.condemned = condemned.into_iter().collect();
    for (snapshot, outcome) in outcomes {
        let new = match outcome {
            Outcome::Changed(root) if writes => Some(replacement(&snapshot, root)?),
            _ => None,
        };
        repaired.replaced.push((snapshot.id, new.as_ref().map(|new| new.id)));
        head.snapshots.extend(new);
        if writes {
            head.marks.push(Mark::new(snapshot.id, time, Action::Forget));
        }
    }
    if writes {
        head.superseded.extend(&repaired.given_up);
        head.superseded.sort_unstable();
    }
    Ok(())
}

/// Makes a new index where one cannot be read: of packs that its tables list, and of packs that trees name and no table
/// lists.
fn reindexed(
    ctx: &Context,
    repo: &Repository,
    state: &State,
    examined: &Examined<'_>,
) -> Result<Option<(Head, Vec<NewSection>)>> {
    let Badly { sections, listed } = &examined.indexes;
    if sections.is_empty() {
        return Ok(None);
    }
    let held = repo.packs_of(ctx, state, sections)?;
    let needed = examined.packs.wanted();
    let packs: Vec<_> =
        needed.into_iter().filter(|(pack, _)| held.contains(&pack.id) || !listed.contains(&pack.id)).collect();
    repo.reindex(ctx, state, sections, &packs)
}

/// Surveys all snapshots. Returns those that lost data, each with its outcome.
fn survey(
    ctx: &Context,
    repo: &Repository,
    examined: &Examined<'_>,
    found: &mut (dyn FnMut(Finding<'_>) + Send),
    writer: Option<&mut MetaPack<'_>>,
) -> Result<(Vec<(Snapshot, Outcome)>, Tally)> {
    let mut survey = Survey::new(ctx, repo, examined, found, writer);
    examined.snapshots.iter().try_for_each(|snapshot| survey.snapshot(snapshot))?;
    Ok((survey.outcomes, survey.tally))
}

/// Returns the snapshot with another root.
fn replacement(snapshot: &Snapshot, root: Ref) -> Result<Snapshot> {
    let mut new = Snapshot { id: SnapshotId(random()?), root: Some(root), ..snapshot.clone() };
    new.set_replaces(&snapshot.id);
    new.shorten_paths();
    Ok(new)
}
