//! A deterministic simulation: several clients share a repository, with faults of clients, server and network. Compiled
//! into the unit tests of the library, since it replaces the library's randomness and threads.
//!
//! The tested property: a snapshot whose push reported success and that no client forgot loses no chunk, unless the
//! server itself removed it.
//!
//! | file | |
//! |---|---|
//! | `plan` | the parameters of a run |
//! | `world` | the scheduler and the time |
//! | `server`, `storage` | the objects; the requests of one client |
//! | `client`, `push`, `pruner`, `tree` | the operations of clients |
//! | `run`, `verdict` | one run and its verdict |

mod base;
mod client;
mod dice;
mod plan;
mod pruner;
mod push;
mod run;
mod server;
mod storage;
mod tree;
mod verdict;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use plan::{Dates, Plan, Rule, Script};
use run::run;

/// Number of seeds of one test in CI.
const SEEDS: u64 = 600;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// The results of several seeds.
#[derive(Default)]
struct Tally {
    requests: u64,
    saved: u64,
    deleted: u64,
    /// Seeds that lost data, with the first fault.
    lost: BTreeMap<u64, String>,
}

/// Runs seeds on all cores, until `most` of them have lost data.
fn simulate(seeds: Range<u64>, most: usize, losses_only: bool, plan: impl Fn(u64) -> Plan + Sync) -> Tally {
    let (next, tally) = (AtomicU64::new(seeds.start), Mutex::<Tally>::default());
    let run_seeds = || {
        while tally.lock().unwrap().lost.len() < most {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                break;
            }
            let outcome = run(seed, &plan(seed), false);
            let mut tally = tally.lock().unwrap();
            tally.requests += outcome.requests;
            tally.saved += outcome.saved as u64;
            tally.deleted += outcome.deleted as u64;
            let fault = outcome.faults.iter().find(|fault| !losses_only || fault.starts_with("loss"));
            tally.lost.extend(fault.map(|fault| (seed, fault.clone())));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(run_seeds);
        }
    });
    tally.into_inner().unwrap()
}

/// Fails with the trace of a seed that has lost data.
fn assert_nothing_lost(tally: &Tally, plan: impl Fn(u64) -> Plan) {
    tally.lost.iter().for_each(|(seed, fault)| println!("seed {seed}: {fault}"));
    if let Some(seed) = tally.lost.keys().next() {
        let again = run(*seed, &plan(*seed), true);
        panic!("seed {seed}, {:?}\n{}\n{:#?}", plan(*seed), again.trace.join("\n"), again.faults);
    }
}

#[test]
fn nothing_that_was_saved_is_lost() {
    let first = number("NFREEZER_SEED", 1);
    let seeds = number("NFREEZER_SEEDS", SEEDS);
    let tally = simulate(first..first + seeds, number("NFREEZER_LOST", 1) as usize, false, Plan::of);
    let Tally { requests, saved, deleted, .. } = tally;
    println!("{seeds} seeds from {first}: {requests} requests, {saved} snapshots saved, {deleted} packs deleted");
    assert_nothing_lost(&tally, Plan::of);
}

/// Returns the plan of a seed without this rule. The faults against which the rule protects are frequent.
fn without(rule: Rule, seed: u64) -> Plan {
    let mut plan = Plan { removed: Some(rule), ..Plan::of(seed) };
    match rule {
        Rule::CondemnFirst => {
            (plan.dates, plan.has_sites, plan.pauses) = (Dates::OldPacks, true, plan.grace / 4);
            plan.commit_naps = 500;
        }
        Rule::OwnSight => {
            (plan.dates, plan.has_sites, plan.pauses) = (Dates::Epoch, true, plan.grace / 4);
            (plan.pruners, plan.skews, plan.in_1970) = (2, 0, Some(plan.writers));
            plan.script = Some(Script::Return);
        }
        Rule::SecondLook => plan.commit_naps = 300,
        Rule::RefuseDoubt => (plan.denied, plan.outages, plan.damaged) = (60, 100, 0),
        Rule::VerifyPlaces => (plan.damaged, plan.denied) = (100, 2),
        Rule::FreshLiveness => (plan.outages, plan.commit_naps) = (100, 100),
        Rule::FoldAgain => {
            plan = plan.quiet();
            (plan.script, plan.latency) = (Some(Script::Undelete), 4);
            (plan.pushes, plan.pruners, plan.prunes, plan.pauses) = (3, 2, 16, plan.grace / 4);
        }
        Rule::Belts => (plan.vandal, plan.pruners, plan.prunes, plan.killed) = (true, 2, 12, 0),
    }
    plan
}

/// Returns the first seed at which a simulation without this rule loses data, and the fault.
fn loss_without(rule: Rule, seeds: u64) -> Option<(u64, String)> {
    simulate(1..1 + seeds, 1, true, |seed| without(rule, seed)).lost.pop_first()
}

const RULES: [Rule; 8] = [
    Rule::CondemnFirst,
    Rule::OwnSight,
    Rule::SecondLook,
    Rule::RefuseDoubt,
    Rule::VerifyPlaces,
    Rule::FreshLiveness,
    Rule::FoldAgain,
    Rule::Belts,
];

/// Returns whether `NFREEZER_RULE` names this rule or is not set.
fn is_asked_for(rule: &Rule) -> bool {
    std::env::var("NFREEZER_RULE").map_or(true, |name| name == format!("{rule:?}"))
}

#[test]
fn without_one_of_the_rules_something_is_lost() {
    for rule in RULES.into_iter().filter(is_asked_for) {
        let since = std::time::Instant::now();
        let loss = loss_without(rule, number("NFREEZER_SEEDS", 500));
        println!("{rule:?}: {loss:?} {:?}", since.elapsed());
        let (seed, _) = loss.unwrap_or_else(|| panic!("without {rule:?} nothing is lost"));
        let with = run(seed, &Plan { removed: None, ..without(rule, seed) }, false);
        let lost = with.faults.iter().find(|fault| fault.starts_with("loss"));
        assert!(lost.is_none(), "with {rule:?}, seed {seed} loses something too: {lost:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 1..20 {
        let (one, two) = (run(seed, &Plan::of(seed), true), run(seed, &Plan::of(seed), true));
        let differ = one.trace.iter().zip(&two.trace).find(|(a, b)| a != b);
        assert!(differ.is_none() && one.trace.len() == two.trace.len(), "seed {seed}: {differ:#?}");
    }
}

/// Prints the trace of one run.
#[test]
#[ignore = "for people"]
fn trace() {
    let seed = number("NFREEZER_SEED", 1);
    let rule = std::env::var("NFREEZER_RULE").ok().and_then(|_| RULES.into_iter().find(is_asked_for));
    let plan = rule.map_or_else(|| Plan::of(seed), |rule| without(rule, seed));
    let outcome = run(seed, &plan, true);
    println!("{plan:?}\n{}\n{:#?}", outcome.trace.join("\n"), outcome.faults);
}
