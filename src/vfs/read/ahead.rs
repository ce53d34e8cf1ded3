//! Read-ahead: from an advice to ranges of packs, and their fetch.

use std::ops::Range;

use super::layout::Segment;
use super::pattern::Ahead;
use super::raw;
use crate::context::Context;
use crate::crypto::seal::BLOCK;
use crate::format::reference::{PackRef, Ref};
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

impl Vfs {
    /// Returns the ranges of packs that an advice asks for, each at most 1 MiB; none if its reader has moved elsewhere.
    pub fn plan(&self, advice: &Ahead, mode: Mode) -> Result<Vec<PackRange>, Fault> {
        let runs = match advice {
            Ahead::Pack(pack, range) => vec![PackRange { pack: *pack, range: range.clone() }],
            Ahead::File(ino, range) if self.wanted(advice) => self.file_ranges(*ino, range.clone(), mode)?,
            Ahead::File(..) | Ahead::Tree => Vec::new(),
        };
        Ok(runs.into_iter().flat_map(PackRange::aligned).collect())
    }

    /// Returns where the chunks of a range of a file are stored; neighbours in one pack become one range.
    fn file_ranges(&self, ino: u64, range: Range<u64>, mode: Mode) -> Result<Vec<PackRange>, Fault> {
        let file = self.layout(ino, mode)?;
        let mut runs: Vec<PackRange> = Vec::new();
        for segment in self.segments(&file, range, mode)? {
            let Segment::Chunk(r, part) = segment else { continue };
            let stored = stored_range(&r, &part);
            match runs.last_mut() {
                Some(run) if run.pack.id == r.pack.id && run.range.end == stored.start => run.range.end = stored.end,
                _ => runs.push(PackRange { pack: r.pack, range: stored }),
            }
        }
        Ok(runs)
    }

    /// Returns whether a reader is still about to reach the advised range.
    pub fn wanted(&self, advice: &Ahead) -> bool {
        match advice {
            Ahead::File(ino, range) => self.patterns.wanted(*ino, range),
            Ahead::Pack(..) | Ahead::Tree => true,
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

/// Returns the range of the pack that holds a part of a chunk: all of it, if it is compressed.
fn stored_range(r: &Ref, part: &Range<u32>) -> Range<u32> {
    if r.stored == r.len { r.offset + part.start..r.offset + part.end } else { r.offset..r.offset + r.stored }
}
