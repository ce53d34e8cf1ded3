//! B: key files, and places with no repository or another one (T20 to T29).

use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::keys::RepoId;
use nfreezer::crypto::secret::Secret;
use nfreezer::error::Kind;
use nfreezer::format::keyfile::{self, KeyInfo};
use nfreezer::name::{Name, ObjectId};
use nfreezer::storage::{Memory, Storage};
use sha2::{Digest, Sha256};

use crate::liar::{Liar, liar};
use crate::oracle::case;
use crate::world::{names, open, pass, world};

fn named(bytes: &[u8]) -> Name {
    Name::Key(ObjectId(Sha256::digest(bytes).into()))
}

/// Opens with these key files instead of the true one. Returns the error and the requests.
fn with_keys(files: &[(Name, Vec<u8>)]) -> (Option<Kind>, String, Arc<Liar>) {
    let world = world();
    let memory = world.memory();
    memory.remove(background(), &world.key()).unwrap();
    files.iter().for_each(|(name, bytes)| memory.overwrite(name, bytes.clone()));
    let storage = liar(memory);
    let opened = open(storage.clone());
    // No record was read, no pack was requested, and no object was put.
    if opened.is_err() {
        let asked = storage.asked();
        assert!(asked.iter().all(|call| !call.starts_with("put") && !call.contains("Pack")), "{asked:?}");
        assert!(!asked.iter().any(|call| call.starts_with("Read(Record")), "{asked:?}");
    }
    let error = opened.err();
    (error.as_ref().map(|e| e.kind()), error.map(|e| e.to_string()).unwrap_or_default(), storage)
}

#[test]
fn t20_a_key_file_that_was_altered_does_not_open() {
    case(|| {
        let (name, file) = (world().key(), world().bytes(&world().key()));
        assert_eq!(with_keys(&[(name, file.clone())]).0, None);
        // One byte of each field; all bytes are tested in `t20_t23_a_flipped_bit_of_a_key_file_is_a_wrong_passphrase`.
        for at in [0, 8, 40, 41, 46, 51, 55, 56, 88, 120, 200, 248, 263] {
            let mut bad = file.clone();
            bad[at] ^= 1;
            for name in [name, named(&bad)] {
                let (kind, text, _) = with_keys(&[(name, bad.clone())]);
                assert_eq!(kind, Some(Kind::Passphrase), "byte {at}: {text}");
            }
        }
    });
}

#[test]
fn t21_a_key_file_of_another_length_is_not_even_read() {
    case(|| {
        let world = world();
        for size in [0, 263, 265, 1 << 30, u64::MAX] {
            let storage = liar(world.memory());
            storage.claim_size(&world.key(), size);
            let error = open(storage.clone()).map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Passphrase, "{size}: {error}");
            assert!(error.to_string().contains("size"), "{error}");
            assert_eq!(storage.reads(&world.key()), 0);
        }
    });
}

/// Returns the true key file with another cost. Only the server can write it, and its commitment does not match.
fn costing(cost: [u32; 3]) -> (Name, Vec<u8>) {
    let mut file = world().bytes(&world().key());
    file[44..56].copy_from_slice(&cost.map(u32::to_be_bytes).concat());
    (named(&file), file)
}

#[test]
fn t22_t24_a_cost_out_of_bounds_is_refused_and_nothing_is_derived() {
    case(|| {
        let max = u32::MAX;
        let cheap = [[8, 1, 1], [65536, 1, 1], [65535, 3, 4], [65536, 2, 4]];
        let dear = [[max, 3, 4], [65536, max, 4], [65536, 3, 1 << 24], [max, max, max], [2 << 20, 16, 4]];
        for cost in cheap.into_iter().chain(dear) {
            let (kind, text, _) = with_keys(&[costing(cost)]);
            // After a key derivation the text would be "wrong passphrase" without the reason.
            assert!(kind == Some(Kind::Passphrase) && text.contains("out of bounds"), "{cost:?}: {text}");
        }
    });
}

#[test]
fn t23_a_cost_that_was_changed_within_the_bounds_is_a_wrong_passphrase() {
    case(|| {
        for cost in [[65537, 3, 4], [65536, 4, 4], [65536, 3, 3]] {
            let (kind, text, _) = with_keys(&[costing(cost)]);
            assert!(kind == Some(Kind::Passphrase) && text.contains("wrong passphrase"), "{text}");
        }
    });
}

#[test]
fn t25_junk_key_files_lock_no_machine_out() {
    case(|| {
        let world = world();
        let (name, file) = (world.key(), world.bytes(&world.key()));
        // Fifteen files that would each take a minute. None of their keys is derived, since the true one costs less.
        let costly = (0..15u8).map(|i| {
            let (_, mut file) = costing([2 << 20, 4, 1]);
            file[56] = i;
            (named(&file), file)
        });
        let files: Vec<_> = costly.chain([(name, file.clone())]).collect();
        assert_eq!(with_keys(&files).0, None);
        // Well-formed files that no passphrase opens, more than are read at a time.
        let closed = (0..40u8).map(|i| {
            let (_, mut file) = costing([65536, 3, 4]);
            file[57] ^= 1 + i;
            (named(&file), file)
        });
        let files: Vec<_> = closed.chain([(name, file.clone())]).collect();
        assert_eq!(with_keys(&files).0, None);
        let junk = (0..2_000u32).map(|i| (named(&i.to_be_bytes()), vec![0; 264]));
        let files: Vec<_> = junk.clone().chain([(name, file.clone())]).collect();
        assert_eq!(with_keys(&files).0, None);
        let (kind, text, _) = with_keys(&junk.collect::<Vec<_>>());
        assert_eq!(kind, Some(Kind::Passphrase));
        assert!(text.len() < 2_000, "damaged files are summed up: {text}");
    });
}

#[test]
fn t27_a_key_file_of_another_repository_is_never_used() {
    case(|| {
        let info = KeyInfo { created: 1, label: String::new() };
        let other =
            keyfile::wrap(&Secret::new([7; 32]), &RepoId([8; 32]), &pass(), KdfCost::DEFAULT, &[9; 32], &info).unwrap();
        let (kind, text, _) = with_keys(&[(Name::Key(other.0), other.1.clone())]);
        assert!(kind == Some(Kind::Passphrase) && text.contains("another repository"), "{text}");
        // With its id in the public config, the key file opens, but no record of the log does.
        let memory = world().memory();
        memory.overwrite(&Name::Config, keyfile::encode_config(&RepoId([8; 32])));
        memory.overwrite(&Name::Key(other.0), other.1);
        let error = open(memory).unwrap().state(background()).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Tampering, "{error}");
    });
}

#[test]
fn t28_t29_what_is_not_a_whole_repository_is_refused_and_nothing_is_made() {
    case(|| {
        let world = world();
        let without = |gone: &dyn Fn(&Name) -> bool| {
            let memory = world.memory();
            names(&*memory)
                .iter()
                .filter(|name| gone(name))
                .for_each(|name| memory.remove(background(), name).unwrap());
            memory
        };
        for (what, memory, expected) in [
            ("an empty place", Arc::<Memory>::default(), Kind::NoRepository),
            ("no config", without(&|name| *name == Name::Config), Kind::Missing),
            ("no keys", without(&|name| matches!(name, Name::Key(_))), Kind::Missing),
        ] {
            let storage = liar(memory.clone());
            let before = names(&*memory);
            let error = open(storage.clone()).map(drop).unwrap_err();
            assert_eq!(error.kind(), expected, "{what}: {error}");
            assert_eq!(names(&*memory), before, "{what}");
            assert!(storage.asked().iter().all(|call| !call.starts_with("put") && !call.starts_with("CreateFolders")));
        }
    });
}
