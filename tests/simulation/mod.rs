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

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use plan::Plan;
use run::run;

/// Seeds of one test in CI.
const SEEDS: u64 = 1500;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Runs seeds on all cores. Fails with the trace of one that loses something.
fn simulate(first: u64, seeds: u64) {
    let (next, requests, saved) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let lost = Mutex::new(None);
    let run_seeds = || {
        while lost.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            let outcome = run(seed, &Plan::of(seed), false);
            requests.fetch_add(outcome.requests, Ordering::Relaxed);
            saved.fetch_add(outcome.saved as u64, Ordering::Relaxed);
            if !outcome.faults.is_empty() {
                *lost.lock().unwrap() = Some(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(run_seeds);
        }
    });
    if let Some(seed) = lost.into_inner().unwrap() {
        let again = run(seed, &Plan::of(seed), true);
        panic!("seed {seed}, {:?}\n{}\n{:#?}", Plan::of(seed), again.trace.join("\n"), again.faults);
    }
    println!("{seeds} seeds from {first}: {requests:?} requests, {saved:?} snapshots saved");
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
