//! `nfreezer doctor`: tests a server, or another place of a repository, and gives advice.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::exit::OK;
use super::open::storage_at;
use super::options::{AddressArgs, ConnectionArgs, OutputArgs};
use super::output::{self, Output};
use super::{escape, human, signals};
use crate::doctor::{self, Finding, Level};
use crate::error::Result;
use crate::name::Name;

/// Exit code if a test failed.
const FAILED: u8 = 1;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub struct Args {
    /// The repository; by default the one of -r
    #[arg(value_name = "REPO")]
    place: Option<String>,
    /// Leave out the tests that write
    ///
    /// These are sync, clock, protection, upload and download.
    #[arg(long)]
    no_write: bool,
    #[command(flatten)]
    address: AddressArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Numbers of findings by level.
#[derive(Default)]
struct Counts {
    ok: u64,
    warnings: u64,
    failures: u64,
}

/// Prints the findings; the exit code is 1 if a test failed.
pub fn run(args: &Args) -> Result<u8> {
    let address = args.place.clone().map_or_else(|| args.address.get(), Ok)?;
    let mut out = Output::new(args.output.json);
    let ctx = signals::catch();
    let started = Instant::now();
    let storage = storage_at(&address, &args.connection, args.output)?;
    let seconds = started.elapsed().as_secs_f64();
    let is_local = storage.local_path().is_some();
    let login = if is_local { "a folder of this machine".into() } else { format!("connected in {seconds:.1} s") };
    let mut counts = Counts::default();
    let mut failed = print(&mut out, args, &Finding::ok("login", login), &mut counts);
    let left = doctor::examine(ctx, &*storage, !args.no_write, &mut |finding| {
        if failed.is_ok() {
            failed = print(&mut out, args, &finding, &mut counts).and_then(|()| out.flush());
        }
    });
    failed?;
    let left = left?;
    report_left(&mut out, &left)?;
    let Counts { ok, warnings, failures } = counts;
    if !args.output.quiet {
        let [warned, failed] = [human::count(warnings, "warning"), human::count(failures, "failure")];
        out.line(format_args!("{}, {warned}, {failed}", human::count(ok + warnings + failures, "test")))?;
    }
    let names: Vec<_> = left.iter().map(|(name, bytes)| json!({ "name": name.path(), "bytes": bytes })).collect();
    let fields =
        json!({ "address": storage.address(), "ok": ok, "warnings": warnings, "failures": failures, "left": names });
    out.object("summary", output::object(fields))?;
    out.flush().map(|()| if failures > 0 { FAILED } else { OK })
}

fn print(out: &mut Output, args: &Args, finding: &Finding, counts: &mut Counts) -> Result<()> {
    let (word, count) = match finding.level {
        Level::Ok => ("ok", &mut counts.ok),
        Level::Warning => ("warn", &mut counts.warnings),
        Level::Failure => ("FAIL", &mut counts.failures),
    };
    *count += 1;
    if finding.level > Level::Ok || !args.output.quiet {
        out.line(format_args!("{word:<5} {:<11} {}", finding.test, escape::message(&finding.text)))?;
        if let Some(advice) = &finding.advice {
            out.line(format_args!("      {:<11} hint: {advice}", ""))?;
        }
    }
    out.object("finding", fields(finding, word))
}

fn fields(finding: &Finding, word: &str) -> Map<String, Value> {
    let values: Map<String, Value> =
        finding.values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let level = word.to_lowercase();
    output::object(json!({
        "test": finding.test, "level": level, "text": finding.text, "advice": finding.advice, "values": values,
    }))
}

/// Prints the objects that the server refused to remove.
fn report_left(out: &mut Output, left: &[(Name, u64)]) -> Result<()> {
    if left.is_empty() {
        return Ok(());
    }
    let bytes = left.iter().map(|(_, bytes)| bytes).sum();
    out.line(format_args!(
        "left on the server, which refuses deletion: {} of {}; `nfreezer prune` with a full key removes them after a day",
        human::count(left.len() as u64, "object"),
        human::size(bytes)
    ))?;
    left.iter().try_for_each(|(name, bytes)| out.line(format_args!("  {} ({})", name.path(), human::size(*bytes))))
}

#[cfg(test)]
mod tests {
    use super::super::server_setup::DENIED;

    /// Requests that `Storage::attack` and `remove` send.
    const TRIED: [&str; 8] =
        ["remove", "rename", "posix-rename", "hardlink", "setstat", "fsetstat", "lsetstat", "open"];
    /// Requests that change no existing object by themselves.
    const HARMLESS_ALONE: [&str; 4] = ["mkdir", "rmdir", "symlink", "copy-data"];

    #[test]
    fn all_requests_that_server_setup_denies_are_tried() {
        for request in DENIED.split(',') {
            assert!(TRIED.contains(&request) || HARMLESS_ALONE.contains(&request), "{request}");
        }
    }
}
