//! The user's SSH configuration for a host, as `ssh -G HOST` prints it: OpenSSH itself resolves `Match`,
//! `Include`, aliases and defaults. Without OpenSSH the defaults are used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::options::SshOptions;
use crate::error::{Error, Kind, Result};
use crate::storage::location::Remote;

/// How a host is to be reached.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Whether OpenSSH's client is installed.
    pub has_openssh: bool,
    /// The name or address to connect to.
    pub hostname: String,
    /// The account.
    pub user: String,
    /// The port.
    pub port: u16,
    /// Key files, in the order in which they are tried; they need not exist.
    pub identity_files: Vec<PathBuf>,
    /// Whether the agent is asked for these keys only.
    pub identities_only: bool,
    /// The agent's socket.
    pub agent: Option<PathBuf>,
    /// `known_hosts` files; the first one gets new keys.
    pub known_hosts: Vec<PathBuf>,
    /// The name under which the host's key is kept, if it is not host and port.
    pub host_key_alias: Option<String>,
    /// Whether names in `known_hosts` are hashed.
    pub hash_known_hosts: bool,
    /// Whether a key of an unknown host is accepted.
    pub accept_new: bool,
    /// `inet` or `inet6`, if only one of them is wanted.
    pub address_family: Option<String>,
    /// `ServerAliveInterval`, if it is set.
    pub keepalive: Option<Duration>,
    /// The settings that libssh2 does not support.
    pub needs_openssh: Option<String>,
}

impl HostConfig {
    /// Asks `ssh -G`, or takes the defaults where there is no `ssh`.
    pub fn read(remote: &Remote, options: &SshOptions) -> Result<Self> {
        let mut command = Command::new("ssh");
        command.arg("-G");
        if let Some(file) = &options.ssh_config {
            command.arg("-F").arg(file);
        }
        if let Some(user) = &remote.user {
            command.arg("-l").arg(user);
        }
        if let Some(port) = remote.port.or(options.port) {
            command.arg("-p").arg(port.to_string());
        }
        command.arg("--").arg(&remote.host).stdin(Stdio::null());
        let values = match command.output() {
            Ok(output) if output.status.success() => Some(parse(&String::from_utf8_lossy(&output.stdout))),
            Ok(output) => {
                let text = crate::storage::sftp::printable(output.stderr.trim_ascii());
                return Err(Error::failed(format!("ssh cannot read its configuration for {}: {text}", remote.host)));
            }
            Err(_) => None,
        };
        Self::from_values(values, remote, options)
    }

    pub(crate) fn from_values(
        values: Option<HashMap<String, Vec<String>>>,
        remote: &Remote,
        options: &SshOptions,
    ) -> Result<Self> {
        let has_openssh = values.is_some();
        let values = values.unwrap_or_default();
        let home = std::env::home_dir().unwrap_or_else(|| "/".into());
        let one = |key: &str| values.get(key).and_then(|all| all.first()).map(String::as_str).filter(|v| !v.is_empty());
        let set = |key: &str| {
            one(key).filter(|value| !value.eq_ignore_ascii_case("none") && !value.eq_ignore_ascii_case("no"))
        };
        let hostname = one("hostname").unwrap_or(&remote.host).to_string();
        let user = match (&remote.user, one("user")) {
            (Some(user), _) => user.clone(),
            (None, Some(user)) => user.into(),
            (None, None) => std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).map_err(|_| {
                Error::new(Kind::Usage, "the address names no user and the system does not tell yours")
                    .hint("write user@host:path")
            })?,
        };
        let configured = one("port").and_then(|port| port.parse().ok());
        let port = remote.port.or(options.port).or(configured).unwrap_or(22);
        let tokens = Tokens { home: &home, hostname: &hostname, original: &remote.host, user: &user, port };
        let mut identity_files: Vec<PathBuf> = options.identity.clone();
        match values.get("identityfile") {
            Some(files) => identity_files.extend(files.iter().filter(|f| *f != "none").map(|file| tokens.path(file))),
            None => {
                identity_files.extend(["id_ed25519", "id_ecdsa", "id_rsa"].map(|file| home.join(".ssh").join(file)))
            }
        }
        let agent = match (&options.agent, one("identityagent")) {
            (Some(path), _) => Some(path.clone()).filter(|path| !path.as_os_str().is_empty()),
            (None, Some("none")) => None,
            (None, None | Some("SSH_AUTH_SOCK")) => {
                std::env::var_os("SSH_AUTH_SOCK").filter(|v| !v.is_empty()).map(Into::into)
            }
            (None, Some(value)) => match value.strip_prefix('$') {
                Some(variable) => std::env::var_os(variable.trim_matches(['{', '}'])).map(Into::into),
                None => Some(tokens.path(value)),
            },
        };
        let listed = |key: &str, default: &[&str]| -> Vec<PathBuf> {
            match one(key) {
                Some("none") => Vec::new(),
                Some(files) => files.split_whitespace().map(|file| tokens.path(file)).collect(),
                None => default.iter().map(|file| tokens.path(file)).collect(),
            }
        };
        let known_hosts = options.known_hosts.clone().unwrap_or_else(|| {
            let mut files = listed("userknownhostsfile", &["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]);
            files.extend(listed("globalknownhostsfile", &["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]));
            files
        });
        let mut needs_openssh = ["proxyjump", "proxycommand", "certificatefile", "pkcs11provider", "knownhostscommand"]
            .into_iter()
            .chain(["revokedhostkeys", "bindaddress", "bindinterface", "hostbasedauthentication"])
            .find(|key| set(key).is_some())
            .map(|key| format!("the SSH configuration of {} sets {key}", remote.host));
        if let Some(file) = identity_files.iter().find(|file| is_security_key(file)) {
            needs_openssh.get_or_insert(format!("{} is kept in a security key", file.display()));
        }
        Ok(HostConfig {
            has_openssh,
            identity_files,
            identities_only: one("identitiesonly") == Some("yes"),
            agent,
            known_hosts,
            host_key_alias: one("hostkeyalias").map(Into::into),
            hash_known_hosts: one("hashknownhosts") == Some("yes"),
            accept_new: options.accept_new_host_key || one("stricthostkeychecking") == Some("accept-new"),
            address_family: one("addressfamily").filter(|family| *family != "any").map(Into::into),
            keepalive: set("serveraliveinterval")
                .and_then(|s| s.parse().ok())
                .filter(|s| *s > 0)
                .map(Duration::from_secs),
            needs_openssh,
            hostname,
            user,
            port,
        })
    }
}

/// `key value` lines; keys come in lower case.
pub(crate) fn parse(text: &str) -> HashMap<String, Vec<String>> {
    let mut values: HashMap<String, Vec<String>> = HashMap::new();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(' ') {
            values.entry(key.to_ascii_lowercase()).or_default().push(value.trim().trim_matches('"').into());
        }
    }
    values
}

/// Whether the secret half of a private key is in a FIDO token, as its public half shows.
fn is_security_key(file: &Path) -> bool {
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    file.exists() && std::fs::read_to_string(public).is_ok_and(|text| text.starts_with("sk-"))
}

/// Values of the %-tokens in paths.
struct Tokens<'a> {
    home: &'a Path,
    hostname: &'a str,
    original: &'a str,
    user: &'a str,
    port: u16,
}

impl Tokens<'_> {
    fn path(&self, text: &str) -> PathBuf {
        let text = text.trim_matches('"');
        let home = self.home.to_string_lossy();
        let (mut out, mut chars) = (String::new(), text.chars());
        while let Some(c) = chars.next() {
            match (c, out.is_empty()) {
                ('~', true) => out.push_str(&home),
                ('%', _) => match chars.next() {
                    Some('d') => out.push_str(&home),
                    Some('h') => out.push_str(self.hostname),
                    Some('n') => out.push_str(self.original),
                    Some('r') => out.push_str(self.user),
                    Some('u') => out.push_str(&std::env::var("USER").unwrap_or_default()),
                    Some('p') => out.push_str(&self.port.to_string()),
                    Some('%') => out.push('%'),
                    other => out.extend(['%'].into_iter().chain(other)),
                },
                (c, _) => out.push(c),
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> HostConfig {
        let remote = Remote { user: None, host: "nas".into(), port: None, path: "x".into() };
        let options = SshOptions { agent: Some("".into()), ..SshOptions::default() };
        HostConfig::from_values(Some(parse(text)), &remote, &options).expect("a configuration")
    }

    #[test]
    fn aliases_users_ports_and_keys_are_taken_from_ssh() {
        let c = config(
            "hostname 10.0.0.9\nuser backup\nport 2222\nidentityfile /k/%h-%r-%p-%%\nidentitiesonly yes\nproxyjump none\n",
        );
        assert_eq!((c.hostname.as_str(), c.user.as_str(), c.port), ("10.0.0.9", "backup", 2222));
        assert_eq!(c.identity_files, [PathBuf::from("/k/10.0.0.9-backup-2222-%")]);
        assert!(c.identities_only && c.needs_openssh.is_none());
    }

    #[test]
    fn what_libssh2_cannot_do_is_noticed() {
        for line in ["proxyjump bastion", "proxycommand nc %h %p", "certificatefile /x", "bindaddress 10.0.0.1"] {
            assert!(config(&format!("user u\n{line}")).needs_openssh.is_some(), "{line}");
        }
    }
}
