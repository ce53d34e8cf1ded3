//! Questions of `check`: faults of the log, the packs that records list, whole index sections, single blocks of packs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::object::Object;
use super::state::{LiveSection, SectionKey, State};
use super::{Repository, parallel};
use crate::allowance::Allowance;
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::{ObjectType, plain_len};
use crate::error::{Error, Kind, Result};
use crate::format::codec::padded_record;
use crate::format::index::{self, ENTRY};
use crate::format::limits;
use crate::format::pack::Entry;
use crate::format::record::SectionKind;
use crate::format::reference::PackRef;
use crate::name::{Name, ObjectId};

/// Maximum number of sections that are read at the same time.
const READERS: usize = 32;
/// Maximum of their bytes: many small ones, or few large ones.
const IN_FLIGHT: u64 = 16 << 20;
/// Bytes in memory of a large section that is read in pieces.
const PIECES: u64 = 4 << 20;

/// Takes a row of the index: a pack, and the entry of a chunk in it.
pub type TakeRow<'a> = dyn Fn(&PackRef, &Entry) + Sync + 'a;

/// A listed record that fails its checks and that no other record supersedes.
#[derive(Clone, Debug)]
pub struct Incomplete {
    /// Id of the record.
    pub id: ObjectId,
    /// The reason why the record fails its checks.
    pub why: String,
    /// Whether the record was complete once: another record follows it, or it has the size of a complete record. Else it is
    /// the file of an interrupted commit, and nothing is lost.
    pub lost: bool,
}

/// Faults of the record log.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Records that other records follow and that are missing.
    pub missing: Vec<ObjectId>,
    /// Incomplete records.
    pub incomplete: Vec<Incomplete>,
}

/// The rows of a packs section.
pub(super) type Table = Arc<Vec<(PackRef, ObjectType)>>;

/// All live packs sections.
#[derive(Default)]
pub struct Tables {
    pub(super) rows: HashMap<SectionKey, Table>,
    /// Sections that could not be read, with the error.
    pub problems: Vec<(SectionKey, Error)>,
}

impl Tables {
    /// Returns every pack that a live record lists. A pack may occur several times.
    pub fn packs(&self) -> impl Iterator<Item = &(PackRef, ObjectType)> {
        self.rows.values().flat_map(|rows| rows.iter())
    }
}

impl State {
    /// Returns the faults of the log.
    pub fn faults(&self) -> Faults {
        let superseded = self.superseded();
        let named: HashSet<&ObjectId> = self.live().flat_map(|(_, known)| &known.record.head.heads).collect();
        let incomplete = self.incomplete.iter().filter(|(id, _)| !superseded.contains(id));
        let incomplete = incomplete.map(|(id, (size, why))| Incomplete {
            id: *id,
            why: why.clone(),
            lost: named.contains(id) || has_class(*size),
        });
        Faults { incomplete: incomplete.collect(), missing: self.missing().into_iter().collect() }
    }

    /// Returns the number of packs that live records list. A pack in two records counts twice.
    pub fn listed_packs(&self) -> u64 {
        let sections = self.distinct(|kind| *kind == SectionKind::Packs);
        sections.iter().map(|place| u64::from(place.section.len) / index::PACK_ROW as u64).sum()
    }

    pub(super) fn distinct(&self, wanted: impl Fn(&SectionKind) -> bool) -> Vec<LiveSection> {
        let all = self.live().flat_map(|(id, _)| self.sections_of(id));
        let all = all.filter(|place| wanted(&place.section.kind));
        let all: BTreeMap<SectionKey, LiveSection> = all.map(|place| (place.key(), place)).collect();
        all.into_values().collect()
    }

    /// Returns the sections that cannot be read because the record that holds them was not read.
    fn unplaced(&self) -> Vec<(SectionKey, Error)> {
        let lost = self.live().filter(|(id, known)| {
            let sections = self.sections_of(id);
            sections.len() < known.record.head.sections.len() || sections.iter().any(LiveSection::lacks_packs)
        });
        lost.map(|(id, _)| {
            ((*id, u32::MAX), Error::new(Kind::Missing, "a record that holds a section of it is not there"))
        })
        .collect()
    }
}

/// Returns whether a file of this size is a complete record. Records are padded to few sizes, and an interrupted write
/// does not end at one by chance.
fn has_class(size: u64) -> bool {
    let plain = plain_len(size).filter(|plain| *plain <= limits::RECORD as u64);
    plain.is_some_and(|plain| plain > 0 && padded_record(plain as usize, limits::RECORD_FLOOR) as u64 == plain)
}

impl Repository {
    /// Drops all blocks in memory and leaves the disk cache, so that the next read returns the current bytes of the storage.
    pub fn forget_blocks(&self) {
        self.fetcher.forget();
    }

    /// Reads all live packs sections.
    pub fn tables(&self, ctx: &Context, state: &State) -> Result<Tables> {
        let sections = state.distinct(|kind| *kind == SectionKind::Packs);
        let allowance = Allowance::new(IN_FLIGHT);
        let read = parallel(READERS, sections, |place| {
            let share = allowance.take(ctx, place.section.len.into());
            let rows = share.and_then(|_share| index::decode_packs(&self.section(ctx, &place)?));
            (place.key(), rows)
        });
        let mut tables = Tables { problems: state.unplaced(), ..Tables::default() };
        for (key, rows) in read {
            match rows {
                Ok(rows) => drop(tables.rows.insert(key, Arc::new(rows))),
                Err(e) if e.kind().is_damage() => tables.problems.push((key, e)),
                Err(e) => return Err(e),
            }
        }
        Ok(tables)
    }

    /// Returns the packs of unusable index sections, as far as their packs sections can be read.
    pub fn packs_of(&self, ctx: &Context, state: &State, bad: &BTreeSet<SectionKey>) -> Result<HashSet<ObjectId>> {
        let mut packs = HashSet::new();
        for place in state.distinct(|kind| matches!(kind, SectionKind::Index { .. })) {
            if let (true, Some(table)) = (bad.contains(&place.key()), place.packs.as_deref()) {
                match self.section(ctx, table).and_then(|bytes| index::decode_packs(&bytes)) {
                    Ok(rows) => packs.extend(rows.into_iter().map(|(pack, _)| pack.id)),
                    Err(e) if e.kind().is_damage() => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(packs)
    }

    /// Reads all live index sections and compares them with the packs sections. Returns the number of entries and the
    /// damaged sections. Calls `done` with the number of bytes read; an error from it ends the reading.
    pub fn check_indexes(
        &self,
        ctx: &Context,
        state: &State,
        tables: &Tables,
        done: &(dyn Fn(u64) -> Result<()> + Sync),
    ) -> Result<(u64, Vec<(SectionKey, Error)>)> {
        self.walk_indexes(ctx, state, tables, &|_, _| (), done)
    }

    /// Passes the rows of all live index sections to `take`, from several threads. A section that cannot be used is an
    /// error.
    pub fn index_rows(&self, ctx: &Context, state: &State, tables: &Tables, take: &TakeRow<'_>) -> Result<()> {
        let (_, problems) = self.walk_indexes(ctx, state, tables, take, &|_| Ok(()))?;
        // An index section without its packs section is a problem of the tables.
        match tables.problems.iter().chain(&problems).next() {
            Some((_, e)) => Err(Error::new(e.kind(), e.to_string())),
            None => Ok(()),
        }
    }

    fn walk_indexes(
        &self,
        ctx: &Context,
        state: &State,
        tables: &Tables,
        take: &TakeRow<'_>,
        done: &(dyn Fn(u64) -> Result<()> + Sync),
    ) -> Result<(u64, Vec<(SectionKey, Error)>)> {
        let sections = state.distinct(|kind| matches!(kind, SectionKind::Index { .. }));
        let (mut entries, mut problems, allowance) = (0, Vec::new(), Allowance::new(IN_FLIGHT));
        for (key, result) in parallel(READERS, sections, |place| {
            let packs = place.packs.as_deref().and_then(|packs| tables.rows.get(&packs.key()));
            let share =
                allowance.take(ctx, PIECES.min(place.section.len.into())).and_then(|share| done(0).map(|()| share));
            (place.key(), share.and_then(|_share| self.walk_index(ctx, &place, packs, take, done)))
        }) {
            match result {
                Ok(rows) => entries += rows,
                Err(e) if e.kind().is_damage() => problems.push((key, e)),
                Err(e) => return Err(e),
            }
        }
        Ok((entries, problems))
    }

    fn walk_index(
        &self,
        ctx: &Context,
        place: &LiveSection,
        packs: Option<&Table>,
        take: &TakeRow<'_>,
        done: &(dyn Fn(u64) -> Result<()> + Sync),
    ) -> Result<u64> {
        let mut rows = Rows { place, packs, take, last: None, count: 0, wrong: None };
        let mut stopped = None;
        self.section_in_pieces(ctx, place, |piece| {
            piece.as_chunks::<ENTRY>().0.iter().for_each(|row| rows.add(row));
            stopped = stopped.take().or(done(piece.len() as u64).err());
        })?;
        match stopped.or(rows.wrong) {
            Some(e) => Err(e),
            None => Ok(rows.count),
        }
    }

    /// Returns verified blocks of a pack; `None` for a damaged block. Fails if the pack is missing or its header or length
    /// is wrong.
    pub fn pack_blocks(
        &self,
        ctx: &Context,
        kind: ObjectType,
        pack: &PackRef,
        run: Range<u32>,
    ) -> Result<Vec<Option<Arc<[u8]>>>> {
        let object = Object { name: Name::Pack(pack.id), id: pack.id, kind, len: pack.len.into() };
        self.fetcher.verify(ctx, &object, run)
    }
}

/// Checks the entries of one index section, one after the other.
struct Rows<'a> {
    place: &'a LiveSection,
    packs: Option<&'a Table>,
    take: &'a TakeRow<'a>,
    last: Option<[u8; 16]>,
    count: u64,
    wrong: Option<Error>,
}

impl Rows<'_> {
    fn add(&mut self, row: &[u8; ENTRY]) {
        let result = self.check(row);
        self.count += 1;
        self.wrong = self.wrong.take().or(result.err());
    }

    fn check(&mut self, row: &[u8; ENTRY]) -> Result<()> {
        let damaged = |what| Error::damaged(format!("its index {what}"));
        let (number, entry) = index::decode(row)?;
        let ascends = self.last.replace(entry.id.0).is_none_or(|last| last < entry.id.0);
        let fenced = (index::FENCED / ENTRY) as u64;
        let fence =
            self.count.is_multiple_of(fenced).then(|| self.place.section.fences.get((self.count / fenced) as usize));
        if !ascends || fence.is_some_and(|fence| fence != Some(&index::fence(&entry.id))) {
            return Err(damaged("is out of order"));
        }
        // A missing packs section was reported before.
        let Some(packs) = self.packs else { return Ok(()) };
        let (pack, kind) =
            packs.get(number as usize).ok_or_else(|| damaged("names a pack that is not in its table"))?;
        let fits = (entry.kind == ChunkKind::Data) == (*kind == ObjectType::Data);
        entry.in_pack(*pack).check()?;
        if !fits {
            return Err(damaged("has a chunk in a pack of another type"));
        }
        (self.take)(pack, &entry);
        Ok(())
    }
}
