//! The cost of reading the newest snapshot of a repository after many pushes and a prune, beside a fresh repository.

use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::format::record::{Action, Snapshot};
use nfreezer::prune::{self, Unused};
use nfreezer::push;
use nfreezer::repo::{Access, Repository};
use nfreezer::restore;
use nfreezer::seen::SeenStore;
use nfreezer::vfs::{self, Kind, Mode, Vfs, inode};

use super::world::options;
use crate::harness::Dice;
use crate::harness::faults::Between;
use crate::harness::repository::{open, passphrase};
use crate::harness::rounds::{Reads, Rounds};
use crate::harness::saved::Saved;

type Counted = Saved<Between<Rounds>>;

const FILES: u64 = 2000;
const PUSHES: u64 = 50;
/// Files that are edited before each push.
const EDITED: usize = 10;

fn name(i: u64) -> String {
    format!("{}/{}/{i}", i / 400, i / 20 % 20)
}

/// Restores a snapshot in a new process, and counts.
fn reads(saved: &Counted, snapshot: &Snapshot) -> Reads {
    let (repo, target) = (open(saved.memory.clone()), tempfile::tempdir_in("/dev/shm").unwrap());
    saved.memory.take();
    let state = Some(repo.state(background()).unwrap());
    let options = restore::Options { state, ..restore::Options::default() };
    restore::restore(background(), &repo, snapshot, b"/", &target.path().join("out"), &options).unwrap();
    saved.memory.take()
}

/// Pushes in a new process, and counts.
fn push_reads(saved: &Counted) -> Reads {
    saved.memory.take();
    push::push(background(), &open(saved.memory.clone()), &saved.options()).unwrap();
    saved.memory.take()
}

/// Mounts a snapshot in a new process, lists all its folders, and counts.
fn list_reads(saved: &Counted, snapshot: &Snapshot) -> Reads {
    saved.memory.take();
    let repo = Arc::new(open(saved.memory.clone()));
    let state = repo.state(background()).unwrap();
    let at = Some((snapshot.clone(), b"/".to_vec()));
    let vfs = Vfs::new(background(), repo, state, vfs::Options { at, ..vfs::Options::default() }).unwrap();
    list(&vfs, inode::ROOT);
    saved.memory.take()
}

fn list(vfs: &Vfs, directory: u64) {
    let mut below = Vec::new();
    let add = &mut |entry: &vfs::Entry<'_>| {
        let is_below = entry.attr.kind == Kind::Directory && !entry.name.starts_with(b".");
        below.extend(is_below.then_some(entry.attr.ino));
        false
    };
    vfs.readdir(directory, 0, true, Mode::Fetch(background()), add).unwrap();
    below.into_iter().for_each(|ino| list(vfs, ino));
}

fn forget(saved: &Counted, snapshots: &[Snapshot]) {
    let mut state = saved.repo.state(background()).unwrap();
    let marks = snapshots.iter().map(|s| (s.id, Action::Forget));
    saved.repo.commit_marks(background(), &mut state, marks).unwrap();
}

fn pruned(saved: &Counted, max_unused: Unused) -> prune::Report {
    let seen = tempfile::tempdir().unwrap();
    let access = Access { seen: Some(SeenStore::at(seen.path())), ..Access::default() };
    let open = || Repository::open_with(background(), saved.memory.clone(), &access, || Ok(passphrase())).unwrap();
    open().state(background()).unwrap();
    let options = prune::Options { exclusive: true, yes: true, max_unused, ..options() };
    prune::prune(background(), &open(), &options, &mut |_| Ok(())).unwrap()
}

#[test]
fn the_newest_snapshot_of_a_pruned_repository_is_read_like_a_fresh_one() {
    let (saved, fresh): (Counted, Counted) = (Saved::on(Arc::default()), Saved::on(Arc::default()));
    let mut dice = Dice(1);
    let len = |i: u64| 300 + (i * i * 37 % 9000) as usize;
    (0..FILES).for_each(|i| saved.write(&name(i), i, len(i)));
    let mut snapshots = vec![saved.push().snapshot];
    for push in 1..=PUSHES {
        for _ in 0..EDITED {
            let i = dice.roll(FILES);
            saved.write(&name(i), push * FILES + i, len(i) + 20);
        }
        snapshots.push(saved.push().snapshot);
    }
    let newest = snapshots.last().unwrap();
    let options = nfreezer::push::Options { sources: vec![saved.top()], ..fresh.options() };
    let same = nfreezer::push::push(background(), &fresh.repo, &options).unwrap().snapshot;
    let wanted = reads(&fresh, &same);
    let aged = reads(&saved, newest);
    let report = pruned(&saved, Unused::Percent(10.0));
    assert!(report.repacked.objects >= PUSHES, "{report:?}");
    let kept_all = reads(&saved, newest);
    forget(&saved, &snapshots[..PUSHES as usize]);
    pruned(&saved, Unused::Percent(10.0));
    let kept_newest = reads(&saved, newest);
    let listed = [list_reads(&saved, newest), list_reads(&fresh, &same)];
    let unchanged = [push_reads(&saved), push_reads(&saved)];
    println!("listed {listed:?}\nunchanged {unchanged:?}");
    saved.write("more", 1, 10);
    let pushed = reads(&saved, &saved.push().snapshot);
    println!("fresh {wanted:?}\naged {aged:?}");
    println!("pruned {kept_all:?}\nall others forgotten {kept_newest:?}\npushed {pushed:?}");
    // Before the next push, the chunks are found through the index, of which a reader fetches a block of each section.
    for (found, percent) in [(kept_all, 120), (kept_newest, 120), (pushed, 105)] {
        assert!(found.bytes * 100 <= wanted.bytes * percent, "{found:?} beside {wanted:?}");
        assert!(found.reads < aged.reads / 2, "{found:?} beside {aged:?}");
        // The number of rounds depends on the load of the machine, but is never above the number of reads.
        assert!(found.reads <= 48, "{found:?} beside {wanted:?}");
    }
    assert!(listed[0].reads <= 20, "{listed:?}");
    // The first push after a prune names the new places of chunks.
    assert!(unchanged.iter().all(|push| push.reads <= 32), "{unchanged:?}");
    saved.repo.forget_blocks();
    saved.assert_restores(&saved.push().snapshot);
}
