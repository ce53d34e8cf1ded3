//! `nfreezer status`: how old the newest snapshot of each host and path is, when this machine last checked and pruned, and the
//! free space. For people and for monitors.
//!
//! In: the snapshots of a state, the runs that this machine remembers, the space of the storage. Out: a table, JSON, or a
//! textfile (`prometheus`), and exit code 16 if a limit is exceeded. `newest` finds the newest snapshots.

mod newest;
mod prometheus;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::exit::{OK, STALE};
use super::filter::{FilterArgs, existing};
use super::open::{read_state, to_read};
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::table::{self, Columns};
use super::values::{duration, size};
use super::{escape, human, signals};
use crate::error::Result;
use crate::forget;
use crate::seen::{Run, Runs};
use crate::storage::Space;
use crate::time::Time;
use newest::Newest;

const COLUMNS: Columns<7> = Columns {
    head: ["Host", "Paths", "Newest", "Date", "Age", "Files", "Size"],
    left: 4,
    shortened: &[1, 0],
    optional: &[],
};

/// A snapshot that lies further in the future than this causes a warning, in seconds.
const FUTURE: i64 = 600;

/// Arguments of `status`.
#[derive(clap::Args)]
pub struct Args {
    /// Exit with 16 if the newest snapshot of a host and path is older, such as 26h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_age: Option<Duration>,
    /// Exit with 16 if the server has less free space, such as 20G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    min_free: Option<u64>,
    /// Write a textfile for the node_exporter of Prometheus
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The state of the backups in one repository.
struct Status {
    repository: String,
    now: Time,
    newest: Vec<Newest>,
    snapshots: usize,
    space: Option<Space>,
    /// `None` where this machine keeps no memory.
    runs: Option<Runs>,
}

impl Status {
    /// Returns the age of a time in seconds; 0 for one in the future.
    fn age(&self, time: Time) -> u64 {
        u64::try_from(self.now.seconds.saturating_sub(time.seconds)).unwrap_or(0)
    }

    fn last(&self, run: Run) -> Option<Time> {
        self.runs.as_ref().and_then(|runs| runs.last(run)).map(Time::from_seconds)
    }
}

/// Prints the state; the exit code is 16 if a limit is exceeded. With `--quiet` prints only faults.
pub fn run(args: &Args) -> Result<u8> {
    let repo = to_read(&args.repository, args.output)?;
    let mut out = Output::new(args.output.json);
    let state = read_state(&repo, &mut out)?;
    let wanted = args.filter.passing(&state);
    let candidates = forget::candidates(&repo, &state, wanted)?;
    let status = Status {
        repository: repo.storage().address(),
        now: repo.now(),
        snapshots: candidates.len(),
        newest: newest::newest(candidates),
        space: repo.storage().space(signals::context())?,
        runs: repo.last_runs()?,
    };
    if !args.output.quiet {
        print(&mut out, &status)?;
        if status.newest.is_empty() && !args.filter.is_empty() {
            out.line(format_args!("no snapshot passes the filters; {}", existing(&state)))?;
        }
    }
    for row in &status.newest {
        out.object("backup", row_fields(&status, row, args))?;
    }
    let wrong = wrong(&status, args);
    let doubts = status.newest.iter().filter_map(|row| future(&status, row));
    doubts.chain(wrong.iter().cloned()).try_for_each(|text| output::warning(&mut out, &text))?;
    if let Some(file) = &args.prometheus {
        prometheus::write(file, &prometheus::text(&status))?;
    }
    out.object("summary", fields(&status, wrong.len()))?;
    out.flush().map(|()| if wrong.is_empty() { OK } else { STALE })
}

fn print(out: &mut Output, status: &Status) -> Result<()> {
    let rows: Vec<_> = status.newest.iter().map(|row| cells(status, row)).collect();
    if !rows.is_empty() {
        table::print(out, &COLUMNS, &rows)?;
        out.line("")?;
    }
    out.line(format_args!("Repository:      {}", escape::text(status.repository.as_bytes())))?;
    out.line(format_args!("Snapshots:       {}", status.snapshots))?;
    match status.space {
        Some(space) => {
            out.line(format_args!("Free space:      {} of {}", human::size(space.free), human::size(space.total)))?
        }
        None => out.line("Free space:      unknown: the server does not report it")?,
    }
    if status.runs.is_none() {
        return out.line("Last runs:       unknown: this machine keeps no memory");
    }
    let names = [
        ("Last push:       ", Run::Push),
        ("Last check:      ", Run::Check),
        ("Last full check: ", Run::CheckData),
        ("Last prune:      ", Run::Prune),
    ];
    for (name, run) in names {
        let text = match status.last(run) {
            Some(time) => format!("{}, {} ago, by this machine", human::time(time), human::span(status.age(time))),
            None => "never by this machine".into(),
        };
        out.line(format_args!("{name}{text}"))?;
    }
    Ok(())
}

fn cells(status: &Status, row: &Newest) -> [String; 7] {
    let snapshot = &row.snapshot;
    [
        escape::text(snapshot.host.as_bytes()),
        row.paths(),
        snapshot.id.short(),
        human::time(row.time),
        human::span(status.age(row.time)),
        snapshot.stats.files.to_string(),
        human::size(snapshot.stats.bytes),
    ]
}

/// Returns a sentence for each limit that is exceeded.
fn wrong(status: &Status, args: &Args) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(limit) = args.max_age {
        if status.newest.is_empty() {
            wrong.push("there is no complete snapshot".to_owned());
        }
        for row in status.newest.iter().filter(|row| is_old(status, row, limit)) {
            wrong.push(format!(
                "the newest snapshot of {} on host {} is {} old, more than {}: {} of {}",
                row.paths(),
                escape::text(row.snapshot.host.as_bytes()),
                human::span(status.age(row.time)),
                human::span(limit.as_secs()),
                row.snapshot.id.short(),
                human::time(row.time)
            ));
        }
    }
    if let Some(least) = args.min_free {
        match status.space {
            Some(space) if space.free >= least => {}
            Some(space) => {
                let (free, least) = (human::size(space.free), human::size(least));
                wrong.push(format!("{} has {free} of free space, less than {least}", status.repository));
            }
            None => wrong.push(format!("the free space of {} is unknown", status.repository)),
        }
    }
    wrong
}

fn is_old(status: &Status, row: &Newest, limit: Duration) -> bool {
    status.age(row.time) > limit.as_secs()
}

/// Returns a warning if a snapshot claims to be of the future.
fn future(status: &Status, row: &Newest) -> Option<String> {
    let claimed = row.snapshot.time;
    let id = row.snapshot.id.short();
    (claimed.seconds > status.now.seconds.saturating_add(FUTURE)).then(|| {
        format!(
            "snapshot {id} claims to be of {}, in the future: a clock is wrong, or it is false",
            human::time(claimed)
        )
    })
}

fn row_fields(status: &Status, row: &Newest, args: &Args) -> Map<String, Value> {
    let snapshot = &row.snapshot;
    let mut fields = output::object(json!({
        "host": snapshot.host, "more_paths": row.more_paths(), "snapshot": snapshot.id.to_string(),
        "short_id": snapshot.id.short(), "time": human::rfc3339(row.time), "age_seconds": status.age(row.time),
        "files": snapshot.stats.files, "bytes": snapshot.stats.bytes, "snapshots": row.count,
        "old": args.max_age.map(|limit| is_old(status, row, limit)),
    }));
    output::put_paths(&mut fields, "paths", &row.paths);
    fields
}

fn fields(status: &Status, wrong: usize) -> Map<String, Value> {
    let last = |run| status.last(run).map(human::rfc3339);
    output::object(json!({
        "repository": status.repository, "snapshots": status.snapshots, "wrong": wrong,
        "space_total": status.space.map(|space| space.total), "space_free": status.space.map(|space| space.free),
        "last_push": last(Run::Push), "last_check": last(Run::Check), "last_check_data": last(Run::CheckData),
        "last_prune": last(Run::Prune),
    }))
}
