//! Groups of options. A command flattens the groups that it uses, so an option exists only where it has an effect.
//!
//! In: the command line. Out: plain values. The first line of each text is the one that `-h` shows; `hide_short_help`
//! marks the options that only `--help` lists.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::environment::{self, variable};
use super::values::{duration, limit, size};
use super::{escape, lists, warnings};
use crate::error::{Error, Kind, Result};
use crate::seen::SeenStore;
use crate::storage::{CacheFolder, LEAST_DISK_CACHE, Limit};

const REPOSITORY: &str = "Repository";
const CONNECTION: &str = "Connection";
const OUTPUT: &str = "Output";

/// Default size of the disk cache in bytes: the metadata of a repository with about 20 million files.
const CAPACITY: u64 = 1 << 30;

/// The address of the repository.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct AddressArgs {
    /// The repository: user@host:/path, or a local folder
    ///
    /// Forms: user@host:/path, host:path (relative to the home folder), sftp://user@host:port//path, s3://host/bucket/folder, rclone:REMOTE:path, or a local folder.
    /// [env: NFREEZER_REPOSITORY]
    #[arg(short, long, value_name = "REPO", help_heading = REPOSITORY, conflicts_with = "repository_file")]
    pub repo: Option<String>,
    /// Read the address of the repository from the first line of FILE [env: NFREEZER_REPOSITORY_FILE]
    #[arg(long, value_name = "FILE", help_heading = REPOSITORY, hide_short_help = true)]
    pub repository_file: Option<PathBuf>,
}

/// The repository to which options and variables belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The one of `--repo`.
    #[default]
    Main,
    /// The one of `--to`.
    Target,
    /// The one of `--to` if none is given by `--repo`, and it has no passphrase of its own.
    Alone,
}

/// Sources of the passphrase, and the second factor.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SecretArgs {
    /// The repository that they open.
    #[arg(skip)]
    pub role: Role,
    /// Read the passphrase from FILE
    ///
    /// One newline at the end is removed. [env: NFREEZER_PASSWORD_FILE; the passphrase itself: NFREEZER_PASSWORD]
    #[arg(short, long, value_name = "FILE", help_heading = REPOSITORY)]
    pub password_file: Option<PathBuf>,
    /// Read the passphrase from the output of a shell command [env: NFREEZER_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", help_heading = REPOSITORY, hide_short_help = true)]
    pub password_command: Option<String>,
    /// A second factor: a file with 32 random bytes
    ///
    /// Opening the repository then needs this file and the passphrase. `init` creates the file if it does not exist.
    /// [env: NFREEZER_LOCAL_KEY]
    #[arg(long, value_name = "FILE", help_heading = REPOSITORY, hide_short_help = true)]
    pub local_key: Option<PathBuf>,
}

/// Whether this machine remembers the newest heads of the repository.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SeenArgs {
    /// Neither use nor update the newest records that this machine remembers [env: NFREEZER_NO_MEMORY=1]
    #[arg(long, help_heading = REPOSITORY, hide_short_help = true)]
    pub no_memory: bool,
}

/// The disk cache.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct CacheArgs {
    /// Keep encrypted blocks of the repository in DIR, so that they are fetched once
    ///
    /// The folder is made if it does not exist, and may be deleted at any time. `check`, `repair` and `prune` read past it.
    /// [env: NFREEZER_CACHE]
    #[arg(long, value_name = "DIR", help_heading = REPOSITORY, hide_short_help = true)]
    pub cache: Option<PathBuf>,
    /// Size of that folder: 64M at least, 1G by default [env: NFREEZER_CACHE_SIZE]
    #[arg(long, value_name = "SIZE", value_parser = cache_size, help_heading = REPOSITORY, hide_short_help = true)]
    pub cache_size: Option<u64>,
    /// The command reads past the cache.
    #[arg(skip)]
    pub is_bypassed: bool,
}

/// Options of every command that opens a repository.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct OpenArgs {
    /// The address.
    #[command(flatten)]
    pub address: AddressArgs,
    /// The passphrase.
    #[command(flatten)]
    pub secret: SecretArgs,
    /// Use an exported key file instead of the ones on the server
    ///
    /// FILE is the page that `key export` made, its lines typed in, or the text of its QR code.
    #[arg(long, value_name = "FILE", help_heading = REPOSITORY, hide_short_help = true)]
    pub key_file: Option<PathBuf>,
    /// The remembered heads.
    #[command(flatten)]
    pub seen: SeenArgs,
    /// Fail unless the repository contains this record
    ///
    /// ID is the `head` of the receipt that a push printed. [env: NFREEZER_EXPECT_HEAD]
    #[arg(long, value_name = "ID", help_heading = REPOSITORY, hide_short_help = true)]
    pub expect_head: Option<String>,
    /// The disk cache.
    #[command(flatten)]
    pub cache: CacheArgs,
    /// The connection.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Options of every command that reads a repository and writes nothing to it.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ReadArgs {
    /// Everything that a command needs to open it.
    #[command(flatten)]
    pub open: OpenArgs,
    /// Read the repository although it is older than before, or another one
    #[arg(long, help_heading = REPOSITORY, hide_short_help = true)]
    pub accept_rollback: bool,
}

/// Options for the login by SSH.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SshArgs {
    /// An SSH key file
    ///
    /// It is tried before the keys of the agent and the usual key files.
    #[arg(short, long, value_name = "FILE", help_heading = REPOSITORY)]
    pub identity: Vec<PathBuf>,
    /// The SSH port, if the address contains none
    #[arg(long, help_heading = CONNECTION, hide_short_help = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Accept and store the host key of a server that is not in known_hosts
    ///
    /// A host key that differs from the stored one is still refused.
    #[arg(long, help_heading = CONNECTION, hide_short_help = true)]
    pub accept_new_host_key: bool,
    /// `ssh.config=FILE`, `sftp.command=COMMAND`
    ///
    /// `ssh.config=FILE` replaces ~/.ssh/config. `sftp.command=COMMAND` runs COMMAND, which speaks SFTP, instead of ssh.
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", help_heading = CONNECTION, hide_short_help = true)]
    pub option: Vec<String>,
}

/// Options for the connection to the server.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConnectionArgs {
    /// The login.
    #[command(flatten)]
    pub ssh: SshArgs,
    /// The SSH program
    #[arg(long, value_enum, default_value_t, help_heading = CONNECTION, hide_short_help = true)]
    pub transport: TransportArg,
    /// Maximum number of SFTP channels
    #[arg(short, long, value_name = "N", help_heading = CONNECTION, hide_short_help = true,
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: Option<u16>,
    /// Try to connect for this long: 90s, 1h30m; 0 disables it
    ///
    /// Applies when a connection was lost (by default for 15m) and, if it is given, to the first connection.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = CONNECTION, hide_short_help = true)]
    pub retry_for: Option<Duration>,
    /// Limit the upload per second: 500K, 1.5M; by time: `08:00,2M 19:00,off`
    ///
    /// A plain number counts KiB.
    #[arg(long, value_name = "RATE", value_parser = limit, help_heading = CONNECTION, hide_short_help = true)]
    pub limit_upload: Option<Limit>,
    /// Limit the download per second, like the upload
    #[arg(long, value_name = "RATE", value_parser = limit, help_heading = CONNECTION, hide_short_help = true)]
    pub limit_download: Option<Limit>,
}

/// The SSH program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TransportArg {
    /// the built-in one, unless ~/.ssh/config needs more than it supports
    #[default]
    Auto,
    /// the built-in one
    Ssh2,
    /// the system's ssh
    Openssh,
}

/// Options of commands whose only choice is the form of the output.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct JsonArgs {
    /// Print JSON objects, one per line
    ///
    /// The last object has the type `summary` or `error`.
    #[arg(long, help_heading = OUTPUT, hide_short_help = true)]
    pub json: bool,
}

/// Options of every command that opens a repository: how much it prints.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// Print JSON objects, one per line
    ///
    /// The last object has the type `summary` or `error`.
    #[arg(long, help_heading = OUTPUT, hide_short_help = true)]
    pub json: bool,
    /// No progress and no summary
    #[arg(short, long, help_heading = OUTPUT)]
    pub quiet: bool,
}

/// Options of commands that process files.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct ProgressArgs {
    /// The form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Name each file; twice: unchanged files too
    #[arg(short, long, help_heading = OUTPUT, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl AddressArgs {
    /// Returns the address of the repository as the user wrote it.
    pub fn get(&self) -> Result<String> {
        match (&self.repo, &self.repository_file) {
            (Some(_), Some(_)) => return Err(both_given("--repo", "--repository-file")),
            (Some(repo), None) => return Ok(repo.clone()),
            (None, Some(file)) => return first_line(file),
            (None, None) => {}
        }
        match (variable("NFREEZER_REPOSITORY"), variable("NFREEZER_REPOSITORY_FILE")) {
            (Some(_), Some(_)) => Err(both_given("NFREEZER_REPOSITORY", "NFREEZER_REPOSITORY_FILE")),
            (Some(repo), None) => {
                repo.into_string().map_err(|_| Error::new(Kind::Usage, "NFREEZER_REPOSITORY is not UTF-8"))
            }
            (None, Some(file)) => first_line(Path::new(&file)),
            (None, None) => Err(Error::new(Kind::Usage, "no repository is given")
                .hint("add -r REPO, for example -r user@host:/backups, or set NFREEZER_REPOSITORY")),
        }
    }

    /// Reports whether any repository is given.
    pub fn is_given(&self) -> bool {
        self.get().is_ok()
    }

    /// Reports whether neither an option nor a variable names a repository.
    pub fn is_absent(&self) -> bool {
        let variables = ["NFREEZER_REPOSITORY", "NFREEZER_REPOSITORY_FILE"];
        self.repo.is_none() && self.repository_file.is_none() && !variables.iter().any(|name| variable(name).is_some())
    }
}

fn both_given(a: &str, b: &str) -> Error {
    Error::new(Kind::Usage, format!("{a} and {b} are both given")).hint("give one of them")
}

fn first_line(file: &Path) -> Result<String> {
    let name = escape::path(file);
    let bytes = std::fs::read(file).map_err(|e| Error::io(format!("read the repository file {name}"), e))?;
    lists::refuse_wide(&bytes, file)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Usage, format!("the repository file {name} is not UTF-8")))?;
    let line = text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(Error::new(Kind::Usage, format!("the repository file {name} is empty"))
            .hint("write the address of the repository into its first line"));
    }
    Ok(line.to_owned())
}

impl SecretArgs {
    /// Returns the path of the local key.
    pub fn local_key_path(&self) -> Option<PathBuf> {
        let name = match self.role {
            Role::Main | Role::Alone => "NFREEZER_LOCAL_KEY",
            Role::Target => "NFREEZER_TO_LOCAL_KEY",
        };
        self.local_key.clone().or_else(|| variable(name).map(PathBuf::from))
    }
}

impl SeenArgs {
    /// Returns the store of seen heads, in the folder for state. None if it is switched off or there is no such folder.
    pub fn store(&self) -> Option<SeenStore> {
        if self.is_off() {
            return None;
        }
        environment::state_folder().map(SeenStore::at)
    }

    /// Reports whether nothing is to be remembered.
    pub fn is_off(&self) -> bool {
        self.no_memory || variable("NFREEZER_NO_MEMORY").is_some_and(|value| value != "0")
    }
}

impl CacheArgs {
    /// Returns the folder, if one is given. A folder that cannot be made is a warning.
    pub fn folder(&self, json: bool) -> Result<Option<CacheFolder>> {
        let Some(dir) = self.path() else {
            return match self.cache_size.filter(|_| !self.is_bypassed) {
                Some(_) => Err(Error::new(Kind::Usage, "--cache-size: no cache is given").hint("add --cache DIR")),
                None => Ok(None),
            };
        };
        // A mount in the background leaves the folder it was started in.
        let dir = std::path::absolute(dir).map_err(|e| Error::io("find the folder of the cache", e))?;
        let notice = Arc::new(move |text: &str| warnings::warn(json, text));
        match CacheFolder::open(&dir, self.capacity()?, notice) {
            Err(e) if e.kind() != Kind::Usage => {
                warnings::warn(json, &format!("{e}: this run continues without a cache"));
                Ok(None)
            }
            folder => folder.map(Some),
        }
    }

    /// Returns the path of the cache, if there is one.
    pub fn path(&self) -> Option<PathBuf> {
        let path = self.cache.clone().or_else(|| variable("NFREEZER_CACHE").map(PathBuf::from));
        path.filter(|_| !self.is_bypassed)
    }

    fn capacity(&self) -> Result<u64> {
        let of_environment = |text: OsString| {
            cache_size(&text.to_string_lossy())
                .map_err(|why| Error::new(Kind::Usage, format!("NFREEZER_CACHE_SIZE: {why}")))
        };
        let given = self.cache_size.map(Ok).or_else(|| variable("NFREEZER_CACHE_SIZE").map(of_environment));
        given.unwrap_or(Ok(CAPACITY))
    }
}

/// Parses the size of the disk cache.
fn cache_size(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    let least = LEAST_DISK_CACHE >> 20;
    if bytes < LEAST_DISK_CACHE { Err(format!("the cache needs at least {least}M")) } else { Ok(bytes) }
}

impl OpenArgs {
    /// Returns these options without the disk cache, for commands that judge what the server has.
    pub fn past_cache(&self) -> OpenArgs {
        OpenArgs { cache: CacheArgs { is_bypassed: true, ..self.cache.clone() }, ..self.clone() }
    }

    /// Returns the first 8 bytes of the id of the record that must exist.
    pub fn expected_head(&self) -> Result<Option<u64>> {
        let id = variable("NFREEZER_EXPECT_HEAD").filter(|_| self.secret.role == Role::Main);
        let variable = || id.map(|id| id.to_string_lossy().into_owned());
        self.expect_head.clone().or_else(variable).map(|id| head(&id)).transpose()
    }
}

/// Returns the first 8 bytes of an id of 16 to 64 hex digits.
fn head(text: &str) -> Result<u64> {
    let digits = text.trim();
    let is_id = (16..=64).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit());
    let prefix = is_id.then(|| u64::from_str_radix(&digits[..16], 16).ok()).flatten();
    prefix.ok_or_else(|| {
        Error::new(Kind::Usage, format!("--expect-head: {} is not the id of a record", escape::text(text.as_bytes())))
            .hint("give the 16 digits behind `head` in the receipt of a push (--expect-head or NFREEZER_EXPECT_HEAD)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_given_by_the_digits_of_a_receipt() {
        assert_eq!(head("0123456789abcdef").unwrap(), 0x0123_4567_89ab_cdef);
        assert_eq!(head(&"f".repeat(64)).unwrap(), u64::MAX);
        for bad in ["", "0123", "0123456789abcdeg", &"f".repeat(65), "+123456789abcdef"] {
            assert_eq!(head(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
