//! What all commands share: which repository, how to reach it, how to open it, how much to say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::access;
pub use super::access::open_to_write;
use super::passphrase::Terminal;
use super::{aside, show, signals};
use crate::error::{Error, Kind, Result};
use crate::repo::{Repository, State};
use crate::storage::{self, Location, Storage};

const REPOSITORY: &str = "Repository";
const LINE: &str = "SSH and the line";
const OUTPUT: &str = "Output";

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// The repository: user@host:/path, host:path (relative to home), sftp://user@host:port//path, or a local folder
    /// [env: NFREEZER_REPOSITORY]
    #[arg(short, long, global = true, value_name = "REPO", help_heading = REPOSITORY, conflicts_with = "repository_file")]
    pub repo: Option<String>,
    /// A file whose first line is the repository [env: NFREEZER_REPOSITORY_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = REPOSITORY)]
    pub repository_file: Option<PathBuf>,
    /// A file that holds the passphrase [env: NFREEZER_PASSWORD_FILE; the passphrase itself: NFREEZER_PASSWORD]
    #[arg(short, long, global = true, value_name = "FILE", help_heading = REPOSITORY)]
    pub password_file: Option<PathBuf>,
    /// A shell command that prints the passphrase [env: NFREEZER_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", help_heading = REPOSITORY)]
    pub password_command: Option<String>,
    /// How the repository is opened.
    #[command(flatten)]
    pub access: super::access::Args,
    /// An SSH key file, tried before the agent's and the usual ones
    #[arg(short, long, global = true, value_name = "FILE", help_heading = LINE)]
    pub identity: Vec<PathBuf>,
    /// The SSH port, if the address names none
    #[arg(long, global = true, help_heading = LINE, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Accept the key of a server that is not in known_hosts, and remember it; a changed key is refused all the same
    #[arg(long, global = true, help_heading = LINE)]
    pub accept_new_host_key: bool,
    /// Which program speaks SSH
    #[arg(long, global = true, value_enum, default_value_t, help_heading = LINE)]
    pub transport: Transport,
    /// SFTP channels at most
    #[arg(short, long, global = true, value_name = "N", help_heading = LINE,
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: Option<u16>,
    /// How long to go on reconnecting when a connection was lost: 90s, 15m, 2h; 0: not at all
    #[arg(long, global = true, value_name = "TIME", default_value = "15m", value_parser = duration,
        help_heading = LINE)]
    pub retry_for: Duration,
    /// Send at most so many bytes a second: 500K, 2M; a plain number counts KiB
    #[arg(long, global = true, value_name = "RATE", value_parser = rate, help_heading = REPOSITORY)]
    pub limit_upload: Option<u64>,
    /// Fetch at most so many bytes a second: 500K, 2M; a plain number counts KiB
    #[arg(long, global = true, value_name = "RATE", value_parser = rate, help_heading = REPOSITORY)]
    pub limit_download: Option<u64>,
    /// Further options: `sftp.command=COMMAND` runs COMMAND, which speaks SFTP, instead of ssh;
    /// `ssh.config=FILE` is read instead of ~/.ssh/config
    #[arg(short = 'o', long = "option", global = true, value_name = "KEY=VALUE", help_heading = LINE)]
    pub option: Vec<String>,
    /// One JSON object a line on standard output, the last one of type `summary` or `error`
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub json: bool,
    /// No progress and no summary
    #[arg(short, long, global = true, help_heading = OUTPUT)]
    pub quiet: bool,
    /// Name each file
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = OUTPUT)]
    pub verbose: u8,
}

/// Which program speaks SSH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// the built-in one, unless ~/.ssh/config needs what it cannot do
    #[default]
    Auto,
    /// the built-in one
    Ssh2,
    /// the system's ssh
    Openssh,
}

impl Common {
    /// The address of the repository, as the user wrote it.
    pub fn repository(&self) -> Result<String> {
        let both = |a: &str, b: &str| Error::new(Kind::Usage, format!("{a} and {b} are both given"));
        match (&self.repo, &self.repository_file) {
            (Some(_), Some(_)) => return Err(both("--repo", "--repository-file")),
            (Some(repo), None) => return Ok(repo.clone()),
            (None, Some(file)) => return first_line(file),
            (None, None) => {}
        }
        let env = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match (env("NFREEZER_REPOSITORY"), env("NFREEZER_REPOSITORY_FILE")) {
            (Some(_), Some(_)) => Err(both("NFREEZER_REPOSITORY", "NFREEZER_REPOSITORY_FILE")),
            (Some(repo), None) => {
                repo.into_string().map_err(|_| Error::new(Kind::Usage, "NFREEZER_REPOSITORY is not UTF-8"))
            }
            (None, Some(file)) => first_line(Path::new(&file)),
            (None, None) => Err(Error::new(Kind::Usage, "no repository is given")
                .hint("give -r REPO, for example -r user@host:/backups, or set NFREEZER_REPOSITORY")),
        }
    }

    /// Whether any repository is given.
    pub fn names_repository(&self) -> bool {
        self.repository().is_ok()
    }

    fn storage_options(&self) -> Result<storage::Options> {
        let json = self.json;
        let mut options = storage::Options {
            transport: match self.transport {
                Transport::Auto => storage::Transport::Auto,
                Transport::Ssh2 => storage::Transport::Ssh2,
                Transport::Openssh => storage::Transport::OpenSsh,
            },
            connections: self.connections.map(usize::from),
            identity: self.identity.clone(),
            port: self.port,
            accept_new_host_key: self.accept_new_host_key,
            retry_for: self.retry_for,
            limit_upload: self.limit_upload,
            limit_download: self.limit_download,
            prompt: Arc::new(Terminal),
            notice: Arc::new(move |text| aside::warning(json, text)),
            ..storage::Options::default()
        };
        for option in &self.option {
            match option.split_once('=') {
                Some(("sftp.command", command)) => options.ssh_command = Some(command.into()),
                Some(("ssh.config", file)) => options.ssh_config = Some(file.into()),
                Some(("sftp.connections", n)) => {
                    let n = n.parse().ok().filter(|n| (1..=64).contains(n));
                    options.connections = Some(n.ok_or_else(|| Error::new(Kind::Usage, "sftp.connections: 1 to 64"))?);
                }
                _ => {
                    let text = format!("unknown option -o {}", show::text(option.as_bytes()));
                    return Err(
                        Error::new(Kind::Usage, text).hint("known: sftp.command=, sftp.connections=, ssh.config=")
                    );
                }
            }
        }
        Ok(options)
    }
}

/// Opens the storage of the repository that is given; nothing is created.
pub fn open_storage(common: &Common) -> Result<Arc<dyn Storage>> {
    open_other_storage(common, &common.repository()?)
}

/// Opens the storage at another address, reached by the same options.
pub fn open_other_storage(common: &Common, address: &str) -> Result<Arc<dyn Storage>> {
    Ok(Arc::from(storage::open(signals::context(), &Location::parse(address)?, common.storage_options()?)?))
}

/// Opens the repository that is given, to read.
pub fn open_repository(common: &Common) -> Result<Repository> {
    open_repository_with(common, |_| ())
}

/// [`open_repository`] over a line for which something else holds than for other commands.
pub fn open_repository_with(common: &Common, change: impl FnOnce(&mut storage::Options)) -> Result<Repository> {
    let storage = |common: &Common| {
        let location = Location::parse(&common.repository()?)?;
        let mut options = common.storage_options()?;
        change(&mut options);
        Ok(Arc::from(storage::open(signals::context(), &location, options)?))
    };
    access::open(common, storage, false)
}

/// Reads the log and tells what a user should know about it.
pub fn read_state(repo: &Repository, out: &mut show::Output) -> Result<State> {
    let state = repo.state(signals::context())?;
    state.warnings().iter().try_for_each(|text| show::warning(out, text))?;
    out.flush().map(|()| state)
}

/// `latest:/etc` -> (`latest`, `/etc`); without a colon the path is empty.
pub fn snapshot_and_path(argument: &std::ffi::OsStr) -> Result<(String, Vec<u8>)> {
    let bytes = argument.as_encoded_bytes();
    let (snapshot, path) = match bytes.iter().position(|b| *b == b':') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let snapshot = if snapshot.is_empty() { b"latest" } else { snapshot };
    match std::str::from_utf8(snapshot) {
        Ok(snapshot) => Ok((snapshot.to_owned(), path.to_vec())),
        Err(_) => Err(Error::new(Kind::Usage, format!("not a snapshot: {}", show::text(snapshot)))),
    }
}

/// Whether this is how old calls wrote a remote folder: `user@host:/path`.
pub fn looks_remote(argument: &std::ffi::OsStr) -> bool {
    let bytes = argument.as_encoded_bytes();
    let at = bytes.iter().position(|b| *b == b'@');
    let colon = bytes.iter().position(|b| *b == b':');
    matches!((at, colon), (Some(at), Some(colon)) if at > 0 && at + 1 < colon && !bytes[..colon].contains(&b'/'))
}

fn first_line(file: &Path) -> Result<String> {
    let name = show::text(file.as_os_str().as_encoded_bytes());
    let text = std::fs::read_to_string(file).map_err(|e| Error::io(format!("read the repository file {name}"), e))?;
    let line = text.lines().next().unwrap_or_default().trim();
    match line.is_empty() {
        true => Err(Error::new(Kind::Usage, format!("the repository file {name} is empty"))),
        false => Ok(line.to_owned()),
    }
}

/// `90s`, `15m`, `2h`, `1d`; a plain number counts seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err("write 90s, 15m, 2h or 1d".into()),
    };
    let number = digits.parse::<u64>().map_err(|_| "write 90s, 15m, 2h or 1d".to_owned())?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(|| "too long".into())
}

/// `256M`, `1G`, `512MiB`: bytes, in powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "write a size such as 256M or 1G".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(wrong)
}

/// `500K`, `2M`: bytes a second; a plain number counts KiB, as in restic.
pub fn rate(text: &str) -> Result<u64, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let rate = size(&if plain { format!("{text}K") } else { text.into() });
    match rate {
        Ok(0) => Err("a limit of 0 would let nothing through".into()),
        other => other.map_err(|_| "write 500K or 2M, or a number of KiB a second".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_with_units() {
        let sizes = ["256M", "1G", "512MiB", "64mb", "7", "1k"].map(|s| size(s).unwrap());
        assert_eq!(sizes, [256 << 20, 1 << 30, 512 << 20, 64 << 20, 7, 1024]);
        for bad in ["", "M", "-1M", "1.5G", "1X", "99999999999T"] {
            size(bad).unwrap_err();
        }
        assert_eq!(["90", "90s", "15m", "2h"].map(|d| duration(d).unwrap().as_secs()), [90, 90, 900, 7200]);
        for bad in ["", "m", "1w", "1h30m"] {
            duration(bad).unwrap_err();
        }
    }

    #[test]
    fn rates_count_kib_unless_they_say_otherwise() {
        assert_eq!(["500K", "2M", "100", "1MiB"].map(|s| rate(s).unwrap()), [500 << 10, 2 << 20, 100 << 10, 1 << 20]);
        for bad in ["", "0", "0M", "fast", "-1", "1.5M"] {
            rate(bad).unwrap_err();
        }
    }

    #[test]
    fn a_snapshot_is_parted_from_its_path_at_the_first_colon() {
        let split = |s: &str| snapshot_and_path(s.as_ref()).unwrap();
        assert_eq!(split("latest"), ("latest".into(), b"".to_vec()));
        assert_eq!(split("ab12:/a:b"), ("ab12".into(), b"/a:b".to_vec()));
        assert_eq!(split(":/etc"), ("latest".into(), b"/etc".to_vec()));
    }

    #[test]
    fn old_addresses_are_known_and_snapshots_are_not_taken_for_them() {
        let remote = |s: &str| looks_remote(s.as_ref());
        assert!(remote("user@host:/path") && remote("u@h:path"));
        assert!(!["latest", "latest:/a@b:c", "/x@y:z", "@:", "a@b", "abcd1234:/home/a@b"].into_iter().any(remote));
    }
}
