//! The stored form of a chunk in its pack: raw, or independent zstd frames of 256 KiB of plaintext. Both can be read in
//! part.
//!
//! ```text
//! n      = ceil(len / 256 KiB)
//! stored = be32(length of frame 0) .. be32(length of frame n-2) || frame_0 || .. || frame_n-1     (if stored < len)
//! stored = the plaintext                                                                       (if stored == len)
//! ```
//!
//! A frame of the length of its plaintext is the plaintext itself. A longer frame, and more than one zstd frame, are
//! refused.

use std::ops::Range;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use super::codec::{Reader, malformed};
use super::limits::FRAME;
use super::reference::Ref;
use crate::error::{Error, Result};

/// Bytes of a chunk that are compressed as a test before the rest.
const PROBE: usize = 32 << 10;

/// Compresses chunks. Each thread has one, with zstd's working memory (a few MiB).
pub struct Packer(Option<Compressor<'static>>);

impl Packer {
    /// Creates a compressor of a zstd level, 1 to 22; level 0 stores all chunks raw.
    pub fn new(level: i32) -> Result<Self> {
        let new = (level > 0).then(|| Compressor::new(level)).transpose();
        new.map(Packer).map_err(|e| Error::io("set up compression", e))
    }

    /// Returns the stored form of a chunk; `None` if the chunk is stored raw.
    pub fn pack(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let compressor = self.0.as_mut()?;
        if plain.len() > 2 * PROBE {
            let middle = plain.len() / 2;
            let shrinks =
                |c: &mut Compressor<'_>, part: &[u8]| c.compress(part).is_ok_and(|z| z.len() < part.len() / 64 * 62);
            if !shrinks(compressor, &plain[..PROBE]) && !shrinks(compressor, &plain[middle..middle + PROBE]) {
                return None;
            }
        }
        let count = plain.len().div_ceil(FRAME);
        let mut out = vec![0; 4 * count.saturating_sub(1)];
        for (i, part) in plain.chunks(FRAME).enumerate() {
            let frame = compressor.compress(part).ok().filter(|z| z.len() < part.len());
            let frame = frame.as_deref().unwrap_or(part);
            if let Some(length) = out[..4 * (count - 1)].get_mut(4 * i..4 * i + 4) {
                length.copy_from_slice(&(frame.len() as u32).to_be_bytes());
            }
            out.extend_from_slice(frame);
        }
        (out.len() < plain.len()).then_some(out)
    }
}

// Creating a decompressor takes longer than unpacking a page.
thread_local!(static DECOMPRESSOR: std::cell::RefCell<Decompressor<'static>> = Default::default());

/// Returns the length of the table in front of the frames of a chunk; 0 for a raw chunk or a single frame.
pub fn table_len(r: &Ref) -> usize {
    if r.stored == r.len { 0 } else { 4 * ((r.len as usize).div_ceil(FRAME) - 1) }
}

/// Returns the ranges of the frames of a compressed chunk, relative to the chunk's offset in its pack. `table` holds
/// the chunk's first [`table_len`] bytes.
pub fn frames(r: &Ref, table: &[u8]) -> Result<Vec<Range<usize>>> {
    let wrong = || malformed("a compressed chunk", "its table of frames");
    let count = (r.len as usize).div_ceil(FRAME);
    let mut table = Reader(table);
    let mut start = 4 * (count - 1);
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count - 1 {
        let end = start + table.u32().ok_or_else(wrong)? as usize;
        frames.push(start..end);
        start = end;
    }
    frames.push(start..r.stored as usize);
    let fits = |f: &Range<usize>| f.start < f.end && f.end <= r.stored as usize && f.len() <= FRAME;
    if frames.iter().all(fits) && table.0.is_empty() { Ok(frames) } else { Err(wrong()) }
}

/// Returns the plaintext of frame `i` of a compressed chunk. Never allocates more than [`FRAME`].
pub fn unpack_frame(r: &Ref, i: usize, frame: &[u8]) -> Result<Vec<u8>> {
    let wrong = || malformed("a compressed chunk", "a frame does not expand to its length");
    let len = (r.len as usize).checked_sub(i * FRAME).ok_or_else(wrong)?.min(FRAME);
    if frame.len() == len {
        return Ok(frame.to_vec());
    }
    let mut plain = vec![0; len];
    // Refuse a second frame: zstd would decode it too, other decoders would not.
    let single = zstd_safe::find_frame_compressed_size(frame).is_ok_and(|size| size == frame.len());
    let written =
        DECOMPRESSOR.with_borrow_mut(|d| d.decompress_to_buffer(frame, &mut plain[..])).map_err(|_| wrong())?;
    if single && frame.len() < len && written == len { Ok(plain) } else { Err(wrong()) }
}

/// Returns the plaintext of a whole chunk. The caller verifies the id.
pub fn unpack(r: &Ref, stored: Vec<u8>) -> Result<Vec<u8>> {
    let table = stored.get(..table_len(r)).filter(|_| stored.len() == r.stored as usize);
    let table = table.ok_or_else(|| malformed("a chunk", "its length differs from the length in its reference"))?;
    if r.stored == r.len {
        return Ok(stored);
    }
    let mut plain = Vec::with_capacity(r.len as usize);
    for (i, place) in frames(r, table)?.into_iter().enumerate() {
        plain.extend_from_slice(&unpack_frame(r, i, &stored[place])?);
    }
    Ok(plain)
}
