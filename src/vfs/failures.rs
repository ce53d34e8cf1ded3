//! Failures of the last seconds. The kernel repeats each failed read at once; the repetition gets the same error without
//! another wait for the storage.
//!
//! An error that may pass (of the network, a timeout) answers one repetition only, so that a read after the server is back
//! reaches the server. Damage does not pass by itself and answers every repetition within [`PAUSE`].

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::attr::{again, passing};
use crate::error::Error;

/// Failures that are remembered.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(4096).expect("positive");
/// Time for which damage is reported again without another attempt.
const PAUSE: Duration = Duration::from_secs(3);
/// Time for which a temporary error is reported again. The kernel repeats a read within milliseconds.
const REPETITION: Duration = Duration::from_secs(1);

/// Recent failures, each under the key of the part that failed.
pub struct RecentFailures<K: Hash + Eq> {
    failures: Mutex<LruCache<K, Failure>>,
}

struct Failure {
    time: Instant,
    error: Error,
}

impl Failure {
    fn is_recent(&self) -> bool {
        self.time.elapsed() < if passing(&self.error) { REPETITION } else { PAUSE }
    }
}

impl<K: Hash + Eq> Default for RecentFailures<K> {
    fn default() -> Self {
        RecentFailures { failures: Mutex::new(LruCache::new(CAPACITY)) }
    }
}

impl<K: Hash + Eq> RecentFailures<K> {
    /// Returns a copy of the error of the first of these parts that failed recently, and forgets the errors of all of them
    /// that may pass.
    pub fn find(&self, parts: impl IntoIterator<Item = K>) -> Option<Error> {
        let mut failures = self.lock();
        if failures.is_empty() {
            return None;
        }
        let mut found = None;
        for part in parts {
            let Some(failure) = failures.get(&part) else { continue };
            let is_recent = failure.is_recent();
            if is_recent && found.is_none() {
                found = Some(again(&failure.error));
            }
            if !is_recent || passing(&failure.error) {
                failures.pop(&part);
            }
        }
        found
    }

    /// Remembers that these parts have failed.
    pub fn add(&self, parts: impl IntoIterator<Item = K>, error: &Error) {
        let mut failures = self.lock();
        let time = Instant::now();
        for part in parts {
            failures.put(part, Failure { time, error: again(error) });
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<K, Failure>> {
        self.failures.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_may_pass_answers_one_repetition_for_its_parts_only() {
        let failures = RecentFailures::default();
        assert!(failures.find([1, 2]).is_none());
        failures.add([2, 3, 4], &Error::failed("no answer"));
        assert!(failures.find([1, 5]).is_none());
        assert_eq!(failures.find([1, 2, 3]).unwrap().to_string(), "no answer");
        assert!(failures.find([2, 3]).is_none(), "the next read reaches the storage");
        assert!(failures.find([4]).is_some());
    }

    #[test]
    fn damage_answers_every_repetition() {
        let failures = RecentFailures::default();
        failures.add([1], &Error::damaged("a block"));
        assert!((0..3).all(|_| failures.find([1]).is_some()));
    }
}
