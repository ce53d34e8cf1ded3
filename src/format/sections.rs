//! The sections of a new record that make packs and chunks known.

use super::record::{NewSection, SectionKind};
use super::reference::PackRef;
use super::{index, limits};
use crate::crypto::seal::ObjectType;

/// Returns the sections for these packs and chunks: a packs section, which will have position `packs_at` in
/// [`super::record::Head::sections`], and index sections that refer to it. `rows` (see [`index::rows`]) may have any order.
/// Returns no section if there are no packs.
pub fn index_sections(packs: &[(PackRef, ObjectType)], rows: Vec<u8>, packs_at: u32) -> Vec<NewSection> {
    if packs.is_empty() {
        return Vec::new();
    }
    let table = NewSection { kind: SectionKind::Packs, bytes: index::encode_packs(packs), fences: Vec::new() };
    let mut sections = vec![table];
    let kind = SectionKind::Index { packs: packs_at };
    for layer in index::layers(rows) {
        if layer.len() <= limits::SECTION {
            sections.push(NewSection { kind, fences: index::fences(&layer), bytes: layer });
        } else {
            let parts = layer.chunks(limits::SECTION);
            sections.extend(parts.map(|part| NewSection { kind, fences: index::fences(part), bytes: part.to_vec() }));
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::{ChunkId, ChunkKind};
    use crate::format::index::{decode, decode_packs, renumber, rows};
    use crate::format::pack::Entry;
    use crate::name::ObjectId;

    fn entry(id: u8, pack: u32) -> (u32, Entry) {
        (pack, Entry { id: ChunkId([id; 16]), kind: ChunkKind::Data, offset: pack, stored: 1, len: 1 })
    }

    #[test]
    fn sections_hold_every_place_of_a_chunk_once() {
        let packs: Vec<_> =
            (0..3).map(|n| (PackRef { id: ObjectId([n; 32]), len: 1 << 20 }, ObjectType::Data)).collect();
        let unsorted = [entry(9, 0), entry(1, 2), entry(9, 1), entry(9, 0), entry(4, 0), entry(9, 2)];
        let made = index_sections(&packs, rows(&unsorted), 5);
        assert!(made[0].kind == SectionKind::Packs && decode_packs(&made[0].bytes).unwrap() == packs);
        assert!(made[1..].iter().all(|s| s.kind == SectionKind::Index { packs: 5 }));
        let read = |s: &NewSection| s.bytes.as_chunks().0.iter().map(|row| decode(row).unwrap()).collect::<Vec<_>>();
        let layers: Vec<_> = made[1..].iter().map(read).collect();
        assert_eq!(layers, [vec![entry(1, 2), entry(4, 0), entry(9, 0)], vec![entry(9, 1)], vec![entry(9, 2)]]);
        assert_eq!(made[1].fences, [0x0101_0101_0101_0101]);
        assert!(index_sections(&[], Vec::new(), 0).is_empty());
        let mut row = *rows(&[entry(9, 0)]).first_chunk().unwrap();
        renumber(&mut row, 7);
        assert_eq!(decode(&row).unwrap().0, 7);
    }
}
