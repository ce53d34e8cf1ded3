//! The thread that drives one connection: it writes what callers submit, reads what the server sends, and hands each answer
//! to the caller that asked. It trusts nothing: an answer nobody asked for, of an impossible length, or too late ends the
//! connection, and every caller learns of that end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::{Grow, Link};
use super::packet::{self, Cursor, Malformed, Reply, Request};
use super::session::{Channel, Features, Message, Shared, Submit};
use super::stream::{PLAIN_FEATURES, Pending, Stream, read_extensions, read_limits};
use crate::storage::halt::{Halt, LAST_CHANCE};

/// One read from a channel; a multiple of SSH's packets of 32 KiB.
const SCRATCH: usize = 256 << 10;
/// A channel yields to the others after so many bytes.
const TURN: usize = 1 << 20;
/// What an answer may be longer than expected: messages, long attributes.
const SLACK: usize = 64 << 10;
/// A request is overdue after so many times the timeout even if others are answered.
const OVERDUE: u32 = 20;
/// While an answer is due: then the engine looks whether the run was asked to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

pub struct Engine {
    link: Box<dyn Link>,
    shared: Arc<Shared>,
    streams: Vec<Stream>,
    wanted: usize,
    growing: bool,
    io_timeout: Duration,
    first_answer: Duration,
    halt: Halt,
    progress: Instant,
    checked: Instant,
    scratch: Vec<u8>,
    held: Option<Features>,
    features: Option<Features>,
    inbox: Vec<Submit>,
}

type Step<T> = Result<T, String>;

impl Engine {
    pub fn new(
        link: Box<dyn Link>,
        shared: Arc<Shared>,
        wanted: usize,
        io_timeout: Duration,
        first_answer: Duration,
        halt: Halt,
    ) -> Self {
        let now = Instant::now();
        let mut first = Stream::default();
        first.push(packet::init());
        Engine {
            link,
            shared,
            streams: vec![first],
            wanted,
            growing: false,
            io_timeout,
            first_answer,
            halt,
            progress: now,
            checked: now,
            scratch: vec![0; SCRATCH],
            held: None,
            features: None,
            inbox: Vec::new(),
        }
    }

    /// Runs until the session is dropped or the connection lost. Whatever happens, `drop` tells the callers.
    pub fn run(mut self) {
        let why = match self.rounds() {
            Ok(()) => "the connection was closed".to_string(),
            Err(why) => match self.link.complaint() {
                Some(complaint) => format!("{why} ({complaint})"),
                None => why,
            },
        };
        let mut state = self.shared.state();
        if state.lost.is_none() {
            state.lost = Some(why);
        }
    }

    fn rounds(&mut self) -> Step<()> {
        loop {
            let moved = self.round()?;
            if self.shared.state().stop {
                return Ok(());
            }
            let now = Instant::now();
            if moved {
                self.progress = now;
            } else if !self.link.buffered() {
                self.sleep()?;
            }
            self.check_time()?;
        }
    }

    /// Moves whatever can be moved now; true if anything was.
    fn round(&mut self) -> Step<bool> {
        self.take_inbox();
        self.link.begin();
        let mut moved = self.grow();
        let mut done = Vec::new();
        for number in 0..self.streams.len() {
            if !self.streams[number].closed {
                moved |= self.write(number)?;
                moved |= self.read(number, &mut done)?;
            }
        }
        self.release(done);
        Ok(moved)
    }

    fn take_inbox(&mut self) {
        std::mem::swap(&mut self.inbox, &mut self.shared.state().inbox);
        if self.inbox.is_empty() {
            return;
        }
        let since = Instant::now();
        if self.streams.iter().all(|stream| stream.pending.is_empty()) {
            self.progress = since; // the clock runs only while an answer is due
        }
        for mut submit in self.inbox.drain(..) {
            let stream = &mut self.streams[submit.channel];
            stream.push(std::mem::take(&mut submit.packet));
            stream.pending.insert(submit.id, Pending { submit, since });
        }
    }

    /// One step towards more channels, if they are wanted. True if one was opened.
    fn grow(&mut self) -> bool {
        let greeted = self.streams.first().is_some_and(|stream| stream.greeted) && self.features.is_some();
        let wanted = self.streams.len() < self.wanted && greeted && (self.link.eager() || self.shared.state().crowded);
        // what was begun is ended: a packet of it may be half sent
        if !wanted && !self.growing {
            return false;
        }
        let step = self.link.grow();
        self.growing = step == Grow::Pending;
        match step {
            Grow::Pending => false,
            Grow::Refused => {
                self.wanted = self.streams.len();
                false
            }
            Grow::Opened => {
                let mut stream = Stream::default();
                stream.push(packet::init());
                self.streams.push(stream);
                let mut state = self.shared.state();
                state.channels.push(Channel::default());
                state.crowded = false; // the next one is opened when this one is busy too
                true
            }
        }
    }

    fn write(&mut self, number: usize) -> Step<bool> {
        let stream = &mut self.streams[number];
        let mut sent = 0;
        while let Some(front) = stream.out.front() {
            match self.link.write(number, &front[stream.position..]) {
                Ok(0) => return Err("the connection takes no more data".into()),
                Ok(count) => {
                    stream.position += count;
                    sent += count;
                    if stream.position == front.len() {
                        stream.out.pop_front();
                        stream.position = 0;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) if number > 0 && !stream.greeted => {
                    self.close(number);
                    break;
                }
                Err(e) => return Err(format!("the connection was lost: {e}")),
            }
            if sent > TURN {
                break;
            }
        }
        self.shared.traffic.sent.fetch_add(sent as u64, Ordering::Relaxed);
        Ok(sent > 0)
    }

    fn read(&mut self, number: usize, done: &mut Vec<Submit>) -> Step<bool> {
        let mut total = 0;
        while total < TURN && !self.streams[number].closed {
            let count = match self.link.read(number, &mut self.scratch) {
                Ok(0) if number > 0 && !self.streams[number].greeted => {
                    self.close(number);
                    break;
                }
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) if number > 0 && !self.streams[number].greeted => {
                    self.close(number);
                    break;
                }
                Err(e) => return Err(format!("the connection was lost: {e}")),
            };
            total += count;
            let mut packets = Vec::new();
            let fed = self.streams[number].frames.feed(&self.scratch[..count], |packet| {
                packets.push(packet);
                Ok(())
            });
            fed.map_err(|Malformed(what)| nonsense(what))?;
            for packet in packets {
                self.dispatch(number, packet, done)?;
            }
        }
        self.shared.traffic.received.fetch_add(total as u64, Ordering::Relaxed);
        Ok(total > 0)
    }

    /// A channel that never began to speak is done without, and no more are tried.
    fn close(&mut self, number: usize) {
        self.streams[number] = Stream { closed: true, ..Stream::default() };
        self.wanted = self.streams.len();
        self.link.close(number);
    }

    fn dispatch(&mut self, number: usize, packet: Vec<u8>, done: &mut Vec<Submit>) -> Step<()> {
        let mut from = Cursor::new(&packet);
        let (kind, id) = match (from.u8(), from.u32()) {
            (Ok(kind), Ok(id)) => (kind, id),
            _ => return Err(nonsense("a packet that ends too early")),
        };
        let stream = &mut self.streams[number];
        if !stream.greeted {
            if kind != packet::VERSION || id < 3 {
                return Err(nonsense("another version than 3"));
            }
            stream.greeted = true;
            return self.greeted(number, from).map_err(|Malformed(what)| nonsense(what));
        }
        if id == 0 && number == 0 && self.features.is_none() {
            let limits = Reply::decode(&packet).map_err(|Malformed(what)| nonsense(what))?;
            let mut features = self.held.take().unwrap_or(PLAIN_FEATURES);
            if let Reply::Extended(limits) = limits {
                read_limits(limits, &mut features).map_err(|Malformed(what)| nonsense(what))?;
            }
            self.ready(0, Some(features));
            return Ok(());
        }
        let Some(pending) = stream.pending.remove(&id) else {
            return Err(nonsense("an answer that nobody asked for"));
        };
        if packet.len() > pending.submit.expects + SLACK {
            return Err(nonsense("an answer far longer than what was asked for"));
        }
        if let Some(answer) = &pending.submit.answer {
            let _ = answer.send(Message::Answer { tag: pending.submit.tag, packet }); // the caller may have given up
        }
        done.push(pending.submit);
        Ok(())
    }

    /// The server said which extensions it has; the first channel asks for the limits, where they can be asked for.
    fn greeted(&mut self, number: usize, mut from: Cursor<'_>) -> Result<(), Malformed> {
        let (features, limits) = read_extensions(&mut from)?;
        if number > 0 {
            self.ready(number, None);
        } else if limits {
            self.limits_asked(features);
        } else {
            self.ready(0, Some(features));
        }
        Ok(())
    }

    fn limits_asked(&mut self, features: Features) {
        self.held = Some(features);
        self.streams[0].push(Request::extended("limits@openssh.com").finish(0));
    }

    fn ready(&mut self, number: usize, features: Option<Features>) {
        let mut state = self.shared.state();
        state.channels[number].ready = true;
        if let Some(features) = features {
            state.features = Some(features);
            self.features = Some(features);
        }
        self.shared.notify(&state);
    }

    /// Gives back what answered requests took of the bounds.
    fn release(&mut self, done: Vec<Submit>) {
        if done.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        for submit in done {
            let channel = &mut state.channels[submit.channel];
            channel.sending -= submit.sends;
            channel.expecting -= submit.expects;
        }
        self.shared.notify(&state);
    }

    fn waits_for_answer(&self) -> bool {
        self.features.is_none()
            || self.streams.iter().any(|stream| !stream.pending.is_empty() || !stream.out.is_empty())
    }

    fn sleep(&mut self) -> Step<()> {
        self.shared.polling.store(true, Ordering::SeqCst);
        let state = self.shared.state();
        let idle = state.inbox.is_empty() && !state.stop;
        drop(state);
        if idle {
            let left = self.io_timeout.saturating_sub(self.progress.elapsed()).min(LONGEST_SLEEP);
            let timeout = self.waits_for_answer().then(|| left.max(Duration::from_millis(10)));
            let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
            self.link.poll_fds(&mut fds);
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(format!("poll failed: {e}")),
            }
        }
        self.shared.polling.store(false, Ordering::SeqCst);
        let _ = rustix::io::read(&self.shared.wake, &mut [0u8; 8]); // it never blocks
        Ok(())
    }

    /// Nothing moved for the timeout although something should, or one request is far overdue.
    fn check_time(&mut self) -> Step<()> {
        let now = Instant::now();
        if !self.waits_for_answer() {
            self.progress = now;
            return Ok(());
        }
        // until the first answer a person may be typing a password at the prompt of `ssh`
        let greeted = self.streams.first().is_some_and(|stream| stream.greeted);
        let limit = if greeted { self.io_timeout } else { self.first_answer };
        let limit = if self.halt.asked().is_some() { limit.min(LAST_CHANCE) } else { limit };
        if now - self.progress >= limit {
            return Err(format!("the server did not answer for {} s", limit.as_secs_f32()));
        }
        if now - self.checked > self.io_timeout {
            self.checked = now;
            let overdue = |pending: &Pending| now - pending.since > self.io_timeout * OVERDUE;
            if self.streams.iter().any(|stream| stream.pending.values().any(overdue)) {
                return Err("the server left a request unanswered".into());
            }
        }
        Ok(())
    }
}

impl Drop for Engine {
    /// Also runs when the thread panics: no caller waits for ever.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let lost = state.lost.get_or_insert_with(|| "the connection failed".into()) != "the connection was closed";
        for submit in
            state.inbox.drain(..).chain(self.streams.iter_mut().flat_map(|s| s.pending.drain().map(|(_, p)| p.submit)))
        {
            if let Some(answer) = submit.answer {
                let _ = answer.send(Message::Lost);
            }
        }
        self.shared.notify(&state);
        drop(state);
        self.link.shutdown(lost);
    }
}

fn nonsense(what: &str) -> String {
    format!("the server does not speak proper SFTP: it sent {what}")
}
