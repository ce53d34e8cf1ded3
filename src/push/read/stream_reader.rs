//! Reads streams: each to its end, in the thread that cuts it.

use std::io;

use rustix::io::Errno;

use super::attributes;
use super::cutter::Given;
use super::item::StreamJob;
use super::reader::{Reader, SHOWN, WINDOW};
use super::stream::Failure;
use crate::crypto::chunker;
use crate::error::{Error, Kind, Result};
use crate::progress::Event;

impl Reader<'_> {
    pub fn stream(&mut self, job: &mut StreamJob) -> Result<()> {
        let ctx = self.cutter.work.ctx;
        if job.size.is_none_or(|size| size >= SHOWN) {
            self.cutter.flush()?; // others may wait for what came before
            ctx.event(Event::File { path: &job.path });
        }
        let mut given = Given::default();
        let failed = self.pour(job, &mut given)?;
        let Some(error) = failed else { return self.cutter.collect(&mut job.pieces, &mut given) };
        let fatal = job.failure == Failure::Fatal
            || matches!(error.kind(), Kind::Connection | Kind::Interrupted(_) | Kind::Cancelled);
        if fatal {
            return Err(error.while_doing(format_args!("cannot read {}", String::from_utf8_lossy(&job.path))));
        }
        ctx.skip(&job.path, &error);
        job.pieces.clear();
        job.node.content = attributes::unreadable(Errno::IO);
        Ok(())
    }

    /// Reads to the end and cuts. Gives what went wrong with the stream; what ends the push is an error.
    fn pour(&mut self, job: &mut StreamJob, given: &mut Given) -> Result<Option<Error>> {
        let opened = job.open.take().map(|open| open()).transpose();
        let mut reader = match opened {
            Ok(Some(reader)) => reader,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        };
        let mut window = std::mem::take(&mut self.window);
        window.resize(window.len().max(WINDOW), 0);
        let (mut from, mut to, mut end) = (0, 0, false);
        while !end {
            while to < WINDOW && !end {
                self.cutter.work.ctx.check()?;
                match reader.read(&mut window[to..WINDOW]) {
                    Ok(0) => end = true,
                    Ok(n) => to += n,
                    Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                    Err(e) => return Ok(Some(told(e))),
                }
            }
            while to - from >= chunker::MAX || (end && to > from) {
                let len = self.cutter.work.repo.keys().chunker().cut(&window[from..to]);
                let plain = &window[from..from + len];
                match &self.offer {
                    Some(offer) if to - from > len => self.cutter.give(plain, &mut job.pieces, given, offer)?,
                    _ => job.pieces.push(self.cutter.chunk(plain)?),
                }
                from += len;
            }
            window.copy_within(from..to, 0);
            (from, to) = (0, to - from);
        }
        self.window = window;
        Ok(None)
    }
}

fn told(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::failed(error.to_string()).because(error),
    }
}
