//! The facts that a plan is made of: the log, the listings, the tables of packs, the reachable chunks, the index.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Options, doubt, unconfirmed};
use crate::context::Context;
use crate::crypto::seal::{ObjectType, plain_len};
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::record::Snapshot;
use crate::format::reference::{PackRef, Ref};
use crate::name::ObjectId;
use crate::repo::{Condemnation, Repository, State, Stopwatch};
use crate::seen::SightId;
use crate::storage::Entry;
use crate::trees::{Lookup, Reachable, Reached, Scope, Trees};

/// A pack that a record or a listing names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pack {
    /// Its size and modification time in the listing.
    pub listed: Option<(u64, i64)>,
    /// Its row in the log.
    pub known: Option<(PackRef, ObjectType)>,
    /// The chunks that trees name in it.
    pub named: Reached,
    /// The chunks in it that trees name in condemned packs.
    pub displaced: Reached,
}

impl Pack {
    /// Returns the bytes of its file.
    pub fn size(&self) -> u64 {
        self.listed.map_or(0, |(size, _)| size)
    }

    /// Returns whether its file has the size that its row claims.
    pub fn is_whole(&self) -> bool {
        self.known.is_some_and(|(pack, _)| self.listed.is_some_and(|(size, _)| size == pack.file_len()))
    }

    /// Returns whether its size is one that a pack can have.
    pub fn is_torso(&self) -> bool {
        plain_len(self.size()).is_none_or(|len| len > limits::PACK_READ as u64)
    }

    /// Returns whether anything needs it.
    pub fn is_live(&self) -> bool {
        self.live().chunks > 0
    }

    /// Returns the chunks that are needed.
    pub fn live(&self) -> Reached {
        self.named + self.displaced
    }
}

/// All packs that records or listings name.
type Packs = BTreeMap<ObjectId, Pack>;

/// The facts.
pub(super) struct Survey {
    pub state: State,
    /// The records that the facts rest on.
    pub records: BTreeSet<ObjectId>,
    /// The time since the log was listed.
    pub watch: Stopwatch,
    /// The log as the server lists it.
    pub log: BTreeMap<ObjectId, Entry>,
    /// Incomplete records that an interrupted commit left.
    pub torsos: BTreeSet<ObjectId>,
    /// Records whose contents are in others, which were compared with them.
    pub superseded: BTreeSet<ObjectId>,
    pub condemned: BTreeMap<ObjectId, Condemnation>,
    pub dropped: HashSet<ObjectId>,
    pub packs: Packs,
    pub reachable: Reachable,
    /// A snapshot is not forgotten.
    pub has_snapshots: bool,
    /// Snapshots that were never reported as saved and that lack pages. They count as forgotten.
    pub unconfirmed: Vec<Snapshot>,
}

impl Survey {
    /// Collects the facts.
    ///
    /// # Errors
    ///
    /// Fails with [`crate::error::Kind::Tampering`] if anything is missing or cannot be read.
    pub fn take(ctx: &Context, repo: &Repository, options: &Options) -> Result<Self> {
        let strict = options.rules.refuse_doubt;
        let watch = Stopwatch::start(repo.clock());
        repo.forget_blocks();
        let mut state = repo.state(ctx)?;
        let torsos = check_log(&state, strict)?;
        repo.verify_superseding(ctx, &mut state)?;
        if let (Some((claim, lacks)), true) = (state.false_claims().first_key_value(), strict) {
            let text = format!("record {} claims to contain {}, but lacks {lacks}", claim.by.short(), claim.of.short());
            return Err(doubt(text).hint("`nfreezer check` shows false records, and `nfreezer repair` replaces them"));
        }
        let log = state.listing().clone();
        let condemned = state.condemnations();
        let dropped = state.dropped_packs();
        let mut packs = list_packs(ctx, repo)?;
        let tables = repo.tables(ctx, &state)?;
        if let (Some((_, why)), true) = (tables.problems.first(), strict) {
            return Err(doubt(format!("a table of packs cannot be read ({why})")).hint(REPAIR));
        }
        for (pack, kind) in tables.packs() {
            packs.entry(pack.id).or_default().known = Some((*pack, *kind));
        }
        ctx.step("reading trees", "page");
        let (reachable, unconfirmed) = reach(ctx, repo, &state, &packs, options)?;
        for (id, pack) in &mut packs {
            pack.named = reachable.in_pack(id);
        }
        if reachable.has_displaced() {
            displace(ctx, repo, &state, &tables, &reachable, &mut packs).or_else(|e| lenient(e, strict))?;
        }
        let is_gone = |id: &ObjectId| condemned.contains_key(id) || dropped.contains(id);
        check_packs(&packs, &reachable, is_gone, strict)?;
        let superseded = state.superseded_records();
        let has_snapshots = state.snapshots().len() > unconfirmed.len();
        let records = state.known_records();
        Ok(Survey {
            state,
            records,
            watch,
            log,
            torsos,
            superseded,
            condemned,
            dropped,
            packs,
            reachable,
            has_snapshots,
            unconfirmed,
        })
    }

    /// Returns whether a pack is condemned or dropped.
    pub fn is_condemned(&self, id: &ObjectId) -> bool {
        self.condemned.contains_key(id) || self.dropped.contains(id)
    }

    /// Returns the condemned and dropped objects that the server still has.
    pub fn present_condemned(&self) -> BTreeSet<ObjectId> {
        let listed =
            |id: &ObjectId| self.log.contains_key(id) || self.packs.get(id).is_some_and(|pack| pack.listed.is_some());
        self.condemned.keys().chain(&self.dropped).filter(|id| listed(id)).copied().collect()
    }

    /// Returns whether the log has records that neither the facts nor `own` contain.
    pub fn is_outdated(&self, state: &State, own: &BTreeSet<ObjectId>) -> bool {
        state.known_records().iter().any(|id| !self.records.contains(id) && !own.contains(id))
    }

    /// Returns the snapshots that are forgotten, as ids of sights.
    pub fn forgotten(&self) -> BTreeSet<SightId> {
        self.state.forgotten().iter().map(sight).collect()
    }
}

const REPAIR: &str = "`nfreezer check` shows the damage; after `nfreezer repair` run `nfreezer prune` again";

fn lenient(e: Error, strict: bool) -> Result<()> {
    match e.kind().is_damage() {
        true if strict => Err(doubt(format!("the index cannot be read ({e})")).hint(REPAIR)),
        true => Ok(()),
        false => Err(e),
    }
}

fn sight(snapshot: &Snapshot) -> SightId {
    let mut id = [0; 32];
    id[..16].copy_from_slice(&snapshot.id.0);
    id
}

/// Fails if a record is missing or damaged. Returns the files of interrupted commits.
fn check_log(state: &State, strict: bool) -> Result<BTreeSet<ObjectId>> {
    let faults = state.faults();
    let lost = faults.incomplete.iter().filter(|record| record.lost).map(|record| record.id);
    if let (Some(id), true) = (faults.missing.iter().copied().chain(lost).next(), strict) {
        let text = format!("record {} is missing or damaged", id.short());
        return Err(doubt(text).hint("`nfreezer repair --yes` continues without it"));
    }
    Ok(faults.incomplete.into_iter().filter(|record| !record.lost).map(|record| record.id).collect())
}

fn list_packs(ctx: &Context, repo: &Repository) -> Result<Packs> {
    let packs = Mutex::new(BTreeMap::new());
    repo.pack_entries(ctx, (0..16).collect(), |id, entry| {
        let pack = Pack { listed: Some((entry.size, entry.mtime)), ..Pack::default() };
        packs.lock().expect("no holder panics").insert(id, pack);
    })?;
    Ok(packs.into_inner().expect("no holder panics"))
}

/// Returns the forgotten snapshots whose Forget mark this machine has not seen for long enough: they keep their data.
/// Another machine may have deleted some of it.
fn kept(repo: &Repository, state: &State, options: &Options) -> Result<Vec<Snapshot>> {
    let now = repo.now().seconds;
    let forgotten: Vec<Snapshot> = state.forgotten().into_iter().filter(|s| !s.partial).collect();
    let sights = repo.sights("forgotten", state.forgotten().iter().map(sight), now)?;
    let keep = seconds(options.keep_forgotten);
    let is_kept = |s: &Snapshot| match &sights {
        Some(sights) => sights.first_seen(&sight(s)).first.saturating_add(keep) > now,
        None => keep > 0,
    };
    Ok(forgotten.into_iter().filter(is_kept).collect())
}

/// Returns the roots of the trees of these snapshots.
fn roots_of(snapshots: &[Snapshot]) -> Vec<Ref> {
    snapshots.iter().filter_map(|snapshot| snapshot.root).collect()
}

/// Returns the whole seconds of a duration.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Finds the chunks that trees need, and the snapshots that lack pages although all is well.
fn reach(
    ctx: &Context,
    repo: &Repository,
    state: &State,
    packs: &Packs,
    options: &Options,
) -> Result<(Reachable, Vec<Snapshot>)> {
    let (mut shown, mut forgotten) = (state.snapshots(), kept(repo, state, options)?);
    let (reachable, gap) = reach_from([&shown, &forgotten], ctx, repo, state, packs, options)?;
    let Some(why) = gap.filter(|why| options.rules.refuse_doubt || !why.kind().is_damage()) else {
        return Ok((reachable, Vec::new()));
    };
    if !why.kind().is_damage() {
        return Err(why);
    }
    drop(reachable);
    let is_listed = |id: &ObjectId| packs.get(id).is_some_and(|pack| pack.listed.is_some());
    let unconfirmed = unconfirmed::find(ctx, repo, state, &is_listed, options.memory)?;
    shown.retain(|s| unconfirmed.iter().all(|one| one.id != s.id));
    forgotten.extend(unconfirmed.iter().cloned());
    match reach_from([&shown, &forgotten], ctx, repo, state, packs, options)? {
        (reachable, None) => Ok((reachable, unconfirmed)),
        (_, Some(why)) => {
            let hint =
                "`nfreezer repair --yes` replaces damaged snapshots; `--keep-forgotten 0d` leaves out forgotten ones";
            Err(doubt(format!("a page of a tree cannot be read ({why})")).hint(hint))
        }
    }
}

/// Returns the chunks that the trees of shown and of forgotten snapshots need, and the error that makes them incomplete.
fn reach_from(
    [shown, forgotten]: [&[Snapshot]; 2],
    ctx: &Context,
    repo: &Repository,
    state: &State,
    packs: &Packs,
    options: &Options,
) -> Result<(Reachable, Option<Error>)> {
    let mut condemned = state.condemned_packs();
    // A chunk of a pack that is not there is looked up in the index, as one of a condemned pack.
    let missing = packs.iter().filter(|(_, pack)| pack.listed.is_none());
    condemned.extend(missing.map(|(id, _)| *id));
    let trees = Trees::with(repo, Arc::new(Lookup::fixed(state.clone())));
    let scope = Scope { is_wanted: &|_| true, condemned: &condemned, memory: options.memory };
    Reachable::with_gaps(ctx, &trees, [&roots_of(shown), &roots_of(forgotten)], &scope)
}

/// Counts the displaced chunks of each pack.
fn displace(
    ctx: &Context,
    repo: &Repository,
    state: &State,
    tables: &crate::repo::Tables,
    reachable: &Reachable,
    packs: &mut Packs,
) -> Result<()> {
    let counts: Mutex<BTreeMap<ObjectId, Reached>> = Mutex::default();
    repo.index_rows(ctx, state, tables, &|pack, entry| {
        if reachable.is_displaced(&entry.id) && !reachable.names(&entry.id, &pack.id) {
            let mut counts = counts.lock().expect("no holder panics");
            let count = counts.entry(pack.id).or_default();
            count.chunks += 1;
            count.bytes += u64::from(entry.stored);
        }
    })?;
    for (id, count) in counts.into_inner().expect("no holder panics") {
        packs.entry(id).or_default().displaced = count;
    }
    Ok(())
}

/// Fails if a pack that trees name is missing or has a wrong size, and is not condemned.
fn check_packs(packs: &Packs, reachable: &Reachable, is_gone: impl Fn(&ObjectId) -> bool, strict: bool) -> Result<()> {
    let is_there = |id: &ObjectId| {
        let pack = packs.get(id);
        pack.is_some_and(|pack| pack.is_whole() || (pack.known.is_none() && pack.listed.is_some()))
    };
    match reachable.packs().filter(|id| !is_there(id) && !is_gone(id)).min() {
        Some(id) if strict => Err(doubt(format!("pack {} is missing or damaged", id.short())).hint(REPAIR)),
        _ => Ok(()),
    }
}
