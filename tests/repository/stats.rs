//! `stats` counts each chunk once, and distinguishes unique from shared chunks. `ls --ncdu` prints the input of ncdu.

use std::fs;

use nfreezer::context::background;
use nfreezer::format::node::Content;
use nfreezer::format::reference::Ref;
use nfreezer::stats::stats;
use nfreezer::trees::Trees;
use serde_json::Value;

use crate::harness::cli::Env;
use crate::harness::saved::Saved;

#[test]
fn shared_chunks_count_once_and_unique_ones_are_those_of_no_other_snapshot() {
    let saved = Saved::new();
    saved.write("common", 1, 100_000);
    saved.write("copy", 1, 100_000);
    saved.write("only first", 2, 30_000);
    let first = saved.push().snapshot.root.unwrap();
    fs::remove_file(saved.top().join("only first")).unwrap();
    saved.write("only second", 3, 5_000);
    let second = saved.push().snapshot.root.unwrap();
    let trees = Trees::new(&saved.repo);
    let of = |wanted: &[Ref], others: &[Ref]| {
        let wanted: Vec<Content> = wanted.iter().map(|root| Content::Directory(Some(*root))).collect();
        stats(background(), &trees, &wanted, others).unwrap()
    };
    let one = of(&[first], &[second]);
    assert_eq!((one.contents.bytes, one.damaged), (130_000, 0), "the copy is no further chunk");
    assert!((30_000..40_000).contains(&one.unique.bytes), "contents and changed pages: {one:?}");
    assert!(one.contents.stored >= 130_000, "noise does not shrink");
    let both = of(&[first, second], &[]);
    assert_eq!(both.contents.bytes, 135_000);
    assert_eq!(both.unique.chunks, both.contents.chunks + both.metadata.chunks, "there is no other snapshot");
}

#[test]
fn the_command_counts_packs_of_the_whole_repository_and_damage() {
    let env = Env::with_repository();
    env.write("src/file", "all work and no play\n".repeat(10_000));
    env.nfreezer(["push", "src", "--host", "a"]).done();
    env.write("src/file2", "2");
    env.nfreezer(["push", "src", "--host", "b"]).done();
    let all = env.nfreezer(["stats", "--json"]).success().objects().remove(0);
    assert_eq!((all["snapshots"].as_u64(), all["files"].as_u64()), (Some(2), Some(3)));
    assert!(all["packs"].as_u64() >= Some(2) && all["pack_bytes"].as_u64() > Some(1000), "{all}");
    let contents = &all["contents"];
    assert!(contents["bytes"].as_u64() == Some(210_001) && contents["stored"].as_u64() < Some(10_000), "{all}");
    let one = env.nfreezer(["stats", "--json", "--host", "b"]).success().objects().remove(0);
    assert!(one["snapshots"] == 1 && one["packs"].is_null(), "{one}");
    let text = env.nfreezer(["stats", "latest"]).success().stdout;
    assert!(text.contains("Snapshots:     1\n") && text.contains("\nUnique:        "), "{text}");
}

#[test]
fn a_path_in_a_snapshot_counts_alone() {
    let env = Env::with_repository();
    env.write("src/folder/one", vec![1; 10_000]);
    env.write("src/folder/below/two", vec![2; 20_000]);
    env.write("src/large", vec![3; 500_000]);
    env.nfreezer(["push", "src"]).done();
    let src = env.path("src").canonicalize().unwrap().to_str().unwrap().to_owned();
    let of = |arguments: &[&str]| {
        let arguments = [&["stats", "--json"], arguments].concat();
        env.nfreezer(arguments).success().objects().remove(0)
    };
    let size = |object: &Value| {
        let number = |value: &Value| value.as_u64().unwrap();
        [number(&object["files"]), number(&object["restore_size"]), number(&object["contents"]["bytes"])]
    };
    let folder = of(&[&format!("latest:{src}/folder/")]);
    assert_eq!(size(&folder), [2, 30_000, 30_000]);
    assert!(folder["snapshots"] == 1 && folder["packs"].is_null(), "{folder}");
    assert_eq!(folder["unique"]["bytes"].as_u64(), Some(30_000 + folder["metadata"]["bytes"].as_u64().unwrap()));
    let file = of(&[&format!("latest:{src}/folder/one")]);
    assert_eq!((size(&file), file["metadata"]["chunks"].as_u64()), ([1, 10_000, 10_000], Some(0)));
    let both = of(&[&format!("latest:{src}/folder/one"), &format!("latest:{src}/large")]);
    assert_eq!(size(&both), [2, 510_000, 510_000]);
    assert_eq!(of(&["latest:/"]), of(&["latest"]), "the root is the whole snapshot");
    env.nfreezer(["push", "src"]).done();
    let shared = of(&[&format!("latest:{src}/folder")]);
    assert_eq!((size(&shared), shared["unique"]["bytes"].as_u64()), ([2, 30_000, 30_000], Some(0)));
    env.nfreezer(["stats", "latest:/nothing"]).fails(1);
}

fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(names).collect(),
        Value::Object(fields) => vec![fields["name"].as_str().unwrap().to_owned()],
        other => panic!("{other}"),
    }
}

#[test]
fn a_listing_for_ncdu_has_nested_folders() {
    let env = Env::with_repository();
    for name in ["a/b/one", "a/two", "a/c/d/three", "four"] {
        env.write(&format!("src/{name}"), name);
    }
    env.nfreezer(["push", "src"]).done();
    let top = format!("latest:{}", env.path("src").canonicalize().unwrap().display());
    let listing: Value = serde_json::from_str(&env.nfreezer(["ls", "--ncdu", &top]).success().stdout).unwrap();
    assert_eq!((&listing[0], &listing[1], &listing[2]["progname"]), (&1.into(), &2.into(), &"nfreezer".into()));
    let top = &listing[3];
    assert_eq!(names(&top[1]), ["a", "b", "one", "c", "d", "three", "two"]);
    assert_eq!(
        (names(&top[1][1]), names(&top[1][2])),
        (vec!["b".into(), "one".into()], vec!["c".into(), "d".into(), "three".into()])
    );
    assert_eq!((&top[2]["name"], &top[2]["asize"]), (&"four".into(), &4.into()));
}
