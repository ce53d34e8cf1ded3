//! Services for every backend on a server, whatever its protocol: retries, rate limits, admission of uploads, listings ahead
//! of their use.
//!
//! In: a way to connect ([`Dial`]) and operations on a [`Connection`] that report how they failed ([`Fault`]).
//! Out: their results, after as many attempts as the options allow, and news of lost connections for the user.

pub mod allowance;
pub mod expected;
pub mod gate;
pub mod limit;
pub mod pace;
pub mod retry;

use std::time::Duration;

use crate::error::{Error, Result};

/// Receives one line about the connection for the user: that it was lost, that it works again. The line may hold words of the
/// server, so control characters must be escaped before it is shown.
pub type Notice = std::sync::Arc<dyn Fn(&str) + Send + Sync>;

/// A live connection to a server.
pub trait Connection: Send + Sync + 'static {
    /// Returns why the connection cannot be used any more, if that is known.
    fn lost(&self) -> Option<String>;
}

/// Makes connections.
pub trait Dial: Send + Sync {
    /// The type of its connections.
    type Connection: Connection;

    /// Makes a connection, ready to be used.
    fn dial(&self) -> Result<Self::Connection, DialError>;

    /// Returns the server's name for messages: `host port 22`.
    fn server(&self) -> String;
}

/// The reason why no connection could be made.
#[derive(Debug)]
pub struct DialError {
    /// The error for the user.
    pub error: Error,
    /// Whether a later attempt may succeed. Not so after a refused login or a changed host key.
    pub again: bool,
}

/// The reason why an operation on a connection failed.
#[derive(Debug)]
pub enum Fault {
    /// The connection is lost or cannot be trusted: the operation is repeated on another one.
    Lost(String),
    /// The server has too much to do or a fault of its own: the operation is repeated on the same connection, after a pause, which
    /// is at least the one that the server asks for.
    #[cfg_attr(not(feature = "s3"), allow(dead_code))]
    Busy(String, Duration),
    /// The server's answer, or a limit of the client: a repetition would end alike.
    Final(Error),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Final(e)
    }
}

/// Rules for replacing a lost connection.
#[derive(Clone)]
pub struct RetryOptions {
    /// Time for which an operation is repeated after its connection was lost; zero: never.
    pub retry_for: Duration,
    /// Whether that also holds for the first connection.
    pub retry_first: bool,
    /// Longest pause between two attempts to connect, except after a refused login.
    pub longest_pause: Duration,
    /// Receives news of the connection for the user.
    pub notice: Notice,
}
