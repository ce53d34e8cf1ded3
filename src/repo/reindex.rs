//! Rebuilds unreadable index sections from the pack tables. The new record supersedes the records that named the sections
//! and has all their other contents.

use std::collections::{BTreeMap, BTreeSet};

use super::merge::merged_head;
use super::state::{LiveSection, SectionKey, State};
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

/// Pack tables that are read at the same time.
const READERS: usize = 8;
/// Most bytes of rebuilt index in one record: 2,000,000 chunks.
const MOST: usize = 64 << 20;

impl Repository {
    /// Returns the head and the new sections of such a record; `None` if all sections are readable. `bad` are the unusable
    /// sections, `packs` the packs to index. A pack with an unreadable table is left out; later pushes store its chunks
    /// again.
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

    /// Returns sections for these packs. The first one will be at position `number` in its head.
    fn anew(&self, ctx: &Context, packs: &[(PackRef, ObjectType)], number: u32) -> Result<Vec<NewSection>> {
        let read = parallel(READERS, packs.to_vec(), |(pack, kind)| ((pack, kind), self.pack_table(ctx, kind, &pack)));
        let (mut table, mut rows): (_, Vec<u8>) = (Vec::new(), Vec::new());
        for ((pack, kind), entries) in read {
            match entries {
                // The record is full.
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

/// Returns whether a record names an unusable section, or one in a record that was not read.
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
