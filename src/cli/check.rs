//! `nfreezer check`: verifies that everything the snapshots need exists and is intact, and names what is affected otherwise.

use super::exit::{DAMAGED, OK, TAMPERING};
use super::figures::Work;
use super::findings::{Findings, fields};
use super::open::{read_state_verbosely, remember_run, to_check};
use super::options::{ProgressArgs, ReadArgs};
use super::output::Output;
use super::progress::Reporter;
use super::values::{part, size};
use super::{human, signals};
use crate::check::{self, Audit, Part, Report};
use crate::error::Result;
use crate::seen::Run;

/// Arguments of `check`.
#[derive(clap::Args)]
pub struct Args {
    /// Check only these snapshots: ids, `latest`, `latest~N`
    ///
    /// Without any, all snapshots and the index are checked.
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Read and verify every byte of all packs
    #[arg(long, group = "data")]
    read_data: bool,
    /// Read some packs: 5%, 2G, 10min, n/m
    ///
    /// A share, an amount or a time draws packs at random. n/m reads part n of m.
    #[arg(long, value_name = "PART", value_parser = part, group = "data")]
    read_data_subset: Option<Part>,
    /// Verify random blocks of this total size
    ///
    /// The blocks have 64 KiB. The result is how much of the data is intact with a certainty of 99 %.
    #[arg(long, value_name = "SIZE", value_parser = size, group = "data")]
    audit: Option<u64>,
    /// Memory for visited pages and chunks
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256M", hide_short_help = true)]
    memory: u64,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// Checks; the exit code is 4 if anything is damaged, 15 if records are missing.
pub fn run(args: &Args) -> Result<u8> {
    let output = args.progress.output;
    let repo = to_check(&args.repository, output)?;
    let mut out = Output::new(output.json);
    let state = read_state_verbosely(&repo, &mut out, args.progress)?;
    let snapshots = args.snapshots.iter().map(|text| state.select_to_read(text, |_| true)).collect::<Result<_>>()?;
    let options = check::Options {
        snapshots,
        read: if args.read_data { Some(Part::All) } else { args.read_data_subset },
        audit: args.audit,
        memory: args.memory,
    };
    let mut reporter = Reporter::new(args.progress, Work::Files("checked"));
    let ctx = reporter.attach(signals::catch());
    let mut findings = Findings::new(args.progress);
    let result = check::check(&ctx, &repo, &state, &options, &mut |finding| findings.take(&reporter, &finding));
    reporter.finish();
    findings.finish(&mut out)?;
    let report = result?;
    let is_whole = args.snapshots.is_empty() && !report.is_rolled_back() && !report.is_damaged();
    if is_whole {
        remember_run(&repo, &mut out, if args.read_data { Run::CheckData } else { Run::Check })?;
    }
    if !output.quiet {
        print(&mut out, &report, args)?;
    }
    out.object("summary", fields(&report))?;
    out.flush()?;
    Ok(if report.is_rolled_back() {
        TAMPERING
    } else if report.is_damaged() {
        DAMAGED
    } else {
        OK
    })
}

fn print(out: &mut Output, report: &Report, args: &Args) -> Result<()> {
    print_structure(out, report, args.snapshots.is_empty())?;
    if report.read.0 > 0 || args.read_data_subset.is_some() {
        let share = if report.packs.1 == 0 { 100.0 } else { report.read.1 as f64 * 100.0 / report.packs.1 as f64 };
        let (packs, bytes) = (human::count(report.read.0, "pack"), human::size(report.read.1));
        out.line(format_args!("read and verified {packs}, {bytes}: {share:.1} % of the data"))?;
    }
    if let Some(audit) = &report.audit {
        print_audit(out, audit)?;
    }
    print_notes(out, report)?;
    print_verdict(out, report)
}

fn print_structure(out: &mut Output, report: &Report, with_index: bool) -> Result<()> {
    let seconds = report.duration.as_secs_f64();
    out.line(format_args!(
        "checked {}: {} and {} in {} different pages, {} with {} references into {} ({}), in {seconds:.1} s",
        human::count(report.snapshots, "snapshot"),
        human::count(report.files, "file"),
        human::count(report.directories, "folder"),
        report.pages,
        if with_index { human::count(report.entries, "index entry") } else { "no index".into() },
        report.references,
        human::count(report.packs.0, "pack"),
        human::size(report.packs.1),
    ))
}

fn print_audit(out: &mut Output, audit: &Audit) -> Result<()> {
    let drawn = human::count(audit.samples, "random block");
    match audit.intact {
        Some(share) => out.line(format_args!(
            "{drawn} of 64 KiB verified: 99 % sure that at least {} % of the data is intact",
            percent(share)
        )),
        None if audit.samples == 0 => out.line("the repository holds no data to draw blocks from"),
        None => out.line(format_args!("{} of {drawn} are damaged or missing", audit.bad)),
    }
}

/// Prints findings that are not damage.
fn print_notes(out: &mut Output, report: &Report) -> Result<()> {
    let notes = [
        (
            report.unused.0,
            "pack is not used (of an interrupted push, or of one that is running)",
            "packs are not used (of interrupted pushes, or of one that is running)",
        ),
        (
            report.torn_records,
            "record was cut off when it was committed: nothing is lost with it",
            "records were cut off when they were committed: nothing is lost with them",
        ),
        (report.known, "loss was known: `repair` has marked it", "losses were known: `repair` has marked them"),
    ];
    for (n, one, more) in notes {
        match n {
            0 => {}
            1 => out.line(format_args!("1 {one}"))?,
            n => out.line(format_args!("{n} {more}"))?,
        }
    }
    Ok(())
}

fn print_verdict(out: &mut Output, report: &Report) -> Result<()> {
    if !report.false_records.is_empty() {
        let records = human::count(report.false_records.len() as u64, "record");
        out.line(format_args!("{records} HIDE others that they claim to contain: those are used again"))?;
        return out
            .line("hint: `nfreezer repair` replaces them; then change the passphrase and the keys of all clients");
    }
    let lost = [(&report.deleted, "DELETED although needed"), (&report.overwritten, "OVERWRITTEN")];
    for (names, what) in lost.iter().filter(|(names, _)| !names.is_empty()) {
        let objects = human::count(names.len() as u64, "object");
        out.line(format_args!("{objects} {what}: the store keeps versions of them"))?;
    }
    if lost.iter().any(|(names, _)| !names.is_empty()) {
        return out.line("hint: `nfreezer repair` brings them back; then change the access keys that may do this");
    }
    if report.is_rolled_back() {
        let missing = human::count(report.missing_records.len() as u64, "record");
        out.line(format_args!("{missing} MISSING: the server has lost snapshots or hides them"))?;
        return out.line("hint: once that is certain, `nfreezer repair --yes` continues without them");
    }
    if !report.is_damaged() {
        return out.line("no damage was found");
    }
    let (packs, paths) = (human::count(report.damaged_packs, "pack"), human::count(report.paths, "path"));
    let records = human::count((report.damaged_records.len() + report.damaged_indexes.len()) as u64, "record");
    let snapshots = human::count(report.hit, "snapshot");
    out.line(format_args!("DAMAGE: {packs} and {records} damaged or missing, {paths} in {snapshots} affected"))?;
    out.line(
        "hint: `nfreezer repair` marks the lost chunks; the next push uploads them again if the source files still exist",
    )
}

/// Rounds down, so that the statement stays true.
fn percent(share: f64) -> f64 {
    (share * 10_000.0).floor() / 100.0
}
