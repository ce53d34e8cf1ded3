//! One index section as questions meet it: in its place on the server, as fingerprints, or whole in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, TryLockError};

use sha2::{Digest, Sha256};

use super::Repository;
use super::fetch::Span;
use super::fingerprints::Fingerprints;
use super::log::LiveSection;
use crate::context::Context;
use crate::crypto::keys::ChunkId;
use crate::error::{Error, Kind, Result};
use crate::format::index::{self, ENTRY, PACK_ROW};
use crate::format::pack::Entry;
use crate::format::reference::PackRef;

/// What a question of one block costs, as bytes: in a round trip a line carries about as much. A section is read whole
/// once it was asked so often that this would have been cheaper; up to this size at the first question.
const QUESTION: usize = 1 << 20;

/// The form in which a section may be held, in ascending order of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// Nothing but its fences.
    Places,
    /// 3.25 bytes for each chunk.
    Fingerprints,
    /// All of it.
    Whole,
}

/// How much is done for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Only what is in memory is asked (and read once more where that says that the chunk is probably here).
    Memory,
    /// Something is read, unless another thread is reading the section.
    Free,
    /// Whatever it takes.
    Wait,
}

pub(super) struct Section {
    pub place: LiveSection,
    asked: AtomicUsize,
    memory: RwLock<Memory>,
    /// Held by the thread that reads the section whole.
    reading: Mutex<()>,
}

struct Memory {
    allowed: Form,
    held: Held,
}

#[derive(Clone)]
enum Held {
    Nothing,
    /// The record is not there any more; there is no use in asking again.
    Gone(Arc<str>),
    Fingerprints(Arc<Fingerprints>),
    Whole(Arc<Vec<u8>>),
}

impl Held {
    /// Returns the part that this form allows to stay.
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

impl Section {
    pub fn new(place: LiveSection) -> Self {
        let memory = RwLock::new(Memory { allowed: Form::Places, held: Held::Nothing });
        Section { place, asked: AtomicUsize::new(0), memory, reading: Mutex::new(()) }
    }

    /// Bytes of the section.
    pub fn len(&self) -> usize {
        self.place.section.len as usize
    }

    /// Its bytes, if they are at hand anyway; [`Section::allow`] says next what stays of them.
    pub fn give(&self, bytes: Vec<u8>) {
        self.memory.write().expect("no holder panics").held = Held::Whole(Arc::new(bytes));
    }

    /// From now on this much may be held.
    pub fn allow(&self, form: Form) {
        let mut memory = self.memory.write().expect("no holder panics");
        memory.allowed = form;
        memory.held = std::mem::replace(&mut memory.held, Held::Nothing).within(form);
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        match self.memory().held {
            Held::Nothing | Held::Gone(_) => 0,
            Held::Fingerprints(_) => Fingerprints::size(self.len()),
            Held::Whole(_) => self.len(),
        }
    }

    /// The entry of `id` and the number of its pack. The outer `None`: that takes more effort.
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
            Held::Gone(why) => return Err(Error::new(Kind::Missing, &*why)),
            Held::Nothing => {}
        }
        let Some((from, to)) = index::place(&self.place.section.fences, self.len(), id) else { return Ok(Some(None)) };
        let range = self.place.start() + from as u64..self.place.start() + to as u64;
        let (mut block, small) = (Vec::new(), self.len() <= QUESTION && allowed > Form::Places);
        if !small && repo.fetcher.peek(&self.place.object, range.clone(), &mut block) {
            return index::find(&block, id).map(Some);
        }
        if effort == Effort::Memory {
            return Ok(None);
        }
        let spent = (self.asked.fetch_add(1, Ordering::Relaxed) + 1).saturating_mul(QUESTION);
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

    /// Reads the entries that may be those of `id`, each with one block that is probably in the cache.
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

    /// Reads the section into the form that is allowed. Where it is damaged, single blocks may still be readable.
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
            (Err(e), _) if e.kind() == Kind::Missing => memory.held = Held::Gone(e.to_string().into()),
            (Err(e), _) => return Err(e),
        }
        // It may have been allowed less meanwhile.
        memory.held = std::mem::replace(&mut memory.held, Held::Nothing).within(memory.allowed);
        Ok(())
    }

    /// The pack in row `number` of the table that the section counts in.
    pub fn pack(&self, ctx: &Context, repo: &Repository, number: u32) -> Result<PackRef> {
        let packs = self.place.packs.as_deref().ok_or_else(|| Error::damaged("an index without its packs"))?;
        let at = u64::from(number) * PACK_ROW as u64;
        if at >= u64::from(packs.section.len) {
            return Err(Error::damaged("an index entry names a pack that is not in its table"));
        }
        let at = packs.start() + at;
        let row = repo.fetcher.read(ctx, &packs.object, at..at + PACK_ROW as u64, Span::Exact)?;
        Ok(index::decode_packs(&row)?[0].0)
    }

    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().expect("no holder panics")
    }
}

impl Repository {
    /// Hands out a whole section of a record in pieces of whole entries, and fails in the end if its hash is wrong: what
    /// was made of the pieces must be dropped then. Small sections are read through the cache, large ones past it.
    pub(super) fn section_in_pieces(
        &self,
        ctx: &Context,
        place: &LiveSection,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let damaged = |what| Error::damaged(format!("a section of record {} {what}", place.object.id));
        let range = place.start()..place.start() + u64::from(place.section.len);
        if !place.start().is_multiple_of(ENTRY as u64) {
            return Err(damaged("does not begin where one may"));
        }
        let mut hash = Sha256::new();
        let mut piece = |bytes: &[u8]| {
            hash.update(bytes);
            take(bytes);
        };
        if place.section.len as usize <= QUESTION {
            piece(&self.fetcher.read(ctx, &place.object, range, Span::Exact)?);
        } else {
            self.fetcher.stream(ctx, &place.object, range, &mut piece)?;
        }
        let right = hash.finalize()[..] == place.section.sha256;
        right.then_some(()).ok_or_else(|| damaged("is not the one that its head names"))
    }

    /// A whole section of a record, verified by its hash too.
    pub(super) fn section(&self, ctx: &Context, place: &LiveSection) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(place.section.len as usize);
        self.section_in_pieces(ctx, place, |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }
}
