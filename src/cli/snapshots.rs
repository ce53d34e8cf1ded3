//! `nfreezer snapshots`: lists them, oldest first.

use std::ffi::OsString;

use serde_json::json;

use super::exit::OK;
use super::filter::{FilterArgs, existing};
use super::open::{read_state, to_read};
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::snapshot::{each_once, fields, id, paths};
use super::table::Columns;
use super::{escape, forgotten, human, table};
use crate::error::Result;
use crate::format::record::Snapshot;
use crate::repo::{Forgotten, State};

const COLUMNS: Columns<8> = Columns {
    head: ["ID", "Date", "Host", "Tags", "Paths", "Description", "Files", "Size"],
    left: 6,
    shortened: &[4, 5, 3, 2],
    optional: &[5],
};

/// Arguments of `snapshots`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these snapshots [default: all]
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Only snapshots of this host
    #[arg(long)]
    host: Option<String>,
    /// Only snapshots with this tag
    ///
    /// May be repeated or be a list with commas, then all are needed.
    #[arg(long, value_delimiter = ',')]
    tag: Vec<String>,
    /// Only snapshots with this source
    #[arg(long, value_name = "PATH")]
    path: Vec<OsString>,
    /// Only the newest N
    #[arg(long, value_name = "N", value_parser = positive)]
    last: Option<usize>,
    /// List the forgotten snapshots instead, with the time until which `undelete` can show them again
    #[arg(long)]
    forgotten: bool,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl Args {
    fn filter(&self) -> FilterArgs {
        FilterArgs::new(self.host.clone(), self.path.clone(), self.tag.clone())
    }
}

fn positive(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "give a number of at least 1".into())
}

/// Prints a table, or one object a snapshot.
pub fn run(args: &Args) -> Result<u8> {
    let repo = to_read(&args.repository, args.output)?;
    let mut out = Output::new(args.output.json);
    let state = read_state(&repo, &mut out)?;
    if args.forgotten {
        forgotten::print(&mut out, &repo, forgotten(args, &state)?, args.last)?;
        return out.flush().map(|()| OK);
    }
    let mut list = shown(args, &state)?;
    if let Some(last) = args.last {
        list.drain(..list.len().saturating_sub(last));
    }
    if out.is_json() {
        list.iter().try_for_each(|s| out.object("snapshot", fields(s)))?;
        out.object("summary", output::object(json!({ "snapshots": list.len() })))?;
    } else if list.is_empty() && !state.snapshots().is_empty() {
        out.line(format_args!("no snapshot passes the filters; {}", existing(&state)))?;
    } else {
        print(&mut out, &list)?;
    }
    out.flush().map(|()| OK)
}

fn shown(args: &Args, state: &State) -> Result<Vec<Snapshot>> {
    let filter = args.filter();
    if args.snapshots.is_empty() {
        return Ok(filter.passing(state));
    }
    filter.named(state, &args.snapshots)
}

fn forgotten(args: &Args, state: &State) -> Result<Vec<Forgotten>> {
    let filter = args.filter();
    let named = each_once(args.snapshots.iter().map(|text| state.select_forgotten(text)))?;
    let is_wanted = |one: &Forgotten| {
        filter.passes(&one.snapshot) && (named.is_empty() || named.iter().any(|s| s.id == one.snapshot.id))
    };
    Ok(state.forgotten_since().into_iter().filter(is_wanted).collect())
}

fn print(out: &mut Output, list: &[Snapshot]) -> Result<()> {
    let rows: Vec<_> = list.iter().map(row).collect();
    table::print(out, &COLUMNS, &rows)?;
    let partial = list.iter().filter(|s| s.partial).count();
    let mut footer = human::count(list.len() as u64, "snapshot");
    if partial > 0 {
        footer += &format!(" (* {partial} partial: the push was interrupted, the next one continues from there)");
    }
    let zone = jiff::tz::TimeZone::system();
    out.line(format_args!("{footer}; times in {}", zone.iana_name().unwrap_or("local time")))
}

fn row(s: &Snapshot) -> [String; 8] {
    let tags = s.tags.iter().map(|t| escape::text(t.as_bytes())).collect::<Vec<_>>().join(",");
    let host = escape::text(s.host.as_bytes());
    let stats = &s.stats;
    [
        id(s),
        human::time(s.time),
        host,
        tags,
        paths(s),
        escape::text(s.description.as_bytes()),
        stats.files.to_string(),
        human::size(stats.bytes),
    ]
}
