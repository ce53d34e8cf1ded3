//! Reads of file contents.
//!
//! In: an inode number and a range of bytes. Out: verified bytes, and advice on what to fetch ahead.
//!
//! - [`layout`]: from a range of a file to segments, each a hole or a part of a chunk.
//! - [`chunk`]: from a part of a chunk to its bytes, from memory or from the storage.
//! - [`pattern`]: recognises sequential readers. [`random`]: how much to fetch around random reads.
//! - [`ahead`]: from their advice to ranges of packs.
//! - [`heads`]: recognises readers that take the first bytes of the files of a directory.
//! - [`tree_ahead`]: the files that a copy reads next, in many packs, or the heads that a reader takes next.
//!   [`tree_walk`], [`head_walk`]: their order.

mod ahead;
mod chunk;
mod head_walk;
mod heads;
mod layout;
mod pattern;
mod random;
mod tree_ahead;
mod tree_walk;

pub use ahead::PackRange;
pub(super) use pattern::AccessPatterns;
pub use pattern::Ahead;
pub(super) use random::RandomReads;
pub(super) use tree_ahead::TreeAhead;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use crate::context::Context;
use crate::crypto::keys::ChunkId;
use crate::crypto::seal::BLOCK;
use crate::error::Result;
use crate::format::limits::FRAME;
use crate::format::list::List;
use crate::format::reference::{Extent, PackRef, Ref};
use crate::repo::{Span, parallel};
use crate::vfs::attr::Fault;
use crate::vfs::cache::Cache;
use crate::vfs::failures::RecentFailures;
use crate::vfs::{Mode, Vfs, readme};
use chunk::ChunkPart;
use heads::FileRead;
use layout::{FileLayout, Segment, malformed_list};
use random::{RandomRead, Traffic};
use tree_ahead::TreeAdvice;

/// Capacity for decompressed frames, in bytes.
const FRAMES: usize = 12 << 20;
/// Files whose layouts are kept, so that a read needs no page of their directory.
const LAYOUTS: NonZeroUsize = NonZeroUsize::new(2048).expect("positive");
/// Segments that one read fetches at the same time.
const SEGMENTS: usize = 4;
/// Pages of a reference list that one search for a hole reads. Behind them it reports holes as data, which is allowed.
const SEARCH: usize = 64;

/// The target of a search in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next stored byte.
    Data,
    /// The next byte of a hole, at the latest the end of the file.
    Hole,
}

/// Caches for reads of file contents.
pub(super) struct ContentCaches {
    layouts: Mutex<LruCache<u64, Arc<FileLayout>>>,
    frames: Cache<(ChunkId, u32), [u8]>,
    failures: RecentFailures<ChunkPart>,
}

impl ContentCaches {
    pub fn new() -> Self {
        ContentCaches {
            layouts: Mutex::new(LruCache::new(LAYOUTS)),
            frames: Cache::new(FRAMES),
            failures: RecentFailures::default(),
        }
    }
}

impl Vfs {
    /// Returns the bytes of a file from `offset` on, at most `size`; fewer only at its end. `advise` receives the ranges to
    /// fetch ahead before this waits for the storage; see [`Vfs::plan`].
    pub fn read(&self, ino: u64, offset: u64, size: u32, mode: Mode, advise: &dyn Fn(Ahead)) -> Result<Vec<u8>, Fault> {
        if self.is_readme(ino) {
            return Ok(readme::read(offset, size));
        }
        let file = self.layout(ino, mode)?;
        let range = offset..offset.saturating_add(size.into()).min(file.size);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut segments = self.segments(&file, range.clone(), mode)?;
        segments.iter_mut().for_each(|segment| self.relocate(segment));
        let in_memory = self.in_memory(&segments);
        if in_memory.is_none() && mode.is_cached() {
            return Err(Fault::Wait);
        }
        let span = self.advise_on(&file, ino, &range, &segments, in_memory.is_none(), advise);
        match (in_memory, mode) {
            (Some(bytes), _) => Ok(bytes),
            (None, Mode::Fetch(ctx)) => Ok(self.fetch(ctx, segments, span)?),
            (None, Mode::Cached) => Err(Fault::Wait),
        }
    }

    /// Notes a read, advises what to fetch ahead, and returns how much to fetch around it. `waits`: not all of it is in
    /// memory.
    fn advise_on(
        &self,
        file: &FileLayout,
        ino: u64,
        range: &Range<u64>,
        of: &[Segment],
        waits: bool,
        advise: &dyn Fn(Ahead),
    ) -> Span {
        let FileLayout { dir, position, size, .. } = *file;
        let pattern = self.patterns.note(&FileRead { dir, position, ino, range: range.clone(), size });
        let first = of.iter().find_map(|segment| if let Segment::Chunk(r, _) = segment { Some(r.id) } else { None });
        let first = first.filter(|_| range.start == 0);
        let most = self.options.cache as u64 / 6;
        let heads = first.map(|first| self.heads.note_head(ino, &first, waits, pattern.heads, most));
        let heads: TreeAdvice = heads.unwrap_or_default();
        if heads.walks {
            advise(Ahead::Heads);
        }
        if !pattern.by_pack {
            self.advise_by_file(ino, range, size, of, waits, advise);
            return Span::Exact;
        }
        if heads.is_expected {
            return Span::Exact;
        }
        let tree = match first {
            Some(first) if size <= tree_walk::LARGEST => {
                self.ahead.note(ino, &first, waits, self.patterns.reads_whole_files(dir), most)
            }
            _ => TreeAdvice::default(),
        };
        if tree.walks {
            advise(Ahead::Tree);
        }
        if tree.is_expected { Span::Exact } else { self.advise_by_pack(of, advise) }
    }

    /// Advises read-ahead of a sequential reader of this file, or what to fetch around a random read.
    fn advise_by_file(
        &self,
        ino: u64,
        range: &Range<u64>,
        size: u64,
        of: &[Segment],
        waits: bool,
        advise: &dyn Fn(Ahead),
    ) {
        if let Some(ahead) = self.patterns.file(ino, range, size, waits) {
            advise(ahead);
        }
        let fetched = self.repo.cache_stats().misses * BLOCK as u64;
        let round_trip = self.options.round_trip.unwrap_or_else(|| self.repo.round_trip());
        // Compressed blocks in memory cost no round trip.
        let waits = waits && !of.iter().all(|segment| self.is_near(segment));
        let read = RandomRead { bytes: range.clone(), needs: needed(range, of), size, waits };
        let around = self.random.note(ino, &read, Traffic { round_trip, fetched });
        if !around.is_empty() {
            advise(Ahead::Around { ino, around, read: range.clone() });
        }
    }

    fn is_near(&self, segment: &Segment) -> bool {
        match segment {
            Segment::Hole(_) => true,
            Segment::Chunk(r, part) => self.repo.part_is_near(r, part),
        }
    }

    /// Replaces a reference to a pack that was dropped, if the place of the chunk is known.
    fn relocate(&self, segment: &mut Segment) {
        if let Segment::Chunk(r, _) = segment
            && let Some(place) = self.pages.relocated(r)
        {
            *r = place;
        }
    }

    /// Advises read-ahead in the packs of these segments; returns how much to fetch around the last of them.
    fn advise_by_pack(&self, segments: &[Segment], advise: &dyn Fn(Ahead)) -> Span {
        let mut span = Span::Exact;
        for segment in segments {
            let Segment::Chunk(r, _) = segment else { continue };
            let advice = self.patterns.pack(r);
            span = advice.span;
            if let Some(ahead) = advice.ahead {
                advise(ahead);
            }
        }
        span
    }

    fn fetch(&self, ctx: &Context, segments: Vec<Segment>, span: Span) -> Result<Vec<u8>> {
        if let [Segment::Chunk(r, part)] = segments.as_slice() {
            return self.chunk_part(ctx, r, part, span);
        }
        // Chunks that follow each other in one pack come with one read.
        if let Some(all) = joined(&segments)
            && let Ok(bytes) = self.repo.part(ctx, &all, 0..all.len, span)
        {
            return Ok(bytes);
        }
        let parts = parallel(SEGMENTS, segments, |segment| match segment {
            Segment::Hole(len) => Ok(vec![0; len]),
            Segment::Chunk(r, part) => self.chunk_part(ctx, &r, &part, span),
        });
        let mut parts = parts.into_iter();
        let mut bytes = parts.next().unwrap_or_else(|| Ok(Vec::new()))?;
        for part in parts {
            bytes.extend_from_slice(&part?);
        }
        Ok(bytes)
    }

    /// Returns the first position from `offset` on that is data, or a hole.
    pub fn seek(&self, ino: u64, offset: u64, what: Seek, mode: Mode) -> Result<u64, Fault> {
        if self.is_readme(ino) {
            let found = if what == Seek::Hole { readme::SIZE } else { offset };
            return if offset < readme::SIZE { Ok(found) } else { Err(Fault::Beyond) };
        }
        let file = self.layout(ino, mode)?;
        if offset >= file.size {
            return Err(Fault::Beyond);
        }
        let mut at = offset;
        for _ in 0..SEARCH {
            let (leaf, base) = self.list_leaf(&file, at, mode)?;
            let (List::Leaf(extents), ends) = (&leaf.list, &leaf.ends) else { return Err(malformed_list()) };
            for i in ends.partition_point(|end| base + end <= at)..extents.len() {
                if matches!(extents[i], Extent::Hole(_)) == (what == Seek::Hole) {
                    return Ok(at);
                }
                at = base + ends[i];
            }
            if at >= file.size {
                return if what == Seek::Hole { Ok(file.size) } else { Err(Fault::Beyond) };
            }
        }
        Ok(if what == Seek::Hole { file.size } else { at })
    }
}

/// Returns the bytes of the file that a read fetches at least: whole frames of compressed chunks.
fn needed(range: &Range<u64>, segments: &[Segment]) -> Range<u64> {
    let mut needed = range.clone();
    if let Some(Segment::Chunk(r, part)) = segments.first()
        && r.stored < r.len
    {
        needed.start = range.start - u64::from(part.start) % FRAME as u64;
    }
    if let Some(Segment::Chunk(r, part)) = segments.last()
        && r.stored < r.len
    {
        let end = u64::from(part.end).next_multiple_of(FRAME as u64).min(r.len.into());
        needed.end = range.end + end - u64::from(part.end);
    }
    needed
}

/// Returns a reference to bytes of a pack, as if they were one uncompressed chunk.
fn raw(pack: PackRef, range: Range<u32>) -> Ref {
    let len = range.len() as u32;
    Ref { id: ChunkId([0; 16]), pack, offset: range.start, stored: len, len }
}

/// Returns a reference to all segments, if they are uncompressed and follow each other in one pack.
fn joined(segments: &[Segment]) -> Option<Ref> {
    let mut all: Option<(PackRef, Range<u32>)> = None;
    for segment in segments {
        let Segment::Chunk(r, part) = segment else { return None };
        let from = r.offset.checked_add(part.start)?;
        let to = r.offset.checked_add(part.end)?;
        match &mut all {
            _ if r.stored != r.len => return None,
            None => all = Some((r.pack, from..to)),
            Some((pack, range)) if *pack == r.pack && range.end == from => range.end = to,
            Some(_) => return None,
        }
    }
    all.map(|(pack, range)| raw(pack, range))
}
