//! Restricts `latest` to snapshots of a host, with a path, and with tags.

use std::ffi::OsString;

use crate::error::Result;
use crate::format::record::Snapshot;
use crate::repo::State;

const SNAPSHOT: &str = "Snapshot";

/// Filters for `latest` and `latest~N`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// `latest` is the newest snapshot of this host
    #[arg(long, help_heading = SNAPSHOT, hide_short_help = true)]
    host: Option<String>,
    /// `latest` is the newest snapshot with this source
    ///
    /// PATH is a source of the push, as `nfreezer snapshots` lists it. May be repeated, then all are needed.
    #[arg(long = "path", value_name = "PATH", help_heading = SNAPSHOT, hide_short_help = true)]
    paths: Vec<OsString>,
    /// `latest` is the newest snapshot with this tag
    ///
    /// May be repeated, then all are needed.
    #[arg(long = "tag", value_name = "TAG", help_heading = SNAPSHOT, hide_short_help = true)]
    tags: Vec<String>,
}

impl FilterArgs {
    /// Returns the snapshot that `text` names; `latest` counts only snapshots that pass the filters, and an id may be one of
    /// a forgotten snapshot.
    pub fn select(&self, state: &State, text: &str) -> Result<Snapshot> {
        state.select_to_read(text, |snapshot| passes(snapshot, self.host.as_deref(), &self.paths, &self.tags))
    }
}

/// Reports whether a snapshot is of this host and has all these sources and tags.
pub fn passes(snapshot: &Snapshot, host: Option<&str>, paths: &[OsString], tags: &[String]) -> bool {
    let is_source =
        |path: &OsString| snapshot.paths.iter().any(|p| without_slash(p) == without_slash(path.as_encoded_bytes()));
    host.is_none_or(|host| host == snapshot.host)
        && paths.iter().all(is_source)
        && tags.iter().all(|tag| snapshot.tags.contains(tag))
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}
