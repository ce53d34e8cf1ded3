//! Blocks in memory, with one bound in bytes, and the blocks that are being fetched.

use std::collections::HashSet;
use std::ops::Range;

use lru::LruCache;

use super::object::{Block, Object};
use crate::crypto::seal::{BLOCK, ObjectType};
use crate::name::ObjectId;

/// A block: object and number.
type BlockKey = (ObjectId, u32);

/// Blocks in memory. Blocks that are not file contents (names, lists, the index) keep half of the capacity, so that
/// reading a large file does not evict the names.
pub(super) struct BlockCache {
    contents: LruCache<BlockKey, Block>,
    others: LruCache<BlockKey, Block>,
    /// Blocks that are being fetched.
    pending: HashSet<BlockKey>,
    capacity: usize,
    counts_pending: bool,
}

impl BlockCache {
    /// Keeps this many bytes, at least one block.
    pub fn new(bytes: usize) -> Self {
        BlockCache {
            contents: LruCache::unbounded(),
            others: LruCache::unbounded(),
            pending: HashSet::new(),
            capacity: blocks(bytes),
            counts_pending: false,
        }
    }

    /// Returns the capacity in blocks.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the capacity in bytes. Returns the previous capacity.
    pub fn set_capacity(&mut self, bytes: usize) -> usize {
        let before = std::mem::replace(&mut self.capacity, blocks(bytes)) * BLOCK;
        self.shrink();
        before
    }

    /// Counts blocks that are being fetched as part of the capacity: each twice, since it is sealed first, but in total at
    /// most a quarter of the capacity.
    pub fn count_pending(&mut self) {
        self.counts_pending = true;
    }

    /// Drops all blocks.
    pub fn clear(&mut self) {
        self.contents.clear();
        self.others.clear();
    }

    pub fn get(&mut self, object: &Object, block: u32) -> Option<Block> {
        self.of(object.kind).get(&(object.id, block)).cloned()
    }

    /// Returns whether a block is being fetched.
    pub fn is_pending(&self, object: &Object, block: u32) -> bool {
        self.pending.contains(&(object.id, block))
    }

    /// Returns whether a block is neither in memory nor being fetched.
    pub fn is_free(&self, object: &Object, block: u32) -> bool {
        let key = (object.id, block);
        let blocks = if object.kind == ObjectType::Data { &self.contents } else { &self.others };
        !self.pending.contains(&key) && !blocks.contains(&key)
    }

    /// Notes that blocks are being fetched.
    pub fn claim(&mut self, object: &Object, run: Range<u32>) {
        self.pending.extend(run.map(|block| (object.id, block)));
        self.shrink();
    }

    /// Notes that blocks are not being fetched any more.
    pub fn release(&mut self, object: &Object, run: Range<u32>) {
        for block in run {
            self.pending.remove(&(object.id, block));
        }
    }

    /// Adds a block, which is no longer being fetched.
    pub fn put(&mut self, object: &Object, block: u32, plain: Block) {
        let key = (object.id, block);
        self.pending.remove(&key);
        self.of(object.kind).put(key, plain);
        self.shrink();
    }

    fn of(&mut self, kind: ObjectType) -> &mut LruCache<BlockKey, Block> {
        if kind == ObjectType::Data { &mut self.contents } else { &mut self.others }
    }

    fn shrink(&mut self) {
        let pending = if self.counts_pending { (2 * self.pending.len()).min(self.capacity / 4) } else { 0 };
        while self.contents.len() + self.others.len() > self.capacity - pending {
            let others = self.others.len() > self.capacity / 2 || self.contents.is_empty();
            let oldest = if others { self.others.pop_lru() } else { self.contents.pop_lru() };
            drop(oldest);
        }
    }
}

/// Returns the number of blocks in a capacity of `bytes`, at least one.
fn blocks(bytes: usize) -> usize {
    (bytes / BLOCK).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;
    use std::sync::Arc;

    fn object(kind: ObjectType) -> Object {
        let id = ObjectId([kind as u8; 32]);
        Object { name: Name::Pack(id), id, kind, len: 1 << 30 }
    }

    /// Returns how many of the first blocks of an object are in memory.
    fn count(cache: &mut BlockCache, object: &Object) -> usize {
        (0..1000).filter(|i| cache.get(object, *i).is_some()).count()
    }

    #[test]
    fn blocks_that_are_being_fetched_take_a_quarter_of_the_bound_and_no_names() {
        let (data, names) = (object(ObjectType::Data), object(ObjectType::Meta));
        let mut cache = BlockCache::new(80 * BLOCK);
        cache.count_pending();
        let block: Block = Arc::from(&b"x"[..]);
        (0..40).for_each(|i| cache.put(&names, i, block.clone()));
        (0..100).for_each(|i| cache.put(&data, i, block.clone()));
        assert_eq!((count(&mut cache, &names), count(&mut cache, &data)), (40, 40));
        cache.claim(&data, 200..205);
        assert_eq!((count(&mut cache, &names), count(&mut cache, &data)), (40, 30));
        cache.claim(&data, 300..900);
        assert_eq!((count(&mut cache, &names), count(&mut cache, &data)), (40, 20));
        cache.put(&data, 300, block.clone());
        assert!(!cache.is_pending(&data, 300) && cache.get(&data, 300).is_some());
        cache.release(&data, 200..900);
        (0..100).for_each(|i| cache.put(&data, i, block.clone()));
        assert_eq!(count(&mut cache, &data), 40, "the room is back");
    }
}
