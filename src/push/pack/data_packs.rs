//! The open data packs: filled by all workers, then sealed and uploaded by threads of their own.
//!
//! No lock is held while a finished pack waits for an uploading thread. Its slot stays taken meanwhile, which bounds the
//! number of packs in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use crossbeam_channel::{Receiver, Sender};

use super::chunks::{ChunkState, Chunks, Place};
use super::packs::Packs;
use super::piece::Piece;
use crate::context::{Context, SLICE};
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::{ObjectType, sealed_len};
use crate::error::{Error, Result};
use crate::format::pack::{Builder, Entry};
use crate::format::reference::Extent;
use crate::progress::Event;
use crate::repo::{Index, Repository};

/// A finished pack, to be sealed and stored.
pub struct Upload {
    number: u32,
    /// Plaintext bytes of its chunks.
    contents: u64,
    plain: Vec<u8>,
    entries: Vec<Entry>,
}

/// A new chunk in its stored form.
pub struct NewChunk<'a> {
    pub id: ChunkId,
    /// Length of its plaintext.
    pub len: usize,
    pub stored: &'a [u8],
}

/// The data packs of one push.
pub struct DataPacks<'c> {
    ctx: &'c Context<'c>,
    repo: &'c Repository,
    pub chunks: Chunks,
    pub packs: Packs<'c>,
    /// Every pack is padded to the full size.
    pub full_packs: bool,
    slots: Mutex<Slots>,
    /// Signalled when a slot becomes free.
    freed: Condvar,
    /// Buffers of stored packs, to be used again. Allocators keep freed buffers of this size, so only reuse bounds the
    /// memory.
    spare: Mutex<Vec<Vec<u8>>>,
    added: AtomicU64,
    written: AtomicU64,
    /// Bytes of chunks in their stored form whose packs are not stored.
    unsent: AtomicU64,
}

struct Slots {
    /// Two where the memory allows: a chunk that does not fit into the fuller pack goes to the other one, which halves the
    /// space that is left empty.
    all: Vec<Slot>,
    /// `None` after the last pack.
    uploads: Option<Sender<Upload>>,
}

enum Slot {
    Free,
    Open(OpenPack),
    /// The pack is finished and waits for an uploading thread.
    Leaving,
}

struct OpenPack {
    number: u32,
    /// Plaintext bytes of its chunks.
    contents: u64,
    builder: Builder,
}

impl Slots {
    /// Returns the fullest open pack with room for `len` bytes.
    fn fitting(&mut self, len: usize) -> Option<&mut OpenPack> {
        let open = self.all.iter_mut().filter_map(Slot::open_mut);
        open.filter(|pack| pack.builder.room() >= len).min_by_key(|pack| pack.builder.room())
    }

    fn fullest(&self) -> Option<usize> {
        let open = self.all.iter().enumerate().filter_map(|(i, slot)| Some((i, slot.open()?.builder.room())));
        open.min_by_key(|(_, room)| *room).map(|(i, _)| i)
    }

    fn is_leaving(&self) -> bool {
        self.all.iter().any(|slot| matches!(slot, Slot::Leaving))
    }
}

impl Slot {
    fn open(&self) -> Option<&OpenPack> {
        if let Slot::Open(pack) = self { Some(pack) } else { None }
    }

    fn open_mut(&mut self) -> Option<&mut OpenPack> {
        if let Slot::Open(pack) = self { Some(pack) } else { None }
    }
}

impl<'c> DataPacks<'c> {
    /// `open`: number of packs that may be open.
    pub fn new(ctx: &'c Context<'c>, repo: &'c Repository, uploads: Sender<Upload>, open: usize) -> Self {
        let all = std::iter::repeat_with(|| Slot::Free).take(open).collect();
        DataPacks {
            ctx,
            repo,
            chunks: Chunks::default(),
            packs: Packs::new(ctx),
            full_packs: false,
            slots: Mutex::new(Slots { all, uploads: Some(uploads) }),
            freed: Condvar::new(),
            spare: Mutex::default(),
            added: AtomicU64::new(0),
            written: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
        }
    }

    /// Puts chunks that the caller has claimed into packs. Waits while the network is slower than the workers.
    pub fn add<'a>(&self, chunks: impl Iterator<Item = NewChunk<'a>>) -> Result<()> {
        let mut slots = self.lock();
        let mut stored = 0;
        for chunk in chunks {
            slots = self.make_room(slots, chunk.stored.len())?;
            let pack =
                slots.fitting(chunk.stored.len()).ok_or_else(|| Error::failed("a chunk that fits into no pack"))?;
            let entry = pack.builder.add(chunk.id, ChunkKind::Data, chunk.stored, chunk.len);
            self.chunks.put(chunk.id, Place::new(pack.number, &entry));
            pack.contents += chunk.len as u64;
            // Before the lock is released: the pack may be stored while the next chunk waits for room.
            self.unsent.fetch_add(chunk.stored.len() as u64, Ordering::Relaxed);
            stored += chunk.stored.len() as u64;
        }
        drop(slots);
        self.ctx.event(Event::ToSend { bytes: stored });
        self.packs.touch();
        Ok(())
    }

    /// Makes sure that an open pack has room for `len` bytes: opens one, or finishes the fullest first.
    fn make_room<'s>(&'s self, mut slots: MutexGuard<'s, Slots>, len: usize) -> Result<MutexGuard<'s, Slots>> {
        loop {
            if slots.fitting(len).is_some() {
                return Ok(slots);
            }
            if let Some(free) = slots.all.iter_mut().find(|slot| matches!(slot, Slot::Free)) {
                *free = Slot::Open(self.open_pack());
                return Ok(slots);
            }
            slots = match slots.fullest() {
                Some(index) if !slots.is_leaving() => self.finish_slot(slots, index, true)?,
                _ => self.freed.wait_timeout(slots, SLICE).expect("no holder panics").0,
            };
            self.ctx.check()?;
        }
    }

    fn open_pack(&self) -> OpenPack {
        let spare = self.spare.lock().expect("no holder panics").pop();
        let builder = spare.map_or_else(Builder::default, Builder::new);
        OpenPack { number: self.packs.open(ObjectType::Data), contents: 0, builder }
    }

    /// Finishes an open pack and hands it to an uploading thread, without the lock. `full`: more chunks follow.
    fn finish_slot<'s>(
        &'s self,
        mut slots: MutexGuard<'s, Slots>,
        index: usize,
        full: bool,
    ) -> Result<MutexGuard<'s, Slots>> {
        let uploads = slots.uploads.clone();
        let slot = std::mem::replace(&mut slots.all[index], Slot::Leaving);
        drop(slots);
        let sent = match (slot, uploads) {
            (Slot::Open(OpenPack { number, contents, builder }), Some(uploads)) => {
                let (plain, entries) = builder.finish(full || self.full_packs);
                self.ctx.send(&uploads, Upload { number, contents, plain, entries })
            }
            _ => Ok(()),
        };
        let mut slots = self.lock();
        slots.all[index] = Slot::Free;
        self.freed.notify_all();
        sent.map(|()| slots)
    }

    /// Finishes this pack before it is full, if it is still open.
    pub fn finish_pack(&self, number: u32) -> Result<()> {
        let slots = self.lock();
        let index = slots.all.iter().position(|slot| slot.open().is_some_and(|pack| pack.number == number));
        if let Some(index) = index {
            drop(self.finish_slot(slots, index, false)?);
        }
        Ok(())
    }

    /// Finishes all open packs. No chunk can be added afterwards.
    pub fn finish(&self) -> Result<()> {
        let finished = self.finish_all();
        self.lock().uploads = None;
        finished
    }

    fn finish_all(&self) -> Result<()> {
        let mut slots = self.lock();
        while let Some(index) = slots.fullest() {
            slots = self.finish_slot(slots, index, false)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("no holder panics")
    }

    /// Returns the plaintext bytes of the chunks in the packs that were stored.
    pub fn added(&self) -> u64 {
        self.added.load(Ordering::Relaxed)
    }

    /// Returns the bytes of chunks in packs that are open or on their way.
    pub fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Returns the sealed bytes of the packs that were stored.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Returns the piece with its place, once its pack is stored. `pressed`: the walk waits, so the pack is finished before
    /// it is full (see [`super`]).
    pub fn resolve(&self, ctx: &Context, piece: &Piece, index: &Index, pressed: bool) -> Result<Option<Piece>> {
        let Piece::New(id) = piece else { return Ok(Some(*piece).filter(|piece| !matches!(piece, Piece::Awaited))) };
        match self.chunks.state(id) {
            ChunkState::Claimed => Ok(None),
            ChunkState::Placed(place) if self.packs.get(place.pack).is_some() => Ok(Some(Piece::Known(*id, place))),
            ChunkState::Placed(place) => {
                if pressed {
                    self.finish_pack(place.pack)?;
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

/// Runs an uploading thread: seals and stores packs until there are no more, or until the push is cancelled.
pub fn upload(repo: &Repository, data: &DataPacks<'_>, uploads: &Receiver<Upload>) -> Result<()> {
    let ctx = data.ctx;
    while let Some(Upload { number, contents, mut plain, entries }) = ctx.receive(uploads)? {
        let pack = repo.put_new_pack(ctx, &mut plain, &entries)?;
        data.added.fetch_add(contents, Ordering::Relaxed);
        data.unsent.fetch_sub(entries.iter().map(|entry| u64::from(entry.stored)).sum(), Ordering::Relaxed);
        data.written.fetch_add(sealed_len(pack.len.into()), Ordering::Relaxed);
        data.packs.stored(number, pack);
        data.spare.lock().expect("no holder panics").push(plain);
    }
    Ok(())
}
