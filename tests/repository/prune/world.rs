//! A repository in memory, clients with their own memories, and a clock that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::harness::saved::Saved;
use nfreezer::context::background;
use nfreezer::error::{Kind, Result};
use nfreezer::format::node::Content;
use nfreezer::format::record::{Action, Snapshot};
use nfreezer::format::reference::Ref;
use nfreezer::name::{Name, ObjectId};
use nfreezer::prune::{self, Options, Report};
use nfreezer::repo::{Access, Clock, Repository, SystemClock};
use nfreezer::seen::SeenStore;
use nfreezer::storage::Storage;
use nfreezer::time::Time;
use nfreezer::trees::Trees;

pub const HOUR: i64 = 3600;
pub const DAY: i64 = 24 * HOUR;

/// The system's clock, moved by a number of seconds.
#[derive(Default)]
pub struct Moved(AtomicI64);

impl Moved {
    pub fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Moved {
    fn wall(&self) -> Time {
        let now = SystemClock.wall();
        Time::new(now.seconds + self.0.load(Ordering::SeqCst), now.nanoseconds)
    }

    fn boot(&self) -> Duration {
        SystemClock.boot() + Duration::from_secs(self.0.load(Ordering::SeqCst).unsigned_abs())
    }
}

pub struct World {
    pub saved: Saved,
    /// The clock of all clients and of the server.
    pub clock: Arc<Moved>,
    memories: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let (mut saved, clock) = (Saved::new(), Arc::<Moved>::default());
        let server = Arc::clone(&clock);
        saved.memory.set_clock(Box::new(move || server.wall().seconds));
        saved.repo = saved.repo.behind(saved.memory.clone()).with_clock(clock.clone());
        World { saved, clock, memories: tempfile::tempdir().unwrap() }
    }

    /// Makes snapshots, and forgets the only one that needs a certain pack. Returns that snapshot and that pack.
    pub fn forgotten() -> (Self, Snapshot, ObjectId) {
        loop {
            let world = World::new();
            for i in 0..9 {
                world.saved.write(&format!("kept/{i}"), i, 90_000);
                world.saved.push();
            }
            world.saved.write("gone", 50, 200_000);
            let first = world.saved.push().snapshot;
            let pack = world.saved.chunk_of(&first, "gone").pack.id;
            std::fs::remove_file(world.saved.top().join("gone")).unwrap();
            let last = world.saved.push().snapshot;
            world.forget(&first);
            // In rare cases the push of `gone` stores the page of `kept` again, and the last snapshot needs that page.
            if world.page_of(&last, "kept").pack != first.root.unwrap().pack {
                return (world, first, pack);
            }
        }
    }

    fn page_of(&self, snapshot: &Snapshot, directory: &str) -> Ref {
        let path = self.saved.top().join(directory);
        let node =
            Trees::new(&self.saved.repo).at(background(), snapshot, path.as_os_str().as_encoded_bytes()).unwrap();
        let Content::Directory(Some(page)) = node.content else { panic!("a directory with entries") };
        page
    }

    pub fn client(&self, name: &str) -> Repository {
        self.client_on(name, self.saved.memory.clone())
    }

    pub fn client_on(&self, name: &str, storage: Arc<dyn Storage>) -> Repository {
        let access = Access { seen: Some(SeenStore::at(self.memories.path().join(name))), ..Access::default() };
        self.saved.repo.behind_with(storage, &access).with_clock(self.clock.clone())
    }

    pub fn forget(&self, snapshot: &Snapshot) {
        let mut state = self.saved.repo.state(background()).unwrap();
        let marks = [(snapshot.id, Action::Forget)];
        self.saved.repo.commit_marks(background(), &mut state, marks).unwrap();
    }

    pub fn has(&self, pack: &ObjectId) -> bool {
        self.saved.memory.get(&Name::Pack(*pack)).is_some()
    }

    /// Checks that all snapshots can be read, except forgotten ones.
    pub fn assert_whole(&self) {
        let options = nfreezer::check::Options { read: Some(nfreezer::check::Part::All), ..Default::default() };
        let (report, told) = self.saved.check(&options);
        assert!(!report.is_damaged() && !report.is_rolled_back(), "{report:?}\n{told:?}");
    }
}

/// Returns options that keep no forgotten snapshot and repack nothing.
pub fn options() -> Options {
    Options { keep_forgotten: Duration::ZERO, max_unused: prune::Unused::Unlimited, ..Options::default() }
}

pub fn run(repo: &Repository, options: &Options) -> Result<Report> {
    prune::prune(background(), repo, options, &mut |_| Ok(()))
}

#[track_caller]
pub fn refused(result: Result<Report>, why: &str) {
    let e = result.unwrap_err();
    assert_eq!(e.kind(), Kind::Tampering, "{e}");
    assert!(e.to_string().contains(why), "{e}");
}

#[track_caller]
pub fn doubts(result: Result<Report>, why: &str) {
    let report = result.unwrap();
    assert!(report.doubt.as_ref().is_some_and(|doubt| doubt.contains(why)), "{report:?}");
    assert_eq!(report.deleted.objects, 0);
}
