//! Whether a host's key is the one we know (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). Our own reader, because libssh2's
//! accepts revoked keys, ignores negation and patterns, and stops at the first line it cannot read.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Base64Unpadded, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Decodes padded or unpadded base64 without blanks; `None` if it is malformed.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    Base64Unpadded::decode_vec(text.trim_end_matches('=')).ok()
}

/// The result of looking up a host's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one we know.
    Known,
    /// Nothing is known of this host.
    Unknown,
    /// Another key is known; where.
    Changed(String),
    /// The key is marked `@revoked`; where.
    Revoked(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
}

struct Line {
    marker: Marker,
    hosts: String,
    kind: String,
    key: Vec<u8>,
    place: String,
}

/// The lines of some `known_hosts` files. Files that do not exist and lines that cannot be read are passed over.
pub struct KnownHosts {
    lines: Vec<Line>,
}

impl KnownHosts {
    /// Reads the files.
    pub fn read(files: &[PathBuf]) -> Self {
        let mut lines = Vec::new();
        for file in files {
            let text = fs::read(file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            for (number, line) in text.lines().enumerate() {
                lines.extend(parse(line, || format!("{}:{}", file.display(), number + 1)));
            }
        }
        KnownHosts { lines }
    }

    /// Judges `key` for a host. A line without a port also vouches for other ports, as it does for OpenSSH.
    pub fn check(&self, name: &str, port: u16, key: &[u8]) -> Verdict {
        let lines = self.about(name, port);
        if let Some(line) = lines.iter().find(|line| line.marker == Marker::Revoked && line.key == key) {
            return Verdict::Revoked(line.place.clone());
        }
        let plain = |line: &&&Line| line.marker == Marker::None;
        if lines.iter().filter(plain).any(|line| line.key == key) {
            return Verdict::Known;
        }
        let exact = lines.iter().filter(plain).find(|line| matches(&line.hosts, &place(name, port)));
        match exact.or_else(|| lines.iter().find(plain)) {
            Some(line) => Verdict::Changed(line.place.clone()),
            None => Verdict::Unknown,
        }
    }

    /// Returns the algorithms for which a key of this host is known, so that the server is asked for that key.
    pub fn kinds(&self, name: &str, port: u16) -> Vec<String> {
        self.about(name, port)
            .into_iter()
            .filter(|line| line.marker == Marker::None)
            .map(|line| line.kind.clone())
            .collect()
    }

    /// Returns the keys of this host, and where each one is.
    pub fn keys(&self, name: &str, port: u16) -> Vec<(Vec<u8>, String)> {
        let plain = self.about(name, port).into_iter().filter(|line| line.marker == Marker::None);
        plain.map(|line| (line.key.clone(), line.place.clone())).collect()
    }

    /// Returns whether an authority vouches for the host's certificates, which libssh2 cannot verify.
    pub fn has_authority(&self, name: &str, port: u16) -> bool {
        self.about(name, port).iter().any(|line| line.marker == Marker::Authority)
    }

    fn about(&self, name: &str, port: u16) -> Vec<&Line> {
        let with_port = place(name, port);
        let exact: Vec<&Line> = self.lines.iter().filter(|line| matches(&line.hosts, &with_port)).collect();
        if exact.iter().any(|line| line.marker == Marker::None) || port == 22 {
            return exact;
        }
        let plain = self.lines.iter().filter(|line| matches(&line.hosts, &name.to_lowercase()));
        exact.iter().copied().chain(plain).collect()
    }
}

/// Returns the name of a host in the files: `name`, or `[name]:port`.
fn place(name: &str, port: u16) -> String {
    let name = name.to_lowercase();
    if port == 22 { name } else { format!("[{name}]:{port}") }
}

fn parse(line: &str, place: impl Fn() -> String) -> Option<Line> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let mut words = line.split_whitespace();
    let mut hosts = words.next()?;
    let marker = match hosts {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::Authority,
        other if other.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        hosts = words.next()?;
    }
    let kind = words.next()?;
    let key = decode_base64(words.next()?)?;
    let starts_with_kind = key.get(4..4 + kind.len()) == Some(kind.as_bytes());
    starts_with_kind.then(|| Line { marker, hosts: hosts.into(), kind: kind.into(), key, place: place() })
}

/// Returns whether the first field of a line is about a host: hashed, or patterns of which one matches and no negated
/// one does.
fn matches(hosts: &str, host: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        return decode_base64(salt)
            .zip(decode_base64(hash))
            .is_some_and(|(salt, hash)| keyed_hash(&salt, host) == hash);
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(&pattern.to_lowercase(), host) => return false,
            Some(_) => {}
            None => found |= glob(&pattern.to_lowercase(), host),
        }
    }
    found
}

/// HMAC-SHA1(salt, host), as `HashKnownHosts` has it.
fn keyed_hash(salt: &[u8], host: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(salt).expect("HMAC takes keys of any length");
    mac.update(host.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `*` is any string, `?` any one character. Linear in pattern times text.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// `SHA256:...`, as `ssh-keygen -l` shows it.
pub fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", Base64Unpadded::encode_string(&Sha256::digest(key)))
}

/// Returns the algorithm's name, which every key begins with.
pub fn kind(key: &[u8]) -> &str {
    let len = key.get(..4).map_or(0, |len| len.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)));
    let known = |name: &&str| name.len() < 64 && name.bytes().all(|c| c.is_ascii_graphic());
    key.get(4..)
        .and_then(|rest| rest.get(..len))
        .and_then(|name| std::str::from_utf8(name).ok())
        .filter(known)
        .unwrap_or("unknown")
}

/// Appends a host's key.
pub fn append(file: &Path, name: &str, port: u16, key: &[u8], hashed: bool) -> Result<()> {
    let mut hosts = place(name, port);
    if hashed {
        let mut salt = [0; 20];
        getrandom::fill(&mut salt).map_err(|e| Error::failed(format!("the system gives no random bytes: {e}")))?;
        hosts = format!("|1|{}|{}", Base64::encode_string(&salt), Base64::encode_string(&keyed_hash(&salt, &hosts)));
    }
    let line = format!("{hosts} {} {}\n", kind(key), Base64::encode_string(key));
    let write = || {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
        }
        let mut known = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
        let mut last = [b'\n'];
        if known.seek(SeekFrom::End(-1)).is_ok() {
            known.read_exact(&mut last)?;
        }
        let line = if last == *b"\n" { line.clone() } else { format!("\n{line}") };
        known.write_all(line.as_bytes())
    };
    write().map_err(|e| Error::io(format!("add the host's key to {}", file.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> Vec<u8> {
        [&11u32.to_be_bytes()[..], b"ssh-ed25519", &[seed; 36]].concat()
    }

    fn known(lines: &[String]) -> KnownHosts {
        KnownHosts { lines: lines.iter().filter_map(|line| parse(line, || "file:1".into())).collect() }
    }

    fn line(hosts: &str, seed: u8) -> String {
        format!("{hosts} ssh-ed25519 {} comment", Base64::encode_string(&key(seed)))
    }

    #[test]
    fn names_ports_patterns_and_negations() {
        for (hosts, name, port, expected) in [
            ("nas", "nas", 22, true),
            ("NAS,other", "nas", 22, true),
            ("nas", "NAS", 22, true),
            ("nas", "nas2", 22, false),
            ("nas", "nas", 2222, true),
            ("[nas]:2222", "nas", 2222, true),
            ("[nas]:2222", "nas", 22, false),
            ("*.lan", "nas.lan", 22, true),
            ("*.lan,!bad.lan", "bad.lan", 22, false),
            ("[10.0.0.*]:24", "10.0.0.7", 24, true),
            ("n?s", "nas", 22, true),
            ("::1", "::1", 22, true),
        ] {
            let verdict = known(&[line(hosts, 1)]).check(name, port, &key(1));
            assert_eq!(verdict == Verdict::Known, expected, "{hosts} for {name}:{port} gives {verdict:?}");
        }
    }

    #[test]
    fn a_revoked_key_is_refused_though_another_line_accepts_it() {
        let lines = [line("nas", 1), format!("@revoked {}", line("*", 1))];
        assert!(matches!(known(&lines).check("nas", 22, &key(1)), Verdict::Revoked(_)));
        assert!(matches!(known(&lines).check("nas", 22, &key(2)), Verdict::Changed(_)));
    }

    #[test]
    fn another_key_or_another_kind_of_key_is_a_change() {
        assert!(matches!(known(&[line("nas", 1)]).check("nas", 22, &key(2)), Verdict::Changed(_)));
        assert!(matches!(known(&[line("nas", 1)]).check("nas", 2222, &key(2)), Verdict::Changed(_)));
        assert_eq!(known(&[line("[nas]:2222", 1), line("nas", 2)]).check("nas", 2222, &key(1)), Verdict::Known);
    }

    #[test]
    fn lines_that_cannot_be_read_are_passed_over() {
        let lines =
            ["nas 1024 35 12345".into(), "garbage".into(), "@strange x y z".into(), "# c".into(), line("nas", 1)];
        assert_eq!(known(&lines).check("nas", 22, &key(1)), Verdict::Known);
        assert_eq!(known(&[format!("@cert-authority {}", line("nas", 1))]).check("nas", 22, &key(1)), Verdict::Unknown);
    }

    #[test]
    fn hashed_names_match_and_new_ones_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("new/known_hosts");
        append(&file, "nas", 2222, &key(1), true).expect("written");
        append(&file, "other", 22, &key(2), false).expect("written");
        let text = fs::read_to_string(&file).expect("a file");
        assert!(text.starts_with("|1|") && !text.contains("nas") && text.lines().count() == 2, "{text}");
        let known = KnownHosts::read(&[file]);
        assert_eq!(known.check("nas", 2222, &key(1)), Verdict::Known);
        assert_eq!(known.check("other", 22, &key(2)), Verdict::Known);
        assert_eq!(known.check("third", 22, &key(2)), Verdict::Unknown);
    }
}
