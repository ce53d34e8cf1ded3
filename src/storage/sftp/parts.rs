//! A ranged read and a write, cut into requests whose size may change on the way.

use super::packet::{self, Malformed, Request};
use super::session::{Ask, SMALL};

/// A read: the requested ranges and the bytes received so far.
pub struct Parts {
    pub bytes: Vec<u8>,
    /// By tag: (place in `bytes`, length).
    pub asked: Vec<(usize, usize)>,
    again: Vec<(usize, usize)>,
    offset: u64,
    next: usize,
}

impl Parts {
    pub fn new(offset: u64, len: usize) -> Self {
        Parts { bytes: vec![0; len], asked: Vec::new(), again: Vec::new(), offset, next: 0 }
    }

    /// Returns the next READ, of at most `most` bytes; `None` if all is asked for.
    pub fn next(&mut self, handle: &[u8], most: usize) -> Option<Ask> {
        let (at, count) = self.again.pop().unwrap_or_else(|| {
            let part = (self.next, most.min(self.bytes.len() - self.next));
            self.next += part.1;
            part
        });
        if count == 0 {
            return None;
        }
        let tag = u32::try_from(self.asked.len()).unwrap_or(u32::MAX);
        self.asked.push((at, count));
        let request = Request::new(packet::READ).string(handle).u64(self.offset + at as u64);
        Some(Ask { tag, request: request.u32(u32::try_from(count).unwrap_or(u32::MAX)), expects: count + SMALL })
    }

    /// Takes an answer. Bytes missing from it are requested again.
    pub fn take(&mut self, tag: u32, data: &[u8]) -> Result<(), Malformed> {
        let (at, count) = *self.asked.get(tag as usize).ok_or(Malformed("an answer of a wrong type"))?;
        if data.is_empty() || data.len() > count {
            return Err(Malformed("data of a wrong length"));
        }
        self.bytes[at..at + data.len()].copy_from_slice(data);
        if data.len() < count {
            self.again.push((at + data.len(), count - data.len()));
        }
        Ok(())
    }
}

/// A write from the beginning of a file.
pub struct Writes<'a> {
    bytes: &'a [u8],
    at: usize,
    /// By tag: bytes of the packets so far.
    lengths: Vec<u64>,
    /// Bytes of the next packet.
    pub size: usize,
    /// Bytes that the server has acknowledged.
    pub acknowledged: u64,
}

impl<'a> Writes<'a> {
    pub fn new(bytes: &'a [u8], size: usize) -> Self {
        Writes { bytes, at: 0, lengths: Vec::new(), size: size.max(1), acknowledged: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Counts the packet with this tag as acknowledged. Returns its bytes; 0 for other requests.
    pub fn acknowledge(&mut self, tag: u32) -> u64 {
        let bytes = self.lengths.get(tag as usize).copied().unwrap_or(0);
        self.acknowledged += bytes;
        bytes
    }

    /// Returns the next WRITE; `None` if all is written.
    pub fn next(&mut self, handle: &[u8]) -> Option<Ask> {
        self.next_below(handle, self.bytes.len())
    }

    /// Returns the next WRITE of the bytes before `end`.
    pub fn next_below(&mut self, handle: &[u8], end: usize) -> Option<Ask> {
        let part = &self.bytes[self.at..end.min(self.at + self.size).max(self.at)];
        if part.is_empty() {
            return None;
        }
        let request = Request::with_room(packet::WRITE, part.len() + handle.len() + 20);
        let request = request.string(handle).u64(self.at as u64).string(part);
        let tag = self.lengths.len() as u32;
        self.at += part.len();
        self.lengths.push(part.len() as u64);
        Some(Ask { tag, request, expects: SMALL })
    }
}
