//! The open metadata pack. Pages refer to others in the same pack by [`PackRef::SELF`], so a whole tree can be written
//! bottom-up into a pack that has no name yet.

use super::store::MetaStore;
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::{ObjectType, sealed_len};
use crate::error::Result;
use crate::format::pack::{Builder, Entry};
use crate::format::reference::{PackRef, Ref};
use crate::format::stored::Packer;
use crate::push::pack::chunks::{IdMap, Place};
use crate::push::pack::packs::Packs;
use crate::repo::{Index, Repository, Span};

/// Chunks that are remembered over a commit.
const MANY: usize = 64 << 10;

pub struct MetaPack<'c> {
    repo: &'c Repository,
    /// Goes on for a while after a stop: without this pack there is no tree to be kept.
    ctx: &'c Context<'c>,
    packs: &'c Packs<'c>,
    index: &'c Index<'c>,
    packer: Packer,
    open: Option<(u32, Builder)>,
    spare: Option<Vec<u8>>,
    places: IdMap<Place>,
    /// The chunks of packs that were stored and not committed, each with the number of its pack.
    pub entries: Vec<(u32, Entry)>,
    /// A pack is lost, and with it what refers to it as `SELF`.
    pub broken: bool,
    /// Nothing of earlier runs is looked up any more: the push ends early, and there may be no line to do it by.
    pub hasty: bool,
    /// Sealed bytes of the packs that were stored.
    pub written: u64,
    /// Plaintext bytes of the chunks in them.
    pub added: u64,
}

impl<'c> MetaPack<'c> {
    pub fn new(
        repo: &'c Repository,
        ctx: &'c Context<'c>,
        packs: &'c Packs<'c>,
        index: &'c Index<'c>,
        compression: i32,
    ) -> Result<Self> {
        let (packer, spare) = (Packer::new(compression.max(1))?, None);
        let (places, entries, broken, hasty, written, added) = Default::default();
        let open = None;
        Ok(MetaPack { repo, ctx, packs, index, packer, open, spare, places, entries, broken, hasty, written, added })
    }

    /// A record names all packs that were stored. Their chunks are in the index from now on, so when they are many they
    /// are forgotten here.
    pub fn committed(&mut self) {
        self.entries.clear();
        if self.places.len() > MANY {
            self.places.clear();
        }
    }
}

impl MetaStore for MetaPack<'_> {
    fn add(&mut self, kind: ChunkKind, plain: &[u8]) -> Result<Option<Ref>> {
        let id = self.repo.keys().chunk_id(kind, plain);
        if let Some(place) = self.places.get(&id) {
            let own = self.open.as_ref().is_some_and(|(number, _)| *number == place.pack);
            let pack = if own { Some(PackRef::SELF) } else { self.packs.get(place.pack) };
            return Ok(pack.map(|pack| place.reference(id, pack)));
        }
        let packed = self.packer.pack(plain);
        let stored = packed.as_deref().unwrap_or(plain);
        let (packs, spare) = (self.packs, &mut self.spare);
        let mut new = || spare.take().map_or_else(Builder::default, Builder::new);
        let (number, builder) = self.open.get_or_insert_with(|| (packs.open(ObjectType::Meta), new()));
        if builder.room() < stored.len() {
            return Ok(None);
        }
        let entry = builder.add(id, kind, stored, plain.len());
        self.places.insert(id, Place::new(*number, &entry));
        self.added += plain.len() as u64;
        Ok(Some(entry.in_pack(PackRef::SELF)))
    }

    fn finish_pack(&mut self, full: bool) -> Result<Option<PackRef>> {
        let Some((number, builder)) = self.open.take() else { return Ok(None) };
        let (mut plain, entries) = builder.finish(full);
        let stored = self.repo.put_pack(self.ctx, ObjectType::Meta, &mut plain);
        self.broken |= stored.is_err();
        let pack = stored?;
        self.spare = Some(plain);
        self.written += sealed_len(pack.len.into());
        self.packs.stored(number, pack);
        self.entries.extend(entries.into_iter().map(|entry| (number, entry)));
        Ok(Some(pack))
    }

    /// A chunk of an earlier push is read first, so that damage is never inherited.
    fn find(&self, kind: ChunkKind, plain: &[u8], own: Option<PackRef>) -> Result<Option<Ref>> {
        let id: ChunkId = self.repo.keys().chunk_id(kind, plain);
        if let Some(place) = self.places.get(&id) {
            let pack = self.packs.get(place.pack).filter(|pack| own.is_none_or(|own| own == *pack));
            return Ok(pack.map(|pack| place.reference(id, pack)));
        }
        if self.hasty {
            return Ok(None);
        }
        let readable = |r: Ref| self.repo.chunk(self.ctx, kind, &r, Span::Blocks(16)).map(|_| r);
        let found = self.index.find(self.ctx, &id).and_then(|found| match found {
            Some((k, r)) if k == kind && r.len as usize == plain.len() && own.is_none_or(|own| own == r.pack) => {
                readable(r).map(Some)
            }
            _ => Ok(None),
        });
        match found {
            Err(e) if e.kind().is_damage() => Ok(None),
            other => other,
        }
    }
}
