//! Deletes the objects that no snapshot needs, without locks, in two phases (format.md 11.6).
//!
//! ```text
//! log, listings, tables, trees, index --> survey --> plan --> repack --> condemn ------------.
//!                                                     |                                      | a grace time later
//!                                                     '----> secure --> drop --> fold --> delete
//! ```
//!
//! In: an open repository. Out: a [`Plan`] that can be shown, and a [`Report`]. The first phase condemns objects by id in
//! one record. The second phase, in a later run, deletes objects that were condemned at least the grace time ago, as this
//! machine has seen it. It recomputes the live chunks. Any doubt deletes nothing.

mod delete;
mod plan;
mod repack;
mod run;
mod secure;
mod survey;
mod unconfirmed;

use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::repo::{GRACE, Repository};

pub use plan::{Amount, Plan};

/// Attempts before the run ends because other clients write all the time.
const ATTEMPTS: usize = 4;

/// Bytes of the block cache after the survey.
const CACHE: usize = 32 << 20;

/// The amount of unused data that may stay in packs that are in use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unused {
    /// A percentage of all data.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
    /// Nothing is repacked.
    Unlimited,
}

/// Options of `prune`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time between condemnation and deletion.
    pub grace: Duration,
    /// Time for which forgotten snapshots are kept.
    pub keep_forgotten: Duration,
    /// The user asserts that no other client writes: both phases run at once.
    pub exclusive: bool,
    /// Removes unusually much.
    pub yes: bool,
    /// Unused data that may stay in packs.
    pub max_unused: Unused,
    /// Most bytes of packs that are repacked in one run.
    pub max_repack: Option<u64>,
    /// Time after which nothing new is begun.
    pub max_time: Option<Duration>,
    /// Bytes of memory.
    pub memory: u64,
    /// The safety rules. All of them are in force, except in tests.
    pub rules: Rules,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            grace: GRACE,
            keep_forgotten: Duration::from_secs(14 * 24 * 60 * 60),
            exclusive: false,
            yes: false,
            max_unused: Unused::Percent(10.0),
            max_repack: None,
            max_time: None,
            memory: 192 << 20,
            rules: Rules::default(),
        }
    }
}

/// The safety rules. A test removes one at a time to show that it finds the loss.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Only objects that a record condemned are deleted.
    pub(crate) condemn_first: bool,
    /// The grace time runs from the first sight of this machine, and its clock agrees with the server's.
    pub(crate) own_sight: bool,
    /// Records and pages that cannot be read end the run.
    pub(crate) refuse_doubt: bool,
    /// Another place of a chunk counts only after it was read.
    pub(crate) verify_places: bool,
    /// The deleting run recomputes the live chunks.
    pub(crate) fresh_liveness: bool,
    /// The log is folded again after the drop record.
    pub(crate) fold_again: bool,
    /// Unusual removals need the user's consent.
    pub(crate) belts: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            condemn_first: true,
            own_sight: true,
            refuse_doubt: true,
            verify_places: true,
            fresh_liveness: true,
            fold_again: true,
            belts: true,
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Objects that this run has condemned.
    pub condemned: Amount,
    /// Packs whose live chunks were copied into new packs.
    pub repacked: Amount,
    /// Bytes that were written for that.
    pub copied: u64,
    /// Objects that were deleted.
    pub deleted: Amount,
    /// The reason why nothing was deleted, although the rest of the run succeeded.
    pub doubt: Option<String>,
    /// Things that the user should know.
    pub warnings: Vec<String>,
    /// The time limit was reached; the next run continues.
    pub is_stopped_early: bool,
}

/// Computes the plan of a run. Writes nothing.
///
/// # Errors
///
/// Errors of kind [`Kind::Tampering`] if anything is in doubt; errors of the storage.
pub fn plan(ctx: &Context, repo: &Repository, options: &Options) -> Result<Plan> {
    let survey = survey::Survey::take(ctx, repo, options)?;
    plan::plan(repo, options, &survey)
}

/// Runs `prune`. Calls `show` with the plan before anything is written; an error from it ends the run.
///
/// # Errors
///
/// Errors of kind [`Kind::Tampering`] if anything is in doubt: nothing was deleted. Errors of the storage.
pub fn prune(
    ctx: &Context,
    repo: &Repository,
    options: &Options,
    show: &mut dyn FnMut(&Plan) -> Result<()>,
) -> Result<Report> {
    let mut run = run::Run::new(ctx, repo, options);
    for attempt in 0..ATTEMPTS {
        let survey = survey::Survey::take(ctx, repo, options)?;
        let plan = plan::plan(repo, options, &survey)?;
        if attempt == 0 {
            show(&plan)?;
        }
        // The survey holds the chunks of all trees from now on, so other readers get less.
        let cache = repo.set_cache(CACHE);
        let step = run.execute(survey, &plan);
        repo.set_cache(cache);
        if let run::Step::Done = step? {
            return Ok(run.report);
        }
    }
    Err(Error::failed("other clients write all the time: not everything was deleted")
        .hint("run `nfreezer prune` again"))
}

/// Returns the error of a run in doubt.
fn doubt(text: impl Into<String>) -> Error {
    Error::new(Kind::Tampering, format!("{}: nothing was deleted", text.into()))
}
