//! `nfreezer accept`: accepts the present state of a repository, after a rollback that was intended.

use serde_json::json;

use super::exit::OK;
use super::open::to_accept;
use super::options::{OpenArgs, OutputArgs};
use super::output::{self, Output};
use super::{escape, human, signals};
use crate::error::Result;

/// Arguments of `accept`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Prints how the present state differs from the remembered one, and remembers it.
pub fn run(args: &Args) -> Result<u8> {
    let repo = to_accept(&args.open, args.output)?;
    let mut out = Output::new(args.output.json);
    let state = repo.state(signals::context())?;
    state.warnings().iter().try_for_each(|text| output::warning(&mut out, text))?;
    repo.accept(&state)?;
    let (address, snapshots) = (repo.storage().address(), state.snapshots().len());
    out.line(format_args!(
        "the present state of {} is accepted, with {}",
        escape::text(address.as_bytes()),
        human::count(snapshots as u64, "snapshot")
    ))?;
    out.object("summary", output::object(json!({ "accepted": address, "snapshots": snapshots })))?;
    out.flush().map(|()| OK)
}
