//! Calls on file systems that may never answer. They are made by a helper thread, which is abandoned if it does not return.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use rustix::io::Errno;

use crate::context::{Context, SLICE};

/// The way to make calls on one file system. Clones share its state.
#[derive(Clone, Default)]
pub struct Guard(Option<Arc<Distant>>);

/// A file system that may never answer.
struct Distant {
    ctx: Context<'static>,
    /// Time after which a call is given up, and the file system with it.
    patience: Duration,
    is_lost: AtomicBool,
    /// It has no flags of inodes.
    lacks_flags: AtomicBool,
    /// Helper threads that wait for a call.
    idle: Mutex<Vec<Sender<Call>>>,
}

type Call = Box<dyn FnOnce() + Send>;

impl Guard {
    /// Guards the calls on one file system that may never answer. The default guard makes calls directly.
    pub fn new(ctx: &Context, patience: Duration) -> Self {
        let (is_lost, lacks_flags, idle) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::default());
        Guard(Some(Arc::new(Distant { ctx: ctx.detached(), patience, is_lost, lacks_flags, idle })))
    }

    /// Returns whether calls are made by helper threads.
    pub fn is_needed(&self) -> bool {
        self.0.is_some()
    }

    /// Returns whether the file system was given up.
    pub fn is_lost(&self) -> bool {
        self.0.as_ref().is_some_and(|distant| distant.is_lost.load(Ordering::Relaxed))
    }

    /// Returns whether the file system is known to have no flags of inodes.
    pub fn lacks_flags(&self) -> bool {
        self.0.as_ref().is_some_and(|distant| distant.lacks_flags.load(Ordering::Relaxed))
    }

    /// Notes that the file system has no flags of inodes.
    pub fn note_lack_of_flags(&self) {
        if let Some(distant) = &self.0 {
            distant.lacks_flags.store(true, Ordering::Relaxed);
        }
    }

    /// Makes a call. Fails with [`Errno::TIMEDOUT`] if it does not return in time; all further calls then fail at once.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        match &self.0 {
            None => work(),
            Some(distant) => distant.call(work),
        }
    }

    /// Closes a file, which may wait for the file system as well. An abandoned call may still hold it.
    pub fn close(&self, file: Arc<OwnedFd>) {
        if self.is_lost() {
            return std::mem::forget(file); // the process ends soon
        }
        let _ = self.call(move || {
            drop(file);
            Ok(())
        });
    }
}

impl Distant {
    fn call<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, Errno> + Send + 'static) -> Result<T, Errno> {
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(Errno::TIMEDOUT);
        }
        let (done, result) = bounded(1);
        let helper = self.helper()?;
        let call: Call = Box::new(move || drop(done.send(work()))); // after a time-out there is no receiver
        helper.send(call).map_err(|_| Errno::IO)?;
        let until = Instant::now() + self.patience;
        loop {
            match result.recv_timeout(SLICE) {
                Ok(result) => {
                    self.idle.lock().expect("no holder panics").push(helper);
                    return result;
                }
                Err(RecvTimeoutError::Timeout) if self.ctx.check().is_err() => return Err(Errno::TIMEDOUT),
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(_) => {
                    self.is_lost.store(true, Ordering::Relaxed);
                    return Err(Errno::TIMEDOUT);
                }
            }
        }
    }

    fn helper(&self) -> Result<Sender<Call>, Errno> {
        if let Some(helper) = self.idle.lock().expect("no holder panics").pop() {
            return Ok(helper);
        }
        let (send, calls) = bounded::<Call>(1);
        let run = move || calls.iter().for_each(|call| call());
        thread::Builder::new().name("source".into()).spawn(run).map_err(|_| Errno::NOMEM)?;
        Ok(send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;

    #[test]
    fn a_call_that_hangs_is_given_up_and_so_are_all_further_ones() {
        let patient = Guard::new(background(), Duration::from_secs(600));
        assert_eq!(patient.call(|| Ok(1)), Ok(1));
        assert_eq!(patient.call(|| Err::<(), _>(Errno::IO)), Err(Errno::IO));
        let guard = Guard::new(background(), Duration::from_millis(100));
        let (end, ended) = bounded::<()>(0);
        assert_eq!(guard.call(move || ended.recv().map_err(|_| Errno::IO)), Err(Errno::TIMEDOUT));
        assert!(guard.is_lost());
        assert_eq!(
            guard.call(|| -> Result<(), Errno> { unreachable!("no further call is made") }),
            Err(Errno::TIMEDOUT)
        );
        drop(end);
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let ctx = background().child();
        ctx.cancel();
        let guard = Guard::new(&ctx, Duration::from_secs(600));
        let (end, ended) = bounded::<()>(0);
        assert_eq!(guard.call(move || ended.recv().map_err(|_| Errno::IO)), Err(Errno::TIMEDOUT));
        assert!(!guard.is_lost());
        drop(end);
    }
}
