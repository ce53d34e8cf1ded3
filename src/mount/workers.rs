//! Worker threads for what may wait, and the clock that answers for them when they wait too long.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads. Jobs that a reader waits for come first; those that nobody waits for yet never take all
/// threads, and the oldest of too many are dropped.
pub struct Pool {
    shared: Arc<Shared>,
    most_ahead: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    urgent: VecDeque<Job>,
    ahead: VecDeque<Job>,
    running_ahead: usize,
    stop: bool,
}

/// Jobs ahead that may wait.
const QUEUED_AHEAD: usize = 64;

impl Pool {
    /// So many threads, of which `reserved` never work ahead.
    pub fn new(name: &str, threads: usize, reserved: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        let most_ahead = threads.saturating_sub(reserved);
        for i in 0..threads {
            let shared = Arc::clone(&shared);
            let run = move || shared.work(most_ahead);
            std::thread::Builder::new().name(format!("{name}-{i}")).spawn(run)?;
        }
        Ok(Pool { shared, most_ahead })
    }

    /// Runs a job as soon as a thread is free.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.lock().urgent.push_back(Box::new(job));
        self.shared.wake.notify_one();
    }

    /// Runs a job when nothing else is to be done, or never.
    pub fn ahead(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.lock();
        if queue.ahead.len() >= QUEUED_AHEAD {
            queue.ahead.pop_front();
        }
        queue.ahead.push_back(Box::new(job));
        if queue.running_ahead < self.most_ahead {
            self.shared.wake.notify_one();
        }
    }

    /// Jobs that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.shared.lock().urgent.len()
    }
}

impl Drop for Pool {
    /// Threads end after their present job; nobody waits for them, since a job may hang in the storage.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.stop = true;
        (queue.urgent, queue.ahead) = Default::default();
        drop(queue);
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder panics")
    }

    fn work(&self, most_ahead: usize) {
        let mut queue = self.lock();
        while !queue.stop {
            if let Some(job) = queue.urgent.pop_front() {
                drop(queue);
                drop(catch_unwind(AssertUnwindSafe(job)));
                queue = self.lock();
            } else if queue.running_ahead < most_ahead
                && let Some(job) = queue.ahead.pop_front()
            {
                queue.running_ahead += 1;
                drop(queue);
                drop(catch_unwind(AssertUnwindSafe(job)));
                queue = self.lock();
                queue.running_ahead -= 1;
            } else {
                queue = self.wake.wait(queue).expect("no holder panics");
            }
        }
    }
}

/// A reply that somebody must send: the worker when it is done, or the clock when the time is over.
pub struct Ticket<R> {
    reply: Arc<Mutex<Option<R>>>,
    /// When the clock takes it.
    pub due: Instant,
}

impl<R> Ticket<R> {
    /// The reply, unless it was sent.
    pub fn take(&self) -> Option<R> {
        self.reply.lock().expect("no holder panics").take()
    }

    /// Whether it was sent.
    pub fn is_taken(&self) -> bool {
        self.reply.lock().expect("no holder panics").is_none()
    }
}

/// What the clock knows of a ticket.
trait Pending: Send {
    fn done(&self) -> bool;
    fn expire(self: Box<Self>);
}

struct Watched<R, F> {
    reply: Arc<Mutex<Option<R>>>,
    refuse: F,
}

impl<R: Send, F: FnOnce(R) + Send> Pending for Watched<R, F> {
    fn done(&self) -> bool {
        self.reply.lock().expect("no holder panics").is_none()
    }

    fn expire(self: Box<Self>) {
        let reply = self.reply.lock().expect("no holder panics").take();
        reply.map(self.refuse);
    }
}

/// Watches tickets, all for the same time.
pub struct Clock {
    shared: Arc<ClockShared>,
    timeout: Duration,
}

#[derive(Default)]
struct ClockShared {
    state: Mutex<ClockState>,
    wake: Condvar,
}

#[derive(Default)]
struct ClockState {
    tickets: VecDeque<(Instant, Box<dyn Pending>)>,
    /// Nothing is waited for any more.
    closed: bool,
    stop: bool,
}

impl Clock {
    /// Tickets expire after `timeout`.
    pub fn new(timeout: Duration) -> std::io::Result<Self> {
        let shared = Arc::<ClockShared>::default();
        let run = Arc::clone(&shared);
        std::thread::Builder::new().name("clock".into()).spawn(move || run.run())?;
        Ok(Clock { shared, timeout })
    }

    /// Hands out a ticket for a reply; `refuse` gets the reply if nobody took it in time.
    pub fn watch<R: Send + 'static>(&self, reply: R, refuse: impl FnOnce(R) + Send + 'static) -> Ticket<R> {
        let reply = Arc::new(Mutex::new(Some(reply)));
        let due = Instant::now() + self.timeout;
        let ticket = Ticket { reply: Arc::clone(&reply), due };
        let watched = Box::new(Watched { reply, refuse });
        let mut state = self.shared.lock();
        if state.closed {
            drop(state);
            watched.expire();
        } else {
            state.tickets.push_back((due, watched));
            if state.tickets.len() == 1 {
                self.shared.wake.notify_one();
            }
        }
        ticket
    }

    /// Expires all tickets, also those to come.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let tickets = std::mem::take(&mut state.tickets);
        drop(state);
        tickets.into_iter().for_each(|(_, ticket)| ticket.expire());
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.close();
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
    }
}

/// How often the clock looks.
const TICK: Duration = Duration::from_millis(200);

impl ClockShared {
    fn lock(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock().expect("no holder panics")
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stop {
            let now = Instant::now();
            if state.tickets.len() > 10_000 {
                state.tickets.retain(|(_, ticket)| !ticket.done());
            }
            let over = state.tickets.front().is_some_and(|(at, ticket)| *at <= now || ticket.done());
            if let Some((_, ticket)) = over.then(|| state.tickets.pop_front()).flatten() {
                drop(state);
                ticket.expire();
                state = self.lock();
            } else if state.tickets.is_empty() {
                state = self.wake.wait(state).expect("no holder panics");
            } else {
                state = self.wake.wait_timeout(state, TICK).expect("no holder panics").0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_job_that_panics_takes_no_thread_with_it_and_readers_come_before_look_ahead() {
        let pool = Pool::new("test", 1, 0).unwrap();
        let (send, done) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        pool.run(move || wait.recv().unwrap());
        let jobs = [send.clone(), send.clone(), send];
        for (i, send) in jobs.into_iter().enumerate() {
            match i {
                0 => pool.ahead(move || send.send("ahead").unwrap()),
                1 => pool.run(move || {
                    let _dropped = send;
                    std::panic::panic_any("deliberate")
                }),
                _ => pool.run(move || send.send("reader").unwrap()),
            }
        }
        go.send(()).unwrap();
        assert_eq!(done.iter().collect::<Vec<_>>(), ["reader", "ahead"]);
    }

    #[test]
    fn what_is_not_answered_in_time_is_answered_once_by_the_clock() {
        let clock = Clock::new(Duration::from_millis(10)).unwrap();
        let (send, expired) = mpsc::channel();
        let kept = clock.watch("late", {
            let send = send.clone();
            move |r| send.send(r).unwrap()
        });
        let taken = clock.watch("in time", {
            let send = send.clone();
            move |r| send.send(r).unwrap()
        });
        assert_eq!(taken.take(), Some("in time"));
        assert_eq!(expired.recv().unwrap(), "late");
        assert_eq!(kept.take(), None);
        clock.close();
        assert_eq!(clock.watch("closed", move |r| send.send(r).unwrap()).take(), None);
        assert_eq!(expired.iter().collect::<Vec<_>>(), ["closed"]);
    }
}
