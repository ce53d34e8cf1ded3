//! What every request goes through: answered at once from memory, else by a worker, else refused when the time is over.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::logging::Limited;
use super::prefetch_thread::Lull;
use super::workers::{Clock, Pool};
use crate::error::Error;
use crate::printable;
use crate::repo::patience;
use crate::vfs::{Ahead, Fault, Mode, Stretch, Vfs};

/// Threads for reads, and those of them that never work ahead.
const READERS: (usize, usize) = (20, 6);
/// Threads for names and attributes.
const NAMERS: usize = 6;
/// Stretches of files whose reads timed out lately, in units of [`UNIT`]; they are refused at once for [`PAUSE`],
/// because the kernel repeats each failed read.
const TIMED_OUT: NonZeroUsize = NonZeroUsize::new(4096).expect("positive");
const UNIT: u64 = 64 << 10;
const PAUSE: Duration = Duration::from_secs(3);
/// By how much a worker is more patient than the clock.
const GRACE: Duration = Duration::from_millis(500);

/// What a request is about, for messages.
#[derive(Clone, Debug)]
pub enum What {
    /// A name in this directory, a listing, attributes of this node.
    Node(u64),
    /// Bytes of a file.
    Read(u64, Range<u64>),
}

/// Requests of each kind since the mount, and what became of them.
#[derive(Default)]
pub struct Counters {
    /// By name.
    pub lookups: AtomicU64,
    /// Attributes.
    pub attributes: AtomicU64,
    /// Parts of listings.
    pub listings: AtomicU64,
    /// Extended attributes.
    pub xattrs: AtomicU64,
    /// Reads.
    pub reads: AtomicU64,
    /// Bytes they gave.
    pub bytes: AtomicU64,
    /// Requests that had to wait for the storage.
    pub waited: AtomicU64,
    /// Requests that were refused because something could not be fetched or verified.
    pub failed: AtomicU64,
    /// Stretches fetched ahead.
    pub ahead: AtomicU64,
    /// Pages of `latest` that were looked through in the background.
    pub pages: AtomicU64,
    /// Whether that has come to its end.
    pub pages_done: AtomicBool,
}

/// See the module.
pub struct Core {
    pub vfs: Arc<Vfs>,
    pub log: Limited,
    pub counters: Counters,
    data: Pool,
    names: Pool,
    clock: Clock,
    timeout: Duration,
    stopping: AtomicBool,
    timed_out: Mutex<LruCache<(u64, u64), Instant>>,
    /// When nobody waits for the storage.
    pub lull: Lull,
}

impl Core {
    pub fn new(vfs: Arc<Vfs>, log: Limited, timeout: Duration) -> std::io::Result<Self> {
        Ok(Core {
            vfs,
            log,
            counters: Counters::default(),
            data: Pool::new("read", READERS.0, READERS.1)?,
            names: Pool::new("name", NAMERS, NAMERS)?,
            clock: Clock::new(timeout)?,
            timeout,
            stopping: AtomicBool::new(false),
            timed_out: Mutex::new(LruCache::new(TIMED_OUT)),
            lull: Lull::default(),
        })
    }

    /// Refuses everything that waits and everything that would have to.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.clock.close();
        self.lull.stop();
    }

    /// Answers a request: `op` is asked for what is in memory, and if it has to wait, again by a worker. `answer` gets
    /// the reply and the result; `undo` gets a result that nobody waits for any more.
    pub fn answer<R: Send + 'static, T: 'static>(
        self: &Arc<Self>,
        what: What,
        reply: R,
        op: impl Fn(&Vfs, Mode) -> Result<T, Fault> + Send + 'static,
        answer: impl Fn(&Arc<Core>, R, Result<T, Fault>) + Send + Sync + Clone + 'static,
        undo: impl FnOnce(&Vfs, T) + Send + 'static,
    ) {
        match guarded(|| op(&self.vfs, Mode::Cached)) {
            Err(Fault::Wait) => {}
            result => return self.finish(&what, reply, result, &answer),
        }
        if let What::Read(ino, range) = &what
            && self.gave_up(*ino, range)
        {
            let error = Fault::Broken(Error::failed("the storage did not answer in time, a moment ago"));
            return self.finish(&what, reply, Err(error), &answer);
        }
        self.counters.waited.fetch_add(1, Relaxed);
        let late = {
            let (core, what, answer) = (Arc::clone(self), what.clone(), answer.clone());
            move |reply| {
                let why =
                    if core.stopping.load(Relaxed) { "unmounting" } else { "the storage does not answer in time" };
                if let What::Read(ino, range) = &what {
                    core.give_up(*ino, range);
                }
                core.finish(&what, reply, Err(Fault::Broken(Error::failed(why))), &answer);
            }
        };
        let ticket = self.clock.watch(reply, late);
        let core = Arc::clone(self);
        let pool = if matches!(what, What::Read(..)) { &self.data } else { &self.names };
        let waiting = self.lull.enter();
        pool.run(move || {
            let _waiting = waiting;
            if ticket.is_taken() {
                return;
            }
            // The clock answers first; soon after it the worker is free again, whatever the storage does.
            let result = patience::until(Some(ticket.due + GRACE), || guarded(|| op(&core.vfs, Mode::Fetch)));
            match (ticket.take(), result) {
                (Some(reply), result) => core.finish(&what, reply, result, &answer),
                (None, Ok(late)) => undo(&core.vfs, late),
                (None, Err(_)) => {}
            }
        });
    }

    fn finish<R, T>(
        self: &Arc<Self>,
        what: &What,
        reply: R,
        result: Result<T, Fault>,
        answer: &impl Fn(&Arc<Core>, R, Result<T, Fault>),
    ) {
        if let Err(Fault::Broken(e)) = &result {
            self.counters.failed.fetch_add(1, Relaxed);
            if !self.stopping.load(Relaxed) {
                self.report(what, e);
            }
        }
        drop(catch_unwind(AssertUnwindSafe(|| answer(self, reply, result))));
    }

    fn report(&self, what: &What, error: &Error) {
        self.log.line(|| {
            let ino = match what {
                What::Node(ino) | What::Read(ino, _) => *ino,
            };
            let path = printable::name(&self.vfs.path(ino));
            match what {
                What::Node(_) => format!("cannot look into {path}: {error}"),
                What::Read(_, range) => format!("cannot read {path} at {}..{}: {error}", range.start, range.end),
            }
        });
    }

    /// Fetches ahead when nothing else is to be done, in stretches of 1 MiB.
    pub fn ahead(self: &Arc<Self>, ahead: Ahead) {
        match self.vfs.plan(&ahead, Mode::Cached) {
            Ok(parts) => self.ahead_parts(&ahead, parts),
            Err(_) => {
                let core = Arc::clone(self);
                self.work_ahead(move || {
                    if let Ok(parts) = core.vfs.plan(&ahead, Mode::Fetch) {
                        core.ahead_parts(&ahead, parts);
                    }
                });
            }
        }
    }

    fn ahead_parts(self: &Arc<Self>, ahead: &Ahead, parts: Vec<Stretch>) {
        for part in parts {
            self.counters.ahead.fetch_add(1, Relaxed);
            let (core, ahead) = (Arc::clone(self), ahead.clone());
            self.work_ahead(move || {
                if core.vfs.wanted(&ahead) {
                    core.vfs.fetch_ahead(&part);
                }
            });
        }
    }

    /// Runs what nobody waits for, which must not keep a thread for ever either.
    fn work_ahead(&self, job: impl FnOnce() + Send + 'static) {
        let timeout = self.timeout;
        self.data.ahead(move || patience::until(Some(Instant::now() + timeout), job));
    }

    fn gave_up(&self, ino: u64, range: &Range<u64>) -> bool {
        let mut timed_out = self.timed_out.lock().expect("no holder panics");
        !timed_out.is_empty()
            && (range.start / UNIT..range.end.div_ceil(UNIT))
                .any(|unit| timed_out.get(&(ino, unit)).is_some_and(|at| at.elapsed() < PAUSE))
    }

    fn give_up(&self, ino: u64, range: &Range<u64>) {
        let mut timed_out = self.timed_out.lock().expect("no holder panics");
        let now = Instant::now();
        for unit in range.start / UNIT..range.end.div_ceil(UNIT) {
            timed_out.put((ino, unit), now);
        }
    }

    /// Figures for people.
    pub fn statistics(&self) -> String {
        let c = &self.counters;
        let n = |counter: &AtomicU64| counter.load(Relaxed);
        let (cache, figures) = (self.vfs.repository().cache_stats(), self.vfs.figures());
        let (sent, received) = self.vfs.repository().storage().traffic();
        let names = format!("{}{}", if c.pages_done.load(Relaxed) { "all, " } else { "" }, n(&c.pages));
        format!(
            "requests: {} lookups, {} attributes, {} listings, {} xattrs, {} reads ({} bytes); {} waited, {} failed, \
             {} now in the queue\n\
             blocks: {} from memory, {} fetched in {} reads of {} bytes, {} stretches ahead\n\
             memory: {} nodes, {} directories, {} bytes of pages\n\
             fetched: {} bytes of contents, {} of folders, {} of the log\n\
             names: {} pages looked through in the background\n\
             line: {sent} bytes sent, {received} received, {} connections made",
            n(&c.lookups),
            n(&c.attributes),
            n(&c.listings),
            n(&c.xattrs),
            n(&c.reads),
            n(&c.bytes),
            n(&c.waited),
            n(&c.failed),
            self.data.waiting() + self.names.waiting(),
            cache.hits,
            cache.misses,
            cache.reads,
            cache.bytes,
            n(&c.ahead),
            figures.nodes,
            figures.directories,
            figures.pages,
            cache.contents,
            cache.metadata,
            cache.records,
            names,
            self.vfs.repository().storage().connections(),
        )
    }
}

fn guarded<T>(op: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(op))
        .unwrap_or_else(|_| Err(Fault::Broken(Error::failed("internal error: a handler panicked"))))
}
