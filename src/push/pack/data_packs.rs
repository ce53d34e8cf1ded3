//! Data packs: filled by all workers, sealed and stored by a few threads of their own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::chunks::{ChunkState, Chunks, Place};
use super::packs::Packs;
use super::piece::Piece;
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::{ObjectType, sealed_len};
use crate::error::{Error, Result};
use crate::format::pack::Builder;
use crate::format::reference::Extent;
use crate::repo::{Index, Repository};

/// A pack on its way to the server.
pub struct Upload {
    number: u32,
    plain: Vec<u8>,
}

/// A new chunk in its stored form.
pub struct Fresh<'a> {
    pub id: ChunkId,
    pub len: usize,
    pub stored: &'a [u8],
}

/// The open data packs.
pub struct DataPacks<'c> {
    ctx: &'c Context<'c>,
    repo: &'c Repository,
    pub chunks: Chunks,
    pub packs: Packs<'c>,
    filling: Mutex<Filling>,
    /// Buffers of packs that were stored. They are used again because allocators keep freed ones of this size: what
    /// bounds the number of packs then bounds the memory too.
    spare: Mutex<Vec<Vec<u8>>>,
    added: AtomicU64,
    written: AtomicU64,
}

struct Filling {
    /// Two, where the memory allows, so that a chunk that does not fit into the fuller one need not close it: that halves
    /// what is left empty.
    open: Vec<Option<Open>>,
    /// `None` when all is said.
    uploads: Option<Sender<Upload>>,
}

struct Open {
    number: u32,
    builder: Builder,
}

impl<'c> DataPacks<'c> {
    /// `open`: packs that are filled at a time.
    pub fn new(ctx: &'c Context<'c>, repo: &'c Repository, uploads: Sender<Upload>, open: usize) -> Self {
        let open = std::iter::repeat_with(|| None).take(open).collect();
        let filling = Mutex::new(Filling { open, uploads: Some(uploads) });
        DataPacks {
            ctx,
            repo,
            chunks: Chunks::default(),
            packs: Packs::new(ctx),
            filling,
            spare: Mutex::default(),
            added: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// Puts chunks that the caller has claimed into packs. Waits where the line is slower than we are.
    pub fn add<'a>(&self, fresh: impl Iterator<Item = Fresh<'a>>) -> Result<()> {
        let mut filling = self.filling.lock().expect("no holder panics");
        let mut added = 0;
        for chunk in fresh {
            let slot = self.slot(&mut filling, chunk.stored.len())?;
            let entry = slot.builder.add(chunk.id, ChunkKind::Data, chunk.stored, chunk.len);
            self.chunks.put(chunk.id, Place::new(slot.number, &entry));
            added += chunk.len as u64;
        }
        drop(filling);
        self.added.fetch_add(added, Ordering::Relaxed);
        self.packs.touch();
        Ok(())
    }

    /// The fullest open pack with room for `len` bytes; if there is none, the fullest makes way for a new one.
    fn slot<'o>(&self, filling: &'o mut Filling, len: usize) -> Result<&'o mut Open> {
        let room = |slot: &Option<Open>| slot.as_ref().map(|open| open.builder.room());
        let open = &filling.open;
        let fullest =
            (0..open.len()).filter(|i| room(&open[*i]).is_some_and(|r| r >= len)).min_by_key(|i| room(&open[*i]));
        let index = match fullest.or_else(|| open.iter().position(Option::is_none)) {
            Some(index) => index,
            None => {
                let index = (0..open.len()).min_by_key(|i| room(&open[*i])).unwrap_or(0);
                self.close(filling, index, true)?;
                index
            }
        };
        let spare = || self.spare.lock().expect("no holder panics").pop();
        let builder = || spare().map_or_else(Builder::default, Builder::new);
        let new = || Open { number: self.packs.open(ObjectType::Data), builder: builder() };
        Ok(filling.open[index].get_or_insert_with(new))
    }

    fn close(&self, filling: &mut Filling, index: usize, full: bool) -> Result<()> {
        let (Some(Open { number, builder }), Some(uploads)) = (filling.open[index].take(), &filling.uploads) else {
            return Ok(());
        };
        self.ctx.send(uploads, Upload { number, plain: builder.finish(full).0 })
    }

    /// Closes this pack, if it is still open, before it is full: somebody cannot go on without it.
    pub fn hurry(&self, number: u32) -> Result<()> {
        let mut filling = self.filling.lock().expect("no holder panics");
        let wanted = filling.open.iter().position(|slot| slot.as_ref().is_some_and(|open| open.number == number));
        wanted.map_or(Ok(()), |index| self.close(&mut filling, index, false))
    }

    /// Closes what is open; nothing can be added afterwards.
    pub fn finish(&self) -> Result<()> {
        let mut filling = self.filling.lock().expect("no holder panics");
        let closed = (0..filling.open.len()).try_for_each(|index| self.close(&mut filling, index, false));
        filling.uploads = None;
        closed
    }

    /// Plaintext bytes of all chunks that were added.
    pub fn added(&self) -> u64 {
        self.added.load(Ordering::Relaxed)
    }

    /// Sealed bytes of the packs that were stored.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The piece with its place, once the server has acknowledged its pack. Where somebody waits for room meanwhile, its
    /// pack is hurried: `pressed`.
    pub fn resolve(&self, ctx: &Context, piece: &Piece, index: &Index, pressed: bool) -> Result<Option<Piece>> {
        let Piece::New(id) = piece else { return Ok(Some(*piece).filter(|piece| !matches!(piece, Piece::Awaited))) };
        match self.chunks.state(id) {
            ChunkState::Claimed => Ok(None),
            ChunkState::Placed(place) if self.packs.get(place.pack).is_some() => Ok(Some(Piece::Known(*id, place))),
            ChunkState::Placed(place) => {
                if pressed {
                    self.hurry(place.pack)?;
                }
                Ok(None)
            }
            ChunkState::Forgotten => {
                let (_, r) = index
                    .find(ctx, self.repo, id)?
                    .ok_or_else(|| Error::failed("a committed chunk is not in the index"))?;
                let pack = self.packs.earlier(r.pack);
                Ok(Some(Piece::Known(*id, Place { pack, offset: r.offset, stored: r.stored, len: r.len })))
            }
        }
    }

    /// Returns the extent of a piece whose place is known.
    pub fn extent(&self, piece: &Piece) -> Result<Extent> {
        match piece {
            Piece::Hole(len) => Ok(Extent::Hole(*len)),
            Piece::Known(id, place) => {
                let pack = self.packs.get(place.pack).ok_or_else(|| Error::failed("a known pack without a name"))?;
                Ok(Extent::Data(place.reference(*id, pack)))
            }
            Piece::New(_) | Piece::Awaited => Err(Error::failed("a piece of a file without a place")),
        }
    }
}

/// The body of an uploading thread: seals and stores packs until there are no more, or until the push ends early.
pub fn upload(repo: &Repository, data: &DataPacks<'_>, uploads: &Receiver<Upload>) -> Result<()> {
    let ctx = data.ctx;
    while let Some(Upload { number, mut plain }) = ctx.receive(uploads)? {
        let pack = repo.put_pack(ctx, ObjectType::Data, &mut plain)?;
        data.written.fetch_add(sealed_len(pack.len.into()), Ordering::Relaxed);
        data.packs.stored(number, pack);
        data.spare.lock().expect("no holder panics").push(plain);
    }
    Ok(())
}
