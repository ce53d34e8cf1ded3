//! Questions of `prune`: what is condemned and since when, which records are superseded, and the rows of the index.

use std::collections::{BTreeMap, BTreeSet};

use super::inspect::Tables;
use super::state::{LiveSection, State};
use super::{Repository, parallel};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::index::{self, ENTRY};
use crate::format::pack::Entry;
use crate::format::record::SectionKind;
use crate::format::reference::PackRef;
use crate::name::ObjectId;

/// Sections that are read at the same time.
const READERS: usize = 4;
/// Seconds between the time of a condemnation and the time of the record that made it. A record that copies an older
/// condemnation has a larger difference.
const OWN: u64 = 3600;

/// The condemnation of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condemnation {
    /// Its time by the clock of the writer; the earliest one of several.
    pub since: i64,
    /// Live records that made it (and did not only copy it).
    pub records: Vec<ObjectId>,
}

impl State {
    /// Returns all condemned objects.
    pub fn condemnations(&self) -> BTreeMap<ObjectId, Condemnation> {
        let mut all: BTreeMap<ObjectId, Condemnation> = BTreeMap::new();
        for (record, known) in self.live() {
            let head = &known.record.head;
            for (id, since) in &head.condemned {
                let new = Condemnation { since: *since, records: Vec::new() };
                let condemnation = all.entry(*id).or_insert(new);
                condemnation.since = condemnation.since.min(*since);
                if head.time.abs_diff(*since) <= OWN {
                    condemnation.records.push(*record);
                }
            }
        }
        all
    }

    /// Returns the records that were read.
    pub fn known_records(&self) -> BTreeSet<ObjectId> {
        self.known.keys().copied().collect()
    }

    /// Returns the listed records that live records supersede and whose sections no live record names.
    pub fn superseded_records(&self) -> BTreeSet<ObjectId> {
        let (superseded, holders) = (self.superseded(), self.holders());
        let listed = self.listed.iter().filter(|id| superseded.contains(id) && !holders.contains(id));
        listed.copied().collect()
    }
}

impl Repository {
    /// Passes the rows of all live index sections to `take`, from several threads. A section that cannot be used is an
    /// error.
    pub fn index_rows(
        &self,
        ctx: &Context,
        state: &State,
        tables: &Tables,
        take: &(dyn Fn(&PackRef, &Entry) + Sync),
    ) -> Result<()> {
        let sections = state.distinct(|kind| matches!(kind, SectionKind::Index { .. }));
        let read = parallel(READERS, sections, |place| self.rows_of(ctx, &place, tables, take));
        read.into_iter().collect()
    }

    fn rows_of(
        &self,
        ctx: &Context,
        place: &LiveSection,
        tables: &Tables,
        take: &(dyn Fn(&PackRef, &Entry) + Sync),
    ) -> Result<()> {
        let packs = place.packs.as_deref().and_then(|packs| tables.rows.get(&packs.key()));
        let packs = packs.ok_or_else(|| Error::damaged("an index section without its packs section"))?;
        let mut wrong = None;
        self.section_in_pieces(ctx, place, |piece| {
            for row in piece.as_chunks::<ENTRY>().0 {
                match index::decode(row) {
                    Ok((number, entry)) => match packs.get(number as usize) {
                        Some((pack, _)) => take(pack, &entry),
                        None => wrong = Some(Error::damaged("an index entry names a pack that is not in its table")),
                    },
                    Err(e) => wrong = Some(e),
                }
            }
        })?;
        wrong.map_or(Ok(()), Err)
    }
}
