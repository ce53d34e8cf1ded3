//! A sliding window over the bytes of a file or stream, from which chunks are cut.

use std::ops::Range;

use crate::crypto::chunker::{self, ChunkerKey};

/// Bytes in memory: the chunker needs [`chunker::MAX`] of them, and the rest is moved to the front when fewer are left.
const BYTES: usize = 2 * chunker::MAX;

/// The window. Its buffer is used for one file after the other.
#[derive(Default)]
pub struct Window {
    buffer: Vec<u8>,
    capacity: usize,
    /// The bytes that were read and not cut off.
    filled: Range<usize>,
}

/// A chunk, and the number of bytes behind it in the window.
pub struct Cut<'a> {
    /// The contents of the chunk.
    pub plain: &'a [u8],
    /// Bytes behind it in the window.
    pub rest: usize,
}

impl Window {
    /// Empties the window. `bytes`: length of the file if it is known.
    pub fn start(&mut self, bytes: Option<u64>) {
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(BYTES);
        self.capacity = bytes.min(BYTES);
        self.buffer.resize(self.buffer.len().max(self.capacity), 0);
        self.filled = 0..0;
    }

    /// Returns whether the file can have more than one chunk.
    pub fn has_several_chunks(&self) -> bool {
        self.capacity > chunker::MAX
    }

    /// Returns the free part of the window, to read into.
    pub fn free(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled.end..self.capacity]
    }

    /// Notes that `bytes` were read into the free part.
    pub fn fill(&mut self, bytes: usize) {
        self.filled.end += bytes;
    }

    /// Cuts off the next chunk, if enough bytes are there or if no further bytes come.
    pub fn cut(&mut self, key: &ChunkerKey, is_end: bool) -> Option<Cut<'_>> {
        let Range { start, end } = self.filled;
        if end - start < chunker::MAX && (!is_end || end == start) {
            return None;
        }
        let len = key.cut(&self.buffer[start..end]);
        self.filled.start += len;
        Some(Cut { plain: &self.buffer[start..start + len], rest: end - start - len })
    }

    /// Drops all bytes.
    pub fn discard(&mut self) {
        self.filled = 0..0;
    }

    /// Moves the rest to the front.
    pub fn slide(&mut self) {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
    }
}
