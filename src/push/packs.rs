//! Packs by number: a chunk is given its place while its pack has no name yet, and its reference when the server has
//! acknowledged the pack. Packs of earlier runs that are referred to have numbers too.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};

use super::control::{Control, PATIENCE};
use crate::crypto::seal::ObjectType;
use crate::error::Result;
use crate::format::reference::PackRef;
use crate::name::ObjectId;

pub(super) struct Packs<'c> {
    control: &'c Control<'c>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    all: Vec<Pack>,
    earlier: HashMap<ObjectId, u32>,
    version: u64,
}

#[derive(Clone, Copy)]
struct Pack {
    stored: Option<PackRef>,
    /// `None` for packs of earlier runs.
    ours: Option<ObjectType>,
}

impl<'c> Packs<'c> {
    pub fn new(control: &'c Control<'c>) -> Self {
        Packs { control, inner: Mutex::default(), changed: Condvar::new() }
    }

    /// A number for a pack that is being filled.
    pub fn open(&self, kind: ObjectType) -> u32 {
        let mut inner = self.inner.lock().expect("no holder panics");
        inner.all.push(Pack { stored: None, ours: Some(kind) });
        inner.all.len() as u32 - 1
    }

    /// The server has it.
    pub fn stored(&self, number: u32, pack: PackRef) {
        self.inner.lock().expect("no holder panics").all[number as usize].stored = Some(pack);
        self.touch();
    }

    /// The number of a pack of an earlier run.
    pub fn earlier(&self, pack: PackRef) -> u32 {
        let Inner { all, earlier, .. } = &mut *self.inner.lock().expect("no holder panics");
        *earlier.entry(pack.id).or_insert_with(|| {
            all.push(Pack { stored: Some(pack), ours: None });
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
            self.control.check()?;
            let inner = self.inner.lock().expect("no holder panics");
            drop(self.changed.wait_timeout_while(inner, PATIENCE, |inner| inner.version == version));
        }
    }

    /// How many packs this run has written.
    pub fn ours(&self) -> u64 {
        self.inner.lock().expect("no holder panics").all.iter().filter(|pack| pack.ours.is_some()).count() as u64
    }

    /// The packs of this run in the order of their numbers, each with its number. All of them are stored by now.
    pub fn into_ours(self) -> Vec<(u32, PackRef, ObjectType)> {
        let inner = self.inner.into_inner().expect("no holder panics");
        let ours = |(i, pack): (usize, Pack)| Some((i as u32, pack.stored?, pack.ours?));
        inner.all.into_iter().enumerate().filter_map(ours).collect()
    }
}
