//! The state of a repository: the fold of its log. No I/O; [`super::log`] reads the records.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::object::Object;
use super::supersede::Claim;
use crate::crypto::seal::ObjectType;
use crate::format::ancestry::prefix;
use crate::format::record::{Head, Record, Section, SectionKind};
use crate::name::{Name, ObjectId};
use crate::seen::SeenHead;
use crate::storage::Entry;

/// A record that was read.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub sequence: u32,
    /// Length of the plaintext.
    pub len: u64,
    pub record: Arc<Record>,
}

/// The fold of the log. [`super::Repository::refresh`] brings it up to date.
///
/// Superseded records are not read. The fold does not need them, because [`super::Repository::commit`] copies
/// everything that a record contributes to the fold into the record that supersedes it ([`State::inherit`]):
///
/// - *Live*: the ids that an unread record superseded (and that were still listed) are in the superseding record.
/// - *Frontier*, *missing*: predecessors of an unread record that are neither superseded nor merged are predecessors
///   of the superseding record. So a missing record stays missing, and a followed record stays followed.
/// - *Next sequence*: an unread record has a lower sequence than the superseding record. (The sequence in the file name
///   is not verified and does not count.)
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Records that were read.
    pub(super) known: BTreeMap<ObjectId, Known>,
    /// Listed records that fail their checks, with the size in the listing and the reason.
    pub(super) incomplete: BTreeMap<ObjectId, (u64, String)>,
    pub(super) listed: BTreeSet<ObjectId>,
    /// The last listing of the log.
    pub(super) listing: BTreeMap<ObjectId, Entry>,
    /// Prefixes of merged records. Read only if a record seems to be missing.
    pub(super) ancestry: HashSet<u64>,
    /// Claims of records to supersede others that they do not contain. They are ignored.
    pub(super) false_claims: BTreeMap<Claim, String>,
    /// Warnings of the rollback checks.
    pub(super) notes: Vec<String>,
}

impl Known {
    /// Returns the record as [`crate::seen`] stores it.
    pub(super) fn seen(&self, id: &ObjectId) -> SeenHead {
        SeenHead { sequence: self.sequence, id: *id, time: self.record.head.time }
    }
}

/// A section that a live record names, and the record that holds it.
#[derive(Clone, Debug)]
pub(super) struct LiveSection {
    pub(super) object: Object,
    pub(super) base: u64,
    /// Place and fences.
    pub(super) section: Section,
    /// For an index section: the packs section that its pack numbers refer to.
    pub(super) packs: Option<Box<LiveSection>>,
}

/// Identity of a section: the record that holds it and its offset there.
pub type SectionKey = (ObjectId, u32);

impl LiveSection {
    pub(super) fn key(&self) -> SectionKey {
        (self.object.id, self.section.offset)
    }

    /// Returns the offset in the plaintext of the record.
    pub(super) fn start(&self) -> u64 {
        self.base + u64::from(self.section.offset)
    }

    /// Returns the sequence of the record that holds the section.
    pub(super) fn sequence(&self) -> u32 {
        match self.object.name {
            Name::Record { sequence, .. } => sequence,
            _ => 0,
        }
    }

    /// Returns whether this is an index section whose packs section is in a record that was not read.
    pub(super) fn lacks_packs(&self) -> bool {
        matches!(self.section.kind, SectionKind::Index { .. }) && self.packs.is_none()
    }
}

impl State {
    /// Returns the live records.
    pub(super) fn live(&self) -> impl Iterator<Item = (&ObjectId, &Known)> {
        let superseded = self.superseded();
        self.known.iter().filter(move |(id, _)| !superseded.contains(id))
    }

    /// Returns the records that are superseded. The claims of a superseded record do not count for records that are listed:
    /// the superseding one has inherited those that are true ([`State::inherit`]). They count for records that were read
    /// and then deleted by `prune`, since the superseding record does not name those.
    pub(super) fn superseded(&self) -> HashSet<&ObjectId> {
        let claiming = self.known.iter().filter(|(_, known)| !known.record.head.superseded.is_empty());
        let mut claiming: Vec<_> = claiming.collect();
        // A record supersedes only earlier ones.
        claiming.sort_by_key(|(id, known)| Reverse((known.sequence, **id)));
        let mut superseded = HashSet::new();
        for (by, known) in claiming {
            let is_superseded = superseded.contains(by);
            let claims = known.record.head.superseded.iter().filter(|of| !self.is_false_claim(by, of));
            superseded.extend(claims.filter(|of| !is_superseded || !self.listed.contains(of)));
        }
        superseded
    }

    fn is_false_claim(&self, by: &ObjectId, of: &ObjectId) -> bool {
        !self.false_claims.is_empty() && self.false_claims.contains_key(&Claim { by: *by, of: *of })
    }

    /// Returns the sequence of a record that was read.
    pub fn sequence(&self, id: &ObjectId) -> Option<u32> {
        self.known.get(id).map(|known| known.sequence)
    }

    /// Returns whether any record was read.
    pub(super) fn has_records(&self) -> bool {
        !self.known.is_empty()
    }

    /// Returns the number of live records.
    pub fn records(&self) -> usize {
        self.live().count()
    }

    /// Returns the ids of the live records that no other record follows, ascending: the `heads` of the next record.
    pub fn frontier(&self) -> Vec<ObjectId> {
        let followed: HashSet<&ObjectId> = self.known.values().flat_map(|k| &k.record.head.heads).collect();
        self.live().map(|(id, _)| *id).filter(|id| !followed.contains(id)).collect()
    }

    /// Returns the sequence of the next record.
    pub fn next_sequence(&self) -> u32 {
        self.known.values().map(|k| k.sequence).max().map_or(1, |s| s.saturating_add(1))
    }

    /// Returns the packs that must not be used: condemned or dropped.
    pub fn condemned_packs(&self) -> HashSet<ObjectId> {
        let heads = self.live().map(|(_, k)| &k.record.head);
        heads.flat_map(|h| h.condemned.iter().map(|(id, _)| *id).chain(h.dropped.iter().copied())).collect()
    }

    /// Returns the packs that prune has dropped.
    pub fn dropped_packs(&self) -> HashSet<ObjectId> {
        self.live().flat_map(|(_, known)| known.record.head.dropped.iter().copied()).collect()
    }

    /// Returns the bytes of the index.
    pub fn index_len(&self) -> u64 {
        self.index_sections().iter().map(|(_, place)| u64::from(place.section.len)).sum()
    }

    /// Returns the live index sections, each with the record that names it.
    pub(super) fn index_sections(&self) -> Vec<(ObjectId, LiveSection)> {
        let is_index = |place: &LiveSection| matches!(place.section.kind, SectionKind::Index { .. });
        let all = self.live().flat_map(|(id, _)| self.sections_of(id).into_iter().map(|place| (*id, place)));
        all.filter(|(_, place)| is_index(place)).collect()
    }

    /// Returns the sections that a record names, in the order of its head. Leaves out sections of records that were not
    /// read.
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

    /// Returns the records that a record supersedes.
    pub(super) fn superseded_by(&self, id: &ObjectId) -> impl Iterator<Item = ObjectId> + '_ {
        self.known.get(id).into_iter().flat_map(|known| known.record.head.superseded.iter().copied())
    }

    /// Locates a section of a record; `None` if the record that holds the section was not read.
    fn place(&self, id: &ObjectId, known: &Known, section: &Section) -> Option<LiveSection> {
        let (sequence, id, len) = section.record.unwrap_or((known.sequence, *id, known.len));
        let base = self.known.get(&id)?.record.base;
        let object = Object { name: Name::Record { sequence, id }, id, kind: ObjectType::Record, len };
        Some(LiveSection { object, base, section: section.clone(), packs: None })
    }

    /// Returns the records with sections that live records name.
    pub(super) fn holders(&self) -> HashSet<ObjectId> {
        let sections = self.live().flat_map(|(_, known)| &known.record.head.sections);
        sections.filter_map(|section| section.record.map(|(_, id, _)| id)).collect()
    }

    /// Drops records that a client would not read if it opened the repository now.
    pub(super) fn forget(&mut self) {
        let superseded: HashSet<ObjectId> = self.superseded().into_iter().copied().collect();
        let holders = self.holders();
        self.known.retain(|id, _| !superseded.contains(id) || holders.contains(id));
        self.incomplete.retain(|id, _| !superseded.contains(id));
        self.false_claims.retain(|claim, _| self.known.contains_key(&claim.by));
    }

    /// Copies to `head` what the superseded records contribute to the fold about other records, so that no client needs
    /// to read them (see [`State`]). All of them must be known.
    pub(super) fn inherit(&self, head: &mut Head) {
        let mut superseded: BTreeSet<ObjectId> = head.superseded.iter().copied().collect();
        let mut heads: BTreeSet<ObjectId> = head.heads.iter().copied().collect();
        for (by, known) in head.superseded.iter().filter_map(|id| self.known.get_key_value(id)) {
            let theirs = &known.record.head;
            let claimed = theirs.superseded.iter().filter(|of| self.listed.contains(of));
            superseded.extend(claimed.filter(|of| !self.is_false_claim(by, of)));
            heads.extend(theirs.heads.iter().filter(|id| !self.ancestry.contains(&prefix(id))));
        }
        let superseded_before = self.superseded();
        heads.retain(|id| head.heads.contains(id) || !(superseded.contains(id) || superseded_before.contains(id)));
        (head.superseded, head.heads) = (superseded.into_iter().collect(), heads.into_iter().collect());
    }

    /// Adds a record that this client has just committed, without reading it back.
    pub(super) fn learn(&mut self, id: ObjectId, known: Known) {
        self.listed.insert(id);
        self.known.insert(id, known);
        self.forget();
    }
}
