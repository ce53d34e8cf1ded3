//! `nfreezer import-v0`: makes a snapshot of a repository of the Python nFreezer, which is only read.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::environment::{host, user};
use super::exit::{INCOMPLETE, OK};
use super::figures::Work;
use super::open::{storage_at, to_write};
use super::options::{OpenArgs, ProgressArgs};
use super::output::Output;
use super::passphrase::Given;
use super::progress::Reporter;
use super::push::summary;
use super::values::{CompressionLevel, compression, time};
use super::{escape, human, signals};
use crate::error::{Error, Kind, Result};
use crate::import::{Item, OldRepository};
use crate::push::{self, Failure, Stream, StreamKind};
use crate::repo;
use crate::time::Time;
use clap::builder::NonEmptyStringValueParser;

/// On every snapshot that is made here.
const TAG: &str = "import-v0";
/// The old format knows neither modes nor owners: private, and of who imports.
const FILE_MODE: u16 = 0o600;
const FOLDER_MODE: u16 = 0o700;

/// Arguments of `import-v0`.
#[derive(clap::Args)]
pub struct Args {
    /// The old repository: user@host:/path, or a local folder
    #[arg(value_name = "SRC")]
    source: String,
    /// The folder that was backed up
    ///
    /// Its files get this path in the snapshot, since the old repository does not contain it.
    #[arg(long = "as", value_name = "PATH", default_value = "/")]
    place: PathBuf,
    /// Read the old passphrase from FILE
    ///
    /// One newline at the end is removed. [env: NFREEZER_OLD_PASSWORD_FILE; the passphrase itself:
    /// NFREEZER_OLD_PASSWORD]
    #[arg(long, value_name = "FILE")]
    old_password_file: Option<PathBuf>,
    /// Read it from the output of a shell command [env: NFREEZER_OLD_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", hide_short_help = true)]
    old_password_command: Option<String>,
    /// A label besides `import-v0`; may be repeated
    #[arg(long, value_name = "TAG", hide_short_help = true)]
    tag: Vec<String>,
    /// The name in the snapshot of the machine that was backed up; this machine by default
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), env = "NFREEZER_HOST", hide_short_help = true)]
    host: Option<String>,
    /// The time of the snapshot instead of the time of its newest file: `2026-11-22 10:00:00` (local) or
    /// `2026-11-22T09:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = time, hide_short_help = true)]
    time: Option<Time>,
    /// A note for the snapshot instead of the address of the old repository
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    description: Option<String>,
    /// off, fastest, auto, better, max, or a zstd level from 1 to 22
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = compression, hide_short_help = true)]
    compression: CompressionLevel,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// Imports. The exit code is 3 if the snapshot was saved but parts of the old repository are damaged.
pub fn run(args: &Args) -> Result<u8> {
    let output = args.progress.output;
    let place = place(args)?;
    let given = Given {
        option: "old-password",
        variable: "NFREEZER_OLD_PASSWORD",
        file: args.old_password_file.as_deref(),
        command: args.old_password_command.as_deref(),
    };
    given.check()?;
    let ctx = signals::catch_and_commit();
    let repo = to_write(&args.repository, output, false)?;
    let storage = storage_at(&args.source, &args.repository.connection, output)
        .map_err(|e| e.while_doing("the old repository"))?;
    let mut reporter = Reporter::new(args.progress, Work::Send("imported"));
    let ctx = reporter.attach(ctx);
    let passphrase = || given.read(&format!("passphrase of the old repository {}: ", storage.address()));
    let old = OldRepository::open(&ctx, Arc::clone(&storage), passphrase).map_err(interrupted);
    let result = old.and_then(|old| {
        let options = options(args, &place, &old, &storage.address());
        let streams = old.items().filter_map(|item| stream(&place, item).map(Ok));
        let done = push::push_streams(&ctx, &repo, &options, streams)?;
        Ok(push::Summary { skipped: done.skipped + old.skipped(), ..done })
    });
    reporter.finish();
    let (done, fetched) = (result?, storage.traffic().1);
    let mut out = Output::new(output.json);
    if !output.quiet {
        summary::print(&mut out, &done, false)?;
        out.line(format_args!("received {} from the old repository, which stays as it is", human::size(fetched)))?;
    }
    let mut fields = summary::fields(&done, false);
    fields.insert("fetched".into(), fetched.into());
    out.object("summary", fields)?;
    out.flush()?;
    Ok(if done.skipped > 0 { INCOMPLETE } else { OK })
}

fn options(args: &Args, place: &Path, old: &OldRepository, address: &str) -> push::Options {
    push::Options {
        sources: vec![place.into()],
        host: args.host.clone().unwrap_or_else(host),
        user: user(),
        tags: args.tag.iter().cloned().chain([TAG.into()]).collect(),
        description: args.description.clone().unwrap_or_else(|| format!("from the Python nFreezer at {address}")),
        time: args.time.or_else(|| old.newest(repo::now())),
        compression: args.compression.0,
        ..push::Options::default()
    }
}

/// Returns the imported files as a source of a push. The saved folder is not an item of its own if it is the root.
fn stream(place: &Path, item: Item) -> Option<Stream> {
    let place = place.as_os_str().as_encoded_bytes();
    let place = place.strip_suffix(b"/").unwrap_or(place);
    let slash: &[u8] = if item.path.is_empty() { b"" } else { b"/" };
    let path = [place, slash, &item.path].concat();
    let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let (mode, kind) = match item.file {
        Some(file) => (FILE_MODE, StreamKind::File { size: Some(file.size), failure: Failure::Skip, open: file.open }),
        None => (FOLDER_MODE, StreamKind::Folder),
    };
    (!path.is_empty()).then_some(Stream { path, mode, uid: ids.0, gid: ids.1, mtime: item.mtime, kind })
}

fn place(args: &Args) -> Result<PathBuf> {
    let odd = |part| !matches!(part, Component::RootDir | Component::Normal(_));
    if !args.place.is_absolute() || args.place.components().any(odd) {
        let text = format!(
            "--as {}: not an absolute path without `..`",
            escape::text(args.place.as_os_str().as_encoded_bytes())
        );
        return Err(Error::new(Kind::Usage, text).hint("for example --as /home/me/documents"));
    }
    Ok(args.place.components().collect())
}

fn interrupted(e: Error) -> Error {
    match e.kind() {
        Kind::Interrupted(_) => Error::new(e.kind(), "interrupted before the snapshot was complete"),
        _ => e,
    }
}
