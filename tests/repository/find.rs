//! `find` groups equal nodes of many snapshots, and reads shared pages once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use nfreezer::context::background;
use nfreezer::crypto::keys::{ChunkId, ChunkKind};
use nfreezer::find::{self, Report};
use nfreezer::format::node::Node;
use nfreezer::format::record::Snapshot;
use nfreezer::format::reference::Ref;
use nfreezer::repo::Repository;
use nfreezer::trees::{Trees, Visit, walk};

use crate::harness::cli::Env;
use crate::harness::faults::Between;
use crate::harness::repository;
use crate::harness::rounds::Rounds;
use crate::harness::saved::Saved;
use crate::harness::tree::write;

/// A path with its versions: the first and the last snapshot of each, and the number of snapshots.
type Found = (String, Vec<(usize, usize, usize)>);

/// Returns each path that ends with `end`, with the first and last snapshot and the number of snapshots of each
/// version.
fn search(repo: &Repository, snapshots: &[Snapshot], end: &str) -> Vec<Found> {
    let mut all = Vec::new();
    let found = &mut |path: &[u8], versions: Vec<find::Version>| {
        let path = String::from_utf8(path.to_vec()).unwrap();
        all.push((path, versions.iter().map(|v| (v.first, v.last, v.count)).collect()));
        Ok(())
    };
    let matches_path = |path: &[u8], _: bool| path.ends_with(end.as_bytes());
    let unreadable = &mut |path: &[u8], why: &nfreezer::error::Error| panic!("{path:?}: {why}");
    let report = Report { matches_path: &matches_path, matches: &|_: &Node| true, found, unreadable };
    find::find(background(), &Trees::new(repo), snapshots, report).unwrap();
    all
}

#[test]
fn versions_are_grouped_over_all_snapshots() {
    let saved = Saved::new();
    let mut snapshots = Vec::new();
    saved.write("a/letter", 1, 100);
    for round in 0..6 {
        if round == 2 {
            saved.write("a/letter", 2, 100);
        }
        saved.write("other", round, 10);
        if round == 4 {
            std::fs::rename(saved.top().join("a"), saved.top().join("b")).unwrap();
        }
        snapshots.push(saved.push().snapshot);
    }
    let top = saved.top().to_str().unwrap().to_owned();
    let found = search(&saved.repo, &snapshots, "letter");
    let wanted =
        [(format!("{top}/a/letter"), vec![(0, 1, 2), (2, 3, 2)]), (format!("{top}/b/letter"), vec![(4, 5, 2)])];
    assert_eq!(found, wanted);
    let others = search(&saved.repo, &snapshots, "other");
    assert_eq!(others[0].1.len(), 6, "each snapshot has its own");
    assert_eq!(search(&saved.repo, &snapshots[..1], "a"), [(format!("{top}/a"), vec![(0, 0, 1)])]);
}

/// The different pages of some trees.
#[derive(Default)]
struct Pages(Mutex<HashSet<ChunkId>>);

impl Pages {
    fn of(repo: &Repository, snapshots: &[Snapshot]) -> u64 {
        let roots: Vec<Ref> = snapshots.iter().filter_map(|snapshot| snapshot.root).collect();
        let pages = Pages::default();
        walk(background(), repo, None, &roots, 1 << 20, &pages).unwrap();
        let mut all = pages.0.into_inner().unwrap();
        all.extend(roots.iter().map(|root| root.id));
        all.len() as u64
    }
}

impl Visit for Pages {
    fn references(&self, references: &[(ChunkKind, Ref)]) {
        let pages = references.iter().filter(|(kind, _)| *kind == ChunkKind::Page);
        self.0.lock().unwrap().extend(pages.map(|(_, page)| page.id));
    }

    fn read(&self, _: u64, _: &[Node]) {}

    fn unreadable(&self, page: &Ref, why: &nfreezer::error::Error) {
        panic!("{page:?}: {why}");
    }
}

/// Returns the number of blocks of which pages were decoded.
fn decoded(repo: &Repository) -> u64 {
    let stats = repo.cache_stats();
    stats.hits + stats.reads
}

#[test]
fn pages_that_snapshots_share_are_read_once_and_others_many_at_a_time() {
    let saved = Saved::on(Arc::<Between<Rounds>>::default());
    for i in 0..6000 {
        write(saved.top().join(format!("{}/{i:05}{}", i / 100, "x".repeat(60))), b"x");
    }
    let mut snapshots = vec![saved.push().snapshot];
    for i in 0..40 {
        write(saved.top().join("0/changing"), format!("{i}"));
        snapshots.push(saved.push().snapshot);
    }
    let reads = |snapshots: &[Snapshot]| {
        let repo = repository::open(saved.memory.clone());
        saved.memory.take();
        let before = decoded(&repo);
        assert_eq!(search(&repo, snapshots, "/05999").len(), 0);
        let (decoded, reads) = (decoded(&repo) - before, saved.memory.take());
        let different = Pages::of(&repo, snapshots);
        // A page on the border of two blocks counts twice.
        assert!((different..different + different / 5 + 10).contains(&decoded), "{decoded} {different}");
        reads
    };
    let (one, all) = (reads(&snapshots[..1]), reads(&snapshots));
    // Each further snapshot has a metadata pack of its own, which is read at once.
    assert!(all.reads <= one.reads + 40, "{one:?} {all:?}");
    assert!(all.rounds <= one.rounds + 12, "{one:?} {all:?}");
    let same: Vec<Snapshot> = std::iter::repeat_n(snapshots[0].clone(), 40).collect();
    assert_eq!(reads(&same).reads, one.reads, "equal trees");
}

#[test]
fn the_command_filters_by_name_size_time_type_and_owner() {
    let env = Env::with_repository();
    env.write("src/Letter.TXT", "12345");
    env.write("src/folder/letter.txt", "1");
    env.nfreezer(["push", "src"]).done();
    env.nfreezer(["push", "src", "--tag", "second"]).done();
    let find = |arguments: &[&str]| {
        let objects = env.nfreezer([&["find", "--json"], arguments].concat()).success().objects();
        let matches = objects.iter().filter(|o| o["type"] == "match");
        matches
            .map(|o| (o["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned(), o["snapshots"].clone()))
            .collect::<Vec<_>>()
    };
    let [upper, lower] = ["Letter.TXT", "letter.txt"].map(|name| vec![(name.to_owned(), 2.into())]);
    assert_eq!(find(&["letter.*"]), lower);
    assert_eq!(find(&["letter.*", "--ignore-case"]), [upper.clone(), lower.clone()].concat());
    assert_eq!(find(&["*.[tT]*", "--larger", "2"]), upper);
    assert_eq!(find(&["*", "--smaller", "2"]), lower);
    assert_eq!(find(&["folder", "--type", "d"]), [("folder".to_owned(), 2.into())]);
    assert_eq!(find(&["*.txt", "--older", "yesterday"]), []);
    assert_eq!(find(&["*.txt", "--newer", "yesterday"]), lower);
    assert_eq!(find(&["*.txt", "--owner", "no such user"]), []);
    assert_eq!(find(&["*.txt", "--tag", "second"]), [("letter.txt".to_owned(), 1.into())]);
    assert_eq!(find(&["*.txt", "--snapshot", "latest"]), [("letter.txt".to_owned(), 1.into())]);
    let text = env.nfreezer(["find", "letter.txt"]).success().stdout;
    assert!(
        text.contains("/folder/letter.txt\n    -rw")
            && text.ends_with("(2 snapshots)\n1 path, 1 version in 2 snapshots\n"),
        "{text}"
    );
    env.nfreezer(["find"]).fails(2);
    env.nfreezer(["find", "["]).fails(2);
}
