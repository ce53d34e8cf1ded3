//! The thread that drives one connection: it writes what callers submit, reads what the server sends, and hands each answer
//! to the caller that asked. It trusts nothing: an unrequested answer, one of an impossible length, or too late ends the
//! connection, and every caller learns of that end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::storage::sftp::link::{Grow, Link};
use crate::storage::sftp::packet::{self, Cursor, Malformed, Reply, Request};
use crate::storage::sftp::session::stream::{Pending, Stream, read_extensions, read_limits};
use crate::storage::sftp::session::{Channel, Features, Message, SessionShared, Submit, Times};

/// The beginning of the reason of a connection that the server has closed.
pub const CLOSED: &str = "the server closed the connection";
/// Begins the reason for the end of a connection on which the server sent no SFTP.
pub const NOT_SFTP: &str = "the server sent something else than SFTP";
/// Bytes of it that are shown.
const EXCERPT: usize = 100;
/// One read from a channel; a multiple of SSH's packets of 32 KiB.
const SCRATCH: usize = 256 << 10;
/// Bytes after which a channel yields to the others.
const TURN: usize = 1 << 20;
/// Channels opened at once where that is cheap; more follow when these are busy.
const EAGER: usize = 4;

/// The one thread's side of a connection: moves bytes between its channels and the callers.
pub struct Engine {
    pub link: Box<dyn Link>,
    pub shared: Arc<SessionShared>,
    pub streams: Vec<Stream>,
    wanted: usize,
    growing: bool,
    /// Whether channels for bulk data are opened from now on.
    bulk: bool,
    /// Bytes in both directions.
    moved: u64,
    pub times: Times,
    pub progress: Instant,
    pub checked: Instant,
    scratch: Vec<u8>,
    held: Option<Features>,
    pub features: Option<Features>,
    inbox: Vec<Submit>,
}

pub type Step<T> = Result<T, String>;

impl Engine {
    pub fn new(link: Box<dyn Link>, shared: Arc<SessionShared>, wanted: usize, times: Times) -> Self {
        let now = Instant::now();
        let mut first = Stream::default();
        first.push(packet::init());
        Engine {
            link,
            shared,
            streams: vec![first],
            wanted,
            growing: false,
            bulk: false,
            moved: 0,
            times,
            progress: now,
            checked: now,
            scratch: vec![0; SCRATCH],
            held: None,
            features: None,
            inbox: Vec::new(),
        }
    }

    /// Runs until the session is dropped or the connection lost. In every case `drop` notifies the callers.
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

    /// Makes a step towards more channels, if they are wanted. Returns whether one was opened.
    fn grow(&mut self) -> bool {
        // one at a time: a server that allows no more is asked once
        let greeted = self.features.is_some() && self.streams.iter().all(|stream| stream.greeted || stream.closed);
        let eager = self.link.eager() && self.streams.len() < EAGER;
        let wanted = self.streams.len() < self.wanted && greeted && (eager || self.bulk || self.shared.state().crowded);
        // a write that was begun is completed: a packet of it may be half sent
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
                state.channels.push(Channel { bulk: self.bulk, ..Channel::default() });
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
        self.moved += sent as u64;
        Ok(sent > 0)
    }

    fn read(&mut self, number: usize, done: &mut Vec<Pending>) -> Step<bool> {
        let mut total = 0;
        while total < TURN && !self.streams[number].closed {
            let count = match self.link.read(number, &mut self.scratch) {
                Ok(0) if number > 0 && !self.streams[number].greeted => {
                    self.close(number);
                    break;
                }
                Ok(0) => return Err(CLOSED.into()),
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
            let (mut packets, before) = (Vec::new(), self.streams[number].frames.held().to_vec());
            let fed = self.streams[number].frames.feed(&self.scratch[..count], |packet| {
                packets.push(packet);
                Ok(())
            });
            fed.map_err(|Malformed(what)| match self.streams[number].greeted {
                true => nonsense(what),
                false => not_sftp(&before, &self.scratch[..count]),
            })?;
            for packet in packets {
                self.dispatch(number, packet, done)?;
            }
        }
        self.shared.traffic.received.fetch_add(total as u64, Ordering::Relaxed);
        self.moved += total as u64;
        Ok(total > 0)
    }

    /// Closes a channel. If it never began to speak, no further ones are tried.
    fn close(&mut self, number: usize) {
        self.streams[number] = Stream { closed: true, ..Stream::default() };
        self.wanted = self.streams.len();
        self.link.close(number);
    }

    fn dispatch(&mut self, number: usize, packet: Vec<u8>, done: &mut Vec<Pending>) -> Step<()> {
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
        if id == 0
            && number == 0
            && let Some(mut features) = self.held.take()
        {
            let limits = Reply::decode(&packet).map_err(|Malformed(what)| nonsense(what))?;
            if let Reply::Extended(limits) = limits {
                read_limits(limits, &mut features).map_err(|Malformed(what)| nonsense(what))?;
            }
            self.ready(0, Some(features));
            return Ok(());
        }
        let Some(pending) = stream.pending.remove(&id) else {
            return Err(nonsense("an answer without a request"));
        };
        if let Some(answer) = &pending.submit.answer {
            let moved = pending.submit.sends + packet.len().min(pending.submit.expects);
            let _ = answer.send(Message::Answer { tag: pending.submit.tag, packet, moved }); // the caller may have given up
        }
        done.push(pending);
        Ok(())
    }

    /// Takes the server's list of extensions. On the first channel the server is asked for its limits, if it can. No caller
    /// waits for them: until then packets are small.
    fn greeted(&mut self, number: usize, mut from: Cursor<'_>) -> Result<(), Malformed> {
        let (features, limits) = read_extensions(&mut from)?;
        if number > 0 {
            self.ready(number, None);
            return Ok(());
        }
        if limits {
            self.held = Some(features);
            self.streams[0].push(Request::extended("limits@openssh.com").finish(0));
        }
        self.ready(0, Some(features));
        Ok(())
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

    /// Releases the shares of answered requests in the bounds.
    fn release(&mut self, done: Vec<Pending>) {
        if done.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut state = self.shared.state();
        for Pending { submit, since } in done {
            state.answered(&submit, now - since, now);
        }
        self.shared.notify(&state);
        let round_trip = state.round_trip;
        drop(state);
        if let Some(round_trip) = round_trip
            && !self.bulk
            && !self.growing
        {
            let more = self.link.bulk(self.moved, round_trip);
            if more > 0 {
                (self.bulk, self.wanted) = (true, self.streams.len() + more);
            }
        }
    }
}

impl Drop for Engine {
    /// Also runs when the thread panics, so that no caller waits forever.
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

/// Returns the error for a stream that does not begin with a packet, most likely with the text of a start file.
fn not_sftp(before: &[u8], bytes: &[u8]) -> String {
    let first = &bytes[..bytes.len().min(EXCERPT)];
    format!("{NOT_SFTP}: \"{}\"", crate::printable::name(&[before, first].concat()))
}

fn nonsense(what: &str) -> String {
    format!("the server does not speak proper SFTP: it sent {what}")
}
