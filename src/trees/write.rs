//! Writes pages, lists and extended attributes into metadata packs.
//!
//! A page refers to chunks of its own pack by [`PackRef::SELF`], so a whole tree can be written bottom-up into a pack that
//! has no name yet. When the pack is stored, its name takes the place of `SELF` in whatever the caller still holds
//! ([`SelfRefs`]).

use std::collections::HashMap;

use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::{ObjectType, sealed_len};
use crate::error::{Error, Result};
use crate::format::index;
use crate::format::list::List;
use crate::format::node::{Content, Node, Xattrs};
use crate::format::pack::{Builder, Entry};
use crate::format::page::Page;
use crate::format::record::NewSection;
use crate::format::reference::{PackRef, Ref};
use crate::format::sections::index_sections;
use crate::format::stored::{Packer, unpack};
use crate::progress::Event;
use crate::repo::{Index, Repository, Span};

/// Chunks that are remembered over a commit.
const REMEMBERED: usize = 64 << 10;

/// A value that may name the open pack by [`PackRef::SELF`].
pub trait SelfRefs {
    /// Replaces `SELF` by the name that the pack has now.
    fn replace_self(&mut self, pack: PackRef);
}

impl SelfRefs for Ref {
    fn replace_self(&mut self, pack: PackRef) {
        if self.pack == PackRef::SELF {
            self.pack = pack;
        }
    }
}

impl SelfRefs for Content {
    fn replace_self(&mut self, pack: PackRef) {
        if let Content::Large { list: r, .. } | Content::Directory(Some(r)) = self {
            r.replace_self(pack);
        }
    }
}

impl SelfRefs for Xattrs {
    fn replace_self(&mut self, pack: PackRef) {
        if let Xattrs::Stored(r) = self {
            r.replace_self(pack);
        }
    }
}

impl SelfRefs for Node {
    fn replace_self(&mut self, pack: PackRef) {
        self.content.replace_self(pack);
        self.xattrs.replace_self(pack);
    }
}

impl SelfRefs for Page {
    fn replace_self(&mut self, pack: PackRef) {
        match self {
            Page::Leaf(nodes) => nodes.iter_mut().for_each(|node| node.replace_self(pack)),
            Page::Upper(rows) => rows.iter_mut().for_each(|row| row.page.replace_self(pack)),
        }
    }
}

impl SelfRefs for List {
    fn replace_self(&mut self, pack: PackRef) {
        if let List::Upper(rows) = self {
            rows.iter_mut().for_each(|(_, page)| page.replace_self(pack));
        }
    }
}

/// The open metadata pack, and the chunks that it and those before it hold.
pub struct MetaPack<'r> {
    repo: &'r Repository,
    packer: Packer,
    open: Option<Builder>,
    spare: Option<Vec<u8>>,
    chunks: HashMap<ChunkId, Place>,
    /// Packs that were stored; the open one gets the next number.
    packs: Vec<PackRef>,
    /// Chunks of stored packs that no record names yet, each with the number of its pack.
    entries: Vec<(u32, Entry)>,
    is_broken: bool,
    stored: u64,
    added: u64,
}

/// The place of a chunk of this writer.
#[derive(Clone, Copy)]
struct Place {
    pack: u32,
    entry: Entry,
}

impl<'r> MetaPack<'r> {
    /// Makes a writer without an open pack. `compression` is the level of zstd.
    pub fn new(repo: &'r Repository, compression: i32) -> Result<Self> {
        let packer = Packer::new(compression)?;
        let (chunks, packs, entries) = Default::default();
        Ok(MetaPack {
            repo,
            packer,
            open: None,
            spare: None,
            chunks,
            packs,
            entries,
            is_broken: false,
            stored: 0,
            added: 0,
        })
    }

    /// Adds a chunk that refers to the open pack by `SELF`. `None`: there is no room, [`MetaPack::finish`] comes first.
    pub fn add(&mut self, kind: ChunkKind, plain: &[u8]) -> Result<Option<Ref>> {
        if self.is_broken {
            return Err(Error::failed("a metadata pack could not be stored"));
        }
        let id = self.repo.keys().chunk_id(kind, plain);
        if let Some(place) = self.chunks.get(&id) {
            return Ok(Some(self.reference(place)));
        }
        let packed = self.packer.pack(plain);
        let stored = packed.as_deref().unwrap_or(plain);
        let spare = &mut self.spare;
        let builder = self.open.get_or_insert_with(|| spare.take().map_or_else(Builder::default, Builder::new));
        if builder.room() < stored.len() {
            return Ok(None);
        }
        let entry = builder.add(id, kind, stored, plain.len());
        self.chunks.insert(id, Place { pack: self.packs.len() as u32, entry });
        self.added += plain.len() as u64;
        Ok(Some(entry.in_pack(PackRef::SELF)))
    }

    /// Returns the contents of a chunk in the open pack.
    pub fn open_chunk(&self, r: &Ref) -> Result<Vec<u8>> {
        let stored = self.open.as_ref().filter(|_| r.pack == PackRef::SELF).and_then(|open| open.chunk(r));
        unpack(r, stored.ok_or_else(|| Error::failed("a chunk is not in the open pack"))?.to_vec())
    }

    fn reference(&self, place: &Place) -> Ref {
        place.entry.in_pack(self.packs.get(place.pack as usize).copied().unwrap_or(PackRef::SELF))
    }

    /// Stores the open pack and returns its name, which `SELF` stood for; `None` if no pack is open. `is_full`: it gets the full size.
    pub fn finish(&mut self, ctx: &Context, is_full: bool) -> Result<Option<PackRef>> {
        let Some(builder) = self.open.take() else { return Ok(None) };
        let (mut plain, entries) = builder.finish(is_full);
        ctx.event(Event::ToSend { bytes: plain.len() as u64 });
        let stored = self.repo.put_pack(ctx, ObjectType::Meta, &mut plain);
        self.is_broken |= stored.is_err();
        let pack = stored?;
        self.spare = Some(plain);
        self.stored += sealed_len(pack.len.into());
        let number = self.packs.len() as u32;
        self.packs.push(pack);
        self.entries.extend(entries.into_iter().map(|entry| (number, entry)));
        Ok(Some(pack))
    }

    /// Returns a chunk of an earlier pack with these contents, that would lie in the pack `own` if it names it by `SELF`.
    /// With an index, packs of earlier pushes count too; a chunk there is read first, so that damage is never inherited.
    pub fn earlier(
        &self,
        ctx: &Context,
        index: Option<&Index>,
        kind: ChunkKind,
        plain: &[u8],
        own: Option<PackRef>,
    ) -> Result<Option<Ref>> {
        let id = self.repo.keys().chunk_id(kind, plain);
        let suits = |r: &Ref| own.is_none_or(|own| own == r.pack);
        if let Some(place) = self.chunks.get(&id) {
            return Ok(Some(self.reference(place)).filter(|r| r.pack != PackRef::SELF && suits(r)));
        }
        let Some(index) = index else { return Ok(None) };
        match self.earlier_push(ctx, index, kind, &id, plain.len(), suits) {
            Err(e) if e.kind().is_damage() => Ok(None),
            other => other,
        }
    }

    fn earlier_push(
        &self,
        ctx: &Context,
        index: &Index,
        kind: ChunkKind,
        id: &ChunkId,
        len: usize,
        suits: impl Fn(&Ref) -> bool,
    ) -> Result<Option<Ref>> {
        match index.find(ctx, self.repo, id)? {
            Some((found, r)) if found == kind && r.len as usize == len && suits(&r) => {
                self.repo.chunk(ctx, kind, &r, Span::Blocks(16)).map(|_| Some(r))
            }
            _ => Ok(None),
        }
    }

    /// Returns the chunks of stored packs that no record names yet, each with its pack.
    pub fn uncommitted(&self) -> impl Iterator<Item = (PackRef, &Entry)> {
        self.entries.iter().map(|(number, entry)| (self.packs[*number as usize], entry))
    }

    /// Notes that a record names all packs that were stored. Their chunks are in the index from now on, so where they are
    /// many they are forgotten here.
    pub fn committed(&mut self) {
        self.entries.clear();
        if self.chunks.len() > REMEMBERED {
            self.chunks.retain(|_, place| place.pack as usize >= self.packs.len());
        }
    }

    /// Returns the sections that make all stored packs known; the first one will be number `packs_at` of its head.
    pub fn sections(&self, packs_at: u32) -> Vec<NewSection> {
        let packs: Vec<_> = self.packs.iter().map(|pack| (*pack, ObjectType::Meta)).collect();
        index_sections(&packs, index::rows(&self.entries), packs_at)
    }

    /// Returns whether a pack could not be stored, and what refers to it as `SELF` is lost.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Returns the sealed bytes of the packs that were stored.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Returns the plaintext bytes of all chunks that were added.
    pub fn added(&self) -> u64 {
        self.added
    }
}
