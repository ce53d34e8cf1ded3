//! `nfreezer forget`: hides snapshots, by ids or by a policy.

use jiff::tz::TimeZone;
use serde_json::json;

use super::calendar;
use super::exit::OK;
use super::filter::FilterArgs;
use super::open::{read_state, to_write};
use super::options::{OpenArgs, OutputArgs};
use super::output::{self, Output};
use super::snapshot::each_once;
use super::values::{group_by, keep_count, within};
use super::{escape, human, prune, signals};
use crate::error::{Error, Kind, Result};
use crate::forget::{self, GroupBy, Plan, Policy, Within};
use crate::format::record::{Snapshot, SnapshotId};
use crate::repo::State;

/// Arguments of `forget`.
#[derive(clap::Args)]
pub struct Args {
    /// Ids to forget; without them a policy decides
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Print what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Also forget more than half, or the last of a host
    #[arg(short, long)]
    yes: bool,
    /// Then run `prune`
    ///
    /// With its default options, also if nothing was forgotten. `prune` deletes the data of forgotten snapshots 14 days
    /// later, so run it regularly.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A policy; it judges each group of snapshots by itself.
#[derive(clap::Args, Default)]
struct PolicyArgs {
    /// Keep the last N snapshots
    #[arg(short = 'l', long, value_name = "N", value_parser = keep_count, allow_negative_numbers = true, hide_short_help = true)]
    keep_last: Option<u32>,
    /// Keep one snapshot an hour, for N hours
    #[arg(short = 'H', long, value_name = "N", value_parser = keep_count, allow_negative_numbers = true, hide_short_help = true)]
    keep_hourly: Option<u32>,
    /// Keep one a day, for N days; also -H, -w, -m
    #[arg(short = 'd', long, value_name = "N", value_parser = keep_count, allow_negative_numbers = true)]
    keep_daily: Option<u32>,
    /// Keep one snapshot a week, for N weeks
    #[arg(short = 'w', long, value_name = "N", value_parser = keep_count, allow_negative_numbers = true, hide_short_help = true)]
    keep_weekly: Option<u32>,
    /// Keep one snapshot a month, for N months
    #[arg(short = 'm', long, value_name = "N", value_parser = keep_count, allow_negative_numbers = true, hide_short_help = true)]
    keep_monthly: Option<u32>,
    /// Keep one snapshot a year, for N years
    #[arg(long, value_name = "N", value_parser = keep_count, allow_negative_numbers = true, hide_short_help = true)]
    keep_yearly: Option<u32>,
    /// Keep all within TIME of the newest: 14d, 1y5m7d2h
    #[arg(long, value_name = "TIME", value_parser = within)]
    keep_within: Option<Within>,
    /// Keep one snapshot of each hour within TIME of the newest
    #[arg(long, value_name = "TIME", value_parser = within, hide_short_help = true)]
    keep_within_hourly: Option<Within>,
    /// Keep one snapshot of each day within TIME of the newest
    #[arg(long, value_name = "TIME", value_parser = within, hide_short_help = true)]
    keep_within_daily: Option<Within>,
    /// Keep one snapshot of each week within TIME of the newest
    #[arg(long, value_name = "TIME", value_parser = within, hide_short_help = true)]
    keep_within_weekly: Option<Within>,
    /// Keep one snapshot of each month within TIME of the newest
    #[arg(long, value_name = "TIME", value_parser = within, hide_short_help = true)]
    keep_within_monthly: Option<Within>,
    /// Keep one snapshot of each year within TIME of the newest
    #[arg(long, value_name = "TIME", value_parser = within, hide_short_help = true)]
    keep_within_yearly: Option<Within>,
    /// Keep snapshots with all of these tags (TAG,TAG)
    #[arg(long, value_name = "TAGS", hide_short_help = true)]
    keep_tag: Vec<String>,
    /// Keep the snapshot with this id
    #[arg(long, value_name = "ID", hide_short_help = true)]
    keep_id: Vec<String>,
    /// Judge the snapshots of each group by themselves: some of host,paths,tags
    #[arg(short, long, value_name = "BY", value_parser = group_by, default_value = "host,paths",
        hide_short_help = true)]
    group_by: GroupBy,
}

impl PolicyArgs {
    fn policy(&self, state: &State) -> Result<Policy> {
        let counts =
            [self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly];
        let ids = self.keep_id.iter().map(|id| state.select(id).map(|s| s.id)).collect::<Result<_>>()?;
        Ok(Policy {
            counts: counts.map(|count| count.unwrap_or(0)),
            within: self.keep_within,
            within_periods: [
                None,
                self.keep_within_hourly,
                self.keep_within_daily,
                self.keep_within_weekly,
                self.keep_within_monthly,
                self.keep_within_yearly,
            ],
            tags: self.keep_tag.iter().map(|tags| tags.split(',').map(str::to_owned).collect()).collect(),
            ids,
        })
    }
}

/// Shows the plan, then carries it out.
pub fn run(args: &Args) -> Result<u8> {
    let repo = to_write(&args.repository, args.output, args.dry_run)?;
    let mut out = Output::new(args.output.json);
    let mut state = read_state(&repo, &mut out)?;
    let policy = args.policy.policy(&state)?;
    let considered = args.filter.passing(&state);
    let mut chosen = Vec::new();
    let ids: Vec<SnapshotId> = if args.snapshots.is_empty() {
        refuse_empty(&policy)?;
        let candidates = forget::candidates(&repo, &state, considered.clone())?;
        let plan = Plan::by_policy(&policy, candidates, args.policy.group_by, &TimeZone::system());
        if !args.output.quiet {
            calendar::print(&mut out, &plan)?;
        }
        plan.forgotten().iter().map(|s| s.id).collect()
    } else {
        chosen = named(args, &policy, &state)?;
        chosen.iter().map(|s| s.id).collect()
    };
    let scope = if args.snapshots.is_empty() { considered } else { state.snapshots() };
    if !args.yes && !args.dry_run {
        refuse_objections(&forget::objections(&scope, &ids))?;
    }
    if !args.dry_run {
        forget::forget(signals::catch(), &repo, &mut state, ids.iter().copied())?;
    }
    if !args.output.quiet {
        print_forgotten(&mut out, &chosen, args.dry_run)?;
        out.line(verdict(ids.len(), args.dry_run))?;
    }
    let ids: Vec<String> = ids.iter().map(SnapshotId::to_string).collect();
    out.object("summary", output::object(json!({ "forgotten": ids, "dry_run": args.dry_run })))?;
    out.flush()?;
    if args.prune { prune::after_forget(&repo, args.output, args.dry_run) } else { Ok(OK) }
}

/// Returns the snapshots that the user names.
fn named(args: &Args, policy: &Policy, state: &State) -> Result<Vec<Snapshot>> {
    if !policy.is_empty() || !args.filter.is_empty() {
        return Err(Error::new(Kind::Usage, "ids and a policy are both given")
            .hint("give the ids of the snapshots to forget, or --keep-... options and filters"));
    }
    let snapshots = each_once(args.snapshots.iter().map(|text| state.select(text)))?;
    if let Some(pinned) = forget::pinned(snapshots.iter()) {
        let id = pinned.id.short();
        return Err(Error::failed(format!("snapshot {id} is pinned: nothing was forgotten"))
            .hint(format!("`nfreezer tag --unpin {id}` removes the pin")));
    }
    Ok(snapshots)
}

fn print_forgotten(out: &mut Output, snapshots: &[Snapshot], is_dry_run: bool) -> Result<()> {
    let would = if is_dry_run { "would be " } else { "" };
    snapshots.iter().try_for_each(|s| {
        let host = escape::text(s.host.as_bytes());
        out.line(format_args!("snapshot {} of {host}, {}: {would}forgotten", s.id.short(), human::time(s.time)))
    })
}

fn refuse_empty(policy: &Policy) -> Result<()> {
    if !policy.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, "neither snapshots nor a policy are given: nothing was forgotten").hint(
        "for example `nfreezer forget -n --keep-within 14d --keep-weekly 8 --keep-monthly 12`, or `nfreezer forget ID`",
    ))
}

fn refuse_objections(objections: &[String]) -> Result<()> {
    if objections.is_empty() {
        return Ok(());
    }
    let text: Vec<String> = objections.iter().map(|text| escape::text(text.as_bytes())).collect();
    Err(Error::failed(format!("nothing was forgotten: {}", text.join("; "))).hint("--yes forgets them anyway"))
}

fn verdict(count: usize, is_dry_run: bool) -> String {
    let count = human::count(count as u64, "snapshot");
    if is_dry_run {
        return format!("dry run: {count} would be forgotten, nothing was written");
    }
    format!("{count} forgotten; `nfreezer snapshots --forgotten` lists them, `nfreezer undelete` shows them again")
}
