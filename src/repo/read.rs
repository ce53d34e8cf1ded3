//! Reads chunks, pages and lists by reference, and verifies them.

use std::ops::Range;

use super::Repository;
use super::fetch::Span;
use super::object::Object;
use super::parallel;
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::{BLOCK, ObjectType};
use crate::error::{Error, Result};
use crate::format::limits::FRAME;
use crate::format::list::List;
use crate::format::node;
use crate::format::page::Page;
use crate::format::reference::{PackRef, Ref};
use crate::format::{pack, stored};
use crate::name::Name;

/// Metadata is fetched in parts of 1 MiB, since neighbours in a pack are neighbours in the tree.
const META_SPAN: Span = Span::Blocks(16);

/// A verified chunk.
pub struct StoredChunk {
    /// Its contents.
    pub plain: Vec<u8>,
    /// Its stored form, which does not depend on keys.
    pub stored: Vec<u8>,
}

impl Repository {
    /// Returns the plaintext of a whole chunk, verified by its tags and its id.
    pub fn chunk(&self, ctx: &Context, kind: ChunkKind, r: &Ref, span: Span) -> Result<Vec<u8>> {
        let range = u64::from(r.offset)..u64::from(r.offset) + u64::from(r.stored);
        self.whole(kind, r, self.fetcher.read(ctx, &object(kind, &r.pack), range, span)?)
    }

    /// Returns a whole chunk if all its blocks are in memory. Never waits. `None` for a damaged chunk, whose error
    /// [`Repository::chunk`] returns.
    pub fn chunk_in_memory(&self, kind: ChunkKind, r: &Ref) -> Option<Vec<u8>> {
        let range = u64::from(r.offset)..u64::from(r.offset) + u64::from(r.stored);
        let mut stored = Vec::with_capacity(r.stored as usize);
        let here = self.fetcher.peek(&object(kind, &r.pack), range, &mut stored);
        here.then(|| self.whole(kind, r, stored).ok()).flatten()
    }

    /// Returns a whole chunk, verified by its id, in its stored form too.
    pub fn stored_chunk(&self, ctx: &Context, kind: ChunkKind, r: &Ref, span: Span) -> Result<StoredChunk> {
        let range = u64::from(r.offset)..u64::from(r.offset) + u64::from(r.stored);
        let stored = self.fetcher.read(ctx, &object(kind, &r.pack), range, span)?;
        self.whole(kind, r, stored.clone()).map(|plain| StoredChunk { plain, stored })
    }

    fn whole(&self, kind: ChunkKind, r: &Ref, stored: Vec<u8>) -> Result<Vec<u8>> {
        let plain = stored::unpack(r, stored)?;
        if plain.len() != r.len as usize || self.keys().chunk_id(kind, &plain) != r.id {
            return Err(Error::damaged(format!("a chunk in pack {} does not have the contents of its id", r.pack.id)));
        }
        Ok(plain)
    }

    /// Reads blocks of a pack of file contents into the cache, except those that are there or that another thread fetches.
    pub fn fetch(&self, ctx: &Context, pack: &PackRef, blocks: Range<u32>) -> Result<()> {
        self.fetcher.warm(ctx, &object(ChunkKind::Data, pack), blocks)
    }

    /// Reads blocks of a pack of pages into the cache like [`Repository::fetch`].
    pub fn fetch_pages(&self, ctx: &Context, pack: &PackRef, blocks: Range<u32>) -> Result<()> {
        self.fetcher.warm(ctx, &object(ChunkKind::Page, pack), blocks)
    }

    /// Returns whether some of these blocks of a pack of pages are neither in memory nor being fetched.
    pub fn lacks_pages(&self, pack: &PackRef, blocks: &Range<u32>) -> bool {
        self.fetcher.lacks(&object(ChunkKind::Page, pack), blocks)
    }

    /// Returns the plaintext bytes `range` of a chunk of file contents, verified by commitment and tags. Fetches only the
    /// blocks and frames that hold them.
    pub fn part(&self, ctx: &Context, r: &Ref, range: Range<u32>, span: Span) -> Result<Vec<u8>> {
        let object = object(ChunkKind::Data, &r.pack);
        let at = |from: usize, to: usize| u64::from(r.offset) + from as u64..u64::from(r.offset) + to as u64;
        let Range { start: from, end: to } = range.start as usize..range.end.min(r.len) as usize;
        if from >= to {
            return Ok(Vec::new());
        }
        if r.stored == r.len {
            return self.fetcher.read(ctx, &object, at(from, to), span);
        }
        let table = self.frame_table(ctx, r, from / FRAME..(to - 1) / FRAME + 1, span)?;
        let frames = stored::frames(r, &table)?;
        let (first, last) = (from / FRAME, (to - 1) / FRAME);
        let bytes = self.fetcher.read(ctx, &object, at(frames[first].start, frames[last].end), span)?;
        let mut plain = Vec::with_capacity((last + 1 - first) * FRAME);
        for i in first..=last {
            let frame = frames[i].start - frames[first].start..frames[i].end - frames[first].start;
            plain.extend_from_slice(&stored::unpack_frame(r, i, &bytes[frame])?);
        }
        plain.truncate(to - first * FRAME);
        plain.drain(..from - first * FRAME);
        Ok(plain)
    }

    /// Returns the table of a compressed chunk. If it is not in memory, the blocks in which these frames probably lie are
    /// fetched at the same time, so that a read takes one round trip instead of two.
    fn frame_table(&self, ctx: &Context, r: &Ref, frames: Range<usize>, span: Span) -> Result<Vec<u8>> {
        let (object, start) = (object(ChunkKind::Data, &r.pack), u64::from(r.offset));
        let place = start..start + stored::table_len(r) as u64;
        let mut table = Vec::new();
        if self.fetcher.peek(&object, place.clone(), &mut table) {
            return Ok(table);
        }
        if span != Span::Exact {
            return self.fetcher.read(ctx, &object, place, span);
        }
        let guess = probable_frames(r, frames);
        let blocks = |range: Range<u64>| (range.start / BLOCK as u64) as u32..range.end.div_ceil(BLOCK as u64) as u32;
        let (of_table, of_frames) = (blocks(place.clone()), blocks(start + guess.start..start + guess.end));
        let is_near = of_frames.start <= of_table.end;
        let of_table = if is_near { of_table.start..of_frames.end.max(of_table.end) } else { of_table };
        let runs = if is_near { [of_table, 0..0] } else { [of_table, of_frames] };
        // If this fails, the reads below fail and report it.
        let runs = runs.into_iter().filter(|run| !run.is_empty()).collect();
        parallel(2, runs, |run| drop(self.fetcher.warm(ctx, &object, run)));
        self.fetcher.read(ctx, &object, place, span)
    }

    /// Appends the plaintext bytes `range` of a raw chunk of file contents to `out` if all their blocks are in memory.
    /// Returns whether they were; `false` for compressed chunks. Never waits.
    pub fn part_in_memory(&self, r: &Ref, range: Range<u32>, out: &mut Vec<u8>) -> bool {
        let at = |i: u32| u64::from(r.offset) + u64::from(i);
        r.stored == r.len
            && self.fetcher.peek(&object(ChunkKind::Data, &r.pack), at(range.start)..at(range.end.min(r.len)), out)
    }

    /// Returns whether all blocks that a part of a chunk of file contents needs are in memory. Never waits.
    pub fn part_is_near(&self, r: &Ref, range: &Range<u32>) -> bool {
        let (object, mut bytes) = (object(ChunkKind::Data, &r.pack), Vec::new());
        let at = |from: u64, to: u64| u64::from(r.offset) + from..u64::from(r.offset) + to;
        if r.stored == r.len {
            return self.fetcher.peek(&object, at(range.start.into(), range.end.into()), &mut bytes);
        }
        if range.is_empty() || !self.fetcher.peek(&object, at(0, stored::table_len(r) as u64), &mut bytes) {
            return range.is_empty();
        }
        let Ok(frames) = stored::frames(r, &bytes) else { return false };
        let (first, last) = (range.start as usize / FRAME, (range.end as usize - 1) / FRAME);
        let (Some(first), Some(last)) = (frames.get(first), frames.get(last)) else { return false };
        self.fetcher.peek(&object, at(first.start as u64, last.end as u64), &mut bytes)
    }

    /// Returns a whole chunk of metadata. Fetches its neighbours in the pack too.
    pub fn metadata(&self, ctx: &Context, kind: ChunkKind, r: &Ref) -> Result<Vec<u8>> {
        self.chunk(ctx, kind, r, META_SPAN)
    }

    /// Reads a page of a directory.
    pub fn page(&self, ctx: &Context, r: &Ref) -> Result<Page> {
        Page::decode(&self.metadata(ctx, ChunkKind::Page, r)?, &r.pack)
    }

    /// Reads a page of a reference list.
    pub fn list(&self, ctx: &Context, r: &Ref) -> Result<List> {
        List::decode(&self.metadata(ctx, ChunkKind::List, r)?, &r.pack)
    }

    /// Reads extended attributes from their own chunk.
    pub fn stored_xattrs(&self, ctx: &Context, r: &Ref) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        node::decode_xattrs(&self.metadata(ctx, ChunkKind::Xattrs, r)?)
    }

    /// Reads the table of a pack.
    pub fn pack_table(&self, ctx: &Context, kind: ObjectType, pack: &PackRef) -> Result<Vec<pack::Entry>> {
        let object = Object { name: Name::Pack(pack.id), id: pack.id, kind, len: pack.len.into() };
        let last =
            self.fetcher.read(ctx, &object, u64::from(pack.len).saturating_sub(4)..pack.len.into(), Span::Exact)?;
        let last = last.try_into().map_err(|_| Error::damaged(format!("pack {} has no table", pack.id)))?;
        let len = pack::table_len(pack.len, last)?;
        let range = u64::from(pack.len) - len as u64..pack.len.into();
        pack::decode_table(pack.id, pack.len, &self.fetcher.read(ctx, &object, range, Span::Exact)?)
    }
}

/// Returns the bytes of a compressed chunk in which these frames lie if all frames are about equally long.
pub fn probable_frames(r: &Ref, frames: Range<usize>) -> Range<u64> {
    let table = stored::table_len(r) as u64;
    let (stored, all) = (u64::from(r.stored) - table.min(r.stored.into()), u64::from(r.len).div_ceil(FRAME as u64));
    let at = |frame: usize| frame as u64 * stored / all;
    // A few hundredths of the distance to the nearer end of the chunk, since frames differ.
    let margin = |frame: usize| at(frame).min(stored - at(frame)) / 32;
    let (first, end) = (frames.start, frames.end.min(all as usize));
    table + at(first) - margin(first)..table + at(end) + margin(end)
}

fn object(kind: ChunkKind, pack: &PackRef) -> Object {
    let kind = if kind == ChunkKind::Data { ObjectType::Data } else { ObjectType::Meta };
    Object { name: Name::Pack(pack.id), id: pack.id, kind, len: pack.len.into() }
}
