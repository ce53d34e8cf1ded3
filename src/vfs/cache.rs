//! A cache that is bounded in bytes. Threads that need the same value at the same time share one computation of it.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use lru::LruCache;

use crate::context::Context;
use crate::error::Result;

/// A cache of shared values. The weight of a value, in bytes, comes from the code that makes it.
pub struct Cache<K: Hash + Eq, V: ?Sized> {
    state: Mutex<CacheState<K, V>>,
    arrived: Condvar,
    capacity: usize,
}

struct CacheState<K: Hash + Eq, V: ?Sized> {
    values: LruCache<K, (Arc<V>, usize)>,
    bytes: usize,
    pending: HashSet<K>,
}

impl<K: Hash + Eq + Copy, V: ?Sized> Cache<K, V> {
    /// Keeps at most about `capacity` bytes, and the last value whatever its weight.
    pub fn new(capacity: usize) -> Self {
        let state = CacheState { values: LruCache::unbounded(), bytes: 0, pending: HashSet::new() };
        Cache { state: Mutex::new(state), arrived: Condvar::new(), capacity }
    }

    /// Returns the value, if it is in the cache.
    pub fn cached(&self, key: &K) -> Option<Arc<V>> {
        self.lock().values.get(key).map(|(value, _)| Arc::clone(value))
    }

    /// Returns the value. If it is not in the cache, one thread calls `make` for the value and its weight, and the others
    /// wait. Errors are not kept.
    pub fn get(&self, ctx: &Context, key: K, make: impl FnOnce() -> Result<(Arc<V>, usize)>) -> Result<Arc<V>> {
        let mut state = self.lock();
        loop {
            if let Some((value, _)) = state.values.get(&key) {
                return Ok(Arc::clone(value));
            }
            if state.pending.insert(key) {
                break;
            }
            state = ctx.wait(&self.arrived, state)?;
        }
        drop(state);
        let _claim = Claim { cache: self, key };
        let (value, weight) = make()?;
        self.put(key, Arc::clone(&value), weight);
        Ok(value)
    }

    /// Adds a value.
    pub fn put(&self, key: K, value: Arc<V>, weight: usize) {
        let mut state = self.lock();
        state.bytes += weight;
        if let Some((_, old)) = state.values.put(key, (value, weight)) {
            state.bytes -= old;
        }
        while state.bytes > self.capacity && state.values.len() > 1 {
            let Some((_, (_, weight))) = state.values.pop_lru() else { break };
            state.bytes -= weight;
        }
    }

    /// Returns the sum of the weights.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, CacheState<K, V>> {
        self.state.lock().expect("no holder panics")
    }
}

/// The right of one thread to make a value. When it is dropped, also after an error or a panic, the other threads stop
/// waiting.
struct Claim<'a, K: Hash + Eq + Copy, V: ?Sized> {
    cache: &'a Cache<K, V>,
    key: K,
}

impl<K: Hash + Eq + Copy, V: ?Sized> Drop for Claim<'_, K, V> {
    fn drop(&mut self) {
        self.cache.lock().pending.remove(&self.key);
        self.cache.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;
    use crate::error::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_oldest_values_go_when_the_capacity_is_used_up_and_errors_are_not_kept() {
        let cache: Cache<u32, u32> = Cache::new(10);
        assert!(cache.get(background(), 0, || Err(Error::failed("no"))).is_err());
        (0..4).for_each(|i| drop(cache.get(background(), i, || Ok((Arc::new(i), 4)))));
        assert_eq!([0, 1, 2, 3].map(|i| cache.cached(&i).is_some()), [false, false, true, true]);
        cache.put(9, Arc::new(9), 100);
        assert_eq!((cache.cached(&9).is_some(), cache.cached(&3).is_some(), cache.bytes()), (true, false, 100));
    }

    #[test]
    fn threads_that_need_the_same_value_make_it_once() {
        let (cache, made) = (Cache::<u8, u8>::new(100), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = || Ok((Arc::new(made.fetch_add(1, Ordering::SeqCst) as u8), 1));
                    assert_eq!(*cache.get(background(), 7, make).unwrap(), 0);
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}
