//! `nfreezer push`: takes a snapshot.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::{Common, looks_remote, open_repository};
use super::progress::Reporter;
use super::show::{self, Output};
use super::{INCOMPLETE, OK, signals};
use crate::error::{Error, Kind, Result};
use crate::name::hex;
use crate::push;
use crate::repo::tree::short;
use crate::storage::Location;

/// Arguments of `push`.
#[derive(clap::Args)]
pub struct Args {
    /// Files and folders; they keep their absolute paths in the snapshot
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// A label for the snapshot; may be given several times
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// The name of this machine in the snapshot
    #[arg(long, env = "NFREEZER_HOST")]
    host: Option<String>,
    /// The time of the snapshot instead of now: `2026-11-22 10:00:00` (local) or `2026-11-22T09:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<(i64, u32)>,
    /// A note for the snapshot
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// off, fastest, auto, better, max, or a zstd level from 1 to 22
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = compression)]
    compression: Level,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Level(i32);

/// Exit code 3 if the snapshot was saved but some sources could not be read.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    refuse_old_form(common, &args.sources)?;
    let sources = sources(&args.sources)?;
    let repo = open_repository(common)?;
    let mut reporter = Reporter::new(common, "saved");
    let mut tags = args.tag.clone();
    tags.sort_unstable();
    tags.dedup();
    let options = push::Options {
        sources,
        host: args.host.clone().unwrap_or_else(host),
        user: user(),
        tags,
        description: args.description.clone(),
        time: args.time,
        compression: args.compression.0,
        stop: signals::stop_flag()?,
        exclude_dev_ino: own_folder(common).into_iter().chain(mounted_backups()).collect(),
        ..push::Options::default()
    };
    let result = push::push(&repo, &options, &reporter);
    reporter.finish();
    let summary = result?;
    let mut out = Output::new(common.json);
    if !common.quiet {
        say(&mut out, &summary)?;
    }
    out.object("summary", fields(&summary))?;
    out.flush()?;
    Ok(if summary.skipped > 0 { INCOMPLETE } else { OK })
}

fn say(out: &mut Output, s: &push::Summary) -> Result<()> {
    out.line(format_args!(
        "files: {} new, {} changed, {} renamed, {} unchanged{}",
        s.new,
        s.changed,
        s.renamed,
        s.unchanged,
        if s.skipped > 0 { format!(", {} could not be read", s.skipped) } else { String::new() }
    ))?;
    out.line(format_args!(
        "read {}, of which {} were new here, stored as {}",
        show::size(s.read),
        show::size(s.added),
        show::size(s.stored)
    ))?;
    let seconds = s.duration.as_secs_f64();
    out.line(format_args!("sent {}, received {}, in {seconds:.1} s", show::size(s.sent), show::size(s.received)))?;
    out.line(format_args!("snapshot {} saved", short(&s.snapshot.id)))
}

fn fields(s: &push::Summary) -> serde_json::Map<String, serde_json::Value> {
    show::object(json!({
        "snapshot": hex(&s.snapshot.id), "new": s.new, "changed": s.changed, "unchanged": s.unchanged,
        "renamed": s.renamed, "read": s.read, "added": s.added, "stored": s.stored, "sent": s.sent,
        "received": s.received, "skipped": s.skipped, "packs": s.packs, "seconds": s.duration.as_secs_f64(),
    }))
}

/// `nfreezer backup SRC user@host:/path` is how the Python tool was called.
fn refuse_old_form(common: &Common, sources: &[OsString]) -> Result<()> {
    match sources {
        [source, place] if looks_remote(place) && !common.names_repository() && !Path::new(place).exists() => {
            let [source, place] = [source, place].map(|s| show::text(s.as_encoded_bytes()));
            let text = "this is how the old nfreezer was called";
            Err(Error::new(Kind::Usage, text).hint(format!("write: nfreezer push -r {place} {source}")))
        }
        _ => Ok(()),
    }
}

/// Absolute, and all of them there; a symbolic link is saved as such.
fn sources(given: &[OsString]) -> Result<Vec<PathBuf>> {
    let absolute = |source: &OsString| {
        let name = show::text(source.as_encoded_bytes());
        // `..` means what the kernel takes it for, and a slash at the end follows a link; else links stay what they are.
        let resolve = Path::new(source).components().any(|part| part == std::path::Component::ParentDir);
        let resolve = resolve || source.as_encoded_bytes().ends_with(b"/");
        let path = if resolve { Path::new(source).canonicalize() } else { std::path::absolute(source) };
        let path = path.map_err(|e| Error::io(format!("read the source {name}"), e))?;
        path.symlink_metadata().map_err(|e| Error::io(format!("read the source {name}"), e))?;
        Ok(path)
    };
    given.iter().map(absolute).collect()
}

/// The folder of a local repository, so that it does not swallow itself.
fn own_folder(common: &Common) -> Vec<(u64, u64)> {
    let location = common.repository().and_then(|r| Location::parse(&r));
    match location {
        Ok(Location::Local(path)) => path.metadata().map(|m| (m.dev(), m.ino())).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// The roots of mounted backups. From the mount table: a `stat` of a mount that hangs would hang too.
fn mounted_backups() -> Vec<(u64, u64)> {
    const ROOT: u64 = 1; // inode number of the root of every FUSE file system
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let device = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let (major, minor) = place.split(' ').nth(2)?.split_once(':')?;
        let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
        kind.starts_with("fuse.nfreezer ").then_some((device, ROOT))
    };
    table.lines().filter_map(device).collect()
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().into() }
}

fn user() -> String {
    let uid = nix::unistd::geteuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn time(text: &str) -> Result<(i64, u32), String> {
    let zoned = || text.parse::<jiff::civil::DateTime>()?.to_zoned(jiff::tz::TimeZone::system());
    let time = text.parse::<jiff::Timestamp>().or_else(|_| zoned().map(|z| z.timestamp()));
    let time = time.map_err(|_| "write `2026-11-22 10:00:00` or `2026-11-22T10:00:00Z`".to_owned())?;
    Ok((time.as_second(), u32::try_from(time.subsec_nanosecond()).map_err(|_| "before 1970".to_owned())?))
}

fn compression(text: &str) -> Result<Level, String> {
    let level = match text {
        "off" => 0,
        "fastest" => 1,
        "auto" => 3,
        "better" => 9,
        "max" => 19,
        n => n
            .parse()
            .ok()
            .filter(|n| (1..=22).contains(n))
            .ok_or("write off, fastest, auto, better, max, or 1 to 22")?,
    };
    Ok(Level(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_times() {
        assert_eq!(["off", "auto", "max", "22"].map(|c| compression(c).unwrap().0), [0, 3, 19, 22]);
        for bad in ["0", "23", "-1", "best", ""] {
            compression(bad).unwrap_err();
        }
        assert_eq!(time("1970-01-01T00:01:00.5Z").unwrap(), (60, 500_000_000));
        assert!(time("2026-11-22 10:00:00").is_ok() && time("2026-11-22").is_ok());
        for bad in ["", "noon", "2026-13-01"] {
            time(bad).unwrap_err();
        }
    }

    #[test]
    fn an_absolute_source_keeps_symbolic_links() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        assert_eq!(sources(&[link.clone().into()]).unwrap(), [link]);
        assert_eq!(sources(&["/no/such/source".into()]).unwrap_err().kind(), Kind::Failed);
    }
}
