//! The state of a repository: the fold of its log.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::fetch::{Object, Span};
use super::{Repository, parallel};
use crate::context::Context;
use crate::crypto::seal::{self, BLOCK, ObjectType};
use crate::error::{Error, Kind, Result};
use crate::format::ancestry::{self, prefix};
use crate::format::limits;
use crate::format::record::{self, Action, Head, Record, Section, SectionKind, Snapshot, SnapshotId};
use crate::name::{Folder, Name, ObjectId};
use crate::seen::SeenHead;
use crate::storage::Entry;

/// Records that are read at the same time.
const READERS: usize = 16;
/// Records up to this size are read whole, with one round trip.
const WHOLE: u64 = 256 << 10;

/// A record that was read.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub sequence: u32,
    /// Bytes of its plaintext.
    pub len: u64,
    pub record: Arc<Record>,
}

/// The fold of the log. [`Repository::refresh`] brings it up to date.
///
/// A record that another one supersedes need not be read, because [`Repository::commit`] makes each record repeat everything
/// in the records that it supersedes:
///
/// - *In force* are the records that no other record supersedes. The records that an unread record superseded
///   (and that were still listed then) are in the list of the one that supersedes it.
/// - *Frontier*, *missing*: predecessors of an unread record that are neither superseded nor merged are predecessors
///   of the one that supersedes it. So a lost record is still reported, and a followed record stays followed.
/// - *Next sequence*: an unread record has a lower sequence than the one that supersedes it. (The one in its file name
///   is an unverified claim of the server, so it must not count.)
#[derive(Clone, Debug, Default)]
pub struct State {
    known: BTreeMap<ObjectId, Known>,
    /// With the size that the listing shows.
    pub(super) incomplete: BTreeMap<ObjectId, (u64, String)>,
    listed: BTreeSet<ObjectId>,
    /// Prefixes of merged records; read only when a record seems to be missing.
    pub(super) ancestry: HashSet<u64>,
    /// Warnings that do not come from a record.
    pub(super) notes: Vec<String>,
}

impl Known {
    /// As it is remembered.
    pub(super) fn seen(&self, id: &ObjectId) -> SeenHead {
        SeenHead { sequence: self.sequence, id: *id, time: self.record.head.time }
    }
}

/// A section that is in force, and the record that holds it.
#[derive(Clone, Debug)]
pub(super) struct LiveSection {
    pub(super) object: Object,
    pub(super) base: u64,
    /// Its place and fences.
    pub(super) section: Section,
    /// The packs section that an index section counts in.
    pub(super) packs: Option<Box<LiveSection>>,
}

/// A section by its place: the record that holds it and its offset there. Several records may name it.
pub type SectionKey = (ObjectId, u32);

impl LiveSection {
    pub(super) fn key(&self) -> SectionKey {
        (self.object.id, self.section.offset)
    }

    /// Where it begins in the plaintext of its record.
    pub(super) fn start(&self) -> u64 {
        self.base + u64::from(self.section.offset)
    }

    /// The sequence of the record that holds it.
    pub(super) fn sequence(&self) -> u32 {
        match self.object.name {
            Name::Record { sequence, .. } => sequence,
            _ => 0,
        }
    }

    /// Whether it is an index and its packs have no place.
    pub(super) fn lacks_packs(&self) -> bool {
        matches!(self.section.kind, SectionKind::Index { .. }) && self.packs.is_none()
    }
}

impl State {
    /// Records in force: not superseded by another one.
    pub(super) fn live(&self) -> impl Iterator<Item = (&ObjectId, &Known)> {
        let superseded = self.superseded();
        self.known.iter().filter(move |(id, _)| !superseded.contains(id))
    }

    pub(super) fn superseded(&self) -> HashSet<&ObjectId> {
        self.known.values().flat_map(|k| &k.record.head.superseded).collect()
    }

    /// The sequence of a record that was read.
    pub fn sequence(&self, id: &ObjectId) -> Option<u32> {
        self.known.get(id).map(|known| known.sequence)
    }

    /// Number of records in force.
    pub fn records(&self) -> usize {
        self.live().count()
    }

    /// Ids of the records that no other record follows, ascending: the `heads` of the next one.
    pub fn frontier(&self) -> Vec<ObjectId> {
        let followed: HashSet<&ObjectId> = self.known.values().flat_map(|k| &k.record.head.heads).collect();
        self.live().map(|(id, _)| *id).filter(|id| !followed.contains(id)).collect()
    }

    /// The sequence of the next record.
    pub fn next_sequence(&self) -> u32 {
        self.known.values().map(|k| k.sequence).max().map_or(1, |s| s.saturating_add(1))
    }

    /// Every snapshot that is not forgotten, oldest first, with its tags as marked last.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.fold(false)
    }

    /// Every snapshot that was forgotten and not undeleted, oldest first.
    pub fn forgotten(&self) -> Vec<Snapshot> {
        self.fold(true)
    }

    fn fold(&self, want_forgotten: bool) -> Vec<Snapshot> {
        let mut all: BTreeMap<SnapshotId, Snapshot> = BTreeMap::new();
        let mut marks = Vec::new();
        for (id, known) in self.live() {
            let head = &known.record.head;
            all.extend(head.snapshots.iter().map(|s| (s.id, s.clone())));
            marks.extend(head.marks.iter().map(|m| ((m.sequence, m.record.unwrap_or(*id)), m)));
        }
        marks.sort_by_key(|(order, _)| *order);
        let mut forgotten = HashSet::new();
        for (_, mark) in marks {
            match &mark.action {
                Action::Forget => drop(forgotten.insert(mark.snapshot)),
                Action::Undelete => drop(forgotten.remove(&mark.snapshot)),
                Action::Tag(tags) => {
                    if let Some(s) = all.get_mut(&mark.snapshot) {
                        s.tags.clone_from(tags);
                    }
                }
            }
        }
        let mut wanted: Vec<_> = all.into_values().filter(|s| forgotten.contains(&s.id) == want_forgotten).collect();
        wanted.sort_by_key(|s| (s.time, s.id));
        wanted
    }

    /// Packs that must not be referred to any more: condemned or dropped.
    pub fn doomed_packs(&self) -> HashSet<ObjectId> {
        let heads = self.live().map(|(_, k)| &k.record.head);
        heads.flat_map(|h| h.condemned.iter().map(|(id, _)| *id).chain(h.dropped.iter().copied())).collect()
    }

    /// Returns the packs that prune has dropped.
    pub fn dropped_packs(&self) -> HashSet<ObjectId> {
        self.live().flat_map(|(_, known)| known.record.head.dropped.iter().copied()).collect()
    }

    /// Bytes of the index in force.
    pub fn index_len(&self) -> u64 {
        self.index_sections().iter().map(|(_, place)| u64::from(place.section.len)).sum()
    }

    /// Index sections in force, each with the record in force that names it.
    pub(super) fn index_sections(&self) -> Vec<(ObjectId, LiveSection)> {
        let is_index = |place: &LiveSection| matches!(place.section.kind, SectionKind::Index { .. });
        let all = self.live().flat_map(|(id, _)| self.sections_of(id).into_iter().map(|place| (*id, place)));
        all.filter(|(_, place)| is_index(place)).collect()
    }

    /// The sections that a record names, in the order of its head, its own and those of others.
    pub(super) fn sections_of(&self, id: &ObjectId) -> Vec<LiveSection> {
        let Some(known) = self.known.get(id) else { return Vec::new() };
        let sections = &known.record.head.sections;
        let place = |section: &Section| {
            let mut place = self.place(id, known, section)?;
            if let SectionKind::Index { packs } = section.kind {
                place.packs = self.place(id, known, &sections[packs as usize]).map(Box::new);
            }
            Some(place)
        };
        sections.iter().filter_map(place).collect()
    }

    /// The sections of a record as one that supersedes it names them; `None` if one of them has no place.
    pub fn named_sections(&self, id: &ObjectId) -> Option<Vec<Section>> {
        let known = self.known.get(id)?;
        let here = (known.sequence, *id, known.len);
        let named = |s: &Section| Section { record: Some(s.record.unwrap_or(here)), ..s.clone() };
        let sections = &known.record.head.sections;
        sections.iter().map(|s| self.place(id, known, s).map(|_| named(s))).collect()
    }

    /// The records that a record supersedes.
    pub(super) fn superseded_by(&self, id: &ObjectId) -> impl Iterator<Item = ObjectId> + '_ {
        self.known.get(id).into_iter().flat_map(|known| known.record.head.superseded.iter().copied())
    }

    /// Where a section of a record is; `None` if the record that holds it was not read.
    fn place(&self, id: &ObjectId, known: &Known, section: &Section) -> Option<LiveSection> {
        let (sequence, id, len) = section.record.unwrap_or((known.sequence, *id, known.len));
        let base = self.known.get(&id)?.record.base;
        let object = Object { name: Name::Record { sequence, id }, id, kind: ObjectType::Record, len };
        Some(LiveSection { object, base, section: section.clone(), packs: None })
    }

    /// Leaves of a listing what is still to be read, in ascending order of urgency: not known, and not superseded unless
    /// one in force names a section of it. Returns whether anything is left.
    fn narrow(&self, open: &mut Vec<Entry>) -> bool {
        let superseded = self.superseded();
        let named: HashSet<&ObjectId> = self.known.values().flat_map(|k| &k.record.head.heads).collect();
        let holders = self.holders();
        let of = |entry: &Entry| record_of(entry).expect("nothing else is in the list");
        open.retain(|entry| {
            let (_, id) = of(entry);
            !self.known.contains_key(&id) && (!superseded.contains(&id) || holders.contains(&id))
        });
        open.sort_by_cached_key(|entry| {
            let (sequence, id) = of(entry);
            (named.contains(&id) || holders.contains(&id), sequence)
        });
        !open.is_empty()
    }

    /// Records that hold sections which records in force name.
    fn holders(&self) -> HashSet<ObjectId> {
        let sections = self.live().flat_map(|(_, known)| &known.record.head.sections);
        sections.filter_map(|section| section.record.map(|(_, id, _)| id)).collect()
    }

    /// Drops the records that a client that opens the repository now would not read.
    fn forget(&mut self) {
        let superseded: HashSet<ObjectId> = self.superseded().into_iter().copied().collect();
        let holders = self.holders();
        self.known.retain(|id, _| !superseded.contains(id) || holders.contains(id));
        self.incomplete.retain(|id, _| !superseded.contains(id));
    }

    /// Adds to `head` everything that the records it supersedes contain about other records, so that they need not be read
    /// any more (see [`State`]). All of them must be known.
    pub(super) fn inherit(&self, head: &mut Head) {
        let mut superseded: BTreeSet<ObjectId> = head.superseded.iter().copied().collect();
        let mut heads: BTreeSet<ObjectId> = head.heads.iter().copied().collect();
        for known in head.superseded.iter().filter_map(|id| self.known.get(id)) {
            let theirs = &known.record.head;
            superseded.extend(theirs.superseded.iter().filter(|id| self.listed.contains(id)));
            heads.extend(theirs.heads.iter().filter(|id| !self.ancestry.contains(&prefix(id))));
        }
        let gone = self.superseded();
        heads.retain(|id| head.heads.contains(id) || !(superseded.contains(id) || gone.contains(id)));
        (head.superseded, head.heads) = (superseded.into_iter().collect(), heads.into_iter().collect());
    }

    /// A record that this client has just written: it need not be fetched to be known.
    pub(super) fn learn(&mut self, id: ObjectId, known: Known) {
        self.listed.insert(id);
        self.known.insert(id, known);
        self.forget();
    }

    /// Returns warnings for the user: records that cannot be read, records that are named but missing.
    pub fn warnings(&self) -> Vec<String> {
        let superseded = self.superseded();
        let incomplete = self.incomplete.iter().filter(|(id, _)| !superseded.contains(id));
        let incomplete = incomplete.map(|(id, (_, why))| format!("incomplete record log/*-{id}: {why}"));
        let missing = self.missing().into_iter();
        let missing = missing.map(|id| format!("record {id} is missing: the server has lost it or hides it"));
        self.notes.iter().cloned().chain(incomplete).chain(missing).collect()
    }

    /// Records that once counted and are not there, or cannot be read, and are in no other one: others name them.
    pub fn lost(&self) -> BTreeSet<ObjectId> {
        let superseded = self.superseded();
        let heads = self.known.values().flat_map(|k| &k.record.head.heads);
        // A copy under another sequence is incomplete, and takes nothing from the record that was read.
        let torn = |id: &&ObjectId| self.incomplete.contains_key(id) && !self.known.contains_key(id);
        let torn = heads.filter(torn).filter(|id| !superseded.contains(id)).copied();
        torn.chain(self.missing()).collect()
    }

    /// Whether a record is listed and was read.
    pub(super) fn is_there(&self, id: &ObjectId) -> bool {
        self.listed.contains(id) && self.known.contains_key(id)
    }

    pub(super) fn known_ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.known.keys()
    }

    /// The records that were read, each behind those that it can follow.
    pub(super) fn by_sequence(&self) -> Vec<(ObjectId, &Known)> {
        let mut records: Vec<_> = self.known.iter().map(|(id, known)| (*id, known)).collect();
        records.sort_by_key(|(id, known)| (known.sequence, *id));
        records
    }

    /// Returns the fate of a record that was seen, for a message.
    pub(super) fn fate(&self, id: &ObjectId) -> &'static str {
        match self.incomplete.contains_key(id) {
            true => " is damaged now",
            false => " is gone",
        }
    }

    /// Records that others name as their predecessors and that are neither there, nor superseded, nor merged long ago.
    pub(super) fn missing(&self) -> BTreeSet<ObjectId> {
        let heads = self.known.values().map(|k| &k.record.head);
        let covered: HashSet<&ObjectId> = heads.clone().flat_map(|h| &h.superseded).collect();
        let named = heads.flat_map(|h| &h.heads);
        let gone = named.filter(|id| !self.listed.contains(id) && !covered.contains(id));
        gone.filter(|id| !self.ancestry.contains(&prefix(id))).copied().collect()
    }
}

impl Repository {
    /// Reads the log.
    pub fn state(&self, ctx: &Context) -> Result<State> {
        let mut state = State::default();
        self.refresh(ctx, &mut state)?;
        Ok(state)
    }

    /// Reads the new records of the log. A listing is not atomic: if a named record is missing, the log is listed again.
    /// Returns whether anything is new.
    pub fn refresh(&self, ctx: &Context, state: &mut State) -> Result<bool> {
        let (mut new, mut gone) = (false, Vec::new());
        for _ in 0..3 {
            // Asked before the listing: a record that another process commits in between is in neither or in both.
            let wanted = self.wanted();
            let listing = self.storage.list(ctx, Folder::Log)?;
            state.listed = listing.iter().filter_map(|e| record_of(e).map(|(_, id)| id)).collect();
            let (read, vanished) = self.read_new(ctx, state, listing)?;
            new |= read;
            let doubtful = |state: &State| {
                let gone = self.unexplained(state, &wanted);
                let doubt = !gone.is_empty() || !state.missing().is_empty() || self.lacks_expected(state);
                (gone, doubt)
            };
            if doubtful(state).1 {
                self.read_ancestry(ctx, state)?;
            }
            let doubt;
            (gone, doubt) = doubtful(state);
            if !vanished && !doubt {
                break;
            }
        }
        self.witness(state, &gone, new)?;
        state.forget();
        Ok(new)
    }

    /// Reads the records of a listing that are not known and not superseded by one that is. Returns whether there
    /// were any, and whether one had vanished.
    ///
    /// The newest come first, because they supersede the others, and with them whatever those that were read name as
    /// their predecessors: a merge names the records that it left alone. So a log that is kept short by merges is read in a
    /// few waves, however long it is; while waves supersede nothing they grow.
    fn read_new(&self, ctx: &Context, state: &mut State, listing: Vec<Entry>) -> Result<(bool, bool)> {
        let (mut new, mut vanished, mut wave) = (false, false, READERS);
        let mut open: Vec<Entry> = listing.into_iter().filter(|entry| record_of(entry).is_some()).collect();
        while state.narrow(&mut open) {
            let before = open.len();
            let first = open.split_off(open.len().saturating_sub(wave));
            let results = parallel(READERS, first, |entry| (entry.clone(), self.read_record(ctx, &entry)));
            for (entry, result) in results {
                let Some((sequence, id)) = record_of(&entry) else { continue };
                match result {
                    Ok((len, record)) => {
                        state.incomplete.remove(&id);
                        state.known.insert(id, Known { sequence, len, record: Arc::new(record) });
                        new = true;
                    }
                    Err(e) if e.kind() == Kind::Missing => vanished = true,
                    Err(e) if e.kind() == Kind::Damaged => {
                        drop(state.incomplete.insert(id, (entry.size, e.to_string())))
                    }
                    Err(e) => return Err(e),
                }
            }
            state.narrow(&mut open);
            wave = if open.len() + wave < before { READERS } else { wave * 2 };
        }
        Ok((new, vanished))
    }

    fn read_ancestry(&self, ctx: &Context, state: &mut State) -> Result<()> {
        let places = state.live().flat_map(|(id, _)| state.sections_of(id));
        let places: Vec<_> = places.filter(|place| place.section.kind == SectionKind::Ancestry).collect();
        for place in places {
            let bytes = self.section(ctx, &place)?;
            state.ancestry.extend(ancestry::decode(&bytes));
        }
        Ok(())
    }

    fn read_record(&self, ctx: &Context, entry: &Entry) -> Result<(u64, Record)> {
        let Some((sequence, id)) = record_of(entry) else { return Err(Error::damaged("not a record")) };
        let len = seal::plain_len(entry.size).filter(|len| *len >= 4 && *len <= limits::RECORD as u64);
        let len = len.ok_or_else(|| Error::damaged("no record has its size (it is being written, or was cut off)"))?;
        let object = Object { name: entry.name, id, kind: ObjectType::Record, len };
        let whole = if entry.size <= WHOLE { len } else { BLOCK as u64 };
        let start = match self.fetcher.read(ctx, &object, 0..whole.min(len), Span::Exact) {
            // Perhaps only a section of it is damaged.
            Err(e) if e.kind() == Kind::Damaged => {
                self.fetcher.read(ctx, &object, 0..len.min(BLOCK as u64), Span::Exact)?
            }
            other => other?,
        };
        let end = record::head_end(start[..4].try_into().expect("at least four bytes"))?;
        let start = match start.get(..end) {
            Some(head) => head.to_vec(),
            None => self.fetcher.read(ctx, &object, 0..end as u64, Span::Exact)?,
        };
        Ok((len, record::decode(sequence, &start)?))
    }
}

fn record_of(entry: &Entry) -> Option<(u32, ObjectId)> {
    match entry.name {
        Name::Record { sequence, id } => Some((sequence, id)),
        _ => None,
    }
}
