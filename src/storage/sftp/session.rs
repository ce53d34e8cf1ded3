//! What callers see of a connection: requests go in from any thread, answers come back through the caller's own mailbox.
//! Bytes in flight are bounded here: a caller waits before it adds more than a channel may hold.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::event::{EventfdFlags, eventfd};

use super::call::Call;
use super::engine::Engine;
use super::link::Link;
use super::packet::Request;
use crate::error::Error;
use crate::storage::halt::{Halt, Stop};

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

impl Channel {
    fn load(&self) -> usize {
        self.sending + self.expecting
    }
}

fn idlest(state: &State, load: impl Fn(&Channel) -> (usize, usize)) -> usize {
    let ready = state.channels.iter().enumerate().filter(|(_, channel)| channel.ready);
    ready.min_by_key(|(_, channel)| load(channel)).map_or(0, |(number, _)| number)
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
    pub fn wake(&self) {
        if self.polling.swap(false, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.wake, &ONE);
        }
    }

    /// Waits until something changed, at most so long.
    pub fn wait<'a>(&self, mut state: MutexGuard<'a, State>, limit: Option<Duration>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = match limit {
            None => self.room.wait(state).expect("no holder panics"),
            Some(limit) => self.room.wait_timeout(state, limit).expect("no holder panics").0,
        };
        state.waiting -= 1;
        state
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
        halt: Halt,
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
        let engine = Engine::new(link, Arc::clone(&shared), channels, io_timeout, first_answer, halt);
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
            state = shared.wait(state, Some(deadline - now));
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

    /// Why the connection is gone, if it is.
    pub fn lost(&self) -> Option<String> {
        self.shared.state().lost.clone()
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
    pub fn call(&self) -> Call<'_> {
        let mut state = self.shared.state();
        let channel = idlest(&state, |channel| (0, channel.load()));
        self.call_on_locked(&mut state, channel, None)
    }

    /// A mailbox for a put, on the channel with the fewest of them. It ends with `Interrupted` soon after `stop` says so.
    pub fn call_to_put<'a>(&'a self, stop: Stop<'a>) -> Call<'a> {
        let mut state = self.shared.state();
        let channel = idlest(&state, |channel| (channel.puts, channel.load()));
        self.call_on_locked(&mut state, channel, Some(stop))
    }

    /// A mailbox on this channel, or on the idlest if it has `patience` bytes more to do than that one.
    pub fn call_near(&self, channel: usize, patience: usize) -> Call<'_> {
        let mut state = self.shared.state();
        let idlest = idlest(&state, |channel| (0, channel.load()));
        let near = state.channels[channel].load() <= state.channels[idlest].load() + patience;
        self.call_on_locked(&mut state, if near { channel } else { idlest }, None)
    }

    fn call_on_locked<'a>(&'a self, state: &mut State, channel: usize, stop: Option<Stop<'a>>) -> Call<'a> {
        let chosen = &mut state.channels[channel];
        let busy = chosen.puts > 0 || chosen.load() >= BUSY;
        chosen.puts += usize::from(stop.is_some());
        let crowded = busy && !state.crowded;
        state.crowded |= busy;
        if crowded {
            self.shared.wake();
        }
        Call::new(self, channel, stop)
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

pub fn next_id(state: &mut State) -> u32 {
    state.next_id = state.next_id.wrapping_add(1).max(1); // 0 is the engine's own
    state.next_id
}
