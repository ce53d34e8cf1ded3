//! `nfreezer tag`: changes the tags of snapshots, and pins them.

use serde_json::json;

use super::exit::OK;
use super::filter::FilterArgs;
use super::open::{read_state, to_write};
use super::options::{OpenArgs, OutputArgs};
use super::output::{self, Output};
use super::snapshot::each_once;
use super::{human, signals};
use crate::error::{Error, Kind, Result};
use crate::forget::{self, TagChange};
use crate::format::record::Snapshot;
use crate::repo::State;

/// Arguments of `tag`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshots; without them --host, --tag or --path select
    ///
    /// `tag add TAG SNAPSHOT`, `tag remove TAG SNAPSHOT`, `tag set TAG SNAPSHOT`, `tag pin SNAPSHOT` and
    /// `tag unpin SNAPSHOT` work too.
    #[arg(value_name = "SNAPSHOT")]
    words: Vec<String>,
    /// Add these tags (TAG,TAG)
    #[arg(long, value_name = "TAGS")]
    add: Vec<String>,
    /// Remove these tags
    #[arg(long, value_name = "TAGS")]
    remove: Vec<String>,
    /// Replace all tags by these; '' removes all
    #[arg(long, value_name = "TAGS")]
    set: Vec<String>,
    /// Never forget the snapshots (the tag `pinned`)
    #[arg(long, conflicts_with = "unpin")]
    pin: bool,
    /// Remove the pin
    #[arg(long)]
    unpin: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Changes the tags of all of them in one record.
pub fn run(args: &Args) -> Result<u8> {
    let (change, named) = change(args)?;
    if named.is_empty() == args.filter.is_empty() {
        let text = match named.is_empty() {
            true => "neither snapshots nor filters (--host, --tag, --path) are given",
            false => "snapshots and filters (--host, --tag, --path) are both given",
        };
        return Err(Error::new(Kind::Usage, text).hint("for example `nfreezer tag --add monthly latest`"));
    }
    let repo = to_write(&args.repository, args.output, false)?;
    let mut out = Output::new(args.output.json);
    let mut state = read_state(&repo, &mut out)?;
    let snapshots = selected(args, named, &state)?;
    let changed = forget::tag(signals::catch(), &repo, &mut state, &snapshots, &change)?;
    if !args.output.quiet {
        out.line(match changed.len() {
            0 => "nothing was changed: the tags are the same".to_owned(),
            n => format!("the tags of {} were changed", human::count(n as u64, "snapshot")),
        })?;
    }
    let ids: Vec<String> = changed.iter().map(ToString::to_string).collect();
    out.object("summary", output::object(json!({ "changed": ids })))?;
    out.flush().map(|()| OK)
}

fn selected(args: &Args, named: &[String], state: &State) -> Result<Vec<Snapshot>> {
    if named.is_empty() {
        return Ok(args.filter.passing(state));
    }
    each_once(named.iter().map(|text| state.select(text)))
}

/// Returns the change that the options or the first words name, and the words that name snapshots.
fn change(args: &Args) -> Result<(TagChange, &[String])> {
    let pin = if args.pin || args.unpin { Some(args.pin) } else { None };
    let set = if args.set.is_empty() { None } else { Some(tags(&args.set, true)?) };
    let mut change = TagChange { set, add: tags(&args.add, false)?, remove: tags(&args.remove, false)?, pin };
    let named = match args.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["pin" | "unpin", ..] => {
            change.pin = Some(args.words[0] == "pin");
            &args.words[1..]
        }
        [word @ ("add" | "remove" | "set"), list, ..] => {
            let list = tags(&[(*list).to_owned()], *word == "set")?;
            match *word {
                "add" => change.add.extend(list),
                "remove" => change.remove.extend(list),
                _ => change.set = Some(list),
            }
            &args.words[2..]
        }
        _ => &args.words[..],
    };
    if change == TagChange::default() {
        return Err(Error::new(Kind::Usage, "no change is given")
            .hint("add --add TAG, --remove TAG, --set TAGS, --pin or --unpin"));
    }
    Ok((change, named))
}

/// Splits lists of tags at commas. An empty list is allowed where it means no tags.
fn tags(lists: &[String], may_be_empty: bool) -> Result<Vec<String>> {
    let all: Vec<String> = lists.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
    if may_be_empty && all.iter().all(String::is_empty) {
        return Ok(Vec::new());
    }
    if all.iter().any(String::is_empty) {
        return Err(Error::new(Kind::Usage, "a tag is empty").hint("separate tags by commas: --add monthly,server"));
    }
    Ok(all)
}
