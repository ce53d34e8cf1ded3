//! The pages of a tree stay together on the server after many pushes.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::harness::saved::Saved;
use nfreezer::context::background;
use nfreezer::crypto::keys::ChunkKind;
use nfreezer::error::Error;
use nfreezer::format::node::Node;
use nfreezer::format::record::Snapshot;
use nfreezer::format::reference::Ref;
use nfreezer::name::ObjectId;
use nfreezer::trees::{Visit, walk};

/// The packs that hold the pages of trees, and the number of pages.
#[derive(Default)]
struct Pages(Mutex<(HashSet<ObjectId>, usize)>);

impl Visit for Pages {
    fn references(&self, references: &[(ChunkKind, Ref)]) {
        let mut pages = self.0.lock().unwrap();
        for (_, r) in references.iter().filter(|(kind, _)| *kind == ChunkKind::Page) {
            pages.0.insert(r.pack.id);
            pages.1 += 1;
        }
    }

    fn read(&self, _: u64, _: &[Node]) {}

    fn unreadable(&self, page: &Ref, why: &Error) {
        panic!("{page:?}: {why}");
    }
}

fn pages(saved: &Saved, snapshot: &Snapshot) -> (usize, usize) {
    let pages = Pages::default();
    walk(background(), &saved.repo, None, &[snapshot.root.unwrap()], 1 << 20, &pages).unwrap();
    let (packs, pages) = pages.0.into_inner().unwrap();
    (packs.len(), pages)
}

/// Makes 60 directories and pushes `count` times, each time after a change in two of them.
fn many_pushes(count: u64) -> (Saved, Vec<Snapshot>) {
    let saved = Saved::new();
    for d in 0..60 {
        for f in 0..3 {
            saved.write(&format!("{}/{d}/{f}", d % 6), d * 3 + f, 500);
        }
    }
    let mut snapshots = vec![saved.push().snapshot];
    for i in 1..=count {
        for d in [i % 60, (i * 7 + 30) % 60] {
            saved.write(&format!("{}/{d}/1", d % 6), 1000 + i, 600 + i as usize);
        }
        let summary = saved.push();
        assert_eq!(summary.packs, 2, "push {i}: one of contents, one of metadata");
        snapshots.push(summary.snapshot);
    }
    (saved, snapshots)
}

#[test]
fn the_pages_of_every_snapshot_lie_in_few_packs_however_many_pushes_came_before() {
    let (saved, snapshots) = many_pushes(40);
    for (i, snapshot) in snapshots.iter().enumerate() {
        let (packs, pages) = pages(&saved, snapshot);
        assert!(packs <= 9 + 1 && pages >= 60, "snapshot {i}: {pages} pages in {packs} packs");
    }
    saved.assert_read_everywhere(snapshots.last().unwrap());
    let (report, told) = saved.check(&nfreezer::check::Options::default());
    assert!(!report.is_damaged(), "{told:?}");
}

#[test]
fn a_push_without_changes_after_pages_were_gathered_adds_nothing() {
    let (saved, snapshots) = many_pushes(9);
    let root = snapshots.last().unwrap().root;
    assert!(pages(&saved, snapshots.last().unwrap()).0 < 9);
    let again = saved.push();
    assert_eq!((again.packs, again.snapshot.root), (0, root));
}
