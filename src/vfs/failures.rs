//! Failures of the last seconds. The kernel repeats each failed read at once; the repetition gets the same error without
//! another wait for the storage.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::attr::again;
use crate::error::Error;

/// Failures that are remembered.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(4096).expect("positive");
/// How long a failure is repeated without another attempt.
const PAUSE: Duration = Duration::from_secs(3);

/// Recent failures, each under the key of the part that failed.
pub struct RecentFailures<K: Hash + Eq> {
    failures: Mutex<LruCache<K, (Instant, Error)>>,
}

impl<K: Hash + Eq> Default for RecentFailures<K> {
    fn default() -> Self {
        RecentFailures { failures: Mutex::new(LruCache::new(CAPACITY)) }
    }
}

impl<K: Hash + Eq> RecentFailures<K> {
    /// Returns a copy of the error of the first of these parts that failed recently.
    pub fn find(&self, parts: impl IntoIterator<Item = K>) -> Option<Error> {
        let mut failures = self.lock();
        if failures.is_empty() {
            return None;
        }
        for part in parts {
            match failures.get(&part) {
                Some((since, error)) if since.elapsed() < PAUSE => return Some(again(error)),
                Some(_) => drop(failures.pop(&part)),
                None => {}
            }
        }
        None
    }

    /// Remembers that these parts have failed.
    pub fn add(&self, parts: impl IntoIterator<Item = K>, error: &Error) {
        let mut failures = self.lock();
        let now = Instant::now();
        for part in parts {
            failures.put(part, (now, again(error)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<K, (Instant, Error)>> {
        self.failures.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_repeated_for_its_part_only() {
        let failures = RecentFailures::default();
        assert!(failures.find([1, 2]).is_none());
        failures.add([2, 3], &Error::failed("no answer"));
        assert_eq!(failures.find([1, 2]).unwrap().to_string(), "no answer");
        assert!(failures.find([1, 4]).is_none());
    }
}
