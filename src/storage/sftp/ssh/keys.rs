//! Looks at key files without reading their secrets: is one encrypted, which public key belongs to it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64ct::{Base64Unpadded, Encoding};
use zeroize::Zeroizing;

use super::known_hosts::{decode_base64, kind};
use crate::error::{Error, Kind, Result};
use crate::storage::sftp::packet::Cursor;

/// Larger files are no keys.
const LARGEST: u64 = 64 << 10;

/// Whether a key file needs a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Can be used as it is.
    Open,
    /// Needs a passphrase.
    Encrypted,
}

/// A key that may log in, as far as it is known without its secret.
pub struct Key {
    /// The file of the private half, or the configured file if there is none.
    pub file: PathBuf,
    /// The public half, as SSH sends it.
    pub public: Option<Vec<u8>>,
    /// Whether the private half needs a passphrase; `None` if it is not in a file.
    pub lock: Option<Lock>,
}

impl Key {
    /// Looks at a configured key file. It may be a public half, with or without the private one beside it.
    pub fn read(file: &Path) -> Key {
        let public = public_half(file);
        let private = file.to_str().and_then(|name| name.strip_suffix(".pub")).map(PathBuf::from);
        let file = match private.filter(|private| private.exists() && text(file).is_some_and(|t| lock(&t).is_none())) {
            Some(private) => private,
            None => file.to_path_buf(),
        };
        let lock = text(&file).and_then(|text| lock(&text));
        Key { file, public, lock }
    }

    /// Returns whether other users may read the private half. As for OpenSSH, only the mode of an own file counts.
    pub fn is_exposed(&self) -> bool {
        let own = rustix::process::getuid().as_raw();
        let is_open = |meta: std::fs::Metadata| meta.uid() == own && meta.mode() & 0o077 != 0;
        self.lock.is_some() && self.file.metadata().is_ok_and(is_open)
    }
}

/// Fails if a key file that the user names cannot be used: it would be passed over without a word.
pub fn check_named(files: &[PathBuf]) -> Result<()> {
    for file in files {
        if let Some(why) = fault(file) {
            return Err(Error::new(Kind::Usage, format!("the SSH key {} cannot be used: {why}", file.display()))
                .hint("-i takes the file of a private key, such as ~/.ssh/id_ed25519, or its public half if an agent holds the key"));
        }
        let key = Key::read(file);
        if key.is_exposed() {
            let name = key.file.display();
            let text = format!("other users of this machine may read the SSH key {name}, so it is not used");
            return Err(Error::new(Kind::Usage, text)
                .hint(format!("`chmod 600 {name}` makes it private; OpenSSH refuses such a key too")));
        }
    }
    Ok(())
}

/// Returns why a file holds no key. A file that does not exist is none if its public half lies beside it: an agent may have
/// the private one.
pub fn fault(file: &Path) -> Option<String> {
    let size = match file.metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return public_half(file).is_none().then(|| "it does not exist".into());
        }
        Err(e) => return Some(e.to_string()),
        Ok(meta) if meta.is_dir() => return Some("it is a folder".into()),
        Ok(meta) => meta.len(),
    };
    if let Err(e) = File::open(file) {
        return Some(format!("it cannot be read: {e}"));
    }
    let key = Key::read(file);
    let is_key = key.lock.is_some() || size > 0 && key.public.is_some();
    let why = if size == 0 { "it is empty" } else { "it is not a key in a format of OpenSSH or PEM" };
    (!is_key).then(|| why.into())
}

/// Returns whether a private key is encrypted; `None` if it is no private key.
pub fn lock(text: &str) -> Option<Lock> {
    let begin = text.lines().map(str::trim).find(|line| line.starts_with("-----BEGIN "))?;
    if !begin.contains("PRIVATE KEY") {
        return None;
    }
    let encrypted = if begin.contains("OPENSSH") {
        let bytes = openssh(text)?;
        head(&bytes)?.0 != b"none"
    } else {
        begin.contains("ENCRYPTED") || text.contains("Proc-Type: 4,ENCRYPTED")
    };
    Some(if encrypted { Lock::Encrypted } else { Lock::Open })
}

/// Returns the public half that belongs to a key file, as SSH sends it: the file itself, a part of it, or the file beside it.
pub fn public_half(file: &Path) -> Option<Vec<u8>> {
    let own = text(file).and_then(|text| public(&text).or_else(|| head(&openssh(&text)?).map(|(_, key)| key.to_vec())));
    own.or_else(|| public(&text(&beside(file, ".pub"))?))
}

/// Returns a public half in the form of `authorized_keys`.
pub fn public_line(key: &[u8]) -> String {
    format!("{} {}", kind(key), Base64Unpadded::encode_string(key))
}

/// Reads `kind base64 comment`.
fn public(text: &str) -> Option<Vec<u8>> {
    let mut words = text.split_whitespace();
    let (name, key) = (words.next()?, decode_base64(words.next()?)?);
    (kind(&key) == name).then_some(key)
}

/// Decodes the body of a private key in OpenSSH's format.
fn openssh(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("-----BEGIN OPENSSH PRIVATE KEY"));
    lines.next()?;
    let body: String = lines.take_while(|line| !line.starts_with("-----")).collect();
    decode_base64(&Zeroizing::new(body)).map(Zeroizing::new)
}

/// Returns the cipher and the public half, which are in clear: `magic cipher kdf options count public ..`.
fn head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = Cursor::new(bytes.strip_prefix(b"openssh-key-v1\0")?);
    let cipher = from.string().ok()?;
    let (_kdf, _options, _count) = (from.string().ok()?, from.string().ok()?, from.u32().ok()?);
    Some((cipher, from.string().ok()?))
}

/// Reads a file as text, if it may be a key.
fn text(file: &Path) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(file).ok()?.take(LARGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Returns the file of this name with something added to it.
pub fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use base64ct::Base64;

    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
    }

    fn openssh_key(cipher: &[u8], public: &[u8]) -> String {
        let parts = [string(cipher), string(b"bcrypt"), string(b"salt"), vec![0, 0, 0, 1], string(public), vec![0; 40]];
        let bytes = [b"openssh-key-v1\0", parts.concat().as_slice()].concat();
        let body = Base64::encode_string(&bytes);
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
    }

    #[test]
    fn a_named_file_that_is_no_usable_key_is_refused_with_its_reason() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str, mode| {
            std::fs::write(at(name), text).expect("written");
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).expect("changed");
        };
        let key = openssh_key(b"none", &[string(b"ssh-ed25519"), string(&[7; 32])].concat());
        write("empty", "", 0o600);
        write("letter", "dear me", 0o600);
        write("exposed", &key, 0o644);
        write("key", &key, 0o600);
        std::fs::create_dir(at("folder")).expect("made");
        for (name, reason) in [
            ("none", "it does not exist"),
            ("folder", "it is a folder"),
            ("empty", "it is empty"),
            ("letter", "it is not a key"),
            ("exposed", "other users of this machine may read"),
        ] {
            let error = check_named(&[at("key"), at(name)]).expect_err(name);
            assert!(error.to_string().contains(reason) && error.to_string().contains(name), "{error}");
            assert_eq!(error.kind(), Kind::Usage);
        }
        write("gone.pub", &public_line(&[string(b"ssh-ed25519"), string(&[7; 32])].concat()), 0o644);
        check_named(&[at("key"), at("gone"), at("gone.pub")]).expect("an agent may hold the private half");
    }

    #[test]
    fn encrypted_keys_are_told_from_open_ones() {
        assert_eq!(lock(&openssh_key(b"none", b"")), Some(Lock::Open));
        assert_eq!(lock(&openssh_key(b"aes256-ctr", b"")), Some(Lock::Encrypted));
        assert_eq!(lock("-----BEGIN ENCRYPTED PRIVATE KEY-----\nx"), Some(Lock::Encrypted));
        assert_eq!(lock("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"), Some(Lock::Encrypted));
        assert_eq!(lock("-----BEGIN EC PRIVATE KEY-----\nx"), Some(Lock::Open));
        assert_eq!(lock("ssh-ed25519 AAAA"), None);
    }

    #[test]
    fn the_public_half_is_found_in_either_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (private, public) = (folder.path().join("x"), folder.path().join("x.pub"));
        let key = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
        std::fs::write(&private, openssh_key(b"aes256-ctr", &key)).expect("written");
        assert_eq!(public_half(&private), Some(key.clone()));
        std::fs::write(&private, "-----BEGIN EC PRIVATE KEY-----\nx").expect("written");
        assert_eq!(public_half(&private), None);
        std::fs::write(&public, format!("{} me@home\n", public_line(&key))).expect("written");
        for name in [&private, &public] {
            let found = Key::read(name);
            assert_eq!((found.file, found.public, found.lock), (private.clone(), Some(key.clone()), Some(Lock::Open)));
        }
        std::fs::remove_file(&private).expect("removed");
        let found = Key::read(&public);
        assert_eq!((found.file, found.public, found.lock), (public, Some(key.clone()), None));
        assert_eq!(Key::read(&private).public, Some(key), "the agent may have the other half");
    }
}
