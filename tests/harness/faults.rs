//! Bad days as storages.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use nfreezer::error::{Error, Kind, Result};
use nfreezer::name::{Folder, Name};
use nfreezer::storage::{Entry, Memory, Storage};

/// Fails from the `n`-th call on once it is armed, as a server that went away.
pub struct Gone<S> {
    pub inner: S,
    calls_left: AtomicI64,
}

impl<S> Gone<S> {
    pub fn new(inner: S) -> Self {
        Gone { inner, calls_left: AtomicI64::new(i64::MAX) }
    }

    /// The next `calls` calls succeed, then none does.
    pub fn arm(&self, calls: i64) {
        self.calls_left.store(calls, Ordering::SeqCst);
    }

    pub fn disarm(&self) {
        self.arm(i64::MAX);
    }

    /// Calls since it was made or disarmed.
    pub fn calls(&self) -> i64 {
        i64::MAX - self.calls_left.load(Ordering::SeqCst)
    }

    fn call(&self) -> Result<()> {
        let left = self.calls_left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 { Ok(()) } else { Err(Error::new(Kind::Connection, "the server is gone")) }
    }
}

/// The `n`-th put is cut in the middle and fails, as do all calls after it: a client killed while it was sending.
pub struct Torn<S> {
    pub inner: S,
    puts_left: AtomicI64,
}

impl<S> Torn<S> {
    pub fn new(inner: S) -> Self {
        Torn { inner, puts_left: AtomicI64::new(i64::MAX) }
    }

    pub fn arm(&self, puts: i64) {
        self.puts_left.store(puts, Ordering::SeqCst);
    }

    pub fn disarm(&self) {
        self.arm(i64::MAX);
    }

    fn alive(&self) -> Result<()> {
        let alive = self.puts_left.load(Ordering::SeqCst) >= 0;
        alive.then_some(()).ok_or_else(|| Error::new(Kind::Connection, "this client was killed"))
    }
}

/// Keeps config, keys and log, and counts the bytes of packs: for measuring.
#[derive(Default)]
pub struct Discard {
    inner: Memory,
    pub packs: AtomicU64,
    pub bytes: AtomicU64,
}

macro_rules! forward {
    ($storage:ty, $self:ident, $before:expr, $put:item) => {
        impl<S: Storage> Storage for $storage {
            fn create_folders(&$self) -> Result<()> {
                $before?;
                $self.inner.create_folders()
            }
            fn list(&$self, folder: Folder) -> Result<Vec<Entry>> {
                $before?;
                $self.inner.list(folder)
            }
            fn foreign(&$self, folder: Folder) -> Result<usize> {
                $before?;
                $self.inner.foreign(folder)
            }
            fn size(&$self, name: &Name) -> Result<u64> {
                $before?;
                $self.inner.size(name)
            }
            fn read(&$self, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
                $before?;
                $self.inner.read(name, offset, len)
            }
            $put
            fn remove(&$self, name: &Name) -> Result<()> {
                $before?;
                $self.inner.remove(name)
            }
            fn syncs(&$self) -> bool {
                $self.inner.syncs()
            }
            fn traffic(&$self) -> (u64, u64) {
                $self.inner.traffic()
            }
            fn address(&$self) -> String {
                $self.inner.address()
            }
        }
    };
}

forward!(
    Gone<S>,
    self,
    self.call(),
    fn put(&self, name: &Name, bytes: &[u8]) -> Result<()> {
        self.call()?;
        self.inner.put(name, bytes)
    }
);

forward!(
    Torn<S>,
    self,
    self.alive(),
    fn put(&self, name: &Name, bytes: &[u8]) -> Result<()> {
        self.alive()?;
        if self.puts_left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return self.inner.put(name, bytes);
        }
        self.inner.put(name, &bytes[..bytes.len() / 2])?;
        self.alive()
    }
);

impl Storage for Discard {
    fn create_folders(&self) -> Result<()> {
        self.inner.create_folders()
    }
    fn list(&self, folder: Folder) -> Result<Vec<Entry>> {
        self.inner.list(folder)
    }
    fn foreign(&self, folder: Folder) -> Result<usize> {
        self.inner.foreign(folder)
    }
    fn size(&self, name: &Name) -> Result<u64> {
        self.inner.size(name)
    }
    fn read(&self, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.inner.read(name, offset, len)
    }
    fn put(&self, name: &Name, bytes: &[u8]) -> Result<()> {
        if let Name::Pack(_) = name {
            self.packs.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return Ok(());
        }
        self.inner.put(name, bytes)
    }
    fn remove(&self, name: &Name) -> Result<()> {
        self.inner.remove(name)
    }
    fn syncs(&self) -> bool {
        true
    }
    fn traffic(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), 0)
    }
    fn address(&self) -> String {
        "nowhere".into()
    }
}
