//! Read-ahead: from an advice to ranges of packs, and their fetch.

use std::ops::Range;

use super::layout::{FileLayout, Segment};
use super::pattern::Ahead;
use crate::context::Context;
use crate::crypto::seal::BLOCK;
use crate::format::limits::FRAME;
use crate::format::reference::{PackRef, Ref};
use crate::format::stored;
use crate::repo::probable_frames;
use crate::vfs::attr::Fault;
use crate::vfs::{Mode, Vfs};

/// Largest range that is fetched at once, in bytes.
const LARGEST: usize = 1 << 20;

/// A range of a pack of file contents, in bytes of plaintext.
pub struct PackRange {
    pack: PackRef,
    range: Range<u32>,
}

/// A part of a chunk that is fetched ahead, in bytes of plaintext.
pub struct Piece {
    pub chunk: Ref,
    pub part: Range<u32>,
}

impl Piece {
    /// Returns the range of the pack that holds this part. Of a compressed chunk, that is all, or a beginning whose length
    /// is estimated.
    pub fn stored(&self) -> Range<u32> {
        let (r, part) = (&self.chunk, &self.part);
        if r.stored == r.len {
            return r.offset + part.start..r.offset + part.end;
        }
        let frames = (part.end as usize).next_multiple_of(FRAME) as u64;
        if part.start > 0 || frames >= r.len.into() {
            return r.offset..r.offset + r.stored;
        }
        // An eighth more, since frames differ.
        let estimate = frames * u64::from(r.stored) / u64::from(r.len) * 9 / 8 + stored::table_len(r) as u64;
        r.offset..r.offset + estimate.min(r.stored.into()) as u32
    }

    /// Returns the range of the pack that probably holds this part, without the table of a compressed chunk.
    pub fn frames(&self) -> Range<u32> {
        let (r, part) = (&self.chunk, &self.part);
        if r.stored == r.len {
            return self.stored();
        }
        let frames = probable_frames(r, part.start as usize / FRAME..(part.end as usize).div_ceil(FRAME));
        r.offset + frames.start as u32..r.offset + frames.end.min(r.stored.into()) as u32
    }
}

impl Vfs {
    /// Returns the ranges of packs that an advice asks for, each at most 1 MiB; none if its reader has moved elsewhere.
    pub fn plan(&self, advice: &Ahead, mode: Mode) -> Result<Vec<PackRange>, Fault> {
        let runs = match advice {
            Ahead::Pack(pack, range) => vec![PackRange { pack: *pack, range: range.clone() }],
            Ahead::File(ino, range) if self.wanted(advice) => {
                self.file_ranges(*ino, range.clone(), mode, Piece::stored)?
            }
            Ahead::Around { ino, around, read } => {
                let own = self.file_ranges(*ino, read.clone(), mode, Piece::frames)?;
                let runs = around.iter().map(|range| self.file_ranges(*ino, range.clone(), mode, Piece::frames));
                without(runs.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect(), &own)
            }
            Ahead::File(..) | Ahead::Tree | Ahead::Heads => Vec::new(),
        };
        Ok(runs.into_iter().flat_map(PackRange::aligned).collect())
    }

    /// Returns where the chunks of a range of a file are stored, by `place`; neighbours in one pack become one range.
    fn file_ranges(
        &self,
        ino: u64,
        range: Range<u64>,
        mode: Mode,
        place: fn(&Piece) -> Range<u32>,
    ) -> Result<Vec<PackRange>, Fault> {
        let file = self.layout(ino, mode)?;
        let mut runs: Vec<PackRange> = Vec::new();
        for piece in self.pieces(&file, range, mode)? {
            let (pack, stored) = (piece.chunk.pack, place(&piece));
            match runs.last_mut() {
                Some(run) if run.pack.id == pack.id && run.range.end == stored.start => run.range.end = stored.end,
                _ => runs.push(PackRange { pack, range: stored }),
            }
        }
        Ok(runs)
    }

    /// Returns the parts of chunks that make up a range of a file.
    pub(super) fn pieces(&self, file: &FileLayout, range: Range<u64>, mode: Mode) -> Result<Vec<Piece>, Fault> {
        let segments = self.segments(file, range, mode)?.into_iter();
        let pieces = segments.filter_map(|segment| match segment {
            Segment::Hole(_) => None,
            Segment::Chunk(chunk, part) => Some(Piece { chunk, part }),
        });
        Ok(pieces.collect())
    }

    /// Returns whether a reader is still about to reach the advised range.
    pub fn wanted(&self, advice: &Ahead) -> bool {
        match advice {
            Ahead::File(ino, range) => self.patterns.wanted(*ino, range),
            Ahead::Pack(..) | Ahead::Around { .. } | Ahead::Tree | Ahead::Heads => true,
        }
    }

    /// Fetches a range of a pack. Errors are ignored: the read of the range will report them.
    pub fn fetch_ahead(&self, ctx: &Context, range: &PackRange) {
        drop(self.repo.fetch(ctx, &range.pack, range.blocks()));
    }
}

/// Removes the blocks of these ranges, which a reader fetches itself.
fn without(runs: Vec<PackRange>, own: &[PackRange]) -> Vec<PackRange> {
    own.iter().fold(runs, |runs, own| runs.into_iter().flat_map(|run| run.minus(own)).collect())
}

impl PackRange {
    /// Returns the blocks that hold the range.
    fn blocks(&self) -> Range<u32> {
        self.range.start / BLOCK as u32..self.range.end.div_ceil(BLOCK as u32)
    }

    /// Returns the range of whole blocks.
    fn whole(&self) -> Range<u32> {
        let blocks = self.blocks();
        blocks.start * BLOCK as u32..self.pack.len.min(blocks.end.saturating_mul(BLOCK as u32))
    }

    /// Splits a range into whole blocks of at most [`LARGEST`] bytes.
    fn aligned(self) -> impl Iterator<Item = PackRange> {
        let (pack, whole) = (self.pack, self.whole());
        let starts = whole.clone().step_by(LARGEST);
        starts.map(move |start| PackRange { pack, range: start..whole.end.min(start + LARGEST as u32) })
    }

    /// Returns the whole blocks of this range that do not belong to another one.
    fn minus(self, other: &PackRange) -> Vec<PackRange> {
        if self.pack.id != other.pack.id {
            return vec![self];
        }
        let (pack, whole, other) = (self.pack, self.whole(), other.whole());
        let parts = [whole.start..whole.end.min(other.start), whole.start.max(other.end)..whole.end];
        let parts = parts.into_iter().filter(|range| !range.is_empty());
        parts.map(|range| PackRange { pack, range }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ObjectId;

    #[test]
    fn the_blocks_of_the_reader_are_left_out_of_a_stretch() {
        let pack = |n| PackRef { id: ObjectId([n; 32]), len: 16 << 20 };
        let run = |n, range| PackRange { pack: pack(n), range };
        let left = |own| {
            let left = without(vec![run(1, 100_000..700_000), run(2, 0..100)], &[own]);
            left.iter().map(|run| (run.pack.id.0[0], run.blocks())).collect::<Vec<_>>()
        };
        assert_eq!(left(run(1, 300_000..304_096)), [(1, 1..4), (1, 5..11), (2, 0..1)]);
        assert_eq!(left(run(1, 65_536..65_540)), [(1, 2..11), (2, 0..1)]);
        assert_eq!(left(run(2, 10..20)), [(1, 1..11)]);
        assert_eq!(left(run(3, 0..1_000_000)), [(1, 1..11), (2, 0..1)]);
    }
}
