//! One caller's requests on one channel, and the mailbox in which their answers arrive.

use std::sync::MutexGuard;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::context::{Context, SLICE};
use crate::error::{Error, Kind};
use crate::storage::net::Fault;
use crate::storage::net::allowance::{Allowance, TOO_SLOW};
use crate::storage::net::pace::Pace;
use crate::storage::sftp::packet::{Malformed, Reply, Request};
use crate::storage::sftp::session::{Ask, Message, SMALL, Session, SessionState};

/// READs that are sent with an OPEN: as many as may be on their way at first, and one for the header before whole blocks.
const READS_AHEAD: usize = 9;
/// Bytes of WRITEs that are sent with an OPEN: they fit into OpenSSH's window until its answer arrives.
const WRITE_AHEAD: usize = 2 << 20;

/// The purpose of a call: puts are spread evenly over the channels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Put,
    Other,
}

/// Requests on one channel.
pub struct Call<'a> {
    pub session: &'a Session,
    pub channel: usize,
    ctx: &'a Context<'a>,
    purpose: Purpose,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    due: usize,
    allowance: Allowance,
}

impl<'a> Call<'a> {
    pub fn new(ctx: &'a Context<'a>, session: &'a Session, channel: usize, purpose: Purpose) -> Self {
        let (sender, receiver) = unbounded();
        Call { session, channel, ctx, purpose, sender, receiver, due: 0, allowance: Allowance::new(session.patience) }
    }

    /// Sends a request; `expects` is about how many bytes the answer has. Waits while too much is on its way.
    pub fn send(&mut self, tag: u32, request: Request, expects: usize) -> Result<(), Fault> {
        let mut state = self.room(request.len(), expects)?;
        state.submit(self.channel, Ask { tag, request, expects }, Some(self.sender.clone()));
        drop(state);
        self.due += 1;
        self.session.shared.wake();
        Ok(())
    }

    /// Sends the last requests on a handle, of which the final one closes it: back to back, so that no guess falls in between.
    pub fn send_ending(&mut self, ending: Vec<Ask>, handle: &[u8]) -> Result<(), Fault> {
        let mut state = self.room(ending.len() * SMALL / 4, SMALL)?;
        state.channels[self.channel].guess.closes(handle);
        self.submit_all(&mut state, ending);
        drop(state);
        self.session.shared.wake();
        Ok(())
    }

    fn submit_all(&mut self, state: &mut SessionState, asks: Vec<Ask>) {
        self.due += asks.len();
        for ask in asks {
            state.submit(self.channel, ask, Some(self.sender.clone()));
        }
    }

    /// Sends OPEN (or OPENDIR) and, where the server's handle can be guessed, what follows on it, back to back. Returns the
    /// guess; [`Call::opened`] must be called with the answer. `sends` and `expects` are estimates for `more`.
    pub fn open_with(
        &mut self,
        tag: u32,
        open: Request,
        (sends, expects): (usize, usize),
        more: impl FnOnce(&[u8]) -> Vec<Ask>,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let openssh = self.session.features().openssh;
        let (sends, expects) = if openssh { (sends, expects) } else { (0, 0) };
        let mut state = self.room(sends, expects)?;
        let guess = state.channels[self.channel].guess.opens(self.purpose == Purpose::Put).filter(|_| openssh);
        let guess = guess.map(|number| number.to_be_bytes().to_vec());
        let open = Ask { tag, request: open, expects: SMALL };
        let more = guess.as_ref().map_or_else(Vec::new, |guess| more(guess));
        self.submit_all(&mut state, std::iter::once(open).chain(more).collect());
        drop(state);
        self.session.shared.wake();
        Ok(guess)
    }

    /// Takes the answer to [`Call::open_with`]; `closed`: a CLOSE was sent too. Returns whether the guess was right.
    pub fn opened(&self, guess: Option<&[u8]>, handle: Option<&[u8]>, closed: bool) -> bool {
        let mut state = self.session.shared.state();
        let number = guess.and_then(|guess| guess.try_into().ok()).map(u32::from_be_bytes);
        let guesses = &mut state.channels[self.channel].guess;
        guesses.opened(number, handle);
        let right = guess.is_some() && guess == handle;
        if let Some(handle) = handle.filter(|_| right && closed) {
            guesses.closes(handle);
        }
        right
    }

    /// Receives and drops all answers that are still due.
    pub fn drain(&mut self) -> Result<(), Fault> {
        while self.due > 0 {
            self.receive()?;
        }
        Ok(())
    }

    /// Waits until a request may go: by the bytes in flight and by the user's limits.
    fn room(&mut self, sends: usize, expects: usize) -> Result<MutexGuard<'a, SessionState>, Fault> {
        let shared = &self.session.shared;
        let traffic = &shared.traffic;
        let now = Instant::now();
        let book = |pace: &Option<Pace>, bytes| pace.as_ref().map_or(now, |pace| pace.book(bytes, now));
        let due = book(&traffic.upload, sends);
        let due = if expects > SMALL { due.max(book(&traffic.download, expects)) } else { due };
        self.allowance.held_back(due.saturating_duration_since(now));
        let mut state = shared.state();
        loop {
            self.check()?;
            let left = self.allowance.left();
            if left.is_zero() {
                drop(state);
                return Err(self.too_slow());
            }
            if let Some(why) = &state.lost {
                return Err(Fault::Lost(why.clone()));
            }
            let early = due.saturating_duration_since(Instant::now());
            if early.is_zero() && !state.is_full(self.channel, sends, expects) {
                return Ok(state);
            }
            let slice = if early.is_zero() { self.ctx.wait_slice() } else { Some(early.min(SLICE)) };
            state = shared.wait(state, Some(slice.map_or(left, |slice| slice.min(left))));
        }
    }

    /// Returns the largest WRITE to make now.
    pub fn write_size(&self) -> usize {
        let features = self.session.features();
        let most = self.session.shared.state().upload.packet(features.max_write);
        self.session.shared.traffic.upload.as_ref().map_or(most, |pace| pace.packet(most))
    }

    /// Returns how many of `len` bytes are written before the answer to OPEN is there.
    pub fn write_ahead(&self, len: usize) -> usize {
        let ahead = len.min(WRITE_AHEAD).min(self.session.shared.state().upload.limit / 4);
        self.session.shared.traffic.upload.as_ref().map_or(ahead, |pace| pace.packet(ahead))
    }

    /// Returns how many READs are sent before the answer to OPEN is there.
    pub fn reads_ahead(&self) -> usize {
        if self.session.shared.traffic.download.is_some() { 1 } else { READS_AHEAD }
    }

    /// Returns the largest READ to make now.
    pub fn read_size(&self) -> usize {
        let features = self.session.features();
        let most = self.session.shared.state().download.packet(features.max_read);
        self.session.shared.traffic.download.as_ref().map_or(most, |pace| pace.packet(most))
    }

    /// Fails if the caller's context has ended. Answers that arrive later are dropped.
    fn check(&self) -> Result<(), Fault> {
        self.ctx.check().map_err(Fault::Final)
    }

    /// Returns how many answers are still due.
    pub fn due(&self) -> usize {
        self.due
    }

    /// Receives the next answer, in the order of the server.
    pub fn receive(&mut self) -> Result<(u32, Vec<u8>), Fault> {
        let message = loop {
            let left = self.allowance.left();
            match self.receiver.recv_timeout(self.ctx.wait_slice().map_or(left, |slice| slice.min(left))) {
                Ok(message) => break Some(message),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(self.too_slow()),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        match message {
            Some(message) => self.take(message),
            None => Err(self.lost()),
        }
    }

    /// Returns an answer that is already there.
    pub fn try_receive(&mut self) -> Result<Option<(u32, Vec<u8>)>, Fault> {
        self.receiver.try_recv().ok().map(|message| self.take(message)).transpose()
    }

    fn take(&mut self, message: Message) -> Result<(u32, Vec<u8>), Fault> {
        let Message::Answer { tag, packet, moved } = message else { return Err(self.lost()) };
        self.due -= 1;
        self.allowance.moved(moved);
        Ok((tag, packet))
    }

    /// Ends a connection on which this operation would take too long.
    fn too_slow(&self) -> Fault {
        self.session.give_up(TOO_SLOW);
        Fault::Lost(TOO_SLOW.into())
    }

    /// Sends one request and returns the result of `then` for its answer.
    pub fn ask<T>(&mut self, request: Request, then: impl FnOnce(Reply<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.send(0, request, SMALL)?;
        let (_, packet) = self.receive()?;
        then(self.decode(&packet)?)
    }

    /// Reads an answer; one that is no SFTP ends the connection for good.
    pub fn decode<'p>(&self, packet: &'p [u8]) -> Result<Reply<'p>, Fault> {
        Reply::decode(packet).map_err(|Malformed(what)| self.nonsense(what))
    }

    /// Gives up the session and returns the fault: the server sent something that no server sends.
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
        if self.purpose == Purpose::Put {
            let mut state = self.session.shared.state();
            let channel = &mut state.channels[self.channel];
            channel.puts = channel.puts.saturating_sub(1);
        }
    }
}
