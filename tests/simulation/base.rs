//! The repository with which every run starts. It is created once, since its key derivation takes longer than a run.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::context::background;
use crate::crypto::kdf::KdfCost;
use crate::crypto::secret::Passphrase;
use crate::format::record::Head;
use crate::name::Folder;
use crate::repo::{Clock, Repository, deterministic};
use crate::storage::{Memory, Storage};
use crate::time::Time;

use super::dice::Dice;
use super::plan::{Dates, Plan};
use super::server::{Arrival, Server, Upload};
use super::world::START;

/// Number of records in the log, so that a few more make a merge due.
pub const RECORDS: usize = 13;

/// A repository, and a server with its objects.
pub struct Base {
    pub repo: Repository,
    pub server: Server,
}

/// Returns the base of all runs.
pub fn base() -> &'static Base {
    static BASE: LazyLock<Base> = LazyLock::new(|| std::thread::spawn(make).join().expect("it does not panic"));
    &BASE
}

struct Fixed;

impl Clock for Fixed {
    fn wall(&self) -> Time {
        Time::from_seconds(START - 1_000_000)
    }

    fn boot(&self) -> Duration {
        Duration::ZERO
    }
}

fn make() -> Base {
    deterministic::seed(1);
    let memory = Arc::<Memory>::default();
    let passphrase = Passphrase::new("simulation".into()).unwrap();
    let repo = Repository::init(background(), memory.clone(), &passphrase, KdfCost::DEFAULT, "").unwrap();
    let repo = repo.with_clock(Arc::new(Fixed));
    let mut state = repo.state(background()).unwrap();
    for _ in 0..RECORDS {
        repo.commit(background(), &mut state, Head::default(), &[]).unwrap();
    }
    let mut server = Server::default();
    let plan = Plan { hidden: 0, damaged: 0, dates: Dates::True, has_sites: false, ..Plan::of(0) };
    for folder in [Folder::Root, Folder::Keys, Folder::Log] {
        for entry in memory.list(background(), folder).unwrap() {
            let bytes = memory.get(&entry.name).expect("it is listed");
            let at = START - 1_000_000;
            let upload = Upload { client: 0, name: &entry.name, bytes: &bytes, arrival: Arrival::Now };
            server.put(upload, at, &plan, &mut Dice::new(0)).unwrap();
        }
    }
    Base { repo, server }
}
