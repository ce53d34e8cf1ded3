//! One run: starts the clients, lets them finish, ends all faults and judges the result.

use std::sync::{Arc, Mutex};

use crate::check;
use crate::context::background;
use crate::error::Result;
use crate::repo::{Repository, deterministic};

use super::base::base;
use super::client::{Journal, Machine, condemner, work, writer};
use super::dice::Dice;
use super::plan::Plan;
use super::storage::{ClientClock, Line};
use super::tree::compare;
use super::world::World;

/// The result of a run.
pub struct Outcome {
    /// What was lost or is wrong; empty if all is well.
    pub faults: Vec<String>,
    pub trace: Vec<String>,
    pub requests: u64,
    pub saved: usize,
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
            scope.spawn(move || work(machine, seed, if is_writer { writer } else { condemner }));
        }
    });
    let judged = std::thread::scope(|scope| {
        let judge = scope.spawn(|| {
            deterministic::seed(seed);
            judged(&world, judge, &journal)
        });
        judge.join().expect("the judge does not panic")
    });
    let mut inner = world.lock();
    let journal = journal.lock().unwrap();
    let mut faults = journal.panics.clone();
    if plan.is_calm() {
        faults.extend(journal.errors.iter().cloned());
    }
    match judged {
        Ok(found) => faults.extend(found),
        Err(e) => faults.push(format!("the repository cannot be read in the end: {e}")),
    }
    Outcome { faults, trace: inner.trace(), requests: inner.requests, saved: journal.saved.len() }
}

/// The memories of the clients, in a folder without a disk where there is one.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Reads everything that must be there.
fn judged(world: &Arc<World>, client: usize, journal: &Mutex<Journal>) -> Result<Vec<String>> {
    world.lock().calm(client);
    let repo = open(world, client);
    let ctx = background();
    let state = repo.state(ctx)?;
    let mut faults = Vec::new();
    let snapshots = state.snapshots();
    let journal = journal.lock().unwrap();
    for saved in journal.saved.iter().filter(|saved| !journal.forgotten.contains(&saved.id)) {
        let name = format!("snapshot {} of writer{}", saved.id.short(), saved.client);
        match snapshots.iter().find(|s| s.id == saved.id) {
            None => faults.push(format!("{name} was saved and is not there")),
            Some(snapshot) => {
                if let Err(e) = compare(ctx, &repo, snapshot, &saved.model) {
                    faults.push(format!("{name} cannot be read: {e}"));
                }
            }
        }
    }
    let mut findings = Vec::new();
    let report = check::check(ctx, &repo, &state, &check::Options::default(), &mut |found| {
        findings.push(format!("check: {found:?}"));
    })?;
    if report.is_damaged() || report.is_rolled_back() {
        faults.extend(findings);
    }
    Ok(faults)
}

fn open(world: &Arc<World>, client: usize) -> Repository {
    let line = Arc::new(Line { world: Arc::clone(world), client });
    let clock = ClientClock { world: Arc::clone(world), client };
    base().repo.behind(line).with_clock(Arc::new(clock))
}
