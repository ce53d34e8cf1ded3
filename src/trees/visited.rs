//! Remembers what a walk has visited, in bounded memory: hashes under a key of this run. Where they are too many the older
//! half is forgotten; a page that many snapshots share is then read again, and nothing else changes.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// Hashes values that are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Hashes = HashSet<u64, BuildHasherDefault<Identity>>;

/// Bytes that one hash takes in a set, with the room for its growth.
const EACH: u64 = 14;

/// See the module.
pub struct Visited {
    key: RandomState,
    young: Hashes,
    old: Hashes,
    most: usize,
}

impl Visited {
    /// Makes a memory of about `memory` bytes at most.
    pub fn new(memory: u64) -> Self {
        let (young, old) = Default::default();
        // A set grows by doubling: a size just above a power of two takes twice as much.
        let half = (memory / 2 / EACH).max(1 << 10);
        Visited { key: RandomState::new(), young, old, most: (1 << half.ilog2()) * 7 / 8 }
    }

    /// Returns whether `what` was added and not forgotten.
    pub fn contains(&mut self, what: &impl Hash) -> bool {
        let hash = self.key.hash_one(what);
        self.young.contains(&hash) || (self.old.contains(&hash) && self.keep(hash))
    }

    /// Adds `what`. Returns whether it is new.
    pub fn insert(&mut self, what: &impl Hash) -> bool {
        let hash = self.key.hash_one(what);
        !(self.young.contains(&hash) | (self.keep(hash) && self.old.contains(&hash)))
    }

    fn keep(&mut self, hash: u64) -> bool {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_visited_lately_is_known_and_memory_is_bounded() {
        let mut visited = Visited::new(0);
        for i in 0..100_000u64 {
            assert!(visited.insert(&i), "{i} is new");
            assert!(!visited.insert(&i) && visited.contains(&i));
            assert!(visited.contains(&0u64), "what is asked for again and again stays");
        }
        assert!(visited.young.len() + visited.old.len() <= 2 << 10);
        assert!(!visited.contains(&1u64), "what is not asked for is forgotten");
    }
}
