//! Finds a chunk that cannot be read at the place its reference names: the one implementation of format.md 11.4.
//!
//! A pack may be missing (dropped by prune, or lost) or damaged. Contents that a later push sent again have the same id, so
//! every row of the index with that id is tried until one can be read. No lock is held while anything is read.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::{Error, Kind, Result};
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::repo::{Index, Repository, State};

/// Missing packs and relocated chunks that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(64 << 10).expect("positive");
/// The log is read again for a lost chunk at most this often.
const REFRESH: Duration = Duration::from_secs(5);
/// A pack that was missing is not asked for again for this long.
const MISSING: Duration = Duration::from_secs(60);
/// Bytes that the index may hold in memory: the fingerprints of 10 million chunks.
const INDEX: usize = 32 << 20;

/// The places at which relocated chunks were found. Every call may come from many threads at once.
pub struct Lookup {
    known: Mutex<Known>,
    /// A thread has finished reading the log.
    refreshed: Condvar,
    /// The state is never refreshed.
    fixed: bool,
    index_memory: usize,
}

struct Known {
    places: Option<Arc<Places>>,
    /// A thread is reading the log.
    refreshing: bool,
    last_refresh: Option<Instant>,
    missing: LruCache<ObjectId, Instant>,
    relocated: LruCache<ChunkId, Ref>,
}

/// All places of chunks, as of one state.
struct Places {
    state: State,
    index: OnceLock<Index>,
    dropped: HashSet<ObjectId>,
}

impl Places {
    fn new(state: State) -> Arc<Self> {
        let dropped = state.dropped_packs();
        Arc::new(Places { state, index: OnceLock::new(), dropped })
    }

    fn index(&self, memory: usize) -> &Index {
        self.index.get_or_init(|| Index::new(&self.state).with_memory(memory))
    }
}

impl Default for Lookup {
    /// Reads the log when the first chunk is not at its place.
    fn default() -> Self {
        Lookup::of(None, false)
    }
}

impl Lookup {
    /// Looks chunks up in this state, and in newer ones where it does not have them.
    pub fn from_state(state: State) -> Self {
        Lookup::of(Some(state), false)
    }

    /// Looks chunks up in this state and in no other.
    pub fn fixed(state: State) -> Self {
        Lookup::of(Some(state), true)
    }

    /// Bounds the bytes that the index may hold in memory.
    #[must_use]
    pub fn with_memory(self, index_memory: usize) -> Self {
        Lookup { index_memory, ..self }
    }

    fn of(state: Option<State>, fixed: bool) -> Self {
        let known = Known {
            places: state.map(Places::new),
            refreshing: false,
            last_refresh: None,
            missing: LruCache::new(REMEMBERED),
            relocated: LruCache::new(REMEMBERED),
        };
        Lookup { known: Mutex::new(known), refreshed: Condvar::new(), fixed, index_memory: INDEX }
    }

    /// Takes over a newer state.
    pub fn set_state(&self, state: State) {
        let places = Places::new(state);
        self.lock().places = Some(places);
    }

    /// Reads a chunk by `read`, which gets the place to try: the one where the chunk was found lately, the one that `r`
    /// names, or one that the index has. Only damage ([`Kind::is_damage`]) makes it try the next place.
    ///
    /// # Errors
    ///
    /// The error of the place that `r` names, if no place can be read; the first error that is no damage.
    pub fn read<T>(
        &self,
        ctx: &Context,
        repo: &Repository,
        kind: ChunkKind,
        r: &Ref,
        read: impl Fn(&Ref) -> Result<T>,
    ) -> Result<T> {
        let relocated = self.lock().relocated.get(&r.id).copied();
        if let Some(place) = relocated.filter(|place| place.len == r.len) {
            match self.attempt(&place, &read)? {
                Ok(value) => return Ok(value),
                Err(_) => drop(self.lock().relocated.pop(&r.id)),
            }
        }
        let why = match self.attempt(r, &read)? {
            Ok(value) => return Ok(value),
            Err(why) => why,
        };
        match self.elsewhere(ctx, repo, kind, r, &read) {
            Ok(Some(value)) => Ok(value),
            Err(e) if ends_operation(&e) => Err(e),
            _ => Err(Error::new(why.kind(), format!("{why}, and the index has no other place for its chunk"))),
        }
    }

    /// Returns the place where a chunk was found lately, if that is not the place that `r` names. Never waits.
    pub fn relocated(&self, r: &Ref) -> Option<Ref> {
        let mut known = self.lock();
        if known.relocated.is_empty() {
            return None;
        }
        known.relocated.get(&r.id).filter(|place| place.len == r.len).copied()
    }

    /// Returns where a chunk is, without reading it: the place that `r` names, unless that pack was dropped and the index
    /// has another place. Later reads try this place first.
    pub fn locate(&self, ctx: &Context, repo: &Repository, kind: ChunkKind, r: &Ref) -> Ref {
        let known = self.lock();
        let places = known.places.clone().filter(|places| places.dropped.contains(&r.pack.id));
        drop(known);
        let Some(places) = places else { return *r };
        if let Some(place) = self.relocated(r) {
            return place;
        }
        let found = places.index(self.index_memory).find(ctx, repo, &r.id);
        let found = found.ok().flatten().filter(|(found, place)| *found == kind && place.len == r.len);
        let Some((_, place)) = found else { return *r };
        self.lock().relocated.put(place.id, place);
        place
    }

    /// Reads from one place. The inner error is damage; then another place may help.
    fn attempt<T>(&self, place: &Ref, read: &impl Fn(&Ref) -> Result<T>) -> Result<Result<T>> {
        if self.is_missing(&place.pack.id) {
            return Ok(Err(Error::new(Kind::Missing, format!("pack {} is missing", place.pack.id))));
        }
        match read(place) {
            Err(e) if e.kind() == Kind::Missing => {
                self.lock().missing.put(place.pack.id, Instant::now());
                Ok(Err(e))
            }
            Err(e) if e.kind() == Kind::Damaged => Ok(Err(e)),
            other => other.map(Ok),
        }
    }

    /// Reads the chunk from where the index has it, first in the state at hand, then in a newer one.
    fn elsewhere<T>(
        &self,
        ctx: &Context,
        repo: &Repository,
        kind: ChunkKind,
        r: &Ref,
        read: &impl Fn(&Ref) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut before = None;
        while let Some(places) = self.newer_than(ctx, repo, before.as_ref())? {
            if let Some(value) = self.try_rows(ctx, repo, &places, kind, r, read)? {
                return Ok(Some(value));
            }
            before = Some(places);
        }
        Ok(None)
    }

    /// Tries all rows of the index. Packs that are condemned come later, since something in them is damaged, and packs that
    /// were dropped last: one that is still there may be the only place of a chunk, if the client that dropped it was
    /// killed before it copied the chunk.
    fn try_rows<T>(
        &self,
        ctx: &Context,
        repo: &Repository,
        places: &Places,
        kind: ChunkKind,
        r: &Ref,
        read: &impl Fn(&Ref) -> Result<T>,
    ) -> Result<Option<T>> {
        let index = places.index(self.index_memory);
        let mut later = Vec::new();
        let mut found = Ok(None);
        let visited = index.visit(ctx, repo, &r.id, |row| {
            let suits = row.kind == kind && row.place.len == r.len && row.place != *r;
            if !suits {
                return ControlFlow::Continue(());
            }
            if row.is_condemned {
                later.push((places.dropped.contains(&row.place.pack.id), row.place));
                return ControlFlow::Continue(());
            }
            found = self.try_row(&row.place, read);
            if matches!(found, Ok(None)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        later.sort_by_key(|(is_dropped, _)| !is_dropped);
        while let (Ok(None), Some((_, place))) = (&found, later.pop()) {
            found = self.try_row(&place, read);
        }
        match (found, visited) {
            (Ok(None), Err(e)) if ends_operation(&e) => Err(e),
            (found, _) => found,
        }
    }

    fn try_row<T>(&self, place: &Ref, read: &impl Fn(&Ref) -> Result<T>) -> Result<Option<T>> {
        let value = self.attempt(place, read)?.ok();
        if value.is_some() {
            self.lock().relocated.put(place.id, *place);
        }
        Ok(value)
    }

    /// Returns the places of the newest state that is known, if it is another one than `before`; reads the log if there is
    /// none and that was not done a moment ago.
    fn newer_than(
        &self,
        ctx: &Context,
        repo: &Repository,
        before: Option<&Arc<Places>>,
    ) -> Result<Option<Arc<Places>>> {
        let mut known = self.lock();
        loop {
            if let Some(places) = &known.places
                && before.is_none_or(|before| !Arc::ptr_eq(before, places))
            {
                return Ok(Some(Arc::clone(places)));
            }
            if self.fixed || known.last_refresh.is_some_and(|at| at.elapsed() < REFRESH) {
                return Ok(None);
            }
            if !known.refreshing {
                break;
            }
            known = ctx.wait(&self.refreshed, known)?;
        }
        known.refreshing = true;
        drop(known);
        let _claim = Claim(self);
        let mut state = before.map(|places| places.state.clone()).unwrap_or_default();
        if !repo.refresh(ctx, &mut state)? {
            return Ok(None);
        }
        let places = Places::new(state);
        self.lock().places = Some(Arc::clone(&places));
        Ok(Some(places))
    }

    fn is_missing(&self, pack: &ObjectId) -> bool {
        let mut known = self.lock();
        let missing = known.missing.get(pack).is_some_and(|since| since.elapsed() < MISSING);
        if !missing {
            known.missing.pop(pack);
        }
        missing
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }
}

/// The right to read the log; whatever happens, others stop waiting for it when this is dropped.
struct Claim<'l>(&'l Lookup);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut known = self.0.lock();
        (known.refreshing, known.last_refresh) = (false, Some(Instant::now()));
        drop(known);
        self.0.refreshed.notify_all();
    }
}

/// Returns whether an error ends the operation as a whole; other errors of a lookup only say that it found nothing.
fn ends_operation(e: &Error) -> bool {
    matches!(e.kind(), Kind::Connection | Kind::Interrupted(_) | Kind::Cancelled)
}

#[cfg(test)]
mod tests;
