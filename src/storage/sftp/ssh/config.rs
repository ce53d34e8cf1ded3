//! The user's SSH configuration for a host, as `ssh -G HOST` prints it: OpenSSH itself resolves `Match`,
//! `Include`, aliases and defaults. Without OpenSSH the defaults are used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::options::SshOptions;
use crate::error::{Error, Kind, Result};
use crate::storage::location::Remote;

/// Names in `~/.ssh` that `ssh -G` lists, with others, if no key file is configured.
const DEFAULT_KEYS: [&str; 3] = ["id_rsa", "id_ecdsa", "id_ed25519"];

/// The settings by which a host is reached.
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
    /// Number of key files, from the first one on, that the user named: by `-i` or in the configuration.
    pub explicit_keys: usize,
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
    /// The ciphers of OpenSSH, in the user's order.
    pub ciphers: Option<String>,
    /// The settings that libssh2 does not support.
    pub needs_openssh: Option<String>,
}

impl HostConfig {
    /// Reads the output of `ssh -G`, or takes the defaults where there is no `ssh`.
    pub fn read(mut ssh: Command, remote: &Remote, options: &SshOptions) -> Result<Self> {
        let values = match ssh.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => Some(Values::parse(&String::from_utf8_lossy(&output.stdout))),
            Ok(output) => {
                let text = crate::storage::sftp::printable(output.stderr.trim_ascii());
                return Err(Error::failed(format!("ssh cannot read its configuration for {}: {text}", remote.host)));
            }
            Err(_) => None,
        };
        Self::from_values(values, remote, options)
    }

    pub(crate) fn from_values(values: Option<Values>, remote: &Remote, options: &SshOptions) -> Result<Self> {
        let has_openssh = values.is_some();
        let values = values.unwrap_or_default();
        let home = std::env::home_dir().unwrap_or_else(|| "/".into());
        let hostname = values.one("hostname").unwrap_or(&remote.host).to_string();
        let user = values.user(remote)?;
        let configured = values.one("port").and_then(|port| port.parse().ok());
        let port = remote.port.or(options.port).or(configured).unwrap_or(22);
        let tokens = Tokens { home: &home, hostname: &hostname, original: &remote.host, user: &user, port };
        let (configured, are_defaults) = values.identities(&tokens);
        let explicit_keys = options.identity.len() + if are_defaults { 0 } else { configured.len() };
        let identity_files: Vec<PathBuf> = options.identity.iter().cloned().chain(configured).collect();
        Ok(HostConfig {
            has_openssh,
            needs_openssh: values.needs_openssh(&remote.host, &identity_files),
            identity_files,
            explicit_keys,
            identities_only: values.one("identitiesonly") == Some("yes"),
            agent: values.agent(options, &tokens),
            known_hosts: options.known_hosts.clone().unwrap_or_else(|| values.known_hosts(&tokens)),
            ciphers: values.one("ciphers").map(Into::into),
            host_key_alias: values.one("hostkeyalias").map(Into::into),
            hash_known_hosts: values.one("hashknownhosts") == Some("yes"),
            accept_new: options.accept_new_host_key || values.one("stricthostkeychecking") == Some("accept-new"),
            address_family: values.one("addressfamily").filter(|family| *family != "any").map(Into::into),
            keepalive: values
                .set("serveraliveinterval")
                .and_then(|s| s.parse().ok())
                .filter(|s| *s > 0)
                .map(Duration::from_secs),
            hostname,
            user,
            port,
        })
    }
}

/// The lines of `ssh -G`: each key, in lower case, with its values.
#[derive(Default)]
pub(crate) struct Values(HashMap<String, Vec<String>>);

impl Values {
    /// Reads `key value` lines.
    pub(crate) fn parse(text: &str) -> Self {
        let mut values: HashMap<String, Vec<String>> = HashMap::new();
        for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            values.entry(key.to_ascii_lowercase()).or_default().push(value.trim().trim_matches('"').into());
        }
        Values(values)
    }

    /// Returns the first value of `key` that is not empty.
    fn one(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|all| all.first()).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the value of `key` unless it is `none` or `no`.
    fn set(&self, key: &str) -> Option<&str> {
        self.one(key).filter(|value| !value.eq_ignore_ascii_case("none") && !value.eq_ignore_ascii_case("no"))
    }

    fn user(&self, remote: &Remote) -> Result<String> {
        if let Some(user) = remote.user.as_deref().or(self.one("user")) {
            return Ok(user.into());
        }
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).map_err(|_| {
            Error::new(Kind::Usage, "the address names no user and the system does not tell yours")
                .hint("write user@host:path")
        })
    }

    /// Returns the configured key files, and whether they are only OpenSSH's defaults.
    fn identities(&self, tokens: &Tokens<'_>) -> (Vec<PathBuf>, bool) {
        let default = |name: &&str| tokens.home.join(".ssh").join(name);
        let Some(files) = self.0.get("identityfile") else {
            return (["id_ed25519", "id_ecdsa", "id_rsa"].iter().map(default).collect(), true);
        };
        let files: Vec<PathBuf> = files.iter().filter(|file| *file != "none").map(|file| tokens.path(file)).collect();
        let are_defaults = DEFAULT_KEYS.iter().map(default).all(|file| files.contains(&file));
        (files, are_defaults)
    }

    fn agent(&self, options: &SshOptions, tokens: &Tokens<'_>) -> Option<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        match (&options.agent, self.one("identityagent")) {
            (Some(path), _) => Some(path.clone()).filter(|path| !path.as_os_str().is_empty()),
            (None, Some("none")) => None,
            (None, None | Some("SSH_AUTH_SOCK")) => variable("SSH_AUTH_SOCK"),
            (None, Some(value)) => match value.strip_prefix('$') {
                Some(name) => variable(name.trim_matches(['{', '}'])),
                None => Some(tokens.path(value)),
            },
        }
    }

    fn known_hosts(&self, tokens: &Tokens<'_>) -> Vec<PathBuf> {
        let user = self.one("userknownhostsfile").unwrap_or("~/.ssh/known_hosts ~/.ssh/known_hosts2");
        let global = self.one("globalknownhostsfile").unwrap_or("/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2");
        let files = split_paths(user).into_iter().chain(split_paths(global));
        files.filter(|file| *file != "none").map(|file| tokens.path(file)).collect()
    }

    /// Returns a setting that libssh2 does not support.
    fn needs_openssh(&self, host: &str, identity_files: &[PathBuf]) -> Option<String> {
        let keys = ["proxyjump", "proxycommand", "certificatefile", "pkcs11provider", "knownhostscommand"].into_iter();
        let mut keys = keys.chain(["revokedhostkeys", "bindaddress", "bindinterface", "hostbasedauthentication"]);
        if let Some(key) = keys.find(|key| self.set(key).is_some()) {
            return Some(format!("the SSH configuration of {host} sets {key}"));
        }
        let token = identity_files.iter().find(|file| is_security_key(file))?;
        Some(format!("{} is kept in a security key", token.display()))
    }
}

/// Splits a list of file names that `ssh -G` prints without the quotes of the configuration file: a name begins with `/`,
/// `~`, `%` or `$`, so other words belong to the name before them.
fn split_paths(text: &str) -> Vec<&str> {
    let begins = |at: usize| text[at + 1..].starts_with(['/', '~', '%', '$']);
    let mut ends: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).filter(|at| begins(*at)).collect();
    ends.push(text.len());
    let mut start = 0;
    let names = ends.into_iter().map(|end| {
        let name = text[start..end].trim();
        start = end;
        name
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// Returns whether the secret half of a key is in a FIDO token, as its public half shows.
fn is_security_key(file: &Path) -> bool {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    let is_public = |file: &Path| std::fs::read_to_string(file).is_ok_and(|text| text.starts_with("sk-"));
    is_public(file) || file.exists() && is_public(Path::new(&beside))
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
        HostConfig::from_values(Some(Values::parse(text)), &remote, &options).expect("a configuration")
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
    fn file_names_may_hold_blanks() {
        let c = config(
            "user u\nidentityfile /x/my key\nidentityfile /y\nuserknownhostsfile /x/kn  own ~/b c /d\nglobalknownhostsfile none\n",
        );
        assert_eq!(c.identity_files, [PathBuf::from("/x/my key"), PathBuf::from("/y")]);
        let home = std::env::home_dir().expect("a home");
        assert_eq!(c.known_hosts, [PathBuf::from("/x/kn  own"), home.join("b c"), PathBuf::from("/d")]);
        assert_eq!(c.explicit_keys, 2);
        let lines = DEFAULT_KEYS.map(|name| format!("identityfile ~/.ssh/{name}\n")).concat();
        assert_eq!(config(&format!("user u\n{lines}")).explicit_keys, 0);
    }

    #[test]
    fn what_libssh2_cannot_do_is_noticed() {
        for line in ["proxyjump bastion", "proxycommand nc %h %p", "certificatefile /x", "bindaddress 10.0.0.1"] {
            assert!(config(&format!("user u\n{line}")).needs_openssh.is_some(), "{line}");
        }
    }
}
