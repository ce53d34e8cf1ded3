//! `nfreezer copy`: copies snapshots into another repository.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::exit::{DAMAGED, OK};
use super::figures::Work;
use super::filter::FilterArgs;
use super::open::{read_state, to_push, to_read};
use super::options::{ProgressArgs, ReadArgs};
use super::output::{self, Output};
use super::passphrase::Given;
use super::progress::Reporter;
use super::push::memory;
use super::snapshot::paths;
use super::target::TargetArgs;
use super::{escape, human, signals};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::record::Snapshot;
use crate::push::{self, Copied, Copier, Existing};
use crate::repo::{Repository, State};
use crate::trees::{Lookup, Trees};

/// Arguments of `copy`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshots; without any, all that were not copied yet
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// The repository to copy into (passphrase: --to-password-file)
    #[arg(long, value_name = "REPO", help_heading = "Target")]
    to: String,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Print what would be copied, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Use at most this much memory for sending, besides 160M for reading; at least 104M
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "256M", env = "NFREEZER_MEMORY",
        hide_short_help = true)]
    memory: u64,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// The results of a run.
#[derive(Default)]
struct Totals {
    copied: Vec<(Snapshot, push::Summary)>,
    /// Snapshots that the target has already.
    existing: usize,
    /// Snapshots of which something is damaged.
    damaged: Vec<Snapshot>,
}

/// Copies. The exit code is 4 if a snapshot could not be copied because a part of it is damaged.
pub fn run(args: &Args) -> Result<u8> {
    let output = args.progress.output;
    let targets = args.target.open(std::slice::from_ref(&args.to), &args.repository.open)?;
    let target = targets.first().ok_or_else(|| Error::failed("a copy without a target"))?;
    Given::of(&target.secret).check()?;
    args.repository.open.address.get()?;
    check_values(args)?;
    let ctx = signals::catch_and_commit();
    let from = to_read(&args.repository, output)?;
    let to = to_push(target, output, args.dry_run).map_err(|e| e.while_doing(&args.to))?;
    if from.id() == to.id() {
        return Err(same_repository());
    }
    let mut out = Output::new(output.json);
    let (state, target_state) = (read_state(&from, &mut out)?, read_state(&to, &mut out)?);
    let existing = Existing::of(&target_state);
    let (done, wanted): (Vec<_>, Vec<_>) =
        selected(args, &state)?.into_iter().partition(|s| existing.has(s, !args.snapshots.is_empty()));
    let mut totals = Totals { existing: done.len(), ..Totals::default() };
    let before = from.storage().traffic().1;
    if args.dry_run {
        wanted.iter().try_for_each(|snapshot| out.line(format_args!("would copy {}", named(snapshot))))?;
    } else {
        copy(args, ctx, [&from, &to], state, &wanted, &mut totals, &mut out)?;
    }
    let fetched = from.storage().traffic().1 - before;
    summary(&mut out, args, &totals, &wanted, fetched)?;
    out.flush()?;
    Ok(if totals.damaged.is_empty() { OK } else { DAMAGED })
}

/// Checks values that the parser has accepted.
pub fn check_values(args: &Args) -> Result<()> {
    args.target.open(std::slice::from_ref(&args.to), &args.repository.open)?;
    let from = &args.repository.open.address;
    if from.get().is_ok_and(|from| from == args.to) { Err(same_repository()) } else { Ok(()) }
}

fn same_repository() -> Error {
    let text = "--to names the repository that is to be copied";
    Error::new(Kind::Usage, text).hint("make another repository with `nfreezer init`, and give its address with --to")
}

/// Returns the snapshots to copy, oldest first, each once.
fn selected(args: &Args, state: &State) -> Result<Vec<Snapshot>> {
    if args.snapshots.is_empty() {
        let all = args.filter.passing(state).into_iter();
        return Ok(all.filter(|s| !s.partial).collect());
    }
    let named = args.filter.named(state, &args.snapshots)?;
    if let Some(partial) = named.iter().find(|snapshot| snapshot.partial) {
        let text = format!("snapshot {} is partial: it cannot be copied", partial.id.short());
        return Err(Error::new(Kind::Usage, text).hint("the same push again makes a whole snapshot of it"));
    }
    Ok(named)
}

/// Copies snapshots, oldest first, so that each is compared with the one before it.
fn copy(
    args: &Args,
    ctx: &Context,
    [from, to]: [&Repository; 2],
    state: State,
    wanted: &[Snapshot],
    totals: &mut Totals,
    out: &mut Output,
) -> Result<()> {
    let snapshots = state.snapshots();
    let trees = Trees::with(from, Arc::new(Lookup::from_state(state)));
    let copier = Copier::new(&trees, &snapshots);
    let options = push::Options { memory: args.memory, ..push::Options::default() };
    for snapshot in wanted {
        let mut reporter = Reporter::new(args.progress, Work::Send("copied"));
        let done = copier.copy(&reporter.attach(ctx), to, snapshot, &options);
        reporter.finish();
        match done? {
            Copied::Whole(done) => {
                if !args.progress.output.quiet {
                    print(out, snapshot, &done)?;
                }
                out.object("copy", fields(snapshot, &done))?;
                totals.copied.push((snapshot.clone(), *done));
            }
            Copied::Damaged(e) => {
                damaged(out, snapshot, &e)?;
                totals.damaged.push(snapshot.clone());
            }
        }
        out.flush()?;
    }
    Ok(())
}

fn named(s: &Snapshot) -> String {
    let host = escape::text(s.host.as_bytes());
    format!("snapshot {} of {}, {host}, {}", s.id.short(), human::time(s.time), paths(s))
}

fn print(out: &mut Output, snapshot: &Snapshot, done: &push::Summary) -> Result<()> {
    out.line(format_args!(
        "{} is copied as {}: read {}, sent {}, in {:.1} s",
        named(snapshot),
        done.snapshot.id.short(),
        human::size(done.read),
        human::size(done.sent),
        done.duration.as_secs_f64()
    ))
}

fn damaged(out: &mut Output, snapshot: &Snapshot, e: &Error) -> Result<()> {
    let text = format!("snapshot {} is not copied: {e}", snapshot.id.short());
    if !out.is_json() {
        output::notice(format_args!("nfreezer: error: {}", escape::message(&text)));
        e.hint_text().into_iter().for_each(|hint| output::notice(format_args!("hint: {}", escape::message(hint))));
    }
    out.object("error", output::object(json!({ "snapshot": snapshot.id.to_string(), "message": e.to_string() })))
}

fn fields(snapshot: &Snapshot, done: &push::Summary) -> Map<String, Value> {
    output::object(json!({
        "snapshot": snapshot.id.to_string(), "copy": done.snapshot.id.to_string(),
        "time": human::rfc3339(snapshot.time), "host": snapshot.host, "read": done.read, "added": done.added,
        "stored": done.stored, "sent": done.sent, "packs": done.packs, "seconds": done.duration.as_secs_f64(),
    }))
}

fn summary(out: &mut Output, args: &Args, totals: &Totals, wanted: &[Snapshot], fetched: u64) -> Result<()> {
    let sent: u64 = totals.copied.iter().map(|(_, done)| done.sent).sum();
    if !args.progress.output.quiet {
        let number = if args.dry_run { wanted.len() } else { totals.copied.len() };
        let copied = if args.dry_run { "would be copied" } else { "copied" };
        let damaged =
            if totals.damaged.is_empty() { String::new() } else { format!(", {} damaged", totals.damaged.len()) };
        out.line(format_args!(
            "{} {copied}, {} there already{damaged}",
            human::count(number as u64, "snapshot"),
            totals.existing
        ))?;
        if args.dry_run {
            out.line("dry run: nothing was written")?;
        } else {
            out.line(format_args!("received {}, sent {}", human::size(fetched), human::size(sent)))?;
        }
    }
    let ids = |snapshots: &[Snapshot]| snapshots.iter().map(|s| s.id.to_string()).collect::<Vec<_>>();
    let copied: Vec<Snapshot> = totals.copied.iter().map(|(snapshot, _)| snapshot.clone()).collect();
    let copied = ids(if args.dry_run { wanted } else { &copied });
    out.object(
        "summary",
        output::object(json!({
            "copied": copied, "existing": totals.existing, "damaged": ids(&totals.damaged), "fetched": fetched,
            "sent": sent, "dry_run": args.dry_run,
        })),
    )
}
