//! One run: starts the clients, waits for their end, ends all faults and checks the result.

use std::sync::{Arc, Mutex};

use crate::repo::deterministic;
use crate::seen::SeenStore;

use super::base::base;
use super::client::{Journal, Machine, work, writer};
use super::dice::Dice;
use super::plan::Plan;
use super::pruner::pruner;
use super::verdict::Judge;
use super::world::World;

/// Errors that other clients cause. The same command may succeed the next time.
const IN_THE_WAY: [&str; 7] = [
    "other clients write all the time",
    "took too long",
    "condemned while the push went on",
    "its data is gone",
    "removed data of snapshot",
    // These errors request consent.
    "the repository has no snapshots",
    "are not needed any more",
];

/// The result of a run.
pub struct Outcome {
    /// Losses and other faults.
    pub faults: Vec<String>,
    pub trace: Vec<String>,
    pub requests: u64,
    pub saved: usize,
    /// Packs that clients deleted.
    pub deleted: usize,
}

/// Runs a seed.
pub fn run(seed: u64, plan: &Plan, is_traced: bool) -> Outcome {
    let writers = (0..plan.writers).map(|i| format!("writer{i}"));
    let pruners = (0..plan.pruners).map(|i| format!("pruner{i}"));
    // The last client reads at the end.
    let names: Vec<String> = writers.chain(pruners).chain(["judge".into()]).collect();
    let world = Arc::new(World::new(seed, plan.clone(), base().server.clone(), &names, is_traced));
    let journal = Arc::<Mutex<Journal>>::default();
    let memory = memory();
    let mut dice = Dice::new(!seed);
    let judge = names.len() - 1;
    world.lock().retire(judge);
    std::thread::scope(|scope| {
        for (client, name) in names.iter().take(judge).enumerate() {
            let machine = Machine {
                world: Arc::clone(&world),
                journal: Arc::clone(&journal),
                client,
                name: name.clone(),
                seen: memory.path().join(name),
                dice: dice.fork(),
            };
            let seed = dice.fork().roll(i64::MAX) as u64;
            let is_writer = client < plan.writers;
            scope.spawn(move || work(machine, seed, if is_writer { writer } else { pruner }));
        }
    });
    let deleted = world.lock().server.graveyard.len();
    let judged = std::thread::scope(|scope| {
        let judge = scope.spawn(|| {
            deterministic::seed(seed);
            let seen = SeenStore::at(memory.path().join("judge"));
            Judge { world: &world, client: judge, journal: &journal, seen }.faults()
        });
        judge.join().expect("the judge does not panic")
    });
    let mut inner = world.lock();
    let journal = journal.lock().unwrap();
    let mut faults = journal.panics.clone();
    if plan.is_calm() {
        // Clients may still disturb each other.
        let is_fault = |error: &&String| !IN_THE_WAY.iter().any(|text| error.contains(text));
        faults.extend(journal.errors.iter().filter(is_fault).cloned());
    }
    match judged {
        Ok(found) => faults.extend(found),
        Err(e) => faults.push(format!("the repository cannot be read in the end: {e}")),
    }
    Outcome { faults, trace: inner.trace(), requests: inner.requests, saved: journal.saved.len(), deleted }
}

/// Makes a folder for the memories of the clients, in `/dev/shm` if it exists.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
