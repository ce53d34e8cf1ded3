//! `nfreezer stats`: the size of snapshots, of paths in them, or of the whole repository.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;

use serde_json::{Value, json};

use super::exit::{DAMAGED, OK};
use super::filter::FilterArgs;
use super::open::{read_state, to_read};
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::values::snapshot_and_path;
use super::{human, signals};
use crate::error::Result;
use crate::format::node::{Content, Node};
use crate::format::record::{Snapshot, SnapshotId};
use crate::format::reference::Ref;
use crate::repo::{Repository, State};
use crate::stats::{self, Figures};
use crate::trees::{self, Trees};

/// Arguments of `stats`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshots, or paths in them; by default all that pass the filters
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    what: Vec<OsString>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Prints the figures.
pub fn run(args: &Args) -> Result<u8> {
    let repo = to_read(&args.repository, args.output)?;
    let mut out = Output::new(args.output.json);
    let state = read_state(&repo, &mut out)?;
    let (ctx, trees) = (signals::catch(), Trees::new(&repo));
    let wanted = selected(args, &repo, &state, &trees)?;
    let ids: HashSet<SnapshotId> = wanted.iter().map(|part| part.snapshot.id).collect();
    let others: Vec<Snapshot> = state.snapshots().into_iter().filter(|snapshot| !ids.contains(&snapshot.id)).collect();
    let contents: Vec<Content> = wanted.iter().map(|part| part.node.content.clone()).collect();
    let found = stats::stats(ctx, &trees, &contents, &roots(&others))?;
    let (mut files, mut bytes) = (0, 0);
    for part in &wanted {
        let (more_files, more_bytes) = part.restore_size(&trees)?;
        files += more_files;
        bytes += more_bytes;
    }
    let is_all = others.is_empty() && wanted.iter().all(Part::is_whole);
    let packs = if is_all { Some(packs(&repo, &state)?) } else { None };
    out.line(format_args!("Snapshots:     {}", ids.len()))?;
    out.line(format_args!("Restore size:  {} in {}", human::size(bytes), human::count(files, "file")))?;
    out.line(format_args!("Contents:      {}", line(&found.contents)))?;
    out.line(format_args!("Metadata:      {}", line(&found.metadata)))?;
    if let Some((count, bytes)) = packs {
        out.line(format_args!("On the server: {} in {}", human::size(bytes), human::count(count, "pack")))?;
    } else {
        out.line(format_args!("Unique:        {}", line(&found.unique)))?;
    }
    if found.damaged > 0 {
        out.line(format_args!("{} could not be read and is not counted", human::count(found.damaged, "page")))?;
    }
    let fields = json!({
        "snapshots": ids.len(), "files": files, "restore_size": bytes,
        "contents": object(&found.contents), "metadata": object(&found.metadata), "unique": object(&found.unique),
        "packs": packs.map(|(count, _)| count), "pack_bytes": packs.map(|(_, bytes)| bytes),
        "damaged": found.damaged,
    });
    out.object("summary", output::object(fields))?;
    out.flush()?;
    Ok(if found.damaged > 0 { DAMAGED } else { OK })
}

/// A path in a snapshot.
struct Part {
    snapshot: Snapshot,
    path: Vec<u8>,
    node: Node,
}

impl Part {
    fn whole(snapshot: Snapshot) -> Self {
        let node = trees::root(&snapshot);
        Part { snapshot, path: Vec::new(), node }
    }

    fn is_whole(&self) -> bool {
        self.path.iter().all(|b| *b == b'/')
    }

    /// Returns the number of files, and their bytes.
    fn restore_size(&self, trees: &Trees<'_>) -> Result<(u64, u64)> {
        if self.is_whole() {
            return Ok((self.snapshot.stats.files, self.snapshot.stats.bytes));
        }
        stats::restore_size(signals::context(), trees, &self.node)
    }
}

fn selected(args: &Args, repo: &Repository, state: &State, trees: &Trees<'_>) -> Result<Vec<Part>> {
    if args.what.is_empty() {
        return Ok(args.filter.all(state)?.into_iter().map(Part::whole).collect());
    }
    let mut parts = Vec::new();
    for what in &args.what {
        let (name, path) = snapshot_and_path(what)?;
        let (snapshot, path) = args.filter.locate(repo, state, &name, path)?;
        let node = trees.at(signals::context(), &snapshot, &path)?;
        parts.push(Part { snapshot, path, node });
    }
    parts.sort_by(|a, b| (a.snapshot.id, &a.path).cmp(&(b.snapshot.id, &b.path)));
    parts.dedup_by(|a, b| a.snapshot.id == b.snapshot.id && a.path == b.path);
    Ok(parts)
}

fn roots(snapshots: &[Snapshot]) -> Vec<Ref> {
    snapshots.iter().filter_map(|snapshot| snapshot.root).collect()
}

/// Returns the number of packs that records list, and the bytes of their files.
fn packs(repo: &Repository, state: &State) -> Result<(u64, u64)> {
    let tables = repo.tables(signals::context(), state)?;
    let packs: HashMap<_, _> = tables.packs().map(|(pack, _)| (pack.id, pack.file_len())).collect();
    Ok((packs.len() as u64, packs.values().sum()))
}

fn line(figures: &Figures) -> String {
    let ratio = figures.bytes as f64 / figures.stored.max(1) as f64;
    let (bytes, stored) = (human::size(figures.bytes), human::size(figures.stored));
    format!("{bytes} in {}, {stored} compressed ({ratio:.1}:1)", human::count(figures.chunks, "chunk"))
}

fn object(figures: &Figures) -> Value {
    json!({ "chunks": figures.chunks, "bytes": figures.bytes, "stored": figures.stored })
}
