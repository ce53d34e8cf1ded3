//! The callers' side of a connection: requests go in from any thread, answers come back through the caller's own mailbox.
//! Bytes in flight are bounded here: a caller waits before it adds more than a channel may hold.

pub mod call;
mod channel;
mod clock;
mod engine;
pub mod stream;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::event::{EventfdFlags, eventfd};

use crate::context::Context;
use crate::error::Error;
use crate::storage::Extensions;
use crate::storage::net::Fault;
use crate::storage::net::pace::Pace;
use crate::storage::sftp::flow::{Flow, Mark};
use crate::storage::sftp::link::Link;
use crate::storage::sftp::packet::{self, Request};
use crate::storage::sftp::session::call::{Call, Purpose};
pub use crate::storage::sftp::session::channel::Channel;
use crate::storage::sftp::session::channel::{for_read, idlest, idlest_for_bulk};
use crate::storage::sftp::session::engine::Engine;
pub use crate::storage::sftp::session::engine::{CLOSED, NOT_SFTP};
use crate::storage::sftp::session::stream::PLAIN_FEATURES;

/// Unacknowledged WRITE bytes a channel may hold: OpenSSH's window of 2 MiB, and half as much again waiting behind it.
const SENDING: usize = 3 << 20;
/// Bytes of answers due on one channel; less than libssh2 keeps its window at (`ssh::channels`).
const EXPECTING_ON_ONE: usize = 8 << 20;
/// Bytes of WRITEs on their way at most, over all channels.
const SENDING_IN_ALL: usize = 20 << 20;
/// Bytes of answers due at most; more only queues in buffers on the way.
const EXPECTING: usize = 16 << 20;
/// A request that is answered by a few words.
pub const SMALL: usize = 1 << 10;
/// Bytes in flight on a channel that justify a second channel; a few small requests do not.
const BUSY: usize = 32 << 10;
/// Reads of more than this are bulk data.
const LARGE_READ: usize = 64 << 10;
/// Wakes an eventfd, which takes eight bytes in native order; any number but 0 does.
const ONE: [u8; 8] = [1; 8];

/// Bytes on the SFTP streams, over all connections of a storage, and what limits them.
#[derive(Default)]
pub struct Traffic {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub upload: Option<Pace>,
    pub download: Option<Pace>,
}

/// The timeouts of the engine.
#[derive(Clone)]
pub struct Times {
    /// For anything to move while an answer is due.
    pub io: Duration,
    /// For the first answer.
    pub first: Duration,
    /// For the answers of an operation, beyond the time that its bytes need on the slowest network.
    pub operation: Duration,
    /// Idle time before a keepalive request; zero: never.
    pub keepalive: Duration,
    /// Of who opened the storage: after the user's stop a silent server is given up sooner.
    pub ctx: Context<'static>,
}

/// Features of the server.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub extensions: Extensions,
    pub max_read: usize,
    pub max_write: usize,
    pub max_handles: usize,
    /// It is OpenSSH's, whose handles can be guessed.
    pub openssh: bool,
}

/// An answer, or the news that none will come.
pub enum Message {
    /// `moved`: bytes of the request and of the part of the answer that was asked for.
    Answer {
        tag: u32,
        packet: Vec<u8>,
        moved: usize,
    },
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
    upload: Mark,
    download: Mark,
    pub answer: Option<Sender<Message>>,
}

pub struct SessionState {
    pub channels: Vec<Channel>,
    pub inbox: Vec<Submit>,
    pub features: Option<Features>,
    pub lost: Option<String>,
    pub stop: bool,
    pub crowded: bool,
    pub upload: Flow,
    pub download: Flow,
    /// The shortest that was seen.
    pub round_trip: Option<Duration>,
    waiting: usize,
    next_id: u32,
}

/// A request before it has its number.
pub struct Ask {
    pub tag: u32,
    pub request: Request,
    pub expects: usize,
}

impl SessionState {
    /// Returns whether a request has to wait until others are answered. Small ones do not: they are few and a caller
    /// waits for each.
    pub fn is_full(&self, channel: usize, sends: usize, expects: usize) -> bool {
        let channel = &self.channels[channel];
        let much = |bytes| bytes > SMALL;
        much(sends) && (channel.sending > 0 && channel.sending + sends > SENDING || !self.upload.admits(sends))
            || much(expects)
                && (channel.expecting > 0 && channel.expecting + expects > EXPECTING_ON_ONE
                    || !self.download.admits(expects))
    }

    /// Hands a request to the engine.
    pub fn submit(&mut self, channel: usize, ask: Ask, answer: Option<Sender<Message>>) {
        let Ask { tag, request, expects } = ask;
        self.next_id = self.next_id.wrapping_add(1).max(1); // 0 is the engine's own
        let id = self.next_id;
        let packet = request.finish(id);
        let (sends, now) = (packet.len(), Instant::now());
        self.channels[channel].sending += sends;
        self.channels[channel].expecting += expects;
        let (upload, download) = (self.upload.sent(sends, now), self.download.sent(expects, now));
        self.inbox.push(Submit { channel, id, packet, tag, sends, expects, upload, download, answer });
    }

    /// Releases the share of an answered request in the bounds.
    pub fn answered(&mut self, submit: &Submit, took: Duration, now: Instant) {
        let channel = &mut self.channels[submit.channel];
        channel.sending -= submit.sends;
        channel.expecting -= submit.expects;
        let round_trip = self.round_trip.map_or(took, |least| least.min(took));
        self.round_trip = Some(round_trip);
        self.upload.answered(submit.upload, round_trip, now);
        self.download.answered(submit.download, round_trip, now);
    }
}

pub struct SessionShared {
    state: Mutex<SessionState>,
    room: Condvar,
    pub wake: OwnedFd,
    pub polling: AtomicBool,
    pub traffic: Arc<Traffic>,
}

impl SessionShared {
    pub fn state(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().expect("no holder panics")
    }

    /// Sends a request whose answer is dropped.
    pub fn tell(&self, channel: usize, request: Request) {
        let mut state = self.state();
        if state.lost.is_none() {
            state.submit(channel, Ask { tag: 0, request, expects: SMALL }, None);
            drop(state);
            self.wake();
        }
    }

    /// Closes a handle without waiting for the answer.
    pub fn close(&self, channel: usize, handle: &[u8]) {
        let mut state = self.state();
        if state.lost.is_none() {
            state.channels[channel].guess.closes(handle);
            let request = Request::new(packet::CLOSE).string(handle);
            state.submit(channel, Ask { tag: 0, request, expects: SMALL }, None);
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

    /// Waits for a change, for `limit` at most.
    pub fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, SessionState>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, SessionState> {
        state.waiting += 1;
        let mut state = match limit {
            None => self.room.wait(state).expect("no holder panics"),
            Some(limit) => self.room.wait_timeout(state, limit).expect("no holder panics").0,
        };
        state.waiting -= 1;
        state
    }

    /// Wakes callers after a change.
    pub fn notify(&self, state: &SessionState) {
        if state.waiting > 0 {
            self.room.notify_all();
        }
    }
}

/// A connection with one or more SFTP channels, driven by a thread of its own.
pub struct Session {
    pub shared: Arc<SessionShared>,
    /// Time that an operation may take beyond that for its bytes.
    patience: Duration,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Starts the engine on `link`, which has one channel, and waits until the server has answered on it.
    pub fn start(link: Box<dyn Link>, channels: usize, times: Times, traffic: Arc<Traffic>) -> Result<Session, Fault> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::io("make an eventfd", e.into()))?;
        let state = SessionState {
            channels: vec![Channel::default()],
            inbox: Vec::new(),
            features: None,
            lost: None,
            stop: false,
            crowded: false,
            upload: Flow::new(SENDING_IN_ALL),
            download: Flow::new(EXPECTING),
            round_trip: None,
            waiting: 0,
            next_id: 1,
        };
        let shared = Arc::new(SessionShared {
            state: Mutex::new(state),
            room: Condvar::new(),
            wake,
            polling: AtomicBool::new(false),
            traffic,
        });
        let (deadline, patience) = (Instant::now() + times.first, times.operation);
        let engine = Engine::new(link, Arc::clone(&shared), channels, times);
        let thread = std::thread::Builder::new().name("sftp".into()).spawn(move || engine.run());
        let thread = Some(thread.map_err(Error::no_thread)?);
        let mut state = shared.state();
        let features = loop {
            if let Some(why) = &state.lost {
                break Err(why.clone());
            }
            if state.features.is_some() {
                break Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                break Err("the SFTP server did not answer in time".into());
            }
            state = shared.wait(state, Some(deadline - now));
        };
        drop(state);
        let session = Session { shared, patience, thread };
        features.map(|()| session).map_err(Fault::Lost)
    }

    /// Returns the features known so far: limits arrive a little later than the rest.
    pub fn features(&self) -> Features {
        self.shared.state().features.unwrap_or(PLAIN_FEATURES)
    }

    /// Returns whether the connection is known to be gone.
    pub fn is_lost(&self) -> bool {
        self.shared.state().lost.is_some()
    }

    /// Returns why the connection is gone, if it is.
    pub fn lost(&self) -> Option<String> {
        self.shared.state().lost.clone()
    }

    /// Ends the connection for a reason that the engine cannot see.
    pub fn give_up(&self, why: &str) {
        let mut state = self.shared.state();
        if state.lost.is_none() {
            state.lost = Some(why.into());
        }
        state.stop = true;
        drop(state);
        self.shared.wake();
    }

    /// Returns a mailbox on the channel with the least to do.
    pub fn call<'a>(&'a self, ctx: &'a Context<'a>) -> Call<'a> {
        let mut state = self.shared.state();
        let channel = idlest(&state.channels, Channel::load);
        self.call_on_locked(ctx, &mut state, channel, Purpose::Other)
    }

    /// Returns a mailbox for a put, on the channel with the fewest of them.
    pub fn call_to_put<'a>(&'a self, ctx: &'a Context<'a>) -> Call<'a> {
        let mut state = self.shared.state();
        let channel = idlest_for_bulk(&state.channels, |channel| (channel.puts, channel.load()));
        self.call_on_locked(ctx, &mut state, channel, Purpose::Put)
    }

    /// Returns a mailbox on this channel.
    pub fn call_on<'a>(&'a self, ctx: &'a Context<'a>, channel: usize) -> Call<'a> {
        self.call_on_locked(ctx, &mut self.shared.state(), channel, Purpose::Other)
    }

    /// Returns a mailbox for a read of `len` bytes of a file that is `open` on a channel, or not yet (see [`for_read`]).
    pub fn call_to_read<'a>(
        &'a self,
        ctx: &'a Context<'a>,
        open: Option<usize>,
        patience: usize,
        len: usize,
    ) -> Call<'a> {
        let mut state = self.shared.state();
        let channel = for_read(&state.channels, open, patience, len > LARGE_READ);
        self.call_on_locked(ctx, &mut state, channel, Purpose::Other)
    }

    fn call_on_locked<'a>(
        &'a self,
        ctx: &'a Context<'a>,
        state: &mut SessionState,
        channel: usize,
        purpose: Purpose,
    ) -> Call<'a> {
        let chosen = &mut state.channels[channel];
        let busy = chosen.puts > 0 || chosen.load() >= BUSY;
        chosen.puts += usize::from(purpose == Purpose::Put);
        let crowded = busy && !state.crowded;
        state.crowded |= busy;
        if crowded {
            self.shared.wake();
        }
        Call::new(ctx, self, channel, purpose)
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
