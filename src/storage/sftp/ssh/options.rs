//! Options of SSH connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// Asks the user for a secret. Called from the thread that connects, one call at a time.
pub trait Prompt: Send + Sync {
    /// Returns the secret that `text` asks for. `text` may hold words of the server (it then begins with "server asks: "), so
    /// control characters must be escaped before it is shown. An error ends the attempt to connect.
    fn secret(&self, text: &str) -> Result<String>;
}

/// The prompt of unattended programs: every question is an error.
#[derive(Clone, Copy, Debug)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn secret(&self, text: &str) -> Result<String> {
        let asked = text.trim_end_matches([' ', ':']);
        Err(Error::new(
            Kind::Connection,
            format!("a secret is needed, and there is no terminal to ask for it ({asked})"),
        )
        .hint("load the key into ssh-agent, or name an unencrypted key with -i"))
    }
}

/// The program that speaks SSH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// [`Transport::Ssh2`], unless the user's SSH configuration needs what libssh2 cannot do. Processes `ssh` are added for
    /// bulk data under the conditions of [`Bulk`].
    #[default]
    Auto,
    /// libssh2 within this process.
    Ssh2,
    /// `ssh -s HOST sftp` as child processes.
    OpenSsh,
}

/// When [`Transport::Auto`] adds processes for bulk data. On a long network the round trip is the limit and not the processor,
/// and a process takes only 2 MiB in one.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// Bytes that have passed on the connection.
    pub after: u64,
    /// Longest round trip.
    pub within: Duration,
}

impl Bulk {
    /// Returns whether it is time.
    pub fn holds(&self, moved: u64, round_trip: Duration) -> bool {
        moved >= self.after && round_trip <= self.within
    }
}

impl Default for Bulk {
    fn default() -> Self {
        Bulk { after: 64 << 20, within: Duration::from_millis(5) }
    }
}

/// Options for SSH.
#[derive(Clone)]
pub struct SshOptions {
    /// The program that speaks SSH.
    pub transport: Transport,
    /// Most SFTP channels (ssh2) or processes (openssh); 8 and 4 by default.
    pub connections: Option<usize>,
    /// When `Auto` adds processes for bulk data; never if `connections` is set.
    pub bulk: Bulk,
    /// Key files of `-i`, tried first.
    pub identity: Vec<PathBuf>,
    /// The port, if the address names none.
    pub port: Option<u16>,
    /// Accepts the key of an unknown host and appends it to `known_hosts`. A changed key is still refused.
    pub accept_new_host_key: bool,
    /// Longest wait for a connection to be made, for each address and for the handshake.
    pub connect_timeout: Duration,
    /// A connection is given up if nothing moves on it for this time although an answer is due.
    pub io_timeout: Duration,
    /// A program with its arguments that is run instead of `ssh -s HOST sftp` and speaks SFTP on its standard streams.
    pub command: Option<Vec<String>>,
    /// Files used instead of the user's and the system's `known_hosts`. New keys go to the first one.
    pub known_hosts: Option<Vec<PathBuf>>,
    /// File used instead of `~/.ssh/config` and the system's (`ssh -F`).
    pub ssh_config: Option<PathBuf>,
    /// Socket of the agent, instead of `IdentityAgent` and `SSH_AUTH_SOCK`. An empty path means no agent.
    pub agent: Option<PathBuf>,
    /// Asks for passphrases and passwords.
    pub prompt: Arc<dyn Prompt>,
}

impl Default for SshOptions {
    fn default() -> Self {
        SshOptions {
            transport: Transport::Auto,
            connections: None,
            bulk: Bulk::default(),
            identity: Vec::new(),
            port: None,
            accept_new_host_key: false,
            connect_timeout: Duration::from_secs(10),
            io_timeout: Duration::from_secs(30),
            command: None,
            known_hosts: None,
            ssh_config: None,
            agent: None,
            prompt: Arc::new(NoPrompt),
        }
    }
}
