//! A server that can change the bytes of each object, differently for each call.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};

use nfreezer::context::Context;
use nfreezer::context::background;
use nfreezer::error::{Error, Kind, Result};
use nfreezer::name::Name;
use nfreezer::storage::{Entry, Memory, Storage};

use crate::harness::faults::{Answer, Between, Call, Rule};

/// Function that replaces an object's bytes. `None` means that the object is missing.
type Shown = dyn Fn(Vec<u8>) -> Option<Vec<u8>> + Send + Sync;

struct Lie {
    name: Name,
    calls: Box<dyn Fn(usize) -> bool + Send + Sync>,
    shown: Box<Shown>,
}

/// The script of a lying server, and the requests that it received.
#[derive(Default)]
pub struct Script {
    lies: Mutex<Vec<Lie>>,
    sizes: Mutex<BTreeMap<Name, u64>>,
    reads: Mutex<BTreeMap<Name, usize>>,
    asked: Mutex<Vec<String>>,
}

pub type Liar = Between<Script>;

/// Creates a script on top of these objects.
pub fn liar(memory: Arc<Memory>) -> Arc<Liar> {
    Between::with(memory, Script::default())
}

impl Script {
    /// Changes the object by `shown` for reads whose number (counted from 0, for each object) is in `calls`. Listings and
    /// sizes follow the first read.
    pub fn show(
        &self,
        name: &Name,
        calls: impl RangeBounds<usize> + Send + Sync + 'static,
        shown: impl Fn(Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) {
        let lie = Lie { name: *name, calls: Box::new(move |n| calls.contains(&n)), shown: Box::new(shown) };
        self.lies.lock().unwrap().push(lie);
    }

    /// Hides the object.
    pub fn hide(&self, name: &Name) {
        self.show(name, .., |_| None);
    }

    /// Shows this size in listings and queries.
    pub fn claim_size(&self, name: &Name, size: u64) {
        self.sizes.lock().unwrap().insert(*name, size);
    }

    /// Returns the number of reads of this object.
    pub fn reads(&self, name: &Name) -> usize {
        self.reads.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// Returns all calls so far, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn shown(&self, storage: &dyn Storage, name: &Name, call: usize) -> Result<Vec<u8>> {
        let missing = || Error::new(Kind::Missing, format!("no object {name}"));
        let len = storage.size(background(), name)?;
        let mut bytes = Some(storage.read(background(), name, 0, len as usize)?);
        for lie in self.lies.lock().unwrap().iter().filter(|lie| lie.name == *name && (lie.calls)(call)) {
            bytes = bytes.and_then(|bytes| (lie.shown)(bytes));
        }
        bytes.ok_or_else(missing)
    }

    fn touched(&self, name: &Name) -> bool {
        self.lies.lock().unwrap().iter().any(|lie| lie.name == *name)
    }

    fn size(&self, storage: &dyn Storage, name: &Name) -> Result<u64> {
        match self.sizes.lock().unwrap().get(name) {
            Some(size) => Ok(*size),
            None if !self.touched(name) => storage.size(background(), name),
            None => self.shown(storage, name, 0).map(|bytes| bytes.len() as u64),
        }
    }

    fn read(&self, storage: &dyn Storage, name: &Name, offset: u64, len: usize) -> Result<Answer> {
        let number = {
            let mut reads = self.reads.lock().unwrap();
            let count = reads.entry(*name).or_default();
            *count += 1;
            *count - 1
        };
        if !self.touched(name) {
            return Call::Read(name, offset, len).of(background(), storage);
        }
        let bytes = self.shown(storage, name, number)?;
        let part = usize::try_from(offset).ok().and_then(|from| bytes.get(from..from.checked_add(len)?));
        let early = || Error::damaged(format!("object {name} ends too early"));
        part.map(|part| Answer::Bytes(part.to_vec())).ok_or_else(early)
    }
}

impl Rule for Script {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let told = match call {
            Call::Put(name, bytes) => format!("put {name} {}", bytes.len()),
            other => format!("{other:?}"),
        };
        self.asked.lock().unwrap().push(told);
        match call {
            Call::List(folder) => {
                let mut shown = Vec::new();
                for entry in storage.list(background(), folder)? {
                    match self.size(storage, &entry.name) {
                        Ok(size) => shown.push(Entry { size, ..entry }),
                        Err(e) if e.kind() == Kind::Missing => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(Answer::Entries(shown))
            }
            Call::Size(name) => self.size(storage, name).map(Answer::Size),
            Call::Read(name, offset, len) => self.read(storage, name, offset, len),
            call => call.of(ctx, storage),
        }
    }
}
