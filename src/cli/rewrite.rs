//! `nfreezer rewrite`: replaces snapshots by ones that lack some files or have other metadata.

use std::ffi::OsString;

use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use super::exit::OK;
use super::open::{read_state, to_write};
use super::options::{OpenArgs, OutputArgs};
use super::output::{self, Output};
use super::snapshot::each_once;
use super::values::{rules, time};
use super::{human, signals};
use crate::error::{Error, Kind, Result};
use crate::format::record::Snapshot;
use crate::repo::State;
use crate::rewrite::{self, Metadata, Rewritten};
use crate::time::Time;

/// Arguments of `rewrite`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshots
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// All snapshots
    #[arg(long, conflicts_with = "snapshots")]
    all: bool,
    /// Leave out paths that match PATTERN, as in `push`
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<OsString>,
    /// Like --exclude, but ignores the case of letters
    #[arg(long, value_name = "PATTERN", hide_short_help = true)]
    iexclude: Vec<OsString>,
    /// Replace the host (also --time, --description, --tag)
    #[arg(long, alias = "new-host", value_parser = NonEmptyStringValueParser::new())]
    host: Option<String>,
    /// Replace the time: `2026-11-22 10:00:00`
    #[arg(long, value_parser = time, hide_short_help = true, alias = "new-time")]
    time: Option<Time>,
    /// Replace the description
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    description: Option<String>,
    /// Replace the tags; may be repeated
    #[arg(long, hide_short_help = true)]
    tag: Vec<String>,
    /// Keep the old snapshots too, instead of forgetting them
    #[arg(long, conflicts_with = "forget", hide_short_help = true)]
    keep_old: bool,
    /// Forget the old snapshots (the default)
    #[arg(long, hide_short_help = true)]
    forget: bool,
    /// Print what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Rewrites all of them in one record.
pub fn run(args: &Args) -> Result<u8> {
    let metadata = Metadata {
        host: args.host.clone(),
        time: args.time,
        description: args.description.clone(),
        tags: if args.tag.is_empty() { None } else { Some(args.tag.clone()) },
    };
    let rules = [rules("--exclude", &args.exclude, false)?, rules("--iexclude", &args.iexclude, true)?];
    let has_rules = rules.iter().any(|rules| !rules.is_empty());
    if !has_rules && metadata == Metadata::default() {
        return Err(Error::new(Kind::Usage, "no change is given")
            .hint("add --exclude PATTERN, --host, --time, --description or --tag"));
    }
    let repo = to_write(&args.repository, args.output, args.dry_run)?;
    let mut out = Output::new(args.output.json);
    let mut state = read_state(&repo, &mut out)?;
    let snapshots = selected(args, &state)?;
    let leaves_out = |path: &[u8], folder: bool| {
        rules.iter().any(|rules| rules.verdict(path, folder).is_some_and(|verdict| verdict.excluded))
    };
    let options = rewrite::Options {
        leaves_out: if has_rules { Some(&leaves_out) } else { None },
        metadata,
        keep_old: args.keep_old,
        dry_run: args.dry_run,
    };
    let all = rewrite::rewrite(signals::catch(), &repo, &mut state, &snapshots, &options)?;
    if !args.output.quiet {
        print(&mut out, &all, args)?;
    }
    let replaced: Vec<Value> = all.iter().filter_map(fields).collect();
    out.object("summary", output::object(json!({ "replaced": replaced, "dry_run": args.dry_run })))?;
    out.flush().map(|()| OK)
}

/// Returns the snapshots that the user names, each once. Partial ones are left out of `--all`.
fn selected(args: &Args, state: &State) -> Result<Vec<Snapshot>> {
    if args.all {
        return Ok(state.snapshots().into_iter().filter(|s| !s.partial).collect());
    }
    if args.snapshots.is_empty() {
        return Err(Error::new(Kind::Usage, "no snapshot is given").hint("give ids, `latest`, or --all"));
    }
    each_once(args.snapshots.iter().map(|text| state.select(text)))
}

fn print(out: &mut Output, all: &[Rewritten], args: &Args) -> Result<()> {
    let (would, old) = match (args.dry_run, args.keep_old) {
        (true, true) => ("would be rewritten", "kept"),
        (true, false) => ("would be replaced", "forgotten"),
        (false, true) => ("is rewritten", "kept"),
        (false, false) => ("is replaced", "forgotten"),
    };
    for one in all {
        let id = one.old.id.short();
        let Some(new) = &one.new else {
            out.line(format_args!("snapshot {id} stays: nothing in it changes"))?;
            continue;
        };
        let by = if args.dry_run { String::new() } else { format!(" by {}", new.id.short()) };
        let removed = one.removed;
        let counts = [(removed.files, "file"), (removed.directories, "directory"), (removed.others, "other")];
        let counts: Vec<String> =
            counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, noun)| human::count(n, noun)).collect();
        let lacks = if counts.is_empty() { String::new() } else { format!(" without {}", counts.join(", ")) };
        out.line(format_args!("snapshot {id} {would}{by}{lacks}; the old one is {old}"))?;
    }
    if args.dry_run {
        return out.line("dry run: nothing was written");
    }
    if all.iter().any(|one| one.new.is_some() && one.removed != Default::default()) {
        out.line("hint: the contents stay on the server until forgotten snapshots are pruned")?;
    }
    Ok(())
}

fn fields(one: &Rewritten) -> Option<Value> {
    let new = one.new.as_ref()?;
    let removed = one.removed;
    Some(json!({
        "snapshot": one.old.id.to_string(), "by": new.id.to_string(), "files": removed.files,
        "directories": removed.directories, "others": removed.others, "bytes": removed.bytes,
    }))
}
