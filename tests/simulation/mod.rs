//! A deterministic simulation: several clients share a repository, and everything that can go wrong does. Compiled into the
//! unit tests of the library, since it replaces its randomness and its threads.
//!
//! The property: a snapshot whose push reported success and that nobody forgot loses no chunk that the server itself did not
//! remove.
//!
//! | file | |
//! |---|---|
//! | `plan` | what a run is like |
//! | `world` | whose turn it is, and what time |
//! | `server`, `storage` | the objects; the requests of one client |
//! | `client`, `push`, `tree` | what clients do |
//! | `run` | one run and its judgement |

mod base;
mod client;
mod dice;
mod plan;
mod push;
mod run;
mod server;
mod storage;
mod tree;
mod world;

use plan::Plan;
use run::run;

/// Seeds of one test in CI.
const SEEDS: u64 = 1500;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Runs seeds and fails with the trace of the first one that loses something.
fn simulate(first: u64, seeds: u64) {
    let (mut requests, mut saved) = (0, 0);
    for seed in first..first + seeds {
        let outcome = run(seed, &Plan::of(seed), false);
        requests += outcome.requests;
        saved += outcome.saved;
        if !outcome.faults.is_empty() {
            let again = run(seed, &Plan::of(seed), true);
            panic!("seed {seed}, {:?}\n{}\n{:#?}", Plan::of(seed), again.trace.join("\n"), again.faults);
        }
    }
    println!("{seeds} seeds from {first}: {requests} requests, {saved} snapshots saved");
}

#[test]
fn nothing_that_was_saved_is_lost() {
    simulate(number("NFREEZER_SEED", 1), number("NFREEZER_SEEDS", SEEDS));
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 1..20 {
        let (one, two) = (run(seed, &Plan::of(seed), true), run(seed, &Plan::of(seed), true));
        let differ = one.trace.iter().zip(&two.trace).find(|(a, b)| a != b);
        assert!(differ.is_none() && one.trace.len() == two.trace.len(), "seed {seed}: {differ:#?}");
    }
}
