//! `nfreezer stats`: the size of snapshots, or of the whole repository.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::exit::{DAMAGED, OK};
use super::filter::FilterArgs;
use super::open::{read_state, to_read};
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::{human, signals};
use crate::error::Result;
use crate::format::record::{Snapshot, SnapshotId};
use crate::format::reference::Ref;
use crate::repo::{Repository, State};
use crate::stats::{self, Figures};
use crate::trees::Trees;

/// Arguments of `stats`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshots, by default all that pass the filters
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
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
    let wanted = args.filter.named(&state, &args.snapshots)?;
    let ids: HashSet<SnapshotId> = wanted.iter().map(|snapshot| snapshot.id).collect();
    let others: Vec<Snapshot> = state.snapshots().into_iter().filter(|snapshot| !ids.contains(&snapshot.id)).collect();
    let ctx = signals::catch();
    let found = stats::stats(ctx, &Trees::new(&repo), &roots(&wanted), &roots(&others))?;
    let files: u64 = wanted.iter().map(|snapshot| snapshot.stats.files).sum();
    let bytes: u64 = wanted.iter().map(|snapshot| snapshot.stats.bytes).sum();
    let packs = if others.is_empty() { Some(packs(&repo, &state)?) } else { None };
    out.line(format_args!("Snapshots:     {}", wanted.len()))?;
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
        "snapshots": wanted.len(), "files": files, "restore_size": bytes,
        "contents": object(&found.contents), "metadata": object(&found.metadata), "unique": object(&found.unique),
        "packs": packs.map(|(count, _)| count), "pack_bytes": packs.map(|(_, bytes)| bytes),
        "damaged": found.damaged,
    });
    out.object("summary", output::object(fields))?;
    out.flush()?;
    Ok(if found.damaged > 0 { DAMAGED } else { OK })
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
