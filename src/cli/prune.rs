//! `nfreezer prune`: deletes data that no snapshot needs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::exit::{OK, TAMPERING};
use super::figures::Work;
use super::open::{remember_run, to_write};
use super::options::{OpenArgs, OutputArgs, ProgressArgs};
use super::output::{self, Output};
use super::progress::Reporter;
use super::values::{duration, size};
use super::{human, signals};
use crate::error::Result;
use crate::prune::{self, Amount, Options, Plan, Report, Unused};
use crate::repo::Repository;
use crate::seen::Run;

/// Arguments of `prune`.
#[derive(clap::Args)]
pub struct Args {
    /// Print what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Also delete if most packs, or all, are not needed
    ///
    /// Without this option such a run is refused, because it may be a mistake.
    #[arg(short, long)]
    yes: bool,
    /// Delete at once: no other client writes
    ///
    /// Leaves out the grace time of 24 hours. For a full disk. A client that writes anyway detects it and sends its
    /// data again.
    #[arg(long)]
    exclusive: bool,
    /// Unused data that may stay
    ///
    /// A percentage of the used data (10%), a size (5G), or `unlimited`: nothing is repacked.
    #[arg(long, value_name = "LIMIT", value_parser = unused, default_value = "10%")]
    max_unused: Unused,
    /// Repack at most this much in one run
    #[arg(long, value_name = "SIZE", value_parser = size, hide_short_help = true, alias = "max-repack-size")]
    max_repack: Option<u64>,
    /// Begin nothing new after this time; the next run continues
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_time: Option<Duration>,
    /// Keep forgotten data this long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "14d")]
    keep_forgotten: Duration,
    /// Memory for visited pages and chunks
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "192M", hide_short_help = true)]
    memory: u64,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// Parses `10%`, `5G`, `unlimited`.
fn unused(text: &str) -> Result<Unused, String> {
    if text == "unlimited" {
        return Ok(Unused::Unlimited);
    }
    let wrong = || "write a limit such as 10%, 5G or unlimited".to_owned();
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Unused::Percent(percent)),
            _ => Err(wrong()),
        },
        None => size(text).map(Unused::Bytes).map_err(|_| wrong()),
    }
}

/// Prunes; the exit code is 15 if a doubt prevented the deletion.
pub fn run(args: &Args) -> Result<u8> {
    let repo = to_write(&args.repository.past_cache(), args.progress.output, args.dry_run)?;
    let options = Options {
        keep_forgotten: args.keep_forgotten,
        exclusive: args.exclusive,
        yes: args.yes || args.dry_run,
        max_unused: args.max_unused,
        max_repack: args.max_repack,
        max_time: args.max_time,
        memory: args.memory,
        ..Options::default()
    };
    prune_with(&repo, &options, args.progress, args.dry_run)
}

/// Prunes with the default options, for `forget --prune`.
pub fn after_forget(repo: &Repository, output: OutputArgs, dry_run: bool) -> Result<u8> {
    let options = Options { yes: dry_run, ..Options::default() };
    prune_with(repo, &options, ProgressArgs { output, verbose: 0 }, dry_run)
}

fn prune_with(repo: &Repository, options: &Options, progress: ProgressArgs, dry_run: bool) -> Result<u8> {
    let output = progress.output;
    let mut out = Output::new(output.json);
    let mut reporter = Reporter::new(progress, Work::Steps);
    let ctx = reporter.attach(signals::catch());
    let mut show = |plan: &Plan| {
        if !output.quiet {
            lines(plan, options).iter().try_for_each(|line| out.line(line))?;
        }
        out.object("plan", fields(plan))?;
        out.flush()
    };
    if dry_run {
        let plan = prune::plan(&ctx, repo, options);
        reporter.finish();
        show(&plan?)?;
        out.line("dry run: nothing was written")?;
        out.object("summary", summary(&Report::default(), true))?;
        return out.flush().map(|()| OK);
    }
    let result = prune::prune(&ctx, repo, options, &mut show);
    reporter.finish();
    let report = result?;
    if report.doubt.is_none() {
        remember_run(repo, &mut out, Run::Prune)?;
    }
    finish(&mut out, &report, options.exclusive, output.quiet)
}

fn finish(out: &mut Output, report: &Report, is_exclusive: bool, is_quiet: bool) -> Result<u8> {
    report.warnings.iter().try_for_each(|text| output::warning(out, text))?;
    if !is_quiet {
        out.line(format_args!(
            "repacked {}, condemned {}, deleted {}",
            amount(report.repacked),
            amount(report.condemned),
            amount(report.deleted)
        ))?;
        if report.is_stopped_early {
            out.line("the time is over; the next run continues")?;
        }
        if !is_exclusive && report.condemned.objects + report.repacked.objects > report.deleted.objects {
            out.line("hint: run `nfreezer prune` again in a day: that run deletes the objects that are condemned now")?;
        }
    }
    if let Some(why) = &report.doubt {
        output::warning(out, &format!("nothing was deleted: {why}"))?;
    }
    out.object("summary", summary(report, false))?;
    out.flush().map(|()| if report.doubt.is_some() { TAMPERING } else { OK })
}

fn amount(amount: Amount) -> String {
    format!("{} ({})", human::count(amount.objects, "object"), human::size(amount.bytes))
}

/// Returns the plan for people.
fn lines(plan: &Plan, options: &Options) -> Vec<String> {
    let row = |name: &str, of: Amount| format!("{name:<11}{:>7}  {:>10}", of.objects, human::size(of.bytes));
    let unused = human::size(plan.unused_bytes);
    let mut lines = vec![
        row("total", plan.total),
        format!("{}, with {unused} of unused data in them", row("used", plan.used)),
        row("unused", plan.unused),
    ];
    let mut more = |name, of: Amount, text: &str| {
        if of.objects > 0 {
            lines.push(format!("{}{text}", row(name, of)));
        }
    };
    more("orphans", plan.orphans, ", of interrupted pushes");
    more("young", plan.young, ", perhaps of a running push: left alone");
    more("records", plan.records, ", superseded or incomplete");
    let live = format!(", of which {} are copied", human::size(plan.repack_live));
    more("to repack", plan.repack, &live);
    let next = plan.next.map(|time| format!(", deletable from {} on", human::time(time)));
    more("condemned", plan.waiting, next.as_deref().unwrap_or_default());
    more("to delete", plan.delete, if options.exclusive { ", and all of the above at once" } else { "" });
    lines
}

fn fields(plan: &Plan) -> Map<String, Value> {
    output::object(json!({
        "total": object(plan.total), "used": object(plan.used), "unused_bytes": plan.unused_bytes,
        "unused": object(plan.unused), "orphans": object(plan.orphans), "torsos": object(plan.torsos),
        "young": object(plan.young), "records": object(plan.records), "repack": object(plan.repack),
        "repack_live": plan.repack_live, "condemned": object(plan.waiting), "delete": object(plan.delete),
        "next_deletion": plan.next.map(human::rfc3339), "doubt": plan.doubt,
    }))
}

fn object(amount: Amount) -> Value {
    json!({ "objects": amount.objects, "bytes": amount.bytes })
}

fn summary(report: &Report, dry_run: bool) -> Map<String, Value> {
    output::object(json!({
        "condemned": object(report.condemned), "repacked": object(report.repacked), "copied_bytes": report.copied,
        "deleted": object(report.deleted), "doubt": report.doubt, "stopped_early": report.is_stopped_early,
        "dry_run": dry_run,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_unused_data() {
        assert_eq!(unused("10%"), Ok(Unused::Percent(10.0)));
        assert_eq!(unused("1.5G"), Ok(Unused::Bytes(3 << 29)));
        assert_eq!(unused("unlimited"), Ok(Unused::Unlimited));
        for wrong in ["", "-1%", "101%", "NaN%", "ten", "%"] {
            unused(wrong).unwrap_err();
        }
    }
}
