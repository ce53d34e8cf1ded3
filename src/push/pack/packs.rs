//! Numbers of packs. A chunk gets its place while its pack is open and has no name yet, and its reference when the pack is
//! stored. Packs of earlier pushes that the snapshot refers to have numbers too.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard};

use super::presence::Presence;
use crate::context::{Context, SLICE};
use crate::crypto::seal::ObjectType;
use crate::error::Result;
use crate::format::reference::PackRef;
use crate::name::ObjectId;

/// The packs that a push writes or refers to.
pub struct Packs<'c> {
    ctx: &'c Context<'c>,
    state: Mutex<PacksState>,
    changed: Condvar,
    /// Which packs of earlier pushes the server has.
    pub presence: Presence,
}

#[derive(Default)]
struct PacksState {
    /// By number.
    all: Vec<Pack>,
    /// Numbers of packs of earlier pushes.
    earlier: HashMap<ObjectId, u32>,
    /// Changes so far, see [`Packs::wait`].
    version: u64,
    /// Data packs of this push that are stored and not committed.
    uncommitted: usize,
}

#[derive(Clone, Copy)]
struct Pack {
    /// Its name, once it is stored.
    stored: Option<PackRef>,
    /// `None` for packs of earlier pushes.
    ours: Option<ObjectType>,
    /// Whether a record names it.
    committed: bool,
}

/// A stored pack of this push that no record names yet.
#[derive(Clone, Copy)]
pub struct StoredPack {
    pub number: u32,
    pub pack: PackRef,
    pub kind: ObjectType,
}

impl<'c> Packs<'c> {
    pub fn new(ctx: &'c Context<'c>) -> Self {
        Packs { ctx, state: Mutex::default(), changed: Condvar::new(), presence: Presence::default() }
    }

    /// Returns the number of a new, open pack.
    pub fn open(&self, kind: ObjectType) -> u32 {
        let mut state = self.lock();
        state.all.push(Pack { stored: None, ours: Some(kind), committed: false });
        state.all.len() as u32 - 1
    }

    /// Notes that the server has acknowledged a pack, and wakes waiting threads.
    pub fn stored(&self, number: u32, pack: PackRef) {
        self.presence.add(pack.id);
        let mut state = self.lock();
        state.all[number as usize].stored = Some(pack);
        state.uncommitted += usize::from(state.all[number as usize].ours == Some(ObjectType::Data));
        drop(state);
        self.touch();
    }

    /// Returns the number of a pack of an earlier push.
    pub fn earlier(&self, pack: PackRef) -> u32 {
        let PacksState { all, earlier, .. } = &mut *self.lock();
        *earlier.entry(pack.id).or_insert_with(|| {
            all.push(Pack { stored: Some(pack), ours: None, committed: true });
            all.len() as u32 - 1
        })
    }

    /// Returns the name of a pack, once it is stored.
    pub fn get(&self, number: u32) -> Option<PackRef> {
        self.lock().all[number as usize].stored
    }

    /// Wakes waiting threads: a chunk was put into a pack, or a pack was stored.
    pub fn touch(&self) {
        self.lock().version += 1;
        self.changed.notify_all();
    }

    /// Calls `ready` after each change until it returns a value.
    pub fn wait<T>(&self, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        loop {
            let version = self.lock().version;
            if let Some(value) = ready()? {
                return Ok(value);
            }
            self.ctx.check()?;
            let state = self.lock();
            drop(self.changed.wait_timeout_while(state, SLICE, |state| state.version == version));
        }
    }

    /// Returns the number of packs that this push has opened.
    pub fn ours(&self) -> u64 {
        self.lock().all.iter().filter(|pack| pack.ours.is_some()).count() as u64
    }

    /// Returns the number of data packs of this push that are stored and not committed.
    pub fn uncommitted(&self) -> usize {
        self.lock().uncommitted
    }

    /// Returns the packs of this push that are stored and not committed, ascending by number.
    pub fn ready(&self) -> Vec<StoredPack> {
        let state = self.lock();
        let uncommitted = state.all.iter().enumerate().filter(|(_, pack)| !pack.committed);
        uncommitted
            .filter_map(|(i, pack)| Some(StoredPack { number: i as u32, pack: pack.stored?, kind: pack.ours? }))
            .collect()
    }

    /// Notes that a record names these packs.
    pub fn committed(&self, packs: &[StoredPack]) {
        let mut state = self.lock();
        packs.iter().for_each(|pack| state.all[pack.number as usize].committed = true);
        state.uncommitted -= packs.iter().filter(|pack| pack.kind == ObjectType::Data).count();
    }

    /// Returns for each pack, by number, whether a record names it.
    pub fn all_committed(&self) -> Vec<bool> {
        self.lock().all.iter().map(|pack| pack.committed).collect()
    }

    fn lock(&self) -> MutexGuard<'_, PacksState> {
        self.state.lock().expect("no holder panics")
    }
}
