//! The engine's clock: how long it sleeps, when a silent server is given up, when an idle one is asked whether it is there.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::storage::net::retry::LAST_CHANCE;
use crate::storage::sftp::packet::{self, Request};
use crate::storage::sftp::session::engine::{Engine, Step};
use crate::storage::sftp::session::stream::Pending;

/// While an answer is due: then the engine looks whether the run was asked to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

impl Engine {
    pub fn waits_for_answer(&self) -> bool {
        self.features.is_none()
            || self.streams.iter().any(|stream| !stream.pending.is_empty() || !stream.out.is_empty())
    }

    pub fn sleep(&mut self) -> Step<()> {
        self.shared.polling.store(true, Ordering::SeqCst);
        let state = self.shared.state();
        let idle = state.inbox.is_empty() && !state.stop;
        drop(state);
        if idle {
            let left = self.times.io.saturating_sub(self.progress.elapsed()).min(LONGEST_SLEEP);
            let timeout = match self.waits_for_answer() {
                true => Some(left.max(Duration::from_millis(10))),
                false => {
                    Some(self.times.keepalive.saturating_sub(self.progress.elapsed())).filter(|_| self.keeps_alive())
                }
            };
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

    /// Fails if nothing moved for the timeout although something should, or if one request is far overdue.
    pub fn check_time(&mut self) -> Step<()> {
        let now = Instant::now();
        if !self.waits_for_answer() {
            if self.keeps_alive() && now - self.progress >= self.times.keepalive {
                self.keep_alive();
            }
            return Ok(());
        }
        // until the first answer a person may be typing a password at the prompt of `ssh`
        let greeted = self.streams.first().is_some_and(|stream| stream.greeted);
        let limit = if greeted { self.times.io } else { self.times.first };
        let limit = if self.times.ctx.signal().is_some() { limit.min(LAST_CHANCE) } else { limit };
        if now - self.progress >= limit {
            return Err(format!("the server did not answer for {} s", limit.as_secs_f32()));
        }
        if now - self.checked > self.times.io {
            self.checked = now;
            let overdue = |pending: &Pending| now - pending.since > self.times.operation;
            if self.streams.iter().any(|stream| stream.pending.values().any(overdue)) {
                return Err("the server left a request unanswered".into());
            }
        }
        Ok(())
    }

    fn keeps_alive(&self) -> bool {
        !self.times.keepalive.is_zero()
    }

    /// Asks every channel something cheap: it keeps routers from forgetting the connection, and a peer that is gone is noticed
    /// before the next request.
    fn keep_alive(&mut self) {
        for number in 0..self.streams.len() {
            if self.streams[number].greeted && !self.streams[number].closed {
                self.shared.tell(number, Request::new(packet::LSTAT).string(b"."));
            }
        }
    }
}
