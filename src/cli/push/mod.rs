//! `nfreezer push`: takes a snapshot.
//!
//! In: the arguments (`args`), which `sources`, `input`, `select` and `places` turn into sources, rules and repositories.
//! Out: a call of [`crate::push`], and its results as text or JSON (`report`, `summary`).

mod args;
mod input;
mod places;
mod report;
mod select;
mod sources;
pub mod summary;

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

pub use args::{Args, Padding, memory};

use super::environment::{host, state_folder, user};
use super::figures::Work;
use super::options::OpenArgs;
use super::progress::Reporter;
use super::{open, priority, signals};
use crate::error::{Error, Result};
use crate::push;
use sources::{Own, Sources};

/// Checks values that the parser has accepted.
pub fn check_values(args: &Args) -> Result<()> {
    select::check_values(args)?;
    args.repository.expected_head()?;
    open::ssh_options(&args.repository.connection.ssh)?;
    if args.repository.address.is_given() { places::places(args).map(drop) } else { Ok(()) }
}

/// Exit code 3 if the snapshot was saved but some sources could not be read, or not as they were at one moment, or if one of
/// several repositories failed.
pub fn run(args: &Args) -> Result<u8> {
    if args.low_priority {
        priority::lower();
    }
    sources::refuse_old_form(&args.repository.address, &args.sources)?;
    let select = Arc::new(select::select(args)?);
    let stream = input::stream(args)?;
    let sources = match &stream {
        Some(stream) => Sources {
            paths: vec![PathBuf::from(std::ffi::OsString::from_vec(stream.path.clone()))],
            missing: Vec::new(),
        },
        None => sources::sources(args)?,
    };
    let places = places::places(args)?;
    let find_own = || Own::find(places.iter().map(|place| place.address.as_str()));
    let own = find_own();
    if stream.is_none() {
        sources.paths.iter().try_for_each(|path| own.check(path))?;
    }
    let repos = places::open(args, &places)?;
    // A repository that was just made in a source is left out too.
    let own = if args.init { find_own() } else { own };
    let work = if args.dry_run { Work::Files("scanned") } else { Work::Send("saved") };
    let mut reporter = Reporter::new(args.progress, work);
    let ctx = reporter.attach(signals::catch_and_commit());
    let options = options(args, sources.paths, &own, select)?;
    sources.missing.iter().for_each(|(path, why)| ctx.skip(path, why));
    let to = places::destinations(&places, &repos);
    let results = match stream {
        _ if to.is_empty() => Ok(Vec::new()),
        Some(stream) => push::push_streams_to(&ctx, &to, &options, std::iter::once(Ok(stream))),
        None => push::push_to(&ctx, &to, &options),
    };
    reporter.finish();
    let mut results = results?.into_iter();
    let missing = sources.missing.len() as u64;
    let done = repos.into_iter().map(|repo| {
        let mut summary = repo.as_ref().map_err(Error::duplicate).and_then(|_| results.next().unwrap_or_else(none))?;
        summary.skipped += missing;
        Ok((repo?, summary))
    });
    report::report(args, &places, done.collect())
}

fn none() -> Result<push::Summary> {
    Err(Error::failed("a repository without a result"))
}

fn options(args: &Args, sources: Vec<PathBuf>, own: &Own, select: Arc<push::Select>) -> Result<push::Options> {
    Ok(push::Options {
        sources,
        host: args.host.clone().unwrap_or_else(host),
        user: user(),
        tags: args.tag.clone(),
        description: args.description.clone(),
        time: args.time,
        compression: args.compression.0,
        memory: args.memory,
        patience: args.source_timeout,
        checkpoints: args.checkpoint.map_or_else(push::Checkpoints::default, checkpoints),
        select,
        exclude_dev_ino: own.folders.clone(),
        own_dev_ino: own_folders(&args.repository),
        exclude_devices: own.mounted.clone(),
        force: args.force,
        parent: args.parent.clone(),
        skip_if_unchanged: args.skip_if_unchanged,
        full_packs: args.pad == Padding::Full,
        threads: args.low_priority.then_some(1),
    })
}

/// Returns the device and inode of the folders with the state and the cache of this program.
fn own_folders(repository: &OpenArgs) -> Vec<(u64, u64)> {
    let folders = state_folder().into_iter().chain(repository.cache.path());
    folders.filter_map(|folder| folder.metadata().ok()).map(|meta| (meta.dev(), meta.ino())).collect()
}

fn checkpoints(interval: std::time::Duration) -> push::Checkpoints {
    push::Checkpoints { after: interval, at_most: interval, ..push::Checkpoints::default() }
}
