//! Decides what to condemn, to repack and to delete. Pure: the facts come from the survey, and from the sights of this
//! machine.

use std::collections::{BTreeMap, BTreeSet};

use super::survey::{Pack, Survey, seconds};
use super::{Options, Unused, doubt};
use crate::crypto::seal::ObjectType;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::pack::file_bytes;
use crate::name::ObjectId;
use crate::repo::{self, Repository};
use crate::seen::{SightId, Sights};
use crate::time::Time;
use crate::trees::Reached;

/// Seconds by which the clocks of this machine and of the server may differ.
pub(super) const CLOCKS: u64 = 3600;
/// Size below which a data pack is small.
const SMALL: u64 = 1 << 20;
/// Number of small data packs from which on they are merged.
const MANY_SMALL: usize = 16;

/// A number of objects and the bytes of their files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// The decisions of a run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// All packs that the server has.
    pub total: Amount,
    /// Packs with needed chunks.
    pub used: Amount,
    /// Bytes in used packs that nothing needs.
    pub unused_bytes: u64,
    /// Packs that records name and nothing needs.
    pub unused: Amount,
    /// Packs that no record names: of interrupted pushes.
    pub orphans: Amount,
    /// Incomplete objects among them.
    pub torsos: Amount,
    /// Packs that may belong to a running push; a later run looks at them again.
    pub young: Amount,
    /// Superseded and incomplete records.
    pub records: Amount,
    /// Packs whose needed chunks are copied into new packs.
    pub repack: Amount,
    /// Bytes of these chunks.
    pub repack_live: u64,
    /// Condemned objects whose grace time has not ended.
    pub waiting: Amount,
    /// When the first of them may be deleted.
    pub next: Option<Time>,
    /// Condemned objects that this run deletes if nothing needs them.
    pub delete: Amount,
    /// The reason why this run condemns and does not delete.
    pub doubt: Option<String>,
    /// Forgotten snapshots that this machine has not seen before.
    pub(super) has_new_marks: bool,
    /// Objects to condemn.
    pub(super) condemn: BTreeSet<ObjectId>,
    /// Condemned objects that this machine has not seen before, or with a time in the future.
    pub(super) unseen: BTreeSet<ObjectId>,
    /// Packs to repack, those with the least live data first.
    pub(super) chosen: Vec<ObjectId>,
    /// Objects to delete.
    pub(super) ready: BTreeSet<ObjectId>,
    /// Orphans, which may be removed to make room on a full disk.
    pub(super) strays: BTreeSet<ObjectId>,
}

/// Makes the plan.
///
/// # Errors
///
/// Fails if the plan would remove unusually much and the user has not consented.
pub(super) fn plan(repo: &Repository, options: &Options, survey: &Survey) -> Result<Plan> {
    let now = repo.now().seconds;
    let sights = repo.sights("condemned", survey.present_condemned().into_iter().map(|id| id.0), now)?;
    let before = repo.stored_sights("condemned")?;
    let mut planner = Planner { options, survey, now, sights, before, plan: Plan::default() };
    planner.records();
    for (id, pack) in &survey.packs {
        planner.pack(id, pack);
    }
    planner.choose();
    planner.doubts(repo.remembers() && (!options.exclusive || !repo.is_first_contact()));
    let marks = repo.stored_sights("forgotten")?;
    let is_new = |id: &SightId| marks.as_ref().is_some_and(|sights| !sights.has(id));
    planner.plan.has_new_marks = survey.forgotten().iter().any(is_new);
    let plan = planner.plan;
    if options.rules.belts && !options.yes {
        check_belts(&plan, survey)?;
    }
    Ok(plan)
}

struct Planner<'p> {
    options: &'p Options,
    survey: &'p Survey,
    now: i64,
    /// With the look of now.
    sights: Option<Sights>,
    /// Before that.
    before: Option<Sights>,
    plan: Plan,
}

impl Planner<'_> {
    fn records(&mut self) {
        for id in self.survey.superseded.iter().chain(&self.survey.torsos) {
            let Some(entry) = self.survey.log.get(id) else { continue };
            self.plan.records.add(entry.size);
            if self.survey.is_condemned(id) {
                self.condemned(id, entry.size);
            } else {
                self.plan.condemn.insert(*id);
            }
        }
    }

    fn pack(&mut self, id: &ObjectId, pack: &Pack) {
        let Some((size, mtime)) = pack.listed else { return };
        self.plan.total.add(size);
        if self.survey.is_condemned(id) {
            return self.condemned(id, size);
        }
        if pack.is_live() {
            self.plan.used.add(size);
            self.plan.unused_bytes += size.saturating_sub(pack.live().bytes);
            return;
        }
        if pack.known.is_some() {
            self.plan.unused.add(size);
        } else if !self.options.exclusive && self.is_young(mtime) {
            return self.plan.young.add(size);
        } else {
            self.plan.orphans.add(size);
            if pack.is_torso() {
                self.plan.torsos.add(size);
            }
            self.plan.strays.insert(*id);
            if !self.options.rules.condemn_first {
                self.plan.ready.insert(*id);
            }
        }
        self.plan.condemn.insert(*id);
    }

    /// Returns whether a pack without a record may belong to a running push. This only delays its condemnation,
    /// so the server's time is good enough.
    fn is_young(&self, mtime: i64) -> bool {
        mtime.abs_diff(self.now) < self.options.grace.as_secs() / 2
    }

    fn condemned(&mut self, id: &ObjectId, size: u64) {
        let is_new = self.before.as_ref().is_none_or(|sights| !sights.has(&id.0));
        let since = self.survey.condemned.get(id).map_or(0, |condemned| condemned.since);
        if is_new || since.saturating_sub(self.now) > CLOCKS as i64 {
            self.plan.unseen.insert(*id);
        }
        let at = self.deletable_at(id);
        if at <= self.now && !(is_new && self.options.rules.own_sight) || self.options.exclusive {
            self.plan.delete.add(size);
            self.plan.ready.insert(*id);
        } else {
            self.plan.waiting.add(size);
            let at = Time::from_seconds(at);
            self.plan.next = Some(self.plan.next.map_or(at, |next| next.min(at)));
        }
    }

    /// Returns when the grace time of a condemned object ends: it begins when the condemnation was made, by the clock of
    /// the writer, by the server's, and by this machine's first sight of it, whichever is latest.
    fn deletable_at(&self, id: &ObjectId) -> i64 {
        let mut begin = i64::MIN;
        if let Some(condemned) = self.survey.condemned.get(id) {
            begin = begin.max(condemned.since);
            let times = condemned.records.iter().filter_map(|record| self.survey.log.get(record));
            begin = begin.max(times.map(|entry| entry.mtime).min().unwrap_or(i64::MIN));
        }
        if self.options.rules.own_sight {
            begin = begin.max(self.sights.as_ref().map_or(self.now, |sights| sights.first_seen(&id.0).first));
        }
        begin.saturating_add(seconds(self.options.grace))
    }

    /// Chooses the packs to repack: those with the least live data, until little enough is unused; and small ones, if
    /// there are many.
    fn choose(&mut self) {
        let limit = match self.options.max_unused {
            Unused::Percent(percent) => (self.plan.used.bytes as f64 * percent / 100.0) as u64,
            Unused::Bytes(bytes) => bytes,
            Unused::Unlimited => return,
        };
        let is_candidate = |(id, pack): &(&ObjectId, &Pack)| {
            let is_data = pack.known.is_some_and(|(_, kind)| kind == ObjectType::Data);
            is_data && pack.is_whole() && pack.is_live() && !self.survey.is_condemned(id)
        };
        let mut rows: Vec<(u64, u64, ObjectId)> = self.survey.packs.iter().filter(is_candidate).map(share).collect();
        rows.sort_unstable();
        let has_many_small = rows.iter().filter(|(_, size, _)| *size < SMALL).count() >= MANY_SMALL;
        let (mut unused, mut plan) = (self.plan.unused_bytes, Amount::default());
        let (mut live, mut chosen) = (Reached::default(), Vec::new());
        for (_, size, id) in rows {
            let needed = self.survey.packs[&id].live();
            let is_small = has_many_small && size < SMALL;
            let fits = self.options.max_repack.is_none_or(|most| plan.bytes + size <= most);
            if (unused > limit || is_small) && fits {
                unused = unused.saturating_sub(size.saturating_sub(needed.bytes));
                live = live + needed;
                plan.add(size);
                chosen.push(id);
            }
        }
        // Few packs in the place of many are worth it, even if no bytes are saved.
        let merges = plan.objects >= MANY_SMALL as u64 && live.bytes.div_ceil(limits::PACK as u64) * 4 <= plan.objects;
        if is_worth(plan.bytes, live) || merges {
            (self.plan.repack, self.plan.repack_live, self.plan.chosen) = (plan, live.bytes, chosen);
        }
    }

    fn doubts(&mut self, remembers: bool) {
        let plan = &mut self.plan;
        if !remembers && self.options.rules.own_sight {
            let text = "this machine has no memory of this repository yet (or stores none), so it cannot know how long \
                        objects have been condemned";
            plan.doubt = Some(text.into());
        }
        let young = self.survey.torsos.iter().find(|id| !plan.ready.contains(id));
        if let (Some(id), true, false) = (young, self.options.rules.refuse_doubt, self.options.exclusive) {
            plan.doubt = Some(format!(
                "record {} is incomplete: it is being written, was interrupted, or the server hides a part of it",
                id.short()
            ));
        }
    }
}

/// Returns the live share of a pack in thousandths, its size and its id.
fn share((id, pack): (&ObjectId, &Pack)) -> (u64, u64, ObjectId) {
    (pack.live().bytes.saturating_mul(1000) / pack.size().max(1), pack.size(), *id)
}

/// Returns whether copies of these chunks save a tenth of the bytes that their packs have now.
pub(super) fn is_worth(bytes: u64, live: Reached) -> bool {
    file_bytes(live.chunks, live.bytes) < bytes / 10 * 9
}

/// Fails if unusually much would be removed.
fn check_belts(plan: &Plan, survey: &Survey) -> Result<()> {
    let refuse = |text: String| -> Result<()> {
        let hint = "if this is intended, `nfreezer prune --yes` does it; `nfreezer snapshots --forgotten` shows forgotten snapshots";
        Err(Error::hint(doubt(text), hint))
    };
    let unused = plan.unused.objects as usize;
    if !survey.has_snapshots && plan.total.objects > 0 && unused + plan.ready.len() > 0 {
        return refuse("the repository has no snapshots, so nothing of it is needed".into());
    }
    let named: BTreeMap<_, _> = survey.packs.iter().filter(|(_, pack)| pack.known.is_some()).collect();
    let all = named.iter().filter(|(id, pack)| pack.listed.is_some() && !survey.is_condemned(id)).count();
    if repo::is_most(unused, all) {
        return refuse(format!("{unused} of {all} packs are not needed any more"));
    }
    Ok(())
}
