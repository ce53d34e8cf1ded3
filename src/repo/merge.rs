//! Keeps the log short: merges many records into one that supersedes them. Removes nothing. Two clients may merge at the
//! same time, since the fold of a log is a join: a snapshot in two records counts once.
//!
//! Heads and index sections are merged by size, independently, as in an LSM tree. Small ones are rewritten. Large records
//! are left alone, and large sections are named in place, until others of the same total size exist. So the number of
//! times that a snapshot or an entry is written grows with the logarithm of their number.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Repository;
use super::state::{LiveSection, SectionKey, State};
use crate::context::Context;
use crate::crypto::seal::ObjectType;
use crate::error::{Error, Result};
use crate::format::ancestry::{self, prefix};
use crate::format::index::{self, ENTRY};
use crate::format::limits;
use crate::format::record::{Head, Mark, NewSection, Section, SectionKind};
use crate::format::reference::PackRef;
use crate::format::sections::index_sections;
use crate::name::ObjectId;

/// Most live records without a merge.
const MANY: usize = 16;
/// Records with heads up to this size (rounded) are always merged; larger ones only when the smaller ones add up to half
/// their size.
const SMALL_HEAD: u64 = 64 << 10;
/// Most bytes of heads in one merge. Marks with filled-in ids at most double them, so the merged head stays below
/// [`limits::HEAD`].
const HEADS: u64 = 12 << 20;
/// Index sections below this size are always rewritten.
const SMALL: usize = 1 << 20;
/// Most bytes of index and packs sections that one merge rewrites: a section of full size.
const REWRITTEN: usize = limits::SECTION;

/// The record that prevents a merge, and why. It is left out of the next attempt.
pub(super) struct Culprit(ObjectId, Error);

impl Repository {
    /// Merges live records if there are many: refreshes `state`, commits the merged record and adds it to `state`. Leaves
    /// out records with unreadable sections or unknown extra values. Returns whether it merged.
    pub fn merge(&self, ctx: &Context, state: &mut State) -> Result<bool> {
        if mergeable(state, &BTreeSet::new()).len() < 2 {
            return Ok(false);
        }
        self.refresh(ctx, state)?;
        let mut unreadable = BTreeSet::new();
        loop {
            let ids = mergeable(state, &unreadable);
            if ids.len() < 2 {
                return Ok(false);
            }
            match self.merged(ctx, state, &ids) {
                Ok((head, sections)) => return self.commit(ctx, state, head, &sections).map(|_| true),
                Err(Culprit(id, e)) if e.kind().is_damage() => unreadable.insert(id),
                Err(Culprit(_, e)) => return Err(e),
            };
        }
    }

    /// Replaces the records that make false claims by one that contains them and not their claims. Returns their ids.
    pub fn replace_false_records(&self, ctx: &Context, state: &mut State) -> Result<BTreeSet<ObjectId>> {
        let ids: BTreeSet<ObjectId> = state.false_claims().keys().map(|claim| claim.by).collect();
        if !ids.is_empty() {
            let (head, sections) = self.merged(ctx, state, &ids).map_err(|Culprit(_, e)| e)?;
            self.commit(ctx, state, head, &sections)?;
        }
        Ok(ids)
    }

    fn merged(
        &self,
        ctx: &Context,
        state: &State,
        ids: &BTreeSet<ObjectId>,
    ) -> Result<(Head, Vec<NewSection>), Culprit> {
        let mut head = merged_head(state, ids);
        // Before the commit refreshes the state: other clients may have merged the same records by then.
        state.inherit(&mut head);
        let mut plan = Plan::of(state, ids);
        plan.name(&mut head);
        let dropped = state.live().flat_map(|(_, known)| known.record.head.dropped.iter().copied()).collect();
        let mut table = PackTable { dropped, ..PackTable::default() };
        let mut rows = Vec::with_capacity(plan.rewritten.iter().map(|(_, index)| index.section.len as usize).sum());
        for (id, packs) in &plan.copied {
            table.add(ctx, self, packs).map_err(|e| Culprit(*id, e))?;
        }
        for (id, index) in &plan.rewritten {
            table.append(ctx, self, index, &mut rows).map_err(|e| Culprit(*id, e))?;
        }
        let mut sections = index_sections(&table.rows, rows, head.sections.len() as u32);
        sections.extend(ancestry::sections(&self.ancestry(ctx, state, ids, &head)?));
        Ok((head, sections))
    }

    /// Returns the prefixes of all records that were merged into these.
    pub(super) fn ancestry(
        &self,
        ctx: &Context,
        state: &State,
        ids: &BTreeSet<ObjectId>,
        head: &Head,
    ) -> Result<BTreeSet<u64>, Culprit> {
        let mut all: BTreeSet<u64> = head.superseded.iter().map(prefix).collect();
        for id in ids {
            let known = state.live().find(|(live, _)| *live == id);
            all.extend(known.iter().flat_map(|(_, known)| known.record.head.superseded.iter().map(prefix)));
            for place in state.sections_of(id).iter().filter(|place| place.section.kind == SectionKind::Ancestry) {
                let bytes = self.section(ctx, place).map_err(|e| Culprit(*id, e))?;
                all.extend(ancestry::decode(&bytes));
            }
        }
        Ok(all)
    }
}

/// Returns the records to merge: those with small heads, and larger ones up to twice the sum of the smaller ones. None
/// if there are few records.
fn mergeable(state: &State, unreadable: &BTreeSet<ObjectId>) -> BTreeSet<ObjectId> {
    let mut found = Vec::new();
    for (id, known) in state.live() {
        let head = &known.record.head;
        let sections = state.sections_of(id);
        let is_whole = sections.len() == head.sections.len() && !sections.iter().any(LiveSection::lacks_packs);
        if is_whole && head.extra.is_empty() && !unreadable.contains(id) {
            found.push((known.record.base, *id));
        }
    }
    if found.len() <= MANY {
        return BTreeSet::new();
    }
    found.sort_unstable();
    let (mut chosen, mut sum) = (BTreeSet::new(), 0);
    for (size, id) in found {
        if (size > SMALL_HEAD && size > 2 * sum) || sum + size > HEADS {
            break;
        }
        sum += size;
        chosen.insert(id);
    }
    chosen
}

/// Returns the merged head of these records, without sections.
pub(super) fn merged_head(state: &State, ids: &BTreeSet<ObjectId>) -> Head {
    let (mut snapshots, mut marks, mut condemned) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut dropped = BTreeSet::new();
    // Ascending by id: of two snapshots with one id, the one in the record with the greater id is valid.
    for (id, known) in state.live().filter(|(id, _)| ids.contains(id)) {
        let head = &known.record.head;
        snapshots.extend(head.snapshots.iter().map(|s| (s.id, s.clone())));
        for mark in &head.marks {
            let mark = Mark { record: Some(mark.record.unwrap_or(*id)), ..mark.clone() };
            marks.insert(mark.order(), mark);
        }
        for (pack, since) in &head.condemned {
            condemned.entry(*pack).and_modify(|known: &mut i64| *known = (*known).min(*since)).or_insert(*since);
        }
        dropped.extend(head.dropped.iter().copied());
    }
    // A drop says more than a condemnation.
    condemned.retain(|pack, _| !dropped.contains(pack));
    Head {
        snapshots: snapshots.into_values().collect(),
        marks: marks.into_values().collect(),
        condemned: condemned.into_iter().collect(),
        dropped: dropped.into_iter().collect(),
        superseded: ids.iter().copied().collect(),
        ..Head::default()
    }
}

/// The sections of the merged records, each with a record that names it, sorted by their treatment.
#[derive(Default)]
struct Plan {
    /// Index sections to rewrite as one.
    rewritten: Vec<(ObjectId, LiveSection)>,
    /// Index sections to name in place.
    named: Vec<LiveSection>,
    /// Packs sections to copy to the new one.
    copied: Vec<(ObjectId, LiveSection)>,
    /// Packs sections to name in place.
    packs: BTreeMap<SectionKey, LiveSection>,
}

impl Plan {
    fn of(state: &State, ids: &BTreeSet<ObjectId>) -> Self {
        let (mut indexes, mut tables) = (BTreeMap::new(), BTreeMap::new());
        for id in ids {
            for place in state.sections_of(id) {
                match place.section.kind {
                    SectionKind::Index { .. } => drop(indexes.insert(place.key(), (*id, place))),
                    SectionKind::Packs => drop(tables.insert(place.key(), (*id, place))),
                    SectionKind::Ancestry => {}
                }
            }
        }
        let mut indexes: Vec<_> = indexes.into_values().collect();
        indexes.sort_by_key(|(_, place)| place.section.len);
        let (mut plan, mut sum, mut bytes) = (Plan::default(), 0, 0);
        let mut used = BTreeSet::new();
        for (id, index) in indexes {
            let Some(packs) = index.packs.as_deref() else { continue };
            let (len, table) = (index.section.len as usize, packs.key());
            let more = len + if used.contains(&table) { 0 } else { packs.section.len as usize };
            if plan.named.is_empty() && (len < SMALL || len <= 2 * sum) && bytes + more <= REWRITTEN {
                (sum, bytes) = (sum + len, bytes + more);
                used.insert(table);
                plan.rewritten.push((id, index));
            } else {
                plan.packs.insert(table, packs.clone());
                plan.named.push(index);
            }
        }
        for (key, (id, table)) in tables {
            let more = if used.contains(&key) { 0 } else { table.section.len as usize };
            if used.contains(&key) || (!plan.packs.contains_key(&key) && bytes + more <= REWRITTEN) {
                bytes += more;
                plan.copied.push((id, table));
            } else {
                plan.packs.insert(key, table);
            }
        }
        plan
    }

    /// Names the sections that stay in place in the head.
    fn name(&mut self, head: &mut Head) {
        let named = |place: &LiveSection, kind| Section {
            kind,
            record: Some((place.sequence(), place.object.id, place.object.len)),
            ..place.section.clone()
        };
        let rows: BTreeMap<&SectionKey, u32> = self.packs.keys().zip(0..).collect();
        head.sections.extend(self.packs.values().map(|place| named(place, SectionKind::Packs)));
        for place in &self.named {
            let packs = place.packs.as_deref().map_or(0, |packs| rows[&packs.key()]);
            head.sections.push(named(place, SectionKind::Index { packs }));
        }
    }
}

/// The new packs section: the packs of all rewritten sections, each once.
#[derive(Default)]
struct PackTable {
    rows: Vec<(PackRef, ObjectType)>,
    numbers: HashMap<ObjectId, u32>,
    tables: BTreeMap<SectionKey, Vec<ObjectId>>,
    /// Dropped packs. Their chunks are not indexed any more.
    dropped: BTreeSet<ObjectId>,
}

impl PackTable {
    fn add(&mut self, ctx: &Context, repo: &Repository, place: &LiveSection) -> Result<()> {
        let table = index::decode_packs(&repo.section(ctx, place)?)?;
        for (pack, kind) in table.iter().filter(|(pack, _)| !self.dropped.contains(&pack.id)) {
            self.numbers.entry(pack.id).or_insert_with(|| {
                self.rows.push((*pack, *kind));
                self.rows.len() as u32 - 1
            });
        }
        self.tables.insert(place.key(), table.into_iter().map(|(pack, _)| pack.id).collect());
        Ok(())
    }

    /// Appends the rows of an index section, with the pack numbers of the new packs section.
    fn append(&self, ctx: &Context, repo: &Repository, place: &LiveSection, rows: &mut Vec<u8>) -> Result<()> {
        let start = rows.len();
        repo.section_in_pieces(ctx, place, |piece| rows.extend_from_slice(piece))?;
        let table = place.packs.as_deref().and_then(|packs| self.tables.get(&packs.key()));
        let table = table.ok_or_else(|| Error::damaged("an index section without its packs section"))?;
        let mut to = start;
        for from in (start..rows.len()).step_by(ENTRY) {
            let mut row: [u8; ENTRY] = *rows[from..].first_chunk().expect("a section has whole entries");
            let pack = table.get(index::decode(&row)?.0 as usize);
            let pack = pack.ok_or_else(|| Error::damaged("an index entry names a pack that is not in its table"))?;
            let Some(number) = self.numbers.get(pack) else { continue };
            index::renumber(&mut row, *number);
            rows[to..to + ENTRY].copy_from_slice(&row);
            to += ENTRY;
        }
        rows.truncate(to);
        Ok(())
    }
}
