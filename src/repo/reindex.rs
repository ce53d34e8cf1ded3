//! An index anew, where a section of one cannot be read: from the tables that packs have at their ends. The record that
//! holds it takes the place of those that named the section, and says all else that they said.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{LiveSection, SectionKey, State};
use super::merge::merged_head;
use super::{Repository, parallel};
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::ObjectType;
use crate::error::Result;
use crate::format::ancestry::{self, prefix};
use crate::format::index;
use crate::format::pack::Entry;
use crate::format::record::{Head, NewSection, Section, SectionKind};
use crate::format::reference::PackRef;
use crate::format::sections::index_sections;
use crate::name::ObjectId;

/// Tables that are read at the same time.
const READERS: usize = 8;
/// Bytes of index that are written anew at once: 2,000,000 chunks.
const MOST: usize = 64 << 20;

impl Repository {
    /// The head and the new sections of such a record; `None` if all can be read. `bad`: the sections that cannot be used.
    /// `packs` are indexed anew; one whose table cannot be read is left out, and what it holds is sent again when it is met.
    pub fn reindex(
        &self,
        ctx: &Context,
        state: &State,
        bad: &BTreeSet<SectionKey>,
        packs: &[(PackRef, ObjectType)],
    ) -> Result<Option<(Head, Vec<NewSection>)>> {
        let ids: BTreeSet<ObjectId> = state.live().map(|(id, _)| *id).filter(|id| lacks(state, id, bad)).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let mut head = merged_head(state, &ids);
        let plain = || ids.iter().map(prefix).collect();
        let ancestry = self.ancestry(ctx, state, &ids, &head).unwrap_or_else(|_| plain());
        let (mut tables, mut indexes) = (BTreeMap::new(), BTreeMap::new());
        for id in &ids {
            for place in state.sections_of(id) {
                match place.section.kind {
                    _ if bad.contains(&place.key()) => {}
                    SectionKind::Ancestry => {}
                    SectionKind::Packs => drop(tables.insert(place.key(), place)),
                    SectionKind::Index { .. } => drop(indexes.insert(place.key(), place)),
                }
            }
        }
        let named = |place: &LiveSection, kind| Section {
            kind,
            record: Some((place.sequence(), place.object.id, place.object.len)),
            ..place.section.clone()
        };
        let rows: BTreeMap<SectionKey, u32> = tables.keys().copied().zip(0..).collect();
        head.sections.extend(tables.values().map(|place| named(place, SectionKind::Packs)));
        for place in indexes.values() {
            if let Some(packs) = place.packs.as_deref().and_then(|packs| rows.get(&packs.key())) {
                head.sections.push(named(place, SectionKind::Index { packs: *packs }));
            }
        }
        let mut sections = self.anew(ctx, packs, head.sections.len() as u32)?;
        sections.extend(ancestry::sections(&ancestry));
        Ok(Some((head, sections)))
    }

    /// Sections for these packs, the first of which will be number `number` of its head.
    fn anew(&self, ctx: &Context, packs: &[(PackRef, ObjectType)], number: u32) -> Result<Vec<NewSection>> {
        let read = parallel(READERS, packs.to_vec(), |(pack, kind)| ((pack, kind), self.pack_table(ctx, kind, &pack)));
        let (mut table, mut rows): (_, Vec<u8>) = (Vec::new(), Vec::new());
        for ((pack, kind), entries) in read {
            match entries {
                // A record has no room for more.
                Ok(_) if rows.len() > MOST => {}
                Ok(entries) => {
                    let fits = |e: &&Entry| (e.kind == ChunkKind::Data) == (kind == ObjectType::Data);
                    for entry in entries.iter().filter(fits) {
                        rows.extend(index::rows(&[(table.len() as u32, *entry)]));
                    }
                    table.push((pack, kind));
                }
                Err(e) if e.kind().is_damage() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(index_sections(&table, rows, number))
    }
}

/// Whether a record names a section that cannot be used, or one that has no place.
fn lacks(state: &State, id: &ObjectId, bad: &BTreeSet<SectionKey>) -> bool {
    let sections = state.sections_of(id);
    let known = state.live().find(|(live, _)| *live == id);
    let count = known.map_or(0, |(_, known)| known.record.head.sections.len());
    sections.len() < count
        || sections.iter().any(|place| {
            let packs = place.packs.as_deref().is_some_and(|packs| bad.contains(&packs.key()));
            bad.contains(&place.key()) || place.lacks_packs() || packs
        })
}
