//! Verified blocks: each is fetched once however many readers wait for it, and kept in a cache that is bounded in bytes.
//! Only blocks whose commitment and tag were verified enter the cache.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use lru::LruCache;

use crate::context::Context;
use crate::crypto::keys::Keys;
use crate::crypto::seal::{self, BLOCK, HEADER, ObjectType, Opener};
use crate::error::{Error, Kind, Result};
use crate::name::{Name, ObjectId};
use crate::storage::Storage;

/// How much is fetched around the requested range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The blocks that hold it.
    Exact,
    /// The whole stretch of this many blocks (aligned) that it lies in: for neighbours that will be wanted next.
    Blocks(u32),
}

/// An object as a reader knows it before the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub name: Name,
    pub id: ObjectId,
    pub kind: ObjectType,
    pub len: u64,
}

/// Figures of the cache since the repository was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks that were there already.
    pub hits: u64,
    /// Blocks that had to be fetched.
    pub misses: u64,
    /// Ranged reads sent to the storage.
    pub reads: u64,
    /// Sealed bytes that came back.
    pub bytes: u64,
    /// Sealed bytes of file contents among them.
    pub contents: u64,
    /// Those that were directories, reference lists and extended attributes.
    pub metadata: u64,
    /// Those that were records of the log.
    pub records: u64,
}

type Key = (ObjectId, u32);

/// Blocks in memory, bounded together. What is no file contents (names, lists, the index) keeps half of the room however
/// much is read: names must not wait because somebody copied a film.
struct Blocks {
    contents: LruCache<Key, Arc<[u8]>>,
    others: LruCache<Key, Arc<[u8]>>,
    capacity: usize,
}

impl Blocks {
    fn new(capacity: usize) -> Self {
        Blocks { contents: LruCache::unbounded(), others: LruCache::unbounded(), capacity }
    }

    fn of(&mut self, kind: ObjectType) -> &mut LruCache<Key, Arc<[u8]>> {
        if kind == ObjectType::Data { &mut self.contents } else { &mut self.others }
    }

    fn get(&mut self, object: &Object, block: u32) -> Option<Arc<[u8]>> {
        self.of(object.kind).get(&(object.id, block)).cloned()
    }

    fn put(&mut self, kind: ObjectType, key: Key, plain: Arc<[u8]>) {
        self.of(kind).put(key, plain);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.contents.len() + self.others.len() > self.capacity {
            let others = self.others.len() > self.capacity / 2 || self.contents.is_empty();
            let oldest = if others { self.others.pop_lru() } else { self.contents.pop_lru() };
            drop(oldest);
        }
    }
}

struct Inner {
    blocks: Blocks,
    openers: LruCache<ObjectId, Arc<Opener>>,
    pending: HashSet<Key>,
    stats: CacheStats,
}

pub(super) struct Fetcher {
    storage: Arc<dyn Storage>,
    keys: Arc<Keys>,
    inner: Mutex<Inner>,
    arrived: Condvar,
}

/// Objects whose verified headers are remembered; about 1 KiB each.
const OPENERS: NonZeroUsize = NonZeroUsize::new(4096).expect("positive");

/// Bytes that [`Fetcher::stream`] reads at once: a line of 100 MB/s and 20 ms is half used with that, by one thread.
const PIECE: usize = 2 << 20;

/// Returns the number of blocks in this many bytes, at least one.
fn blocks(bytes: usize) -> usize {
    (bytes / BLOCK).max(1)
}

impl Fetcher {
    pub fn new(storage: Arc<dyn Storage>, keys: Arc<Keys>, cache: usize) -> Self {
        let inner = Inner {
            blocks: Blocks::new(blocks(cache)),
            openers: LruCache::new(OPENERS),
            pending: HashSet::new(),
            stats: CacheStats::default(),
        };
        Fetcher { storage, keys, inner: Mutex::new(inner), arrived: Condvar::new() }
    }

    /// Bounds the cache. Returns the bound before.
    pub fn set_cache(&self, bytes: usize) -> usize {
        let mut inner = self.lock();
        let before = std::mem::replace(&mut inner.blocks.capacity, blocks(bytes)) * BLOCK;
        inner.blocks.shrink();
        before
    }

    pub fn stats(&self) -> CacheStats {
        self.lock().stats
    }

    /// Drops all verified blocks: the next read returns the bytes that the storage has now.
    pub fn forget(&self) {
        let mut inner = self.lock();
        inner.blocks = Blocks::new(inner.blocks.capacity);
        inner.openers.clear();
    }

    /// The plaintext bytes `range` of an object, every one of them verified.
    pub fn read(&self, ctx: &Context, object: &Object, range: Range<u64>, span: Span) -> Result<Vec<u8>> {
        if range.start > range.end || range.end > object.len {
            return Err(Error::damaged(format!("a reference points behind the end of object {}", object.id)));
        }
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        let mut block = (range.start / BLOCK as u64) as u32;
        while (out.len() as u64) < range.end - range.start {
            let last = (range.end - 1) / BLOCK as u64;
            let plain = self.block(ctx, object, block, last as u32 + 1, span)?;
            let at = u64::from(block) * BLOCK as u64;
            let from = range.start.saturating_sub(at) as usize;
            let to = (range.end - at).min(plain.len() as u64) as usize;
            out.extend_from_slice(&plain[from..to]);
            block += 1;
        }
        Ok(out)
    }

    /// Hands the plaintext bytes `range` to `take` in order, block by block and verified; nothing of it is kept, and
    /// nothing that others need is pushed out. No more than [`PIECE`] is held at once.
    pub fn stream(&self, ctx: &Context, object: &Object, range: Range<u64>, mut take: impl FnMut(&[u8])) -> Result<()> {
        if range.start > range.end || range.end > object.len {
            return Err(Error::damaged(format!("a reference points behind the end of object {}", object.id)));
        }
        let mut at = range.start;
        while at < range.end {
            let first = (at / BLOCK as u64) as u32;
            let end = range.end.div_ceil(BLOCK as u64).min(u64::from(first) + (PIECE / BLOCK) as u64) as u32;
            for (i, plain) in (first..).zip(self.fetch(ctx, object, first..end, first)?) {
                let damaged = || Error::damaged(format!("object {} is damaged in block {i}", object.id));
                let (plain, start) = (plain.ok_or_else(damaged)?, u64::from(i) * BLOCK as u64);
                let to = (range.end - start).min(plain.len() as u64);
                take(&plain[(at - start) as usize..to as usize]);
                at = start + to;
            }
        }
        Ok(())
    }

    /// Appends the plaintext bytes `range` to `out` if every block of them is in memory; returns whether they were.
    pub fn peek(&self, object: &Object, range: Range<u64>, out: &mut Vec<u8>) -> bool {
        if range.start >= range.end || range.end > object.len {
            return range.start == range.end;
        }
        let (first, last) = (range.start / BLOCK as u64, (range.end - 1) / BLOCK as u64);
        let mut inner = self.lock();
        let blocks = (first..=last).map(|i| inner.blocks.get(object, i as u32));
        let Some(blocks) = blocks.collect::<Option<Vec<_>>>() else { return false };
        inner.stats.hits += blocks.len() as u64;
        drop(inner);
        for (i, plain) in (first..).zip(blocks) {
            let at = i * BLOCK as u64;
            let from = range.start.saturating_sub(at) as usize;
            out.extend_from_slice(&plain[from..(range.end - at).min(plain.len() as u64) as usize]);
        }
        true
    }

    /// One block; what is fetched for it reaches up to `end` (the caller's range) and over `span`.
    fn block(&self, ctx: &Context, object: &Object, block: u32, end: u32, span: Span) -> Result<Arc<[u8]>> {
        let mut inner = self.lock();
        let mut counted = false;
        loop {
            if let Some(plain) = inner.blocks.get(object, block) {
                inner.stats.hits += u64::from(!counted);
                return Ok(plain);
            }
            if !inner.pending.contains(&(object.id, block)) {
                break;
            }
            counted = true;
            inner = ctx.wait(&self.arrived, inner)?;
        }
        let run = self.claim(&mut inner, object, block, end, span);
        drop(inner);
        let claim = Claim { fetcher: self, object, run: run.clone() };
        // Damage or a cut in a neighbour is not the reader's business: then the block is fetched alone.
        let (from, blocks) = match self.fetch(ctx, object, run.clone(), block) {
            Err(e) if e.kind() == Kind::Damaged && run.len() > 1 => {
                (block, self.fetch(ctx, object, block..block + 1, block)?)
            }
            other => (run.start, other?),
        };
        let wanted = blocks[(block - from) as usize].clone();
        claim.fill(from, blocks);
        wanted.ok_or_else(|| Error::damaged(format!("object {} is damaged in block {block}", object.id)))
    }

    /// Marks the stretch around `block` that nobody has or fetches as being fetched by us.
    fn claim(&self, inner: &mut Inner, object: &Object, block: u32, end: u32, span: Span) -> Range<u32> {
        let total = seal::blocks(object.len) as u32;
        let (low, high) = match span {
            Span::Exact => (block, end),
            Span::Blocks(n) => (block / n * n, end.max(block / n * n + n)),
        };
        // No more than half of the cache, so that what is fetched survives until it is used; at most 4 MiB a read.
        let most = (inner.blocks.capacity as u32 / 2).clamp(1, 64);
        let blocks = inner.blocks.of(object.kind);
        let free = |i: &u32| !inner.pending.contains(&(object.id, *i)) && !blocks.contains(&(object.id, *i));
        let stop = (block + 1..high.min(total).min(block + most)).find(|i| !free(i));
        let stop = stop.unwrap_or(high.min(total).min(block + most)).max(block + 1);
        let start = (low.max(stop.saturating_sub(most))..block).rev().take_while(free).last().unwrap_or(block);
        inner.pending.extend((start..stop).map(|i| (object.id, i)));
        inner.stats.misses += u64::from(stop - start);
        start..stop
    }

    /// A run of blocks past the cache; those that are damaged or cut off are `None`. Fails if the object is not there or its
    /// header is wrong.
    pub fn verify(&self, ctx: &Context, object: &Object, run: Range<u32>) -> Result<Vec<Option<Arc<[u8]>>>> {
        match self.fetch(ctx, object, run.clone(), u32::MAX) {
            // Perhaps the object only ends early.
            Err(e) if e.kind() == Kind::Damaged && run.len() > 1 => {
                self.lock().openers.pop(&object.id);
                self.opener(object, &self.read_sealed(ctx, object, 0, HEADER)?)?;
                run.map(|i| match self.fetch(ctx, object, i..i + 1, u32::MAX) {
                    Ok(mut block) => Ok(block.pop().flatten()),
                    Err(e) if e.kind() == Kind::Damaged => Ok(None),
                    Err(e) => Err(e),
                })
                .collect()
            }
            other => other,
        }
    }

    /// Fetches a run of blocks. Fails if `wanted` is damaged; other damaged blocks are `None`.
    fn fetch(&self, ctx: &Context, object: &Object, run: Range<u32>, wanted: u32) -> Result<Vec<Option<Arc<[u8]>>>> {
        let (offset, len) = seal::block_place(object.len, run.start.into(), run.end.into());
        let known = self.lock().openers.get(&object.id).cloned();
        // A header that is near comes with the same read, one that is far with a second read at the same time.
        let near = known.is_none() && offset <= 4 * BLOCK as u64;
        let from = if near { 0 } else { offset };
        let (sealed, header) = std::thread::scope(|scope| {
            let header = || self.read_sealed(ctx, object, 0, HEADER);
            let header = (known.is_none() && !near).then(|| scope.spawn(header));
            let sealed = self.read_sealed(ctx, object, from, (offset - from) as usize + len);
            (sealed, header.map(|h| h.join().expect("reading does not panic")))
        });
        let mut sealed = sealed?;
        let opener = match (known, header) {
            (Some(opener), _) => opener,
            (None, Some(header)) => self.opener(object, &header?)?,
            (None, None) => self.opener(object, &sealed)?,
        };
        let mut blocks = Vec::with_capacity(run.len());
        for i in run {
            let (start, len) = opener.place(i.into(), u64::from(i) + 1);
            let start = (start - from) as usize;
            match opener.open(i.into(), &mut sealed[start..start + len]) {
                Ok(plain) => blocks.push(Some(Arc::from(plain))),
                Err(e) if i == wanted => return Err(e),
                Err(_) => blocks.push(None),
            }
        }
        Ok(blocks)
    }

    fn read_sealed(&self, ctx: &Context, object: &Object, offset: u64, len: usize) -> Result<Vec<u8>> {
        let bytes = self.storage.read(ctx, &object.name, offset, len)?;
        let mut inner = self.lock();
        inner.stats.reads += 1;
        inner.stats.bytes += len as u64;
        *match object.kind {
            ObjectType::Data => &mut inner.stats.contents,
            ObjectType::Meta => &mut inner.stats.metadata,
            ObjectType::Record => &mut inner.stats.records,
        } += len as u64;
        Ok(bytes)
    }

    fn opener(&self, object: &Object, header: &[u8]) -> Result<Arc<Opener>> {
        let opener = Arc::new(Opener::new(&self.keys, object.kind, object.id, object.len, header)?);
        self.lock().openers.put(object.id, Arc::clone(&opener));
        Ok(opener)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

/// Blocks that this thread fetches; whatever happens, others stop waiting for them when it is dropped.
struct Claim<'a> {
    fetcher: &'a Fetcher,
    object: &'a Object,
    run: Range<u32>,
}

impl Claim<'_> {
    fn fill(&self, from: u32, blocks: Vec<Option<Arc<[u8]>>>) {
        let mut inner = self.fetcher.lock();
        for (i, plain) in (from..).zip(blocks) {
            if let Some(plain) = plain {
                inner.blocks.put(self.object.kind, (self.object.id, i), plain);
            }
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut inner = self.fetcher.lock();
        self.run.clone().for_each(|i| {
            inner.pending.remove(&(self.object.id, i));
        });
        drop(inner);
        self.fetcher.arrived.notify_all();
    }
}
