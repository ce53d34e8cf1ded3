//! The one record that makes a push count: its snapshot, its packs, and where its chunks are.

use super::chunks::Chunks;
use super::packs::Packs;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::pack::Entry;
use crate::format::record::{Head, NewSection, SectionKind, Snapshot};
use crate::format::{codec, index, limits};
use crate::name::ObjectId;
use crate::repo::{Repository, State};

/// Index entries in a section.
const ENTRIES: usize = limits::SECTION / index::ENTRY;

/// Commits the snapshot with everything that this run stored.
pub(super) fn commit(
    repo: &Repository,
    state: &mut State,
    snapshot: Snapshot,
    chunks: Chunks,
    packs: Packs<'_>,
    meta: Vec<(u32, Entry)>,
) -> Result<ObjectId> {
    let sections = sections(chunks, packs, meta);
    repo.commit(state, Head { snapshots: vec![snapshot], ..Head::default() }, &sections)
}

/// Commits what an unfinished run has stored, without a snapshot: the next push finds its contents and does not send
/// them again. Gives whether there was anything.
pub(super) fn keep(repo: &Repository, state: &mut State, chunks: Chunks, packs: Packs<'_>) -> Result<bool> {
    let sections = sections(chunks, packs, Vec::new());
    if sections.len() < 2 {
        return Ok(false);
    }
    repo.commit(state, Head::default(), &sections).map(|_| true)
}

fn sections(chunks: Chunks, packs: Packs<'_>, meta: Vec<(u32, Entry)>) -> Vec<NewSection> {
    let ours = packs.into_ours();
    if ours.is_empty() {
        return Vec::new();
    }
    // Numbers count packs of earlier runs too; rows do not.
    let row = |number: u32| ours.binary_search_by_key(&number, |pack| pack.0).ok().map(|row| row as u32);
    let data = chunks.into_places().map(|(id, place)| {
        let entry = Entry { id, kind: ChunkKind::Data, offset: place.offset, stored: place.stored, len: place.len };
        (place.pack, entry)
    });
    let all = data.chain(meta).filter_map(|(number, entry)| Some((row(number)?, entry)));
    let mut entries: Vec<(u32, Entry)> = all.collect();
    entries.sort_unstable_by_key(|(_, entry)| entry.id);
    let rows: Vec<_> = ours.iter().map(|(_, pack, kind)| (*pack, *kind)).collect();
    let packs = NewSection { kind: SectionKind::Packs, bytes: index::encode_packs(&rows), fences: Vec::new() };
    let parts = entries.chunks(ENTRIES).map(|part| {
        let (bytes, fences) = index::encode(part);
        NewSection { kind: SectionKind::Index { packs: 0 }, bytes, fences }
    });
    std::iter::once(packs).chain(parts).collect()
}

/// Shortens the list of paths until the snapshot fits into a record's head.
pub(super) fn fit(mut snapshot: Snapshot) -> Result<Snapshot> {
    while codec::encode(&snapshot).len() > limits::SNAPSHOT {
        if snapshot.paths.pop().is_none() {
            return Err(Error::failed("the description and the tags of the snapshot are longer than 4,000 bytes"));
        }
        snapshot.more_paths += 1;
    }
    Ok(snapshot)
}
