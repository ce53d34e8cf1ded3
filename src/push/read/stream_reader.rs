//! Reads streams.

use std::io::{self, Read};

use crossbeam_channel::Sender;
use rustix::io::Errno;

use super::attributes;
use super::handover::Task;
use super::item::StreamJob;
use super::lane::Lane;
use super::reader::{DISPLAYED, Reader};
use super::stream::{Failure, Opener};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::window::Window;

/// The reason why a stream could not be read.
enum Trouble {
    /// The stream is at fault.
    Stream(Error),
    /// The push must end.
    Push(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Push(error)
    }
}

impl Reader<'_> {
    /// Reads a stream to its end.
    pub fn stream(&mut self, job: &mut StreamJob) -> Result<()> {
        let Some(open) = job.open.take() else { return Ok(()) };
        let ctx = self.shared.ctx;
        self.lanes.iter_mut().for_each(|lane| lane.is_active = false);
        job.each(|job| self.lane(job.destination).begin(std::mem::take(&mut job.pieces)));
        self.sort();
        if job.size.is_none_or(|size| size >= DISPLAYED) {
            self.flush()?; // the tree may wait for the files before
            ctx.event(Event::File { path: &job.path });
        }
        let error = match self.read_stream(open) {
            Ok(()) => {
                job.each(|job| job.pieces = std::mem::take(&mut self.lane(job.destination).pieces));
                return Ok(());
            }
            Err(Trouble::Push(error)) => return Err(error),
            Err(Trouble::Stream(error)) => error,
        };
        let ends_push = matches!(error.kind(), Kind::Connection | Kind::Interrupted(_) | Kind::Cancelled);
        if ends_push || job.failure == Failure::Fatal {
            return Err(error.while_doing(format_args!("cannot read {}", String::from_utf8_lossy(&job.path))));
        }
        ctx.skip(&job.path, &error);
        job.each(|job| job.node.content = attributes::unreadable(Errno::IO));
        Ok(())
    }

    fn read_stream(&mut self, open: Opener) -> Result<(), Trouble> {
        let mut reader = open().map_err(Trouble::Stream)?;
        self.active().iter_mut().for_each(Lane::begin_stream);
        while !self.cut_stream(&mut reader)? {}
        Ok(self.active().iter_mut().try_for_each(Lane::collect)?)
    }

    /// Reads until the window of the leading lane is full, and cuts the bytes. Returns whether the stream has ended.
    fn cut_stream(&mut self, reader: &mut dyn Read) -> Result<bool, Trouble> {
        let ctx = self.shared.ctx;
        let offer = self.offer.clone();
        let Some((lead, others)) = self.active().split_first_mut() else { return Ok(true) };
        let is_end = fill(&mut lead.window, others, reader, ctx, offer.as_ref())?;
        lead.cut(is_end, offer.as_ref())?;
        lead.window.slide();
        others.iter_mut().try_for_each(|lane| lane.cut(is_end, offer.as_ref()))?;
        Ok(is_end)
    }
}

/// Reads until the window is full. Returns whether the stream has ended. The other lanes get the same bytes.
fn fill(
    window: &mut Window,
    others: &mut [Lane<'_>],
    reader: &mut dyn Read,
    ctx: &Context,
    offer: Option<&Sender<Task>>,
) -> Result<bool, Trouble> {
    while !window.free().is_empty() {
        ctx.check()?;
        let free = window.free();
        match reader.read(free) {
            Ok(0) => return Ok(true),
            Ok(n) => {
                ctx.event(Event::Done { files: 0, bytes: n as u64 });
                others.iter_mut().try_for_each(|lane| lane.feed(&free[..n], 0, offer))?;
                window.fill(n);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(Trouble::Stream(into_error(e))),
        }
    }
    Ok(false)
}

/// Returns the [`Error`] inside an I/O error, or wraps it.
fn into_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::failed(error.to_string()).because(error),
    }
}
