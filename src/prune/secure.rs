//! Makes sure that every needed chunk of packs that are about to be deleted has another place: one that was read in this
//! run, or a copy.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard};

use super::repack::{Chunks, Copier, Lane, Live, READ};
use super::run::Run;
use super::survey::Survey;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::ObjectType;
use crate::error::{Error, Result};
use crate::format::pack::Entry;
use crate::format::record::Head;
use crate::format::reference::{PackRef, Ref};
use crate::name::ObjectId;
use crate::repo::{Index, IndexRow, Span, in_order, parallel};

/// Chunks are read in parts of 1 MiB.
const SPAN: Span = Span::Blocks(16);
/// Packs whose chunks are looked for at the same time.
const READERS: usize = 16;
/// Bytes of memory for the index.
const INDEX: usize = 48 << 20;

/// Other places of chunks.
struct Places {
    index: Index,
    /// Sizes of packs that the server was asked for in this run.
    sizes: Mutex<HashMap<ObjectId, Option<u64>>>,
}

impl Places {
    fn sizes(&self) -> MutexGuard<'_, HashMap<ObjectId, Option<u64>>> {
        self.sizes.lock().expect("no holder panics")
    }
}

/// The chunks of a pack that have no other place.
enum Lonely {
    Nothing,
    /// Pages in this pack.
    Pack(PackRef),
    Chunks(Chunks),
}

/// Returns the bytes that the chunks of a pack take once they are read.
fn size(pack: &(ObjectId, Result<Live>)) -> u64 {
    match &pack.1 {
        Ok(lonely) if !lonely.entries.is_empty() => lonely.place.len.into(),
        _ => 0,
    }
}

/// Copies chunks into a new pack. Returns whether there were any.
fn copy(lonely: Lonely, copier: &mut Copier<'_>) -> Result<bool> {
    match lonely {
        Lonely::Nothing => return Ok(false),
        Lonely::Pack(pack) => copier.copy_pack(&pack)?,
        Lonely::Chunks(chunks) => {
            chunks.iter().try_for_each(|(entry, stored)| copier.add(entry, stored, Lane::Newest))?;
        }
    }
    Ok(true)
}

impl Run<'_> {
    /// Returns the packs of `ids` that may be deleted. `None`: another client has written.
    pub fn secure(&mut self, survey: &mut Survey, ids: &BTreeSet<ObjectId>) -> Result<Option<BTreeSet<ObjectId>>> {
        let index = Index::new(&survey.state).with_memory(INDEX);
        let places = Places { index, sizes: Mutex::default() };
        let (mut copier, mut safe, mut copies) = (Copier::new(self.ctx, self.repo), BTreeSet::new(), BTreeSet::new());
        let is_needed = |id: &ObjectId| survey.packs.get(id).is_some_and(|pack| pack.is_live());
        let (needed, unneeded): (Vec<_>, Vec<_>) =
            ids.iter().copied().partition(|id| is_needed(id) && self.options.rules.fresh_liveness);
        safe.extend(unneeded);
        for batch in needed.chunks(READERS) {
            self.ctx.check()?;
            let lonely = parallel(READERS, batch.to_vec(), |id| (id, self.lonely(survey, &places, ids, &id)));
            let read =
                |(id, lonely): (ObjectId, Result<Live>)| (id, lonely.and_then(|lonely| self.read_lonely(lonely)));
            let mut warnings = Vec::new();
            in_order(self.ctx, READ, lonely, size, read, |(id, chunks)| {
                match chunks.and_then(|chunks| copy(chunks, &mut copier)) {
                    Ok(false) => drop(safe.insert(id)),
                    Ok(true) => drop(copies.insert(id)),
                    Err(e) if e.kind().is_damage() => {
                        let text = format!("pack {} is condemned and still needed, so it stays: {e}", id.short());
                        warnings.push(text);
                    }
                    Err(e) => return Err(e),
                }
                Ok(())
            })?;
            self.report.warnings.append(&mut warnings);
        }
        if !copies.is_empty() {
            let sections = copier.finish()?;
            if self.commit(survey, Head::default(), &sections)?.is_none() {
                return Ok(None);
            }
            self.report.copied += copier.bytes;
            safe.extend(&copies);
        }
        Ok(Some(safe))
    }

    /// Returns the needed chunks of a pack that have no other place.
    fn lonely(&self, survey: &Survey, places: &Places, ids: &BTreeSet<ObjectId>, id: &ObjectId) -> Result<Live> {
        let Live { place, kind, entries } = self.live_entries(survey, id)?;
        let mut lonely = Vec::new();
        for entry in entries {
            if !self.is_elsewhere(survey, places, ids, &entry)? {
                lonely.push(entry);
            }
        }
        Ok(Live { place, kind, entries: lonely })
    }

    /// Reads the chunks without another place. Of metadata, the whole pack is copied.
    fn read_lonely(&self, lonely: Live) -> Result<Lonely> {
        let Live { place, kind, entries } = lonely;
        match kind {
            _ if entries.is_empty() => Ok(Lonely::Nothing),
            ObjectType::Meta => Ok(Lonely::Pack(place)),
            _ => Ok(Lonely::Chunks(self.read_chunks(&place, entries)?)),
        }
    }

    /// Returns whether a chunk can be read from a pack that stays. A row of the index alone proves nothing.
    fn is_elsewhere(&self, survey: &Survey, known: &Places, ids: &BTreeSet<ObjectId>, entry: &Entry) -> Result<bool> {
        let mut places: Vec<Ref> = Vec::new();
        known.index.visit(self.ctx, self.repo, &entry.id, |row: IndexRow| {
            let pack = row.place.pack.id;
            let stays = !row.is_condemned && !ids.contains(&pack) && !survey.is_condemned(&pack);
            if stays && row.kind == entry.kind && row.place.len == entry.len {
                places.push(row.place);
            }
            ControlFlow::Continue(())
        })?;
        for place in places {
            match self.is_readable(known, entry.kind, &place) {
                Err(e) if e.kind().is_damage() => {}
                Err(e) => return Err(e),
                Ok(()) => return Ok(true),
            }
        }
        Ok(false)
    }

    fn is_readable(&self, known: &Places, kind: ChunkKind, place: &Ref) -> Result<()> {
        if !self.options.rules.verify_places {
            return Ok(());
        }
        let PackRef { id, len } = place.pack;
        let asked = known.sizes().get(&id).copied();
        let size = asked.map_or_else(|| self.repo.pack_size(self.ctx, &id), Ok)?;
        known.sizes().insert(id, size);
        if size != Some(PackRef { id, len }.file_len()) {
            return Err(Error::damaged("a pack has another size"));
        }
        self.repo.chunk(self.ctx, kind, place, SPAN).map(drop)
    }
}
