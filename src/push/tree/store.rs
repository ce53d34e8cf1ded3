//! The place to which the assembler writes chunks of metadata.

use crate::crypto::keys::ChunkKind;
use crate::error::Result;
use crate::format::reference::{PackRef, Ref};

/// Chunks in metadata packs, of which one is open. References to the open pack name it [`PackRef::SELF`].
pub trait MetaStore {
    /// Adds a chunk to the open pack. `None`: the pack has no room, [`MetaStore::finish_pack`] must be called first.
    fn add(&mut self, kind: ChunkKind, plain: &[u8]) -> Result<Option<Ref>>;

    /// Looks for a stored chunk with this content. If the content refers to its own pack by `SELF`, only a chunk in `own`
    /// has the same meaning.
    fn find(&self, kind: ChunkKind, plain: &[u8], own: Option<PackRef>) -> Result<Option<Ref>>;

    /// Returns the contents of a chunk in the open pack.
    fn open_chunk(&self, r: &Ref) -> Result<Vec<u8>>;

    /// Stores the open pack and returns its name; `None` if no pack is open. `full`: more chunks follow.
    fn finish_pack(&mut self, full: bool) -> Result<Option<PackRef>>;
}
