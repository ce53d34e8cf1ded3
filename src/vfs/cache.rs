//! A cache that is bounded in bytes and makes each value once, however many ask for it at the same time.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use lru::LruCache;

use crate::context::Context;
use crate::error::Result;

/// See the module. Values are weighed by whoever makes them.
pub struct Cache<K: Hash + Eq, V: ?Sized> {
    inner: Mutex<Inner<K, V>>,
    arrived: Condvar,
    capacity: usize,
}

struct Inner<K: Hash + Eq, V: ?Sized> {
    values: LruCache<K, (Arc<V>, usize)>,
    bytes: usize,
    pending: HashSet<K>,
}

impl<K: Hash + Eq + Copy, V: ?Sized> Cache<K, V> {
    /// At most about `capacity` bytes; the value that came last is kept whatever it weighs.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner { values: LruCache::unbounded(), bytes: 0, pending: HashSet::new() };
        Cache { inner: Mutex::new(inner), arrived: Condvar::new(), capacity }
    }

    /// The value, if it is here.
    pub fn cached(&self, key: &K) -> Option<Arc<V>> {
        self.lock().values.get(key).map(|(value, _)| Arc::clone(value))
    }

    /// The value; `make` gives it with its weight in bytes if it is not here. Errors are not kept.
    pub fn get(&self, ctx: &Context, key: K, make: impl FnOnce() -> Result<(Arc<V>, usize)>) -> Result<Arc<V>> {
        let mut inner = self.lock();
        loop {
            if let Some((value, _)) = inner.values.get(&key) {
                return Ok(Arc::clone(value));
            }
            if inner.pending.insert(key) {
                break;
            }
            inner = ctx.wait(&self.arrived, inner)?;
        }
        drop(inner);
        let _claim = Claim { cache: self, key };
        let (value, weight) = make()?;
        self.put(key, Arc::clone(&value), weight);
        Ok(value)
    }

    /// Adds a value that was made elsewhere.
    pub fn put(&self, key: K, value: Arc<V>, weight: usize) {
        let mut inner = self.lock();
        inner.bytes += weight;
        if let Some((_, old)) = inner.values.put(key, (value, weight)) {
            inner.bytes -= old;
        }
        while inner.bytes > self.capacity && inner.values.len() > 1 {
            let Some((_, (_, weight))) = inner.values.pop_lru() else { break };
            inner.bytes -= weight;
        }
    }

    /// Bytes held, as they were weighed.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().expect("no holder panics")
    }
}

/// A value in the making; whatever happens, others stop waiting for it when this is dropped.
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
    fn the_oldest_go_when_the_bytes_are_used_up_and_errors_are_not_kept() {
        let cache: Cache<u32, u32> = Cache::new(10);
        assert!(cache.get(background(), 0, || Err(Error::failed("no"))).is_err());
        (0..4).for_each(|i| drop(cache.get(background(), i, || Ok((Arc::new(i), 4)))));
        assert_eq!([0, 1, 2, 3].map(|i| cache.cached(&i).is_some()), [false, false, true, true]);
        cache.put(9, Arc::new(9), 100);
        assert_eq!((cache.cached(&9).is_some(), cache.cached(&3).is_some(), cache.bytes()), (true, false, 100));
    }

    #[test]
    fn many_ask_and_one_makes() {
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
