//! The proxy between this machine and a server, from the variables that curl and the tools of AWS use: `HTTPS_PROXY`,
//! `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, and the same in lower case.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64ct::{Base64, Encoding};
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::errors::Problem;
use crate::error::{Error, Kind, Result};
use crate::storage::bucket::Endpoint;

/// Most bytes of the answer of a proxy.
const ANSWER: usize = 16 << 10;

/// The proxies for both kinds of servers, and the hosts that are reached without one.
#[derive(Default)]
pub struct Proxies {
    plain: Option<Proxy>,
    tls: Option<Proxy>,
    direct: Vec<String>,
}

/// A proxy that speaks HTTP without TLS.
#[derive(Clone)]
pub struct Proxy {
    /// Its address.
    pub endpoint: Endpoint,
    /// The header with user and password.
    pub login: Option<HeaderValue>,
}

impl Proxies {
    /// Reads the variables; lower case wins.
    pub fn read(environment: &BTreeMap<String, String>) -> Result<Self> {
        let variable = |name: &str| {
            [name.to_owned(), name.to_uppercase()].into_iter().find_map(|name| {
                let value = environment.get(&name)?.trim().to_owned();
                (!value.is_empty()).then_some((name, value))
            })
        };
        let proxy = |name: &str| {
            let value = variable(name).or_else(|| variable("all_proxy"));
            value.map(|(name, value)| Proxy::parse(&name, &value)).transpose()
        };
        let direct = variable("no_proxy").map(|(_, value)| value).unwrap_or_default();
        let direct = direct.split([',', ' ']).map(|host| host.trim().to_ascii_lowercase());
        Ok(Proxies {
            plain: proxy("http_proxy")?,
            tls: proxy("https_proxy")?,
            direct: direct.filter(|host| !host.is_empty()).collect(),
        })
    }

    /// Returns the proxy to a server.
    pub fn to(&self, server: &Endpoint) -> Option<&Proxy> {
        let proxy = if server.tls { self.tls.as_ref() } else { self.plain.as_ref() };
        proxy.filter(|_| !is_near(&server.host) && !self.direct.iter().any(|host| covers(host, server)))
    }
}

/// Returns whether a host is this machine, or a service that only this machine reaches.
fn is_near(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local() || ip.segments()[..2] == [0xfd00, 0xec2],
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Returns whether an entry of `NO_PROXY` covers a server: `*`, a host with or without port, or the end of its name.
fn covers(entry: &str, server: &Endpoint) -> bool {
    let name = entry.trim_start_matches("*.").trim_start_matches('.');
    let is_end = server.host.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
    entry == "*" || entry == server.authority() || name == server.host || is_end
}

impl Proxy {
    fn parse(variable: &str, value: &str) -> Result<Self> {
        let usage = |text: &str| {
            let text = format!("{variable} {text}");
            Error::new(Kind::Usage, text).hint("write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT")
        };
        let rest = value.strip_prefix("http://").unwrap_or(value).trim_end_matches('/');
        if rest.contains("://") {
            return Err(usage("names a proxy that does not speak HTTP"));
        }
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let endpoint = Endpoint::parse(&format!("http://{place}")).map_err(|_| usage("is no address of a proxy"))?;
        let login = login.map(|login| {
            let login = decoded(login).ok_or_else(|| usage("holds a login that cannot be decoded"))?;
            let value = HeaderValue::try_from(format!("Basic {}", Base64::encode_string(&login)));
            let mut value = value.map_err(|_| usage("holds a login that cannot be sent"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Proxy { endpoint, login: login.transpose()? })
    }

    /// Makes a tunnel to a server through a connection to the proxy.
    pub async fn tunnel(&self, stream: &mut TcpStream, to: &Endpoint) -> Result<(), Problem> {
        let place = self.endpoint.authority();
        let lost = |e: std::io::Error| Problem::Unreachable(format!("the proxy {place}: {e}"));
        let server = format!("{}:{}", to.bracketed(), to.port());
        let mut ask = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n").into_bytes();
        if let Some(login) = &self.login {
            ask.extend([b"Proxy-Authorization: ", login.as_bytes(), b"\r\n"].concat());
        }
        ask.extend(b"\r\n");
        stream.write_all(&ask).await.map_err(lost)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < ANSWER {
            let byte = stream.read_u8().await.map_err(lost)?;
            answer.push(byte);
        }
        match status(&answer) {
            Some(200..=299) => Ok(()),
            Some(407) => Err(Problem::Unreachable(format!("the proxy {place} wants a login (status 407)"))),
            Some(status) => Err(Problem::Unreachable(format!("the proxy {place} refuses it (status {status})"))),
            None => Err(Problem::Unreachable(format!("{place} is no proxy"))),
        }
    }
}

/// Returns the status in the first line of an answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|c| *c == b'\r').next()?).ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

/// Replaces `%XX` by the bytes. `None` if a `%` is followed by something else.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::read(&variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    fn through(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.to(&Endpoint::parse(url).unwrap()).map(|proxy| proxy.endpoint.authority())
    }

    #[test]
    fn servers_are_reached_through_the_proxy_of_their_kind_or_directly() {
        let all = proxies(&[
            ("HTTPS_PROXY", "http://jo:p%40ss@proxy:3128/"),
            ("http_proxy", "plain:8080"),
            ("NO_PROXY", "nas, .lan,*.example.com,10.0.0.1:9000"),
        ])
        .unwrap();
        for (url, expected) in [
            ("https://s3.amazonaws.com", Some("proxy:3128")),
            ("http://s3.example.org:9000", Some("plain:8080")),
            ("https://nas", None),
            ("https://nas2", Some("proxy:3128")),
            ("https://store.lan", None),
            ("https://s3.example.com", None),
            ("http://10.0.0.1:9000", None),
            ("http://10.0.0.1:9001", Some("plain:8080")),
            ("http://127.0.0.1:9000", None),
            ("http://localhost:9000", None),
            ("http://[::1]:9000", None),
            ("http://169.254.169.254", None),
        ] {
            assert_eq!(through(&all, url).as_deref(), expected, "{url}");
        }
        let login = all.tls.as_ref().unwrap().login.clone().unwrap();
        assert_eq!(login.to_str().unwrap(), "Basic am86cEBzcw==");
        assert!(!format!("{login:?}").contains("am86"));
        assert_eq!(through(&proxies(&[("ALL_PROXY", "p:1"), ("no_proxy", "*")]).unwrap(), "https://x"), None);
        assert_eq!(
            through(&proxies(&[("ALL_PROXY", "p:1"), ("https_proxy", "")]).unwrap(), "https://x").unwrap(),
            "p:1"
        );
    }

    #[test]
    fn a_proxy_that_is_not_understood_is_named_and_no_password_is() {
        for value in
            ["socks5://jo:secret@p:1", "https://jo:secret@p", "jo:secret@", "jo:secret%4@p:1", "http://jo:secret@p:x"]
        {
            let error = proxies(&[("https_proxy", value)]).err().expect(value);
            let all = format!("{error} {error:?} {:?}", error.hint_text());
            assert!(error.kind() == Kind::Usage && all.contains("https_proxy") && !all.contains("secret"), "{all}");
        }
        assert_eq!(status(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), Some(407));
        assert_eq!((status(b"SSH-2.0-x\r\n"), status(b"HTTP/1.1\r\n"), status(b"")), (None, None, None));
    }
}
