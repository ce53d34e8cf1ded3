//! The open metadata pack. Pages refer to others in the same pack by [`PackRef::SELF`], so a whole tree can be written
//! bottom-up into a pack that has no name yet.

use super::chunks::{IdMap, Place};
use super::control::Control;
use super::packs::Packs;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::{ObjectType, sealed_len};
use crate::error::{Kind, Result};
use crate::format::pack::{Builder, Entry};
use crate::format::reference::{PackRef, Ref};
use crate::format::stored::Packer;
use crate::repo::{Index, Repository, Span};

pub(super) struct MetaPack<'c> {
    repo: &'c Repository,
    control: &'c Control<'c>,
    packs: &'c Packs<'c>,
    index: &'c Index<'c>,
    packer: Packer,
    open: Option<(u32, Builder)>,
    spare: Option<Vec<u8>>,
    places: IdMap<Place>,
    entries: Vec<(u32, Entry)>,
    /// Sealed bytes of the packs that were stored.
    pub written: u64,
    /// Plaintext bytes of the chunks in them.
    pub added: u64,
}

impl<'c> MetaPack<'c> {
    pub fn new(
        repo: &'c Repository,
        control: &'c Control<'c>,
        packs: &'c Packs<'c>,
        index: &'c Index<'c>,
        compression: i32,
    ) -> Result<Self> {
        let (packer, open, spare) = (Packer::new(compression.max(1))?, None, None);
        let (places, entries, written, added) = Default::default();
        Ok(MetaPack { repo, control, packs, index, packer, open, spare, places, entries, written, added })
    }

    /// Adds a chunk that refers to the open pack by `SELF`. `None`: there is no room, [`MetaPack::close`] comes first.
    pub fn add(&mut self, kind: ChunkKind, plain: &[u8]) -> Result<Option<Ref>> {
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

    /// Stores the open pack and gives what `SELF` stood for; `None` if nothing is open.
    pub fn close(&mut self, full: bool) -> Result<Option<PackRef>> {
        let Some((number, builder)) = self.open.take() else { return Ok(None) };
        self.control.check()?;
        let (mut plain, entries) = builder.finish(full);
        let pack = self.repo.put_pack(ObjectType::Meta, &mut plain)?;
        self.spare = Some(plain);
        self.written += sealed_len(pack.len.into());
        self.packs.stored(number, pack);
        self.entries.extend(entries.into_iter().map(|entry| (number, entry)));
        Ok(Some(pack))
    }

    /// A chunk of an earlier run with these contents, that would lie in the pack `own` if it names it by `SELF`. It is
    /// read: what is damaged there must not be inherited, least of all after the parent was found to be damaged.
    pub fn earlier(&self, kind: ChunkKind, plain: &[u8], own: Option<PackRef>) -> Result<Option<Ref>> {
        let id: ChunkId = self.repo.keys().chunk_id(kind, plain);
        let readable = |r: Ref| self.repo.chunk(kind, &r, Span::Blocks(16)).map(|_| r);
        let found = self.index.find(&id).and_then(|found| match found {
            Some((k, r)) if k == kind && r.len as usize == plain.len() && own.is_none_or(|own| own == r.pack) => {
                readable(r).map(Some)
            }
            _ => Ok(None),
        });
        match found {
            Err(e) if matches!(e.kind(), Kind::Damaged | Kind::Missing) => Ok(None),
            other => other,
        }
    }

    /// The chunks of all packs that were stored, each with the number of its pack.
    pub fn into_entries(self) -> Vec<(u32, Entry)> {
        self.entries
    }
}
