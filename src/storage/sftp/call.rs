//! One caller's requests on one channel, and the mailbox in which their answers arrive.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::packet::{Malformed, Reply, Request};
use super::session::{Fault, Message, SMALL, Session, State, Submit, next_id};
use crate::error::{Error, Kind};
use crate::storage::halt::{SLICE, Stop, stopped};

/// Unacknowledged WRITE bytes a channel may hold: OpenSSH's window of 2 MiB, and as much again waiting behind it.
const SENDING: usize = 4 << 20;
/// Bytes of answers due, over all channels of a session; more only queues in buffers on the way (transport.md, Recipe A).
const EXPECTING: usize = 16 << 20;
/// Of these on one channel; below what a window of libssh2 is kept above (`ssh::channels`).
const EXPECTING_ON_ONE: usize = 8 << 20;

/// Requests on one channel.
pub struct Call<'a> {
    pub session: &'a Session,
    pub channel: usize,
    /// That of a put; whoever waits here asks it now and then.
    stop: Option<Stop<'a>>,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    due: usize,
}

impl<'a> Call<'a> {
    pub fn new(session: &'a Session, channel: usize, stop: Option<Stop<'a>>) -> Self {
        let (sender, receiver) = unbounded();
        Call { session, channel, stop, sender, receiver, due: 0 }
    }

    /// Sends a request; `expects` is about how many bytes the answer has. Waits while the channel is full.
    pub fn send(&mut self, tag: u32, request: Request, expects: usize) -> Result<(), Fault> {
        let shared = &self.session.shared;
        let sends = request.len();
        let mut state = shared.state();
        loop {
            self.check()?;
            if let Some(why) = &state.lost {
                return Err(Fault::Lost(why.clone()));
            }
            if !self.is_full(&state, sends, expects) {
                break;
            }
            state = shared.wait(state, self.stop.map(|_| SLICE));
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

    fn is_full(&self, state: &State, sends: usize, expects: usize) -> bool {
        let total: usize = state.channels.iter().map(|channel| channel.expecting).sum();
        let channel = &state.channels[self.channel];
        channel.sending > 0 && channel.sending + sends > SENDING
            || channel.expecting > 0 && (channel.expecting + expects > EXPECTING_ON_ONE || total + expects > EXPECTING)
    }

    /// Ends a put that is to be given up. Answers that come later find nobody.
    fn check(&self) -> Result<(), Fault> {
        match self.stop {
            Some(stop) if stop() => Err(Fault::Final(stopped())),
            _ => Ok(()),
        }
    }

    /// How many answers are still due.
    pub fn due(&self) -> usize {
        self.due
    }

    /// The next answer, in whatever order the server gives them.
    pub fn receive(&mut self) -> Result<(u32, Vec<u8>), Fault> {
        let message = loop {
            let Some(_) = self.stop else { break self.receiver.recv().ok() };
            match self.receiver.recv_timeout(SLICE) {
                Ok(message) => break Some(message),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        match message {
            Some(Message::Answer { tag, packet }) => {
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
        if self.stop.is_some() {
            let mut state = self.session.shared.state();
            let channel = &mut state.channels[self.channel];
            channel.puts = channel.puts.saturating_sub(1);
        }
    }
}
