//! Index sections of records: the places of chunks, sorted by chunk id, searchable with one ranged read.
//!
//! ```text
//! entry = chunk id (16) || be32(pack number) || be32(offset) || be32(stored length) || be32(kind << 24 | length)
//! packs = object id (32) || be32(plaintext length) || be32(object type)                    (40 bytes per pack)
//! ```

use super::codec::{Reader, malformed};
use super::limits;
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

/// Position of the pack number in an entry, behind the chunk id.
const NUMBER: std::ops::Range<usize> = 16..20;

/// Encodes an index section and its fences (the first eight bytes of the first id of each 64 KiB). `entries` are sorted
/// by id; the number is the pack's row in the packs section.
pub fn encode(entries: &[(u32, Entry)]) -> (Vec<u8>, Vec<u64>) {
    let bytes = rows(entries);
    let fences = fences(&bytes);
    (bytes, fences)
}

/// Encodes entries of an index section, in the given order.
pub fn rows(entries: &[(u32, Entry)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for (pack, e) in entries {
        bytes.extend_from_slice(&e.id.0);
        for n in [*pack, e.offset, e.stored, (e.kind as u32) << 24 | e.len] {
            bytes.extend_from_slice(&n.to_be_bytes());
        }
    }
    bytes
}

/// Replaces the pack number of an encoded entry.
pub fn renumber(row: &mut [u8; ENTRY], number: u32) {
    row[NUMBER].copy_from_slice(&number.to_be_bytes());
}

/// Sorts entries and removes duplicates. A chunk in several packs keeps all its places, since another client may have
/// condemned one of the packs. Ids in a section ascend strictly, so the second place of a chunk goes to a second layer,
/// the third to a third.
pub(super) fn layers(mut rows: Vec<u8>) -> Vec<Vec<u8>> {
    let mut layers = Vec::new();
    while !rows.is_empty() {
        rows.as_chunks_mut::<ENTRY>().0.sort_unstable();
        let (mut kept, mut later) = (0, Vec::new());
        let mut last = [0; NUMBER.end];
        for from in (0..rows.len()).step_by(ENTRY) {
            let row: [u8; ENTRY] = *rows[from..].first_chunk().expect("whole entries");
            if kept > 0 && row[..NUMBER.end] == last {
                continue;
            }
            last.copy_from_slice(&row[..NUMBER.end]);
            if kept > 0 && rows[kept - ENTRY..kept - ENTRY + NUMBER.start] == row[..NUMBER.start] {
                later.extend_from_slice(&row);
            } else {
                rows[kept..kept + ENTRY].copy_from_slice(&row);
                kept += ENTRY;
            }
        }
        rows.truncate(kept);
        layers.push(std::mem::replace(&mut rows, later));
    }
    layers
}

/// Returns the fences of encoded entries.
pub(super) fn fences(rows: &[u8]) -> Vec<u64> {
    let first = |block: &[u8]| fence(&ChunkId(*block.first_chunk().expect("whole entries")));
    rows.chunks(FENCED).map(first).collect()
}

/// Returns the part of an id that fences hold.
pub fn fence(id: &ChunkId) -> u64 {
    u64::from_be_bytes(*id.0.first_chunk().expect("16 bytes"))
}

/// Returns the range `from..to` of a section of `len` bytes that holds `id` if any does; `None` if none does.
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

/// Decodes an entry: the pack's number and the chunk.
pub fn decode(row: &[u8; ENTRY]) -> Result<(u32, Entry)> {
    let wrong = || malformed("an index entry", "out of bounds");
    let mut reader = Reader(row);
    let id = ChunkId(reader.array().ok_or_else(wrong)?);
    let [pack, offset, stored, form] = [(); 4].map(|()| reader.u32().unwrap_or(u32::MAX));
    let kind = ChunkKind::from_number((form >> 24) as u8).ok_or_else(wrong)?;
    Ok((pack, Entry { id, kind, offset, stored, len: form & 0xff_ffff }))
}

/// Encodes a packs section.
pub fn encode_packs(packs: &[(PackRef, ObjectType)]) -> Vec<u8> {
    let row = |(pack, kind): &(PackRef, ObjectType)| {
        [pack.id.0.as_slice(), &pack.len.to_be_bytes(), &(*kind as u32).to_be_bytes()].concat()
    };
    packs.iter().flat_map(row).collect()
}

/// Inverts [`encode_packs`], for whole rows.
pub fn decode_packs(bytes: &[u8]) -> Result<Vec<(PackRef, ObjectType)>> {
    let wrong = || malformed("a packs section", "out of bounds");
    let (rows, rest) = bytes.as_chunks::<PACK_ROW>();
    let one = |row: &[u8; PACK_ROW]| {
        let mut reader = Reader(row);
        let id = ObjectId(reader.array().ok_or_else(wrong)?);
        let len = reader.u32().filter(|len| *len as usize <= limits::PACK_READ).ok_or_else(wrong)?;
        let kind = match reader.u32() {
            Some(2) => ObjectType::Data,
            Some(3) => ObjectType::Meta,
            _ => return Err(wrong()),
        };
        Ok((PackRef { id, len }, kind))
    };
    if rest.is_empty() { rows.iter().map(one).collect() } else { Err(wrong()) }
}
