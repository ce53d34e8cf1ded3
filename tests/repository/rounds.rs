//! Commands do not wait for round trips one after another. The storage counts the rounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nfreezer::check;
use nfreezer::context::{Context, background};
use nfreezer::crypto::keys::{ChunkId, ChunkKind};
use nfreezer::crypto::seal::ObjectType;
use nfreezer::error::Result;
use nfreezer::format::index;
use nfreezer::format::pack::Entry;
use nfreezer::format::record::{Action, Head};
use nfreezer::format::reference::PackRef;
use nfreezer::format::sections::index_sections;
use nfreezer::name::ObjectId;
use nfreezer::prune::{self, Unused};
use nfreezer::repo::{Access, Index, Repository, random};
use nfreezer::seen::SeenStore;
use nfreezer::storage::{Memory, Storage};

use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::repository;
use crate::harness::rounds::Rounds;
use crate::harness::saved::Saved;

/// Counts the requests for the sizes of objects.
#[derive(Default)]
struct Sizes(AtomicUsize);

impl Rule for Sizes {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        if let Call::Size(_) = call {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        call.of(ctx, storage)
    }
}

#[test]
fn a_push_does_not_ask_for_packs_that_its_listing_showed() {
    let saved = Saved::on(Arc::<Between<Sizes>>::default());
    for i in 0..20 {
        saved.write(&format!("{i}"), i, 100_000);
        saved.push();
    }
    let before = saved.memory.0.load(Ordering::Relaxed);
    // The files are new, so they are read. Their chunks are in 20 packs.
    (0..20).for_each(|i| saved.write(&format!("again/{i}"), i, 100_000));
    let summary = saved.push();
    assert_eq!(saved.memory.0.load(Ordering::Relaxed), before);
    assert!(summary.read >= 2_000_000, "{summary:?}");
    saved.assert_restores(&summary.snapshot);
}

fn counted() -> Saved<Between<Rounds>> {
    Saved::on(Arc::default())
}

/// Adds records of which none follows another, each with a table of packs and a part of the index.
fn add_records(repo: &Repository, count: usize) {
    let state = repo.state(background()).unwrap();
    for _ in 0..count {
        let pack = PackRef { id: ObjectId(random().unwrap()), len: 1 << 16 };
        let id = ChunkId(random().unwrap());
        let entry = Entry { id, kind: ChunkKind::Data, offset: 0, stored: 10, len: 10 };
        let sections = index_sections(&[(pack, ObjectType::Data)], index::rows(&[(0, entry)]), 0);
        repo.commit_at_once(background(), &state, Head::default(), &sections).unwrap();
    }
}

#[test]
fn a_log_of_a_thousand_records_is_read_many_records_at_a_time() {
    let saved = counted();
    saved.write("file", 1, 1000);
    saved.push();
    add_records(&saved.repo, 1000);
    let count = |work: &dyn Fn(&Repository)| {
        let repo = repository::open(saved.memory.clone());
        saved.memory.take();
        work(&repo);
        saved.memory.take()
    };
    let opened = count(&|repo| drop(repo.state(background()).unwrap()));
    let checked = count(&|repo| {
        let state = repo.state(background()).unwrap();
        check::check(background(), repo, &state, &check::Options::default(), &mut |_| ()).unwrap();
    });
    let options = prune::Options { yes: true, ..prune::Options::default() };
    let planned = count(&|repo| drop(prune::plan(background(), repo, &options).unwrap()));
    println!("opened: {opened:?}\nchecked: {checked:?}\nplanned: {planned:?}");
    for reads in [opened, checked, planned] {
        assert!(reads.reads >= 1000 && reads.rounds <= 50 && reads.most >= 32, "{reads:?}");
    }
}

#[test]
fn packs_whose_chunks_have_other_places_are_secured_many_at_a_time() {
    let saved = counted();
    let mut snapshots = Vec::new();
    for version in 0..60u64 {
        (0..4).for_each(|i| saved.write(&format!("d{}/{i}", version % 7), version * 10 + i, 30_000));
        snapshots.push(saved.push().snapshot);
    }
    let mut state = saved.repo.state(background()).unwrap();
    let forgotten = snapshots[..59].iter().step_by(2).map(|s| (s.id, Action::Forget));
    saved.repo.commit_marks(background(), &mut state, forgotten).unwrap();
    let before = saved.packs().len();
    let seen = tempfile::tempdir().unwrap();
    let access = Access { seen: Some(SeenStore::at(seen.path())), ..Access::default() };
    let open = || Repository::open_with(background(), saved.memory.clone(), &access, || Ok(repository::passphrase()));
    open().unwrap().state(background()).unwrap();
    let repo = open().unwrap();
    saved.memory.take();
    let options = prune::Options {
        exclusive: true,
        yes: true,
        keep_forgotten: std::time::Duration::ZERO,
        max_unused: Unused::Bytes(0),
        ..prune::Options::default()
    };
    let report = prune::prune(background(), &repo, &options, &mut |_| Ok(())).unwrap();
    let reads = saved.memory.take();
    println!("{before} packs, {report:?}, {reads:?}");
    assert!(report.repacked.objects >= 20 && report.deleted.objects > report.repacked.objects, "{report:?}");
    assert!(reads.rounds <= 60, "{reads:?} for {report:?}");
    saved.repo.forget_blocks();
    saved.assert_restores(snapshots.last().unwrap());
}

/// Counts reads. Once it is armed, the first read goes on alone, and the others wait for each other.
#[derive(Default)]
struct Together {
    /// Reads since it was armed, and those that must have begun before any but the first one goes on.
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Together {
    /// Returns the reads since the last call.
    fn arm(&self, least: usize) -> usize {
        std::mem::replace(&mut *self.state.lock().unwrap(), (0, least)).0
    }
}

impl Rule for Together {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        if let Call::Read(..) = call {
            let mut state = self.state.lock().unwrap();
            state.0 += 1;
            self.changed.notify_all();
            if state.0 > 1 {
                let lacks_some = |state: &mut (usize, usize)| state.0 < state.1;
                let waited = self.changed.wait_timeout_while(state, Duration::from_secs(60), lacks_some).unwrap().1;
                assert!(!waited.timed_out(), "the reads come one after another");
            }
        }
        call.of(ctx, storage)
    }
}

#[test]
fn a_look_up_reads_the_newest_section_and_then_all_others_at_once() {
    let storage = Between::<Together, Memory>::with(Memory::default(), Together::default());
    let repo = repository::init(storage.clone());
    add_records(&repo, 12);
    let id = ChunkId([0xff; 16]);
    let look = |least, id: &ChunkId| {
        let repo = repository::open(storage.clone());
        let state = repo.state(background()).unwrap();
        repo.forget_blocks();
        storage.arm(least);
        let found = Index::new(&state).find(background(), &repo, id).unwrap();
        (found.is_some(), storage.arm(0))
    };
    assert_eq!(look(12, &id), (false, 12));
    let pack = PackRef { id: ObjectId(random().unwrap()), len: 1 << 16 };
    let entry = Entry { id, kind: ChunkKind::Data, offset: 0, stored: 10, len: 10 };
    let sections = index_sections(&[(pack, ObjectType::Data)], index::rows(&[(0, entry)]), 0);
    let mut state = repo.state(background()).unwrap();
    repo.commit(background(), &mut state, Head::default(), &sections).unwrap();
    assert_eq!(look(0, &id), (true, 1), "its place in the newest section");
}
