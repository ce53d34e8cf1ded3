//! Packs: many chunks in one object of constant size.
//!
//! ```text
//! plaintext = chunk || chunk || .. || zero padding || table || be32(entries)
//! entry     = chunk id (16) || be32(offset) || be32(stored length) || be32(kind << 24 | length)       (28 bytes)
//! ```

use sha2::{Digest, Sha256};

use super::codec::{Reader, malformed, padded};
use super::limits;
use super::reference::{PackRef, Ref};
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::sealed_len;
use crate::error::Result;
use crate::name::ObjectId;

const ENTRY: usize = 28;

/// A chunk in a pack: one row of the pack's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The chunk's id.
    pub id: ChunkId,
    /// The type of the chunk.
    pub kind: ChunkKind,
    /// Offset in the pack's plaintext.
    pub offset: u32,
    /// Length of the stored form.
    pub stored: u32,
    /// Length of the plaintext.
    pub len: u32,
}

impl Entry {
    /// Returns the reference to this chunk in `pack`.
    pub fn in_pack(&self, pack: PackRef) -> Ref {
        Ref { id: self.id, pack, offset: self.offset, stored: self.stored, len: self.len }
    }
}

/// An open pack, to which chunks are added.
pub struct Builder {
    plain: Vec<u8>,
    entries: Vec<Entry>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new(Vec::with_capacity(sealed_len(limits::PACK as u64) as usize))
    }
}

impl Builder {
    /// Starts a pack in this buffer. Clears the buffer first.
    pub fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Builder { plain: buffer, entries: Vec::new() }
    }

    /// Returns the largest stored form that still fits.
    pub fn room(&self) -> usize {
        (limits::PACK - 4).saturating_sub(self.plain.len() + ENTRY * (self.entries.len() + 1))
    }

    /// Returns whether the pack has no chunk.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends a chunk in its stored form and returns its row. Panics if it does not fit ([`Builder::room`]).
    pub fn add(&mut self, id: ChunkId, kind: ChunkKind, stored: &[u8], len: usize) -> Entry {
        assert!(stored.len() <= self.room() && len <= limits::CHUNK, "the caller asks for room first");
        let entry = Entry { id, kind, offset: self.plain.len() as u32, stored: stored.len() as u32, len: len as u32 };
        self.plain.extend_from_slice(stored);
        self.entries.push(entry);
        entry
    }

    /// Returns the stored form of a chunk of this pack; `None` if the reference points elsewhere.
    pub fn chunk(&self, r: &Ref) -> Option<&[u8]> {
        self.plain.get(r.offset as usize..r.offset as usize + r.stored as usize)
    }

    /// Returns the chunks of this pack in their stored forms.
    pub fn chunks(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.entries.iter().map(|e| (e, &self.plain[e.offset as usize..][..e.stored as usize]))
    }

    /// Returns the pack's plaintext and its rows. Pads to the full size if `full`, else to the next size class.
    pub fn finish(mut self, full: bool) -> (Vec<u8>, Vec<Entry>) {
        let table = ENTRY * self.entries.len() + 4;
        let used = self.plain.len() + table;
        let size = if full { limits::PACK } else { padded(used, limits::PACK_FLOOR) };
        self.plain.resize(size - table, 0);
        for e in &self.entries {
            let form = (e.kind as u32) << 24 | e.len;
            self.plain.extend_from_slice(&e.id.0);
            [e.offset, e.stored, form].iter().for_each(|n| self.plain.extend_from_slice(&n.to_be_bytes()));
        }
        self.plain.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
        (self.plain, self.entries)
    }
}

/// Returns the bytes of the files of as few packs as can hold this many chunks, with this many bytes of stored forms.
pub fn file_bytes(chunks: u64, stored: u64) -> u64 {
    let (used, full) = (stored.saturating_add(chunks.saturating_mul(ENTRY as u64)), limits::PACK as u64 - 4);
    let last = match (used % full) as usize {
        0 => 0,
        rest => sealed_len(padded(rest + 4, limits::PACK_FLOOR) as u64),
    };
    used / full * sealed_len(limits::PACK as u64) + last
}

/// Returns the SHA-256 of the rest of a pack: its bytes without raw chunks and padding, which the rows determine, see
/// [`crate::crypto::seal`].
pub fn rest(plain: &[u8], entries: &[Entry]) -> [u8; 32] {
    let table = &plain[plain.len() - 4 - ENTRY * entries.len()..];
    let compressed = entries.iter().filter(|e| e.stored != e.len);
    let compressed = compressed.map(|e| &plain[e.offset as usize..][..e.stored as usize]);
    compressed.chain([table]).fold(Sha256::new(), Sha256::chain_update).finalize().into()
}

/// Reads the length of the table, with its count, from the last four bytes of a pack of `len` bytes of plaintext.
pub fn table_len(len: u32, last: [u8; 4]) -> Result<usize> {
    let size = u64::from(u32::from_be_bytes(last)) * ENTRY as u64 + 4;
    let fits = size <= u64::from(len) && len as usize <= limits::PACK_READ;
    fits.then_some(size as usize).ok_or_else(|| malformed("the table of a pack", "longer than the pack"))
}

/// Decodes the rows of a pack from its last [`table_len`] bytes. Refuses rows that are out of order or overlap.
pub fn decode_table(id: ObjectId, len: u32, table: &[u8]) -> Result<Vec<Entry>> {
    let wrong = || malformed(&format!("the table of pack {id}"), "out of bounds");
    let end_of_chunks = (len as usize).checked_sub(table.len()).ok_or_else(wrong)?;
    let rows = table.len().checked_sub(4).ok_or_else(wrong)?;
    let mut reader = Reader(table);
    let mut entries: Vec<Entry> = Vec::with_capacity(rows / ENTRY);
    for _ in 0..rows / ENTRY {
        let id = ChunkId(reader.array().ok_or_else(wrong)?);
        let [offset, stored, form] = [(); 3].map(|()| reader.u32().unwrap_or(u32::MAX));
        let kind = ChunkKind::from_number((form >> 24) as u8).ok_or_else(wrong)?;
        let entry = Entry { id, kind, offset, stored, len: form & 0xff_ffff };
        entry.in_pack(PackRef { id: ObjectId([0; 32]), len }).check()?;
        let previous_end = entries.last().map_or(0, |e| e.offset + e.stored);
        if offset < previous_end || (offset + stored) as usize > end_of_chunks {
            return Err(wrong());
        }
        entries.push(entry);
    }
    if reader.u32() == Some(entries.len() as u32) && reader.0.is_empty() { Ok(entries) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_file_is_known_before_the_pack_is_built() {
        for lens in [&[1][..], &[100_000; 3], &[65_508, 1], &[262_000; 5], &[limits::CHUNK; 2], &[1000; 3000]] {
            let mut pack = Builder::default();
            for (i, len) in lens.iter().enumerate() {
                pack.add(ChunkId([i as u8; 16]), ChunkKind::Data, &vec![0; *len], *len);
            }
            let (plain, entries) = pack.finish(false);
            let stored = lens.iter().map(|len| *len as u64).sum();
            assert_eq!(file_bytes(entries.len() as u64, stored), sealed_len(plain.len() as u64), "{lens:?}");
        }
    }
}
