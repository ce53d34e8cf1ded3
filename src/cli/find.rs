//! `nfreezer find`: searches snapshots for paths by name, size, time, type and owner.

use std::ffi::OsString;

use clap::ValueEnum;
use serde_json::json;

use super::exit::{DAMAGED, OK, exit_code};
use super::filter::FilterArgs;
use super::open::{read_state, to_read};
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::profile::quoted;
use super::values::{rules, size, time};
use super::{escape, human, node, signals};
use crate::error::{Error, Kind, Result};
use crate::find::{self, Report, Version};
use crate::format::node::{Content, Node};
use crate::format::record::Snapshot;
use crate::pattern::Rules;
use crate::time::Time;
use crate::trees::Trees;

/// Arguments of `find`.
#[derive(clap::Args)]
pub struct Args {
    /// A name, or the end of a path, as in `push --exclude`
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<OsString>,
    /// Ignore the case of letters
    #[arg(long, visible_alias = "iname")]
    ignore_case: bool,
    /// Only entries modified after TIME: `2w ago`
    ///
    /// Also `yesterday`, `2026-11-03` or `2026-11-03 14:00:00`.
    #[arg(long, alias = "oldest", value_name = "TIME", value_parser = time)]
    newer: Option<Time>,
    /// Only entries modified before TIME
    #[arg(long, alias = "newest", value_name = "TIME", value_parser = time)]
    older: Option<Time>,
    /// Only files of at least SIZE: `10M`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    larger: Option<u64>,
    /// Only files of at most SIZE
    #[arg(long, value_name = "SIZE", value_parser = size, hide_short_help = true)]
    smaller: Option<u64>,
    /// Only this type: f, d, l, b, c, p or s, as in find(1)
    #[arg(long = "type", value_name = "TYPE", value_enum, hide_possible_values = true)]
    kind: Option<TypeArg>,
    /// Only entries of this owner: a name or a number
    #[arg(long, value_name = "USER", hide_short_help = true)]
    owner: Option<String>,
    /// Search only this snapshot; may be repeated
    #[arg(long, value_name = "SNAPSHOT", hide_short_help = true)]
    snapshot: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TypeArg {
    /// regular file
    #[value(name = "f")]
    File,
    /// directory
    #[value(name = "d")]
    Directory,
    /// symbolic link
    #[value(name = "l")]
    Symlink,
    /// block device
    #[value(name = "b")]
    Block,
    /// character device
    #[value(name = "c")]
    Char,
    /// named pipe
    #[value(name = "p")]
    Fifo,
    /// socket
    #[value(name = "s")]
    Socket,
}

/// Prints each path that matches, with its versions.
pub fn run(args: &Args) -> Result<u8> {
    let patterns = rules("PATTERN", &args.patterns, args.ignore_case)?;
    let repo = to_read(&args.repository, args.output)?;
    let mut out = Output::new(args.output.json);
    let state = read_state(&repo, &mut out)?;
    let snapshots = args.filter.named(&state, &args.snapshot)?;
    let (json, mut damaged) = (args.output.json, 0);
    let (mut paths, mut versions) = (0, 0);
    let found = &mut |path: &[u8], all: Vec<Version>| {
        paths += 1;
        versions += all.len();
        print(&mut out, path, &all, &snapshots)?;
        if out.is_closed() { Err(Error::new(Kind::Cancelled, "standard output is closed")) } else { Ok(()) }
    };
    let unreadable = &mut |path: &[u8], why: &Error| {
        damaged += 1;
        let text = format!("cannot search {}: {why}", escape::text(path));
        output::error(json, &Error::new(why.kind(), text), exit_code(why.kind()));
    };
    let matches_path = |path: &[u8], is_directory: bool| matches_path(&patterns, path, is_directory);
    let matches = |node: &Node| matches(args, node);
    let trees = Trees::new(&repo);
    let report = Report { matches_path: &matches_path, matches: &matches, found, unreadable };
    let result = find::find(signals::catch(), &trees, &snapshots, report);
    if !out.is_closed() {
        result?;
    }
    if !args.output.quiet {
        let [paths, versions, searched] =
            [(paths, "path"), (versions as u64, "version"), (snapshots.len() as u64, "snapshot")]
                .map(|(n, noun)| human::count(n, noun));
        out.line(format_args!("{paths}, {versions} in {searched}"))?;
    }
    if paths == 0 && !args.output.quiet {
        hint(&args.patterns);
    }
    let fields = json!({ "paths": paths, "versions": versions, "snapshots": snapshots.len(), "damaged": damaged });
    out.object("summary", output::object(fields))?;
    out.flush()?;
    Ok(if damaged > 0 { DAMAGED } else { OK })
}

/// Explains why a pattern without wildcards may have found nothing.
fn hint(patterns: &[OsString]) {
    let is_plain = |pattern: &&OsString| !pattern.as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte));
    if let Some(pattern) = patterns.iter().find(is_plain) {
        let name = pattern.as_encoded_bytes().rsplit(|byte| *byte == b'/').find(|part| !part.is_empty());
        let part = quoted(&format!("*{}*", String::from_utf8_lossy(name.unwrap_or_default())));
        output::notice(format_args!(
            "hint: a pattern matches whole names; `nfreezer find {part}` finds parts of names"
        ));
    }
}

fn matches_path(patterns: &Rules, path: &[u8], is_directory: bool) -> bool {
    patterns.verdict(path, is_directory).is_some_and(|verdict| verdict.excluded)
}

fn matches(args: &Args, node: &Node) -> bool {
    let is_file = node.content.is_file();
    let bytes = node.content.size();
    args.newer.is_none_or(|time| node.mtime > time)
        && args.older.is_none_or(|time| node.mtime < time)
        && args.larger.is_none_or(|least| is_file && bytes >= least)
        && args.smaller.is_none_or(|most| is_file && bytes <= most)
        && args.kind.is_none_or(|kind| kind.is_of(&node.content))
        && args.owner.as_ref().is_none_or(|owner| is_owner(owner, node))
}

fn is_owner(owner: &str, node: &Node) -> bool {
    node.attrs.user == owner.as_bytes() || owner.parse() == Ok(node.attrs.uid)
}

impl TypeArg {
    fn is_of(self, content: &Content) -> bool {
        match content {
            Content::File(_) | Content::Large { .. } => self == TypeArg::File,
            Content::Directory(_) => self == TypeArg::Directory,
            Content::Symlink(_) => self == TypeArg::Symlink,
            Content::Block(..) => self == TypeArg::Block,
            Content::Char(..) => self == TypeArg::Char,
            Content::Fifo => self == TypeArg::Fifo,
            Content::Socket => self == TypeArg::Socket,
            Content::Unreadable(_) => false,
        }
    }
}

fn print(out: &mut Output, path: &[u8], versions: &[Version], snapshots: &[Snapshot]) -> Result<()> {
    if !out.is_json() {
        let newest = versions.last().map(|version| node::name(path, &version.node)).unwrap_or_default();
        out.line(newest)?;
    }
    for version in versions {
        let (first, last) = (&snapshots[version.first], &snapshots[version.last]);
        if out.is_json() {
            let mut fields = node::object(path, &version.node);
            fields.insert("first_snapshot".into(), first.id.to_string().into());
            fields.insert("first_time".into(), human::rfc3339(first.time).into());
            fields.insert("last_snapshot".into(), last.id.to_string().into());
            fields.insert("last_time".into(), human::rfc3339(last.time).into());
            fields.insert("snapshots".into(), version.count.into());
            out.object("match", fields)?;
            continue;
        }
        let content = &version.node.content;
        let mode = node::mode(node::letter(content), version.node.attrs.mode);
        let (size, mtime) = (human::size(content.size()), human::time(version.node.mtime));
        let until = if version.first == version.last { String::new() } else { format!(" to {}", last.id.short()) };
        let count = human::count(version.count as u64, "snapshot");
        out.line(format_args!("    {mode} {size:>10}  {mtime}  {}{until}  ({count})", first.id.short()))?;
    }
    Ok(())
}
