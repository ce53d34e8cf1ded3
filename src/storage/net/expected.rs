//! A listing that was begun before it is asked for, so that its round trips overlap with other work.

use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::name::Folder;
use crate::storage::Entry;

/// A listing that was begun earlier than this is too old for the caller.
pub const FRESH: Duration = Duration::from_secs(10);

/// The listing that was begun last.
#[derive(Default)]
pub struct Expected(Mutex<Option<Listing>>);

struct Listing {
    folder: Folder,
    since: Instant,
    entries: JoinHandle<Result<Vec<Entry>>>,
}

impl Expected {
    /// Lists a folder in a thread. If no thread can be made, nothing is expected.
    pub fn begin(&self, folder: Folder, list: impl FnOnce() -> Result<Vec<Entry>> + Send + 'static) {
        let thread = thread::Builder::new().name("list".into()).spawn(list);
        let listing = thread.ok().map(|entries| Listing { folder, since: Instant::now(), entries });
        *self.0.lock().expect("no holder panics") = listing;
    }

    /// Waits for the listing of a folder and returns it, once. `None` if it was not begun, is too old, or failed.
    pub fn take(&self, folder: Folder) -> Option<Vec<Entry>> {
        let listing = self.0.lock().expect("no holder panics").take_if(|listing| listing.folder == folder)?;
        if listing.since.elapsed() >= FRESH {
            return None;
        }
        listing.entries.join().ok()?.ok()
    }

    /// Waits until the listing that was begun has ended, and makes it older.
    #[cfg(test)]
    pub fn age(&self, age: Duration) {
        let mut listing = self.0.lock().expect("no holder panics");
        let listing = listing.as_mut().expect("a listing was begun");
        while !listing.entries.is_finished() {
            thread::yield_now();
        }
        listing.since -= age;
    }
}
