//! Names chunks, looks them up, and compresses new ones into packs. Each worker has its own [`Cutter`] with its own
//! compressor.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;

use super::handover::{Handover, Task};
use super::workspace::Workspace;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::Result;
use crate::format::stored::Packer;
use crate::name::ObjectId;
use crate::push::pack::chunks::Place;
use crate::push::pack::data_packs::NewChunk;
use crate::push::pack::piece::Piece;
use crate::repo::StoredChunk;

/// Stored bytes from which on a chunk goes to its pack at once.
const AT_ONCE: usize = 128 << 10;
/// Stored bytes of smaller chunks that are collected before they go to their packs together.
const TOGETHER: usize = 1 << 20;

/// Turns chunks into pieces.
pub struct Cutter<'w> {
    pub work: Workspace<'w>,
    packer: Option<Packer>,
    /// Stored forms of small chunks that were claimed and are not in a pack yet.
    small: Vec<u8>,
    collected: Vec<SmallChunk>,
    /// Bytes of files that were read.
    pub read: u64,
}

/// A chunk in `small`.
struct SmallChunk {
    id: ChunkId,
    len: usize,
    at: Range<usize>,
}

impl<'w> Cutter<'w> {
    pub fn new(work: Workspace<'w>, compression: i32) -> Result<Self> {
        let packer = (compression != 0).then(|| Packer::new(compression)).transpose()?;
        Ok(Cutter { work, packer, small: Vec::new(), collected: Vec::new(), read: 0 })
    }

    /// Hands the chunk over to an idle worker, or processes it if there is none.
    pub fn share(
        &mut self,
        plain: &[u8],
        pieces: &mut Vec<Piece>,
        handover: &mut Handover,
        offer: &Sender<Task>,
    ) -> Result<()> {
        if self.work.idle.load(Ordering::Relaxed) == 0 || !handover.offer(plain, pieces, offer) {
            pieces.push(self.chunk(plain)?);
        }
        handover.collect_done(pieces);
        Ok(())
    }

    /// Processes a chunk of another worker.
    pub fn serve(&mut self, task: &Task) -> Result<()> {
        let piece = self.chunk(&task.plain)?;
        self.flush()?;
        task.finish(piece);
        Ok(())
    }

    /// Finds a chunk in this push or in the repository, or adds it.
    pub fn chunk(&mut self, plain: &[u8]) -> Result<Piece> {
        self.read += plain.len() as u64;
        let id = self.work.repo.keys().chunk_id(ChunkKind::Data, plain);
        if let Some(piece) = self.known(id, plain.len())? {
            return Ok(piece);
        }
        if self.work.data.chunks.claim(id, plain.len())? {
            let packed = self.packer.as_mut().and_then(|packer| packer.pack(plain));
            self.add(NewChunk { id, len: plain.len(), stored: packed.as_deref().unwrap_or(plain) })?;
        }
        Ok(Piece::New(id))
    }

    /// Processes a chunk of another repository like [`Cutter::chunk`], and keeps its stored form. Returns its id too.
    pub fn stored(&mut self, chunk: &StoredChunk) -> Result<(ChunkId, Piece)> {
        let len = chunk.plain.len();
        self.read += len as u64;
        let id = self.work.repo.keys().chunk_id(ChunkKind::Data, &chunk.plain);
        if let Some(piece) = self.known(id, len)? {
            return Ok((id, piece));
        }
        if self.work.data.chunks.claim(id, len)? {
            self.add(NewChunk { id, len, stored: &chunk.stored })?;
        }
        Ok((id, Piece::New(id)))
    }

    /// Finds a chunk in this push or in the repository.
    pub fn known(&self, id: ChunkId, len: usize) -> Result<Option<Piece>> {
        if self.work.data.chunks.has(&id, len)? {
            return Ok(Some(Piece::New(id)));
        }
        Ok(self.find(&id, len)?.map(|place| Piece::Known(id, place)))
    }

    /// Puts a chunk that was claimed into a pack, alone or with other small ones.
    fn add(&mut self, chunk: NewChunk<'_>) -> Result<()> {
        if chunk.stored.len() >= AT_ONCE {
            return self.work.data.add(std::iter::once(chunk));
        }
        let start = self.small.len();
        self.small.extend_from_slice(chunk.stored);
        self.collected.push(SmallChunk { id: chunk.id, len: chunk.len, at: start..self.small.len() });
        if self.small.len() >= TOGETHER { self.flush() } else { Ok(()) }
    }

    /// Returns the place of a chunk in a pack of an earlier push that the server still has. If the index is damaged, the
    /// chunk is stored again, which costs only time.
    fn find(&self, id: &ChunkId, len: usize) -> Result<Option<Place>> {
        let Workspace { repo, ctx, index, data, index_damage_reported, .. } = self.work;
        let r = match index.find(ctx, repo, id) {
            Ok(Some((ChunkKind::Data, r))) if r.len as usize == len => r,
            Ok(_) => return Ok(None),
            Err(e) if e.kind().is_damage() => {
                if !index_damage_reported.swap(true, Ordering::Relaxed) {
                    ctx.warn(&format!("part of the index cannot be read, its contents are uploaded again: {e}"));
                }
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        if !data.packs.presence.verify(ctx, repo, &r.pack, || self.warn_of_pack(r.pack.id))? {
            return Ok(None);
        }
        let pack = data.packs.earlier(r.pack);
        Ok(Some(Place { pack, offset: r.offset, stored: r.stored, len: r.len }))
    }

    fn warn_of_pack(&self, pack: ObjectId) {
        self.work.ctx.warn(&format!(
            "pack {pack} is missing or truncated on the server; its contents are uploaded again where the source files \
             still exist"
        ));
    }

    /// Puts the collected small chunks into packs.
    pub fn flush(&mut self) -> Result<()> {
        if self.collected.is_empty() {
            return Ok(());
        }
        let small = &self.small;
        let chunks = self.collected.drain(..);
        self.work.data.add(chunks.map(|chunk| NewChunk { id: chunk.id, len: chunk.len, stored: &small[chunk.at] }))?;
        self.small.clear();
        Ok(())
    }
}
