//! A storage in memory, for tests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Capabilities, Entry, Storage};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name};
use crate::progress::Event;

/// Objects in a map. Faults are made by wrapping it (`tests/harness/faults.rs`).
#[derive(Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<Name, Vec<u8>>>,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Memory {
    /// A copy of an object's bytes, if it exists.
    pub fn get(&self, name: &Name) -> Option<Vec<u8>> {
        self.objects.lock().expect("no holder panics").get(name).cloned()
    }

    /// Replaces an object's bytes as no client could: for tests of damage.
    pub fn overwrite(&self, name: &Name, bytes: Vec<u8>) {
        self.objects.lock().expect("no holder panics").insert(*name, bytes);
    }
}

impl Storage for Memory {
    fn create_folders(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    fn list(&self, _: &Context, folder: Folder) -> Result<Vec<Entry>> {
        let objects = self.objects.lock().expect("no holder panics");
        let here = objects.iter().filter(|(name, _)| name.folder() == folder);
        Ok(here.map(|(name, bytes)| Entry { name: *name, size: bytes.len() as u64, mtime: 0 }).collect())
    }

    fn foreign(&self, _: &Context, _: Folder) -> Result<usize> {
        Ok(0)
    }

    fn size(&self, _: &Context, name: &Name) -> Result<u64> {
        let objects = self.objects.lock().expect("no holder panics");
        objects
            .get(name)
            .map(|bytes| bytes.len() as u64)
            .ok_or_else(|| Error::new(Kind::Missing, format!("no object {name}")))
    }

    fn read(&self, _: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        let objects = self.objects.lock().expect("no holder panics");
        let bytes = objects.get(name).ok_or_else(|| Error::new(Kind::Missing, format!("no object {name}")))?;
        let part = usize::try_from(offset).ok().and_then(|from| bytes.get(from..from.checked_add(len)?));
        let part = part.ok_or_else(|| Error::damaged(format!("object {name} ends too early")))?;
        self.received.fetch_add(len as u64, Ordering::Relaxed);
        Ok(part.to_vec())
    }

    fn put(&self, ctx: &Context, name: &Name, bytes: &[u8]) -> Result<()> {
        let mut objects = self.objects.lock().expect("no holder panics");
        ctx.check()?;
        if objects.contains_key(name) {
            return Err(Error::new(Kind::Exists, format!("object {name} exists already")));
        }
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        ctx.event(Event::Sent { bytes: bytes.len() as u64 });
        objects.insert(*name, bytes.to_vec());
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
