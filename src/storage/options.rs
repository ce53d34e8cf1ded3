//! What a caller may decide about the way to a server. Nothing here reads the environment; that is the cli's part.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// Asks a person for a secret. Called from whichever thread connects, one at a time.
pub trait Prompt: Send + Sync {
    /// The secret that `text` asks for. `text` may hold words of the server (it then says "server asks: ..."), so whoever
    /// shows it escapes control characters. An error gives up the connection.
    fn secret(&self, text: &str) -> Result<String>;
}

/// The prompt of programs that nobody watches: every question is an error.
#[derive(Clone, Copy, Debug)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn secret(&self, text: &str) -> Result<String> {
        let asked = text.trim_end_matches([' ', ':']);
        Err(Error::new(Kind::Connection, format!("a secret is needed and nobody can be asked ({asked})"))
            .hint("load the key into ssh-agent, or name an unencrypted key with -i"))
    }
}

/// Which program speaks SSH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// [`Transport::Ssh2`], unless the user's SSH configuration needs what libssh2 cannot do.
    #[default]
    Auto,
    /// libssh2 within this process.
    Ssh2,
    /// `ssh -s HOST sftp` as child processes.
    OpenSsh,
}

/// Gets one line about the connection, for people: that it was lost, that it is there again. It may hold words of the server,
/// so whoever shows it escapes control characters.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// How to reach a server.
#[derive(Clone)]
pub struct Options {
    /// Which program speaks SSH.
    pub transport: Transport,
    /// How many SFTP channels (ssh2) or processes (openssh) are used at most; 8 and 4 by default.
    pub connections: Option<usize>,
    /// Key files of `-i`, tried first.
    pub identity: Vec<PathBuf>,
    /// The port, if the address names none.
    pub port: Option<u16>,
    /// Accept the key of a host that is not known, and append it to `known_hosts`. A changed key is refused all the same.
    pub accept_new_host_key: bool,
    /// The longest wait for a connection to be made (each address, the handshake).
    pub connect_timeout: Duration,
    /// A connection on which nothing moves for so long although an answer is due is given up.
    pub io_timeout: Duration,
    /// How long an operation goes on to reconnect after a connection that once worked was lost; zero: not at all.
    pub retry_for: Duration,
    /// The longest pause between two attempts to reconnect, but for a login that was refused.
    pub longest_pause: Duration,
    /// Bytes a second that are sent at most, over all channels; as SFTP counts them, without what SSH and TCP add.
    pub limit_upload: Option<u64>,
    /// Bytes a second that are asked for at most.
    pub limit_download: Option<u64>,
    /// A whole command line that is run instead of `ssh -s HOST sftp` and speaks SFTP on its standard streams; no shell.
    pub ssh_command: Option<String>,
    /// Used instead of the user's and the system's `known_hosts`; the first one gets new keys.
    pub known_hosts: Option<Vec<PathBuf>>,
    /// Used instead of `~/.ssh/config` and the system's (`ssh -F`).
    pub ssh_config: Option<PathBuf>,
    /// The agent's socket, instead of `IdentityAgent` and `SSH_AUTH_SOCK`; an empty path means no agent.
    pub agent: Option<PathBuf>,
    /// Who is asked for passphrases and passwords.
    pub prompt: Arc<dyn Prompt>,
    /// Told when the connection is lost and when it is there again.
    pub notice: Notice,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            transport: Transport::Auto,
            connections: None,
            identity: Vec::new(),
            port: None,
            accept_new_host_key: false,
            connect_timeout: Duration::from_secs(10),
            io_timeout: Duration::from_secs(30),
            retry_for: Duration::from_secs(15 * 60),
            longest_pause: Duration::from_secs(30),
            limit_upload: None,
            limit_download: None,
            ssh_command: None,
            known_hosts: None,
            ssh_config: None,
            agent: None,
            prompt: Arc::new(NoPrompt),
            notice: Arc::new(|_| {}),
        }
    }
}
