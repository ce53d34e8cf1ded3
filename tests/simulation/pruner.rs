//! Clients that prune.

use std::time::Duration;

use crate::context::background;
use crate::error::Result;
use crate::format::record::{Action, Head, Mark};
use crate::prune::{self, Options, Report, Rules, Unused};
use crate::repo::Repository;

use super::client::Machine;
use super::plan::Rule;

/// Memory of a prune, in bytes.
const MEMORY: u64 = 4 << 20;

/// Returns all rules, without the removed one.
pub fn rules(removed: Option<Rule>) -> Rules {
    let stays = |rule| removed != Some(rule);
    Rules {
        condemn_first: stays(Rule::CondemnFirst),
        own_sight: stays(Rule::OwnSight),
        refuse_doubt: stays(Rule::RefuseDoubt),
        verify_places: stays(Rule::VerifyPlaces),
        fresh_liveness: stays(Rule::FreshLiveness),
        fold_again: stays(Rule::FoldAgain),
        belts: stays(Rule::Belts),
    }
}

/// Runs a client that prunes and merges.
pub fn pruner(machine: &mut Machine) {
    let (prunes, grace, removed) = {
        let plan = &machine.world.lock().plan;
        (plan.prunes, plan.grace, plan.removed)
    };
    let mut is_vandal = {
        let plan = &machine.world.lock().plan;
        plan.vandal && machine.client == plan.writers
    };
    for _ in 0..prunes {
        if is_vandal && machine.world.lock().writers_are_done() {
            is_vandal = false;
            machine.run("forget everything", forget_all);
        }
        machine.run("prune", |machine| {
            let vandalised = machine.world.lock().plan.vandal;
            let dice = &mut machine.dice;
            let max_unused = dice.pick(&[Unused::Percent(10.0), Unused::Bytes(0), Unused::Unlimited]);
            let options = Options {
                grace: Duration::from_secs(grace.unsigned_abs()),
                keep_forgotten: Duration::from_secs(dice.pick(&[0, 0, grace / 2]).unsigned_abs()),
                yes: dice.chance(500) && !vandalised,
                max_unused,
                memory: MEMORY,
                rules: rules(removed),
                ..Options::default()
            };
            let repo = machine.open();
            let report = once(&repo, &options)?;
            machine.note(&format!("has pruned: {report:?}"));
            repo.merge(background(), &mut repo.state(background())?).map(drop)
        });
    }
}

/// Forgets all snapshots, like a mistaken user or a thief.
fn forget_all(machine: &mut Machine) -> Result<()> {
    let repo = machine.open();
    let mut state = repo.state(background())?;
    let now = repo.now().seconds;
    let marks = state.snapshots().iter().map(|s| Mark::new(s.id, now, Action::Forget)).collect();
    repo.commit(background(), &mut state, Head { marks, ..Head::default() }, &[]).map(drop)
}

fn once(repo: &Repository, options: &Options) -> Result<Report> {
    prune::prune(background(), repo, options, &mut |_| Ok(()))
}

/// Prunes until the repository has no garbage. `pass` advances the time.
pub fn clean(repo: &Repository, grace: i64, pass: impl Fn(i64)) -> Result<()> {
    let grace_time = Duration::from_secs(grace.unsigned_abs());
    let max_unused = Unused::Percent(10.0);
    let options = Options {
        grace: grace_time,
        keep_forgotten: grace_time,
        yes: true,
        max_unused,
        memory: MEMORY,
        ..Options::default()
    };
    // The first prune sees the forgotten snapshots, the second condemns packs, and the third deletes them. Later ones
    // condemn and delete the records that the third made superfluous.
    for _ in 0..6 {
        let report = once(repo, &options)?;
        if let Some(doubt) = report.doubt {
            return Err(crate::error::Error::failed(format!("a prune in calm times: {doubt}")));
        }
        pass(grace + 3600);
    }
    Ok(())
}
