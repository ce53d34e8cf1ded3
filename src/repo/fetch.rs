//! Verified blocks. A block is fetched once for all readers that wait for it, and kept in a cache that is bounded in
//! bytes. The cache holds only blocks with a valid commitment and tag.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use lru::LruCache;

use super::block_cache::BlockCache;
use super::clock::{Clock, SystemClock};
use super::disk::{CacheUse, Disk, Found};
use super::object::{Block, Object, Opened};
use super::round_trip::RoundTripMeter;
use crate::context::Context;
use crate::crypto::keys::Keys;
use crate::crypto::seal::{self, BLOCK, HEADER, ObjectType};
use crate::error::{Error, Kind, Result};
use crate::name::ObjectId;
use crate::storage::{DiskCache, Storage};

/// The blocks to fetch around the requested bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The blocks that hold the bytes.
    Exact,
    /// This many blocks around the bytes (aligned), since their neighbours will be read next.
    Blocks(u32),
}

/// Statistics of the cache since the repository was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks found in the cache.
    pub hits: u64,
    /// Blocks that were not, and came from the disk cache or the server.
    pub misses: u64,
    /// Ranged reads sent to the storage.
    pub reads: u64,
    /// Sealed bytes read.
    pub bytes: u64,
    /// Sealed bytes of file contents.
    pub contents: u64,
    /// Sealed bytes of directories, reference lists and extended attributes.
    pub metadata: u64,
    /// Sealed bytes of records.
    pub records: u64,
    /// Blocks read from the disk cache.
    pub from_disk: u64,
}

struct Inner {
    blocks: BlockCache,
    openers: LruCache<ObjectId, Arc<Opened>>,
    stats: CacheStats,
}

pub(super) struct Fetcher {
    storage: Arc<dyn Storage>,
    keys: Arc<Keys>,
    inner: Mutex<Inner>,
    arrived: Condvar,
    disk: Option<Disk>,
    meter: RoundTripMeter,
}

/// Most verified headers in memory, about 1 KiB each.
const OPENERS: NonZeroUsize = NonZeroUsize::new(4096).expect("positive");

/// Bytes of one read of [`Fetcher::stream`]. One thread uses half of a connection with 100 MB/s and 20 ms.
const PIECE: usize = 2 << 20;

impl Fetcher {
    pub fn new(storage: Arc<dyn Storage>, keys: Arc<Keys>, cache: usize) -> Self {
        let inner =
            Inner { blocks: BlockCache::new(cache), openers: LruCache::new(OPENERS), stats: CacheStats::default() };
        Fetcher {
            storage,
            keys,
            inner: Mutex::new(inner),
            arrived: Condvar::new(),
            disk: None,
            meter: RoundTripMeter::default(),
        }
    }

    /// Uses a disk cache, if there is one.
    pub fn with_disk(self, cache: Option<DiskCache>, usage: CacheUse) -> Self {
        let disk = cache.map(|cache| Disk::new(cache, usage, &self.storage, &self.keys));
        Fetcher { disk, ..self }
    }

    /// Returns the disk cache.
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Sets the capacity in bytes. Returns the previous capacity.
    pub fn set_cache(&self, bytes: usize) -> usize {
        self.lock().blocks.set_capacity(bytes)
    }

    /// Counts blocks that are being fetched as part of the capacity.
    pub fn count_pending(&self) {
        self.lock().blocks.count_pending();
    }

    pub fn stats(&self) -> CacheStats {
        self.lock().stats
    }

    /// Returns the bytes that the storage carries in the time of a round trip, as measured.
    pub fn round_trip(&self) -> u64 {
        self.meter.round_trip()
    }

    /// Drops all blocks and headers and leaves the disk cache, so that the next read returns the current bytes of the storage.
    pub fn forget(&self) {
        self.disk.iter().for_each(Disk::bypass);
        let mut inner = self.lock();
        inner.blocks.clear();
        inner.openers.clear();
    }

    /// Returns the verified plaintext bytes `range` of an object.
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

    /// Passes the verified plaintext bytes `range` to `take`, in order and block by block, past the cache. Holds at most
    /// [`PIECE`] bytes.
    pub fn stream(&self, ctx: &Context, object: &Object, range: Range<u64>, mut take: impl FnMut(&[u8])) -> Result<()> {
        if range.start > range.end || range.end > object.len {
            return Err(Error::damaged(format!("a reference points behind the end of object {}", object.id)));
        }
        let mut at = range.start;
        while at < range.end {
            let first = (at / BLOCK as u64) as u32;
            let end = range.end.div_ceil(BLOCK as u64).min(u64::from(first) + (PIECE / BLOCK) as u64) as u32;
            let run = first..end;
            let blocks = match self.on_disk(ctx, object, run.clone(), first) {
                Found::Blocks(_, blocks, _) if blocks.iter().flatten().count() == run.len() => blocks,
                _ => self.fetch(ctx, object, run, first)?,
            };
            for (i, plain) in (first..).zip(blocks) {
                let damaged = || Error::damaged(format!("object {} is damaged in block {i}", object.id));
                let (plain, start) = (plain.ok_or_else(damaged)?, u64::from(i) * BLOCK as u64);
                let to = (range.end - start).min(plain.len() as u64);
                take(&plain[(at - start) as usize..to as usize]);
                at = start + to;
            }
        }
        Ok(())
    }

    /// Appends the plaintext bytes `range` to `out` if all their blocks are in the cache. Returns whether they were.
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

    /// Returns one block. Fetches up to `end` (of the caller's range) and over `span` if it is not in the cache.
    fn block(&self, ctx: &Context, object: &Object, block: u32, end: u32, span: Span) -> Result<Block> {
        let mut inner = self.lock();
        let mut counted = false;
        loop {
            if let Some(plain) = inner.blocks.get(object, block) {
                inner.stats.hits += u64::from(!counted);
                return Ok(plain);
            }
            if !inner.blocks.is_pending(object, block) {
                break;
            }
            counted = true;
            inner = ctx.wait(&self.arrived, inner)?;
        }
        let run = self.claim(&mut inner, object, block, end, span);
        drop(inner);
        let wanted = self.load(ctx, object, run, block)?;
        wanted.ok_or_else(|| Error::damaged(format!("object {} is damaged in block {block}", object.id)))
    }

    /// Fetches claimed blocks. Returns the one that is wanted; `None` if it is damaged.
    fn load(&self, ctx: &Context, object: &Object, run: Range<u32>, wanted: u32) -> Result<Option<Block>> {
        let claim = Claim { fetcher: self, object, run: run.clone() };
        let (from, blocks) = match self.on_disk(ctx, object, run, wanted) {
            Found::Blocks(from, blocks, _) => (from, blocks),
            // If a neighbour is damaged or cut off, the block is fetched alone.
            Found::Nothing(run) => match self.fetch(ctx, object, run.clone(), wanted) {
                Err(e) if e.kind() == Kind::Damaged && run.len() > 1 => {
                    (wanted, self.fetch(ctx, object, wanted..wanted + 1, wanted)?)
                }
                other => (run.start, other?),
            },
        };
        let block = blocks[(wanted - from) as usize].clone();
        claim.fill(from, blocks);
        Ok(block)
    }

    /// Returns whether some of these blocks are neither in the cache nor claimed by a thread.
    pub fn lacks(&self, object: &Object, run: &Range<u32>) -> bool {
        let inner = self.lock();
        run.clone().any(|i| inner.blocks.is_free(object, i))
    }

    /// Fetches the blocks that are neither in the cache nor claimed by another thread. Damaged blocks are left out.
    pub fn warm(&self, ctx: &Context, object: &Object, run: Range<u32>) -> Result<()> {
        let mut inner = self.lock();
        let end = run.end.min(seal::blocks(object.len) as u32);
        let mut next = run.start;
        while let Some(block) = (next..end).find(|i| inner.blocks.is_free(object, *i)) {
            let claimed = self.claim(&mut inner, object, block, end, Span::Exact);
            next = claimed.end;
            drop(inner);
            self.load(ctx, object, claimed, block)?;
            inner = self.lock();
        }
        Ok(())
    }

    /// Claims the blocks around `block` that are neither in the cache nor claimed by another thread.
    fn claim(&self, inner: &mut Inner, object: &Object, block: u32, end: u32, span: Span) -> Range<u32> {
        let total = seal::blocks(object.len) as u32;
        let (low, high) = match span {
            Span::Exact => (block, end),
            Span::Blocks(n) => (block / n * n, end.max(block / n * n + n)),
        };
        // At most half of the cache, so that fetched blocks are not evicted before they are used; at most 4 MiB.
        let most = (inner.blocks.capacity() as u32 / 2).clamp(1, 64);
        let free = |i: &u32| inner.blocks.is_free(object, *i);
        let stop = (block + 1..high.min(total).min(block + most)).find(|i| !free(i));
        let stop = stop.unwrap_or(high.min(total).min(block + most)).max(block + 1);
        let start = (low.max(stop.saturating_sub(most))..block).rev().take_while(free).last().unwrap_or(block);
        inner.blocks.claim(object, start..stop);
        inner.stats.misses += u64::from(stop - start);
        start..stop
    }

    /// Reads a run of blocks past the cache. Blocks that are damaged or cut off are `None`. Fails if the object is missing
    /// or its header is damaged.
    pub fn verify(&self, ctx: &Context, object: &Object, run: Range<u32>) -> Result<Vec<Option<Block>>> {
        match self.fetch(ctx, object, run.clone(), u32::MAX) {
            // The object may only end early.
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
    fn fetch(&self, ctx: &Context, object: &Object, run: Range<u32>, wanted: u32) -> Result<Vec<Option<Block>>> {
        let (offset, len) = seal::block_place(object.len, run.start.into(), run.end.into());
        let known = self.lock().openers.get(&object.id).cloned();
        // A near header is part of the same read, a far one is read at the same time.
        let near = known.is_none() && offset <= 4 * BLOCK as u64;
        let from = if near { 0 } else { offset };
        let (sealed, header) = std::thread::scope(|scope| {
            let header = || self.read_sealed(ctx, object, 0, HEADER);
            let header = (known.is_none() && !near).then(|| scope.spawn(header));
            let sealed = self.read_sealed(ctx, object, from, (offset - from) as usize + len);
            (sealed, header.map(|h| h.join().expect("reading does not panic")))
        });
        let mut sealed = sealed?;
        let opened = match (known, header) {
            (Some(opened), _) => opened,
            (None, Some(header)) => self.opener(object, &header?)?,
            (None, None) => self.opener(object, &sealed)?,
        };
        let sealed = &mut sealed[(offset - from) as usize..];
        let disk = self.disk.as_ref().filter(|disk| disk.keeps(object.kind));
        let copy = disk.map(|disk| (disk, sealed.to_vec()));
        let mut blocks = Vec::with_capacity(run.len());
        for (i, block) in run.clone().zip(opened.open(run.clone(), sealed)) {
            match block {
                Err(e) if i == wanted => return Err(e),
                block => blocks.push(block.ok()),
            }
        }
        if let Some((disk, copy)) = copy {
            disk.add(object, &opened, run.start, &copy, &blocks);
        }
        Ok(blocks)
    }

    /// Looks for a block on the disk.
    fn on_disk(&self, ctx: &Context, object: &Object, run: Range<u32>, wanted: u32) -> Found {
        let Some(disk) = &self.disk else { return Found::Nothing(run) };
        let known = self.lock().openers.get(&object.id).cloned();
        let found = disk.find(ctx, object, known, run, wanted);
        if let Found::Blocks(_, blocks, opened) = &found {
            let mut inner = self.lock();
            inner.stats.from_disk += blocks.len() as u64;
            inner.openers.put(object.id, Arc::clone(opened));
        }
        found
    }

    fn read_sealed(&self, ctx: &Context, object: &Object, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.meter.sent(SystemClock.boot());
        let bytes = self.storage.read(ctx, &object.name, offset, len);
        self.meter.ended(SystemClock.boot(), bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
        let bytes = bytes?;
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

    fn opener(&self, object: &Object, header: &[u8]) -> Result<Arc<Opened>> {
        let opened = Arc::new(Opened::new(&self.keys, object, header)?);
        self.lock().openers.put(object.id, Arc::clone(&opened));
        Ok(opened)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

/// Blocks that this thread fetches. When it is dropped, other threads stop waiting for them.
struct Claim<'a> {
    fetcher: &'a Fetcher,
    object: &'a Object,
    run: Range<u32>,
}

impl Claim<'_> {
    fn fill(&self, from: u32, blocks: Vec<Option<Block>>) {
        let mut inner = self.fetcher.lock();
        for (i, plain) in (from..).zip(blocks) {
            if let Some(plain) = plain {
                inner.blocks.put(self.object, i, plain);
            }
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.fetcher.lock().blocks.release(self.object, self.run.clone());
        self.fetcher.arrived.notify_all();
    }
}
