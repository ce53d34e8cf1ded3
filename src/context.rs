//! The context of an operation: when it must end, and where it reports progress and warnings.
//!
//! A caller makes one [`Context`] per operation and passes it by reference to everything that waits or does I/O. Derived
//! contexts share the user's stop: [`Context::child`] adds a cancellation for a group of threads, [`Context::with_deadline`]
//! a deadline, [`Context::with_grace`] time to finish after a stop, [`Context::with_stop_grace`] after the user's stop only.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress, Silent};

/// Longest wait between two calls of [`Context::check`].
pub const SLICE: Duration = Duration::from_millis(50);

/// Returns the context that never ends and reports nothing.
pub fn background() -> &'static Context<'static> {
    static BACKGROUND: LazyLock<Context<'static>> = LazyLock::new(|| Context::root(&Silent, None));
    &BACKGROUND
}

/// Cancellation, deadline and progress of one operation. Cheap to clone and to derive from.
#[derive(Clone)]
pub struct Context<'p> {
    progress: &'p dyn Progress,
    scope: Arc<Scope>,
    deadline: Option<Instant>,
    /// Time to finish after a cancellation.
    grace: Duration,
    /// Time to finish after the user's stop.
    stop_grace: Duration,
}

/// A node in the tree of cancellations: the user's stop at the root, a group of threads below it.
struct Scope {
    parent: Option<Arc<Scope>>,
    /// The number of the signal that asked to stop; 0 until then.
    signal: Option<Arc<AtomicI32>>,
    cancelled: AtomicBool,
    /// When the stop of this node was first seen.
    since: OnceLock<Instant>,
    /// Whether the operation sends data that it had read before the user's stop.
    sends_rest: AtomicBool,
}

/// Returns whether a grace that began at `since` is over.
fn is_over(grace: Duration, since: Instant) -> bool {
    grace.is_zero() || since.elapsed() > grace
}

impl Scope {
    fn new(parent: Option<Arc<Scope>>, signal: Option<Arc<AtomicI32>>) -> Self {
        let (cancelled, sends_rest) = (AtomicBool::new(false), AtomicBool::new(false));
        Scope { parent, signal, cancelled, since: OnceLock::new(), sends_rest }
    }

    fn signal(&self) -> Option<(i32, Instant)> {
        let root = self.root();
        let signal = root.signal.as_ref().map_or(0, |signal| signal.load(Ordering::Relaxed));
        (signal != 0).then(|| (signal, *root.since.get_or_init(Instant::now)))
    }

    fn root(&self) -> &Scope {
        let mut scope = self;
        while let Some(parent) = &scope.parent {
            scope = parent;
        }
        scope
    }

    /// Returns when a cancellation of this node or of one above it was first seen.
    fn cancelled(&self) -> Option<Instant> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if here.cancelled.load(Ordering::Relaxed) {
                return Some(*here.since.get_or_init(Instant::now));
            }
            scope = here.parent.as_deref();
        }
        None
    }

    /// Returns whether this call was the first to cancel.
    fn cancel(&self) -> bool {
        let first = !self.cancelled.swap(true, Ordering::Relaxed);
        if self.parent.is_some() {
            self.since.get_or_init(Instant::now);
        }
        first
    }
}

impl<'p> Context<'p> {
    /// Makes the context of an operation. A nonzero `signal` asks it to stop: the number of the signal that the user sent.
    pub fn new(progress: &'p dyn Progress, signal: Arc<AtomicI32>) -> Self {
        Context::root(progress, Some(signal))
    }

    fn root(progress: &'p dyn Progress, signal: Option<Arc<AtomicI32>>) -> Self {
        let scope = Arc::new(Scope::new(None, signal));
        Context { progress, scope, deadline: None, grace: Duration::ZERO, stop_grace: Duration::ZERO }
    }

    /// Returns this context with another receiver of events.
    #[must_use]
    pub fn with_progress<'q>(&self, progress: &'q dyn Progress) -> Context<'q> {
        let Context { deadline, grace, stop_grace, .. } = *self;
        Context { progress, scope: Arc::clone(&self.scope), deadline, grace, stop_grace }
    }

    /// Returns this context without a receiver of events, for threads that outlive the caller.
    #[must_use]
    pub fn detached(&self) -> Context<'static> {
        self.with_progress(&Silent)
    }

    /// Returns this context with a deadline, unless it has an earlier one.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        let deadline = self.deadline.map_or(deadline, |earlier| earlier.min(deadline));
        Context { deadline: Some(deadline), ..self.clone() }
    }

    /// Returns this context for work that may continue for `grace` after a stop: a last commit.
    #[must_use]
    pub fn with_grace(&self, grace: Duration) -> Self {
        Context { grace, stop_grace: grace, ..self.clone() }
    }

    /// Returns this context for work that may still go on for `grace` after the user's stop, and that a failure in another
    /// thread ends as before.
    #[must_use]
    pub fn with_stop_grace(&self, grace: Duration) -> Self {
        Context { stop_grace: grace, ..self.clone() }
    }

    /// Returns a context that ends with this one, and that [`Context::cancel`] ends without ending this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Context { scope: Arc::new(Scope::new(Some(Arc::clone(&self.scope)), None)), ..self.clone() }
    }

    /// Ends all work under this context and the contexts derived from it. Returns whether this call was the first one.
    pub fn cancel(&self) -> bool {
        self.scope.cancel()
    }

    /// Fails if the work must end: [`Kind::Interrupted`] after the user's stop, [`Kind::Cancelled`] after a failure in
    /// another thread, [`Kind::Connection`] after the deadline.
    pub fn check(&self) -> Result<()> {
        if let Some((signal, since)) = self.scope.signal()
            && is_over(self.stop_grace, since)
        {
            return Err(Error::new(Kind::Interrupted(signal), "interrupted"));
        }
        if let Some(since) = self.scope.cancelled()
            && is_over(self.grace, since)
        {
            return Err(Error::new(Kind::Cancelled, "another thread of the operation failed"));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::new(Kind::Connection, "the storage does not answer in time"));
        }
        Ok(())
    }

    /// Returns whether the error is only the user's stop, seen by a part of the work without grace, and this context has grace
    /// left to end the rest in an orderly way.
    pub fn has_grace_after(&self, error: &Error) -> bool {
        matches!(error.kind(), Kind::Interrupted(_)) && self.check().is_ok()
    }

    /// Returns whether the operation was asked to stop or was cancelled, whatever the grace and the deadline.
    pub fn is_stopped(&self) -> bool {
        self.scope.signal().is_some() || self.scope.cancelled().is_some()
    }

    /// Returns the signal that asked to stop, and the time since it was first seen.
    pub fn signal(&self) -> Option<(i32, Duration)> {
        self.scope.signal().map(|(signal, since)| (signal, since.elapsed()))
    }

    /// Returns whether any thread has noticed yet that the user asked to stop.
    pub fn has_noticed_stop(&self) -> bool {
        self.scope.root().since.get().is_some()
    }

    /// Notes that the operation was asked to stop and sends data that it had read before: it ends later than others.
    pub fn begin_rest(&self) {
        self.scope.root().sends_rest.store(true, Ordering::Relaxed);
    }

    /// Returns whether [`Context::begin_rest`] was called.
    pub fn sends_rest(&self) -> bool {
        self.scope.root().sends_rest.load(Ordering::Relaxed)
    }

    /// Returns how long to wait before the next [`Context::check`]; `None` if only the awaited event can end the wait.
    pub fn wait_slice(&self) -> Option<Duration> {
        if self.deadline.is_none() && self.scope.parent.is_none() && self.scope.signal.is_none() {
            return None;
        }
        let left = self.deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()));
        Some(left.min(SLICE))
    }

    /// Waits for a change, for one slice at most. The caller checks its condition again.
    pub fn wait<'g, T>(&self, changed: &Condvar, guard: MutexGuard<'g, T>) -> Result<MutexGuard<'g, T>> {
        self.check()?;
        Ok(match self.wait_slice() {
            None => changed.wait(guard).expect("no holder panics"),
            Some(slice) => changed.wait_timeout(guard, slice).expect("no holder panics").0,
        })
    }

    /// Sleeps until `until`.
    pub fn sleep_until(&self, until: Instant) -> Result<()> {
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    /// Sends to another thread; fails if the receivers are gone.
    pub fn send<T>(&self, to: &Sender<T>, mut value: T) -> Result<()> {
        loop {
            match to.send_timeout(value, SLICE) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) => value = back,
                Err(SendTimeoutError::Disconnected(_)) => return Err(Error::failed("another thread has ended")),
            }
            self.check()?;
        }
    }

    /// Receives from another thread; `None` if all senders are gone.
    pub fn receive<T>(&self, from: &Receiver<T>) -> Result<Option<T>> {
        loop {
            match from.recv_timeout(SLICE) {
                Ok(value) => return Ok(Some(value)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.check()?,
            }
        }
    }

    /// Reports an event.
    pub fn event(&self, event: Event<'_>) {
        self.progress.event(event);
    }

    /// Reports that a step begins. See [`Event::Step`].
    pub fn step(&self, name: &'static str, unit: &'static str) {
        self.event(Event::Step { name, unit });
    }

    /// Reports objects that are done, and bytes that were read or written for them.
    pub fn done(&self, objects: u64, bytes: u64) {
        self.event(Event::Done { files: objects, bytes });
    }

    /// Reports something that the user should know and that changes nothing.
    pub fn warn(&self, text: &str) {
        self.event(Event::Warning { text });
    }

    /// Reports a path that is left out because of `why`.
    pub fn skip(&self, path: &[u8], why: &Error) {
        self.event(Event::Skipped { path, why });
    }
}

/// Threads of one operation that end together: the first failure cancels the others. A step that ends because of the user's
/// stop does not, while the context of the group has grace for it.
pub struct Group<'p> {
    context: Context<'p>,
    first: Mutex<Option<Error>>,
    /// The group of which this one is a part.
    whole: Option<&'p Group<'p>>,
    /// Parts of this group that are running.
    parts: AtomicUsize,
}

impl<'p> Group<'p> {
    /// Makes a group whose context ends with `parent`.
    pub fn new(parent: &Context<'p>) -> Self {
        Group { context: parent.child(), first: Mutex::default(), whole: None, parts: AtomicUsize::new(0) }
    }

    /// Makes a part of this group. If a part fails, the others continue; if the last one fails, the whole group is cancelled.
    /// Events of the part go to the receiver of `events`.
    #[must_use]
    pub fn part<'q>(&'q self, events: &Context<'q>) -> Group<'q> {
        self.parts.fetch_add(1, Ordering::Relaxed);
        let context = self.context.child().with_progress(events.progress);
        Group { context, first: Mutex::default(), whole: Some(self), parts: AtomicUsize::new(0) }
    }

    /// Returns the context of the threads.
    pub fn context(&self) -> &Context<'p> {
        &self.context
    }

    /// Runs the body of a thread. A failure or a panic in it cancels the group. Returns `None` after a failure.
    pub fn run<T>(&self, body: impl FnOnce() -> Result<T>) -> Option<T> {
        let _alarm = Alarm(self);
        body().map_err(|error| self.fail(error)).ok()
    }

    /// Runs a step of a thread that works for several parts. Returns `None` if this part has failed.
    ///
    /// # Errors
    ///
    /// Fails if the whole group has ended, and if the step ended because of the user's stop.
    pub fn step<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let _alarm = Alarm(self);
        let done = if self.has_failed() { None } else { Some(body()) };
        match done {
            Some(Ok(done)) => return Ok(Some(done)),
            Some(Err(error)) if self.context.has_grace_after(&error) => return Err(error),
            Some(Err(error)) => self.fail(error),
            None => {}
        }
        self.whole.unwrap_or(self).context.check()?;
        Ok(None)
    }

    /// Returns whether the group was cancelled, if not by a stop.
    pub fn has_failed(&self) -> bool {
        self.context.scope.cancelled.load(Ordering::Relaxed)
    }

    /// Cancels the group. The first error is kept for [`Group::result`].
    pub fn fail(&self, error: Error) {
        let mut first = self.first.lock().expect("no holder panics");
        if self.cancel() {
            *first = Some(error);
        }
    }

    /// Cancels the group, and with the last of its parts the whole one. Returns whether this call was the first one.
    fn cancel(&self) -> bool {
        let is_first = self.context.cancel();
        if let Some(whole) = self.whole
            && is_first
            && whole.parts.fetch_sub(1, Ordering::Relaxed) == 1
        {
            whole.context.cancel();
        }
        is_first
    }

    /// Returns the first error, once. A part that ended with the whole group has the error of the group.
    pub fn result(&self) -> Result<()> {
        let own = self.first.lock().expect("no holder panics").take();
        let is_own = own.as_ref().is_some_and(|error| error.kind() != Kind::Cancelled);
        match self.whole {
            Some(whole) if !is_own => match &*whole.first.lock().expect("no holder panics") {
                Some(error) => Err(error.duplicate()),
                None => own.map_or(Ok(()), Err),
            },
            _ => own.map_or(Ok(()), Err),
        }
    }
}

/// Cancels when a thread panics.
struct Alarm<'c>(&'c Group<'c>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stoppable() -> (Context<'static>, Arc<AtomicI32>) {
        let signal = Arc::new(AtomicI32::new(0));
        (Context::new(&Silent, Arc::clone(&signal)), signal)
    }

    fn kind(ctx: &Context) -> Kind {
        ctx.check().unwrap_err().kind()
    }

    #[test]
    fn background_never_ends_and_waits_without_slices() {
        background().check().unwrap();
        assert_eq!(background().wait_slice(), None);
        assert!(background().signal().is_none() && !background().is_stopped());
    }

    #[test]
    fn a_signal_ends_a_context_and_all_derived_from_it() {
        let (ctx, signal) = stoppable();
        let child = ctx.child();
        child.check().unwrap();
        assert_eq!(ctx.wait_slice(), Some(SLICE));
        signal.store(15, Ordering::Relaxed);
        assert_eq!((kind(&ctx), kind(&child)), (Kind::Interrupted(15), Kind::Interrupted(15)));
        assert_eq!(child.signal().unwrap().0, 15);
    }

    #[test]
    fn a_cancelled_child_ends_without_its_parent() {
        let (ctx, _) = stoppable();
        let child = ctx.child();
        let grandchild = child.child();
        assert!(child.cancel() && !child.cancel());
        assert_eq!((kind(&child), kind(&grandchild)), (Kind::Cancelled, Kind::Cancelled));
        ctx.check().unwrap();
        assert!(child.signal().is_none());
    }

    #[test]
    fn a_deadline_ends_waits_and_only_becomes_earlier() {
        let past = background().with_deadline(Instant::now());
        assert_eq!(kind(&past), Kind::Connection);
        assert_eq!(past.wait_slice(), Some(Duration::ZERO));
        let later = past.with_deadline(Instant::now() + Duration::from_secs(60));
        assert_eq!(kind(&later), Kind::Connection);
        assert!(!past.is_stopped());
    }

    #[test]
    fn grace_lets_work_finish_after_a_stop_and_then_ends_it() {
        let (ctx, signal) = stoppable();
        let (long, short) = (ctx.with_grace(Duration::from_secs(60)), ctx.with_grace(Duration::from_nanos(1)));
        signal.store(2, Ordering::Relaxed);
        assert!(long.is_stopped());
        long.check().unwrap();
        ctx.sleep_until(Instant::now()).unwrap_err();
        long.sleep_until(Instant::now() + Duration::from_millis(1)).unwrap();
        assert_eq!(kind(&short), Kind::Interrupted(2));
    }

    #[test]
    fn grace_for_the_users_stop_is_none_for_a_failure() {
        let (ctx, signal) = stoppable();
        let group = Group::new(&ctx.with_stop_grace(Duration::from_secs(60)));
        let at_once = group.context().with_stop_grace(Duration::ZERO);
        signal.store(2, Ordering::Relaxed);
        group.context().check().unwrap();
        assert_eq!(kind(&at_once), Kind::Interrupted(2));
        assert_eq!(group.step(|| at_once.check()).unwrap_err().kind(), Kind::Interrupted(2));
        assert!(!group.has_failed(), "a thread that was asked to end has not failed");
        group.result().unwrap();
        assert_eq!(group.run(|| Err::<(), _>(Error::failed("full"))), None);
        assert_eq!(kind(group.context()), Kind::Cancelled);
        assert_eq!(group.result().unwrap_err().to_string(), "full");
    }

    #[test]
    fn the_first_error_of_a_group_cancels_the_others_and_is_kept() {
        let (ctx, _) = stoppable();
        let group = Group::new(&ctx);
        assert_eq!(group.run(|| Ok(7)), Some(7));
        assert_eq!(group.run(|| Err::<(), _>(Error::failed("first"))), None);
        assert_eq!(group.run(|| group.context().check()), None);
        assert_eq!(group.result().unwrap_err().to_string(), "first");
        group.result().unwrap();
        ctx.check().unwrap();
    }

    #[test]
    fn a_group_ends_with_the_last_of_its_parts() {
        let (ctx, _) = stoppable();
        let whole = Group::new(&ctx);
        let parts = [whole.part(&ctx), whole.part(&ctx)];
        assert_eq!(parts[0].step(|| Err::<(), _>(Error::failed("full"))).unwrap(), None);
        assert_eq!(parts[0].step(|| Ok(1)).unwrap(), None);
        assert_eq!(parts[1].step(|| Ok(2)).unwrap(), Some(2));
        whole.context().check().unwrap();
        let ended = parts[1].step(|| Err::<(), _>(Error::failed("lost"))).unwrap_err();
        assert_eq!((ended.kind(), kind(whole.context())), (Kind::Cancelled, Kind::Cancelled));
        assert_eq!(parts.map(|part| part.result().unwrap_err().to_string()), ["full", "lost"]);
    }

    #[test]
    fn an_error_of_the_whole_group_is_that_of_each_part() {
        let whole = Group::new(background());
        let parts = [whole.part(background()), whole.part(background())];
        whole.fail(Error::failed("no descriptors"));
        assert_eq!(parts[1].run(|| parts[1].context().check()), None);
        assert_eq!(parts.map(|part| part.result().unwrap_err().to_string()), ["no descriptors"; 2]);
    }

    #[test]
    fn a_panic_cancels_the_group() {
        let group = Group::new(background());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            group.run(|| -> Result<()> { panic!("deliberate") })
        }));
        assert!(caught.is_err());
        assert_eq!(kind(group.context()), Kind::Cancelled);
    }

    #[test]
    fn channels_end_with_the_context() {
        let ctx = background().child();
        let (to, from) = crossbeam_channel::bounded(1);
        ctx.send(&to, 1).unwrap();
        assert_eq!(ctx.receive(&from).unwrap(), Some(1));
        ctx.cancel();
        assert_eq!(ctx.receive(&from).unwrap_err().kind(), Kind::Cancelled);
        ctx.send(&to, 2).unwrap();
        assert_eq!(ctx.send(&to, 3).unwrap_err().kind(), Kind::Cancelled);
        drop(to);
        assert_eq!(ctx.receive(&from).unwrap(), Some(2));
        assert_eq!(ctx.receive(&from).unwrap(), None);
    }
}
