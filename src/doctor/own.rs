//! The objects that a run has made. Only these are changed and removed.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::context::{Context, background};
use crate::error::{Error, Kind, Result};
use crate::name::{Name, ObjectId};
use crate::repo::{parallel, random};
use crate::storage::Storage;

/// Time for the removal, also after Ctrl-C.
const REMOVAL: Duration = Duration::from_secs(20);

/// Objects that are removed at once.
const THREADS: usize = 8;

/// Objects of this run, under all names that they may have.
pub struct Own<'s> {
    storage: &'s dyn Storage,
    names: Mutex<Vec<Name>>,
}

impl<'s> Own<'s> {
    pub fn new(storage: &'s dyn Storage) -> Self {
        Own { storage, names: Mutex::default() }
    }

    /// Returns a new name of a pack, at which nothing is. From now on this name is removed at the end.
    pub fn name(&self) -> Result<Name> {
        let name = Name::Pack(ObjectId(random()?));
        self.names.lock().expect("no holder panics").push(name);
        Ok(name)
    }

    /// Writes an object.
    pub fn put(&self, ctx: &Context, bytes: &[u8]) -> Result<Name> {
        let name = self.name()?;
        self.storage.put(ctx, &name, bytes).map(|()| name)
    }

    /// Writes an object and measures the time.
    pub fn put_timed(&self, ctx: &Context, bytes: &[u8]) -> Result<(Name, Duration)> {
        let started = Instant::now();
        self.put(ctx, bytes).map(|name| (name, started.elapsed()))
    }

    /// Removes all objects. Returns those that are still there, or may be, with their sizes.
    pub fn remove_all(&self) -> Vec<(Name, u64)> {
        let ctx = background().with_deadline(Instant::now() + REMOVAL);
        let names = std::mem::take(&mut *self.names.lock().expect("no holder panics"));
        parallel(THREADS, names, |name| self.remove(&ctx, name)).into_iter().flatten().collect()
    }

    /// Removes an object. Returns it if it is still there, or may be.
    fn remove(&self, ctx: &Context, name: Name) -> Option<(Name, u64)> {
        let is_gone = |e: &Error| e.kind() == Kind::Missing;
        let size = self.storage.size(ctx, &name);
        if size.as_ref().is_err_and(is_gone) {
            return None;
        }
        let removed = self.storage.remove(ctx, &name);
        let is_left = removed.is_err() || !self.storage.size(ctx, &name).is_err_and(|e| is_gone(&e));
        is_left.then(|| (name, size.unwrap_or(0)))
    }
}
