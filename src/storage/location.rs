//! Where a repository lives, as the user writes it. Strict, because host and user become arguments of `ssh`
//! and words of `known_hosts`: what could be read in two ways is refused.

use std::fmt;
use std::path::{Path, PathBuf};

use super::bucket::Bucket;
use super::rclone::Rclone;
use crate::error::{Error, Kind, Result};

/// The place of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder on this machine.
    Local(PathBuf),
    /// A folder on an SFTP server.
    Sftp(Remote),
    /// A folder of a storage service that rclone serves.
    Rclone(Rclone),
    /// A folder of a bucket in an S3-compatible object store.
    S3(Bucket),
}

/// A folder on an SFTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The account, if the address names one.
    pub user: Option<String>,
    /// The host: a name, an alias of `~/.ssh/config`, or an IP address without brackets.
    pub host: String,
    /// The port, if the address names one.
    pub port: Option<u16>,
    /// The folder: absolute, or relative to the home folder on the server. Never empty.
    pub path: String,
}

/// Kinds of servers in addresses of other programs. As names of hosts they are taken with an absolute path only.
const OTHER_SERVERS: [&str; 6] = ["s3", "b2", "rest", "azure", "gs", "swift"];

const FORMS: &str = "write user@host:/path, host:path, sftp://user@host:port//path, s3://HOST/BUCKET/FOLDER, rclone:REMOTE:PATH, or a local folder";

fn usage(text: impl Into<String>) -> Error {
    Error::new(Kind::Usage, text).hint(FORMS)
}

impl Location {
    /// Returns the folder, if the location is on this machine.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Location::Local(path) => Some(path),
            Location::Sftp(_) | Location::Rclone(_) | Location::S3(_) => None,
        }
    }

    /// Returns the folder on a server, if the location is on one.
    pub fn remote(&self) -> Option<&Remote> {
        match self {
            Location::Local(_) | Location::Rclone(_) | Location::S3(_) => None,
            Location::Sftp(remote) => Some(remote),
        }
    }

    /// Reads `user@host:/path`, `host:path` (relative to home), `sftp://user@host:port//abs`, `sftp://host/rel`,
    /// `sftp:user@host:path`, `rclone:REMOTE:PATH`, the addresses of [`Bucket::parse`], `file:///path`, or a local path. Nothing is
    /// percent-decoded. Kind [`Kind::Usage`] if it is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(usage("the address of the repository is empty"));
        }
        if text.contains(['\0', '\n', '\r']) {
            return Err(usage("the address of the repository holds a NUL or a line break"));
        }
        if let Some(rest) = text.strip_prefix("sftp://") {
            return url(rest).map(Location::Sftp);
        }
        if let Some(rest) = text.strip_prefix("file://") {
            let local = rest.strip_prefix("localhost").unwrap_or(rest);
            return match local.starts_with('/') {
                true => Ok(Location::Local(local.into())),
                false => Err(usage("a file:// address needs an absolute path: file:///path")),
            };
        }
        if let Some(place) = text.strip_prefix("rclone:").filter(|place| !place.starts_with('/')) {
            return Rclone::parse(place).map(Location::Rclone);
        }
        if let Some(bucket) = Bucket::parse(text)? {
            return Ok(Location::S3(bucket));
        }
        if let Some((scheme, _)) = text
            .split_once(':')
            .filter(|(_, rest)| ["//", "http://", "https://"].iter().any(|url| rest.starts_with(url)))
            && !scheme.contains(['/', '@'])
        {
            return Err(usage(
                "an address of another kind of server: nfreezer knows SFTP, S3, rclone and local folders",
            ));
        }
        if let Some((scheme, rest)) = text.split_once(':')
            && OTHER_SERVERS.contains(&scheme)
            && !rest.starts_with('/')
        {
            let text = format!(
                "{scheme}: is an address of another kind of server: nfreezer knows SFTP, S3, rclone and local folders"
            );
            return Err(Error::new(Kind::Usage, text).hint(format!(
                "rclone can serve it: rclone:REMOTE:PATH; a host named {scheme} is sftp://{scheme}/PATH"
            )));
        }
        if let Some(rest) = text.strip_prefix("sftp:") {
            return match scp(rest)? {
                Some(remote) => Ok(Location::Sftp(remote)),
                None => Err(usage("an address that begins with sftp: must continue with host:path")),
            };
        }
        if let Some((scheme, _)) = text.split_once("://")
            && !scheme.is_empty()
            && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
        {
            return Err(usage(format!("addresses of the sort {scheme}:// are not supported")));
        }
        Ok(match scp(text)? {
            Some(remote) => Location::Sftp(remote),
            None => Location::Local(text.into()),
        })
    }
}

/// `[user@]host:path`; `None` if there is no colon before the first slash.
fn scp(text: &str) -> Result<Option<Remote>> {
    let (user, rest) = split_user(text, false)?;
    let (host, path) = if let Some(inner) = rest.strip_prefix('[') {
        match inner.split_once("]:") {
            Some(parts) => parts,
            None if user.is_none() => return Ok(None),
            None => return Err(usage("a bracket of the host is not closed")),
        }
    } else {
        match rest.split_once(':') {
            Some((host, path)) if !host.contains('/') => (host, path),
            // A colon was forgotten. A local folder of such a name is ./NAME.
            None if user.is_some() && !rest.contains('/') => {
                return Err(usage("the address names no folder on the server"));
            }
            _ => return Ok(None),
        }
    };
    remote(user, host, None, home_relative(path)?).map(Some)
}

/// `[user@]host[:port]/path`, where a second slash makes the path absolute.
fn url(rest: &str) -> Result<Remote> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, place) = split_user(authority, true)?;
    let (host, port) = if let Some(inner) = place.strip_prefix('[') {
        let (host, after) = inner.split_once(']').ok_or_else(|| usage("a bracket of the host is not closed"))?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(usage("there is something between the host and the path")),
        }
    } else {
        place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)))
    };
    let port = match port {
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port > 0 && text.bytes().all(|c| c.is_ascii_digit()) => Some(port),
            _ => return Err(usage("the port is a number from 1 to 65535")),
        },
        None => None,
    };
    remote(user, host, port, home_relative(path)?)
}

/// Returns the user in front of the first `@` that stands before a slash. A colon in front of it is a password in a
/// URL, and part of the path in `host:a@b`; in `user:secret@host:path` it can only be meant as a password.
fn split_user(text: &str, url: bool) -> Result<(Option<&str>, &str)> {
    let head = text.find('/').map_or(text, |end| &text[..end]);
    let Some((user, rest)) = head.split_once('@') else { return Ok((None, text)) };
    if !user.contains(':') {
        return Ok((Some(user), &text[user.len() + 1..]));
    }
    if url || rest.contains(':') {
        return Err(usage("an address holds no password; nfreezer asks for it, or uses your keys"));
    }
    Ok((None, text))
}

fn home_relative(path: &str) -> Result<&str> {
    match path.strip_prefix('~') {
        None => Ok(path),
        Some("") => Ok(""),
        Some(rest) => match rest.strip_prefix('/') {
            Some(relative) => Ok(relative.trim_start_matches('/')),
            None => Err(usage("the home folder of another account (~name) is not understood by SFTP servers")),
        },
    }
}

fn remote(user: Option<&str>, host: &str, port: Option<u16>, path: &str) -> Result<Remote> {
    let strange = |c: char| c.is_control() || c.is_whitespace() || "'\"`$\\;&<>|(){}*?!#,@".contains(c);
    if host.is_empty() {
        return Err(usage("the address names no host"));
    }
    if host.starts_with('-') || host.contains(strange) || host.contains(['/', '[', ']']) {
        return Err(usage(format!("{host:?} cannot be the name of a host")));
    }
    if let Some(user) = user
        && (user.is_empty()
            || user.starts_with('-')
            || user.contains(|c: char| c.is_control() || "'\"`$;&<>|(){}".contains(c)))
    {
        return Err(usage(format!("{user:?} cannot be the name of a user")));
    }
    let path = match path.trim_end_matches('/') {
        "" if path.starts_with('/') => "/",
        "" => return Err(usage("the address names no folder on the server")),
        trimmed => trimmed,
    };
    Ok(Remote { user: user.map(Into::into), host: host.into(), port, path: path.into() })
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Local(path) => write!(f, "{}", path.display()),
            Location::Sftp(remote) => remote.fmt(f),
            Location::Rclone(rclone) => rclone.fmt(f),
            Location::S3(bucket) => bucket.fmt(f),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        // In the home folder, although it looks like the word for it.
        let path = if self.path.starts_with('~') { format!("~/{}", self.path) } else { self.path.clone() };
        if let Some(port) = self.port {
            return write!(f, "sftp://{user}{host}:{port}/{path}");
        }
        // The short form, unless it would be read as something else.
        let short = format!("{user}{host}:{path}");
        match Location::parse(&short) {
            Ok(Location::Sftp(again)) if again == *self => f.write_str(&short),
            _ => write!(f, "sftp://{user}{host}/{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sftp(user: &str, host: &str, port: u16, path: &str) -> Location {
        Location::Sftp(Remote {
            user: (!user.is_empty()).then(|| user.into()),
            host: host.into(),
            port: (port > 0).then_some(port),
            path: path.into(),
        })
    }

    #[test]
    fn the_forms_that_are_understood() {
        for (text, expected) in [
            ("me@nas:/backups", sftp("me", "nas", 0, "/backups")),
            ("nas:backups", sftp("", "nas", 0, "backups")),
            ("nas:~/backups/", sftp("", "nas", 0, "backups")),
            ("nas:/", sftp("", "nas", 0, "/")),
            ("nas:a@b", sftp("", "nas", 0, "a@b")),
            ("nas:httpdocs", sftp("", "nas", 0, "httpdocs")),
            ("me@nas:/a@b:c", sftp("me", "nas", 0, "/a@b:c")),
            ("me@[fe80::1%eth0]:x", sftp("me", "fe80::1%eth0", 0, "x")),
            ("[::1]:/x", sftp("", "::1", 0, "/x")),
            ("sftp://me@nas:2222//srv/b", sftp("me", "nas", 2222, "/srv/b")),
            ("sftp://nas/rel/x", sftp("", "nas", 0, "rel/x")),
            ("sftp://nas/a@b:c", sftp("", "nas", 0, "a@b:c")),
            ("sftp:nas://x", sftp("", "nas", 0, "//x")),
            ("sftp://sftp/x", sftp("", "sftp", 0, "x")),
            ("sftp:nas:http://x", sftp("", "nas", 0, "http://x")),
            ("rclone:/repository", sftp("", "rclone", 0, "/repository")),
            ("sftp:s3:bucket", sftp("", "s3", 0, "bucket")),
            ("me@b2:x", sftp("me", "b2", 0, "x")),
            ("nas:~/~/x", sftp("", "nas", 0, "~/x")),
            ("sftp://nas/~/x", sftp("", "nas", 0, "x")),
            ("sftp://me@[::1]:22/x", sftp("me", "::1", 22, "x")),
            ("sftp:me@nas:path", sftp("me", "nas", 0, "path")),
            ("rclone:b2:bucket/x/", Location::Rclone(Rclone::parse("b2:bucket/x").expect("a remote"))),
            ("rclone:crypt:", Location::Rclone(Rclone::parse("crypt:").expect("a remote"))),
            ("rclone::local:/x", Location::Rclone(Rclone::parse(":local:/x").expect("a backend"))),
            ("s3://nas.lan/b/x", Location::S3(Bucket::parse("s3://nas.lan/b/x").expect("valid").expect("S3"))),
            ("s3:/x", sftp("", "s3", 0, "/x")),
            ("file:///srv/b", Location::Local("/srv/b".into())),
            ("/srv/a:b", Location::Local("/srv/a:b".into())),
            ("./a:b", Location::Local("./a:b".into())),
            ("backups", Location::Local("backups".into())),
            ("./me@nas", Location::Local("./me@nas".into())),
            ("a/b:c", Location::Local("a/b:c".into())),
            ("../b", Location::Local("../b".into())),
        ] {
            let parsed = Location::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed, expected, "{text}");
            assert_eq!(
                Location::parse(&parsed.to_string()).expect("its own form"),
                expected,
                "{text} shown and read again"
            );
        }
    }

    #[test]
    fn the_forms_that_are_refused() {
        for text in [
            "",
            "nas:",
            "sftp://nas",
            "rest:http://nas/",
            "s3://",
            "s3:bucket/folder",
            "b2:bucket:folder",
            "rclone:remote",
            "rclone:",
            "rclone::",
            "rclone:--config=x:y",
            "rest:nas",
            "sftp://nas/",
            "sftp://",
            "sftp:/x",
            ":x",
            "@nas:x",
            "-oProxyCommand=x:y",
            "me@-oProxyCommand=x:y",
            "-me@nas:x",
            "sftp://-x/y",
            "a\nb",
            "a\0b",
            "sftp://nas:0/x",
            "sftp://nas:+1/x",
            "sftp://nas:70000/x",
            "sftp://me:secret@nas/x",
            "me:secret@nas:/x",
            "me@nas",
            "http://nas/x",
            "file://nas/x",
            "nas:~other/x",
            "sftp://[::1/x",
            "na s:x",
            "$(x):y",
        ] {
            let error = Location::parse(text).expect_err(text);
            assert_eq!(error.kind(), Kind::Usage, "{text:?}");
            assert!(!error.to_string().contains("secret"), "{text:?}");
        }
    }
}
