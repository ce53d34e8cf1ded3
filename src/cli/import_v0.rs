//! `nfreezer import-v0`: makes a snapshot of a repository of the Python nFreezer, which stays as it is.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::common::{Common, open_other_storage, open_to_write};
use super::passphrase::{self, Given};
use super::progress::Reporter;
use super::push::{self as cli_push, Level, summary};
use super::show::{self, Output};
use super::{INCOMPLETE, OK, signals};
use crate::error::{Error, Kind, Result};
use crate::import::{Item, Old};
use crate::push::{self, Failure, Stream, StreamKind};
use crate::repo;
use crate::time::Time;

/// On every snapshot that is made here.
const TAG: &str = "import-v0";
/// The old format knows neither modes nor owners: private, and of who imports.
const FILE_MODE: u16 = 0o600;
const FOLDER_MODE: u16 = 0o700;

/// Arguments of `import-v0`.
#[derive(clap::Args)]
pub struct Args {
    /// The old repository: user@host:/path, host:path (relative to home), sftp://user@host:port//path, or a local folder
    #[arg(value_name = "SRC")]
    source: String,
    /// Where the folder was that was backed up (the old program has not noted it): its files stand there in the snapshot
    #[arg(long = "as", value_name = "PATH", default_value = "/")]
    place: PathBuf,
    /// A file that holds the passphrase of the old repository
    /// [env: NFREEZER_OLD_PASSWORD_FILE; the passphrase itself: NFREEZER_OLD_PASSWORD]
    #[arg(long, value_name = "FILE")]
    old_password_file: Option<PathBuf>,
    /// A shell command that prints it [env: NFREEZER_OLD_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    old_password_command: Option<String>,
    /// A label beside `import-v0`; may be given several times
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// The name in the snapshot of the machine that was backed up; this machine by default
    #[arg(long, env = "NFREEZER_HOST")]
    host: Option<String>,
    /// The time of the snapshot instead of that of the newest file in it: `2026-11-22 10:00:00` (local) or
    /// `2026-11-22T09:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = cli_push::time)]
    time: Option<Time>,
    /// A note for the snapshot instead of where it comes from
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// off, fastest, auto, better, max, or a zstd level from 1 to 22
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = cli_push::compression)]
    compression: Level,
}

/// Exit code 3 if the snapshot was saved but parts of the old repository are damaged.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    let place = place(args)?;
    let given = Given {
        option: "old-password",
        variable: "NFREEZER_OLD_PASSWORD",
        file: args.old_password_file.as_deref(),
        command: args.old_password_command.as_deref(),
    };
    given.check()?;
    let ctx = signals::catch()?;
    let repo = open_to_write(common, false)?;
    let storage = open_other_storage(common, &args.source).map_err(|e| e.while_doing("the old repository"))?;
    let mut reporter = Reporter::new(common, "imported");
    let ctx = reporter.attach(ctx);
    let passphrase = || passphrase::of_old_repository(&given, &storage.address());
    let old = Old::open(&ctx, Arc::clone(&storage), passphrase).map_err(interrupted);
    let result = old.and_then(|old| {
        let options = options(args, &place, &old, &storage.address());
        let streams = old.items().filter_map(|item| stream(&place, item).map(Ok));
        let done = push::push_streams(&ctx, &repo, &options, streams)?;
        Ok(push::Summary { skipped: done.skipped + old.skipped(), ..done })
    });
    reporter.finish();
    let (done, fetched) = (result?, storage.traffic().1);
    let mut out = Output::new(common.json);
    if !common.quiet {
        summary::say(&mut out, &done, false)?;
        out.line(format_args!("received {} from the old repository, which stays as it is", show::size(fetched)))?;
    }
    let mut fields = summary::fields(&done, false);
    fields.insert("fetched".into(), fetched.into());
    out.object("summary", fields)?;
    out.flush()?;
    Ok(if done.skipped > 0 { INCOMPLETE } else { OK })
}

fn options(args: &Args, place: &Path, old: &Old, address: &str) -> push::Options {
    push::Options {
        sources: vec![place.into()],
        host: args.host.clone().unwrap_or_else(cli_push::host),
        user: cli_push::user(),
        tags: args.tag.iter().cloned().chain([TAG.into()]).collect(),
        description: args.description.clone().unwrap_or_else(|| format!("from the Python nFreezer at {address}")),
        time: args.time.or_else(|| old.newest(repo::now())),
        compression: args.compression.0,
        ..push::Options::default()
    }
}

/// What is imported, as a source of a push. The folder that was backed up is no item of its own if it is the root.
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
            show::text(args.place.as_os_str().as_encoded_bytes())
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
