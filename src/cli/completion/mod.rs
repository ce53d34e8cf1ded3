//! `nfreezer complete`: values for the completions of shells, which `generate` writes.
//!
//! In: the words of a command line, the last one incomplete. Out: the values that begin with it, one in each line, with a
//! tab and a description behind it: snapshots, paths in them, hosts, tags, profiles. It never prompts, writes nothing, and
//! ends after [`LIMIT`]. An error means that there are no values, because a shell has no place for messages here.

mod place;

use std::ffi::OsStr;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::CommandFactory;
use rustix::process::{Signal, getpgrp, getpid, kill_process_group, setsid};

use super::exit::OK;
use super::filter::FilterArgs;
use super::open::to_read_with;
use super::options::{OutputArgs, ReadArgs};
use super::output::Output;
use super::passphrase::Given;
use super::values::snapshot_and_path;
use super::{escape, human, profile, signals, snapshot};
use crate::error::Result;
use crate::format::node::Content;
use crate::format::record::Snapshot;
use crate::repo::{Repository, State};
use crate::storage::NoPrompt;
use crate::trees::Trees;
use place::{Place, Wanted};

/// Added to the script of clap, which knows the names of commands and options.
pub const BASH: &str = include_str!("../../../scripts/completion/values.bash");
pub const ZSH: &str = include_str!("../../../scripts/completion/values.zsh");
pub const FISH: &str = include_str!("../../../scripts/completion/values.fish");

/// Time after which a shell gets no values. A debug build is slow, and so are the tests that run beside it.
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 8 } else { 2 });
/// Snapshots and names that are printed.
const MOST: usize = 1000;

/// Arguments of `complete`.
#[derive(clap::Args)]
pub struct Args {
    /// The words behind `nfreezer`; the last one is completed
    #[arg(last = true)]
    words: Vec<String>,
}

/// A value and its description.
type Candidate = (String, String);

/// Prints the values.
pub fn run(args: &Args) -> Result<u8> {
    // Programs that this one starts cannot ask at the terminal either.
    let _ = setsid();
    let leads_a_group = getpgrp() == getpid();
    thread::spawn(move || {
        thread::sleep(LIMIT);
        if leads_a_group {
            // They end, too.
            let _ = kill_process_group(getpid(), Signal::TERM);
        }
        process::exit(OK.into())
    });
    let mut out = Output::new(false);
    for (value, description) in candidates(&args.words).unwrap_or_default().into_iter().take(MOST) {
        out.line(format_args!("{value}\t{description}"))?;
    }
    out.flush().map(|()| OK)
}

fn candidates(words: &[String]) -> Option<Vec<Candidate>> {
    let mut cli = super::Cli::command();
    cli.build();
    let place = Place::of(words, &cli)?;
    let mut found = match place.wanted {
        Wanted::Profile => profiles(),
        _ => in_repository(&place)?,
    };
    found.retain(|(value, _)| value.starts_with(place.current));
    Some(found)
}

fn profiles() -> Vec<Candidate> {
    let found = profile::names().unwrap_or_default();
    found.into_iter().map(|(name, path)| (name, escape::path(&path))).collect()
}

fn in_repository(place: &Place) -> Option<Vec<Candidate>> {
    let mut open = place.options()?;
    // Heads are remembered when a person sees the warnings.
    open.seen.no_memory = true;
    open.connection.retry_for = Some(Duration::ZERO);
    if Given::of(&open.secret).is_typed().ok()? {
        return None;
    }
    let read = ReadArgs { open, accept_rollback: false };
    let quiet = OutputArgs { json: false, quiet: true };
    let repo = to_read_with(&read, quiet, |options| options.ssh.prompt = Arc::new(NoPrompt)).ok()?;
    let state = repo.state(signals::context()).ok()?;
    let mut snapshots = state.snapshots();
    snapshots.reverse();
    Some(match place.wanted {
        Wanted::Host => distinct(snapshots.into_iter().map(|s| s.host)),
        Wanted::Tag => distinct(snapshots.into_iter().flat_map(|s| s.tags)),
        Wanted::PathBelow(top) => below(&repo, &folder_of(&repo, &state, top)?, place.current)?,
        Wanted::SnapshotAndPath if place.current.contains(':') => paths(&repo, &state, place.current)?,
        Wanted::SnapshotAndPath => names(&snapshots, ":/"),
        _ => names(&snapshots, ""),
    })
}

fn distinct(values: impl Iterator<Item = String>) -> Vec<Candidate> {
    let mut values: Vec<_> = values.map(|value| (escape::text(value.as_bytes()), String::new())).collect();
    values.sort();
    values.dedup();
    values
}

/// Returns the names of snapshots, the newest first.
fn names(snapshots: &[Snapshot], end: &str) -> Vec<Candidate> {
    let latest = (format!("latest{end}"), "the newest complete snapshot".into());
    let ids = snapshots.iter().map(|s| {
        let tags: String = s.tags.iter().map(|tag| format!(" {}", escape::text(tag.as_bytes()))).collect();
        let host = escape::text(s.host.as_bytes());
        let description = format!("{} {host}{tags} {}", human::time(s.time), snapshot::paths(s));
        (format!("{}{end}", s.id.short()), description)
    });
    [latest].into_iter().chain(ids).collect()
}

/// A folder of a snapshot.
struct Folder {
    snapshot: Snapshot,
    path: Vec<u8>,
}

/// Returns the folder that `SNAPSHOT:PATH` names.
fn folder_of(repo: &Repository, state: &State, text: &str) -> Option<Folder> {
    let (snapshot, path) = snapshot_and_path(OsStr::new(text)).ok()?;
    let (snapshot, path) = FilterArgs::default().locate(repo, state, &snapshot, path).ok()?;
    Some(Folder { snapshot, path })
}

/// Returns the entries of the folder in which `SNAPSHOT:PATH` ends.
fn paths(repo: &Repository, state: &State, current: &str) -> Option<Vec<Candidate>> {
    let Some(slash) = current.rfind('/') else {
        return Some(vec![(format!("{current}/"), String::new())]);
    };
    let top = &current[..=slash];
    let folder = folder_of(repo, state, top)?;
    entries(repo, &folder, b"", top)
}

/// Returns the entries of the folder in which `current`, a path below `top`, ends.
fn below(repo: &Repository, top: &Folder, current: &str) -> Option<Vec<Candidate>> {
    let start = current.rfind('/').map_or("", |slash| &current[..=slash]);
    entries(repo, top, start.as_bytes(), start)
}

/// Returns the entries of `folder/further`, with `start` before their names.
fn entries(repo: &Repository, folder: &Folder, further: &[u8], start: &str) -> Option<Vec<Candidate>> {
    let trees = Trees::new(repo);
    let path = [&folder.path, &b"/"[..], further].concat();
    let Content::Directory(page) = trees.at(signals::context(), &folder.snapshot, &path).ok()?.content else {
        return None;
    };
    let nodes = trees.entries(signals::context(), page.as_ref()).filter_map(Result::ok).take(MOST);
    let values = nodes.map(|node| {
        let end = if matches!(node.content, Content::Directory(_)) { "/" } else { "" };
        (format!("{start}{}{end}", escape::text(&node.name)), String::new())
    });
    Some(values.collect())
}
