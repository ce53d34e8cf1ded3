//! The file of a local key: the second factor that opens a repository together with the passphrase.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::private_files::read_private;
use super::{escape, standard};
use crate::crypto::keys::LocalKey;
use crate::error::{Error, Kind, Result};
use crate::name::{ObjectId, hex};
use crate::repo::random;

/// First word of the file.
const MAGIC: &str = "nfreezer-local-key-1";

/// Reads a local key.
pub fn read(path: &Path) -> Result<LocalKey> {
    let name = escape::path(path);
    if standard::is_input_path(path) {
        standard::claim_input_again(&standard::named("--local-key", path))?;
    }
    let text = read_private(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::new(Kind::Usage, format!("the local key {name} does not exist"))
            .hint("look for a copy of it: without it no passphrase opens the repository"),
        _ => Error::io(format!("read the local key {name}"), e),
    })?;
    parse(&text).ok_or_else(|| {
        Error::new(Kind::Usage, format!("{name} is not a local key, or it is damaged"))
            .hint("give the file that `nfreezer init --local-key FILE` made, or a copy of it")
    })
}

fn parse(text: &[u8]) -> Option<LocalKey> {
    let words: Vec<&str> = std::str::from_utf8(text).ok()?.split_whitespace().collect();
    let [magic, digits, sum] = words.as_slice() else { return None };
    let key = ObjectId::parse(digits).map(|id| Zeroizing::new(id.0))?;
    (*magic == MAGIC && *sum == checksum(key.as_slice())).then(|| LocalKey::new(*key))
}

/// Reads a local key, or makes it if it does not exist. An existing file is never overwritten. Returns whether it was made.
pub fn read_or_make(path: &Path) -> Result<(LocalKey, bool)> {
    let key = Zeroizing::new(random::<32>()?);
    let line = Zeroizing::new(format!("{MAGIC} {} {}\n", hex(key.as_slice()), checksum(key.as_slice())));
    let failed = |e| Error::io(format!("make the local key {}", escape::path(path)), e);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => read(path).map(|key| (key, false)),
        Err(e) => Err(failed(e)),
        Ok(mut file) => {
            file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok((LocalKey::new(*key), true))
        }
    }
}

/// 8 hex digits of SHA-256.
fn checksum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_key_is_made_once_and_never_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert_eq!(read(&path).unwrap_err().kind(), Kind::Usage);
        let (key, made) = read_or_make(&path).unwrap();
        assert!(made && path.metadata().unwrap().permissions().mode() & 0o777 == 0o600);
        let (again, made) = read_or_make(&path).unwrap();
        assert!(!made && again.expose() == key.expose());
        std::fs::write(&path, "my letters\n").unwrap();
        assert_eq!(read_or_make(&path).unwrap_err().kind(), Kind::Usage);
        assert_eq!(std::fs::read(&path).unwrap(), b"my letters\n");
    }
}
