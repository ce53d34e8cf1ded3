//! Parts of chunks: from memory or from the storage, decompressed where the stored form is compressed.

use std::ops::Range;
use std::sync::Arc;

use super::layout::Segment;
use super::raw;
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::BLOCK;
use crate::error::Result;
use crate::format::limits::FRAME;
use crate::format::reference::Ref;
use crate::format::stored::unpack_frame;
use crate::repo::Span;
use crate::vfs::Vfs;
use crate::vfs::attr::passing;

/// The unit in which reads fail: a block of a pack (by the first half of its id), or a frame of a compressed chunk.
pub(super) type ChunkPart = ([u8; 16], u32);

impl Vfs {
    /// Returns the bytes of these segments, if all of them are in memory.
    pub(super) fn in_memory(&self, segments: &[Segment]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(segments.iter().map(Segment::len).sum());
        for segment in segments {
            match segment {
                Segment::Hole(len) => out.resize(out.len() + len, 0),
                Segment::Chunk(r, part) if r.stored == r.len => {
                    self.repo.part_in_memory(r, part.clone(), &mut out).then_some(())?;
                }
                Segment::Chunk(r, part) => {
                    self.unpack_in_memory(r);
                    for i in frames(part) {
                        self.contents.frames.cached(&(r.id, i)).map(|frame| append_frame(&frame, i, part, &mut out))?;
                    }
                }
            }
        }
        Some(out)
    }

    /// Decompresses a chunk of one frame whose stored form is in memory: that takes less time than to wake a worker.
    fn unpack_in_memory(&self, r: &Ref) {
        let mut bytes = Vec::new();
        if r.len as usize <= FRAME
            && self.contents.frames.cached(&(r.id, 0)).is_none()
            && self.repo.part_in_memory(&raw(r.pack, r.offset..r.offset + r.stored), 0..r.stored, &mut bytes)
            && let Ok(frame) = unpack_frame(r, 0, &bytes)
        {
            let weight = frame.len();
            self.contents.frames.put((r.id, 0), Arc::from(frame), weight);
        }
    }

    /// Returns verified bytes of a chunk. A part that was damaged a moment ago fails again without another attempt.
    pub(super) fn chunk_part(&self, ctx: &Context, r: &Ref, part: &Range<u32>, span: Span) -> Result<Vec<u8>> {
        let parts = chunk_parts(r, part);
        if let Some(error) = self.contents.failures.find(parts.iter().copied()) {
            return Err(error);
        }
        let result = self.pages.read(ctx, ChunkKind::Data, r, |r| {
            if r.stored == r.len {
                self.repo.part(ctx, r, part.clone(), span)
            } else {
                self.unpacked(ctx, r, part, span)
            }
        });
        // Errors that may pass are left to the caller, which knows when it has given up on the read.
        if let Err(e) = &result
            && parts.len() == 1
            && !passing(e)
        {
            self.contents.failures.add(parts, e);
        }
        result
    }

    /// Returns bytes of a compressed chunk; whole frames are fetched and kept.
    fn unpacked(&self, ctx: &Context, r: &Ref, part: &Range<u32>, span: Span) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(part.len());
        let wanted: Vec<u32> = frames(part).collect();
        let mut missing = wanted.clone();
        missing.retain(|i| self.contents.frames.cached(&(r.id, *i)).is_none());
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let whole = first * FRAME as u32..r.len.min((last + 1) * FRAME as u32);
            let plain = self.repo.part(ctx, r, whole, span)?;
            for (i, frame) in (*first..).zip(plain.chunks(FRAME)) {
                self.contents.frames.put((r.id, i), Arc::from(frame), frame.len());
                append_frame(frame, i, part, &mut out);
            }
            if out.len() == part.len() {
                return Ok(out);
            }
            out.clear();
        }
        for i in wanted {
            match self.contents.frames.cached(&(r.id, i)) {
                Some(frame) => append_frame(&frame, i, part, &mut out),
                None => return self.repo.part(ctx, r, part.clone(), span),
            }
        }
        Ok(out)
    }
}

/// Returns the frames that hold a range of a compressed chunk.
fn frames(part: &Range<u32>) -> impl Iterator<Item = u32> + use<> {
    part.start / FRAME as u32..part.end.div_ceil(FRAME as u32)
}

/// Appends the bytes of frame `i` that lie in `part` of its chunk.
fn append_frame(frame: &[u8], i: u32, part: &Range<u32>, out: &mut Vec<u8>) {
    let start = i as usize * FRAME;
    let from = (part.start as usize).saturating_sub(start);
    let to = (part.end as usize).saturating_sub(start).min(frame.len());
    out.extend_from_slice(frame.get(from..to).unwrap_or_default());
}

/// Returns the blocks (of an uncompressed chunk) or frames that a part of a chunk needs.
fn chunk_parts(r: &Ref, part: &Range<u32>) -> Vec<ChunkPart> {
    if r.stored < r.len {
        return frames(part).map(|i| (r.id.0, i)).collect();
    }
    let pack = *r.pack.id.0.first_chunk().expect("32 bytes");
    (block_of(r, part.start)..=block_of(r, part.end - 1)).map(|i| (pack, i)).collect()
}

/// Returns the block of the pack that holds this byte of an uncompressed chunk.
fn block_of(r: &Ref, byte: u32) -> u32 {
    ((u64::from(r.offset) + u64::from(byte)) / BLOCK as u64) as u32
}
