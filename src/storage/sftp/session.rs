//! What callers see of a connection: requests go in from any thread, answers come back through the caller's own mailbox.
//! Bytes in flight are bounded here: a caller waits before it adds more than a channel may hold.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use super::engine::Engine;
use super::link::Link;
use super::packet::{Malformed, Reply, Request};
use crate::error::{Error, Kind};

/// Unacknowledged WRITE bytes a channel may hold: OpenSSH's window of 2 MiB, and as much again waiting behind it.
const SENDING: usize = 4 << 20;
/// Bytes of answers due, over all channels of a session; more only queues in buffers on the way (transport.md, Recipe A).
const EXPECTING: usize = 16 << 20;
/// Of these on one channel; below what a window of libssh2 is kept above (`ssh::channels`).
const EXPECTING_ON_ONE: usize = 8 << 20;
/// A request that is answered by a few words.
pub const SMALL: usize = 1 << 10;
/// A channel with so many bytes on the way is worth a second one; a few small requests are not.
const BUSY: usize = 32 << 10;
/// What wakes an eventfd: it takes eight bytes in the machine's own order, and any number but 0 does.
const ONE: [u8; 8] = [1; 8];

/// Why an operation did not succeed.
#[derive(Debug)]
pub enum Fault {
    /// The connection is gone or not to be trusted any more: repeat the operation on another.
    Lost(String),
    /// The server's answer, or a limit: repeating changes nothing.
    Final(Error),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Final(e)
    }
}

/// Bytes on the SFTP streams, over all connections of a storage.
#[derive(Default)]
pub struct Traffic {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

/// What the server can do.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub fsync: bool,
    pub statvfs: bool,
    pub max_read: usize,
    pub max_write: usize,
    pub max_handles: usize,
}

/// An answer, or the news that none will come.
pub enum Message {
    Answer { tag: u32, packet: Vec<u8> },
    Lost,
}

/// A request on its way to the engine.
pub struct Submit {
    pub channel: usize,
    pub id: u32,
    pub packet: Vec<u8>,
    pub tag: u32,
    pub sends: usize,
    pub expects: usize,
    pub answer: Option<Sender<Message>>,
}

#[derive(Default)]
pub struct Channel {
    pub ready: bool,
    pub sending: usize,
    pub expecting: usize,
    pub puts: usize,
}

pub struct State {
    pub channels: Vec<Channel>,
    pub inbox: Vec<Submit>,
    pub features: Option<Features>,
    pub lost: Option<String>,
    pub stop: bool,
    pub crowded: bool,
    waiting: usize,
    next_id: u32,
}

pub struct Shared {
    state: Mutex<State>,
    room: Condvar,
    pub wake: OwnedFd,
    pub polling: AtomicBool,
    pub traffic: Arc<Traffic>,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Sends a request whose answer nobody waits for.
    pub fn tell(&self, channel: usize, request: Request) {
        let mut state = self.state();
        if state.lost.is_none() {
            let id = next_id(&mut state);
            let packet = request.finish(id);
            state.inbox.push(Submit { channel, id, packet, tag: 0, sends: 0, expects: SMALL, answer: None });
            state.channels[channel].expecting += SMALL;
            drop(state);
            self.wake();
        }
    }

    /// Wakes the engine's thread if it sleeps.
    fn wake(&self) {
        if self.polling.swap(false, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.wake, &ONE);
        }
    }

    /// Tells callers that something changed.
    pub fn notify(&self, state: &State) {
        if state.waiting > 0 {
            self.room.notify_all();
        }
    }
}

/// A connection with one or more SFTP channels, driven by a thread of its own.
pub struct Session {
    pub shared: Arc<Shared>,
    pub features: Features,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Starts the engine on `link`, which has one channel, and waits until the server has answered on it.
    pub fn start(
        link: Box<dyn Link>,
        channels: usize,
        io_timeout: Duration,
        first_answer: Duration,
        traffic: Arc<Traffic>,
    ) -> Result<Session, Fault> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::io("make an eventfd", e.into()))?;
        let state = State {
            channels: vec![Channel::default()],
            inbox: Vec::new(),
            features: None,
            lost: None,
            stop: false,
            crowded: false,
            waiting: 0,
            next_id: 1,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            room: Condvar::new(),
            wake,
            polling: AtomicBool::new(false),
            traffic,
        });
        let engine = Engine::new(link, Arc::clone(&shared), channels, io_timeout, first_answer);
        let thread = std::thread::Builder::new().name("sftp".into()).spawn(move || engine.run());
        let thread = Some(thread.map_err(|e| Error::io("start a thread", e))?);
        let deadline = Instant::now() + first_answer;
        let mut state = shared.state();
        let features = loop {
            if let Some(why) = &state.lost {
                break Err(why.clone());
            }
            if let Some(features) = state.features {
                break Ok(features);
            }
            let now = Instant::now();
            if now >= deadline {
                break Err("the SFTP server did not answer in time".into());
            }
            state.waiting += 1;
            state = shared.room.wait_timeout(state, deadline - now).expect("no holder panics").0;
            state.waiting -= 1;
        };
        drop(state);
        let none = Features { fsync: false, statvfs: false, max_read: 0, max_write: 0, max_handles: 0 };
        let session = Session { shared, features: *features.as_ref().unwrap_or(&none), thread };
        features.map(|_| session).map_err(Fault::Lost)
    }

    /// Whether the connection is known to be gone.
    pub fn is_lost(&self) -> bool {
        self.shared.state().lost.is_some()
    }

    /// Gives the connection up, for a reason that the engine cannot see.
    pub fn give_up(&self, why: &str) {
        let mut state = self.shared.state();
        if state.lost.is_none() {
            state.lost = Some(why.into());
        }
        state.stop = true;
        drop(state);
        self.shared.wake();
    }

    /// A mailbox on the channel with the least to do.
    pub fn call(&self, put: bool) -> Call<'_> {
        let mut state = self.shared.state();
        let load = |c: &Channel| if put { (c.puts, c.sending + c.expecting) } else { (0, c.sending + c.expecting) };
        let ready = state.channels.iter().enumerate().filter(|(_, channel)| channel.ready);
        let channel = ready.min_by_key(|(_, channel)| load(channel)).map_or(0, |(number, _)| number);
        self.call_on_locked(&mut state, channel, put)
    }

    /// A mailbox on this channel, or on the idlest if it has `patience` bytes more to do than that one.
    pub fn call_near(&self, channel: usize, patience: usize) -> Call<'_> {
        let mut state = self.shared.state();
        let load = |c: &Channel| c.sending + c.expecting;
        let ready = state.channels.iter().enumerate().filter(|(_, channel)| channel.ready);
        let idlest = ready.min_by_key(|(_, channel)| load(channel)).map_or(0, |(number, _)| number);
        let near = load(&state.channels[channel]) <= load(&state.channels[idlest]) + patience;
        self.call_on_locked(&mut state, if near { channel } else { idlest }, false)
    }

    fn call_on_locked(&self, state: &mut State, channel: usize, put: bool) -> Call<'_> {
        let chosen = &mut state.channels[channel];
        let busy = chosen.puts > 0 || chosen.sending + chosen.expecting >= BUSY;
        chosen.puts += usize::from(put);
        let crowded = busy && !state.crowded;
        state.crowded |= busy;
        if crowded {
            self.shared.wake();
        }
        let (sender, receiver) = unbounded();
        Call { session: self, channel, put, sender, receiver, due: 0 }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn next_id(state: &mut State) -> u32 {
    state.next_id = state.next_id.wrapping_add(1).max(1); // 0 is the engine's own
    state.next_id
}

/// One caller's requests on one channel.
pub struct Call<'a> {
    pub session: &'a Session,
    pub channel: usize,
    put: bool,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    due: usize,
}

impl Call<'_> {
    /// Sends a request; `expects` is about how many bytes the answer has. Waits while the channel is full.
    pub fn send(&mut self, tag: u32, request: Request, expects: usize) -> Result<(), Fault> {
        let shared = &self.session.shared;
        let sends = request.len();
        let mut state = shared.state();
        loop {
            if let Some(why) = &state.lost {
                return Err(Fault::Lost(why.clone()));
            }
            let total: usize = state.channels.iter().map(|channel| channel.expecting).sum();
            let channel = &state.channels[self.channel];
            let full = channel.sending > 0 && channel.sending + sends > SENDING
                || channel.expecting > 0
                    && (channel.expecting + expects > EXPECTING_ON_ONE || total + expects > EXPECTING);
            if !full {
                break;
            }
            state.waiting += 1;
            state = shared.room.wait(state).expect("no holder panics");
            state.waiting -= 1;
        }
        let id = next_id(&mut state);
        state.channels[self.channel].sending += sends;
        state.channels[self.channel].expecting += expects;
        let packet = request.finish(id);
        let answer = Some(self.sender.clone());
        state.inbox.push(Submit { channel: self.channel, id, packet, tag, sends, expects, answer });
        drop(state);
        self.due += 1;
        shared.wake();
        Ok(())
    }

    /// How many answers are still due.
    pub fn due(&self) -> usize {
        self.due
    }

    /// The next answer, in whatever order the server gives them.
    pub fn receive(&mut self) -> Result<(u32, Vec<u8>), Fault> {
        match self.receiver.recv() {
            Ok(Message::Answer { tag, packet }) => {
                self.due -= 1;
                Ok((tag, packet))
            }
            _ => Err(self.lost()),
        }
    }

    /// An answer that is already there.
    pub fn try_receive(&mut self) -> Result<Option<(u32, Vec<u8>)>, Fault> {
        match self.receiver.try_recv() {
            Ok(Message::Answer { tag, packet }) => {
                self.due -= 1;
                Ok(Some((tag, packet)))
            }
            Ok(Message::Lost) => Err(self.lost()),
            Err(_) => Ok(None),
        }
    }

    /// Sends one request and gives what `then` makes of its answer.
    pub fn ask<T>(&mut self, request: Request, then: impl FnOnce(Reply<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.send(0, request, SMALL)?;
        let (_, packet) = self.receive()?;
        then(self.decode(&packet)?)
    }

    /// Reads an answer; one that is no SFTP ends the connection for good.
    pub fn decode<'p>(&self, packet: &'p [u8]) -> Result<Reply<'p>, Fault> {
        Reply::decode(packet).map_err(|Malformed(what)| self.nonsense(what))
    }

    /// The server sent what no server sends.
    pub fn nonsense(&self, what: &str) -> Fault {
        let text = format!("the server does not speak proper SFTP: it sent {what}");
        self.session.give_up(&text);
        Fault::Final(Error::new(Kind::Connection, text))
    }

    fn lost(&self) -> Fault {
        Fault::Lost(self.session.shared.state().lost.clone().unwrap_or_else(|| "the connection was closed".into()))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.put {
            let mut state = self.session.shared.state();
            let channel = &mut state.channels[self.channel];
            channel.puts = channel.puts.saturating_sub(1);
        }
    }
}
