//! Verified chunks, fetched in large runs of blocks and ahead of their use.
//!
//! The walk announces each reference that it queues. For each stretch of 4 MiB of a pack, the blocks that announced chunks
//! need are noted. A stretch of which all blocks are needed, or with many small chunks, is fetched early, and so are the
//! blocks of small packs. A thread that fetches takes all neighbouring blocks that are needed by then, so that each block
//! is fetched once, in few requests. Other chunks are fetched alone: the chunks of files that were pushed at the same time
//! are mixed in a pack, so a whole stretch would leave the cache before the walk comes to all files in it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::{Condvar, Mutex};

use crossbeam_channel::Sender;

use super::Trees;
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::{self, BLOCK};
use crate::error::Result;
use crate::format::reference::{PackRef, Ref};
use crate::name::ObjectId;
use crate::repo::{Span, StoredChunk};

/// Blocks of a stretch: 4 MiB, one bit each in a `u64`.
const STRETCH: u32 = u64::BITS;
/// Stored bytes that may be queued: with [`STRETCH`] and the cache of 96 MiB, a stretch stays in the cache until it is used.
const WINDOW: u64 = 48 << 20;
/// Packs below this size, in bytes, are of pushes that changed little. A tree has few chunks in each of many, so their blocks
/// are fetched early, but no others.
const SMALL_PACK: u32 = 4 << 20;
/// Small chunks in a stretch from which on it is fetched as a whole, and their average length at most.
const SMALL: (u32, u64) = (4, 128 << 10);

/// A pack, and the number of a stretch in it.
type Place = (ObjectId, u32);

#[derive(Default)]
struct Wanted {
    queued: u64,
    stretches: HashMap<Place, Stretch>,
}

/// Blocks of a stretch, one bit each.
type Blocks = u64;

/// The announced chunks in a stretch.
#[derive(Default)]
struct Stretch {
    /// Chunks that lie in it at least in part, and their bytes in it.
    count: u32,
    bytes: u64,
    /// Blocks that will be needed, and the part of them that a thread fetches or has fetched.
    wanted: Blocks,
    begun: Blocks,
    /// Whether it is worth being fetched early.
    is_early: bool,
    /// Whether a thread that fetches early will look at it.
    is_sent: bool,
}

impl Stretch {
    /// Adds a chunk. Returns whether a thread has to be woken that fetches early.
    fn add(&mut self, part: &Part) -> bool {
        self.count += 1;
        self.bytes += part.bytes;
        self.wanted |= part.blocks;
        let (is_small_pack, all) = (part.pack.len < SMALL_PACK, part.all());
        if !is_small_pack && self.count >= SMALL.0 && self.bytes <= u64::from(self.count) * SMALL.1 {
            self.wanted |= all;
        }
        self.is_early |= is_small_pack || self.wanted == all;
        let wakes = self.is_early && !self.is_sent && self.wanted & !self.begun != 0;
        self.is_sent |= wakes;
        wakes
    }

    /// Takes the neighbouring blocks that are still to be fetched around the first such block of `among`.
    fn begin(&mut self, among: Blocks) -> Option<Range<u32>> {
        let open = self.wanted & !self.begun;
        let first = (open & among).trailing_zeros();
        if first == Blocks::BITS {
            return None;
        }
        let start = first + 1 - (open << (Blocks::BITS - 1 - first)).leading_ones();
        let end = first + (open >> first).trailing_ones();
        self.begun |= bits(start..end);
        Some(start..end)
    }
}

/// Returns a range of bits, which is not empty.
fn bits(range: Range<u32>) -> Blocks {
    (Blocks::MAX >> (Blocks::BITS - (range.end - range.start))) << range.start
}

/// The part of a chunk in one stretch.
struct Part {
    pack: PackRef,
    stretch: u32,
    blocks: Blocks,
    bytes: u64,
}

impl Part {
    fn place(&self) -> Place {
        (self.pack.id, self.stretch)
    }

    /// Returns the blocks that the pack has in the stretch.
    fn all(&self) -> Blocks {
        let left = seal::blocks(self.pack.len.into()).saturating_sub(u64::from(self.stretch) * u64::from(STRETCH));
        bits(0..(left.clamp(1, STRETCH.into()) as u32))
    }
}

/// Returns the parts of a chunk in the stretches of its pack.
fn parts(r: &Ref) -> impl Iterator<Item = Part> {
    let (start, end) = (u64::from(r.offset), u64::from(r.offset) + u64::from(r.stored.max(1)));
    let size = u64::from(STRETCH) * BLOCK as u64;
    let pack = r.pack;
    (start / size..=(end - 1) / size).map(move |stretch| {
        let (from, to) = (start.max(stretch * size) - stretch * size, end.min((stretch + 1) * size) - stretch * size);
        let blocks = bits((from / BLOCK as u64) as u32..to.div_ceil(BLOCK as u64) as u32);
        Part { pack, stretch: stretch as u32, blocks, bytes: to - from }
    })
}

/// Fetches the chunks that a walk announces.
pub struct Fetch<'a> {
    trees: &'a Trees<'a>,
    wanted: Mutex<Wanted>,
    less: Condvar,
}

/// Announced chunks. They count as queued until this is dropped.
pub struct Announced<'f, R: AsRef<[Ref]>> {
    fetch: &'f Fetch<'f>,
    refs: R,
}

impl<R: AsRef<[Ref]>> Drop for Announced<'_, R> {
    fn drop(&mut self) {
        self.fetch.done(self.refs.as_ref());
    }
}

impl<'a> Fetch<'a> {
    /// Makes a fetcher with nothing announced.
    pub fn new(trees: &'a Trees<'a>) -> Self {
        Fetch { trees, wanted: Mutex::default(), less: Condvar::new() }
    }

    /// Returns where a chunk is: the place of its reference, unless that pack was dropped. Then its neighbours are the ones
    /// at the new place.
    pub fn located(&self, ctx: &Context, r: &Ref) -> Ref {
        self.trees.lookup().locate(ctx, self.trees.repo(), ChunkKind::Data, r)
    }

    /// Waits until more chunks may be announced. Then [`Fetch::announce`] does not wait, if no other thread announces chunks.
    pub fn wait_for_room(&self, ctx: &Context) -> Result<()> {
        let mut wanted = self.wanted.lock().expect("no holder panics");
        while wanted.queued >= WINDOW {
            wanted = ctx.wait(&self.less, wanted)?;
        }
        Ok(())
    }

    /// Announces chunks that will be needed, and waits while too many bytes are queued. A stretch that has become worth it goes to
    /// `early`, whose other end calls [`Fetch::touch`].
    pub fn announce(&self, refs: &[Ref], early: &Sender<Ref>) {
        let mut wanted = self.wanted.lock().expect("no holder panics");
        while wanted.queued >= WINDOW {
            wanted = self.less.wait(wanted).expect("no holder panics");
        }
        let mut worth = Vec::new();
        for r in refs {
            wanted.queued += u64::from(r.stored);
            let mut wakes = false;
            for part in parts(r) {
                wakes |= wanted.stretches.entry(part.place()).or_default().add(&part);
            }
            worth.extend(wakes.then_some(*r));
        }
        drop(wanted);
        for r in worth {
            // If this fails, the stretch is not fetched early, but when it is needed.
            let _ = early.send(r);
        }
    }

    /// Returns these announced chunks, which count as queued until the result is dropped, whatever happens.
    pub fn announced<R: AsRef<[Ref]>>(&self, refs: R) -> Announced<'_, R> {
        Announced { fetch: self, refs }
    }

    fn done(&self, refs: &[Ref]) {
        let mut wanted = self.wanted.lock().expect("no holder panics");
        for r in refs {
            wanted.queued -= u64::from(r.stored);
            for part in parts(r) {
                let Entry::Occupied(mut stretch) = wanted.stretches.entry(part.place()) else { continue };
                stretch.get_mut().count -= 1;
                stretch.get_mut().bytes -= part.bytes;
                if stretch.get().count == 0 {
                    stretch.remove();
                }
            }
        }
        drop(wanted);
        self.less.notify_all();
    }

    /// Reads the wanted blocks in the stretches of this chunk into the cache. Errors are reported when the bytes are needed.
    pub fn touch(&self, ctx: &Context, r: &Ref) {
        for part in parts(r) {
            while let Some(blocks) = self.begin(&part, Blocks::MAX) {
                let _ = self.trees.repo().fetch(ctx, &r.pack, blocks);
            }
        }
    }

    /// Takes blocks that this thread fetches.
    fn begin(&self, part: &Part, among: Blocks) -> Option<Range<u32>> {
        let mut wanted = self.wanted.lock().expect("no holder panics");
        let stretch = wanted.stretches.get_mut(&part.place()).filter(|stretch| stretch.is_early)?;
        stretch.is_sent &= among != Blocks::MAX;
        let first = part.stretch * STRETCH;
        stretch.begin(among).map(|blocks| first + blocks.start..first + blocks.end)
    }

    /// Reads into the cache the blocks of a chunk that no thread fetches early yet, with their neighbours.
    fn fetch_now(&self, ctx: &Context, r: &Ref) {
        for part in parts(r) {
            while let Some(blocks) = self.begin(&part, part.blocks) {
                let _ = self.trees.repo().fetch(ctx, &r.pack, blocks);
            }
        }
    }

    /// Returns the contents of a chunk, verified by their id; from where the index has them if they cannot be read at their place.
    pub fn chunk(&self, ctx: &Context, r: &Ref) -> Result<Vec<u8>> {
        self.fetch_now(ctx, r);
        self.trees.chunk(ctx, r, Span::Exact)
    }

    /// Returns a chunk like [`Fetch::chunk`], in its stored form too.
    pub fn stored_chunk(&self, ctx: &Context, r: &Ref) -> Result<StoredChunk> {
        self.fetch_now(ctx, r);
        let (kind, repo) = (ChunkKind::Data, self.trees.repo());
        self.trees.read(ctx, kind, r, |r| repo.stored_chunk(ctx, kind, r, Span::Exact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::ChunkId;

    fn part_of(offset: u32, stored: u32, pack: u32) -> Vec<Part> {
        let pack = PackRef { id: ObjectId([1; 32]), len: pack };
        parts(&Ref { id: ChunkId([2; 16]), pack, offset, stored, len: stored }).collect()
    }

    #[test]
    fn a_chunk_has_a_part_in_each_stretch_that_it_reaches() {
        let found = part_of((4 << 20) - 1, (4 << 20) + 2, 16 << 20);
        let found: Vec<_> = found.iter().map(|part| (part.stretch, part.blocks, part.bytes)).collect();
        assert_eq!(found, [(0, 1 << 63, 1), (1, u64::MAX, 4 << 20), (2, 1, 1)]);
        assert_eq!(part_of(0, 0, 1).len(), 1);
        assert_eq!((part_of(0, 1, 65_537)[0].all(), part_of(5 << 20, 1, 16 << 20)[0].all()), (3, u64::MAX));
    }

    #[test]
    fn neighbouring_blocks_are_taken_together_and_once() {
        let mut stretch = Stretch { wanted: 0b1110_0111_0110, ..Stretch::default() };
        assert_eq!(stretch.begin(0b100_0000), Some(4..7));
        assert_eq!(stretch.begin(0b100_0000), None);
        assert_eq!(stretch.begin(Blocks::MAX), Some(1..3));
        assert_eq!(stretch.begin(Blocks::MAX), Some(9..12));
        assert_eq!(stretch.begin(Blocks::MAX), None);
        let mut whole = Stretch { wanted: Blocks::MAX, ..Stretch::default() };
        assert_eq!((whole.begin(1 << 63), whole.begun), (Some(0..64), Blocks::MAX));
    }

    #[test]
    fn a_full_stretch_and_a_small_pack_are_fetched_early_and_small_chunks_make_a_stretch_full() {
        let wakes = |chunks: &[(u32, u32)], pack| {
            let mut stretch = Stretch::default();
            let wakes: Vec<_> = chunks.iter().map(|(at, len)| stretch.add(&part_of(*at, *len, pack)[0])).collect();
            (wakes, stretch.wanted.count_ones())
        };
        let mib = 1 << 20;
        assert_eq!(wakes(&[(0, 3 * mib), (3 * mib, mib)], 16 * mib), (vec![false, true], 64));
        assert_eq!(wakes(&[(0, 9), (9, 9), (mib, 9), (mib, 9)], 16 * mib), (vec![false, false, false, true], 64));
        assert_eq!(wakes(&[(0, 9), (9, 9), (mib, 9), (mib, 9)], 2 * mib), (vec![true, false, false, false], 2));
    }
}
