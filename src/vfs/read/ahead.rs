//! Read-ahead: from an advice to ranges of packs, and their fetch.

use std::ops::Range;

use super::layout::{FileLayout, Segment};
use super::pattern::Ahead;
use super::raw;
use crate::context::Context;
use crate::crypto::seal::BLOCK;
use crate::format::limits::FRAME;
use crate::format::reference::{PackRef, Ref};
use crate::format::stored;
use crate::repo::Span;
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
}

impl Vfs {
    /// Returns the ranges of packs that an advice asks for, each at most 1 MiB; none if its reader has moved elsewhere.
    pub fn plan(&self, advice: &Ahead, mode: Mode) -> Result<Vec<PackRange>, Fault> {
        let runs = match advice {
            Ahead::Pack(pack, range) => vec![PackRange { pack: *pack, range: range.clone() }],
            Ahead::File(ino, range) if self.wanted(advice) => self.file_ranges(*ino, range.clone(), mode)?,
            Ahead::File(..) | Ahead::Tree | Ahead::Heads => Vec::new(),
        };
        Ok(runs.into_iter().flat_map(PackRange::aligned).collect())
    }

    /// Returns where the chunks of a range of a file are stored; neighbours in one pack become one range.
    fn file_ranges(&self, ino: u64, range: Range<u64>, mode: Mode) -> Result<Vec<PackRange>, Fault> {
        let file = self.layout(ino, mode)?;
        let mut runs: Vec<PackRange> = Vec::new();
        for piece in self.pieces(&file, range, mode)? {
            let (pack, stored) = (piece.chunk.pack, piece.stored());
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
            Ahead::Pack(..) | Ahead::Tree | Ahead::Heads => true,
        }
    }

    /// Fetches a range of a pack. Errors are ignored: the read of the range will report them.
    pub fn fetch_ahead(&self, ctx: &Context, range: &PackRange) {
        let PackRange { pack, range } = range;
        drop(self.repo.part(ctx, &raw(*pack, range.clone()), 0..range.len() as u32, Span::Exact));
    }
}

impl PackRange {
    /// Splits a range into whole blocks of at most [`LARGEST`] bytes.
    fn aligned(self) -> impl Iterator<Item = PackRange> {
        let PackRange { pack, range } = self;
        let from = range.start - range.start % BLOCK as u32;
        let to = range.end.next_multiple_of(BLOCK as u32).min(pack.len);
        let starts = (from..to).step_by(LARGEST);
        starts.map(move |start| PackRange { pack, range: start..to.min(start + LARGEST as u32) })
    }
}
