//! A storage that hangs when it is told to, for whatever touches large objects.
#![allow(dead_code, missing_docs, reason = "each test binary uses a part of it")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nfreezer::error::Result;
use nfreezer::name::{Folder, Name};
use nfreezer::storage::{Entry, Memory, Storage, patience};

pub struct Stalled {
    inner: Arc<Memory>,
    hang: Mutex<bool>,
    go: Condvar,
    /// Small objects too.
    pub metadata_too: AtomicBool,
    /// What hangs once is not let go with the others, only when its caller has no more patience.
    pub for_ever: AtomicBool,
    /// Reads of fewer bytes pass.
    pub least: AtomicUsize,
    /// Reads that are or were held up.
    pub held: AtomicUsize,
}

impl Stalled {
    pub fn new(inner: Arc<Memory>) -> Arc<Self> {
        let (metadata_too, for_ever) = Default::default();
        let (least, held) = Default::default();
        Arc::new(Stalled { inner, hang: Mutex::new(false), go: Condvar::new(), metadata_too, for_ever, least, held })
    }

    pub fn hang(&self, hang: bool) {
        *self.hang.lock().unwrap() = hang;
        self.go.notify_all();
    }

    fn wait(&self) -> Result<()> {
        let mut hang = self.hang.lock().unwrap();
        let hanged = *hang;
        self.held.fetch_add(usize::from(hanged), SeqCst);
        while *hang || hanged && self.for_ever.load(SeqCst) {
            if let Some(over) = patience::over() {
                return Err(over);
            }
            hang = self.go.wait_timeout(hang, Duration::from_millis(10)).unwrap().0;
        }
        Ok(())
    }
}

impl Storage for Stalled {
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
        let large = self.inner.size(name)? > 1 << 20 || self.metadata_too.load(SeqCst);
        if large && len >= self.least.load(SeqCst) {
            self.wait()?;
        }
        self.inner.read(name, offset, len)
    }
    fn put(&self, name: &Name, bytes: &[u8]) -> Result<()> {
        self.inner.put(name, bytes)
    }
    fn remove(&self, name: &Name) -> Result<()> {
        self.inner.remove(name)
    }
    fn syncs(&self) -> bool {
        true
    }
    fn traffic(&self) -> (u64, u64) {
        self.inner.traffic()
    }
    fn address(&self) -> String {
        "a, \"stalled\" one".into()
    }
}
