//! What was visited: hashes under a key of this run, in bounded memory. When there are too many, the older half is
//! forgotten: then what many snapshots share is walked again, and nothing else changes.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// Its input is a hash already.
#[derive(Default)]
pub(super) struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Hashes = HashSet<u64, BuildHasherDefault<Plain>>;

/// Bytes that one hash takes in a set, with what that needs while it grows.
const EACH: u64 = 14;

pub(super) struct Seen {
    key: RandomState,
    young: Hashes,
    old: Hashes,
    most: usize,
}

impl Seen {
    /// Holds about `memory` bytes at most.
    pub fn new(memory: u64) -> Self {
        let (young, old) = Default::default();
        // A set grows by doubling: what is just above a power of two takes twice as much.
        let half = (memory / 2 / EACH).max(1 << 10);
        Seen { key: RandomState::new(), young, old, most: (1 << half.ilog2()) * 7 / 8 }
    }

    /// Whether it was added and not forgotten.
    pub fn contains(&mut self, what: &impl Hash) -> bool {
        let hash = self.key.hash_one(what);
        self.young.contains(&hash) || (self.old.contains(&hash) && self.keep(hash))
    }

    /// Adds it; gives whether it is new.
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
    fn what_was_seen_lately_is_known_and_memory_is_bounded() {
        let mut seen = Seen::new(0);
        for i in 0..100_000u64 {
            assert!(seen.insert(&i), "{i} is new");
            assert!(!seen.insert(&i) && seen.contains(&i));
            assert!(seen.contains(&0u64), "what is asked for again and again stays");
        }
        assert!(seen.young.len() + seen.old.len() <= 2 << 10);
        assert!(!seen.contains(&1u64), "what nobody asked for is forgotten");
    }
}
