//! The first transport: channels of one libssh2 session. libssh2 must be called again with the same bytes after it would
//! have blocked in the middle of a packet; the engine's rounds do that.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustix::event::{PollFd, PollFlags};
use ssh2::{BlockDirections, Channel, ErrorCode, Session};

use crate::storage::sftp::link::{Grow, Link};
use crate::storage::sftp::printable;

/// Bytes that the server may send on a channel before they are read. libssh2 tops it up at three quarters, which is still more
/// than the answers that may be due. A hostile server can make us hold at most this for each channel.
const WINDOW: u32 = 12 << 20;
/// The largest SSH packet that every implementation takes.
const SSH_PACKET: u32 = 32_768;
const WOULD_BLOCK: ErrorCode = ErrorCode::Session(-37);

/// An authenticated session and its channels.
pub struct Channels {
    channels: Vec<Channel>,
    /// Those that are not used any more. They are kept: to free one, libssh2 would send a packet in the middle of others.
    closed: Vec<usize>,
    opening: Opening,
    session: Session,
    socket: TcpStream,
    blocked: bool,
}

enum Opening {
    Channel,
    Subsystem(Channel),
}

impl Channels {
    /// Opens the first channel and starts the SFTP server on it; blocks until that is done, at most the session's timeout.
    pub fn open(session: Session, socket: TcpStream) -> Result<Self, ssh2::Error> {
        let mut channel = session.channel_open("session", WINDOW, SSH_PACKET, None)?;
        channel.subsystem("sftp")?;
        session.set_blocking(false);
        Ok(Channels {
            channels: vec![channel],
            closed: Vec::new(),
            opening: Opening::Channel,
            session,
            socket,
            blocked: false,
        })
    }

    fn note_direction(&mut self) {
        self.blocked |= matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
    }

    fn try_grow(&mut self) -> Result<Channel, ssh2::Error> {
        if matches!(self.opening, Opening::Channel) {
            let channel = self.session.channel_open("session", WINDOW, SSH_PACKET, None)?;
            self.opening = Opening::Subsystem(channel);
        }
        if let Opening::Subsystem(channel) = &mut self.opening {
            channel.subsystem("sftp")?;
        }
        match std::mem::replace(&mut self.opening, Opening::Channel) {
            Opening::Subsystem(channel) => Ok(channel),
            Opening::Channel => Err(ssh2::Error::unknown()),
        }
    }
}

impl Link for Channels {
    fn begin(&mut self) {
        self.blocked = false;
    }

    fn read(&mut self, channel: usize, into: &mut [u8]) -> io::Result<usize> {
        let read = self.channels[channel].read(into);
        if read.is_err() {
            self.note_direction();
        }
        read
    }

    fn write(&mut self, channel: usize, from: &[u8]) -> io::Result<usize> {
        let written = self.channels[channel].write(from);
        if written.is_err() {
            self.note_direction();
        }
        match written {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()), // the window is full
            other => other,
        }
    }

    fn grow(&mut self) -> Grow {
        match self.try_grow() {
            Ok(channel) => {
                self.channels.push(channel);
                Grow::Opened
            }
            Err(e) if e.code() == WOULD_BLOCK => {
                self.note_direction();
                Grow::Pending
            }
            Err(_) => Grow::Refused, // MaxSessions, most likely
        }
    }

    fn close(&mut self, channel: usize) {
        self.closed.push(channel);
    }

    fn eager(&self) -> bool {
        true
    }

    fn buffered(&self) -> bool {
        let open = self.channels.iter().enumerate().filter(|(number, _)| !self.closed.contains(number));
        open.map(|(_, channel)| channel.read_window().available).any(|available| available > 0)
    }

    fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let out = if self.blocked { PollFlags::OUT } else { PollFlags::empty() };
        fds.push(PollFd::new(&self.socket, PollFlags::IN | out));
    }

    /// The socket is shut first: otherwise libssh2 waits in every drop for a server that may be dead.
    fn shutdown(&mut self, lost: bool) {
        if !lost {
            let _ = self.session.disconnect(None, "", None);
        }
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    fn complaint(&mut self) -> Option<String> {
        None
    }
}

/// Returns an error of libssh2 in words.
pub fn words(e: &ssh2::Error) -> String {
    printable(e.message().as_bytes())
}
