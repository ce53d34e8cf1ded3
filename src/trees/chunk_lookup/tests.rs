//! Tests of the lookup: chunks in packs that are damaged, missing, condemned or dropped.

use std::sync::Arc;

use super::*;
use crate::context::background;
use crate::crypto::seal::ObjectType;
use crate::format::index;
use crate::format::pack::Builder;
use crate::format::record::Head;
use crate::format::reference::PackRef;
use crate::format::sections::index_sections;
use crate::name::Name;
use crate::repo::Span;
use crate::storage::{Memory, Storage};
use crate::trees::sample_trees_for_tests::repository;

const CONTENT: &[u8] = b"the same contents in every pack";

/// Stores the chunk in a pack of its own and commits that.
fn store(repo: &Repository, state: &mut State) -> Ref {
    let mut builder = Builder::default();
    let id = repo.keys().chunk_id(ChunkKind::Data, CONTENT);
    let entry = builder.add(id, ChunkKind::Data, CONTENT, CONTENT.len());
    let (mut plain, _) = builder.finish(false);
    let pack = repo.put_pack(background(), ObjectType::Data, &mut plain).unwrap();
    let sections = index_sections(&[(pack, ObjectType::Data)], index::rows(&[(0, entry)]), 0);
    repo.commit(background(), state, Head::default(), &sections).unwrap();
    entry.in_pack(pack)
}

fn flip(memory: &Memory, pack: &PackRef) {
    let name = Name::Pack(pack.id);
    let mut bytes = memory.get(&name).unwrap();
    bytes[100] ^= 1;
    memory.overwrite(&name, bytes);
}

fn chunk(lookup: &Lookup, repo: &Repository, r: &Ref) -> Result<Vec<u8>> {
    repo.forget_blocks();
    let read = |r: &Ref| repo.chunk(background(), ChunkKind::Data, r, Span::Exact);
    lookup.read(background(), repo, ChunkKind::Data, r, read)
}

#[test]
fn every_row_is_tried_until_one_can_be_read() {
    let (memory, repo) = repository();
    let mut state = State::default();
    let places: Vec<Ref> = (0..4).map(|_| store(&repo, &mut state)).collect();
    for (damaged, place) in places.iter().enumerate() {
        let lookup = Lookup::default();
        assert_eq!(chunk(&lookup, &repo, &places[0]).unwrap(), CONTENT, "{damaged} places are damaged");
        if damaged % 2 == 0 {
            flip(&memory, &place.pack);
        } else {
            memory.remove(background(), &Name::Pack(place.pack.id)).unwrap();
        }
    }
    let lookup = Lookup::default();
    assert_eq!(chunk(&lookup, &repo, &places[0]).unwrap_err().kind(), Kind::Damaged);
    assert_eq!(chunk(&lookup, &repo, &places[1]).unwrap_err().kind(), Kind::Missing);
}

#[test]
fn a_place_that_a_newer_record_has_is_found_and_remembered() {
    let (memory, repo) = repository();
    let mut state = State::default();
    let old = store(&repo, &mut state);
    let lookup = Lookup::from_state(state.clone());
    memory.remove(background(), &Name::Pack(old.pack.id)).unwrap();
    let new = store(&repo, &mut state);
    assert_eq!(chunk(&lookup, &repo, &old).unwrap(), CONTENT, "the log is read again");
    let condemned = Head { condemned: vec![(new.pack.id, Default::default())], ..Head::default() };
    repo.commit(background(), &mut state, condemned, &[]).unwrap();
    assert_eq!(chunk(&lookup, &repo, &old).unwrap(), CONTENT);
    let other = Lookup::fixed(state.clone());
    assert_eq!(chunk(&other, &repo, &old).unwrap(), CONTENT, "a condemned pack is better than none");
    let dropped = Head { dropped: vec![new.pack.id], ..Head::default() };
    repo.commit(background(), &mut state, dropped, &[]).unwrap();
    let other = Lookup::fixed(state.clone());
    assert_eq!(chunk(&other, &repo, &old).unwrap(), CONTENT, "a dropped one is better than none while it is there");
    memory.remove(background(), &Name::Pack(new.pack.id)).unwrap();
    let other = Lookup::fixed(state);
    assert_eq!(chunk(&other, &repo, &old).unwrap_err().kind(), Kind::Missing);
}

#[test]
fn many_threads_read_the_log_once() {
    let (memory, repo) = repository();
    let mut state = State::default();
    let old = store(&repo, &mut state);
    store(&repo, &mut state);
    memory.remove(background(), &Name::Pack(old.pack.id)).unwrap();
    let lookup = Arc::new(Lookup::default());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(chunk(&lookup, &repo, &old).unwrap(), CONTENT));
        }
    });
}
