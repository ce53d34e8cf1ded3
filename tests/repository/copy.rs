//! A copied snapshot is the same in another repository. Nothing is read or sent twice, also after an interruption.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nfreezer::check::{Options as CheckOptions, Part};
use nfreezer::context::{Context, background};
use nfreezer::error::{Kind, Result};
use nfreezer::format::record::{PINNED, Snapshot};
use nfreezer::name::Folder;
use nfreezer::push::{self, Copied, Copier, Existing, Options, Summary};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};
use nfreezer::trees::Trees;

use crate::harness::hook::{Hook, hook};
use crate::harness::repository;
use crate::harness::saved::Saved;
use crate::harness::stop_after::StopAfter;
use crate::harness::tree::{assert_same, flagged, in_partial, in_snapshot, nasty, noise, set_xattr, settle, write};

struct Setup {
    from: Saved,
    storage: Arc<Hook>,
    to: Repository,
}

impl Setup {
    fn new() -> Self {
        let storage = hook(Memory::default());
        Setup { from: Saved::new(), to: repository::init(storage.clone()), storage }
    }

    fn copy(&self, snapshot: &Snapshot) -> Summary {
        let done = copy(background(), &self.from.repo, &self.to, snapshot).unwrap();
        self.assert_equal(snapshot, &done.snapshot);
        done
    }

    fn assert_equal(&self, snapshot: &Snapshot, copy: &Snapshot) {
        self.to.forget_blocks();
        let top = self.from.top();
        assert_same(&in_snapshot(&self.from.repo, snapshot, &top), &in_snapshot(&self.to, copy, &top));
        assert_eq!(flagged(&self.from.repo, snapshot), flagged(&self.to, copy));
    }

    fn packs(&self) -> usize {
        (0..16).map(|shard| self.storage.list(background(), Folder::PackShard(shard)).unwrap().len()).sum()
    }
}

fn copy(ctx: &Context, from: &Repository, to: &Repository, snapshot: &Snapshot) -> Result<Summary> {
    let (trees, snapshots) = (Trees::new(from), snapshots(from));
    match Copier::new(&trees, &snapshots).copy(ctx, to, snapshot, &Options::default())? {
        Copied::Whole(summary) => Ok(*summary),
        Copied::Damaged(error) => Err(error),
    }
}

fn snapshots(repo: &Repository) -> Vec<Snapshot> {
    repo.state(background()).unwrap().snapshots()
}

/// Writes a file with more extents than one page of a reference list holds.
fn long_list(setup: &Setup) {
    let file = File::create(setup.from.top().join("long-list")).unwrap();
    (0..1700).for_each(|i| file.write_all_at(&noise(i, 4096), i << 17).unwrap());
}

#[test]
fn everything_in_a_snapshot_is_copied_and_recognised() {
    let setup = Setup::new();
    setup.from.write("first", 1, 3 << 20);
    nasty(&setup.from.top());
    (0..3000).for_each(|i| write(setup.from.top().join(format!("many/{i:05}-{}", "x".repeat(100))), b"x"));
    long_list(&setup);
    setup.from.write("large", 2, 9 << 20);
    set_xattr(&setup.from.top().join("large"), "user.large", &noise(3, 20_000));
    let tags = vec![PINNED.into(), "monthly".into()];
    let options = Options { tags, description: "before the move".into(), ..setup.from.options() };
    let snapshot = push::push(background(), &setup.from.repo, &options).unwrap().snapshot;
    let done = setup.copy(&snapshot);
    let expected = Snapshot {
        id: done.snapshot.id,
        root: done.snapshot.root,
        group: done.snapshot.group,
        extra: done.snapshot.extra.clone(),
        ..snapshot.clone()
    };
    assert_eq!(done.snapshot, expected, "time, host, paths, tags, description and figures are the same");
    assert_eq!(done.snapshot.copy_of(), Some(snapshot.id));
    assert!(done.snapshot.id != snapshot.id && done.snapshot.root.unwrap().id != snapshot.root.unwrap().id);
    assert_eq!(snapshots(&setup.to), std::slice::from_ref(&done.snapshot));
    assert!(Existing::of(&setup.to.state(background()).unwrap()).has(&snapshot, true));
    let packs = setup.packs();
    let again = setup.copy(&snapshot);
    assert_eq!((again.read, setup.packs()), (0, packs), "a second copy needs no packs");
}

#[test]
fn only_changes_are_read_and_contents_that_are_there_are_not_sent() {
    let setup = Setup::new();
    (0..40).for_each(|i| setup.from.write(&format!("d{}/{i}", i % 4), i, 100_000));
    setup.from.write("large", 50, 6 << 20);
    let first = setup.copy(&setup.from.push().snapshot);
    assert_eq!(first.read, 4_000_000 + (6 << 20));
    setup.from.write("d1/1", 60, 70_000);
    setup.from.write("new", 61, 30_000);
    fs::rename(setup.from.top().join("d2"), setup.from.top().join("moved")).unwrap();
    fs::remove_file(setup.from.top().join("d3/3")).unwrap();
    settle();
    let second = setup.copy(&setup.from.push().snapshot);
    assert_eq!(second.read, 100_000 + 1_000_000, "changed and new files, and those of the moved directory");
    assert!(second.added < 200_000, "{} bytes are new", second.added);
    // A later push of the same files to the target reads nothing: the copy is its parent.
    let direct = push::push(background(), &setup.to, &setup.from.options()).unwrap();
    assert_eq!((direct.read, direct.parent), (0, Some(second.snapshot.id)));
}

#[test]
fn an_interrupted_copy_goes_on_where_it_stopped_and_sends_nothing_twice() {
    let setup = Setup::new();
    (0..30).for_each(|i| setup.from.write(&format!("a/{}/{i}", i % 7), i, 100_000));
    setup.from.write("b/large", 100, 40 << 20);
    (0..30).for_each(|i| setup.from.write(&format!("c/{i}"), 200 + i, 100_000));
    let total = 30 * 200_000 + (40 << 20);
    let snapshot = setup.from.push().snapshot;
    let stop = Arc::default();
    let progress = StopAfter::new(28 << 20, Arc::clone(&stop));
    let ctx = Context::new(&progress, stop);
    let error = copy(&ctx, &setup.from.repo, &setup.to, &snapshot).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted(15));
    assert!(error.hint_text().unwrap().contains("run the same copy again"), "{error}");
    let [partial] = &snapshots(&setup.to)[..] else { panic!("one unfinished copy") };
    assert!(partial.partial && !in_partial(&setup.to, partial, &setup.from.top()).is_empty());
    assert!(!Existing::of(&setup.to.state(background()).unwrap()).has(&snapshot, false));
    let done = setup.copy(&snapshot);
    let before = partial.stats;
    assert!(done.read <= total - before.bytes, "{} read after {}", done.read, before.bytes);
    // The contents that were read are not sent again, not even those of incomplete files.
    assert!(before.added >= 28 << 20, "{}", before.added);
    assert!(done.added + before.added < total + (1 << 20), "{} and {} of {total}", done.added, before.added);
    assert_eq!(snapshots(&setup.to), [done.snapshot], "the unfinished one has ended");
}

#[test]
fn a_damaged_snapshot_is_named_and_not_copied_and_the_others_are() {
    let setup = Setup::new();
    (0..20).for_each(|i| setup.from.write(&format!("file{i}"), i, 100_000));
    let first = setup.from.push().snapshot;
    setup.from.write("dir/broken", 40, 300_000);
    let second = setup.from.push().snapshot;
    fs::remove_file(setup.from.top().join("dir/broken")).unwrap();
    setup.from.write("late", 41, 100_000);
    let third = setup.from.push().snapshot;
    setup.from.flip(&setup.from.chunk_of(&second, "dir/broken"));
    setup.from.repo.forget_blocks();
    setup.copy(&first);
    let error = copy(background(), &setup.from.repo, &setup.to, &second).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("/top/dir/broken: "), "{error}");
    assert!(error.hint_text().unwrap().contains("nfreezer repair"));
    assert_eq!(snapshots(&setup.to).len(), 1, "no part of it is shown");
    setup.copy(&third);
    // The repaired snapshot can be copied, with a hole where contents are lost.
    let (repaired, _) = setup.from.repair(&CheckOptions { read: Some(Part::All), ..CheckOptions::default() }, true);
    let (_, Some(by)) = repaired.replaced[0] else { panic!("one snapshot is replaced") };
    let state = setup.from.repo.state(background()).unwrap();
    let snapshot = state.snapshots().into_iter().find(|s| s.id == by).unwrap();
    let done = copy(background(), &setup.from.repo, &setup.to, &snapshot).unwrap();
    assert_eq!(flagged(&setup.to, &done.snapshot), flagged(&setup.from.repo, &snapshot));
    assert_eq!(flagged(&setup.to, &done.snapshot).len(), 1);
    let copied = in_snapshot(&setup.to, &done.snapshot, &setup.from.top());
    assert_eq!(copied.len(), in_snapshot(&setup.from.repo, &first, &setup.from.top()).len() + 2);
}

#[test]
fn a_copy_of_a_copy_has_the_same_origin_and_contents() {
    let (setup, last) = (Setup::new(), repository::in_memory().1);
    (0..20).for_each(|i| setup.from.write(&format!("d/{i}"), i, 10_000));
    let first = setup.from.push().snapshot;
    let copied = setup.copy(&first).snapshot;
    let again = copy(background(), &setup.to, &last, &copied).unwrap().snapshot;
    let top = setup.from.top();
    assert_same(&in_snapshot(&last, &again, &top), &in_snapshot(&setup.from.repo, &first, &top));
    assert_eq!(again.origin(), first.id);
    for repo in [&setup.from.repo, &setup.to, &last] {
        let existing = Existing::of(&repo.state(background()).unwrap());
        assert!([&first, &copied, &again].iter().all(|snapshot| existing.has(snapshot, true)));
    }
    // The next snapshot is copied to the last repository directly, and is still compared with the copies there.
    setup.from.write("new", 1, 1000);
    let second = setup.from.push().snapshot;
    assert_eq!(copy(background(), &setup.from.repo, &last, &second).unwrap().read, 1000);
}

#[test]
fn contents_that_the_target_has_lost_are_sent_again() {
    let setup = Setup::new();
    (0..20).for_each(|i| setup.from.write(&format!("d/file{i}"), i, 100_000));
    let first = setup.copy(&setup.from.push().snapshot);
    for shard in 0..16 {
        for entry in setup.storage.list(background(), Folder::PackShard(shard)).unwrap() {
            if entry.size > 1 << 20 {
                setup.storage.remove(background(), &entry.name).unwrap();
            }
        }
    }
    setup.from.write("new", 30, 1000);
    let second = setup.copy(&setup.from.push().snapshot);
    assert!(second.added > 2_000_000 && first.added > 2_000_000, "{} bytes are sent again", second.added);
}
