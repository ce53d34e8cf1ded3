//! Addresses of repositories on S3-compatible object stores. Strict: a host, a bucket and a folder become parts of URLs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// A folder of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The server; `None` for the one that the environment names, else the one of AWS.
    pub endpoint: Option<Endpoint>,
    /// The bucket.
    pub bucket: String,
    /// The folder in the bucket, without slashes at its ends; empty for the bucket itself.
    pub prefix: String,
}

/// A server that speaks S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it speaks TLS (https).
    pub tls: bool,
    /// The host: a name, or an IP address without brackets.
    pub host: String,
    /// The port, if the address names one.
    pub port: Option<u16>,
}

/// Options for an object store.
#[derive(Clone, Default)]
pub struct S3Options {
    /// The variables of the environment whose names begin with `AWS_` or end with `_PROXY`, with credentials among them.
    pub environment: BTreeMap<String, String>,
    /// The user's home folder, which has `.aws`.
    pub home: Option<PathBuf>,
}

const FORMS: &str = "write s3://HOST/BUCKET/FOLDER, s3+http://HOST:PORT/BUCKET/FOLDER, or s3://BUCKET/FOLDER for AWS";

fn usage(text: impl Into<String>) -> Error {
    Error::new(Kind::Usage, text).hint(FORMS)
}

impl Bucket {
    /// Reads `s3://HOST[:PORT]/BUCKET/FOLDER`, `s3+http://..`, `s3+https://..`, `s3://BUCKET/FOLDER`, and the forms of restic:
    /// `s3:HOST/BUCKET/FOLDER`, `s3:http://..`, `s3:https://..`. `None` for an address of another kind.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        for (scheme, tls) in
            [("s3+http://", false), ("s3:http://", false), ("s3+https://", true), ("s3:https://", true)]
        {
            if let Some(rest) = text.strip_prefix(scheme) {
                return on_endpoint(tls, rest).map(Some);
            }
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return match names_host(rest) {
                true => on_endpoint(true, rest).map(Some),
                false => in_bucket(None, rest).map(Some),
            };
        }
        match text.strip_prefix("s3:") {
            Some(rest) if names_host(rest) && rest.contains('/') => on_endpoint(true, rest).map(Some),
            _ => Ok(None),
        }
    }
}

impl Endpoint {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub fn parse(url: &str) -> Result<Self> {
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(usage("the address of the object store is no URL (http:// or https://)")),
        };
        authority(tls, rest.trim_end_matches('/'))
    }

    /// Returns the host as it stands in a URL: an IPv6 address in brackets.
    pub fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// Returns the port, or the one of the protocol.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// Returns the host and the port as they stand in a URL.
    pub fn authority(&self) -> String {
        let host = self.bracketed();
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Returns whether a host follows `s3://`: it has a dot or a port, which a bucket behind `s3://` must not have.
fn names_host(rest: &str) -> bool {
    let first = rest.split('/').next().unwrap_or_default();
    first == "localhost" || first.contains(['.', ':', '@'])
}

fn on_endpoint(tls: bool, rest: &str) -> Result<Bucket> {
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    in_bucket(Some(authority(tls, place)?), path)
}

fn in_bucket(endpoint: Option<Endpoint>, path: &str) -> Result<Bucket> {
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if bucket.is_empty() {
        return Err(usage("the address names no bucket"));
    }
    if bucket.len() > 255 || bucket.starts_with(['.', '-']) || !bucket.chars().all(is_plain) {
        return Err(usage(format!("{bucket:?} cannot be the name of a bucket")));
    }
    let prefix = prefix.trim_end_matches('/');
    let is_folder = |part: &str| {
        !["", ".", ".."].contains(&part) && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._=+@".contains(c))
    };
    if !prefix.is_empty() && !prefix.split('/').all(is_folder) {
        return Err(usage("the folder in the bucket may hold letters, digits and any of -._=+@"));
    }
    Ok(Bucket { endpoint, bucket: bucket.into(), prefix: prefix.into() })
}

fn authority(tls: bool, text: &str) -> Result<Endpoint> {
    if text.contains('@') {
        return Err(Error::new(Kind::Usage, "an address holds no user and no key")
            .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']').ok_or_else(|| usage("a bracket of the host is not closed"))?;
            (host, after.strip_prefix(':').or((!after.is_empty()).then_some(after)))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || host.starts_with('-') || !host.chars().all(is_host) {
        return Err(usage(format!("{host:?} cannot be the name of a host")));
    }
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return Err(usage("the port is a number from 1 to 65535")),
    };
    Ok(Endpoint { tls, host: host.to_ascii_lowercase(), port })
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bucket { endpoint, bucket, prefix } = self;
        let place = match endpoint {
            None => "s3://".into(),
            Some(endpoint) if !endpoint.tls => format!("s3+http://{}/", endpoint.authority()),
            Some(endpoint) if names_host(&endpoint.authority()) => format!("s3://{}/", endpoint.authority()),
            Some(endpoint) => format!("s3+https://{}/", endpoint.authority()),
        };
        let slash = if prefix.is_empty() { "" } else { "/" };
        write!(f, "{place}{bucket}{slash}{prefix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Bucket {
        Bucket::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).unwrap_or_else(|| panic!("{text}: no S3"))
    }

    #[test]
    fn the_forms_that_are_understood() {
        for (text, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("s3://s3.amazonaws.com/my.bucket/x", "s3://s3.amazonaws.com/my.bucket/x"),
            ("s3://NAS.lan:9000/bucket", "s3://nas.lan:9000/bucket"),
            ("s3://localhost/bucket", "s3://localhost/bucket"),
            ("s3+http://nas:9000/bucket/x", "s3+http://nas:9000/bucket/x"),
            ("s3+https://nas/bucket", "s3+https://nas/bucket"),
            ("s3+http://[::1]:9000/bucket", "s3+http://[::1]:9000/bucket"),
            ("s3:s3.eu-central-1.amazonaws.com/bucket", "s3://s3.eu-central-1.amazonaws.com/bucket"),
            ("s3:http://localhost:9000/restic", "s3+http://localhost:9000/restic"),
            ("s3:https://server:9000/restic", "s3://server:9000/restic"),
        ] {
            assert_eq!(parsed(text).to_string(), shown, "{text}");
            assert_eq!(parsed(shown), parsed(text), "{text} shown and read again");
        }
        let Bucket { endpoint, bucket, prefix } = parsed("s3+http://nas:9000/b/x/y");
        assert_eq!((endpoint.map(|e| e.url()), &*bucket, &*prefix), (Some("http://nas:9000".into()), "b", "x/y"));
    }

    #[test]
    fn the_forms_that_are_refused_or_of_another_kind() {
        for text in [
            "s3://",
            "s3:///x",
            "s3://nas.lan",
            "s3://key:secret@nas.lan/bucket",
            "s3://secret@nas.lan/bucket",
            "s3+http://nas:0/b",
            "s3+http://nas:x/b",
            "s3+http://na s/b",
            "s3+http://-x/b",
            "s3://bucket/../x",
            "s3://bucket/a//b",
            "s3://bucket/a?b",
            "s3://bucket/a%20b",
            "s3://bu$cket/a",
        ] {
            let error = Bucket::parse(text).expect_err(text);
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(!error.to_string().contains("secret"), "{text}");
        }
        for text in ["s3:/path", "s3:bucket/folder", "nas:/x", "/x", "sftp://s3/x"] {
            assert_eq!(Bucket::parse(text).expect("another kind"), None, "{text}");
        }
    }
}
