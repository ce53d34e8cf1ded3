//! Options of a storage on a server. Nothing here reads the environment; that is the task of the cli.

use std::sync::Arc;
use std::time::Duration;

use super::bucket::S3Options;
use super::net::limit::Limit;
use super::net::pace::Pace;
use super::net::{Notice, RetryOptions};
use super::sftp::ssh::SshOptions;

/// Options for a server.
#[derive(Clone)]
pub struct Options {
    /// Time for which an operation is repeated after a working connection was lost; zero: never.
    pub retry_for: Duration,
    /// Whether the first connection is tried for as long too.
    pub retry_first: bool,
    /// Longest pause between two attempts to connect, except after a refused login.
    pub longest_pause: Duration,
    /// Most bytes sent per second, as the protocol counts them, without what SSH and TCP add.
    pub limit_upload: Option<Limit>,
    /// Most bytes requested per second.
    pub limit_download: Option<Limit>,
    /// Receives news of the connection.
    pub notice: Notice,
    /// Options for SSH.
    pub ssh: SshOptions,
    /// Options for an object store.
    pub s3: S3Options,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            retry_for: Duration::from_secs(15 * 60),
            retry_first: false,
            longest_pause: Duration::from_secs(30),
            limit_upload: None,
            limit_download: None,
            notice: Arc::new(|_| {}),
            ssh: SshOptions::default(),
            s3: S3Options::default(),
        }
    }
}

impl Options {
    /// Returns what keeps the limits of upload and download.
    pub(super) fn paces(&self) -> (Option<Pace>, Option<Pace>) {
        (self.limit_upload.clone().map(Pace::new), self.limit_download.clone().map(Pace::new))
    }

    /// Returns the part that concerns lost connections.
    pub(super) fn retry(&self) -> RetryOptions {
        let Options { retry_for, retry_first, longest_pause, .. } = *self;
        RetryOptions { retry_for, retry_first, longest_pause, notice: Arc::clone(&self.notice) }
    }
}
