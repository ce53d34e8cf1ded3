//! Keeps one connection for a storage and makes a new one when it is lost: an operation whose connection broke is repeated
//! on the next, until it has been tried for as long as the options allow.
//!
//! A separate thread connects, so that waiting threads can be stopped. A connection that was of use is
//! replaced at once; after one that was not, and after each that could not be made, there are growing pauses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{Connection, Dial, DialError, Fault, RetryOptions};
use crate::context::{Context, SLICE};
use crate::error::{Error, Kind, Result};

/// The first pause; doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// After a login that was refused, and the longest pause of all.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest pause that a busy server can ask for.
const LONGEST_WISH: Duration = Duration::from_secs(5 * 60);
/// After this number of connections lost in a row, an operation is repeated with pauses of its own.
const UNLUCKY: u32 = 4;
/// Shortest time between two news of a connection that breaks all the time.
const NEWS: Duration = Duration::from_secs(60);

/// Time after the user's stop in which a lost connection is still replaced, and a silent server is waited for.
pub const LAST_CHANCE: Duration = Duration::from_secs(8);

/// The current connection, or the state of the attempts to make one.
struct Slot<C> {
    connection: Option<Arc<C>>,
    dialing: bool,
    /// Connections since the last one that was of use.
    failures: u32,
    not_before: Instant,
    /// The last attempt's error, and whether it may go better later. Kept until one succeeds.
    failed: Option<(u64, Refused)>,
    /// Attempts to connect so far, without the first one, and connections that were made.
    attempts: u64,
    made: u64,
    /// Since when there is no connection, if that was reported to the user.
    told: Option<Instant>,
    last_news: Option<Instant>,
}

impl<C> Slot<C> {
    /// Returns whether the last news was long enough ago.
    fn is_news_due(&self) -> bool {
        self.last_news.is_none_or(|last| last.elapsed() >= NEWS)
    }
}

/// An error that several threads get.
struct Refused {
    kind: Kind,
    text: String,
    hint: Option<String>,
    again: bool,
}

impl Refused {
    fn error(&self) -> Error {
        let error = Error::new(self.kind, &*self.text);
        match &self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

struct Keeper<C> {
    dial: Box<dyn Dial<Connection = C>>,
    slot: Mutex<Slot<C>>,
    changed: Condvar,
    /// Whether the present connection has done anything.
    of_use: AtomicBool,
    options: RetryOptions,
    /// Of who opened the storage: whether the user still wants to hear of lost connections.
    ctx: Context<'static>,
}

/// Runs operations on a connection that is renewed when it breaks.
pub struct Reconnecting<C>(Arc<Keeper<C>>);

impl<C> Clone for Reconnecting<C> {
    fn clone(&self) -> Self {
        Reconnecting(Arc::clone(&self.0))
    }
}

impl<C: Connection> Reconnecting<C> {
    /// Connects. A first connection that fails is reported at once, unless the options say that it is tried again.
    pub fn new(ctx: &Context, dial: Box<dyn Dial<Connection = C>>, options: RetryOptions) -> Result<Self> {
        let connection = first(ctx, &*dial, &options)?;
        let slot = Slot {
            connection: Some(Arc::new(connection)),
            dialing: false,
            failures: 0,
            not_before: Instant::now(),
            failed: None,
            attempts: 0,
            made: 1,
            told: None,
            last_news: None,
        };
        Ok(Reconnecting(Arc::new(Keeper {
            dial,
            slot: Mutex::new(slot),
            changed: Condvar::new(),
            of_use: AtomicBool::new(false),
            options,
            ctx: ctx.detached(),
        })))
    }

    /// Returns how many connections were made so far.
    pub fn made(&self) -> u64 {
        self.0.slot().made
    }

    /// Runs `operation`, again on a new connection whenever it is lost, and again after a pause when the server is busy; its second
    /// argument is true for a repetition.
    pub fn run<T>(&self, ctx: &Context, mut operation: impl FnMut(&C, bool) -> Result<T, Fault>) -> Result<T> {
        let keeper = &self.0;
        let mut give_up: Option<Instant> = None;
        let (mut losses, mut refusals) = (0, 0);
        loop {
            let connection = keeper.connection(ctx, give_up)?;
            let (pause, text) = match operation(&connection, losses + refusals > 0) {
                Ok(value) => {
                    keeper.of_use.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(Fault::Final(e)) => return Err(e),
                Err(Fault::Lost(why)) => {
                    keeper.lost(&connection, &why);
                    losses += 1;
                    let pause = if losses < UNLUCKY { Duration::ZERO } else { pause(losses - UNLUCKY) };
                    (pause, format!("lost the connection to {}: {why}", keeper.dial.server()))
                }
                Err(Fault::Busy(why, wish)) => {
                    refusals += 1;
                    let text = format!("{} cannot serve a request now: {why}", keeper.dial.server());
                    keeper.busy(refusals, &text);
                    (scattered(pause(refusals - 1)).max(wish.min(LONGEST_WISH)), text)
                }
            };
            drop(connection);
            let deadline = *give_up.get_or_insert_with(|| Instant::now() + keeper.options.retry_for);
            last_chance(ctx)?;
            if Instant::now() + pause >= deadline {
                return Err(Error::new(Kind::Connection, text));
            }
            keeper.pause(ctx, Instant::now() + pause)?;
        }
    }
}

impl<C: Connection> Keeper<C> {
    fn slot(&self) -> MutexGuard<'_, Slot<C>> {
        self.slot.lock().expect("no holder panics")
    }

    /// Waits before the next attempt.
    fn pause(&self, ctx: &Context, until: Instant) -> Result<()> {
        while Instant::now() < until {
            last_chance(ctx)?;
            ctx.sleep_until(until.min(Instant::now() + SLICE))?;
        }
        ctx.check()
    }

    /// Returns the connection, made anew if it is gone.
    fn connection(self: &Arc<Self>, ctx: &Context, give_up: Option<Instant>) -> Result<Arc<C>> {
        let give_up = give_up.unwrap_or_else(|| Instant::now() + self.options.retry_for);
        let mut slot = self.slot();
        let seen = slot.attempts;
        loop {
            if let Some(connection) = &slot.connection {
                let Some(why) = connection.lost() else { return Ok(Arc::clone(connection)) };
                let news = self.mourn(&mut slot, &why);
                drop(slot);
                self.tell(news);
                slot = self.slot();
            }
            ctx.check()?;
            last_chance(ctx)?;
            let now = Instant::now();
            if let Some((attempt, refused)) = &slot.failed {
                // a login that was refused is not tried again by each of many threads: servers ban who does that
                let final_word = !refused.again && (*attempt > seen || now < slot.not_before);
                if final_word || *attempt > seen && now.max(slot.not_before) >= give_up {
                    return Err(refused.error());
                }
            }
            // an operation whose time ends within the pause still gets one attempt, unless retries are off
            let tried = slot.attempts > seen || self.options.retry_for.is_zero();
            if now >= give_up && !slot.dialing && tried {
                let text = format!("the connection to {} was lost", self.dial.server());
                return Err(Error::new(Kind::Connection, text));
            }
            if !slot.dialing && (now >= slot.not_before || now >= give_up && !tried) {
                slot.dialing = true;
                let keeper = Arc::clone(self);
                let thread = std::thread::Builder::new().name("connect".into()).spawn(move || keeper.dial());
                thread.map_err(Error::no_thread)?;
            }
            slot = self.changed.wait_timeout(slot, SLICE).expect("no holder panics").0;
        }
    }

    /// One attempt to connect, by a thread of its own.
    fn dial(&self) {
        let result = self.dial.dial();
        let mut slot = self.slot();
        slot.dialing = false;
        slot.attempts += 1;
        let news = match result {
            Ok(connection) => {
                slot.connection = Some(Arc::new(connection));
                slot.made += 1;
                slot.failed = None;
                self.of_use.store(false, Ordering::Relaxed);
                let since = slot.told.take();
                since.map(|t| format!("connected to {} again after {} s", self.dial.server(), t.elapsed().as_secs()))
            }
            Err(DialError { error, again }) => {
                slot.not_before = Instant::now() + if again { self.next_pause(slot.failures) } else { LONGEST_PAUSE };
                slot.failures += 1;
                let (kind, text, hint) = (error.kind(), error.to_string(), error.hint_text().map(Into::into));
                let news = again && slot.told.is_none() && slot.is_news_due();
                let news = news.then(|| self.news(&mut slot, &text));
                slot.failed = Some((slot.attempts, Refused { kind, text, hint, again }));
                news
            }
        };
        drop(slot);
        self.tell(news);
        self.changed.notify_all();
    }

    /// A connection broke: the first who sees it decides when the next one is made.
    fn lost(&self, connection: &Arc<C>, why: &str) {
        let mut slot = self.slot();
        if slot.connection.as_ref().is_some_and(|present| Arc::ptr_eq(present, connection)) {
            let news = self.mourn(&mut slot, why);
            drop(slot);
            self.tell(news);
        }
    }

    /// Reports a server that stays busy, at most once a minute.
    fn busy(&self, refusals: u32, text: &str) {
        let mut slot = self.slot();
        if refusals < UNLUCKY || !slot.is_news_due() {
            return;
        }
        slot.last_news = Some(Instant::now());
        drop(slot);
        self.tell(Some(format!("{text}; trying again for up to {}", words(self.options.retry_for))));
    }

    fn next_pause(&self, failures: u32) -> Duration {
        pause(failures).min(self.options.longest_pause)
    }

    fn mourn(&self, slot: &mut Slot<C>, why: &str) -> Option<String> {
        slot.connection = None;
        let of_use = self.of_use.load(Ordering::Relaxed);
        slot.failures = if of_use { 0 } else { slot.failures + 1 };
        slot.not_before = Instant::now() + if of_use { Duration::ZERO } else { self.next_pause(slot.failures - 1) };
        slot.is_news_due().then(|| self.news(slot, &format!("lost the connection to {}: {why}", self.dial.server())))
    }

    fn news(&self, slot: &mut Slot<C>, text: &str) -> String {
        slot.told = Some(Instant::now());
        slot.last_news = slot.told;
        format!("{text}; trying again for up to {}", words(self.options.retry_for))
    }

    /// Sends news to the user, with no lock held.
    fn tell(&self, news: Option<String>) {
        let trying = !self.options.retry_for.is_zero() && self.ctx.signal().is_none();
        if let Some(news) = news.filter(|_| trying) {
            (self.options.notice)(&news);
        }
    }
}

/// Makes the first connection.
fn first<C: Connection>(ctx: &Context, dial: &dyn Dial<Connection = C>, options: &RetryOptions) -> Result<C> {
    let give_up = Instant::now() + if options.retry_first { options.retry_for } else { Duration::ZERO };
    let mut failures = 0;
    loop {
        let DialError { error, again } = match dial.dial() {
            Ok(connection) => return Ok(connection),
            Err(e) => e,
        };
        let now = Instant::now();
        if !again || now >= give_up {
            return Err(error);
        }
        if failures == 0 {
            (options.notice)(&format!("{error}; trying again for up to {}", words(options.retry_for)));
        }
        ctx.sleep_until(give_up.min(now + pause(failures).min(options.longest_pause)))?;
        failures += 1;
    }
}

/// Fails if the user's stop is too long ago to continue without a working connection.
fn last_chance(ctx: &Context) -> Result<()> {
    match ctx.signal() {
        Some((signal, since)) if since >= LAST_CHANCE => {
            Err(Error::new(Kind::Interrupted(signal), "interrupted while the server could not be reached"))
        }
        _ => Ok(()),
    }
}

/// 0.5 s, doubled with each failure, at most 30 s.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE)
}

/// Shortens a pause by up to a half, so that threads which were refused together do not come back together.
fn scattered(pause: Duration) -> Duration {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    pause.mul_f64(0.5 + f64::from(nanos / 1000 % 512) / 1024.0)
}

fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 120 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
