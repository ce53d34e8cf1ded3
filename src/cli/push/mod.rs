//! `nfreezer push`: takes a snapshot.

mod args;
mod input;
mod select;
mod sources;
pub mod summary;

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

pub use args::{Args, Padding, memory};

use super::environment::{host, state_folder, user};
use super::exit::{INCOMPLETE, OK};
use super::figures::Work;
use super::open::{remember_run, to_push};
use super::options::OpenArgs;
use super::output::Output;
use super::progress::Reporter;
use super::{init, priority, signals};
use crate::error::Result;
use crate::push;
use crate::repo::Repository;
use crate::seen::Run;
use sources::{Own, Sources};

/// Exit code 3 if the snapshot was saved but some sources could not be read, or not as they were at one moment.
pub fn run(args: &Args) -> Result<u8> {
    let output = args.progress.output;
    if args.low_priority {
        priority::lower();
    }
    sources::refuse_old_form(&args.repository.address, &args.sources)?;
    let select = Arc::new(select::select(args)?);
    let stream = input::stream(args)?;
    let own = Own::find(&args.repository.address);
    let sources = match &stream {
        Some(stream) => Sources {
            paths: vec![PathBuf::from(std::ffi::OsString::from_vec(stream.path.clone()))],
            missing: Vec::new(),
        },
        None => sources::sources(args)?,
    };
    if stream.is_none() {
        sources.paths.iter().try_for_each(|path| own.check(path))?;
    }
    let repo = open(args)?;
    // A repository that was just made in a source is left out too.
    let own = if args.init { Own::find(&args.repository.address) } else { own };
    let work = if args.dry_run { Work::Files("scanned") } else { Work::Send("saved") };
    let mut reporter = Reporter::new(args.progress, work);
    let ctx = reporter.attach(signals::catch_and_commit());
    let options = options(args, sources.paths, &own, select)?;
    sources.missing.iter().for_each(|(path, why)| ctx.skip(path, why));
    let result = match stream {
        Some(stream) => push::push_streams(&ctx, &repo, &options, std::iter::once(Ok(stream))),
        None => push::push(&ctx, &repo, &options),
    };
    reporter.finish();
    let mut done = result?;
    done.skipped += sources.missing.len() as u64;
    let mut out = Output::new(output.json);
    remember_run(&repo, &mut out, Run::Push)?;
    if !output.quiet {
        summary::print(&mut out, &done, args.dry_run)?;
    }
    out.object("summary", summary::fields(&done, args.dry_run))?;
    out.flush()?;
    Ok(if done.skipped + done.changed_while_read > 0 { INCOMPLETE } else { OK })
}

fn open(args: &Args) -> Result<Repository> {
    if args.init && !args.dry_run {
        return init::open_or_make(&args.repository, args.progress.output);
    }
    to_push(&args.repository, args.progress.output, args.dry_run)
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
        exclude_dev_ino: own.folder.into_iter().collect(),
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
