//! `nfreezer undelete`: shows forgotten snapshots again.

use serde_json::json;

use super::exit::OK;
use super::open::{read_state, to_write};
use super::options::{OpenArgs, OutputArgs};
use super::output::{self, Output};
use super::signals;
use super::snapshot::each_once;
use crate::error::Result;
use crate::forget;

/// Arguments of `undelete`.
#[derive(clap::Args)]
pub struct Args {
    /// Ids of forgotten snapshots, as `snapshots --forgotten` lists them
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Undeletes all of them, or none if one is unknown or its data is gone.
pub fn run(args: &Args) -> Result<u8> {
    let repo = to_write(&args.repository, args.output, false)?;
    let mut out = Output::new(args.output.json);
    let mut state = read_state(&repo, &mut out)?;
    let snapshots = each_once(args.snapshots.iter().map(|text| state.select_forgotten(text)))?;
    forget::undelete(signals::catch_and_commit(), &repo, &mut state, &snapshots)?;
    if !args.output.quiet {
        snapshots.iter().try_for_each(|s| out.line(format_args!("snapshot {} is shown again", s.id.short())))?;
    }
    let ids: Vec<String> = snapshots.iter().map(|s| s.id.to_string()).collect();
    out.object("summary", output::object(json!({ "undeleted": ids })))?;
    out.flush().map(|()| OK)
}
