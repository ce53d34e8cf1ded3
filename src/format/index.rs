//! Index sections of records: where chunks are, sorted by id, searchable with one ranged read.
//!
//! ```text
//! entry = chunk id (16) || be32(pack number) || be32(offset) || be32(stored length) || be32(kind << 24 | length)
//! packs = object id (32) || be32(plaintext length) || be32(object type)                    (40 bytes a pack)
//! ```

use super::codec::{Reader, malformed};
use super::pack::Entry;
use super::reference::PackRef;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::ObjectType;
use crate::error::Result;
use crate::name::ObjectId;

/// Bytes of an entry.
pub const ENTRY: usize = 32;
/// Bytes between two fences: one sealed block, 2,048 entries.
pub const FENCED: usize = crate::crypto::seal::BLOCK;
/// Bytes of a row of the packs section.
pub const PACK_ROW: usize = 40;

/// The bytes of an index section and its fence keys (the first eight bytes of the first id of each 64 KiB). `entries`
/// are sorted by id; the number is the pack's row in the packs section.
pub fn encode(entries: &[(u32, Entry)]) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for (pack, e) in entries {
        bytes.extend_from_slice(&e.id.0);
        [*pack, e.offset, e.stored, (e.kind as u32) << 24 | e.len]
            .iter()
            .for_each(|n| bytes.extend_from_slice(&n.to_be_bytes()));
    }
    let fences = entries.iter().step_by(FENCED / ENTRY).map(|(_, e)| fence(&e.id)).collect();
    (bytes, fences)
}

/// The part of an id that fences hold.
pub fn fence(id: &ChunkId) -> u64 {
    u64::from_be_bytes(*id.0.first_chunk().expect("16 bytes"))
}

/// The bytes `from..to` of a section of `len` bytes in which `id` must be if it is there at all; `None` if it is not.
pub fn place(fences: &[u64], len: usize, id: &ChunkId) -> Option<(usize, usize)> {
    let key = fence(id);
    let from = fences.partition_point(|f| *f < key).saturating_sub(1);
    let to = fences.partition_point(|f| *f <= key);
    (to > 0).then(|| (from * FENCED, len.min(to * FENCED)))
}

/// Looks `id` up in whole entries.
pub fn find(entries: &[u8], id: &ChunkId) -> Result<Option<(u32, Entry)>> {
    let (rows, _) = entries.as_chunks::<ENTRY>();
    match rows.binary_search_by(|row| row[..16].cmp(&id.0)) {
        Ok(i) => decode(&rows[i]).map(Some),
        Err(_) => Ok(None),
    }
}

/// One entry: the pack's number and the chunk.
pub fn decode(row: &[u8; ENTRY]) -> Result<(u32, Entry)> {
    let wrong = || malformed("an index entry", "out of bounds");
    let mut reader = Reader(row);
    let id = ChunkId(reader.array().ok_or_else(wrong)?);
    let [pack, offset, stored, form] = [(); 4].map(|()| reader.u32().unwrap_or(u32::MAX));
    let kind = ChunkKind::from_number((form >> 24) as u8).ok_or_else(wrong)?;
    Ok((pack, Entry { id, kind, offset, stored, len: form & 0xff_ffff }))
}

/// The bytes of a packs section.
pub fn encode_packs(packs: &[(PackRef, ObjectType)]) -> Vec<u8> {
    let row = |(pack, kind): &(PackRef, ObjectType)| {
        [pack.id.0.as_slice(), &pack.len.to_be_bytes(), &(*kind as u32).to_be_bytes()].concat()
    };
    packs.iter().flat_map(row).collect()
}

/// The inverse of [`encode_packs`], for whole rows.
pub fn decode_packs(bytes: &[u8]) -> Result<Vec<(PackRef, ObjectType)>> {
    let wrong = || malformed("a packs section", "out of bounds");
    let (rows, rest) = bytes.as_chunks::<PACK_ROW>();
    let one = |row: &[u8; PACK_ROW]| {
        let mut reader = Reader(row);
        let id = ObjectId(reader.array().ok_or_else(wrong)?);
        let len = reader.u32().filter(|len| *len as usize <= super::limits::PACK_READ).ok_or_else(wrong)?;
        let kind = match reader.u32() {
            Some(2) => ObjectType::Data,
            Some(3) => ObjectType::Meta,
            _ => return Err(wrong()),
        };
        Ok((PackRef { id, len }, kind))
    };
    if rest.is_empty() { rows.iter().map(one).collect() } else { Err(wrong()) }
}
