//! `diff` names the differences between two snapshots, or a snapshot and the disk, and reads only the parts that
//! differ.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nfreezer::context::background;
use nfreezer::diff::{self, Disk, Entry, Modifier, Report};
use nfreezer::format::record::Snapshot;
use nfreezer::repo::Repository;
use nfreezer::trees::Trees;

use crate::harness::cli::Env;
use crate::harness::faults::Between;
use crate::harness::repository;
use crate::harness::rounds::Rounds;
use crate::harness::saved::Saved;
use crate::harness::tree::{set_mtime, write};

fn letter(modifier: Modifier) -> char {
    match modifier {
        Modifier::Added => '+',
        Modifier::Removed => '-',
        Modifier::Content => 'M',
        Modifier::Attributes => 'U',
        Modifier::Type => 'T',
        Modifier::Renamed => 'R',
    }
}

/// Formats an entry below `top` as a line.
fn line(entry: &Entry, top: &str) -> String {
    let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap().replacen(top, "", 1);
    let from = entry.from.as_ref().map(|from| format!("{} -> ", text(from))).unwrap_or_default();
    format!("{} {from}{}", letter(entry.modifier), text(&entry.path))
}

fn between(repo: &Repository, old: &Snapshot, new: &Snapshot, top: &str) -> Vec<String> {
    let (trees, mut found) = (Trees::new(repo), Vec::new());
    let entry = &mut |entry: Entry| {
        found.push(line(&entry, top));
        Ok(())
    };
    let report = Report { entry, unreadable: &mut |path, why| panic!("{path:?}: {why}") };
    diff::snapshots(background(), &trees, old.root.as_ref(), new.root.as_ref(), report).unwrap();
    found
}

fn with_disk(saved: &Saved, old: &Snapshot, contents: bool, attributes: bool) -> Vec<String> {
    let (trees, mut found) = (Trees::new(&saved.repo), Vec::new());
    let top = saved.top();
    let node = trees.at(background(), old, top.as_os_str().as_encoded_bytes()).unwrap();
    let nfreezer::format::node::Content::Directory(page) = node.content else { panic!("no directory") };
    let entry = &mut |entry: Entry| {
        found.push(line(&entry, ""));
        Ok(())
    };
    let report = Report { entry, unreadable: &mut |path, why| panic!("{path:?}: {why}") };
    let excludes = |path: &[u8], _: bool| path.ends_with(b".tmp");
    let disk = Disk { dir: &top, contents, attributes, excludes: &excludes };
    diff::with_disk(background(), &trees, page.as_ref(), &disk, report).unwrap();
    found
}

/// Makes one difference of every kind. All files have old times, so that nothing depends on the clock.
fn change(saved: &Saved) {
    let top = saved.top();
    fs::rename(top.join("folder"), top.join("new name")).unwrap();
    saved.write("new name/inner", 50, 400);
    fs::rename(top.join("file"), top.join("zz")).unwrap();
    saved.write("added/deep/file", 9, 10);
    fs::remove_dir_all(top.join("gone")).unwrap();
    saved.write("changed", 11, 1000);
    fs::set_permissions(top.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(top.join("type")).unwrap();
    saved.write("type/below", 12, 10);
}

fn before(saved: &Saved) -> Snapshot {
    for (name, seed) in [("file", 1), ("folder/inner", 2), ("folder/other", 3), ("gone/a/b", 4), ("changed", 5)] {
        saved.write(name, seed, 1000);
    }
    for (name, seed) in [("mode", 6), ("same", 7), ("type", 8)] {
        saved.write(name, seed, 1000);
    }
    saved.push().snapshot
}

const ALL: [&str; 12] = [
    "+ /added",
    "+ /added/deep",
    "+ /added/deep/file",
    "M /changed",
    "- /gone",
    "- /gone/a",
    "- /gone/a/b",
    "U /mode",
    "R /folder -> /new name",
    "T /type",
    "+ /type/below",
    "R /file -> /zz",
];

#[test]
fn every_kind_of_difference_is_named_between_snapshots() {
    let saved = Saved::new();
    let old = before(&saved);
    change(&saved);
    let new = saved.push().snapshot;
    let top = saved.top().to_str().unwrap().to_owned();
    let mut found = between(&saved.repo, &old, &new, &top);
    // The times of directories change with their entries.
    found.retain(|line| !line.starts_with("U ") || line == "U /mode");
    let below = found.pop();
    assert_eq!(found, ALL);
    assert_eq!(below.as_deref(), Some("M /new name/inner"), "what changed below a renamed folder comes last");
    assert_eq!(between(&saved.repo, &new, &new, &top), [""; 0]);
}

#[test]
fn every_kind_of_difference_is_named_between_a_snapshot_and_the_disk() {
    let saved = Saved::new();
    let old = before(&saved);
    assert_eq!(with_disk(&saved, &old, false, true), [""; 0]);
    change(&saved);
    write(saved.top().join("excluded.tmp"), b"x");
    let mut found = with_disk(&saved, &old, false, true);
    found.retain(|line| line != "U /new name");
    let below = found.pop();
    assert_eq!(found, ALL);
    assert_eq!(below.as_deref(), Some("M /new name/inner"));
}

#[test]
fn with_contents_a_changed_time_is_no_change_and_a_hidden_change_is_found() {
    let saved = Saved::new();
    saved.write("touched", 1, 3_000_000);
    saved.write("hidden", 2, 1000);
    set_mtime(&saved.top().join("hidden"), 1_000_000_000, 5);
    let old = saved.push().snapshot;
    set_mtime(&saved.top().join("touched"), 1_000_000_001, 7);
    saved.write("hidden", 3, 1000);
    set_mtime(&saved.top().join("hidden"), 1_000_000_000, 5);
    assert_eq!(with_disk(&saved, &old, false, false), ["M /touched"], "by time and size");
    assert_eq!(with_disk(&saved, &old, true, false), ["M /hidden"], "by contents");
    assert_eq!(with_disk(&saved, &old, true, true), ["M /hidden", "U /touched"]);
}

#[test]
fn pages_that_differ_are_read_in_few_rounds_and_others_not_at_all() {
    let saved = Saved::on(std::sync::Arc::<Between<Rounds>>::default());
    for i in 0..8000 {
        write(saved.top().join(format!("{}/{}/{i:05}{}", i / 400, i / 40 % 10, "x".repeat(60))), b"x");
    }
    let old = saved.push().snapshot;
    for i in (0..8000).step_by(80) {
        write(saved.top().join(format!("{}/{}/{i:05}{}", i / 400, i / 40 % 10, "x".repeat(60))), b"changed");
    }
    let new = saved.push().snapshot;
    let repo = repository::open(saved.memory.clone());
    let top = saved.top().to_str().unwrap().to_owned();
    saved.memory.take();
    assert!(between(&repo, &new, &new, &top).is_empty());
    assert_eq!(saved.memory.take().reads, 0, "equal trees are not read");
    let found = between(&repo, &old, &new, &top);
    assert_eq!(found.iter().filter(|line| line.starts_with('M')).count(), 100, "{found:#?}");
    let reads = saved.memory.take();
    let levels = top.split('/').count() + 2;
    assert!(reads.rounds <= levels + 4, "100 folders on {levels} levels took {reads:?}");
}

#[test]
fn the_command_prints_what_restic_prints() {
    let env = Env::with_repository();
    env.write("src/a/one", "1");
    env.write("src/two", "22");
    env.nfreezer(["push", "src"]).done();
    env.write("src/a/one", "changed");
    env.write("src/b/three", "333");
    fs::remove_file(env.path("src/two")).unwrap();
    env.nfreezer(["push", "src"]).done();
    let src = env.path("src").canonicalize().unwrap().to_str().unwrap().to_owned();
    let text = env.nfreezer(["diff"]).success().stdout;
    let wanted = format!("M    {src}/a/one\n+    {src}/b/\n+    {src}/b/three\n-    {src}/two\n");
    assert!(text.starts_with(&wanted), "{text}");
    assert!(text.contains("Files:         1 new,      1 removed,      1 changed"), "{text}");
    let below = env.nfreezer(["diff", &format!("latest~1:{src}/a"), "latest", "--json"]).success().objects();
    assert_eq!(below.len(), 2);
    assert_eq!(
        (below[0]["modifier"].as_str(), below[0]["path"].as_str().unwrap()),
        (Some("M"), &*format!("{src}/a/one"))
    );
    assert_eq!(below[1]["changed_files"], 1);
    let folders = env.nfreezer(["diff", "--stat", "--json"]).success().objects();
    assert_eq!((folders[0]["path"].as_str().unwrap(), folders[0]["growth"].as_i64()), (src.as_str(), Some(7)));
    env.write("src/b/four", "4444");
    let disk = env.nfreezer(["diff", "--with", "src"]).success().stdout;
    assert!(disk.starts_with(&format!("+    {src}/b/four\n")), "{disk}");
    env.nfreezer(["diff", &format!("latest:{src}/a/one")]).fails(1);
    env.nfreezer(["diff", "latest", "latest", "--with", "src"]).fails(2);
}

#[test]
fn users_in_acls_have_names_in_the_snapshot_and_no_difference_to_the_disk() {
    let saved = Saved::new();
    saved.write("acl", 1, 10);
    let path = saved.top().join("acl");
    assert!(crate::harness::tree::set_xattr(&path, "system.posix_acl_access", &crate::harness::tree::some_acl()));
    let old = saved.push().snapshot;
    assert_eq!(with_disk(&saved, &old, false, true), [""; 0]);
}
