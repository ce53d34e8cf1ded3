//! A: objects that differ from the stored ones (T01 to T19).

use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::crypto::seal::{self, BLOCK, HEADER, ObjectType, Opener, TAG};
use nfreezer::error::Kind;
use nfreezer::format::reference::Ref;
use nfreezer::name::{Name, ObjectId};
use nfreezer::repo::{Repository, Span};
use nfreezer::storage::{Memory, Storage};

use crate::harness::Dice;
use crate::harness::tree::noise;
use crate::liar::liar;
use crate::oracle::case;
use crate::world::{Seen, World, init, look, open, told, world};

const SEALED: usize = BLOCK + TAG;

/// Reads everything after changing the bytes of this object.
fn with(world: &World, name: &Name, bytes: Vec<u8>) -> Seen {
    let memory = world.memory();
    memory.overwrite(name, bytes);
    look(world, memory).unwrap()
}

/// Returns objects of all types: each record, and the packs of the older snapshot's pages and contents.
fn sealed(world: &World) -> Vec<Name> {
    let (meta, data) = world.packs(0);
    [world.records(), vec![meta, data]].concat()
}

/// Checks that only the contents of the damaged object are lost, and that the loss is reported.
fn costs(world: &World, name: &Name, seen: &Seen) {
    let (meta, data) = world.packs(0);
    match name {
        Name::Record { sequence, id } => {
            assert_eq!(seen.snapshots.len(), 1, "{sequence}");
            assert!(seen.warnings.iter().any(|w| w.contains(&id.short())), "{:?}", seen.warnings);
            assert!(seen.lost.is_empty());
        }
        pack => {
            assert!([meta, data].contains(pack));
            assert_eq!(seen.snapshots.len(), 2);
            assert!(!seen.lost.is_empty(), "{pack}");
            assert!(seen.lost.keys().all(|(snapshot, _)| *snapshot == world.snapshots[0]));
            assert!(seen.kinds().iter().all(|kind| *kind == Kind::Damaged), "{:?}", seen.lost);
        }
    }
}

fn kind_of(name: &Name, world: &World) -> ObjectType {
    match name {
        Name::Record { .. } => ObjectType::Record,
        name if *name == world.packs(0).0 => ObjectType::Meta,
        _ => ObjectType::Data,
    }
}

fn id_of(name: &Name) -> ObjectId {
    match name {
        Name::Record { id, .. } | Name::Pack(id) => *id,
        _ => unreachable!(),
    }
}

#[test]
fn t01_every_bit_of_a_small_object() {
    case(|| {
        let world = world();
        let record = world.records()[0];
        let file = world.bytes(&record);
        assert!(file.len() < 10_000);
        for bit in 0..file.len() * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let opened = seal::open(world.repo.keys(), ObjectType::Record, id_of(&record), bad);
            assert_eq!(opened.unwrap_err().kind(), Kind::Damaged, "bit {bit}");
        }
        for name in sealed(world) {
            let file = world.bytes(&name);
            // Magic, id, commitment, the first block, the last tag.
            for at in [0, 9, 41, HEADER, file.len() - 1] {
                let mut bad = file.clone();
                bad[at] ^= 0x10;
                costs(world, &name, &with(world, &name, bad));
            }
        }
    });
}

#[test]
fn t01_a_full_pack_at_all_its_seams_and_at_random_places() {
    case(|| {
        let keys = world().repo.keys();
        let plain = noise(9, 16 << 20);
        let (id, file) = seal::seal(keys, ObjectType::Data, &[1; 32], &plain);
        let length = plain.len() as u64;
        for bit in 0..HEADER * 8 {
            let mut bad = file[..HEADER].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Opener::new(keys, ObjectType::Data, id, length, &bad).is_err(), "bit {bit} of the header");
        }
        let opener = Opener::new(keys, ObjectType::Data, id, length, &file).unwrap();
        let block = |i: usize| HEADER + i * SEALED..HEADER + (i + 1) * SEALED;
        let refused = |i: usize, bit: usize| {
            let mut bad = file[block(i)].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opener.open(i as u64, &mut bad).unwrap_err().kind(), Kind::Damaged, "bit {bit} of block {i}");
        };
        for i in 0..256 {
            // One bit of each of these bytes: some of the first and last 32 of the block, and all of its tag.
            let bytes = [0, 13, 31, BLOCK - 32, BLOCK - 1].into_iter().chain(BLOCK..SEALED);
            bytes.for_each(|byte| refused(i, byte * 8 + (byte + i) % 8));
            assert!(opener.open(i as u64, &mut file[block(i)].to_vec()).unwrap() == &plain[i * BLOCK..(i + 1) * BLOCK]);
        }
        let mut dice = Dice(1);
        (0..1000).for_each(|_| refused(dice.roll(256) as usize, dice.roll(SEALED as u64 * 8) as usize));
    });
}

/// Reads the first and the last byte of a chunk, each on a client with an empty cache.
fn ends(repo: &Repository, storage: &Arc<Memory>, r: &Ref) -> [Result<Vec<u8>, Kind>; 2] {
    [0..1, r.len - 1..r.len].map(|range| {
        let client = repo.behind(Arc::clone(storage) as Arc<dyn Storage>);
        client.part(background(), r, range, Span::Exact).map_err(|e| e.kind())
    })
}

#[test]
fn t02_an_object_that_was_cut_is_refused_from_where_it_was_cut() {
    case(|| {
        let world = world();
        let record = world.records()[1];
        let file = world.bytes(&record);
        for len in (0..=200).chain([file.len() - TAG, file.len() - 1]) {
            costs(world, &record, &with_record(world, &record, file[..len].to_vec()));
        }
        // A reader has a pack's length from the reference: the remaining blocks are valid, the others are damaged.
        let plain = noise(5, 3 * BLOCK + 100);
        let (memory, repo) = init();
        let r = one_chunk(&repo, &plain);
        let pack = Name::Pack(r.pack.id);
        let file = memory.get(&pack).unwrap();
        let edges = (1..=3).flat_map(|i| [HEADER + i * SEALED - 1, HEADER + i * SEALED, HEADER + i * SEALED + 1]);
        for len in (0..=200).step_by(7).chain(edges) {
            memory.overwrite(&pack, file[..len].to_vec());
            let [first, last] = ends(&repo, &memory, &r);
            let expected = if len >= HEADER + SEALED { Ok(plain[..1].to_vec()) } else { Err(Kind::Damaged) };
            assert_eq!((first, last), (expected, Err(Kind::Damaged)), "cut to {len}");
        }
    });
}

#[test]
fn t02_what_is_left_of_a_cut_pack_comes_also_where_it_is_read_in_stretches() {
    use nfreezer::crypto::keys::ChunkKind;
    case(|| {
        let (memory, repo) = init();
        let mut builder = nfreezer::format::pack::Builder::default();
        let parts: Vec<Vec<u8>> = (0..8).map(|seed| noise(seed, BLOCK)).collect();
        let mut entries = Vec::new();
        for plain in &parts {
            let id = repo.keys().chunk_id(ChunkKind::Data, plain);
            entries.push(builder.add(id, ChunkKind::Data, plain, plain.len()));
        }
        let pack = repo.put_pack(background(), ObjectType::Data, &mut builder.finish(false).0).unwrap();
        let name = Name::Pack(pack.id);
        let mut bytes = memory.get(&name).unwrap();
        bytes.truncate(HEADER + 4 * SEALED + 100);
        memory.overwrite(&name, bytes);
        let mut whole = 0;
        for (entry, plain) in entries.iter().zip(&parts) {
            repo.forget_blocks();
            match repo.chunk(background(), ChunkKind::Data, &entry.in_pack(pack), Span::Blocks(64)) {
                Ok(bytes) => {
                    assert!(bytes == *plain);
                    whole += 1;
                }
                Err(error) => assert_eq!(error.kind(), Kind::Damaged),
            }
        }
        assert!(whole >= 3, "{whole} chunks came, although four blocks in front of the cut are whole");
    });
}

/// Like [`with`], but reads only the log. For tests with many variants of a record.
fn with_record(world: &World, name: &Name, bytes: Vec<u8>) -> Seen {
    let memory = world.memory();
    memory.overwrite(name, bytes);
    let state = world.repo.behind(memory).state(background()).unwrap();
    let snapshots = state.snapshots();
    assert!(snapshots.iter().all(|s| *s == world.truth[&s.id].0), "an altered snapshot");
    Seen { warnings: state.warnings(), snapshots: snapshots.iter().map(|s| s.id).collect(), ..Seen::default() }
}

/// Stores an uncompressed chunk of contents alone in a pack.
fn one_chunk(repo: &Repository, plain: &[u8]) -> Ref {
    use nfreezer::crypto::keys::ChunkKind;
    let mut builder = nfreezer::format::pack::Builder::default();
    let entry = builder.add(repo.keys().chunk_id(ChunkKind::Data, plain), ChunkKind::Data, plain, plain.len());
    entry.in_pack(repo.put_pack(background(), ObjectType::Data, &mut builder.finish(false).0).unwrap())
}

#[test]
fn t03_what_was_appended_is_refused_or_never_read() {
    case(|| {
        let world = world();
        for name in sealed(world) {
            let file = world.bytes(&name);
            let more = [1, 15, 16, 17, SEALED].map(|n| [file.clone(), vec![0; n]].concat());
            let again = [file.clone(), file[HEADER..].to_vec()].concat();
            for bad in more.into_iter().chain([again]) {
                match name {
                    // The length of a record follows from the file size.
                    Name::Record { .. } => costs(world, &name, &with_record(world, &name, bad)),
                    // The length of a pack is in the reference, so bytes behind its end are ignored.
                    _ => assert_eq!(with(world, &name, bad).lost.len(), 0),
                }
            }
        }
    });
}

#[test]
fn t04_t05_t06_blocks_that_were_moved_doubled_or_exchanged_are_refused() {
    case(|| {
        let (memory, repo) = init();
        let plain = noise(6, 4 * BLOCK);
        let other = one_chunk(&repo, &noise(7, 4 * BLOCK));
        let r = one_chunk(&repo, &plain);
        let (name, other) = (Name::Pack(r.pack.id), memory.get(&Name::Pack(other.pack.id)).unwrap());
        let file = memory.get(&name).unwrap();
        let blocks = file[HEADER..].len() / SEALED;
        let place = |i: usize| HEADER + i * SEALED..HEADER + (i + 1) * SEALED;
        let put = |to: usize, bytes: &[u8]| {
            let mut bad = file.clone();
            bad[place(to)].copy_from_slice(bytes);
            bad
        };
        let removed = [&file[..HEADER], &file[HEADER + SEALED..]].concat();
        let mut swapped = put(0, &file[place(1)]);
        swapped[place(1)].copy_from_slice(&file[place(0)]);
        let last = |of: &[u8]| of[of.len() - SEALED..].to_vec();
        for (what, bad, hit) in [
            ("doubled", put(1, &file[place(0)]), vec![1]),
            ("exchanged", swapped, vec![0, 1]),
            ("the first is gone", removed, (0..blocks).collect()),
            ("of another object", put(2, &other[place(2)]), vec![2]),
            ("of another place of another object", put(2, &other[place(0)]), vec![2]),
            ("the last one as the first", put(0, &last(&file)), vec![0]),
        ] {
            memory.overwrite(&name, bad);
            let client = repo.behind(memory.clone());
            for i in 0..4 {
                let range = (i * BLOCK) as u32..((i + 1) * BLOCK) as u32;
                match client.part(background(), &r, range, Span::Exact) {
                    Ok(bytes) => {
                        assert!(!hit.contains(&i) && bytes == plain[i * BLOCK..(i + 1) * BLOCK], "{what}: {i}")
                    }
                    Err(e) => assert!(hit.contains(&i) && e.kind() == Kind::Damaged, "{what}: {i}: {e}"),
                }
            }
        }
    });
}

#[test]
fn t07_objects_with_nothing_in_them_are_refused() {
    case(|| {
        let world = world();
        for name in sealed(world) {
            let file = world.bytes(&name);
            for bad in [vec![], file[..HEADER].to_vec(), file[..HEADER + 15].to_vec(), file[..HEADER + TAG].to_vec()] {
                costs(world, &name, &with(world, &name, bad));
            }
        }
        let config = world.memory();
        for len in [0, 1, 43] {
            config.overwrite(&Name::Config, world.bytes(&Name::Config)[..len].to_vec());
            let error = open(config.clone()).map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Missing);
        }
    });
}

#[test]
fn t08_a_header_of_another_object_is_refused_before_any_block_is_read() {
    case(|| {
        let world = world();
        for name in sealed(world) {
            let (file, other) = (world.bytes(&name), world.bytes(&world.packs(1).1));
            let foreign_id = [&file[..8], &other[8..40], &file[40..]].concat();
            let zeroed = [&file[..40], &[0; 32], &file[72..]].concat();
            let foreign = [&file[..40], &other[40..72], &file[72..]].concat();
            for bad in [foreign_id, zeroed, foreign] {
                let refused = Opener::new(world.repo.keys(), kind_of(&name, world), id_of(&name), 0, &bad[..HEADER]);
                assert_eq!(refused.map(drop).unwrap_err().kind(), Kind::Damaged, "with nothing but its header");
                costs(world, &name, &with(world, &name, bad));
            }
        }
    });
}

fn swapped(world: &World, a: &Name, b: &Name) -> Seen {
    let memory = world.memory();
    memory.overwrite(a, world.bytes(b));
    memory.overwrite(b, world.bytes(a));
    look(world, memory).unwrap()
}

#[test]
fn t09_two_packs_under_each_others_names_are_both_refused_and_no_other() {
    case(|| {
        let world = world();
        let ((meta, data), (_, newer)) = (world.packs(0), world.packs(1));
        let seen = swapped(world, &data, &newer);
        assert_eq!(seen.lost.len(), in_them(world), "{:?}", seen.lost);
        assert!(seen.kinds().iter().all(|kind| *kind == Kind::Damaged));
        let seen = swapped(world, &meta, &data);
        assert!(seen.lost.keys().all(|(snapshot, _)| *snapshot == world.snapshots[0]), "the other snapshot is whole");
    });
}

fn in_them(world: &World) -> usize {
    world.truth.values().flat_map(|(_, files)| files.values()).filter(|bytes| !bytes.is_empty()).count()
}

#[test]
fn t10_two_records_under_each_others_names_are_both_refused() {
    case(|| {
        let world = world();
        let records = world.records();
        let seen = swapped(world, &records[0], &records[1]);
        assert!(seen.snapshots.is_empty());
        assert!(seen.warnings.iter().any(|w| w.contains("2 incomplete records")), "{:?}", seen.warnings);
    });
}

#[test]
fn t11_an_object_under_a_second_name_is_never_a_second_snapshot() {
    case(|| {
        let world = world();
        let record = world.records()[0];
        let Name::Record { sequence, id } = record else { unreachable!() };
        let invented = ObjectId([0xab; 32]);
        for copy in [
            Name::Record { sequence: 9, id },
            Name::Record { sequence, id: invented },
            Name::Record { sequence: u32::MAX, id },
        ] {
            let memory = world.memory();
            memory.overwrite(&copy, world.bytes(&record));
            let seen = look(world, memory.clone()).unwrap();
            assert_eq!((seen.snapshots.len(), seen.lost.len()), (2, 0), "{copy}");
            assert_eq!(seen.warnings.len(), 1, "{:?}", seen.warnings);
            // The sequence in a name is not verified, so it must not affect the sequences of later records.
            let mut state = world.repo.behind(memory.clone()).state(background()).unwrap();
            assert_eq!(state.next_sequence(), 3);
            world.repo.behind(memory).commit(background(), &mut state, Default::default(), &[]).unwrap();
        }
    });
}

#[test]
fn t12_an_object_of_one_type_in_the_place_of_another_is_refused() {
    case(|| {
        let world = world();
        let (meta, data) = world.packs(0);
        for pack in [meta, data] {
            let memory = world.memory();
            let name = Name::Record { sequence: 7, id: id_of(&pack) };
            memory.overwrite(&name, world.bytes(&pack));
            let seen = look(world, memory).unwrap();
            assert_eq!((seen.snapshots.len(), seen.lost.len(), seen.warnings.len()), (2, 0, 1));
        }
        // Uses a reference to contents as a reference to a page, and the reverse.
        let (snapshot, _) = &world.truth[&world.snapshots[0]];
        let contents = world.refs(snapshot, "a")[0];
        let errors = [
            world.repo.behind(world.memory()).page(background(), &contents).map(drop),
            world.repo.behind(world.memory()).list(background(), &contents).map(drop),
            world.repo.behind(world.memory()).part(background(), &snapshot.root.unwrap(), 0..1, Span::Exact).map(drop),
        ];
        assert!(errors.into_iter().all(|e| e.unwrap_err().kind() == Kind::Damaged));
    });
}

#[test]
fn t13_objects_of_another_repository_with_the_same_passphrase_are_refused() {
    case(|| {
        let world = world();
        let (foreign, repo) = init();
        let mut writer = crate::harness::writer::Writer::new(&repo);
        writer.chunk = 64 << 10;
        let tree = crate::world::item(&world.truth[&world.snapshots[0]].1);
        let made = writer.commit(&mut Default::default(), &tree, |_| {});
        let memory = world.memory();
        for name in crate::world::names(&*foreign).into_iter().filter(|name| !matches!(name, Name::Config)) {
            memory.overwrite(&name, foreign.get(&name).unwrap());
        }
        let seen = look(world, memory.clone()).unwrap();
        assert_eq!((seen.snapshots.len(), seen.lost.len(), seen.warnings.len()), (2, 0, 1), "{:?}", seen.warnings);
        assert!(!seen.snapshots.contains(&made.id));
        open(memory).unwrap();
    });
}

#[test]
fn t17_an_object_of_a_newer_format_is_named_as_such() {
    case(|| {
        let world = world();
        let record = world.records()[0];
        let mut bytes = world.bytes(&record);
        bytes[7] = b'2';
        let seen = with(world, &record, bytes);
        assert!(seen.warnings[0].contains("newer format"), "{:?}", seen.warnings);
        let memory = world.memory();
        let mut config = world.bytes(&Name::Config);
        config[11] = 2;
        memory.overwrite(&Name::Config, config);
        let error = open(memory).map(drop).unwrap_err();
        assert!(
            error.to_string().contains("format version 2") && error.hint_text().unwrap().contains("newer"),
            "{error}"
        );
    });
}

#[test]
fn t18_what_is_shown_differently_to_each_read_is_verified_each_time() {
    case(|| {
        let world = world();
        let (snapshot, files) = &world.truth[&world.snapshots[0]];
        let (_, data) = world.packs(0);
        for wrong in 0..4 {
            let storage = liar(world.memory());
            storage.show(&data, wrong..=wrong, |mut bytes| {
                bytes.iter_mut().skip(HEADER).step_by(SEALED / 2).for_each(|byte| *byte ^= 1);
                Some(bytes)
            });
            let client = world.repo.behind(storage.clone());
            client.set_cache(0);
            let mut read = Vec::new();
            for r in world.refs(snapshot, "blocks") {
                match client.part(background(), &r, 0..r.len, Span::Exact) {
                    Ok(bytes) => read.extend(bytes),
                    Err(e) => {
                        told(&e);
                        assert_eq!(e.kind(), Kind::Damaged);
                        read.extend(client.part(background(), &r, 0..r.len, Span::Exact).unwrap());
                    }
                }
            }
            assert!(read == files["blocks"], "a mix of what was shown");
            assert!(storage.reads(&data) > wrong);
        }
    });
}
