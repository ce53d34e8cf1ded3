//! Ancestry sections: the first eight bytes of the ids of all records that were merged into one.

use std::collections::BTreeSet;

use super::limits;
use super::record::{NewSection, SectionKind};
use crate::name::ObjectId;

/// Returns the part of an id that an ancestry holds.
pub fn prefix(id: &ObjectId) -> u64 {
    u64::from_be_bytes(*id.0.first_chunk().expect("32 bytes"))
}

/// Encodes these prefixes in sections of at most [`limits::SECTION`] bytes.
pub fn sections(prefixes: &BTreeSet<u64>) -> Vec<NewSection> {
    let bytes: Vec<u8> = prefixes.iter().flat_map(|prefix| prefix.to_be_bytes()).collect();
    let parts = bytes.chunks(limits::SECTION);
    parts.map(|part| NewSection { kind: SectionKind::Ancestry, bytes: part.to_vec(), fences: Vec::new() }).collect()
}

/// Decodes the prefixes in a section.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks::<8>().0.iter().map(|prefix| u64::from_be_bytes(*prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_back_sorted() {
        let ids = [9, 0, 255, 17].map(|n| ObjectId([n; 32]));
        let prefixes: BTreeSet<u64> = ids.iter().map(prefix).collect();
        let [section] = &sections(&prefixes)[..] else { panic!("one section") };
        assert_eq!((section.kind, section.bytes.len()), (SectionKind::Ancestry, 32));
        assert!(decode(&section.bytes).eq([0, 0x0909_0909_0909_0909, 0x1111_1111_1111_1111, u64::MAX]));
        assert!(sections(&BTreeSet::new()).is_empty());
    }
}
