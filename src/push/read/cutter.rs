//! Chunks: each gets its id, is looked up, and if nobody has it is compressed and put into a pack. One [`Cutter`] for
//! each worker thread, with its own compressor. A worker with a large file gives chunks of it to workers that are idle.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::workspace::Workspace;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::Result;
use crate::format::stored::Packer;
use crate::name::ObjectId;
use crate::progress::Event;
use crate::push::pack::chunks::Place;
use crate::push::pack::data_packs::Fresh;
use crate::push::pack::piece::Piece;

/// Chunks of at least this many stored bytes go to their pack at once, smaller ones together.
const LARGE: usize = 128 << 10;
/// Stored bytes of small chunks that go to their packs together.
const TOGETHER: usize = 1 << 20;
/// Chunks of one file that are done by others and not yet asked for.
const REPLIES: usize = 64;

/// A chunk that another worker deals with.
pub struct Task {
    plain: Vec<u8>,
    piece: usize,
    reply: Sender<(usize, Piece)>,
}

/// The pieces of one file that others are at.
pub struct Given {
    reply: Sender<(usize, Piece)>,
    replies: Receiver<(usize, Piece)>,
    open: usize,
}

impl Default for Given {
    fn default() -> Self {
        let (reply, replies) = crossbeam_channel::bounded(REPLIES);
        Given { reply, replies, open: 0 }
    }
}

pub struct Cutter<'w> {
    pub work: Workspace<'w>,
    packer: Option<Packer>,
    /// Stored forms of small chunks that were claimed and are not in a pack yet.
    small: Vec<u8>,
    fresh: Vec<(ChunkId, usize, Range<usize>)>,
    /// Bytes of files that were read.
    pub read: u64,
}

impl<'w> Cutter<'w> {
    pub fn new(work: Workspace<'w>, compression: i32) -> Result<Self> {
        let packer = (compression != 0).then(|| Packer::new(compression)).transpose()?;
        let (small, fresh, read) = Default::default();
        Ok(Cutter { work, packer, small, fresh, read })
    }

    /// Gives the chunk to a worker that waits for work, if there is one; `offer` holds nothing back. Its piece is filled
    /// in by [`Cutter::collect`].
    pub fn give(
        &mut self,
        plain: &[u8],
        pieces: &mut Vec<Piece>,
        given: &mut Given,
        offer: &Sender<Task>,
    ) -> Result<()> {
        let task = |plain: &[u8]| Task { plain: plain.to_vec(), piece: pieces.len(), reply: given.reply.clone() };
        if self.work.idle.load(Ordering::Relaxed) > 0 && offer.try_send(task(plain)).is_ok() {
            given.open += 1;
            pieces.push(Piece::Awaited);
        } else {
            pieces.push(self.chunk(plain)?);
        }
        while let Ok((piece, done)) = given.replies.try_recv() {
            pieces[piece] = done;
            given.open -= 1;
        }
        Ok(())
    }

    /// Waits for the chunks that others are at.
    pub fn collect(&self, pieces: &mut [Piece], given: &mut Given) -> Result<()> {
        while given.open > 0 {
            if let Some((piece, done)) = self.work.ctx.receive(&given.replies)? {
                pieces[piece] = done;
                given.open -= 1;
            }
        }
        Ok(())
    }

    /// Deals with a chunk of another worker.
    pub fn serve(&mut self, task: &Task) -> Result<()> {
        let piece = self.chunk(&task.plain)?;
        self.flush()?;
        // Nobody waits for it if the file turned out to be unreadable.
        let _ = task.reply.send((task.piece, piece));
        Ok(())
    }

    /// Finds a chunk or adds it.
    pub fn chunk(&mut self, plain: &[u8]) -> Result<Piece> {
        let Workspace { repo, ctx, data, .. } = self.work;
        self.read += plain.len() as u64;
        ctx.event(Event::Done { files: 0, bytes: plain.len() as u64 });
        let id = repo.keys().chunk_id(ChunkKind::Data, plain);
        if data.chunks.has(&id, plain.len())? {
            return Ok(Piece::New(id));
        }
        if let Some(place) = self.known(&id, plain.len())? {
            return Ok(Piece::Known(id, place));
        }
        if data.chunks.claim(id, plain.len())? {
            let packed = self.packer.as_mut().and_then(|packer| packer.pack(plain));
            let stored = packed.as_deref().unwrap_or(plain);
            if stored.len() >= LARGE {
                data.add(std::iter::once(Fresh { id, len: plain.len(), stored }))?;
            } else {
                let start = self.small.len();
                self.small.extend_from_slice(stored);
                self.fresh.push((id, plain.len(), start..self.small.len()));
                if self.small.len() >= TOGETHER {
                    self.flush()?;
                }
            }
        }
        Ok(Piece::New(id))
    }

    /// Where the repository has it. What cannot be looked up is sent again: that costs time, not safety.
    fn known(&self, id: &ChunkId, len: usize) -> Result<Option<Place>> {
        let Workspace { repo, ctx, index, data, index_damage_reported, .. } = self.work;
        let missing = |pack: ObjectId| {
            ctx.warn(&format!(
                "the server shows pack {pack} no more, or not whole: what is still here of it is sent again"
            ));
        };
        match index.find(ctx, repo, id) {
            Ok(Some((ChunkKind::Data, r))) if r.len as usize == len => {
                if !data.packs.relied.on(ctx, repo, &r.pack, || missing(r.pack.id))? {
                    return Ok(None);
                }
                let pack = data.packs.earlier(r.pack);
                Ok(Some(Place { pack, offset: r.offset, stored: r.stored, len: r.len }))
            }
            Ok(_) => Ok(None),
            Err(e) if e.kind().is_damage() => {
                if !index_damage_reported.swap(true, Ordering::Relaxed) {
                    ctx.warn(&format!("part of the index cannot be read, its contents are sent again: {e}"));
                }
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Puts the small chunks into packs.
    pub fn flush(&mut self) -> Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let fresh = self.fresh.drain(..);
        self.work.data.add(fresh.map(|(id, len, at)| Fresh { id, len, stored: &self.small[at] }))?;
        self.small.clear();
        Ok(())
    }
}
