//! Decides whether a step is due, by the last success of this machine.

use std::time::Duration;

use crate::cli::environment::{state_folder, variable};
use crate::cli::profile::Step;
use crate::seen::{Run, SeenStore};
use crate::storage::Location;
use crate::time::Time;

/// The part of an interval by which a run may come early. A timer with a random delay does not run at the same minute each
/// day, and a step that is due each day must not be skipped for that.
const SLACK: u32 = 10;

/// Returns when a step succeeded last on this repository. `None` if that is not known: then it is due.
pub fn last(step: &Step, repository: Option<&str>) -> Option<Time> {
    let run = match step.command {
        "prune" => Run::Prune,
        "check" if step.arguments.iter().any(|word| word == "--read-data") => Run::CheckData,
        "check" => Run::Check,
        _ => return None,
    };
    let address = match repository {
        Some(address) => address.to_owned(),
        None => variable("NFREEZER_REPOSITORY")?.into_string().ok()?,
    };
    let location = Location::parse(&address).ok()?;
    let address = match location.local_path() {
        Some(path) => std::path::absolute(path).ok()?.display().to_string(),
        None => location.to_string(),
    };
    let store = SeenStore::at(state_folder()?);
    let (id, _) = store.at_address(&address)?;
    store.runs(&id, &address).ok()?.last(run).map(Time::from_seconds)
}

/// Returns whether a step is due that succeeded last at `last`. A time in the future counts as never.
pub fn is_due(last: Time, every: Duration, now: Time) -> bool {
    let least = every.saturating_sub(every / SLACK).as_secs();
    u64::try_from(now.seconds.saturating_sub(last.seconds)).map_or(true, |age| age >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_due_a_little_early_and_after_a_jump_of_the_clock() {
        let hours = |n: i64| Time::from_seconds(1_700_000_000 + 3600 * n);
        let day = Duration::from_secs(86_400);
        for (age, due) in [(0, false), (12, false), (21, false), (22, true), (24, true), (1000, true), (-1, true)] {
            assert_eq!(is_due(hours(0), day, hours(age)), due, "{age}");
        }
        assert!(is_due(hours(0), Duration::ZERO, hours(0)));
    }
}
