//! Listings that were begun before they are asked for, so that their round trips overlap with other work.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::name::Folder;
use crate::storage::Entry;

/// A listing that was begun earlier than this is too old for the caller.
pub const FRESH: Duration = Duration::from_secs(10);

/// The listing of each folder that was begun last.
#[derive(Default)]
pub struct Expected(Mutex<HashMap<Folder, Listing>>);

struct Listing {
    since: Instant,
    entries: JoinHandle<Result<Vec<Entry>>>,
}

impl Expected {
    /// Lists a folder in a thread. If no thread can be made, nothing is expected.
    pub fn begin(&self, folder: Folder, list: impl FnOnce() -> Result<Vec<Entry>> + Send + 'static) {
        let thread = thread::Builder::new().name("list".into()).spawn(list);
        if let Ok(entries) = thread {
            let listing = Listing { since: Instant::now(), entries };
            self.0.lock().expect("no holder panics").insert(folder, listing);
        }
    }

    /// Waits for the listing of a folder and returns it, once. `None` if it was not begun, is too old, or failed.
    pub fn take(&self, folder: Folder) -> Option<Vec<Entry>> {
        let listing = self.0.lock().expect("no holder panics").remove(&folder)?;
        if listing.since.elapsed() >= FRESH {
            return None;
        }
        listing.entries.join().ok()?.ok()
    }

    /// Waits until the listing of a folder that was begun has ended, and makes it older.
    #[cfg(test)]
    pub fn age(&self, folder: Folder, age: Duration) {
        let mut listings = self.0.lock().expect("no holder panics");
        let listing = listings.get_mut(&folder).expect("a listing was begun");
        while !listing.entries.is_finished() {
            thread::yield_now();
        }
        listing.since -= age;
    }
}
