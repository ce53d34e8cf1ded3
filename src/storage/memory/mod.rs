//! A storage in memory, for tests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::{Capabilities, Entry, Storage, taken};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name};
use crate::progress::Event;
use crate::time::Time;

/// Objects in a map. Faults are made by wrapping it (`tests/harness/faults.rs`).
#[derive(Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<Name, Object>>,
    clock: Mutex<Option<Seconds>>,
    sent: AtomicU64,
    received: AtomicU64,
}

/// A clock: seconds since the epoch.
pub type Seconds = Box<dyn Fn() -> i64 + Send>;

struct Object {
    bytes: Vec<u8>,
    mtime: i64,
}

impl Memory {
    /// Replaces the clock of the server, from which new objects get their modification times.
    pub fn set_clock(&self, clock: Seconds) {
        *self.clock.lock().expect("no holder panics") = Some(clock);
    }

    /// Changes the modification time of an object as no client could.
    pub fn set_mtime(&self, name: &Name, mtime: i64) {
        if let Some(object) = self.objects.lock().expect("no holder panics").get_mut(name) {
            object.mtime = mtime;
        }
    }

    fn now(&self) -> i64 {
        let system = || Time::from(SystemTime::now()).seconds;
        self.clock.lock().expect("no holder panics").as_ref().map_or_else(system, |clock| clock())
    }

    /// Returns a copy of an object's bytes, if it exists.
    pub fn get(&self, name: &Name) -> Option<Vec<u8>> {
        self.objects.lock().expect("no holder panics").get(name).map(|object| object.bytes.clone())
    }

    /// Replaces an object's bytes as no client could: for tests of damage.
    pub fn overwrite(&self, name: &Name, bytes: Vec<u8>) {
        let mtime = self.now();
        self.objects.lock().expect("no holder panics").insert(*name, Object { bytes, mtime });
    }
}

impl Storage for Memory {
    fn create_folders(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    fn list(&self, _: &Context, folder: Folder) -> Result<Vec<Entry>> {
        let objects = self.objects.lock().expect("no holder panics");
        let here = objects.iter().filter(|(name, _)| name.folder() == folder);
        let entry = |(name, object): (&Name, &Object)| Entry {
            name: *name,
            size: object.bytes.len() as u64,
            mtime: object.mtime,
        };
        Ok(here.map(entry).collect())
    }

    fn foreign(&self, _: &Context, _: Folder) -> Result<usize> {
        Ok(0)
    }

    fn size(&self, _: &Context, name: &Name) -> Result<u64> {
        let objects = self.objects.lock().expect("no holder panics");
        objects
            .get(name)
            .map(|object| object.bytes.len() as u64)
            .ok_or_else(|| Error::new(Kind::Missing, format!("no object {name}")))
    }

    fn read(&self, _: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        let objects = self.objects.lock().expect("no holder panics");
        let Object { bytes, .. } =
            objects.get(name).ok_or_else(|| Error::new(Kind::Missing, format!("no object {name}")))?;
        let part = usize::try_from(offset).ok().and_then(|from| bytes.get(from..from.checked_add(len)?));
        let part = part.ok_or_else(|| Error::damaged(format!("object {name} ends too early")))?;
        self.received.fetch_add(len as u64, Ordering::Relaxed);
        Ok(part.to_vec())
    }

    fn put(&self, ctx: &Context, name: &Name, bytes: &[u8]) -> Result<()> {
        let mtime = self.now();
        let mut objects = self.objects.lock().expect("no holder panics");
        ctx.check()?;
        if objects.contains_key(name) {
            return Err(taken(name));
        }
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        ctx.event(Event::Sent { bytes: bytes.len() as u64 });
        objects.insert(*name, Object { bytes: bytes.to_vec(), mtime });
        Ok(())
    }

    fn remove(&self, _: &Context, name: &Name) -> Result<()> {
        self.objects.lock().expect("no holder panics").remove(name);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable_put: true, exclusive_create: true }
    }

    fn traffic(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }

    fn address(&self) -> String {
        "memory".into()
    }
}
