//! Restricts snapshots by host, source and tags.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::snapshot::each_once;
use super::{escape, human, signals, warnings};
use crate::error::{Error, Result};
use crate::format::record::Snapshot;
use crate::printable;
use crate::repo::{Repository, State};
use crate::trees::Trees;

const SNAPSHOT: &str = "Snapshot";
/// Snapshots that are searched for a path that the newest one does not have.
const LOOKED_AT: usize = 200;
/// Values of a kind that a message names.
const NAMED: usize = 10;

/// Filters for snapshots. `latest` and `latest~N` count only snapshots that pass them.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// Only snapshots of this host; `latest` is the newest of them
    #[arg(long, help_heading = SNAPSHOT, hide_short_help = true)]
    host: Option<String>,
    /// Only snapshots with this source; `latest` is the newest of them
    ///
    /// PATH is a source of the push, as `nfreezer snapshots` lists it. May be repeated, then all are needed.
    #[arg(long = "path", value_name = "PATH", help_heading = SNAPSHOT, hide_short_help = true)]
    paths: Vec<OsString>,
    /// Only snapshots with this tag; `latest` is the newest of them
    ///
    /// May be repeated or be a list with commas, then all are needed.
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',', help_heading = SNAPSHOT, hide_short_help = true)]
    tags: Vec<String>,
}

impl FilterArgs {
    /// Returns the filters of a command that has options of its own for them.
    pub fn new(host: Option<String>, paths: Vec<OsString>, tags: Vec<String>) -> Self {
        FilterArgs { host, paths, tags }
    }

    /// Returns the snapshot that `text` names; `latest` counts only snapshots that pass the filters, and an id may be one of
    /// a forgotten snapshot.
    pub fn select(&self, state: &State, text: &str) -> Result<Snapshot> {
        state.select_to_read(text, |snapshot| self.passes(snapshot)).map_err(|e| match self.is_empty() {
            false if text == "latest" => Error::new(e.kind(), "no snapshot passes the filters").hint(existing(state)),
            _ => e,
        })
    }

    /// Returns the snapshot like [`FilterArgs::select`]. If `latest` has no such path, returns the newest snapshot that has
    /// it, with a warning.
    fn select_with(&self, repo: &Repository, state: &State, text: &str, path: &[u8]) -> Result<Snapshot> {
        let latest = self.select(state, text)?;
        if text != "latest" || path.iter().all(|b| *b == b'/') {
            return Ok(latest);
        }
        let (trees, ctx) = (Trees::new(repo), signals::context());
        // Damage is reported by the operation itself.
        if !matches!(trees.find(ctx, &latest, path), Ok(None)) {
            return Ok(latest);
        }
        let snapshots = state.snapshots();
        let others = snapshots.iter().rev().filter(|s| !s.partial && self.passes(s) && may_have(s, path));
        for snapshot in others.take(LOOKED_AT) {
            if trees.find(ctx, snapshot, path)?.is_some() {
                warnings::warn(
                    false,
                    &format!(
                        "no {} in the latest snapshot {}: this is snapshot {} of {}, the newest one that has it",
                        escape::text(path),
                        latest.id.short(),
                        snapshot.id.short(),
                        human::time(snapshot.time)
                    ),
                );
                return Ok(snapshot.clone());
            }
        }
        Ok(latest)
    }

    /// Returns the snapshot and the path like [`FilterArgs::select_with`]. A path that does not exist as it was typed is also
    /// taken for one with the escapes that this program prints, such as `\xff`.
    pub fn locate(&self, repo: &Repository, state: &State, text: &str, path: Vec<u8>) -> Result<(Snapshot, Vec<u8>)> {
        let snapshot = self.select_with(repo, state, text, &path)?;
        let (trees, ctx) = (Trees::new(repo), signals::context());
        if let Some(printed) = printable::parse(&path)
            && matches!(trees.find(ctx, &snapshot, &path), Ok(None))
        {
            let other = self.select_with(repo, state, text, &printed)?;
            if matches!(trees.find(ctx, &other, &printed), Ok(Some(_))) {
                return Ok((other, printed));
            }
        }
        Ok((snapshot, path))
    }

    /// Returns the snapshots that these texts name, each once, the oldest first. Without texts, these are all that pass the
    /// filters.
    pub fn named(&self, state: &State, texts: &[String]) -> Result<Vec<Snapshot>> {
        if texts.is_empty() {
            return self.all(state);
        }
        each_once(texts.iter().map(|text| self.select(state, text)))
    }

    /// Returns all snapshots that pass the filters. Fails if there are snapshots, and none passes.
    pub fn all(&self, state: &State) -> Result<Vec<Snapshot>> {
        let passing = self.passing(state);
        if passing.is_empty() && !state.snapshots().is_empty() {
            return Err(Error::failed("no snapshot passes the filters").hint(existing(state)));
        }
        Ok(passing)
    }

    /// Returns the snapshots that pass the filters, the oldest first.
    pub fn passing(&self, state: &State) -> Vec<Snapshot> {
        state.snapshots().into_iter().filter(|snapshot| self.passes(snapshot)).collect()
    }

    /// Returns whether a snapshot is of the host and has all sources and tags.
    pub fn passes(&self, snapshot: &Snapshot) -> bool {
        let is_source =
            |path: &OsString| snapshot.paths.iter().any(|p| without_slash(p) == without_slash(path.as_encoded_bytes()));
        self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.paths.iter().all(is_source)
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
    }

    /// Returns whether there are no filters.
    pub fn is_empty(&self) -> bool {
        self.host.is_none() && self.paths.is_empty() && self.tags.is_empty()
    }
}

/// Returns a path that does not exist as it was typed without the escapes that this program prints, if that exists.
pub fn as_printed(repo: &Repository, snapshot: &Snapshot, path: Vec<u8>) -> Vec<u8> {
    let trees = Trees::new(repo);
    let exists = |path: &[u8]| trees.find(signals::context(), snapshot, path).map(|found| found.is_some());
    match printable::parse(&path) {
        Some(printed) if matches!(exists(&path), Ok(false)) && matches!(exists(&printed), Ok(true)) => printed,
        _ => path,
    }
}

/// Reports whether a path can be in a snapshot, by its sources.
fn may_have(snapshot: &Snapshot, path: &[u8]) -> bool {
    let is_below = |path: &[u8], other: &[u8]| {
        path.strip_prefix(without_slash(other)).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let path = [b"/", without_slash(path.strip_prefix(b"/").unwrap_or(path))].concat();
    snapshot.more_paths > 0 || snapshot.paths.iter().any(|source| is_below(&path, source) || is_below(source, &path))
}

/// Returns a line with the hosts, tags and sources of all snapshots.
pub fn existing(state: &State) -> String {
    let snapshots = state.snapshots();
    let hosts = snapshots.iter().map(|s| s.host.as_bytes());
    let tags = snapshots.iter().flat_map(|s| s.tags.iter().map(String::as_bytes));
    let sources = snapshots.iter().flat_map(|s| s.paths.iter().map(|path| path.as_slice()));
    format!("hosts: {}; tags: {}; sources: {}", several(hosts), several(tags), several(sources))
}

fn several<'a>(values: impl Iterator<Item = &'a [u8]>) -> String {
    let all: BTreeSet<&[u8]> = values.collect();
    let named = all.iter().take(NAMED).map(|value| escape::text(value)).collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => "none".into(),
        n if n > NAMED => format!("{named} and {} more", n - NAMED),
        _ => named,
    }
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}
