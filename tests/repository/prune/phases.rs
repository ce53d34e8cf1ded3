//! The two phases of `prune`, repacking, and events between the phases.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use super::world::{DAY, HOUR, World, options, run};
use crate::harness::faults::{Answer, Between, Call, Rule};
use nfreezer::context::{Context, background};
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::record::Head;
use nfreezer::name::{Name, ObjectId};
use nfreezer::prune::{Options, Unused};
use nfreezer::push;
use nfreezer::storage::{Memory, Storage};

#[test]
fn an_unused_pack_is_condemned_and_deleted_a_grace_time_later() {
    let (world, _, pack) = World::forgotten();
    let repo = world.client("a");
    let first = run(&repo, &options()).unwrap();
    assert!(first.condemned.objects >= 1 && first.deleted.objects == 0 && first.doubt.is_none(), "{first:?}");
    world.clock.set(DAY - HOUR);
    assert_eq!(run(&repo, &options()).unwrap().deleted.objects, 0, "the grace time goes on");
    assert!(world.has(&pack));
    world.clock.set(DAY + HOUR);
    let last = run(&repo, &options()).unwrap();
    assert!(last.deleted.objects >= 1 && last.doubt.is_none(), "{last:?}");
    assert!(!world.has(&pack));
    world.assert_whole();
    world.saved.write("new", 60, 1000);
    let snapshot = world.saved.push().snapshot;
    world.saved.assert_restores(&snapshot);
    world.clock.set(3 * DAY);
    assert_eq!(run(&repo, &options()).unwrap().deleted.objects, 0, "nothing is left to delete");
}

#[test]
fn a_forgotten_snapshot_keeps_its_data_until_its_time_has_passed_here() {
    let (world, first, pack) = World::forgotten();
    let (repo, options) = (world.client("a"), Options { keep_forgotten: Duration::from_secs(14 * 86400), ..options() });
    for day in [0, 2, 13] {
        world.clock.set(day * DAY);
        run(&repo, &options).unwrap();
    }
    assert!(world.has(&pack));
    world.saved.repo.state(background()).unwrap();
    for day in [15, 17] {
        world.clock.set(day * DAY);
        run(&repo, &options).unwrap();
    }
    assert!(!world.has(&pack));
    assert!(world.saved.repo.state(background()).unwrap().forgotten().iter().any(|s| s.id == first.id));
    world.assert_whole();
}

#[test]
fn a_push_that_is_interrupted_leaves_nothing_behind() {
    let world = World::new();
    world.saved.write("a", 1, 200_000);
    let snapshot = world.saved.push().snapshot;
    let orphan =
        world.saved.repo.put_pack(background(), nfreezer::crypto::seal::ObjectType::Data, &mut vec![7; 70_000]);
    let orphan = orphan.unwrap().id;
    let torso = ObjectId([0x5a; 32]);
    world.saved.memory.put(background(), &Name::Pack(torso), &[1; 50]).unwrap();
    let repo = world.client("a");
    let young = run(&repo, &options()).unwrap();
    assert_eq!(young.condemned.objects, 0, "they may belong to a push that goes on");
    for day in [1, 3] {
        world.clock.set(day * DAY);
        run(&repo, &options()).unwrap();
    }
    assert!(!world.has(&orphan) && !world.has(&torso));
    world.saved.assert_restores(&snapshot);
    world.assert_whole();
}

#[test]
fn packs_with_little_live_data_and_small_packs_are_repacked() {
    let world = World::new();
    for i in 0..20 {
        world.saved.write(&format!("keep/{i}"), i, 40_000);
        world.saved.write(&format!("drop/{i}"), 100 + i, 300_000);
        world.saved.push();
    }
    let all = world.saved.repo.state(background()).unwrap().snapshots();
    std::fs::remove_dir_all(world.saved.top().join("drop")).unwrap();
    let kept = world.saved.push().snapshot;
    all.iter().for_each(|snapshot| world.forget(snapshot));
    let bytes = || world.saved.packs().iter().map(|(_, size)| size).sum::<u64>();
    let (before, count) = (bytes(), world.saved.packs().len());
    let (repo, options) = (world.client("a"), Options { max_unused: Unused::Percent(10.0), yes: true, ..options() });
    let first = run(&repo, &options).unwrap();
    assert!(first.repacked.objects >= 10, "{first:?}");
    world.assert_whole();
    world.clock.set(2 * DAY);
    let last = run(&repo, &options).unwrap();
    assert!(last.deleted.objects >= 20 && last.copied == 0, "{last:?}");
    assert!(bytes() < before / 3 && world.saved.packs().len() < count / 3, "{} of {before}", bytes());
    world.saved.assert_read_everywhere(&kept);
    world.saved.write("more", 7, 1000);
    let next = world.saved.push().snapshot;
    world.saved.assert_read_everywhere(&next);
    world.clock.set(4 * DAY);
    run(&repo, &options).unwrap();
    world.clock.set(6 * DAY);
    run(&repo, &options).unwrap();
    world.saved.assert_read_everywhere(&next);
    std::fs::remove_file(world.saved.top().join("more")).unwrap();
    world.saved.assert_read_everywhere(&kept);
}

#[test]
fn a_condemned_pack_that_is_needed_again_is_copied_before_it_is_deleted() {
    let (world, first, pack) = World::forgotten();
    let meta = first.root.unwrap().pack.id;
    let repo = world.client("a");
    run(&repo, &options()).unwrap();
    let mut state = world.saved.repo.state(background()).unwrap();
    let undelete = [(first.id, nfreezer::format::record::Action::Undelete)];
    world.saved.repo.commit_marks(background(), &mut state, undelete).unwrap();
    world.clock.set(2 * DAY);
    let report = run(&repo, &options()).unwrap();
    assert!(report.copied > 0 && report.deleted.objects >= 2, "{report:?}");
    assert!(!world.has(&pack) && !world.has(&meta));
    world.saved.write("gone", 50, 200_000);
    world.saved.assert_read_everywhere(&first);
}

#[test]
fn two_pruners_at_once_delete_nothing_that_is_needed() {
    let (world, first, pack) = World::forgotten();
    let clients = ["a", "b"].map(|name| world.client(name));
    for day in [0, 2, 4] {
        world.clock.set(day * DAY);
        if day == 2 {
            let mut state = world.saved.repo.state(background()).unwrap();
            let undelete = [(first.id, nfreezer::format::record::Action::Undelete)];
            world.saved.repo.commit_marks(background(), &mut state, undelete).unwrap();
        }
        std::thread::scope(|scope| {
            clients.iter().for_each(|repo| {
                scope.spawn(move || drop(run(repo, &options())));
            });
        });
    }
    assert!(!world.has(&pack));
    world.saved.write("gone", 50, 200_000);
    world.saved.assert_read_everywhere(&first);
    world.assert_whole();
}

/// Fails each deletion of a pack, as if the run were killed between drop and delete.
struct NoRemove;

impl Rule for NoRemove {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        match call {
            Call::Remove(name) if storage.size(ctx, name).is_ok() => Err(Error::new(Kind::Connection, "killed")),
            call => call.of(ctx, storage),
        }
    }
}

#[test]
fn a_run_that_was_killed_between_drop_and_delete_is_continued() {
    let (world, _, pack) = World::forgotten();
    let repo = world.client("a");
    run(&repo, &options()).unwrap();
    world.clock.set(2 * DAY);
    let killed = world.client_on("a", Between::<_, Memory>::with(world.saved.memory.clone(), NoRemove));
    assert_eq!(run(&killed, &options()).unwrap_err().kind(), Kind::Connection);
    assert!(world.has(&pack) && world.saved.repo.state(background()).unwrap().dropped_packs().contains(&pack));
    run(&repo, &options()).unwrap();
    assert!(!world.has(&pack));
    world.assert_whole();
}

/// Calls a function once, when the drop record is put.
struct AtDrop(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Rule for AtDrop {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let answer = call.of(ctx, storage)?;
        if let Call::Put(Name::Record { .. }, _) = call
            && let Some(deed) = self.0.lock().unwrap().take()
        {
            deed();
        }
        Ok(answer)
    }
}

#[test]
fn a_snapshot_that_arrives_with_the_drop_record_keeps_its_chunks() {
    let (world, first, pack) = World::forgotten();
    let repo = world.client("a");
    run(&repo, &options()).unwrap();
    world.clock.set(2 * DAY);
    let (other, again) = (world.saved.repo.behind(world.saved.memory.clone()), first.clone());
    let deed = move || {
        // This writer does not look again, so only the fold after the drop record sees its snapshot.
        let snapshot =
            nfreezer::format::record::Snapshot { id: nfreezer::format::record::SnapshotId([9; 16]), ..again };
        let mut state = other.state(background()).unwrap();
        other.commit(background(), &mut state, Head { snapshots: vec![snapshot], ..Head::default() }, &[]).unwrap();
    };
    let storage = Between::<_, Memory>::with(world.saved.memory.clone(), AtDrop(Mutex::new(Some(Box::new(deed)))));
    let report = run(&world.client_on("a", storage), &options()).unwrap();
    assert!(report.copied > 0, "{report:?}");
    assert!(!world.has(&pack));
    world.saved.write("gone", 50, 200_000);
    world.saved.assert_read_everywhere(&first);
}

#[test]
fn an_interrupted_push_and_a_prune_leave_a_repository_that_the_next_push_completes() {
    let (world, _, _) = World::forgotten();
    let repo = world.client("a");
    // More than two of the largest chunks: a push that has read everything would be completed.
    world.saved.write("large", 77, 20 << 20);
    // The push ends after some chunks are stored. Its last commit looks nothing up.
    let signal = Arc::new(std::sync::atomic::AtomicI32::new(0));
    let stopping = Stop(Arc::clone(&signal));
    let ctx = Context::new(&stopping, signal);
    assert!(matches!(
        push::push(&ctx, &world.saved.repo, &world.saved.options()).unwrap_err().kind(),
        Kind::Interrupted(_)
    ));
    for day in [0, 2, 4] {
        world.clock.set(day * DAY);
        run(&repo, &options()).unwrap();
    }
    let snapshot = world.saved.push().snapshot;
    world.saved.assert_restores(&snapshot);
    world.assert_whole();
}

struct Stop(Arc<std::sync::atomic::AtomicI32>);

impl nfreezer::progress::Progress for Stop {
    fn event(&self, event: nfreezer::progress::Event<'_>) {
        if matches!(event, nfreezer::progress::Event::Done { bytes: 1.., .. }) {
            self.0.store(2, std::sync::atomic::Ordering::SeqCst);
        }
    }
}

/// A disk with room for this number of bytes.
struct Full(u64);

impl Rule for Full {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        if let Call::Put(_, bytes) = call {
            let folders = nfreezer::name::Folder::all();
            let used: u64 = folders.flat_map(|folder| storage.list(ctx, folder).unwrap()).map(|e| e.size).sum();
            if used + bytes.len() as u64 > self.0 {
                return Err(Error::new(Kind::NoSpace, "the disk is full"));
            }
        }
        call.of(ctx, storage)
    }
}

#[test]
fn an_exclusive_prune_frees_a_full_disk_and_the_interrupted_push_continues() {
    let (world, _, pack) = World::forgotten();
    let folders = || nfreezer::name::Folder::all();
    let used =
        || -> u64 { folders().flat_map(|f| world.saved.memory.list(background(), f).unwrap()).map(|e| e.size).sum() };
    // The disk is too full for any record. An interrupted push has left a pack that no record names.
    let orphan =
        world.saved.repo.put_pack(background(), nfreezer::crypto::seal::ObjectType::Data, &mut vec![7; 70_000]);
    let room = used() + 1000;
    let repo = world.client_on("a", Between::<_, Memory>::with(world.saved.memory.clone(), Full(room)));
    repo.state(background()).unwrap(); // this machine has seen the repository
    let repo = world.client_on("a", Between::<_, Memory>::with(world.saved.memory.clone(), Full(room)));
    world.saved.write("new", 70, 150_000);
    assert_eq!(push::push(background(), &repo, &world.saved.options()).unwrap_err().kind(), Kind::NoSpace);
    let exclusive = Options { exclusive: true, ..options() };
    let report = run(&repo, &exclusive).unwrap();
    assert!(report.deleted.objects > 0 && report.doubt.is_none(), "{report:?}");
    assert!(!world.has(&pack) && !world.has(&orphan.unwrap().id));
    let snapshot = push::push(background(), &repo, &world.saved.options()).unwrap().snapshot;
    world.saved.assert_restores(&snapshot);
    world.assert_whole();
}

#[test]
fn many_small_packs_are_merged_even_if_that_frees_nothing() {
    let world = World::new();
    for i in 0..24 {
        world.saved.write(&format!("{i}"), i, 64_000);
        world.saved.push();
    }
    let newest = world.saved.push().snapshot;
    let places: BTreeSet<ObjectId> = (0..24).map(|i| world.saved.chunk_of(&newest, &i.to_string()).pack.id).collect();
    assert_eq!(places.len(), 24);
    let (repo, options) = (world.client("a"), Options { max_unused: Unused::Percent(10.0), ..options() });
    let first = run(&repo, &options).unwrap();
    assert_eq!(first.repacked.objects, 24, "{first:?}");
    world.clock.set(2 * DAY);
    let last = run(&repo, &options).unwrap();
    assert!(last.deleted.objects >= 24 && last.copied == 0, "{last:?}");
    world.saved.assert_read_everywhere(&newest);
    world.clock.set(3 * DAY);
    assert_eq!(run(&repo, &options).unwrap().repacked.objects, 0, "once is enough");
    world.assert_whole();
}

#[test]
fn padding_of_merged_packs_is_no_reason_to_merge_them_again() {
    let world = World::new();
    for i in 0..20 {
        world.saved.write(&format!("{i}"), i, 64_000);
        world.saved.push();
    }
    // The newest snapshot needs 17 of the chunks. In a pack of their own, 17 % would be padding.
    (0..3).for_each(|i| std::fs::remove_file(world.saved.top().join(i.to_string())).unwrap());
    world.saved.push();
    let (repo, options) = (world.client("a"), Options { max_unused: Unused::Percent(10.0), ..options() });
    assert_eq!(run(&repo, &options).unwrap().repacked.objects, 20);
    for day in 2..4 {
        world.clock.set(day * DAY);
        assert_eq!(run(&repo, &options).unwrap().repacked.objects, 0);
    }
    world.assert_whole();
}
