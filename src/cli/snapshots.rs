//! `nfreezer snapshots`: lists them, oldest first.

use std::ffi::OsString;

use serde_json::json;

use super::exit::OK;
use super::filter::{existing, passes};
use super::open::{read_state, to_read};
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::snapshot::{fields, id, paths};
use super::table::Columns;
use super::{escape, forgotten, human, table};
use crate::error::Result;
use crate::format::record::Snapshot;

const COLUMNS: Columns<8> = Columns {
    head: ["ID", "Date", "Host", "Tags", "Paths", "Description", "Files", "Size"],
    left: 6,
    shortened: &[4, 5, 3, 2],
    optional: &[5],
};

/// Arguments of `snapshots`.
#[derive(clap::Args)]
pub struct Args {
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
    fn wants(&self, s: &Snapshot) -> bool {
        passes(s, self.host.as_deref(), &self.path, &self.tag)
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
        let wanted = state.forgotten_since().into_iter().filter(|one| args.wants(&one.snapshot));
        forgotten::print(&mut out, &repo, wanted.collect(), args.last)?;
        return out.flush().map(|()| OK);
    }
    let mut list: Vec<_> = state.snapshots().into_iter().filter(|s| args.wants(s)).collect();
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
