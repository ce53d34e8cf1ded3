//! `nfreezer repair`: keeps everything that is readable and marks the rest as lost.

use std::sync::Arc;

use serde_json::{Value, json};

use super::exit::OK;
use super::figures::Work;
use super::findings::{Findings, fields, hex_ids};
use super::open::{read_state_verbosely, storage, to_write, to_write_on};
use super::options::{OpenArgs, ProgressArgs};
use super::output::{self, Output};
use super::passphrase::Given;
use super::progress::Reporter;
use super::values::{part, size};
use super::{human, signals};
use crate::check::{self, Consent, Part, Repaired};
use crate::error::{Kind, Result};
use crate::format::record::SnapshotId;
use crate::name::{Name, hex};
use crate::repo::Repository;

/// Arguments of `repair`.
#[derive(clap::Args)]
pub struct Args {
    /// Print what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Also replace snapshots that have lost data
    ///
    /// The old snapshot is forgotten; its replacement lacks the lost data. Lost records are given up. Without this option
    /// only packs are marked.
    #[arg(short, long)]
    yes: bool,
    /// First verify every byte of all packs
    #[arg(long, group = "data")]
    read_data: bool,
    /// First verify some packs: 5%, 2G, 10min, n/m
    #[arg(long, value_name = "PART", value_parser = part, group = "data")]
    read_data_subset: Option<Part>,
    /// Memory for visited pages and chunks
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256M", hide_short_help = true)]
    memory: u64,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// Repairs; the exit code is 0 if everything possible was done.
pub fn run(args: &Args) -> Result<u8> {
    let output = args.progress.output;
    let mut out = Output::new(output.json);
    let (repo, mut back) = open(args)?;
    if !args.dry_run {
        back.extend(repo.bring_back_empty_log(signals::context())?);
    }
    let mut state = match read_state_verbosely(&repo, &mut out, args.progress) {
        // This machine has seen records that are not there.
        Err(e) if e.kind() == Kind::Tampering && !args.dry_run => {
            back.extend(repo.bring_back_log(signals::context())?);
            if back.is_empty() {
                return Err(e);
            }
            read_state_verbosely(&repo, &mut out, args.progress)?
        }
        state => state?,
    };
    let options = check::Options {
        read: if args.read_data { Some(Part::All) } else { args.read_data_subset },
        memory: args.memory,
        ..check::Options::default()
    };
    let consent = Consent { yes: args.yes, dry_run: args.dry_run };
    let mut reporter = Reporter::new(args.progress, Work::Files("checked"));
    let ctx = reporter.attach(signals::catch_and_commit());
    let mut findings = Findings::new(args.progress);
    let mut take = |finding: check::Finding<'_>| findings.take(&reporter, &finding);
    let result = check::repair(&ctx, &repo, &mut state, &options, consent, &mut take);
    reporter.finish();
    findings.finish(&mut out)?;
    let mut repaired = result?;
    repaired.brought_back.splice(..0, back);
    if !output.quiet {
        print(&mut out, &repaired, consent)?;
    }
    out.object("summary", summary(&repaired, consent))?;
    out.flush().map(|()| OK)
}

/// Opens the repository. Unless this is a dry run, brings back the objects without which nothing opens: deleted ones before,
/// and overwritten ones if it does not open.
fn open(args: &Args) -> Result<(Repository, Vec<Name>)> {
    let (open, output) = (args.repository.past_cache(), args.progress.output);
    if args.dry_run {
        return Ok((to_write(&open, output, true)?, Vec::new()));
    }
    Given::of(&open.secret).check()?;
    let storage = storage(&open.address, &open.connection, output)?;
    let mut back = Repository::bring_back_entrance(signals::context(), &*storage)?;
    let error = match to_write_on(Arc::clone(&storage), &open, output) {
        Ok(repo) => return Ok((repo, back)),
        Err(e) => e,
    };
    let kinds = [Kind::NoRepository, Kind::Passphrase, Kind::Tampering, Kind::Damaged, Kind::Missing];
    if !kinds.contains(&error.kind()) {
        return Err(error);
    }
    let overwritten = Repository::bring_back_overwritten_entrance(signals::context(), &*storage)?;
    if overwritten.is_empty() {
        return Err(error);
    }
    back.extend(overwritten);
    Ok((to_write_on(storage, &open, output)?, back))
}

fn summary(repaired: &Repaired, consent: Consent) -> serde_json::Map<String, Value> {
    let forgotten = consent.yes && !consent.dry_run;
    let replaced = repaired.replaced.iter();
    let replaced: Vec<_> = replaced
        .map(|(old, new)| json!({ "snapshot": old.short(), "by": new.map(|id| id.short()), "forgotten": forgotten }))
        .collect();
    let mut fields = fields(&repaired.report);
    fields.extend(output::object(json!({
        "brought_back": repaired.brought_back.iter().map(Name::path).collect::<Vec<_>>(),
        "condemned": hex_ids(&repaired.condemned), "replaced": replaced, "given_up": hex_ids(&repaired.given_up),
        "replaced_records": hex_ids(&repaired.false_records),
        "reindexed": repaired.reindexed, "record": repaired.record.map(|id| hex(&id.0)), "dry_run": consent.dry_run,
    })));
    fields
}

fn print(out: &mut Output, repaired: &Repaired, consent: Consent) -> Result<()> {
    let Consent { yes, dry_run } = consent;
    if !repaired.brought_back.is_empty() {
        let objects = human::count(repaired.brought_back.len() as u64, "object");
        out.line(format_args!("{objects} brought back, which had been deleted or overwritten"))?;
        if repaired.brought_back.iter().any(|name| matches!(name, Name::Key(_))) {
            out.line("hint: key files that you had removed are back too: `nfreezer key list` shows all")?;
        }
    }
    if repaired.reindexed {
        out.line("the index was rebuilt where it was unreadable")?;
    } else if is_idle(repaired) {
        return out.line("nothing is to be repaired");
    }
    if !repaired.condemned.is_empty() {
        let would = if dry_run { "would be " } else { "" };
        let packs = human::count(repaired.condemned.len() as u64, "pack");
        out.line(format_args!(
            "{packs} {would}marked as lost: the next push uploads the contents that it still finds"
        ))?;
    }
    repaired.replaced.iter().try_for_each(|(old, new)| out.line(replacement(*old, *new, consent)))?;
    for id in &repaired.false_records {
        let would = if dry_run { "would be" } else { "is" };
        out.line(format_args!("record {} {would} replaced: it claimed to contain others", id.short()))?;
    }
    for id in &repaired.given_up {
        let what = if yes && !dry_run { "is given up" } else { "is lost; --yes gives it up" };
        out.line(format_args!("record {id} {what}"))?;
    }
    if yes && !dry_run && !repaired.replaced.is_empty() {
        let ids: Vec<String> = repaired.replaced.iter().map(|(old, _)| old.short()).collect();
        out.line(format_args!("hint: to undo this: `nfreezer undelete {}`", ids.join(" ")))?;
    }
    if !yes && !repaired.replaced.is_empty() {
        out.line("hint: push now, then check again: `nfreezer repair --yes` replaces snapshots that still lack data")?;
    }
    if dry_run { out.line("dry run: nothing was written") } else { Ok(()) }
}

/// Reports whether there was nothing to repair.
fn is_idle(repaired: &Repaired) -> bool {
    let packs_and_records = [&repaired.condemned, &repaired.given_up, &repaired.false_records];
    repaired.replaced.is_empty()
        && repaired.brought_back.is_empty()
        && packs_and_records.iter().all(|ids| ids.is_empty())
}

fn replacement(old: SnapshotId, new: Option<SnapshotId>, consent: Consent) -> String {
    let old = old.short();
    match new {
        Some(new) => {
            let new = new.short();
            format!("snapshot {old} is replaced by {new}, which lacks the lost data; {old} is forgotten, not removed")
        }
        None if consent.yes && !consent.dry_run => format!("snapshot {old} is forgotten: all of its data is lost"),
        None if consent.yes => format!("snapshot {old} would be replaced"),
        None => format!("snapshot {old} has lost data and was left unchanged (use --yes to replace it)"),
    }
}
