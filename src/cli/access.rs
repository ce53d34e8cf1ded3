//! How a command opens the repository: with what this machine remembers of it, with a second factor, with a key file of the
//! user's own.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use zeroize::Zeroizing;

use super::common::{Common, open_storage};
use super::{OK, TAMPERING, paper_key, passphrase, show, signals};
use crate::crypto::keys::LocalKey;
use crate::error::{Error, Kind, Result};
use crate::name::hex;
use crate::repo::{Access, Alarm, Repository, random};
use crate::seen::SeenStore;
use crate::storage::{Dry, Storage};

/// What a local key begins with.
const LOCAL_KEY: &str = "nfreezer-local-key-1";
const REPOSITORY: &str = "Repository";

/// Options for all commands.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Args {
    /// A file with 32 random bytes that opening the repository needs beside the passphrase; `init` makes it if it is
    /// not there [env: NFREEZER_LOCAL_KEY]
    #[arg(long, global = true, value_name = "FILE", help_heading = REPOSITORY)]
    pub local_key: Option<PathBuf>,
    /// A key file that was exported by `key export` (the page, or its lines typed in), instead of those on the server
    #[arg(long, global = true, value_name = "FILE", help_heading = REPOSITORY)]
    pub key_file: Option<PathBuf>,
    /// Neither use nor write the memory of the newest heads [env: NFREEZER_NO_MEMORY=1]
    #[arg(long, global = true, help_heading = REPOSITORY)]
    pub no_memory: bool,
    /// A record that must be there, as a `push` printed it in its receipt [env: NFREEZER_EXPECT_HEAD]
    #[arg(long, global = true, value_name = "ID", help_heading = REPOSITORY)]
    pub expect_head: Option<String>,
    /// Read what the server shows although it is older than what was seen, or another repository
    #[arg(long, global = true, help_heading = REPOSITORY)]
    pub accept_rollback: bool,
}

fn alarm() -> &'static Alarm {
    static ALARM: OnceLock<Alarm> = OnceLock::new();
    ALARM.get_or_init(Alarm::default)
}

/// The exit code of a command that would end with `code`: 15 if all went well but for what the log lacks.
pub fn exit_code(code: u8) -> u8 {
    if code == OK && alarm().load(Relaxed) { TAMPERING } else { code }
}

/// Opens the repository to write, or with `dry` to see what would be written. Nothing is written to an older state.
pub fn open_to_write(common: &Common, dry: bool) -> Result<Repository> {
    if common.access.accept_rollback {
        let text = "--accept-rollback is for commands that only read";
        return Err(Error::new(Kind::Usage, text)
            .hint("if the repository was put back on purpose, remove the file that the error names"));
    }
    let storage = |common: &Common| {
        let storage = open_storage(common)?;
        Ok(if dry { std::sync::Arc::new(Dry::new(storage)) as _ } else { storage })
    };
    open(common, storage, dry)
}

/// Opens the repository on this storage.
pub fn open(
    common: &Common,
    storage: impl FnOnce(&Common) -> Result<std::sync::Arc<dyn Storage>>,
    trial: bool,
) -> Result<Repository> {
    passphrase::check_sources(common)?;
    let access = Access { trial, ..access(common)? };
    let repo =
        Repository::open_with(signals::context(), storage(common)?, &access, || passphrase::of_repository(common))?;
    if repo.is_stranger() && !common.quiet && !common.json {
        show::notice(
            "nfreezer: no local memory of this repository yet: whether its newest snapshots are shown cannot be verified",
        );
    }
    Ok(repo)
}

/// What the options and the environment say about it.
pub fn access(common: &Common) -> Result<Access> {
    let env = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let expect = match (&common.access.expect_head, env("NFREEZER_EXPECT_HEAD")) {
        (Some(id), _) => Some(id.clone()),
        (None, Some(id)) => Some(id.to_string_lossy().into_owned()),
        (None, None) => None,
    };
    let local_key = common.access.local_key.clone().or_else(|| env("NFREEZER_LOCAL_KEY").map(PathBuf::from));
    Ok(Access {
        seen: seen_store(common),
        trial: false,
        accept_rollback: common.access.accept_rollback,
        expect_head: expect.map(|id| head(&id)).transpose()?,
        local_key: local_key.map(|path| read_local_key(&path)).transpose()?,
        key_file: common.access.key_file.as_deref().map(paper_key::read).transpose()?,
        alarm: alarm().clone(),
    })
}

/// `$XDG_STATE_HOME/nfreezer`, else `~/.local/state/nfreezer`; none if it is not wanted or nobody has a home.
pub fn seen_store(common: &Common) -> Option<SeenStore> {
    let env = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if common.access.no_memory || env("NFREEZER_NO_MEMORY").is_some_and(|value| value != "0") {
        return None;
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = env("XDG_STATE_HOME").map(PathBuf::from).filter(absolute);
    let home = || env("HOME").map(PathBuf::from).filter(absolute).map(|home| home.join(".local/state"));
    Some(SeenStore::at(state.or_else(home)?.join("nfreezer")))
}

/// The first 8 bytes of an id that is given by 16 to 64 hex digits.
fn head(text: &str) -> Result<u64> {
    let digits = text.trim();
    let fine = (16..=64).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit());
    let prefix = fine.then(|| u64::from_str_radix(&digits[..16], 16).ok()).flatten();
    let wrong = "--expect-head (NFREEZER_EXPECT_HEAD) takes the 16 digits behind `head` in the receipt of a push";
    prefix.ok_or_else(|| Error::new(Kind::Usage, wrong))
}

/// The local key in a file.
pub fn read_local_key(path: &Path) -> Result<LocalKey> {
    let name = show::text(path.as_os_str().as_encoded_bytes());
    let text = passphrase::read_private(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::new(Kind::Usage, format!("the local key {name} is not there"))
            .hint("without it no passphrase opens the repository; look for a copy of it"),
        _ => Error::io(format!("read the local key {name}"), e),
    })?;
    let wrong = || Error::new(Kind::Usage, format!("{name} is not a local key, or it is damaged"));
    let text = std::str::from_utf8(&text).map_err(|_| wrong())?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let [magic, digits, sum] = words.as_slice() else { return Err(wrong()) };
    let key = crate::name::ObjectId::parse(digits).map(|id| Zeroizing::new(id.0)).ok_or_else(wrong)?;
    match *magic == LOCAL_KEY && *sum == paper_key::sum(key.as_slice()) {
        true => Ok(LocalKey::new(*key)),
        false => Err(wrong()),
    }
}

/// The local key in a file, which is made if it is not there. Nothing that is there is overwritten.
pub fn make_local_key(path: &Path) -> Result<(LocalKey, bool)> {
    let name = show::text(path.as_os_str().as_encoded_bytes());
    let key = Zeroizing::new(random::<32>()?);
    let line = Zeroizing::new(format!("{LOCAL_KEY} {} {}\n", hex(key.as_slice()), paper_key::sum(key.as_slice())));
    let failed = |e| Error::io(format!("make the local key {name}"), e);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => read_local_key(path).map(|key| (key, false)),
        Err(e) => Err(failed(e)),
        Ok(mut file) => {
            file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok((LocalKey::new(*key), true))
        }
    }
}

/// At most this many bytes of a file; more is not what was meant.
pub fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "too long")),
        false => Ok(bytes),
    }
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

    #[test]
    fn a_local_key_is_made_once_and_never_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert_eq!(read_local_key(&path).unwrap_err().kind(), Kind::Usage);
        let (key, made) = make_local_key(&path).unwrap();
        assert!(made && path.metadata().unwrap().permissions().mode() & 0o777 == 0o600);
        let (again, made) = make_local_key(&path).unwrap();
        assert!(!made && again.expose() == key.expose());
        std::fs::write(&path, "my letters\n").unwrap();
        assert_eq!(make_local_key(&path).unwrap_err().kind(), Kind::Usage);
        assert_eq!(std::fs::read(&path).unwrap(), b"my letters\n");
    }
}
