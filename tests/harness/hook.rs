//! A storage that tells a test what is being put, at the moment when it is there.

use std::sync::{Arc, Mutex};

use nfreezer::error::Result;
use nfreezer::name::{Folder, Name};
use nfreezer::storage::{Entry, Storage};

type Told = Box<dyn FnMut(&Name) -> Result<()> + Send>;

/// Calls a closure after each put and answers what that gives.
pub struct Hook<S> {
    pub inner: S,
    after_put: Mutex<Told>,
}

impl<S: Storage> Hook<S> {
    pub fn new(inner: S) -> Arc<Self> {
        Arc::new(Hook { inner, after_put: Mutex::new(Box::new(|_| Ok(()))) })
    }

    pub fn after_put(&self, told: impl FnMut(&Name) -> Result<()> + Send + 'static) {
        *self.after_put.lock().unwrap() = Box::new(told);
    }
}

impl<S: Storage> Storage for Hook<S> {
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
        self.inner.put(name, bytes)?;
        (self.after_put.lock().unwrap())(name)
    }
    fn remove(&self, name: &Name) -> Result<()> {
        self.inner.remove(name)
    }
    fn syncs(&self) -> bool {
        self.inner.syncs()
    }
    fn traffic(&self) -> (u64, u64) {
        self.inner.traffic()
    }
    fn address(&self) -> String {
        self.inner.address()
    }
}
