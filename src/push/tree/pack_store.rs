//! The [`MetaStore`] of a push: metadata packs on the server, and what earlier pushes have stored.

use super::store::MetaStore;
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::ObjectType;
use crate::error::Result;
use crate::format::reference::{PackRef, Ref};
use crate::push::pack::packs::Packs;
use crate::repo::Index;
use crate::trees::MetaPack;

/// See the module.
pub struct PackStore<'c> {
    pub meta: MetaPack<'c>,
    /// Goes on for some seconds after a stop: without its metadata pack no tree can be kept.
    pub ctx: &'c Context<'c>,
    pub packs: &'c Packs<'c>,
    pub index: &'c Index,
    /// Chunks of earlier pushes are looked up. False once the push ends early, since the connection may be lost.
    pub looks_up: bool,
    /// Every pack is padded to the full size.
    pub full_packs: bool,
}

impl MetaStore for PackStore<'_> {
    fn add(&mut self, kind: ChunkKind, plain: &[u8]) -> Result<Option<Ref>> {
        self.meta.add(kind, plain)
    }

    fn find(&self, kind: ChunkKind, plain: &[u8], own: Option<PackRef>) -> Result<Option<Ref>> {
        let index = self.looks_up.then_some(self.index);
        self.meta.earlier(self.ctx, index, kind, plain, own)
    }

    fn open_chunk(&self, r: &Ref) -> Result<Vec<u8>> {
        self.meta.open_chunk(r)
    }

    fn finish_pack(&mut self, full: bool) -> Result<Option<PackRef>> {
        let Some(pack) = self.meta.finish(self.ctx, full || self.full_packs)? else { return Ok(None) };
        self.packs.stored(self.packs.open(ObjectType::Meta), pack);
        Ok(Some(pack))
    }
}
