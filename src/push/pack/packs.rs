//! Packs by number: a chunk is given its place while its pack has no name yet, and its reference when the server has
//! acknowledged the pack. Packs of earlier runs that are referred to have numbers too.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};

use super::presence::Relied;
use crate::context::{Context, SLICE};
use crate::crypto::seal::ObjectType;
use crate::error::Result;
use crate::format::reference::PackRef;
use crate::name::ObjectId;

pub struct Packs<'c> {
    ctx: &'c Context<'c>,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Those of earlier runs.
    pub relied: Relied,
}

#[derive(Default)]
struct Inner {
    all: Vec<Pack>,
    earlier: HashMap<ObjectId, u32>,
    version: u64,
    /// Data packs of this run that are stored and not committed.
    fresh: usize,
}

#[derive(Clone, Copy)]
struct Pack {
    stored: Option<PackRef>,
    /// `None` for packs of earlier runs.
    ours: Option<ObjectType>,
    /// A record names it.
    committed: bool,
}

impl<'c> Packs<'c> {
    pub fn new(ctx: &'c Context<'c>) -> Self {
        Packs { ctx, inner: Mutex::default(), changed: Condvar::new(), relied: Relied::default() }
    }

    /// A number for a pack that is being filled.
    pub fn open(&self, kind: ObjectType) -> u32 {
        let mut inner = self.inner.lock().expect("no holder panics");
        inner.all.push(Pack { stored: None, ours: Some(kind), committed: false });
        inner.all.len() as u32 - 1
    }

    /// The server has it.
    pub fn stored(&self, number: u32, pack: PackRef) {
        self.relied.ours(pack.id);
        let mut inner = self.inner.lock().expect("no holder panics");
        inner.all[number as usize].stored = Some(pack);
        inner.fresh += usize::from(inner.all[number as usize].ours == Some(ObjectType::Data));
        drop(inner);
        self.touch();
    }

    /// The number of a pack of an earlier run.
    pub fn earlier(&self, pack: PackRef) -> u32 {
        let Inner { all, earlier, .. } = &mut *self.inner.lock().expect("no holder panics");
        *earlier.entry(pack.id).or_insert_with(|| {
            all.push(Pack { stored: Some(pack), ours: None, committed: true });
            all.len() as u32 - 1
        })
    }

    /// The reference to a pack, once the server has it.
    pub fn get(&self, number: u32) -> Option<PackRef> {
        self.inner.lock().expect("no holder panics").all[number as usize].stored
    }

    /// Something has changed that others may wait for: a chunk was put into a pack.
    pub fn touch(&self) {
        self.inner.lock().expect("no holder panics").version += 1;
        self.changed.notify_all();
    }

    /// Asks `ready` again after each change until it gives something.
    pub fn wait<T>(&self, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        loop {
            let version = self.inner.lock().expect("no holder panics").version;
            if let Some(value) = ready()? {
                return Ok(value);
            }
            self.ctx.check()?;
            let inner = self.inner.lock().expect("no holder panics");
            drop(self.changed.wait_timeout_while(inner, SLICE, |inner| inner.version == version));
        }
    }

    /// How many packs this run has written.
    pub fn ours(&self) -> u64 {
        self.inner.lock().expect("no holder panics").all.iter().filter(|pack| pack.ours.is_some()).count() as u64
    }

    /// Data packs of this run that are stored and not committed.
    pub fn fresh(&self) -> usize {
        self.inner.lock().expect("no holder panics").fresh
    }

    /// The packs of this run that are stored and not committed, in the order of their numbers.
    pub fn ready(&self) -> Vec<(u32, PackRef, ObjectType)> {
        let inner = self.inner.lock().expect("no holder panics");
        let fresh = inner.all.iter().enumerate().filter(|(_, pack)| !pack.committed);
        fresh.filter_map(|(i, pack)| Some((i as u32, pack.stored?, pack.ours?))).collect()
    }

    /// A record names these packs now.
    pub fn committed(&self, packs: &[(u32, PackRef, ObjectType)]) {
        let mut inner = self.inner.lock().expect("no holder panics");
        packs.iter().for_each(|(number, ..)| inner.all[*number as usize].committed = true);
        inner.fresh -= packs.iter().filter(|(.., kind)| *kind == ObjectType::Data).count();
    }

    /// Of each pack by its number, whether a record names it.
    pub fn all_committed(&self) -> Vec<bool> {
        self.inner.lock().expect("no holder panics").all.iter().map(|pack| pack.committed).collect()
    }
}
