//! An index section for look-ups: on the server, as fingerprints in memory, or whole in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, TryLockError};

use sha2::{Digest, Sha256};

use super::Repository;
use super::fetch::Span;
use super::fingerprints::Fingerprints;
use super::state::LiveSection;
use crate::context::Context;
use crate::crypto::keys::ChunkId;
use crate::error::{Error, Kind, Result};
use crate::format::index::{self, ENTRY, PACK_ROW};
use crate::format::pack::Entry;
use crate::format::reference::PackRef;
use crate::name::Name;

/// Cost of a look-up that reads one block, in bytes that a connection carries in a round trip. A section is read whole
/// once its look-ups have cost as much as the section; a section of at most this size at the first look-up.
const LOOKUP_COST: usize = 1 << 20;

/// Form of a section in memory, in ascending order of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// The fences.
    Places,
    /// Fingerprints: 3.25 bytes per chunk.
    Fingerprints,
    /// All entries.
    Whole,
}

/// Effort of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Uses data in memory only (and reads one block where fingerprints match).
    Memory,
    /// Reads from the storage, unless another thread is reading the section.
    Free,
    /// Reads from the storage, and waits for other threads.
    Wait,
}

pub(super) struct IndexSection {
    pub place: LiveSection,
    lookups: AtomicUsize,
    memory: RwLock<InMemory>,
    /// Held by the thread that reads the section whole.
    reading: Mutex<()>,
}

struct InMemory {
    allowed: Form,
    held: Held,
}

#[derive(Clone)]
enum Held {
    Nothing,
    /// The record is missing; further reads would fail too.
    Missing(Arc<str>),
    Fingerprints(Arc<Fingerprints>),
    Whole(Arc<Vec<u8>>),
}

impl Held {
    /// Reduces the data to the allowed form.
    fn within(self, allowed: Form) -> Held {
        match (self, allowed) {
            (Held::Whole(bytes), Form::Fingerprints) => {
                let mut fingerprints = Fingerprints::with_room(bytes.len());
                fingerprints.add(&bytes);
                Held::Fingerprints(Arc::new(fingerprints))
            }
            (Held::Whole(_) | Held::Fingerprints(_), Form::Places) => Held::Nothing,
            (held, _) => held,
        }
    }
}

impl IndexSection {
    pub fn new(place: LiveSection) -> Self {
        let memory = RwLock::new(InMemory { allowed: Form::Places, held: Held::Nothing });
        IndexSection { place, lookups: AtomicUsize::new(0), memory, reading: Mutex::new(()) }
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.place.section.len as usize
    }

    /// Returns the sequence of the record that holds the bytes.
    pub fn sequence(&self) -> u32 {
        if let Name::Record { sequence, .. } = self.place.object.name { sequence } else { 0 }
    }

    /// Takes the bytes of the section; [`IndexSection::allow`] reduces them to the allowed form.
    pub fn keep(&self, bytes: Vec<u8>) {
        self.memory.write().expect("no holder panics").held = Held::Whole(Arc::new(bytes));
    }

    /// Sets the allowed form.
    pub fn allow(&self, form: Form) {
        let mut memory = self.memory.write().expect("no holder panics");
        memory.allowed = form;
        memory.held = std::mem::replace(&mut memory.held, Held::Nothing).within(form);
    }

    /// Returns the bytes in memory.
    pub fn held(&self) -> usize {
        match self.memory().held {
            Held::Nothing | Held::Missing(_) => 0,
            Held::Fingerprints(_) => Fingerprints::size(self.len()),
            Held::Whole(_) => self.len(),
        }
    }

    /// Returns the entry of `id` and the number of its pack. The outer `None`: a higher effort is needed.
    pub fn find(
        &self,
        ctx: &Context,
        repo: &Repository,
        id: &ChunkId,
        effort: Effort,
    ) -> Result<Option<Option<(u32, Entry)>>> {
        let (allowed, held) = {
            let memory = self.memory();
            (memory.allowed, memory.held.clone())
        };
        match held {
            Held::Whole(bytes) => return index::find(&bytes, id).map(Some),
            Held::Fingerprints(fingerprints) => return self.confirm(ctx, repo, &fingerprints, id).map(Some),
            Held::Missing(why) => return Err(Error::new(Kind::Missing, &*why)),
            Held::Nothing => {}
        }
        let Some((from, to)) = index::place(&self.place.section.fences, self.len(), id) else { return Ok(Some(None)) };
        let range = self.place.start() + from as u64..self.place.start() + to as u64;
        let (mut block, small) = (Vec::new(), self.len() <= LOOKUP_COST && allowed > Form::Places);
        if !small && repo.fetcher.peek(&self.place.object, range.clone(), &mut block) {
            return index::find(&block, id).map(Some);
        }
        if effort == Effort::Memory {
            return Ok(None);
        }
        let spent = (self.lookups.fetch_add(1, Ordering::Relaxed) + 1).saturating_mul(LOOKUP_COST);
        if allowed == Form::Places || spent < self.len() {
            return index::find(&repo.fetcher.read(ctx, &self.place.object, range, Span::Exact)?, id).map(Some);
        }
        let reading = match (effort, self.reading.try_lock()) {
            (_, Ok(reading)) => reading,
            (Effort::Free, Err(TryLockError::WouldBlock)) => return Ok(None),
            _ => self.reading.lock().expect("no holder panics"),
        };
        if matches!(self.memory().held, Held::Nothing) {
            self.read(ctx, repo)?;
        }
        drop(reading);
        self.find(ctx, repo, id, effort)
    }

    /// Reads the entries that may match `id`. Their blocks are often in the cache.
    fn confirm(
        &self,
        ctx: &Context,
        repo: &Repository,
        fingerprints: &Fingerprints,
        id: &ChunkId,
    ) -> Result<Option<(u32, Entry)>> {
        for row in fingerprints.find(id) {
            let at = self.place.start() + (row * ENTRY) as u64;
            let row = repo.fetcher.read(ctx, &self.place.object, at..at + ENTRY as u64, Span::Exact)?;
            if let Some(found) = index::find(&row, id)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Reads the section into memory in the allowed form. If it is damaged, single blocks may still be readable.
    fn read(&self, ctx: &Context, repo: &Repository) -> Result<()> {
        let form = self.memory().allowed;
        let (mut whole, mut fingerprints) = (Vec::new(), Fingerprints::default());
        let result = match form {
            Form::Places => Ok(()),
            Form::Whole => {
                whole.reserve_exact(self.len());
                repo.section_in_pieces(ctx, &self.place, |piece| whole.extend_from_slice(piece))
            }
            Form::Fingerprints => {
                fingerprints = Fingerprints::with_room(self.len());
                repo.section_in_pieces(ctx, &self.place, |piece| fingerprints.add(piece))
            }
        };
        let mut memory = self.memory.write().expect("no holder panics");
        match (result, form) {
            (Ok(()), Form::Places) => {}
            (Ok(()), Form::Fingerprints) => memory.held = Held::Fingerprints(Arc::new(fingerprints)),
            (Ok(()), Form::Whole) => memory.held = Held::Whole(Arc::new(whole)),
            (Err(e), _) if e.kind() == Kind::Damaged => memory.allowed = Form::Places,
            (Err(e), _) if e.kind() == Kind::Missing => memory.held = Held::Missing(e.to_string().into()),
            (Err(e), _) => return Err(e),
        }
        // The allowed form may have changed meanwhile.
        memory.held = std::mem::replace(&mut memory.held, Held::Nothing).within(memory.allowed);
        Ok(())
    }

    /// Returns the pack in row `number` of the packs section.
    pub fn pack(&self, ctx: &Context, repo: &Repository, number: u32) -> Result<PackRef> {
        let packs =
            self.place.packs.as_deref().ok_or_else(|| Error::damaged("an index section without its packs section"))?;
        let at = u64::from(number) * PACK_ROW as u64;
        if at >= u64::from(packs.section.len) {
            return Err(Error::damaged("an index entry names a pack that is not in its table"));
        }
        let at = packs.start() + at;
        let row = repo.fetcher.read(ctx, &packs.object, at..at + PACK_ROW as u64, Span::Exact)?;
        Ok(index::decode_packs(&row)?[0].0)
    }

    fn memory(&self) -> RwLockReadGuard<'_, InMemory> {
        self.memory.read().expect("no holder panics")
    }
}

impl Repository {
    /// Passes a section to `take` in pieces of whole entries. Fails at the end if the hash is wrong; the caller must then
    /// drop the results. Reads small sections through the cache, large ones past it.
    pub(super) fn section_in_pieces(
        &self,
        ctx: &Context,
        place: &LiveSection,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let damaged = |what| Error::damaged(format!("a section of record {} {what}", place.object.id));
        let range = place.start()..place.start() + u64::from(place.section.len);
        if !place.start().is_multiple_of(ENTRY as u64) {
            return Err(damaged("is not aligned"));
        }
        let mut hash = Sha256::new();
        let mut piece = |bytes: &[u8]| {
            hash.update(bytes);
            take(bytes);
        };
        if place.section.len as usize <= LOOKUP_COST {
            piece(&self.fetcher.read(ctx, &place.object, range, Span::Exact)?);
        } else {
            self.fetcher.stream(ctx, &place.object, range, &mut piece)?;
        }
        let right = hash.finalize()[..] == place.section.sha256;
        right.then_some(()).ok_or_else(|| damaged("differs from its hash in the head"))
    }

    /// Returns a section, verified by its hash.
    pub(super) fn section(&self, ctx: &Context, place: &LiveSection) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(place.section.len as usize);
        self.section_in_pieces(ctx, place, |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }
}
