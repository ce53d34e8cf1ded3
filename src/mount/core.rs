//! The path of every request: answered from memory at once, else by a worker thread, else refused at its deadline.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::deadline::{DeadlineClock, Ticket};
use super::foreground::Foreground;
use super::logging::RateLimitedLog;
use super::statistics::Counters;
use super::workers::WorkerPool;
use crate::context::Context;
use crate::error::Error;
use crate::printable;
use crate::vfs::{Fault, Mode, RecentFailures, Vfs, passing};

/// Threads for reads.
const READERS: usize = 20;
/// Threads for reads that never do read-ahead.
const RESERVED_READERS: usize = 6;
/// Threads for names and attributes.
const NAMERS: usize = 6;
/// Unit of a file, in bytes, for which a failure is remembered.
const UNIT: u64 = 64 << 10;
/// Time that a worker may still use after the deadline of its request.
const GRACE: Duration = Duration::from_millis(500);

/// The object of a request, for messages and for the choice of the worker pool.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A name in this directory, its listing, or the attributes of this node.
    Node(u64),
    /// Bytes of a file.
    Read(u64, Range<u64>),
}

/// A request of the kernel.
pub trait Request: Send + Sync + 'static {
    /// The sender of the reply.
    type Reply: Send + 'static;
    /// The content of the reply.
    type Answer;

    /// Returns the object of the request.
    fn subject(&self) -> Subject;

    /// Finds the answer, in memory only or with the storage.
    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<Self::Answer, Fault>;

    /// Sends the reply.
    fn send(&self, core: &Core, reply: Self::Reply, answer: Result<Self::Answer, Fault>);

    /// Takes the effects of an answer back that came after the deadline.
    fn undo(&self, _vfs: &Vfs, _late: Self::Answer) {}
}

/// The threads and the state of one mount.
pub struct Core {
    /// Ends when the mount stops.
    ctx: Context<'static>,
    pub vfs: Arc<Vfs>,
    pub log: RateLimitedLog,
    pub counters: Counters,
    /// Requests that wait for the storage.
    pub foreground: Foreground,
    /// Threads for reads and for read-ahead.
    pub readers: WorkerPool,
    /// Time that a request may wait for the storage.
    pub timeout: Duration,
    namers: WorkerPool,
    clock: DeadlineClock,
    stopping: AtomicBool,
    failures: RecentFailures<(u64, u64)>,
}

impl Core {
    pub fn new(ctx: &Context, vfs: Arc<Vfs>, log: RateLimitedLog, timeout: Duration) -> std::io::Result<Self> {
        Ok(Core {
            ctx: ctx.detached().child(),
            vfs,
            log,
            counters: Counters::default(),
            foreground: Foreground::default(),
            readers: WorkerPool::new("read", READERS, RESERVED_READERS)?,
            timeout,
            namers: WorkerPool::new("name", NAMERS, NAMERS)?,
            clock: DeadlineClock::new(timeout)?,
            stopping: AtomicBool::new(false),
            failures: RecentFailures::default(),
        })
    }

    /// Refuses all waiting requests and all later ones that would have to wait.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.ctx.cancel();
        self.clock.close();
        self.foreground.stop();
    }

    /// Returns the context for work that may take `time` from now on.
    pub fn within(&self, time: Duration) -> Context<'static> {
        self.ctx.with_deadline(Instant::now() + time)
    }

    /// Answers a request from memory, or hands it to a worker.
    pub fn answer<R: Request>(self: &Arc<Self>, request: R, reply: R::Reply) {
        match guarded(|| request.find(self, Mode::Cached)) {
            Err(Fault::Wait) => {}
            answer => return self.send(&request, reply, answer),
        }
        if let Some(error) = self.failures.find(units(&request.subject())) {
            // The kernel repeats a read whose failure is in the log already.
            self.counters.failed.fetch_add(1, Relaxed);
            return self.deliver(&request, reply, Err(Fault::Broken(error)));
        }
        self.counters.waited.fetch_add(1, Relaxed);
        self.hand_over(Arc::new(request), reply);
    }

    fn hand_over<R: Request>(self: &Arc<Self>, request: Arc<R>, reply: R::Reply) {
        let ticket = {
            let (core, request) = (Arc::clone(self), Arc::clone(&request));
            self.clock.watch(reply, move |reply| core.refuse(&*request, reply))
        };
        let pool = match request.subject() {
            Subject::Node(_) => &self.namers,
            Subject::Read(..) => &self.readers,
        };
        let core = Arc::clone(self);
        let waiting = self.foreground.enter();
        pool.run(move || {
            core.fetch(&*request, &ticket);
            drop(waiting);
        });
    }

    /// Answers a request on a worker thread. The clock replies at the deadline; the worker returns soon after it.
    fn fetch<R: Request>(self: &Arc<Self>, request: &R, ticket: &Ticket<R::Reply>) {
        if ticket.is_taken() {
            return;
        }
        let answer = guarded(|| request.find(self, Mode::Fetch(&self.ctx.with_deadline(ticket.due + GRACE))));
        match (ticket.take(), answer) {
            (Some(reply), answer) => {
                self.remember_failure(request, &answer);
                self.send(request, reply, answer);
            }
            (None, Ok(late)) => request.undo(&self.vfs, late),
            (None, Err(_)) => {}
        }
    }

    /// Remembers an error that may pass; the vfs remembers damage.
    fn remember_failure<R: Request>(&self, request: &R, answer: &Result<R::Answer, Fault>) {
        if let Err(Fault::Broken(error)) = answer
            && passing(error)
        {
            self.failures.add(units(&request.subject()), error);
        }
    }

    /// Refuses a request whose deadline has passed.
    fn refuse<R: Request>(&self, request: &R, reply: R::Reply) {
        let stopping = self.stopping.load(Relaxed);
        let error = Error::failed(if stopping { "unmounting" } else { "the storage does not answer in time" });
        self.failures.add(units(&request.subject()), &error);
        self.send(request, reply, Err(Fault::Broken(error)));
    }

    /// Sends a reply; counts and logs a failure.
    fn send<R: Request>(&self, request: &R, reply: R::Reply, answer: Result<R::Answer, Fault>) {
        if let Err(Fault::Broken(error)) = &answer {
            self.counters.failed.fetch_add(1, Relaxed);
            if !self.stopping.load(Relaxed) {
                self.report(&request.subject(), error);
            }
        }
        self.deliver(request, reply, answer);
    }

    fn deliver<R: Request>(&self, request: &R, reply: R::Reply, answer: Result<R::Answer, Fault>) {
        drop(catch_unwind(AssertUnwindSafe(|| request.send(self, reply, answer))));
    }

    fn report(&self, subject: &Subject, error: &Error) {
        self.log.line(|| match subject {
            Subject::Node(ino) => format!("cannot look into {}: {error}", self.path(*ino)),
            Subject::Read(ino, range) => {
                format!("cannot read {} at {}..{}: {error}", self.path(*ino), range.start, range.end)
            }
        });
    }

    fn path(&self, ino: u64) -> String {
        printable::name(&self.vfs.path(ino))
    }

    /// Returns figures of the mount as several lines of text.
    pub fn statistics(&self) -> String {
        self.counters.text(&self.vfs, self.readers.queued() + self.namers.queued())
    }
}

/// Returns the parts of a file that a read needs, by inode number and index; none for other requests.
fn units(subject: &Subject) -> impl Iterator<Item = (u64, u64)> + use<> {
    let (ino, range) = match subject {
        Subject::Node(ino) => (*ino, 0..0),
        Subject::Read(ino, range) => (*ino, range.start / UNIT..range.end.div_ceil(UNIT)),
    };
    range.map(move |unit| (ino, unit))
}

/// Runs a handler; a panic becomes a fault.
pub fn guarded<T>(handler: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(handler))
        .unwrap_or_else(|_| Err(Fault::Broken(Error::failed("internal error: a handler panicked"))))
}
