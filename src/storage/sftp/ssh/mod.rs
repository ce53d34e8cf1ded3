//! Reaches an SSH server: resolves the address through the user's SSH configuration, chooses the transport, verifies the
//! host's key, logs in, and hands byte streams to the SFTP engine.

mod auth;
mod channels;
mod child;
mod command;
mod config;
mod keys;
mod known_hosts;
mod mixed;
mod options;
mod questions;
mod tcp;

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ssh2::{MethodType, Session};

use self::auth::Login;
use self::channels::{Channels, words};
use self::child::{Children, Program};
use self::config::HostConfig;
use self::known_hosts::{KnownHosts, Verdict};
use self::mixed::Mixed;
use self::questions::Secrets;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::storage::location::Remote;
use crate::storage::net::allowance::OVERDUE;
use crate::storage::net::{Dial, DialError, Fault, Notice};
use crate::storage::sftp::link::Link;
use crate::storage::sftp::{self, CLOSED, NOT_SFTP, SftpConnection, Times, Traffic};
pub use child::command_words;
pub use command::on_server;
pub use options::{Bulk, NoPrompt, Prompt, SshOptions, Transport};

/// Default number of channels. OpenSSH takes 2 MiB on each in a round trip, and allows 10.
const CHANNELS: usize = 8;
/// Processes, which cost a login each.
const PROCESSES: usize = 4;
/// Interval of keepalive requests on an idle connection, unless `ServerAliveInterval` is set.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// OpenSSH asks for secrets itself, and a person needs time.
const TIME_TO_TYPE: Duration = Duration::from_secs(300);

/// CTR first: libssh2 calls OpenSSL for each block, which costs 4.5 s/GB for GCM, 3.3 for CTR with an encrypt-then-MAC, and the
/// strict key exchange of both sides guards the sequence numbers. Everything that passes is sealed by us anyway.
const CIPHERS: &str =
    "aes256-ctr,aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes192-ctr,aes128-ctr";
const MACS: &str = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512";
/// Without certificates: libssh2 would take one and could not verify it.
const HOST_KEYS: &[(&str, &[&str])] = &[
    ("ssh-ed25519", &["ssh-ed25519"]),
    ("ecdsa-sha2-nistp256", &["ecdsa-sha2-nistp256"]),
    ("ecdsa-sha2-nistp384", &["ecdsa-sha2-nistp384"]),
    ("ecdsa-sha2-nistp521", &["ecdsa-sha2-nistp521"]),
    ("ssh-rsa", &["rsa-sha2-512", "rsa-sha2-256"]),
];

enum Way {
    /// libssh2, and the program to run if libssh2 has no algorithm in common with the server.
    Ssh2(Box<HostConfig>, Option<Program>),
    /// A program, and the configuration if the program is `ssh`.
    Program(Program, Option<Box<HostConfig>>),
}

/// Makes connections to one server.
pub struct Dialer {
    way: Way,
    options: SshOptions,
    secrets: Secrets,
    root: String,
    server: String,
    traffic: Arc<Traffic>,
    notice: Notice,
    ctx: Context<'static>,
    keepalive: Duration,
    dialed: AtomicBool,
    /// Whether processes for bulk data are of use.
    bulk: Arc<AtomicBool>,
}

impl Dialer {
    /// Resolves the address; nothing is connected yet.
    pub fn new(
        remote: &Remote,
        options: SshOptions,
        traffic: Arc<Traffic>,
        notice: Notice,
        ctx: Context<'static>,
    ) -> Result<Self> {
        let root = remote.path.clone();
        let secrets = Secrets::default();
        if let Some(program) = options.command.clone() {
            let way = Way::Program(Program { first: program.clone(), more: program }, None);
            let (server, dialed, keepalive) = (remote.host.clone(), AtomicBool::new(false), KEEPALIVE);
            let bulk = Arc::default();
            return Ok(Dialer { way, options, secrets, root, server, traffic, notice, ctx, keepalive, dialed, bulk });
        }
        keys::check_named(&options.identity)?;
        let config = HostConfig::read(command::configuration(remote, &options), remote, &options)?;
        let server = format!("{} port {}", config.hostname, config.port);
        let keepalive = config.keepalive.unwrap_or(KEEPALIVE);
        let openssh = match options.transport {
            Transport::Ssh2 => false,
            Transport::OpenSsh => true,
            Transport::Auto => config.has_openssh && (config.needs_openssh.is_some() || has_authority(&config)),
        };
        if openssh && !config.has_openssh {
            return Err(Error::failed("the program ssh is not installed")
                .hint("install OpenSSH's client, or use --transport ssh2"));
        }
        let program = || command::sftp(remote, &options, &config);
        let way = match openssh {
            true => Way::Program(program(), Some(Box::new(config))),
            false => {
                let fallback = (options.transport == Transport::Auto && config.has_openssh).then(program);
                Way::Ssh2(Box::new(config), fallback)
            }
        };
        let dialed = AtomicBool::new(false);
        // a rate that the user limits needs no second core
        let is_limited = traffic.upload.is_some() || traffic.download.is_some();
        let bulk = Arc::new(AtomicBool::new(options.connections.is_none() && !is_limited));
        Ok(Dialer { way, options, secrets, root, server, traffic, notice, ctx, keepalive, dialed, bulk })
    }

    /// Connects by libssh2. `program` is OpenSSH's, where it may help with bulk data.
    fn ssh2(&self, config: &HostConfig, program: Option<&Program>) -> Result<Box<dyn Link>, Trouble> {
        let unreachable = |text: String| DialError {
            error: Error::new(Kind::Connection, format!("cannot connect to {}: {text}", self.server))
                .hint("is the address right, is the server up, and does it listen on this port?"),
            again: true,
        };
        let refused = |error: Error| DialError { error: error.while_doing(&self.server), again: false };
        let socket = tcp::connect(config, &self.options).map_err(unreachable)?;
        let known = KnownHosts::read(&config.known_hosts);
        let (name, port) = key_place(config);
        let failed = |e: ssh2::Error| DialError { again: true, ..unreachable(words(&e)) };
        let mut session = Session::new().map_err(failed)?;
        let prefer = |method, names: &str| session.method_pref(method, names).map_err(failed);
        prefer(MethodType::CryptCs, CIPHERS)?;
        prefer(MethodType::CryptSc, CIPHERS)?;
        prefer(MethodType::MacCs, MACS)?;
        prefer(MethodType::MacSc, MACS)?;
        prefer(MethodType::HostKey, &host_key_order(&known.kinds(name, port)))?;
        session.set_timeout(millis(self.options.connect_timeout));
        let ours = socket.try_clone().map_err(|e| unreachable(e.to_string()))?;
        session.set_tcp_stream(socket);
        let guard = ShutOnDrop(Some(&ours));
        session.handshake().map_err(|e| match e.code() {
            ssh2::ErrorCode::Session(-5 | -8 | -33 | -51) => Trouble::Algorithms(failed(e)),
            _ => Trouble::Other(failed(e)),
        })?;
        let key = session
            .host_key()
            .map(|(key, _)| key.to_vec())
            .ok_or_else(|| unreachable("it showed no host key".into()))?;
        if let Some(news) = verify(config, &known, &key).map_err(refused)? {
            (self.notice)(&news);
        }
        session.set_timeout(millis(self.options.io_timeout));
        let key = Login::new(&session, &ours, config, &self.options, &self.secrets).run().map_err(|e| {
            // a server that went away in between may come back; a refusal will repeat
            match tcp::is_gone(&ours) {
                true => unreachable(format!("it closed the connection during the login; {e}")),
                false => DialError { error: e.while_doing(&self.server), again: false },
            }
        })?;
        let mut guard = guard;
        let stream = ours.try_clone().map_err(|e| unreachable(e.to_string()))?;
        let link = self.open_channels(session, stream)?;
        guard.0 = None;
        Ok(match (program, key) {
            (Some(program), Some(key)) => {
                let program = command::bulk(program, &key);
                Box::new(Mixed::new(link, program, self.options.bulk, Arc::clone(&self.bulk)))
            }
            _ => Box::new(link),
        })
    }

    fn open_channels(&self, session: Session, stream: TcpStream) -> Result<Channels, DialError> {
        Channels::open(session, stream).map_err(|e| DialError {
            error: Error::new(Kind::Connection, format!("{} starts no SFTP: {}", self.server, words(&e)))
                .hint("the account must be allowed to use SFTP (`Subsystem sftp` in the server's sshd_config)"),
            again: true,
        })
    }

    /// Returns whether the connection goes by way of another host, whose key `ssh` checks by itself.
    fn has_jump_host(&self) -> bool {
        let Way::Program(_, Some(config)) = &self.way else { return false };
        config.needs_openssh.as_deref().is_some_and(|why| why.ends_with("proxyjump") || why.ends_with("proxycommand"))
    }

    /// Returns the error for a link on which no SFTP began.
    fn not_started(&self, why: &str) -> DialError {
        let error = Error::new(Kind::Connection, format!("cannot connect to {}: {why}", self.server));
        let text = why.to_lowercase();
        if text.contains("host key for") && text.contains("has changed") {
            let hint = "someone may be in between; only if you know why: remove the old key with `ssh-keygen -R HOST`";
            return DialError { error: error.hint(hint), again: false };
        }
        if text.contains("host key verification failed") {
            let hint = "compare the key's fingerprint with the server's, then pass --accept-new-host-key";
            return DialError { error: error.hint(hint), again: false };
        }
        if why.contains(NOT_SFTP) {
            let hint = "a start file of the account (.bashrc, .profile) or a forced command prints; `ssh HOST true` must print nothing";
            return DialError { error: error.hint(hint), again: false };
        }
        if text.contains("exec: ") && text.contains(": not found") {
            return DialError { error: error.hint("install that program, or put its folder into PATH"), again: false };
        }
        if matches!(self.way, Way::Program(_, None)) {
            let hint = "run the command of `-o sftp.command=` by hand: it must speak SFTP on its standard streams";
            return DialError { error: error.hint(hint), again: true };
        }
        if self.has_jump_host() {
            let hint =
                "`ssh HOST` by hand shows which host refuses; --accept-new-host-key does not hold for a jump host";
            return DialError { error: error.hint(hint), again: !text.contains("permission denied (") };
        }
        if why.contains(CLOSED) {
            let hint = "the log of the server's sshd has the reason: the SFTP program of `Subsystem sftp` or of a forced \
                        command ended, or the `ChrootDirectory` does not belong to root alone";
            return DialError { error: error.hint(hint), again: true };
        }
        DialError { error, again: !text.contains("permission denied (") }
    }

    fn program(&self, program: &Program) -> Result<Box<dyn Link>, DialError> {
        Children::start(program.clone()).map(|children| Box::new(children) as _).map_err(|e: io::Error| {
            let name = program.first.first().map_or("", String::as_str);
            DialError { error: Error::new(Kind::Connection, format!("cannot run {name}: {e}")), again: false }
        })
    }
}

/// Notices keys of the host that the program `ssh` adds to `known_hosts`.
struct NewKeys<'a> {
    config: &'a HostConfig,
    before: Vec<(Vec<u8>, String)>,
}

impl<'a> NewKeys<'a> {
    fn watch(config: &'a HostConfig) -> Self {
        NewKeys { config, before: known_keys(config) }
    }

    fn news(&self) -> Option<String> {
        let (name, port) = key_place(self.config);
        let all = known_keys(self.config);
        let (key, place) = all.iter().find(|(key, _)| !self.before.iter().any(|(known, _)| known == key))?;
        Some(format!("{}: added to {place}", accepted(name, port, key)))
    }
}

fn known_keys(config: &HostConfig) -> Vec<(Vec<u8>, String)> {
    let (name, port) = key_place(config);
    KnownHosts::read(&config.known_hosts).keys(name, port)
}

/// The reason why libssh2 made no connection.
enum Trouble {
    /// Nothing that both sides know: another program may do better.
    Algorithms(DialError),
    Other(DialError),
}

impl From<DialError> for Trouble {
    fn from(e: DialError) -> Self {
        Trouble::Other(e)
    }
}

/// A session whose socket is not shut first waits for the server in its drop.
struct ShutOnDrop<'a>(Option<&'a TcpStream>);

impl Drop for ShutOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(socket) = self.0 {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Dial for Dialer {
    type Connection = SftpConnection;

    fn dial(&self) -> Result<SftpConnection, DialError> {
        let again = self.dialed.load(Ordering::SeqCst);
        let patience = self.options.connect_timeout + self.options.io_timeout;
        let to_type = if again { patience } else { TIME_TO_TYPE.max(patience) };
        let mut new_keys = None;
        let (link, time) = match &self.way {
            Way::Program(program, config) => {
                new_keys = config.as_deref().filter(|config| config.accept_new).map(NewKeys::watch);
                (self.program(program)?, to_type)
            }
            Way::Ssh2(config, fallback) => match (self.ssh2(config, fallback.as_ref()), fallback) {
                (Ok(link), _) => (link, self.options.io_timeout),
                (Err(Trouble::Algorithms(_)), Some(program)) => (self.program(program)?, to_type),
                (Err(Trouble::Algorithms(e) | Trouble::Other(e)), _) => return Err(e),
            },
        };
        let usual = if link.eager() { CHANNELS } else { PROCESSES };
        let channels = self.options.connections.unwrap_or(usual).clamp(1, 64);
        let (io, keepalive, ctx) = (self.options.io_timeout, self.keepalive, self.ctx.clone());
        let times = Times { io, first: time, operation: io * OVERDUE, keepalive, ctx };
        let session = sftp::Session::start(link, channels, times, Arc::clone(&self.traffic));
        if let Some(news) = new_keys.and_then(|keys| keys.news()) {
            (self.notice)(&news);
        }
        match session {
            Ok(session) => {
                self.dialed.store(true, Ordering::SeqCst);
                Ok(SftpConnection::new(session, &self.root))
            }
            Err(Fault::Final(error)) => Err(DialError { error, again: false }),
            Err(Fault::Lost(why) | Fault::Busy(why, _)) => Err(self.not_started(&why)),
        }
    }

    fn server(&self) -> String {
        self.server.clone()
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// Returns the name and port under which a host's key is kept.
fn key_place(config: &HostConfig) -> (&str, u16) {
    match &config.host_key_alias {
        Some(alias) => (alias, 22),
        None => (&config.hostname, config.port),
    }
}

fn has_authority(config: &HostConfig) -> bool {
    let (name, port) = key_place(config);
    KnownHosts::read(&config.known_hosts).has_authority(name, port)
}

/// Returns the algorithms that are accepted for the host's key. The algorithms of known keys come first.
fn host_key_order(known: &[String]) -> String {
    let is_known = |kind: &str| known.iter().any(|known| known == kind);
    let (first, rest): (Vec<_>, Vec<_>) = HOST_KEYS.iter().partition(|(kind, _)| is_known(kind));
    let names: Vec<&str> = first.into_iter().chain(rest).flat_map(|(_, names)| names.iter().copied()).collect();
    names.join(",")
}

/// Accepts the host's key, or fails with a hint. Returns news of a key that was added. No secret has been sent before this.
fn verify(config: &HostConfig, known: &KnownHosts, key: &[u8]) -> Result<Option<String>> {
    let (name, port) = key_place(config);
    let shown = format!("{} {}", known_hosts::kind(key), known_hosts::fingerprint(key));
    let refuse = |text: String| Err::<Option<String>, _>(Error::new(Kind::Connection, text));
    match known.check(name, port, key) {
        Verdict::Known => Ok(None),
        Verdict::Revoked(place) => refuse(format!("the host's key is revoked ({place}): {shown}")),
        Verdict::Changed(place) => refuse(format!("THE HOST'S KEY HAS CHANGED, or someone is in between: it is now {shown}, another is known in {place}"))
            .map_err(|e| e.hint(format!("only if you know why: remove the old one with `ssh-keygen -R '{}'`", shown_place(name, port)))),
        Verdict::Unknown if config.accept_new => {
            let Some(file) = config.known_hosts.first() else {
                return Ok(Some(format!("{}, which is kept in no file", accepted(name, port, key))));
            };
            known_hosts::append(file, name, port, key, config.hash_known_hosts)?;
            Ok(Some(format!("{}: added to {}", accepted(name, port, key), file.display())))
        }
        Verdict::Unknown => refuse(format!("the host's key is not known: {shown}")).map_err(|e| {
            e.hint("compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the server, then pass --accept-new-host-key")
        }),
    }
}

fn accepted(name: &str, port: u16, key: &[u8]) -> String {
    let place = shown_place(name, port);
    format!("accepted the unknown host key of {place}, {} {}", known_hosts::kind(key), known_hosts::fingerprint(key))
}

fn shown_place(name: &str, port: u16) -> String {
    if port == 22 { name.into() } else { format!("[{name}]:{port}") }
}
