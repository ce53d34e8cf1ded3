//! Looks at private key files without reading their secrets: is one encrypted, which public key belongs to it.

use std::fs;
use std::path::{Path, PathBuf};

use super::known_hosts::decode_base64;

/// Whether a key file needs a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Can be used as it is.
    Open,
    /// Needs a passphrase.
    Encrypted,
}

/// Whether a private key is encrypted; `None` if it is no private key.
pub fn lock(text: &str) -> Option<Lock> {
    let begin = text.lines().map(str::trim).find(|line| line.starts_with("-----BEGIN "))?;
    if !begin.contains("PRIVATE KEY") {
        return None;
    }
    let encrypted = if begin.contains("OPENSSH") {
        let inner: String = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
        let bytes = decode_base64(&inner)?;
        // "openssh-key-v1" NUL, then the cipher's name as a string
        let cipher = bytes.strip_prefix(b"openssh-key-v1\0")?.get(4..)?;
        !cipher.starts_with(b"none")
    } else {
        begin.contains("ENCRYPTED") || text.contains("Proc-Type: 4,ENCRYPTED")
    };
    Some(if encrypted { Lock::Encrypted } else { Lock::Open })
}

/// The public half beside a private key file, as SSH sends it.
pub fn public_half(file: &Path) -> Option<Vec<u8>> {
    let text = fs::read_to_string(beside(file, ".pub")).ok()?;
    decode_base64(text.split_whitespace().nth(1)?)
}

/// The file of this name with something added to it.
pub fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};

    use super::*;

    #[test]
    fn encrypted_keys_are_told_from_open_ones() {
        let openssh = |cipher: &[u8]| {
            let len = u32::try_from(cipher.len()).expect("short").to_be_bytes();
            let bytes = [b"openssh-key-v1\0", &len[..], cipher, &[0; 40]].concat();
            format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
                Base64::encode_string(&bytes)
            )
        };
        assert_eq!(lock(&openssh(b"none")), Some(Lock::Open));
        assert_eq!(lock(&openssh(b"aes256-ctr")), Some(Lock::Encrypted));
        assert_eq!(lock("-----BEGIN ENCRYPTED PRIVATE KEY-----\nx"), Some(Lock::Encrypted));
        assert_eq!(lock("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"), Some(Lock::Encrypted));
        assert_eq!(lock("-----BEGIN EC PRIVATE KEY-----\nx"), Some(Lock::Open));
        assert_eq!(lock("ssh-ed25519 AAAA"), None);
    }
}
