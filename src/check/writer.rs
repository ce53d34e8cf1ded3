//! Writes directory pages for `repair`, bottom-up, into metadata packs. A page goes to the pack that its children are in
//! as long as there is room; until a pack is stored it has a number, and the name [`provisional`] of it.

use std::collections::HashMap;

use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::ObjectType;
use crate::error::{Error, Result};
use crate::format::node::{Content, Xattrs};
use crate::format::pack::{Builder, Entry};
use crate::format::page::Page;
use crate::format::record::NewSection;
use crate::format::reference::{PackRef, Ref};
use crate::format::stored::Packer;
use crate::format::{index, limits};
use crate::name::ObjectId;
use crate::repo::Repository;

pub(super) struct Writer<'r> {
    ctx: &'r Context<'r>,
    repo: &'r Repository,
    packer: Packer,
    builder: Builder,
    stored: Vec<PackRef>,
    entries: Vec<(u32, Entry)>,
    /// Pages of the open pack.
    places: HashMap<ChunkId, Ref>,
}

/// Names pack number `number` before it is stored. (No real id begins with 24 bytes 0xff, but for chance.)
fn provisional(number: usize) -> PackRef {
    let mut id = [0xff; 32];
    id[24..].copy_from_slice(&(number as u64).to_be_bytes());
    PackRef { id: ObjectId(id), len: limits::PACK as u32 }
}

impl<'r> Writer<'r> {
    pub fn new(ctx: &'r Context<'r>, repo: &'r Repository) -> Result<Self> {
        let (stored, entries, places) = Default::default();
        Ok(Writer { ctx, repo, packer: Packer::new(3)?, builder: Builder::new(Vec::new()), stored, entries, places })
    }

    /// Adds a page whose references come from here or from packs of others.
    pub fn page(&mut self, mut page: Page) -> Result<Ref> {
        loop {
            self.settle_page(&mut page);
            let own = provisional(self.stored.len());
            let plain = page.encode(&own);
            if plain.len() > limits::PAGE {
                return Err(Error::failed("a page of a directory would grow beyond what a page may hold"));
            }
            let id = self.repo.keys().chunk_id(ChunkKind::Page, &plain);
            if let Some(there) = self.places.get(&id) {
                return Ok(*there);
            }
            let packed = self.packer.pack(&plain);
            let bytes = packed.as_deref().unwrap_or(&plain);
            if self.builder.room() >= bytes.len() {
                let entry = self.builder.add(id, ChunkKind::Page, bytes, plain.len());
                self.entries.push((self.stored.len() as u32, entry));
                let place = entry.in_pack(own);
                self.places.insert(id, place);
                return Ok(place);
            }
            self.store(true)?;
        }
    }

    /// Stores what is open and gives the sections that make all of it count; the first one will be number `number` of its
    /// head.
    pub fn finish(&mut self, number: u32) -> Result<Vec<NewSection>> {
        if !self.builder.is_empty() {
            self.store(false)?;
        }
        if self.stored.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<_> = self.stored.iter().map(|pack| (*pack, ObjectType::Meta)).collect();
        Ok(index::sections(&rows, index::rows(&self.entries), number))
    }

    /// Gives a reference the name of its pack, if that is stored.
    pub fn settle(&self, r: &mut Ref) {
        let number = u64::from_be_bytes(*r.pack.id.0.last_chunk().expect("32 bytes"));
        if let Some(pack) = usize::try_from(number).ok().and_then(|number| self.stored.get(number))
            && r.pack == provisional(number as usize)
        {
            r.pack = *pack;
        }
    }

    fn settle_page(&self, page: &mut Page) {
        match page {
            Page::Upper(rows) => rows.iter_mut().for_each(|row| self.settle(&mut row.page)),
            Page::Leaf(nodes) => {
                for node in nodes {
                    if let Content::Directory(Some(r)) | Content::Large { list: r, .. } = &mut node.content {
                        self.settle(r);
                    }
                    if let Xattrs::Stored(r) = &mut node.xattrs {
                        self.settle(r);
                    }
                }
            }
        }
    }

    fn store(&mut self, full: bool) -> Result<()> {
        let builder = std::mem::replace(&mut self.builder, Builder::new(Vec::new()));
        let (mut plain, _) = builder.finish(full);
        self.stored.push(self.repo.put_pack(self.ctx, ObjectType::Meta, &mut plain)?);
        self.places.clear();
        Ok(())
    }
}
