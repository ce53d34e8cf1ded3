//! `rewrite` removes files from snapshots and changes their metadata; everything else stays as it is.

use std::collections::BTreeMap;
use std::fs;

use nfreezer::check::Options;
use nfreezer::context::background;
use nfreezer::format::node::{Content, Node};
use nfreezer::format::record::Snapshot;
use nfreezer::rewrite::{self, Metadata};
use nfreezer::time::Time;
use nfreezer::trees::Trees;

use crate::harness::cli::Env;
use crate::harness::saved::Saved;
use crate::harness::tree::write;

fn nodes(saved: &Saved, snapshot: &Snapshot) -> BTreeMap<Vec<u8>, Node> {
    let (trees, mut found, mut open) = (Trees::new(&saved.repo), BTreeMap::new(), vec![(Vec::new(), snapshot.root)]);
    while let Some((path, page)) = open.pop() {
        for node in trees.entries(background(), page.as_ref()) {
            let mut node = node.unwrap();
            let below = [path.as_slice(), b"/", &node.name].concat();
            if let Content::Directory(page) = node.content {
                open.push((below.clone(), page));
                // A directory names other pages; their entries are compared node by node.
                node.content = Content::Directory(None);
            }
            found.insert(below, node);
        }
    }
    found
}

fn is_secret(path: &[u8], is_directory: bool) -> bool {
    path.ends_with(b".key") || (is_directory && path.ends_with(b"/private"))
}

fn rewritten(saved: &Saved, snapshots: &[Snapshot], options: &rewrite::Options<'_>) -> Vec<rewrite::Rewritten> {
    let mut state = saved.repo.state(background()).unwrap();
    rewrite::rewrite(background(), &saved.repo, &mut state, snapshots, options).unwrap()
}

#[test]
fn a_secret_is_left_out_of_all_snapshots_and_everything_else_is_equal() {
    let saved = Saved::new();
    for i in 0..3000 {
        write(saved.top().join(format!("many/{i:05}{}", "x".repeat(100))), b"x");
    }
    write(saved.top().join("many/00000.key"), b"secret");
    write(saved.top().join("many/02000.key"), b"secret");
    saved.write("only/a.key", 1, 2000);
    saved.write("only/private/deep/file", 2, 3000);
    saved.write("public/file", 3, 4000);
    let first = saved.push().snapshot;
    saved.write("public/file", 4, 4000);
    let second = saved.push().snapshot;
    let (packs, before) = (saved.packs().len(), [&first, &second].map(|s| nodes(&saved, s)));
    let options = rewrite::Options {
        leaves_out: Some(&is_secret),
        metadata: Metadata::default(),
        keep_old: false,
        dry_run: false,
    };
    let all = rewritten(&saved, &[first.clone(), second.clone()], &options);
    assert_eq!(saved.packs().len(), packs + 1, "one metadata pack for both: equal subtrees are written once");
    for (one, mut before) in all.iter().zip(before) {
        let new = one.new.as_ref().unwrap();
        assert_eq!((one.removed.files, one.removed.directories, one.removed.bytes), (4, 2, 5012));
        assert_eq!((new.stats.files, new.stats.bytes), (one.old.stats.files - 4, one.old.stats.bytes - 5012));
        let expected =
            Snapshot { root: new.root, stats: new.stats, id: new.id, extra: new.extra.clone(), ..one.old.clone() };
        assert_eq!(*new, expected);
        let after = nodes(&saved, new);
        before.retain(|path, _| {
            let path = path.as_slice();
            !is_secret(path, false) && !String::from_utf8_lossy(path).contains("/private")
        });
        assert_eq!(after.len(), before.len());
        assert!(after == before, "all other nodes are equal, contents and attributes too");
    }
    let state = saved.repo.state(background()).unwrap();
    assert_eq!(state.forgotten(), [first, second]);
    let shown: Vec<_> = all.iter().map(|one| one.new.clone().unwrap()).collect();
    assert_eq!(state.snapshots(), shown);
    for name in ["many/00000.key", "many/02000.key", "only/a.key"] {
        fs::remove_file(saved.top().join(name)).unwrap();
    }
    fs::remove_dir_all(saved.top().join("only/private")).unwrap();
    // The directories have new times on the disk now; the saved ones stay.
    let (_keep, target, summary) = saved.restore(&shown[1]);
    assert_eq!((summary.damaged, summary.failed), (0, 0));
    assert_eq!(fs::read_dir(target.join("only")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(target.join("many")).unwrap().count(), 3000);
    let (report, _) = saved.check(&Options::default());
    assert!(!report.is_damaged() && !report.is_rolled_back(), "{report:?}");
    // A second rewrite changes nothing.
    assert!(rewritten(&saved, &shown, &options).iter().all(|one| one.new.is_none()));
}

#[test]
fn new_metadata_touches_no_tree_and_a_dry_run_writes_nothing() {
    let saved = Saved::new();
    saved.write("file", 1, 1000);
    let old = saved.push().snapshot;
    let metadata = Metadata {
        host: Some("other".into()),
        time: Some(Time::from_seconds(1_600_000_000)),
        description: Some("text".into()),
        tags: Some(vec!["b".into(), "a".into()]),
    };
    let mut options = rewrite::Options { leaves_out: None, metadata, keep_old: true, dry_run: true };
    let (packs, records) = (saved.packs(), saved.records());
    assert!(rewritten(&saved, std::slice::from_ref(&old), &options)[0].new.is_some());
    assert_eq!((saved.packs(), saved.records()), (packs.clone(), records));
    options.dry_run = false;
    let new = rewritten(&saved, std::slice::from_ref(&old), &options).remove(0).new.unwrap();
    assert_eq!((saved.packs(), new.root, new.stats), (packs, old.root, old.stats));
    assert_eq!((new.host.as_str(), new.description.as_str(), new.time.seconds), ("other", "text", 1_600_000_000));
    assert_eq!(new.tags, ["a", "b"]);
    assert_ne!(new.group, old.group);
    assert_eq!(saved.repo.state(background()).unwrap().snapshots(), [new, old]);
}

#[test]
fn the_program_rewrites_the_snapshots_that_are_named() {
    let env = Env::with_repository();
    env.write("src/secret.key", b"secret");
    env.write("src/file", b"x");
    env.nfreezer(["push", "src"]).done();
    env.nfreezer(["rewrite", "latest"]).fails(2);
    env.nfreezer(["rewrite", "--exclude", "*.key"]).fails(2);
    let dry = env.nfreezer(["rewrite", "--all", "-n", "--exclude", "*.key"]).success();
    assert!(dry.stdout.contains("would be replaced without 1 file") && dry.stdout.contains("nothing was"), "{dry:?}");
    let done = env.nfreezer(["rewrite", "latest", "--exclude", "*.key", "--tag", "clean"]).success();
    assert!(done.stdout.contains("is replaced by") && done.stdout.contains("the old one is forgotten"), "{done:?}");
    let listed = env.nfreezer(["ls", "-R"]).success();
    assert!(listed.stdout.contains("src/file") && !listed.stdout.contains("secret"), "{listed:?}");
    let shown = env.nfreezer(["snapshots"]).success();
    assert!(shown.stdout.contains("1 snapshot;") && shown.stdout.contains("clean"), "{shown:?}");
    let same = env.nfreezer(["rewrite", "latest", "--exclude", "*.key"]).success();
    assert!(same.stdout.contains("nothing in it changes"), "{same:?}");
    env.nfreezer(["check", "--read-data"]).done();
}
