//! When a run that was asked to stop has tried long enough. On a line that works, what follows the request (a last commit)
//! still goes through; a line on which nothing moves is given up soon.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind};

/// How long a run that was asked to stop still reconnects, and waits for a server that does not answer.
pub const LAST_CHANCE: Duration = Duration::from_secs(8);
/// How often whoever waits looks whether it was asked to stop.
pub const SLICE: Duration = Duration::from_millis(50);

/// Asks whether an operation is to be given up.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// The flag of `Options::stop`, and since when it is set.
#[derive(Clone, Default)]
pub struct Halt {
    flag: Option<Arc<AtomicI32>>,
    since: Arc<OnceLock<Instant>>,
}

impl Halt {
    pub fn new(flag: Option<Arc<AtomicI32>>) -> Self {
        Halt { flag, since: Arc::default() }
    }

    /// The signal that asked to stop, and how long ago that was first seen here.
    pub fn asked(&self) -> Option<(i32, Duration)> {
        let signal = self.flag.as_ref().map(|flag| flag.load(Ordering::Relaxed)).filter(|signal| *signal != 0)?;
        Some((signal, self.since.get_or_init(Instant::now).elapsed()))
    }

    /// What ends an operation that would have to reconnect or to wait on, once the last chance is over.
    pub fn over(&self) -> Option<Error> {
        let (signal, _) = self.asked().filter(|(_, since)| *since >= LAST_CHANCE)?;
        Some(Error::new(Kind::Interrupted(signal), "interrupted while the server could not be reached"))
    }
}

/// The end of a put that was told to stop.
pub fn stopped() -> Error {
    Error::new(Kind::Interrupted(0), "stopped before it was stored")
}
