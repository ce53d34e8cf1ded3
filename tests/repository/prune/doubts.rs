//! `prune` deletes nothing in case of doubt.

use std::sync::Mutex;

use super::world::{DAY, World, doubts, options, refused, run};
use crate::harness::faults::{Answer, Between, Call, Rule};
use nfreezer::context::{Context, background};
use nfreezer::error::Result;
use nfreezer::format::index;
use nfreezer::format::record::{Head, Snapshot, SnapshotId};
use nfreezer::format::sections::index_sections;
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::prune::Options;
use nfreezer::storage::{Memory, Storage};

/// Makes a world in which the next run deletes a pack.
fn ready() -> (World, ObjectId) {
    let (world, _, pack) = World::forgotten();
    run(&world.client("a"), &options()).unwrap();
    world.clock.set(2 * DAY);
    (world, pack)
}

#[test]
fn a_machine_without_memory_only_condemns() {
    let (world, _, pack) = World::forgotten();
    for day in [0, 2, 4] {
        world.clock.set(day * DAY);
        let repo = world.saved.repo.behind(world.saved.memory.clone()).with_clock(world.clock.clone());
        doubts(run(&repo, &options()), "no memory");
    }
    // A machine that sees the condemnation for the first time starts to wait then.
    let repo = world.client("new");
    assert_eq!(run(&repo, &options()).unwrap().deleted.objects, 0);
    world.clock.set(6 * DAY);
    assert!(run(&repo, &options()).unwrap().deleted.objects > 0);
    assert!(!world.has(&pack));
}

#[test]
fn a_server_with_times_of_1970_deletes_nothing() {
    let (world, _, pack) = World::forgotten();
    world.saved.memory.set_clock(Box::new(|| 0));
    let repo = world.client("a");
    for day in [0, 2, 4] {
        world.clock.set(day * DAY);
        doubts(run(&repo, &options()), "clocks disagree");
    }
    assert!(world.has(&pack));
}

#[test]
fn a_condemnation_of_1970_or_2100_changes_nothing() {
    for time in [0, 4_102_444_800] {
        let (world, _, pack) = World::forgotten();
        let mut state = world.saved.repo.state(background()).unwrap();
        let head = Head { condemned: vec![(pack, time)], ..Head::default() };
        world.saved.repo.commit(background(), &mut state, head, &[]).unwrap();
        let repo = world.client("a");
        assert_eq!(run(&repo, &options()).unwrap().deleted.objects, 0, "{time}");
        world.clock.set(DAY - 3600);
        assert_eq!(run(&repo, &options()).unwrap().deleted.objects, 0, "{time}");
        world.clock.set(2 * DAY);
        run(&repo, &options()).unwrap();
        assert!(!world.has(&pack), "{time}");
        world.assert_whole();
    }
}

/// Hides records in listings of the log.
#[derive(Default)]
struct Hide {
    records: Vec<Name>,
    /// Number of the only listing that hides the records; without it, all listings do.
    only: Option<usize>,
    listings: Mutex<usize>,
}

impl Rule for Hide {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let mut answer = call.of(ctx, storage)?;
        if let (Call::List(Folder::Log), Answer::Entries(entries)) = (call, &mut answer) {
            let mut listings = self.listings.lock().unwrap();
            *listings += 1;
            if self.only.is_none_or(|only| only == *listings) {
                entries.retain(|entry| !self.records.contains(&entry.name));
            }
        }
        Ok(answer)
    }
}

#[test]
fn a_hidden_head_is_noticed_with_memory_and_only_condemned_without() {
    let (world, _) = ready();
    world.saved.write("newest", 80, 100_000);
    let newest = world.saved.push().snapshot;
    let pack = world.saved.chunk_of(&newest, "newest").pack.id;
    let head = world.saved.records().pop().unwrap();
    let hiding =
        || Between::<_, Memory>::with(world.saved.memory.clone(), Hide { records: vec![head], ..Hide::default() });
    world.client("a").state(background()).unwrap();
    refused(run(&world.client_on("a", hiding()), &options()), "older state");
    world.clock.set(4 * DAY);
    // A machine without memory takes the pack for an orphan. It only condemns the pack.
    run(&world.client_on("new", hiding()), &options()).unwrap();
    world.clock.set(6 * DAY);
    run(&world.client("new"), &options()).unwrap();
    run(&world.client("new"), &options()).unwrap();
    world.saved.assert_read_everywhere(&newest);
    assert!(!world.has(&pack), "its chunks were copied");
}

#[test]
fn a_listing_that_is_stale_once_costs_nothing() {
    for only in 1..6 {
        let (world, _) = ready();
        world.saved.write("newest", 80, 100_000);
        let newest = world.saved.push().snapshot;
        let head = world.saved.records().pop().unwrap();
        let rule = Hide { records: vec![head], only: Some(only), ..Hide::default() };
        let _ = run(&world.client_on("a", Between::<_, Memory>::with(world.saved.memory.clone(), rule)), &options());
        world.saved.assert_read_everywhere(&newest);
        world.assert_whole();
    }
}

#[test]
fn a_missing_record_and_a_torn_one_delete_nothing() {
    let (world, pack) = ready();
    let records = world.saved.records();
    let lost = records[records.len() / 2];
    let bytes = world.saved.memory.get(&lost).unwrap();
    world.saved.memory.remove(background(), &lost).unwrap();
    refused(run(&world.client("b"), &options()), "missing or damaged");
    world.saved.memory.overwrite(&lost, bytes);
    let torn = Name::Record { sequence: 99, id: ObjectId([0x77; 32]) };
    world.saved.memory.put(background(), &torn, &[1; 500]).unwrap();
    doubts(run(&world.client("a"), &options()), "incomplete");
    assert!(world.has(&pack));
    world.clock.set(4 * DAY);
    run(&world.client("a"), &options()).unwrap();
    assert!(!world.has(&pack) && world.saved.memory.get(&torn).is_none());
}

#[test]
fn one_damaged_page_deletes_nothing() {
    let (world, pack) = ready();
    let snapshots = world.saved.repo.state(background()).unwrap().snapshots();
    world.saved.flip(&snapshots[3].root.unwrap());
    refused(run(&world.client("a"), &options()), "a page of a tree cannot be read");
    assert!(world.has(&pack));
}

#[test]
fn no_snapshots_and_most_packs_need_consent() {
    let (world, _, _) = World::forgotten();
    let repo = world.client("a");
    let all = world.saved.repo.state(background()).unwrap().snapshots();
    for snapshot in &all[..all.len() - 1] {
        world.forget(snapshot);
    }
    world.forget(all.last().unwrap());
    let before = world.saved.records().len();
    refused(run(&repo, &options()), "no snapshots");
    assert_eq!(world.saved.records().len(), before, "nothing was written");
    assert!(run(&repo, &Options { yes: true, ..options() }).unwrap().condemned.objects > 10);
}

/// A row of the index claims that a chunk of the condemned pack is also in another pack.
#[test]
fn a_poisoned_row_of_the_index_does_not_let_the_only_good_place_go() {
    let (world, first, pack) = World::forgotten();
    let repo = world.client("a");
    run(&repo, &options()).unwrap();
    let kept = world.saved.repo.state(background()).unwrap().snapshots();
    let (lie, chunk) = (world.saved.chunk_of(kept.last().unwrap(), "kept/0"), world.saved.chunk_of(&first, "gone"));
    let entry = nfreezer::format::pack::Entry {
        id: chunk.id,
        kind: nfreezer::crypto::keys::ChunkKind::Data,
        offset: 0,
        stored: 1000.min(chunk.len),
        len: chunk.len,
    };
    let packs = [(lie.pack, nfreezer::crypto::seal::ObjectType::Data)];
    let sections = index_sections(&packs, index::rows(&[(0, entry)]), 0);
    let mut state = world.saved.repo.state(background()).unwrap();
    world.saved.repo.commit(background(), &mut state, Head::default(), &sections).unwrap();
    let undelete = [(first.id, nfreezer::format::record::Action::Undelete)];
    world.saved.repo.commit_marks(background(), &mut state, undelete).unwrap();
    world.clock.set(2 * DAY);
    let report = run(&repo, &options()).unwrap();
    assert!(report.copied > 0 && !world.has(&pack), "{report:?}");
    world.saved.write("gone", 50, 200_000);
    world.saved.assert_read_everywhere(&first);
}

#[test]
fn a_page_in_two_packs_of_which_one_was_dropped_keeps_the_other() {
    let (world, first, pack) = World::forgotten();
    let repo = world.client("a");
    run(&repo, &options()).unwrap();
    let mut state = world.saved.repo.state(background()).unwrap();
    let undelete = [(first.id, nfreezer::format::record::Action::Undelete)];
    world.saved.repo.commit_marks(background(), &mut state, undelete).unwrap();
    // The first run copies the metadata pack of the tree, which has pages that name each other by SELF.
    for day in [2, 4, 6] {
        world.clock.set(day * DAY);
        run(&repo, &options()).unwrap();
    }
    assert!(!world.has(&pack) && !world.has(&first.root.unwrap().pack.id));
    world.saved.write("gone", 50, 200_000);
    world.saved.assert_read_everywhere(&first);
}

#[test]
fn a_superseding_record_that_lacks_a_snapshot_deletes_nothing() {
    let (world, pack) = ready();
    let mut state = world.saved.repo.state(background()).unwrap();
    let Some(Name::Record { id, .. }) = world.saved.records().first().copied() else { panic!("no record") };
    let head = Head { superseded: vec![id], ..Head::default() };
    world.saved.repo.commit(background(), &mut state, head, &[]).unwrap();
    refused(run(&world.client("a"), &options()), "claims to contain");
    assert!(world.has(&pack));
}

#[test]
fn a_snapshot_of_a_push_that_was_killed_before_its_second_look_is_forgotten() {
    let (world, pack) = ready();
    let late = world.client("late").state(background()).unwrap();
    let lost = late.forgotten().remove(0);
    run(&world.client("a"), &options()).unwrap();
    assert!(!world.has(&pack));
    // The push looked for the first time before the drop, and was killed after it put its record.
    let snapshot = Snapshot { id: SnapshotId([7; 16]), ..lost };
    let head = Head { snapshots: vec![snapshot.clone()], ..Head::default() };
    world.client("late").commit_at_once(background(), &late, head, &[]).unwrap();
    let report = run(&world.client("a"), &options()).unwrap();
    assert!(report.warnings[0].contains("killed before it reported success"), "{report:?}");
    let state = world.saved.repo.state(background()).unwrap();
    assert!(state.forgotten().iter().any(|s| s.id == snapshot.id));
    world.assert_whole();
    world.clock.set(4 * DAY);
    assert_eq!(run(&world.client("a"), &options()).unwrap().warnings, Vec::<String>::new(), "it is done");
}

#[test]
fn a_snapshot_that_lacks_a_page_for_another_reason_is_not_forgotten() {
    let (world, _) = ready();
    world.saved.write("newest", 80, 100_000);
    let newest = world.saved.push().snapshot;
    world.saved.memory.remove(background(), &Name::Pack(newest.root.unwrap().pack.id)).unwrap();
    refused(run(&world.client("a"), &options()), "a page of a tree cannot be read");
    assert!(world.saved.repo.state(background()).unwrap().snapshots().iter().any(|s| s.id == newest.id));
}
