//! A set of hashes in little memory, for the chunks of a large repository: at most [`EACH`] bytes each.

/// Bytes that one hash takes, with the room for growth and what the allocator loses.
pub(super) const EACH: u64 = 8;

/// Shards, by the first bits of a hash.
const SHARDS: usize = 1 << 14;
/// A shard grows by this part.
const GROWTH: usize = 8;

/// The set. It keeps 46 of 64 bits of each hash, so a hash is found by mistake in one of 7,000,000 cases where 10,000,000
/// are stored.
#[derive(Default)]
pub(super) struct HashSet46 {
    /// The last 32 bits, ascending.
    shards: Vec<Vec<u32>>,
    len: u64,
}

impl HashSet46 {
    /// Adds a hash. Returns whether it is new.
    pub fn insert(&mut self, hash: u64) -> bool {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Vec::new);
        }
        let shard = &mut self.shards[shard(hash)];
        let Err(place) = shard.binary_search(&(hash as u32)) else { return false };
        if shard.len() == shard.capacity() {
            shard.reserve_exact(shard.len() / GROWTH + 4);
        }
        shard.insert(place, hash as u32);
        self.len += 1;
        true
    }

    /// Returns whether a hash was added.
    pub fn contains(&self, hash: u64) -> bool {
        self.shards.get(shard(hash)).is_some_and(|shard| shard.binary_search(&(hash as u32)).is_ok())
    }

    /// Returns the number of hashes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Drops all hashes.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn shard(hash: u64) -> usize {
    (hash >> 50) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Spreads numbers over all bits (SplitMix64).
    fn hash(i: u64) -> u64 {
        let mut x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    #[test]
    fn it_answers_like_a_set() {
        let (mut set, mut model) = (HashSet46::default(), BTreeSet::new());
        for i in 0..200_000u64 {
            let hash = hash(i / 3 * 7 % 50_000);
            assert_eq!(set.insert(hash), model.insert(hash), "{i}");
        }
        assert_eq!(set.len(), model.len() as u64);
        (0..100_000).for_each(|i| assert_eq!(set.contains(hash(i)), model.contains(&hash(i)), "{i}"));
        set.clear();
        assert!(set.len() == 0 && !set.contains(hash(7)));
    }

    #[test]
    fn a_hash_takes_little_more_than_four_bytes() {
        let mut set = HashSet46::default();
        for i in 0..2_000_000 {
            set.insert(hash(i));
        }
        let reserved: usize = set.shards.iter().map(|shard| shard.capacity() * 4 + size_of::<Vec<u32>>()).sum();
        assert!((reserved as u64) < set.len() * (EACH - 2), "{reserved} bytes");
    }
}
