//! `nfreezer snapshots`: lists them, oldest first.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use super::exit::OK;
use super::filter::passes;
use super::open::{read_state, to_read};
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::{escape, human};
use crate::error::Result;
use crate::format::record::Snapshot;
use crate::name::hex;

/// Arguments of `snapshots`.
#[derive(clap::Args)]
pub struct Args {
    /// Only snapshots of this host
    #[arg(long)]
    host: Option<String>,
    /// Only snapshots with this tag
    ///
    /// May be repeated, then all are needed.
    #[arg(long)]
    tag: Vec<String>,
    /// Only snapshots with this source
    #[arg(long, value_name = "PATH")]
    path: Vec<OsString>,
    /// Only the newest N
    #[arg(long, value_name = "N")]
    last: Option<usize>,
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

/// Prints a table, or one object a snapshot.
pub fn run(args: &Args) -> Result<u8> {
    let repo = to_read(&args.repository, args.output)?;
    let mut out = Output::new(args.output.json);
    let state = read_state(&repo, &mut out)?;
    let mut list: Vec<_> = state.snapshots().into_iter().filter(|s| args.wants(s)).collect();
    if let Some(last) = args.last {
        list.drain(..list.len().saturating_sub(last));
    }
    if out.is_json() {
        list.iter().try_for_each(|s| out.object("snapshot", fields(s)))?;
        out.object("summary", output::object(json!({ "snapshots": list.len() })))?;
    } else {
        table(&mut out, &list)?;
    }
    out.flush().map(|()| OK)
}

fn table(out: &mut Output, list: &[Snapshot]) -> Result<()> {
    let head = ["ID", "Date", "Host", "Tags", "Paths", "Files", "Size", "Added"].map(String::from);
    let rows: Vec<[String; 8]> = list.iter().map(row).collect();
    let all = || std::iter::once(&head).chain(&rows);
    let widths: Vec<usize> = (0..8).map(|i| all().map(|r| width(&r[i])).max().unwrap_or(0)).collect();
    for row in all() {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, most))| {
            let gap = " ".repeat(most - width(cell));
            if i < 5 { format!("{cell}{gap}") } else { format!("{gap}{cell}") }
        });
        out.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    let partial = list.iter().filter(|s| s.partial).count();
    let mut footer = human::count(list.len() as u64, "snapshot");
    if partial > 0 {
        footer += &format!(" (* {partial} partial: the push was interrupted, the next one goes on from there)");
    }
    let zone = jiff::tz::TimeZone::system();
    out.line(format_args!("{footer}; times in {}", zone.iana_name().unwrap_or("local time")))
}

fn row(s: &Snapshot) -> [String; 8] {
    let tags = s.tags.iter().map(|t| escape::text(t.as_bytes())).collect::<Vec<_>>().join(",");
    let mut paths = s.paths.iter().map(|p| escape::text(p)).collect::<Vec<_>>().join(" ");
    if s.more_paths > 0 {
        paths += &format!(" +{}", s.more_paths);
    }
    let id = format!("{}{}", s.id.short(), if s.partial { "*" } else { "" });
    let host = escape::text(s.host.as_bytes());
    let stats = &s.stats;
    [
        id,
        human::time(s.time),
        host,
        tags,
        paths,
        stats.files.to_string(),
        human::size(stats.bytes),
        human::size(stats.added),
    ]
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A snapshot as an object.
pub fn fields(s: &Snapshot) -> Map<String, Value> {
    let paths = |exact: fn(&[u8]) -> String| s.paths.iter().map(|p| exact(p)).collect::<Vec<_>>();
    let stats = &s.stats;
    let mut fields = output::object(json!({
        "id": s.id.to_string(), "short_id": s.id.short(), "time": human::rfc3339(s.time), "host": s.host, "user": s.user,
        "paths": paths(|p| String::from_utf8_lossy(p).into_owned()), "more_paths": s.more_paths, "tags": s.tags,
        "description": s.description, "partial": s.partial, "program": s.program,
        "files": stats.files, "directories": stats.directories, "others": stats.others, "bytes": stats.bytes,
        "new": stats.new, "changed": stats.changed, "added": stats.added, "stored": stats.stored,
        "unreadable": stats.unreadable, "milliseconds": stats.milliseconds,
    }));
    if s.paths.iter().any(|p| std::str::from_utf8(p).is_err()) {
        fields.insert("paths_bytes".into(), paths(hex).into());
    }
    fields
}
