//! The arguments of `push`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::time::Time;

const SOURCES: &str = "Sources";
const SELECTION: &str = "Selection";
const SNAPSHOT: &str = "Snapshot";
const WORK: &str = "Work";

/// Refused here, not after the passphrase was asked for and the repository opened.
fn memory(text: &str) -> Result<u64, String> {
    let bytes = crate::cli::size(text)?;
    let least = crate::push::LEAST >> 20;
    if bytes >> 20 < least { Err(format!("a push needs at least {least}M")) } else { Ok(bytes) }
}

/// Arguments of `push`.
#[derive(clap::Args)]
pub struct Args {
    /// Files and folders; they keep their absolute paths in the snapshot. `-` is standard input. After
    /// --stdin-from-command: the command and its arguments
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<OsString>,

    /// Further sources, one a line: wildcards are expanded, blanks around a line, empty lines and those that begin with
    /// `#` do not count; `-`: from standard input
    #[arg(long, value_name = "FILE", help_heading = SOURCES)]
    pub files_from: Vec<PathBuf>,
    /// Further sources, one a line, each just as it stands there
    #[arg(long, value_name = "FILE", help_heading = SOURCES)]
    pub files_from_verbatim: Vec<PathBuf>,
    /// Further sources, each ended by a zero byte, as `find -print0` writes them
    #[arg(long, value_name = "FILE", help_heading = SOURCES)]
    pub files_from_raw: Vec<PathBuf>,
    /// Save standard input as one file
    #[arg(long, help_heading = SOURCES, conflicts_with_all = LISTS)]
    pub stdin: bool,
    /// Run the command that follows `--` and save what it writes as one file; no snapshot if it fails
    #[arg(long, help_heading = SOURCES, conflicts_with = "stdin", conflicts_with_all = LISTS)]
    pub stdin_from_command: bool,
    /// The path of that file in the snapshot
    #[arg(long, value_name = "PATH", default_value = "/stdin", help_heading = SOURCES)]
    pub stdin_filename: OsString,

    /// Leave out what matches: `*.tmp`, `node_modules`, `cache/` (folders only), `docs/*.pdf`, `/home/*/Downloads`; `**` is any
    /// number of folders; `!PATTERN` takes back what an earlier pattern left out
    #[arg(short, long, value_name = "PATTERN", help_heading = SELECTION)]
    pub exclude: Vec<OsString>,
    /// The same, whatever the case
    #[arg(long, value_name = "PATTERN", help_heading = SELECTION)]
    pub iexclude: Vec<OsString>,
    /// A file with patterns for --exclude, one a line; lines that begin with `#` are comments
    #[arg(long, value_name = "FILE", help_heading = SELECTION)]
    pub exclude_file: Vec<PathBuf>,
    /// A file with patterns for --iexclude
    #[arg(long, value_name = "FILE", help_heading = SELECTION)]
    pub iexclude_file: Vec<PathBuf>,
    /// Leave out what lies beside a CACHEDIR.TAG
    #[arg(long, help_heading = SELECTION)]
    pub exclude_caches: bool,
    /// Leave out what lies beside a file of this name (which begins with HEADER)
    #[arg(long, value_name = "NAME[:HEADER]", help_heading = SELECTION)]
    pub exclude_if_present: Vec<OsString>,
    /// Leave out files that are larger: 100M, 2G
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::size, help_heading = SELECTION)]
    pub exclude_larger_than: Option<u64>,
    /// Do not heed the .nfreezerignore files in the folders that are saved (their syntax is that of gitignore)
    #[arg(long, help_heading = SELECTION)]
    pub no_ignore_files: bool,
    /// Stay on the file systems that the sources are on; mount points are saved as empty folders
    #[arg(short = 'x', long, help_heading = SELECTION)]
    pub one_file_system: bool,

    /// A label for the snapshot; may be given several times
    #[arg(long, value_name = "TAG", help_heading = SNAPSHOT)]
    pub tag: Vec<String>,
    /// The name of this machine in the snapshot
    #[arg(long, env = "NFREEZER_HOST", help_heading = SNAPSHOT)]
    pub host: Option<String>,
    /// The time of the snapshot instead of now: `2026-11-22 10:00:00` (local) or `2026-11-22T09:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = SNAPSHOT)]
    pub time: Option<Time>,
    /// A note for the snapshot
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, help_heading = SNAPSHOT)]
    pub description: String,
    /// Make no snapshot if nothing has changed since the last one of the same host and sources
    #[arg(long, help_heading = SNAPSHOT)]
    pub skip_if_unchanged: bool,

    /// Read, compress and compare, say what would be sent, and write nothing
    #[arg(short = 'n', long, help_heading = WORK)]
    pub dry_run: bool,
    /// Read every file again, whatever the snapshot before says about it
    #[arg(short, long, help_heading = WORK)]
    pub force: bool,
    /// Compare with this snapshot instead of the newest one of the same host and sources
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "force", help_heading = WORK)]
    pub parent: Option<String>,
    /// Use no more memory than this, beside that of the passphrase's key derivation; at least 104M
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "256M", env = "NFREEZER_MEMORY", help_heading = WORK)]
    pub memory: u64,
    /// Commit what is stored so far this often, so that an interrupted push loses no more than that. Without it: after 60s,
    /// then ever less often, at least every 10m
    #[arg(long, value_name = "TIME", value_parser = interval, env = "NFREEZER_CHECKPOINT", help_heading = WORK)]
    pub checkpoint: Option<Duration>,
    /// off, fastest, auto, better, max, or a zstd level from 1 to 22
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = compression, env = "NFREEZER_COMPRESSION",
        help_heading = WORK)]
    pub compression: Level,
}

const LISTS: [&str; 3] = ["files_from", "files_from_verbatim", "files_from_raw"];

/// Level of zstd; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level(pub i32);

/// `2026-11-22 10:00:00` (local) or `2026-11-22T09:00:00Z`
pub fn time(text: &str) -> Result<Time, String> {
    let zoned = || text.parse::<jiff::civil::DateTime>()?.to_zoned(jiff::tz::TimeZone::system());
    let time = text.parse::<jiff::Timestamp>().or_else(|_| zoned().map(|z| z.timestamp()));
    let time = time.map_err(|_| "write `2026-11-22 10:00:00` or `2026-11-22T10:00:00Z`".to_owned())?;
    let nanoseconds = u32::try_from(time.subsec_nanosecond()).map_err(|_| "before 1970".to_owned())?;
    Ok(Time::new(time.as_second(), nanoseconds))
}

fn interval(text: &str) -> Result<Duration, String> {
    match crate::cli::duration(text)? {
        Duration::ZERO => Err("1s at least".into()),
        interval => Ok(interval),
    }
}

/// The level that a word or a number names.
pub fn compression(text: &str) -> Result<Level, String> {
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
        assert_eq!(time("1970-01-01T00:01:00.5Z").unwrap(), Time::new(60, 500_000_000));
        assert!(time("2026-11-22 10:00:00").is_ok() && time("2026-11-22").is_ok());
        for bad in ["", "noon", "2026-13-01"] {
            time(bad).unwrap_err();
        }
        assert_eq!(interval("2m").unwrap().as_secs(), 120);
        interval("0").unwrap_err();
    }
}
