//! How the threads of a push end together: at the first error, or when a signal asks to stop.
//!
//! Whoever waits for another thread waits in slices of [`PATIENCE`] and asks [`Control::check`] in between, so that no
//! thread outlives the failure of another one.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};

/// How long anybody waits for another thread before asking whether the push goes on at all.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// How long a push that ends early tries to commit what it has: a line that works needs two round trips and a second.
const LAST: Duration = Duration::from_secs(10);

/// Shared by all threads of one push.
pub struct Control<'p> {
    progress: &'p dyn Progress,
    stop: Arc<AtomicI32>,
    ended: AtomicBool,
    /// When the end was first seen.
    ending: OnceLock<Instant>,
    first: Mutex<Option<Error>>,
    skipped: AtomicU64,
    unsteady: AtomicU64,
    excluded: AtomicU64,
}

impl<'p> Control<'p> {
    pub fn new(progress: &'p dyn Progress, stop: Arc<AtomicI32>) -> Self {
        let (ended, ending, first, skipped, unsteady, excluded) = Default::default();
        Control { progress, stop, ended, ending, first, skipped, unsteady, excluded }
    }

    /// Whether to go on. What it gives as an error is either the signal or says only that another thread has failed.
    pub fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            0 if self.ended.load(Ordering::Relaxed) => Err(Error::failed("another thread has failed")),
            0 => Ok(()),
            signal => Err(Error::new(Kind::Interrupted(signal), "interrupted before the snapshot was complete")),
        }
    }

    /// Whether the push ends before it is done.
    pub fn stopping(&self) -> bool {
        let stopping = self.stop.load(Ordering::Relaxed) != 0 || self.ended.load(Ordering::Relaxed);
        if stopping {
            self.ending.get_or_init(Instant::now);
        }
        stopping
    }

    /// The push ends, whoever says so.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.ending.get_or_init(Instant::now);
    }

    /// Whether even the last commit of a push that ends early has taken too long.
    pub fn late(&self) -> bool {
        self.stopping() && self.ending.get().is_some_and(|since| since.elapsed() > LAST)
    }

    /// Runs the body of a thread. Ends the push if it fails, and also if it panics, so that nobody waits for it.
    pub fn run<T>(&self, body: impl FnOnce() -> Result<T>) -> Option<T> {
        let _alarm = Alarm(self);
        self.note(body())
    }

    /// Ends the push if this thread failed. The first error is the one that is told.
    fn note<T>(&self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let mut first = self.first.lock().expect("no holder panics");
                if !self.ended.swap(true, Ordering::Relaxed) {
                    *first = Some(error);
                }
                None
            }
        }
    }

    /// The first error, if any thread failed.
    pub fn result(&self) -> Result<()> {
        self.first.lock().expect("no holder panics").take().map_or(Ok(()), Err)
    }

    /// Sends, unless the push ends first.
    pub fn send<T>(&self, to: &Sender<T>, mut value: T) -> Result<()> {
        loop {
            match to.send_timeout(value, PATIENCE) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) => value = back,
                Err(SendTimeoutError::Disconnected(_)) => return Err(Error::failed("another thread has ended")),
            }
            self.check()?;
        }
    }

    /// Receives; `None` when all senders are gone.
    pub fn receive<T>(&self, from: &Receiver<T>) -> Result<Option<T>> {
        loop {
            match from.recv_timeout(PATIENCE) {
                Ok(value) => return Ok(Some(value)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.check()?,
            }
        }
    }

    pub fn event(&self, event: Event<'_>) {
        self.progress.event(event);
    }

    pub fn warn(&self, text: &str) {
        self.event(Event::Warning { text });
    }

    /// Reports a node that could not be saved (as it should be).
    pub fn skip(&self, path: &[u8], why: &Error) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        self.event(Event::Skipped { path, why });
    }

    /// Reports a file that changed each time it was read.
    pub fn unsteady(&self, path: &[u8]) {
        self.unsteady.fetch_add(1, Ordering::Relaxed);
        let path = String::from_utf8_lossy(path);
        self.warn(&format!("{path} changed each time it was read; what is saved of it may belong to several moments"));
    }

    pub fn changed_while_read(&self) -> u64 {
        self.unsteady.load(Ordering::Relaxed)
    }

    /// Reports something that is left out because the user wants it so.
    pub fn exclude(&self, path: &[u8]) {
        self.excluded.fetch_add(1, Ordering::Relaxed);
        self.event(Event::Excluded { path });
    }

    pub fn excluded(&self) -> u64 {
        self.excluded.load(Ordering::Relaxed)
    }

    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

struct Alarm<'c>(&'c Control<'c>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.ended.store(true, Ordering::Relaxed);
        }
    }
}
