//! The index answers like a model with any memory allowance, and stays within the allowance.

use std::collections::BTreeMap;
use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::crypto::keys::{ChunkId, ChunkKind};
use nfreezer::crypto::seal::{ObjectType, plain_len};
use nfreezer::format::index;
use nfreezer::format::pack::Entry;
use nfreezer::format::record::{self, Head, NewSection, Section, SectionKind};
use nfreezer::format::reference::PackRef;
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::repo::{Index, Repository, State};
use nfreezer::storage::{Memory, Storage};

use crate::harness::repository;

fn reopen(memory: &Arc<Memory>) -> Repository {
    repository::open(memory.clone())
}

/// Returns an id that looks like the output of a PRF.
fn id(n: u64) -> ChunkId {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let (a, b) = (mix(n.wrapping_mul(2) + 1), mix(n.wrapping_mul(2) + 2));
    ChunkId([a.to_be_bytes(), b.to_be_bytes()].concat().try_into().unwrap())
}

fn pack(n: u64) -> PackRef {
    PackRef { id: ObjectId([id(n + (1 << 40)).0, id(n + (2 << 40)).0].concat().try_into().unwrap()), len: 16 << 20 }
}

/// Returns the sections of a record that lists chunks `from..to` in pack `from / 1000`.
fn sections(from: u64, to: u64) -> Vec<NewSection> {
    let entry = |n| Entry { id: id(n), kind: ChunkKind::Data, offset: (n % 1000) as u32 * 100, stored: 100, len: 100 };
    let mut entries: Vec<_> = (from..to).map(|n| (0, entry(n))).collect();
    entries.sort_by_key(|(_, e)| e.id);
    let packs = index::encode_packs(&[(pack(from / 1000), ObjectType::Data)]);
    let mut all = vec![NewSection { kind: SectionKind::Packs, bytes: packs, fences: Vec::new() }];
    all.extend(entries.chunks(1 << 20).map(|part| {
        let (bytes, fences) = index::encode(part);
        NewSection { kind: SectionKind::Index { packs: 0 }, bytes, fences }
    }));
    all
}

type Model = BTreeMap<ChunkId, (PackRef, u32)>;

fn add(repo: &Repository, state: &mut State, model: &mut Model, from: u64, to: u64) -> ObjectId {
    model.extend((from..to).map(|n| (id(n), (pack(from / 1000), (n % 1000) as u32 * 100))));
    repo.commit(background(), state, Head::default(), &sections(from, to)).unwrap()
}

fn assert_answers(repo: &Repository, index: &Index, model: &Model) {
    for (id, (pack, offset)) in model {
        let (kind, found) = index.find(background(), repo, id).unwrap().expect("it is there");
        assert_eq!((kind, found.pack, found.offset, found.len), (ChunkKind::Data, *pack, *offset, 100));
    }
    for n in 0..500 {
        assert_eq!(index.find(background(), repo, &id(n + (3 << 40))).unwrap(), None);
    }
}

#[test]
fn answers_are_those_of_the_model_whatever_may_be_held() {
    let (memory, repo) = repository::in_memory();
    let (mut state, mut model) = (repo.state(background()).unwrap(), Model::new());
    for (from, to) in [(0, 900), (1000, 1010), (100_000, 134_000), (200_000, 203_000)] {
        add(&repo, &mut state, &mut model, from, to);
    }
    let bytes = model.len() * index::ENTRY;
    for allowance in [0, 10_000, bytes / 9, bytes - 1, bytes] {
        let repo = reopen(&memory);
        let state = repo.state(background()).unwrap();
        let index = Index::new(&state).with_memory(allowance);
        assert_eq!(index.held(), 0, "nothing is read before the first question");
        assert_answers(&repo, &index, &model);
        assert!(index.held() <= allowance, "{} of {allowance}", index.held());
        assert!(allowance < bytes || index.held() == bytes);
    }
}

#[test]
fn what_is_new_costs_no_read_once_fingerprints_are_there_and_what_is_known_one() {
    let (memory, repo) = repository::in_memory();
    let (mut state, mut model) = (repo.state(background()).unwrap(), Model::new());
    add(&repo, &mut state, &mut model, 0, 80_000);
    let repo = reopen(&memory);
    repo.set_cache(1 << 20);
    let index = Index::new(&repo.state(background()).unwrap()).with_memory(80_000 * 4);
    (0..100).for_each(|n| assert_eq!(index.find(background(), &repo, &id(n + (3 << 40))).unwrap(), None));
    let before = repo.cache_stats();
    (100..10_000).for_each(|n| assert_eq!(index.find(background(), &repo, &id(n + (3 << 40))).unwrap(), None));
    assert_eq!(repo.cache_stats().reads, before.reads);
    for known in 0..100 {
        assert!(index.find(background(), &repo, &id(known)).unwrap().is_some());
    }
    let reads = repo.cache_stats().reads - before.reads;
    assert!(reads <= 102, "{reads} reads for 100 chunks and their pack");
    assert!(index.held() < 80_000 * 4);
}

#[test]
fn a_large_section_is_read_past_the_cache() {
    let (memory, repo) = repository::in_memory();
    let (mut state, mut model) = (repo.state(background()).unwrap(), Model::new());
    add(&repo, &mut state, &mut model, 0, 200_000);
    let repo = reopen(&memory);
    let state = repo.state(background()).unwrap();
    let misses = repo.cache_stats().misses;
    let index = Index::new(&state);
    (0..20).for_each(|n| assert_eq!(index.find(background(), &repo, &id(n + (3 << 40))).unwrap(), None));
    assert_eq!(index.held(), 200_000 * index::ENTRY);
    let bytes = repo.cache_stats().bytes;
    assert!(bytes < 20 << 20, "{bytes}: the section was not read twice");
    assert!(repo.cache_stats().misses - misses < 10, "and not into the cache");
}

/// Returns the sections of a record as a superseding record names them.
fn named_sections(repo: &Repository, state: &State, id: ObjectId, head: Head, new: &[NewSection]) -> Vec<Section> {
    let sequence = state.sequence(&id).unwrap();
    let size = repo.storage().size(background(), &Name::Record { sequence, id }).unwrap();
    let holder = (sequence, id, plain_len(size).unwrap());
    let plain = record::encode(Head { sequence, ..head }, new).unwrap();
    let end = record::head_end(plain[..4].try_into().unwrap()).unwrap();
    let sections = record::decode(sequence, &plain[..end]).unwrap().head.sections;
    sections.into_iter().map(|s| Section { record: Some(s.record.unwrap_or(holder)), ..s }).collect()
}

#[test]
fn what_was_just_committed_is_found_and_nothing_is_fetched_for_it() {
    let (_, repo) = repository::in_memory();
    let (mut state, mut model) = (repo.state(background()).unwrap(), Model::new());
    add(&repo, &mut state, &mut model, 0, 1000);
    for allowance in [0, 50_000, 90_000, usize::MAX] {
        let index = Index::new(&state).with_memory(allowance);
        assert_answers(&repo, &index, &model);
        let (mut state, mut model) = (state.clone(), model.clone());
        let mut last: Option<ObjectId> = None;
        let mut named = Vec::new();
        for round in 1..6 {
            let superseded = last.into_iter().collect();
            // Each record supersedes the one before and names its sections, as checkpoints of a long push do.
            let from = (round + 100 * (1 + allowance as u64 % 7)) * 1000;
            let head = Head { superseded, sections: named.clone(), ..Head::default() };
            let mut new = sections(from, from + 1000);
            let packs = head.sections.len() as u32;
            new[1].kind = SectionKind::Index { packs };
            let record = repo.commit(background(), &mut state, head.clone(), &new).unwrap();
            named = named_sections(&repo, &state, record, head, &new);
            model.extend((from..from + 1000).map(|n| (id(n), (pack(from / 1000), (n % 1000) as u32 * 100))));
            let before = repo.cache_stats();
            index.committed(&state, &record, new);
            assert_eq!(repo.cache_stats().reads, before.reads);
            last = Some(record);
            assert_answers(&repo, &index, &model);
            assert!(index.held() <= allowance);
        }
        assert_answers(&repo, &Index::new(&state), &model);
    }
}

#[test]
fn many_threads_ask_at_once() {
    let (memory, repo) = repository::in_memory();
    let (mut state, mut model) = (repo.state(background()).unwrap(), Model::new());
    for part in 0..5 {
        add(&repo, &mut state, &mut model, part * 100_000, part * 100_000 + 40_000);
    }
    for allowance in [0, 200_000 * 4, usize::MAX] {
        let repo = reopen(&memory);
        let index = Index::new(&state).with_memory(allowance);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (repo, index, model) = (&repo, &index, &model);
                scope.spawn(move || {
                    for (id, (pack, _)) in model.iter().skip(thread).step_by(13) {
                        assert_eq!(index.find(background(), repo, id).unwrap().unwrap().1.pack, *pack);
                    }
                });
            }
        });
        assert!(index.held() <= allowance);
    }
}

#[test]
fn damage_hides_a_chunk_and_no_other() {
    let (memory, repo) = repository::in_memory();
    let (mut state, mut model) = (repo.state(background()).unwrap(), Model::new());
    add(&repo, &mut state, &mut model, 0, 60_000);
    let name = memory.list(background(), Folder::Log).unwrap()[0].name;
    let mut bytes = memory.get(&name).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    memory.overwrite(&name, bytes);
    let repo = reopen(&memory);
    let index = Index::new(&repo.state(background()).unwrap());
    let (mut well, mut hidden) = (0, 0);
    for id in model.keys() {
        match index.find(background(), &repo, id) {
            Ok(found) => well += usize::from(found.is_some()),
            Err(e) => {
                assert_eq!(e.kind(), nfreezer::error::Kind::Damaged);
                hidden += 1;
            }
        }
    }
    // A search for the first id of a block also reads the block before it (docs/format.md, 10.5).
    assert_eq!((well + hidden, hidden), (60_000, 2049));
    memory.remove(background(), &name).unwrap();
    let repo = reopen(&memory);
    let gone = Index::new(&state);
    for n in 0..10 {
        assert_eq!(gone.find(background(), &repo, &id(n)).unwrap_err().kind(), nfreezer::error::Kind::Missing);
    }
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
#[ignore = "writes 330 MB; prints memory and speed with 10,000,000 chunks"]
fn ten_million_chunks() {
    const PART: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let storage = || Arc::new(nfreezer::storage::Local::new(folder.path())) as Arc<dyn Storage>;
    {
        let repo = repository::init(storage());
        let mut state = repo.state(background()).unwrap();
        for part in 0..10 {
            repo.commit(background(), &mut state, Head::default(), &sections(part * PART, (part + 1) * PART)).unwrap();
        }
    }
    for allowance in [80 << 20, 16 << 20] {
        let repo = repository::open(storage());
        repo.set_cache(16 << 20);
        let state = repo.state(background()).unwrap();
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status("VmHWM");
        let index = Index::new(&state).with_memory(allowance);
        let begun = std::time::Instant::now();
        (0..100).for_each(|n| assert_eq!(index.find(background(), &repo, &id(n + (3 << 40))).unwrap(), None));
        println!(
            "allowance {} MiB: {:.1} s to the first 100 answers, {} MiB held, peak {} MiB over {before} before",
            allowance >> 20,
            begun.elapsed().as_secs_f64(),
            index.held() >> 20,
            status("VmHWM") - before
        );
        for (what, from, count) in [("new", 3 << 40, 20_000), ("known", 0, 2_000)] {
            let (begun, reads) = (std::time::Instant::now(), repo.cache_stats().reads);
            (0..count).for_each(|n| {
                assert_eq!(index.find(background(), &repo, &id(from + 1000 + n * 4999)).unwrap().is_some(), from == 0)
            });
            let (rate, reads) = (count as f64 / begun.elapsed().as_secs_f64(), repo.cache_stats().reads - reads);
            println!("  {what}: {rate:.0} look-ups a second, {reads} reads for {count}");
        }
        println!("  peak {} MiB over {before}", status("VmHWM") - before);
    }
}
