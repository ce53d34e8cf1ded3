//! `nfreezer repair`: keeps what can be read, and says of the rest that it is lost.

use serde_json::json;

use super::check::{Findings, fields, part};
use super::common::{Common, open_to_write, read_state, size};
use super::progress::Reporter;
use super::show::{self, Output};
use super::{OK, signals};
use crate::check::{self, Consent, Part, Repaired};
use crate::error::Result;
use crate::name::hex;

/// Arguments of `repair`.
#[derive(clap::Args)]
pub struct Args {
    /// Say what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Also replace snapshots that are hit by ones without what is lost, forget them, and give up lost records
    #[arg(short, long)]
    yes: bool,
    /// Look for damage in every byte of all packs first
    #[arg(long, group = "data")]
    read_data: bool,
    /// Look for damage in a part of the packs first: 5%, 2G, 10min, or n/m
    #[arg(long, value_name = "PART", value_parser = part, group = "data")]
    read_data_subset: Option<Part>,
    /// Memory for what was visited
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256M")]
    memory: u64,
}

/// Exit code 0 if everything was done that could be.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    let repo = open_to_write(common, args.dry_run)?;
    let mut out = Output::new(common.json);
    let mut state = read_state(&repo, &mut out)?;
    let options = check::Options {
        read: if args.read_data { Some(Part::All) } else { args.read_data_subset },
        memory: args.memory,
        ..check::Options::default()
    };
    let consent = Consent { yes: args.yes, dry_run: args.dry_run };
    let mut reporter = Reporter::new(common, "checked");
    let ctx = reporter.attach(signals::catch()?);
    let mut findings = Findings::new(common);
    let mut take = |finding: check::Finding<'_>| findings.take(&reporter, &finding);
    let result = check::repair(&ctx, &repo, &mut state, &options, consent, &mut take);
    reporter.finish();
    findings.finish(&mut out)?;
    let repaired = result?;
    if !common.quiet {
        say(&mut out, &repaired, consent)?;
    }
    let mut fields = fields(&repaired.report);
    let ids = |ids: &[crate::name::ObjectId]| ids.iter().map(|id| hex(&id.0)).collect::<Vec<_>>();
    let replaced = repaired.replaced.iter();
    let replaced: Vec<_> = replaced
        .map(|(old, new)| json!({ "snapshot": old.short(), "by": new.map(|id| id.short()), "forgotten": args.yes && !args.dry_run }))
        .collect();
    fields.extend(show::object(json!({
        "condemned": ids(&repaired.condemned), "replaced": replaced, "given_up": ids(&repaired.given_up), "reindexed": repaired.reindexed,
        "record": repaired.record.map(|id| hex(&id.0)), "dry_run": args.dry_run,
    })));
    out.object("summary", fields)?;
    out.flush().map(|()| OK)
}

fn say(out: &mut Output, r: &Repaired, consent: Consent) -> Result<()> {
    let Consent { yes, dry_run } = consent;
    if r.reindexed {
        out.line("the index was made anew where it could not be read")?;
    } else if r.condemned.is_empty() && r.replaced.is_empty() && r.given_up.is_empty() {
        return out.line("nothing is to be repaired");
    }
    let would = if dry_run { "would be " } else { "" };
    if !r.condemned.is_empty() {
        let packs = show::count(r.condemned.len() as u64, "pack");
        out.line(format_args!("{packs} {would}marked as lost: the next push sends again what it still finds"))?;
    }
    for (old, new) in &r.replaced {
        match new {
            Some(new) => out.line(format_args!(
                "snapshot {} is replaced by {}, which lacks what is lost; it is forgotten, not removed",
                old.short(),
                new.short()
            ))?,
            None if yes && !dry_run => {
                out.line(format_args!("snapshot {} is forgotten: nothing of it is left", old.short()))?;
            }
            None if yes => out.line(format_args!("snapshot {} would be replaced", old.short()))?,
            None => out.line(format_args!("snapshot {} is hit and stays as it is", old.short()))?,
        }
    }
    for id in &r.given_up {
        let what = if yes && !dry_run { "is given up" } else { "is lost; --yes gives it up" };
        out.line(format_args!("record {id} {what}"))?;
    }
    if !yes && !r.replaced.is_empty() {
        out.line("push now, then check again: `repair --yes` replaces the snapshots that are still hit")?;
    }
    match dry_run {
        true => out.line("dry run: nothing was written"),
        false => Ok(()),
    }
}
