//! How long the thread at hand waits for a storage. Who answers for somebody who does not wait for ever (the mount) sets a
//! deadline around the work; every wait on the way ends with [`Kind::Connection`] soon after it. A deadline travels with
//! the thread and not with each call, because everything below the mount is meant by it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::halt::SLICE;
use crate::error::{Error, Kind};

thread_local! {
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Restores what was before, also after a panic.
struct Before(Option<Instant>);

impl Drop for Before {
    fn drop(&mut self) {
        DEADLINE.set(self.0);
    }
}

/// Does some work that waits until this moment at most; `None`: for as long as the storage's own options say.
pub fn until<T>(deadline: Option<Instant>, work: impl FnOnce() -> T) -> T {
    let _before = Before(DEADLINE.replace(deadline));
    work()
}

/// The deadline of this thread, for threads that work for it.
pub fn deadline() -> Option<Instant> {
    DEADLINE.get()
}

/// The end of whatever waits longer than it may.
pub fn over() -> Option<Error> {
    let passed = deadline().is_some_and(|deadline| Instant::now() >= deadline);
    passed.then(|| Error::new(Kind::Connection, "the storage does not answer in time"))
}

/// How long to wait before looking again; `None`: until something happens.
pub fn slice() -> Option<Duration> {
    deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()).min(SLICE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_holds_for_the_work_and_not_for_what_comes_after() {
        let past = Instant::now();
        assert!(over().is_none() && slice().is_none());
        until(Some(past), || {
            assert_eq!(over().unwrap().kind(), Kind::Connection);
            assert_eq!(slice(), Some(Duration::ZERO));
            until(None, || assert!(over().is_none()));
            assert!(over().is_some());
            assert!(std::thread::spawn(|| over().is_none()).join().unwrap(), "another thread has its own");
        });
        drop(std::panic::catch_unwind(|| until(Some(past), || panic!("deliberate"))));
        assert!(over().is_none());
    }
}
