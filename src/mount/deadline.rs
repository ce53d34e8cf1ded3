//! Deadlines of requests: a clock thread sends the reply of a request whose worker has not answered in time, since the
//! kernel cannot interrupt a look-up.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Longest time between the deadline and the reply of the clock.
const TICK: Duration = Duration::from_millis(200);
/// Tickets above which those that are already taken are removed from the middle of the queue.
const CROWD: usize = 10_000;

/// A reply that must be sent once: by the worker when it has the answer, or by the clock at the deadline.
pub struct Ticket<R> {
    reply: Arc<Mutex<Option<R>>>,
    /// The deadline.
    pub due: Instant,
}

impl<R> Ticket<R> {
    /// Takes the reply unless it has been sent.
    pub fn take(&self) -> Option<R> {
        self.reply.lock().expect("no holder panics").take()
    }

    /// Returns whether the reply has been sent.
    pub fn is_taken(&self) -> bool {
        self.reply.lock().expect("no holder panics").is_none()
    }
}

/// The clock's side of a ticket, for any type of reply.
trait Expire: Send {
    fn is_taken(&self) -> bool;
    fn expire(self: Box<Self>);
}

struct ExpiringReply<R, F> {
    reply: Arc<Mutex<Option<R>>>,
    refuse: F,
}

impl<R: Send, F: FnOnce(R) + Send> Expire for ExpiringReply<R, F> {
    fn is_taken(&self) -> bool {
        self.reply.lock().expect("no holder panics").is_none()
    }

    fn expire(self: Box<Self>) {
        let reply = self.reply.lock().expect("no holder panics").take();
        if let Some(reply) = reply {
            (self.refuse)(reply);
        }
    }
}

/// Watches tickets that all have the same time from their beginning to their deadline.
pub struct DeadlineClock {
    shared: Arc<ClockShared>,
    timeout: Duration,
}

#[derive(Default)]
struct ClockShared {
    tickets: Mutex<ClockTickets>,
    wake: Condvar,
}

#[derive(Default)]
struct ClockTickets {
    /// Ascending by deadline.
    waiting: VecDeque<WaitingTicket>,
    /// Every ticket expires at once.
    closed: bool,
    stop: bool,
}

struct WaitingTicket {
    due: Instant,
    reply: Box<dyn Expire>,
}

impl DeadlineClock {
    /// Starts the clock thread; tickets expire after `timeout`.
    pub fn new(timeout: Duration) -> std::io::Result<Self> {
        let shared = Arc::<ClockShared>::default();
        let clock = Arc::clone(&shared);
        std::thread::Builder::new().name("clock".into()).spawn(move || clock.run())?;
        Ok(DeadlineClock { shared, timeout })
    }

    /// Returns a ticket for a reply; `refuse` receives the reply if it is not taken in time.
    pub fn watch<R: Send + 'static>(&self, reply: R, refuse: impl FnOnce(R) + Send + 'static) -> Ticket<R> {
        let reply = Arc::new(Mutex::new(Some(reply)));
        let due = Instant::now() + self.timeout;
        let ticket = Ticket { reply: Arc::clone(&reply), due };
        let expiring = Box::new(ExpiringReply { reply, refuse });
        let mut tickets = self.shared.lock();
        if tickets.closed {
            drop(tickets);
            expiring.expire();
        } else {
            tickets.waiting.push_back(WaitingTicket { due, reply: expiring });
            if tickets.waiting.len() == 1 {
                self.shared.wake.notify_one();
            }
        }
        ticket
    }

    /// Expires all tickets, and each later one at once.
    pub fn close(&self) {
        let mut tickets = self.shared.lock();
        tickets.closed = true;
        let waiting = std::mem::take(&mut tickets.waiting);
        drop(tickets);
        for ticket in waiting {
            ticket.reply.expire();
        }
    }
}

impl Drop for DeadlineClock {
    fn drop(&mut self) {
        self.close();
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
    }
}

impl ClockShared {
    fn lock(&self) -> MutexGuard<'_, ClockTickets> {
        self.tickets.lock().expect("no holder panics")
    }

    fn run(&self) {
        let mut tickets = self.lock();
        while !tickets.stop {
            if let Some(ticket) = tickets.next_finished() {
                drop(tickets);
                ticket.reply.expire();
                tickets = self.lock();
            } else if tickets.waiting.is_empty() {
                tickets = self.wake.wait(tickets).expect("no holder panics");
            } else {
                tickets = self.wake.wait_timeout(tickets, TICK).expect("no holder panics").0;
            }
        }
    }
}

impl ClockTickets {
    /// Removes the oldest ticket if it is taken or its deadline has passed.
    fn next_finished(&mut self) -> Option<WaitingTicket> {
        if self.waiting.len() > CROWD {
            self.waiting.retain(|ticket| !ticket.reply.is_taken());
        }
        let first = self.waiting.front()?;
        let finished = first.due <= Instant::now() || first.reply.is_taken();
        if finished { self.waiting.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn what_is_not_answered_in_time_is_answered_once_by_the_clock() {
        let soon = DeadlineClock::new(Duration::from_millis(10)).unwrap();
        let (send, expired) = mpsc::channel();
        let kept = soon.watch("late", {
            let send = send.clone();
            move |r| send.send(r).unwrap()
        });
        let clock = DeadlineClock::new(Duration::from_secs(600)).unwrap();
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
