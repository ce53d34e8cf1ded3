//! Keeps one connection for a storage and makes a new one when it is lost: an operation whose connection broke is repeated
//! on the next, with growing pauses, until it has been tried for as long as the options allow.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::sftp::{Connection, Fault};
use crate::error::{Error, Kind, Result};

/// The first pause; doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why no connection could be made.
#[derive(Debug)]
pub struct DialError {
    /// What to tell the user.
    pub error: Error,
    /// Whether it may go better later: not so for a refused login or a changed host key.
    pub again: bool,
}

/// Makes connections.
pub trait Dial: Send + Sync {
    /// A new connection, ready to be used.
    fn dial(&self) -> Result<Connection, DialError>;

    /// The server, for messages: `host port 22`.
    fn server(&self) -> String;
}

/// The present connection.
struct Slot {
    connection: Option<Arc<Connection>>,
    failures: u32,
    not_before: Instant,
}

/// Runs operations on a connection that is renewed when it breaks.
pub struct Reconnecting {
    dial: Box<dyn Dial>,
    slot: Mutex<Slot>,
    retry_for: Duration,
}

impl Reconnecting {
    /// Connects; a first connection that fails is reported at once.
    pub fn new(dial: Box<dyn Dial>, retry_for: Duration) -> Result<Self> {
        let connection = dial.dial().map_err(|e| e.error)?;
        let slot = Slot { connection: Some(Arc::new(connection)), failures: 0, not_before: Instant::now() };
        Ok(Reconnecting { dial, slot: Mutex::new(slot), retry_for })
    }

    /// Runs `operation`, again on a new connection whenever it is lost; its second argument says that it is a repetition.
    pub fn run<T>(&self, mut operation: impl FnMut(&Connection, bool) -> Result<T, Fault>) -> Result<T> {
        let mut give_up: Option<Instant> = None;
        let mut losses = 0;
        loop {
            let connection = self.connection(give_up)?;
            let why = match operation(&connection, losses > 0) {
                Ok(value) => return Ok(value),
                Err(Fault::Final(e)) => return Err(e),
                Err(Fault::Lost(why)) => why,
            };
            drop(connection);
            let deadline = *give_up.get_or_insert_with(|| Instant::now() + self.retry_for);
            losses += 1;
            // the first repetition at once; a server that breaks off again and again gets longer pauses
            let pause = if losses == 1 { Duration::ZERO } else { pause(losses - 2) };
            if Instant::now() + pause >= deadline {
                return Err(Error::new(
                    Kind::Connection,
                    format!("lost the connection to {}: {why}", self.dial.server()),
                ));
            }
            std::thread::sleep(pause);
        }
    }

    /// The connection, made anew if it is gone. Only one thread dials; none sleeps while it holds the lock.
    fn connection(&self, give_up: Option<Instant>) -> Result<Arc<Connection>> {
        let give_up = give_up.unwrap_or_else(|| Instant::now() + self.retry_for);
        loop {
            let wait = {
                let mut slot = self.slot.lock().expect("no holder panics");
                if let Some(connection) = &slot.connection
                    && !connection.session.is_lost()
                {
                    return Ok(Arc::clone(connection));
                }
                slot.connection = None;
                let now = Instant::now();
                if now < slot.not_before {
                    slot.not_before - now
                } else {
                    match self.dial.dial() {
                        Ok(connection) => {
                            slot.failures = 0;
                            let connection = Arc::new(connection);
                            slot.connection = Some(Arc::clone(&connection));
                            return Ok(connection);
                        }
                        Err(e) if !e.again => return Err(e.error),
                        Err(e) => {
                            let pause = pause(slot.failures);
                            slot.failures += 1;
                            slot.not_before = Instant::now() + pause;
                            if Instant::now() + pause >= give_up {
                                return Err(e.error);
                            }
                            pause
                        }
                    }
                }
            };
            std::thread::sleep(wait);
        }
    }
}

/// 0.5 s, doubled with each failure, at most 30 s.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE)
}
