//! Information that the sizes of objects reveal to the server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::harness::repository;
use crate::harness::tree::{noise, write};
use nfreezer::context::background;
use nfreezer::crypto::seal::plain_len;
use nfreezer::name::Folder;
use nfreezer::push::{Options, push};
use nfreezer::storage::{Memory, Storage};

const FULL: u64 = 16 << 20;

/// Pushes the folder into a new repository. Returns the plaintext sizes of the objects by repository folder.
fn sizes(top: &Path, full_packs: bool) -> BTreeMap<&'static str, Vec<u64>> {
    let storage = Arc::new(Memory::default());
    let repo = repository::init(storage.clone());
    let options = Options { sources: vec![PathBuf::from(top)], full_packs, ..Options::default() };
    push(background(), &repo, &options).unwrap();
    let mut sizes: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for folder in Folder::all() {
        for entry in storage.list(background(), folder).unwrap() {
            let kind = match folder {
                Folder::Log => "records",
                Folder::PackShard(_) => "packs",
                _ => continue,
            };
            sizes.entry(kind).or_default().push(plain_len(entry.size).unwrap());
        }
    }
    sizes.values_mut().for_each(|sizes| sizes.sort_unstable());
    sizes
}

#[test]
fn small_trees_of_one_volume_look_alike() {
    let dir = tempfile::tempdir().unwrap();
    let [one, many] = ["one", "many"].map(|name| dir.path().join(name));
    write(one.join("file"), noise(1, 40_000));
    for i in 0..20 {
        write(many.join(format!("{i}/below/{i}.txt")), noise(100 + i, 2000));
    }
    let expected = BTreeMap::from([("packs", vec![64 << 10, 64 << 10]), ("records", vec![4 << 10])]);
    assert_eq!((sizes(&one, false), sizes(&many, false)), (expected.clone(), expected));
}

#[test]
fn the_size_of_a_record_counts_chunks_to_a_factor_of_two() {
    let dir = tempfile::tempdir().unwrap();
    (0..1100).for_each(|i| write(dir.path().join(format!("{i}")), noise(i, 500)));
    let fewer = sizes(dir.path(), false);
    (1100..1400).for_each(|i| write(dir.path().join(format!("{i}")), noise(i, 500)));
    let more = sizes(dir.path(), false);
    assert_eq!((&fewer["records"], &more["records"]), (&vec![64 << 10], &vec![64 << 10]));
    assert_ne!(fewer["packs"], more["packs"], "packs have classes of 25 %");
}

#[test]
fn with_full_padding_every_pack_has_one_size() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path().join("small"), noise(1, 1000));
    assert_eq!(sizes(dir.path(), true)["packs"], [FULL, FULL], "contents and metadata");
    write(dir.path().join("large"), noise(2, 20 << 20));
    let packs = &sizes(dir.path(), true)["packs"];
    assert!(packs.len() >= 3 && packs.iter().all(|size| *size == FULL), "{packs:?}");
}
