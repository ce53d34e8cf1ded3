//! Storage faults: one storage that delegates to another one, and rules that intercept its calls.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use nfreezer::context::Context;
use nfreezer::error::{Error, Kind, Result};
use nfreezer::name::{Folder, Name};
use nfreezer::storage::{Capabilities, Entry, Memory, Storage};

/// One call of a storage, with its arguments.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    CreateFolders,
    List(Folder),
    Foreign(Folder),
    Size(&'a Name),
    Read(&'a Name, u64, usize),
    Put(&'a Name, &'a [u8]),
    Remove(&'a Name),
}

/// The result of a call.
#[derive(Clone, Debug)]
pub enum Answer {
    Done,
    Entries(Vec<Entry>),
    Count(usize),
    Size(u64),
    Bytes(Vec<u8>),
}

impl Call<'_> {
    /// Makes the call on a storage.
    pub fn of(self, ctx: &Context, storage: &dyn Storage) -> Result<Answer> {
        match self {
            Call::CreateFolders => storage.create_folders(ctx).map(|()| Answer::Done),
            Call::List(folder) => storage.list(ctx, folder).map(Answer::Entries),
            Call::Foreign(folder) => storage.foreign(ctx, folder).map(Answer::Count),
            Call::Size(name) => storage.size(ctx, name).map(Answer::Size),
            Call::Read(name, offset, len) => storage.read(ctx, name, offset, len).map(Answer::Bytes),
            Call::Put(name, bytes) => storage.put(ctx, name, bytes).map(|()| Answer::Done),
            Call::Remove(name) => storage.remove(ctx, name).map(|()| Answer::Done),
        }
    }

    /// Returns the object that the call names.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Call::Size(name) | Call::Read(name, ..) | Call::Put(name, _) | Call::Remove(name) => Some(name),
            _ => None,
        }
    }
}

/// A rule that intercepts the calls of a storage.
pub trait Rule: Send + Sync {
    /// Answers a call, with or without the storage.
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer>;

    /// Receives the hint that a folder will be listed soon.
    fn expect(&self, _: Folder) {}

    fn syncs(&self) -> bool {
        true
    }

    fn creates_exclusively(&self) -> bool {
        true
    }

    fn traffic(&self, storage: &dyn Storage) -> (u64, u64) {
        storage.traffic()
    }

    fn address(&self, storage: &dyn Storage) -> String {
        storage.address()
    }
}

/// A storage that passes each call to its rule. It dereferences to the rule, whose methods are its own.
#[derive(Default)]
pub struct Between<R, S: ?Sized = Memory> {
    pub rule: R,
    pub inner: Arc<S>,
}

impl<R: Rule, S: Storage + ?Sized> Between<R, S> {
    pub fn with(inner: impl Into<Arc<S>>, rule: R) -> Arc<Self> {
        Arc::new(Between { rule, inner: inner.into() })
    }
}

impl<R, S: ?Sized> Deref for Between<R, S> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.rule
    }
}

impl<R: Rule, S: Storage> Storage for Between<R, S> {
    fn create_folders(&self, ctx: &Context) -> Result<()> {
        self.rule.call(ctx, &*self.inner, Call::CreateFolders).map(drop)
    }
    fn list(&self, ctx: &Context, folder: Folder) -> Result<Vec<Entry>> {
        match self.rule.call(ctx, &*self.inner, Call::List(folder))? {
            Answer::Entries(entries) => Ok(entries),
            other => panic!("{other:?} is no listing"),
        }
    }
    fn expect(&self, _: &Context, folder: Folder) {
        self.rule.expect(folder);
    }
    fn foreign(&self, ctx: &Context, folder: Folder) -> Result<usize> {
        match self.rule.call(ctx, &*self.inner, Call::Foreign(folder))? {
            Answer::Count(count) => Ok(count),
            other => panic!("{other:?} is no count"),
        }
    }
    fn size(&self, ctx: &Context, name: &Name) -> Result<u64> {
        match self.rule.call(ctx, &*self.inner, Call::Size(name))? {
            Answer::Size(size) => Ok(size),
            other => panic!("{other:?} is no size"),
        }
    }
    fn read(&self, ctx: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        match self.rule.call(ctx, &*self.inner, Call::Read(name, offset, len))? {
            Answer::Bytes(bytes) => Ok(bytes),
            other => panic!("{other:?} are no bytes"),
        }
    }
    fn put(&self, ctx: &Context, name: &Name, bytes: &[u8]) -> Result<()> {
        self.rule.call(ctx, &*self.inner, Call::Put(name, bytes)).map(drop)
    }
    fn remove(&self, ctx: &Context, name: &Name) -> Result<()> {
        self.rule.call(ctx, &*self.inner, Call::Remove(name)).map(drop)
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable_put: self.rule.syncs(), exclusive_create: self.rule.creates_exclusively() }
    }
    fn local_path(&self) -> Option<&Path> {
        self.inner.local_path()
    }
    fn traffic(&self) -> (u64, u64) {
        self.rule.traffic(&*self.inner)
    }
    fn address(&self) -> String {
        self.rule.address(&*self.inner)
    }
}

/// Once armed, fails from the `n`-th call on, like a server that went away.
pub struct Countdown(AtomicI64);
pub type Gone<S = Memory> = Between<Countdown, S>;

impl Countdown {
    /// Lets the next `calls` calls succeed and all later ones fail.
    pub fn arm(&self, calls: i64) {
        self.0.store(calls, Ordering::SeqCst);
    }

    pub fn disarm(&self) {
        self.arm(i64::MAX);
    }

    /// Returns the number of calls since the rule was created or disarmed.
    pub fn calls(&self) -> i64 {
        i64::MAX - self.0.load(Ordering::SeqCst)
    }
}

impl Rule for Countdown {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        match self.0.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => call.of(ctx, storage),
            false => Err(Error::new(Kind::Connection, "the server is gone")),
        }
    }
}

pub fn gone<S: Storage>(inner: impl Into<Arc<S>>) -> Arc<Gone<S>> {
    Between::with(inner, Countdown(AtomicI64::new(i64::MAX)))
}

/// Once armed, cuts the `n`-th put in the middle and fails it and all later calls, as if the client was killed during
/// the upload.
pub struct Cutter(AtomicI64);
pub type Torn<S = Memory> = Between<Cutter, S>;

impl Cutter {
    pub fn arm(&self, puts: i64) {
        self.0.store(puts, Ordering::SeqCst);
    }

    pub fn disarm(&self) {
        self.arm(i64::MAX);
    }

    fn alive(&self) -> Result<()> {
        let alive = self.0.load(Ordering::SeqCst) >= 0;
        alive.then_some(()).ok_or_else(|| Error::new(Kind::Connection, "this client was killed"))
    }
}

impl Rule for Cutter {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        self.alive()?;
        match call {
            Call::Put(name, bytes) if self.0.fetch_sub(1, Ordering::SeqCst) <= 0 => {
                storage.put(ctx, name, &bytes[..bytes.len() / 2])?;
                self.alive().map(|()| Answer::Done)
            }
            call => call.of(ctx, storage),
        }
    }
}

pub fn torn<S: Storage>(inner: impl Into<Arc<S>>) -> Arc<Torn<S>> {
    Between::with(inner, Cutter(AtomicI64::new(i64::MAX)))
}
