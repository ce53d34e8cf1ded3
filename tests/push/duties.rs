//! The duties of a writer while `prune` may delete: list the log, put the record, list it again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::saved::Saved;
use nfreezer::context::{Context, background};
use nfreezer::error::Result;
use nfreezer::format::record::{Head, Snapshot};
use nfreezer::name::{Name, ObjectId};
use nfreezer::push;
use nfreezer::repo::{Clock, Repository, SystemClock};
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;

/// A clock of a machine that was suspended, ahead of the real one by this number of seconds.
#[derive(Default)]
struct Suspended(AtomicU64);

impl Clock for Suspended {
    fn wall(&self) -> Time {
        Time::from_seconds(SystemClock.wall().seconds + self.0.load(Ordering::SeqCst) as i64)
    }

    fn boot(&self) -> Duration {
        SystemClock.boot() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

type Deed = Box<dyn FnMut() + Send>;

/// Calls a function once, just before the next record is put.
#[derive(Default)]
struct BeforeRecord(Mutex<Option<Deed>>, AtomicBool);

impl Rule for BeforeRecord {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        if let Call::Put(Name::Record { .. }, _) = call
            && let Some(mut deed) = self.0.lock().unwrap().take()
        {
            deed();
            self.1.store(true, Ordering::SeqCst);
        }
        call.of(ctx, storage)
    }
}

/// Pushes the folder with a client on a storage that calls `deed` between the two listings of the next commit.
fn push_with(saved: &Saved, clock: Arc<dyn Clock>, deed: Deed) -> Snapshot {
    let storage =
        Between::<_, Memory>::with(saved.memory.clone(), BeforeRecord(Mutex::new(Some(deed)), AtomicBool::default()));
    let repo = saved.repo.behind(storage.clone()).with_clock(clock);
    let snapshot = push::push(background(), &repo, &saved.options()).unwrap().snapshot;
    assert!(storage.rule.1.load(Ordering::SeqCst), "it did not happen");
    snapshot
}

fn commit(repo: &Repository, head: Head) {
    repo.commit(background(), &mut repo.state(background()).unwrap(), head, &[]).unwrap();
}

fn packs(saved: &Saved, snapshot: &Snapshot) -> Vec<ObjectId> {
    ["a", "b/c", "b"].iter().map(|name| saved.chunk_of(snapshot, name).pack.id).collect()
}

fn saved() -> (Saved, Snapshot) {
    let saved = Saved::new();
    saved.write("a", 1, 100_000);
    saved.write("b/c", 2, 100_000);
    let first = saved.push().snapshot;
    saved.write("d", 3, 100_000);
    (saved, first)
}

#[test]
fn a_record_that_arrives_after_the_drop_record_is_replaced() {
    for is_dropped in [false, true] {
        let (saved, first) = saved();
        let gone = saved.chunk_of(&first, "a").pack.id;
        let (other, memory) = (saved.repo.behind(saved.memory.clone()), saved.memory.clone());
        let deed = move || {
            commit(&other, Head { condemned: vec![(gone, 1)], ..Head::default() });
            if is_dropped {
                commit(&other, Head { dropped: vec![gone], ..Head::default() });
                memory.remove(background(), &Name::Pack(gone)).unwrap();
            }
        };
        let snapshot = push_with(&saved, Arc::new(SystemClock), Box::new(deed));
        assert!(!packs(&saved, &snapshot).contains(&gone));
        saved.assert_restores(&snapshot);
        let state = saved.repo.state(background()).unwrap();
        assert_eq!(state.forgotten().iter().filter(|s| !s.partial).count(), 1, "the first record does not count");
        assert_eq!(state.snapshots().len(), 2);
    }
}

#[test]
fn a_condemned_pack_that_the_tree_does_not_name_is_no_reason_to_begin_again() {
    let (saved, _) = saved();
    let other = saved.repo.behind(saved.memory.clone());
    let deed = move || commit(&other, Head { condemned: vec![(ObjectId([7; 32]), 1)], ..Head::default() });
    let snapshot = push_with(&saved, Arc::new(SystemClock), Box::new(deed));
    saved.assert_restores(&snapshot);
    assert!(saved.repo.state(background()).unwrap().forgotten().is_empty());
}

#[test]
fn a_writer_that_slept_between_its_listings_begins_again() {
    let (saved, first) = saved();
    let clock = Arc::<Suspended>::default();
    let other = saved.repo.behind(saved.memory.clone());
    let (asleep, memory) = (Arc::clone(&clock), saved.memory.clone());
    let gone = saved.chunk_of(&first, "a").pack.id;
    let deed = move || {
        commit(&other, Head { condemned: vec![(gone, 1)], ..Head::default() });
        asleep.0.store(48 * 3600, Ordering::SeqCst);
        commit(&other, Head { dropped: vec![gone], ..Head::default() });
        memory.remove(background(), &Name::Pack(gone)).unwrap();
    };
    let snapshot = push_with(&saved, clock, Box::new(deed));
    assert!(!packs(&saved, &snapshot).contains(&gone));
    saved.assert_restores(&snapshot);

    // The writer also begins again if the second listing shows no condemned packs.
    saved.write("e", 9, 1000);
    let clock = Arc::<Suspended>::default();
    let asleep = Arc::clone(&clock);
    let snapshot = push_with(&saved, clock, Box::new(move || asleep.0.store(12 * 3600, Ordering::SeqCst)));
    saved.assert_restores(&snapshot);
    let forgotten = saved.repo.state(background()).unwrap().forgotten();
    assert_eq!(forgotten.iter().filter(|s| !s.partial).count(), 2, "one of each push");
}
