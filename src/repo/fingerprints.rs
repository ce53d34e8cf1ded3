//! Fingerprints of an index section: a tenth of its size, enough to exclude most chunks that are not in the section and
//! to locate the others.
//!
//! Ids are PRF outputs and entries are sorted by them, so the first eight bytes of every 32nd id and three bytes of each
//! id that are independent of the order suffice: 3.25 bytes per chunk, and one false match in about 500,000 look-ups of
//! ids that are not in the section, however the first bytes are distributed.

use crate::crypto::keys::ChunkId;
use crate::format::index::{ENTRY, fence};

/// Entries between two fences.
const GROUP: usize = 32;
/// Bytes of an id that are kept, from [`FROM`] on, which follow the bytes in the fences.
const TAG: usize = 3;
const FROM: usize = 8;

/// The fingerprints of one section.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    fences: Vec<u64>,
    tags: Vec<u8>,
}

impl Fingerprints {
    /// Returns the size in bytes of the fingerprints of a section of `len` bytes.
    pub fn size(len: usize) -> usize {
        let entries = len / ENTRY;
        entries * TAG + entries.div_ceil(GROUP) * size_of::<u64>()
    }

    /// Reserves memory for a section of `len` bytes.
    pub fn with_room(len: usize) -> Self {
        let entries = len / ENTRY;
        Fingerprints { fences: Vec::with_capacity(entries.div_ceil(GROUP)), tags: Vec::with_capacity(entries * TAG) }
    }

    /// Adds the next whole entries of the section.
    pub fn add(&mut self, entries: &[u8]) {
        for row in entries.as_chunks::<ENTRY>().0 {
            if self.tags.len().is_multiple_of(GROUP * TAG) {
                self.fences.push(fence(&ChunkId(*row.first_chunk().expect("an entry begins with 16 bytes"))));
            }
            self.tags.extend_from_slice(&row[FROM..FROM + TAG]);
        }
    }

    /// Returns the numbers of the entries that may have this id.
    pub fn find(&self, id: &ChunkId) -> impl Iterator<Item = usize> + '_ {
        let key = fence(id);
        let from = self.fences.partition_point(|f| *f < key).saturating_sub(1) * GROUP;
        let to = self.fences.partition_point(|f| *f <= key) * GROUP;
        let tag: [u8; TAG] = *id.0[FROM..].first_chunk().expect("16 bytes");
        let (rows, _) = self.tags.as_chunks::<TAG>();
        let rows = rows.get(from..to.min(rows.len())).unwrap_or_default();
        (from..).zip(rows).filter(move |(_, row)| **row == tag).map(|(i, _)| i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: u64, rest: u64) -> ChunkId {
        ChunkId([first.to_be_bytes(), rest.to_be_bytes()].concat().try_into().unwrap())
    }

    #[test]
    fn every_entry_is_found_where_it_is_and_hardly_any_other() {
        // Long runs of equal first bytes, as no PRF makes them, beside well distributed ones.
        let mut ids: Vec<_> = (0..5000_u64).map(|i| id(i / 100, i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        ids.extend(
            (0..5000_u64).map(|i| id(i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i.wrapping_mul(0xc2b2_ae3d_27d4_eb4f))),
        );
        ids.sort();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| [id.0, [0; 16]].concat()).collect();
        let mut all = Fingerprints::with_room(bytes.len());
        bytes.chunks(ENTRY * 777).for_each(|part| all.add(part));
        assert_eq!(all.fences.len() * 8 + all.tags.len(), Fingerprints::size(bytes.len()));
        for (i, id) in ids.iter().enumerate() {
            assert!(all.find(id).any(|found| found == i), "{i}");
        }
        let strangers =
            (0..10_000_u64).map(|i| id(i.wrapping_mul(0xff51_afd7_ed55_8ccd), i.wrapping_mul(0xc4ce_b9fe_1a85_ec53)));
        let wrong = strangers.filter(|id| all.find(id).next().is_some()).count();
        assert!(wrong < 5, "{wrong}");
        assert_eq!(Fingerprints::default().find(&ids[0]).count(), 0);
    }
}
