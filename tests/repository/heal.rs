//! After damage the next push restores all contents that are still on the disk, also for earlier snapshots.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::mounted::Mounted;
use crate::harness::saved::{Saved, files};
use crate::harness::tree::noise;
use nfreezer::check::{Options, Part};
use nfreezer::context::background;
use nfreezer::format::node::Content;
use nfreezer::format::record::{Head, Snapshot};
use nfreezer::format::reference::Extent;
use nfreezer::name::ObjectId;
use nfreezer::progress::{Event, Progress};
use nfreezer::push;
use nfreezer::repo::Repository;
use nfreezer::trees::Trees;

fn reading() -> Options {
    Options { read: Some(Part::All), ..Options::default() }
}

/// Makes files of several packs, and two snapshots of them.
fn saved() -> (Saved, Snapshot, Snapshot) {
    let saved = Saved::new();
    saved.write("a/large", 1, 20 << 20);
    for i in 0..20 {
        saved.write(&format!("b/{i}"), 10 + i, 3000);
    }
    let first = saved.push().snapshot;
    saved.write("c/new", 50, 3000);
    let second = saved.push().snapshot;
    (saved, first, second)
}

fn is_whole(saved: &Saved) {
    let (report, told) = saved.check(&reading());
    assert!(!report.is_damaged(), "{report:?}\n{told:?}");
}

#[test]
fn a_push_sends_again_what_was_in_a_missing_pack() {
    let (saved, first, second) = saved();
    let small = saved.chunk_of(&first, "b/3");
    let other = saved.chunks(&first, "a/large").into_iter().find(|r| r.pack != small.pack).unwrap();
    saved.remove(&small);
    saved.remove(&other);
    assert!(saved.check(&Options::default()).0.is_damaged());
    let healed = saved.push();
    assert!(healed.added > 16 << 20 && healed.added < 30 << 20, "{}", healed.added);
    is_whole(&saved);
    for snapshot in [&healed.snapshot, &second] {
        saved.assert_read_everywhere(snapshot);
    }
    fs::remove_file(saved.top().join("c/new")).unwrap();
    fs::remove_dir(saved.top().join("c")).unwrap();
    let (_keep, target, summary) = saved.restore(&first);
    assert_eq!(summary.damaged, 0, "the oldest one is whole as well");
    assert_eq!(fs::read(target.join("a/large")).unwrap(), noise(1, 20 << 20));
    // The next push sends nothing more.
    assert_eq!(saved.push().packs, 1, "a page for what was removed just now");
}

#[test]
fn t37_new_contents_are_not_taken_for_known_ones_in_a_pack_that_is_gone() {
    let (saved, first, _) = saved();
    saved.remove(&saved.chunk_of(&first, "b/3"));
    fs::remove_dir_all(saved.top().join("b")).unwrap();
    saved.write("copy", 13, 3000); // the contents of b/3
    let snapshot = saved.push().snapshot;
    saved.assert_read_everywhere(&snapshot);
    let (report, told) = saved.check(&Options { snapshots: vec![snapshot], ..reading() });
    assert!(!report.is_damaged(), "{told:?}");
}

#[test]
fn damage_that_only_reading_shows_is_healed_after_repair() {
    let (saved, first, second) = saved();
    saved.flip(&saved.chunk_of(&first, "b/7"));
    let large = saved.chunks(&first, "a/large");
    saved.flip(&large[large.len() / 2]);
    assert_eq!(saved.push().packs, 0, "a push alone does not see it");
    assert!(saved.check(&reading()).0.is_damaged());
    let (repaired, _) = saved.repair(&reading(), false);
    assert!(!repaired.condemned.is_empty() && repaired.replaced.iter().all(|(_, new)| new.is_none()));
    let healed = saved.push().snapshot;
    is_whole(&saved);
    for snapshot in [&healed, &second] {
        saved.assert_read_everywhere(snapshot);
    }
}

#[test]
fn a_mount_shows_what_was_sent_again() {
    let (saved, first, second) = saved();
    saved.flip(&saved.chunk_of(&first, "b/7"));
    let large = saved.chunks(&first, "a/large");
    saved.flip(&large[large.len() / 2]);
    saved.remove(&large[large.len() - 1]);
    saved.repair(&reading(), false);
    saved.push();
    is_whole(&saved);
    let repo = Arc::new(saved.repo.behind(saved.memory.clone()));
    let state = repo.state(background()).unwrap();
    let mounted = Mounted::new(repo, state);
    for (snapshot, missing) in [(&second, None), (&first, Some("c"))] {
        let top = saved.top().display().to_string();
        let shown = files(&mounted.path(&format!("ids/{}{top}", snapshot.id.short())));
        let mut disk = files(&saved.top());
        disk.retain(|path, _| missing.is_none_or(|missing| !Path::new(path).starts_with(missing)));
        assert_eq!(shown, disk);
    }
}

#[test]
fn a_place_that_is_damaged_again_is_passed_over_for_the_next_one() {
    let (saved, first, _) = saved();
    for _ in 0..2 {
        let newest = saved.repo.state(background()).unwrap().snapshots().pop().unwrap();
        saved.flip(&saved.chunk_of(&newest, "b/7"));
        saved.repair(&reading(), false);
        saved.push();
    }
    is_whole(&saved);
    saved.assert_read_everywhere(&saved.push().snapshot);
    let (_keep, _, summary) = saved.restore(&first);
    assert_eq!(summary.damaged, 0, "two of three places are damaged");
}

#[test]
fn repaired_at_once_and_pushed_afterwards() {
    let (saved, first, _) = saved();
    let large = saved.chunks(&first, "a/large");
    saved.flip(&large[0]);
    saved.remove(&saved.chunk_of(&first, "b/1"));
    saved.repair(&reading(), true);
    is_whole(&saved);
    let healed = saved.push().snapshot;
    is_whole(&saved);
    saved.assert_read_everywhere(&healed);
    // The forgotten snapshots are whole again too, because their chunks are back.
    let forgotten = saved.repo.state(background()).unwrap().forgotten();
    assert!(!forgotten.is_empty());
    saved.assert_read_everywhere(&forgotten[forgotten.len() - 1]);
}

#[test]
fn lost_folders_are_healed_for_the_newest_snapshot() {
    let (saved, first, _) = saved();
    saved.remove(&saved.chunk_of(&first, "b"));
    let healed = saved.push().snapshot;
    saved.assert_read_everywhere(&healed);
    let (report, told) = saved.check(&reading());
    assert!(told.hit(&healed, &saved.top()).is_empty(), "{told:?}");
    assert!(report.is_damaged(), "pages of old snapshots do not come back by themselves");
    saved.repair(&Options::default(), true);
    is_whole(&saved);
}

/// Returns every pack that a snapshot's files refer to.
fn packs_of(repo: &Repository, snapshot: &Snapshot, top: &Path) -> Vec<ObjectId> {
    let mut open = vec![Trees::new(repo).at(background(), snapshot, top.display().to_string().as_bytes()).unwrap()];
    let mut packs = Vec::new();
    while let Some(node) = open.pop() {
        if let Content::Directory(page) = &node.content {
            open.extend(Trees::new(repo).entries(background(), page.as_ref()).map(Result::unwrap));
        }
        packs.extend(Trees::new(repo).extents(background(), &node.content).filter_map(|e| match e.unwrap() {
            Extent::Data(r) => Some(r.pack.id),
            Extent::Hole(_) => None,
        }));
    }
    packs
}

/// Another client, which condemns packs when the push reads its first file.
struct Prune<'r> {
    repo: &'r Repository,
    packs: Mutex<Vec<ObjectId>>,
    done: AtomicBool,
}

impl Progress for Prune<'_> {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Done { bytes: 1.., .. }) && !self.done.swap(true, Ordering::SeqCst) {
            let mut condemned: Vec<_> = self.packs.lock().unwrap().iter().map(|id| (*id, 1)).collect();
            condemned.sort_unstable();
            condemned.dedup();
            let mut state = self.repo.state(background()).unwrap();
            self.repo.commit(background(), &mut state, Head { condemned, ..Head::default() }, &[]).unwrap();
        }
    }
}

#[test]
fn packs_that_are_condemned_while_a_push_runs_are_not_in_its_snapshot() {
    let (saved, first, _) = saved();
    let condemned = saved.chunk_of(&first, "b/3").pack.id;
    saved.write("d/more", 77, 3000);
    let other = saved.repo.behind(saved.memory.clone());
    let prune = Prune { repo: &other, packs: Mutex::new(vec![condemned]), done: AtomicBool::new(false) };
    let snapshot = push::push(&background().with_progress(&prune), &saved.repo, &saved.options()).unwrap().snapshot;
    assert!(prune.done.load(Ordering::SeqCst));
    assert!(packs_of(&saved.repo, &first, &saved.top()).contains(&condemned));
    assert!(!packs_of(&saved.repo, &snapshot, &saved.top()).contains(&condemned));
    saved.assert_read_everywhere(&snapshot);
    let shown = saved.repo.state(background()).unwrap().snapshots();
    assert_eq!(shown.len(), 3, "what the first attempt has left is gone");
}
