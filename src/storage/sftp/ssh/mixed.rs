//! Both transports on one connection: libssh2, and from some amount on processes `ssh` for bulk data. libssh2 logs in fast,
//! with its questions and messages; OpenSSH needs a third of its processor time for each byte, on another core.
//!
//! The processes only add channels. If they cannot log in, libssh2 goes on alone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::PollFd;

use super::channels::Channels;
use super::child::{Children, Program};
use super::options::Bulk;
use crate::storage::sftp::link::{Grow, Link};

/// Processes; more cost more processor time for the same bytes.
const PROCESSES: usize = 2;

/// A libssh2 session, and processes.
pub struct Mixed {
    session: Channels,
    children: Children,
    /// Channels of the session, once the processes begin. Later numbers are processes.
    own: Option<usize>,
    opened: usize,
    when: Bulk,
    /// Whether processes are tried: not after a failure of one.
    usable: Arc<AtomicBool>,
}

impl Mixed {
    /// Makes a link of a session with one channel. `usable` is cleared when the processes are of no use.
    pub fn new(session: Channels, program: Program, when: Bulk, usable: Arc<AtomicBool>) -> Self {
        Mixed { session, children: Children::none(program), own: None, opened: 1, when, usable }
    }

    /// Returns the link of a channel, and its number there.
    fn part(&mut self, channel: usize) -> (&mut dyn Link, usize) {
        match self.own {
            Some(own) if channel >= own => (&mut self.children, channel - own),
            _ => (&mut self.session, channel),
        }
    }

    /// Notices the end of a process.
    fn note(&mut self, channel: usize, moved: &io::Result<usize>) {
        let is_over = match moved {
            Ok(count) => *count == 0,
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        if is_over && self.own.is_some_and(|own| channel >= own) {
            self.usable.store(false, Ordering::Relaxed);
        }
    }
}

impl Link for Mixed {
    fn begin(&mut self) {
        self.session.begin();
        self.children.begin();
    }

    fn read(&mut self, channel: usize, into: &mut [u8]) -> io::Result<usize> {
        let (link, number) = self.part(channel);
        let read = link.read(number, into);
        self.note(channel, &read);
        read
    }

    fn write(&mut self, channel: usize, from: &[u8]) -> io::Result<usize> {
        let (link, number) = self.part(channel);
        let written = link.write(number, from);
        self.note(channel, &written);
        written
    }

    fn grow(&mut self) -> Grow {
        if self.own.is_some() {
            return self.children.grow();
        }
        let step = self.session.grow();
        self.opened += usize::from(step == Grow::Opened);
        step
    }

    fn bulk(&mut self, moved: u64, round_trip: Duration) -> usize {
        if self.own.is_some() || !self.when.holds(moved, round_trip) || !self.usable.load(Ordering::Relaxed) {
            return 0;
        }
        self.own = Some(self.opened);
        PROCESSES
    }

    fn close(&mut self, channel: usize) {
        let (link, number) = self.part(channel);
        link.close(number);
    }

    fn eager(&self) -> bool {
        self.session.eager()
    }

    fn buffered(&self) -> bool {
        self.session.buffered()
    }

    fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        self.session.poll_fds(fds);
        self.children.poll_fds(fds);
    }

    fn shutdown(&mut self, lost: bool) {
        if lost && self.own.is_some() {
            self.usable.store(false, Ordering::Relaxed);
        }
        self.children.shutdown(lost);
        self.session.shutdown(lost);
    }

    fn complaint(&mut self) -> Option<String> {
        self.session.complaint()
    }
}
