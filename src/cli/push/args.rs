//! The arguments of `push`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::options::{OpenArgs, ProgressArgs};
use crate::cli::target::TargetArgs;
use crate::cli::values::{CompressionLevel, compression, duration, size, time};
use crate::time::Time;
use clap::builder::NonEmptyStringValueParser;

const SOURCES: &str = "Sources";
const SELECTION: &str = "Selection";
const SNAPSHOT: &str = "Snapshot";
const PROCESS: &str = "Process";

/// Refuses too little memory before the passphrase is asked for.
pub fn memory(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    let least = crate::push::LEAST >> 20;
    if bytes >> 20 < least { Err(format!("a push needs at least {least}M")) } else { Ok(bytes) }
}

/// Arguments of `push`.
#[derive(clap::Args)]
pub struct Args {
    /// Files and folders; `-` is standard input
    ///
    /// They keep their absolute paths in the snapshot. After --stdin-from-command: the command and its arguments.
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<OsString>,

    /// Make the repository if there is none
    ///
    /// Prompts twice for a new passphrase, as `init` does. Refuses a place whose disk seems not to be mounted.
    #[arg(long)]
    pub init: bool,
    /// Read sources from FILE, one per line
    ///
    /// Wildcards are expanded. Blanks around a line, empty lines and lines that begin with `#` are ignored. `-` reads
    /// the list from standard input.
    #[arg(long, value_name = "FILE", help_heading = SOURCES, hide_short_help = true)]
    pub files_from: Vec<PathBuf>,
    /// Read sources from FILE, one per line, without wildcards, comments or trimming
    #[arg(long, value_name = "FILE", help_heading = SOURCES, hide_short_help = true)]
    pub files_from_verbatim: Vec<PathBuf>,
    /// Read sources from FILE, each ended by a zero byte, as `find -print0` writes them
    #[arg(long, value_name = "FILE", help_heading = SOURCES, hide_short_help = true)]
    pub files_from_raw: Vec<PathBuf>,
    /// Save standard input as one file
    #[arg(long, help_heading = SOURCES, conflicts_with_all = LISTS, hide_short_help = true)]
    pub stdin: bool,
    /// Run the command after `--` and save its output as one file
    ///
    /// No snapshot is saved if the command fails.
    #[arg(long, help_heading = SOURCES, conflicts_with = "stdin", conflicts_with_all = LISTS, hide_short_help = true)]
    pub stdin_from_command: bool,
    /// The path of that file in the snapshot
    #[arg(long, value_name = "PATH", default_value = "/stdin", help_heading = SOURCES, hide_short_help = true)]
    pub stdin_filename: OsString,

    /// Leave out matching files: `*.tmp`, `cache/`
    ///
    /// `*.tmp` and `node_modules` match names, `cache/` only folders, `docs/*.pdf` and `/home/*/Downloads` paths. `**`
    /// matches any number of folders. `!PATTERN` includes again what an earlier pattern left out.
    #[arg(short, long, value_name = "PATTERN")]
    pub exclude: Vec<OsString>,
    /// Like --exclude, but ignores the case of letters
    #[arg(long, value_name = "PATTERN", help_heading = SELECTION, hide_short_help = true)]
    pub iexclude: Vec<OsString>,
    /// Read patterns for --exclude from FILE, one per line
    ///
    /// Lines that begin with `#` are comments.
    #[arg(long, value_name = "FILE", help_heading = SELECTION, hide_short_help = true)]
    pub exclude_file: Vec<PathBuf>,
    /// Read patterns for --iexclude from FILE
    #[arg(long, value_name = "FILE", help_heading = SELECTION, hide_short_help = true)]
    pub iexclude_file: Vec<PathBuf>,
    /// Leave out the contents of folders with a CACHEDIR.TAG
    #[arg(long, help_heading = SELECTION, hide_short_help = true)]
    pub exclude_caches: bool,
    /// Leave out the contents of folders with a file of this name (which begins with HEADER)
    #[arg(long, value_name = "NAME[:HEADER]", help_heading = SELECTION, hide_short_help = true)]
    pub exclude_if_present: Vec<OsString>,
    /// Leave out files that are larger: 100M, 1.5G
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = SELECTION, hide_short_help = true)]
    pub exclude_larger_than: Option<u64>,
    /// Leave out files and folders with the flag `d` of chattr
    #[arg(long, help_heading = SELECTION, hide_short_help = true)]
    pub exclude_nodump: bool,
    /// Ignore the .nfreezerignore files in the folders that are saved (in the syntax of gitignore)
    #[arg(long, help_heading = SELECTION, hide_short_help = true)]
    pub no_ignore_files: bool,
    /// Stay on the file systems of the sources
    ///
    /// Mount points are saved as empty folders.
    #[arg(short = 'x', long)]
    pub one_file_system: bool,

    /// A label for the snapshot; may be repeated
    ///
    /// A list with commas sets several tags.
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub tag: Vec<String>,
    /// The name of this machine in the snapshot
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), env = "NFREEZER_HOST", help_heading = SNAPSHOT, hide_short_help = true)]
    pub host: Option<String>,
    /// The time of the snapshot instead of now: `2026-11-22 10:00:00`, `2026-11-22T09:00:00Z`, `yesterday`
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = SNAPSHOT, hide_short_help = true)]
    pub time: Option<Time>,
    /// A note for the snapshot
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, help_heading = SNAPSHOT,
        hide_short_help = true)]
    pub description: String,
    /// Save no snapshot if nothing has changed
    ///
    /// The comparison is with the newest snapshot of the same host and sources.
    #[arg(long, help_heading = SNAPSHOT, hide_short_help = true)]
    pub skip_if_unchanged: bool,

    /// Read, compress and compare, but write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Read every file again, even if its time and size are unchanged
    #[arg(short, long, help_heading = PROCESS, hide_short_help = true)]
    pub force: bool,
    /// Compare with this snapshot instead of the newest one of the same host and sources
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "force", help_heading = PROCESS, hide_short_help = true)]
    pub parent: Option<String>,
    /// Use at most this much memory, in addition to the key derivation; at least 104M
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "256M", env = "NFREEZER_MEMORY",
        help_heading = PROCESS, hide_short_help = true)]
    pub memory: u64,
    /// Commit the stored data at this interval
    ///
    /// An interrupted push loses at most the work of one interval. By default the first interval is 60s; later ones are
    /// longer, up to 10m.
    #[arg(long, value_name = "TIME", value_parser = interval, env = "NFREEZER_CHECKPOINT", help_heading = PROCESS,
        hide_short_help = true)]
    pub checkpoint: Option<Duration>,
    /// off, fastest, auto, better, max, or a zstd level from 1 to 22
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = compression,
        env = "NFREEZER_COMPRESSION", help_heading = PROCESS, hide_short_help = true)]
    pub compression: CompressionLevel,

    /// Pad packs that are not full to `classes` of at most 25 %, or to the `full` size
    ///
    /// With `full`, sizes reveal nothing about single files. A push with new contents then sends at least 16 MiB of
    /// contents and 16 MiB of metadata.
    #[arg(long, value_enum, default_value = "classes", env = "NFREEZER_PAD", help_heading = PROCESS,
        hide_short_help = true)]
    pub pad: Padding,
    /// Use the processor and the disk only if nothing else does, and fewer threads
    #[arg(long, help_heading = PROCESS, hide_short_help = true)]
    pub low_priority: bool,
    /// Leave out the rest of a network or FUSE file system that does not answer for this time
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "30s", help_heading = PROCESS,
        hide_short_help = true)]
    pub source_timeout: Duration,

    /// Save into this repository too, or instead of --repo if that is not given; may be repeated
    ///
    /// Each file is read once for all repositories. If one of them fails, the others are completed, and the exit code is 3.
    #[arg(long, value_name = "REPO", help_heading = "Target", conflicts_with = "parent", hide_short_help = true)]
    pub to: Vec<String>,
    #[command(flatten)]
    pub target: TargetArgs,

    #[command(flatten)]
    pub repository: OpenArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// Sizes of packs that are not full.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Padding {
    /// Classes of at most 25 %.
    Classes,
    /// The size of full packs.
    Full,
}

const LISTS: [&str; 3] = ["files_from", "files_from_verbatim", "files_from_raw"];

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("1s at least".into()),
        interval => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_needs_an_interval() {
        assert_eq!(interval("2m").unwrap().as_secs(), 120);
        interval("0").unwrap_err();
    }
}
