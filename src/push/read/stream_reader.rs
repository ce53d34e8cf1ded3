//! Reads streams.

use std::io::{self, Read};

use rustix::io::Errno;

use super::attributes;
use super::handover::Handover;
use super::item::StreamJob;
use super::reader::{DISPLAYED, Reader};
use super::stream::Failure;
use super::workspace::Workspace;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::window::Window;

/// Why a stream could not be read.
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
        let ctx = self.cutter.work.ctx;
        if job.size.is_none_or(|size| size >= DISPLAYED) {
            self.cutter.flush()?; // the tree may wait for the files before
            ctx.event(Event::File { path: &job.path });
        }
        let error = match self.read_stream(job) {
            Ok(()) => return Ok(()),
            Err(Trouble::Push(error)) => return Err(error),
            Err(Trouble::Stream(error)) => error,
        };
        let ends_push = matches!(error.kind(), Kind::Connection | Kind::Interrupted(_) | Kind::Cancelled);
        if ends_push || job.failure == Failure::Fatal {
            return Err(error.while_doing(format_args!("cannot read {}", String::from_utf8_lossy(&job.path))));
        }
        ctx.skip(&job.path, &error);
        job.pieces.clear();
        job.node.content = attributes::unreadable(Errno::IO);
        Ok(())
    }

    fn read_stream(&mut self, job: &mut StreamJob) -> Result<(), Trouble> {
        let Some(open) = job.open.take() else { return Ok(()) };
        let mut reader = open().map_err(Trouble::Stream)?;
        let Workspace { repo, ctx, .. } = self.cutter.work;
        let mut handover = Handover::default();
        self.window.start(None);
        let mut is_end = false;
        while !is_end {
            is_end = fill(&mut self.window, &mut reader, ctx)?;
            while let Some(chunk) = self.window.cut(repo.keys().chunker(), is_end) {
                match &self.offer {
                    Some(offer) if chunk.rest > 0 => {
                        self.cutter.share(chunk.plain, &mut job.pieces, &mut handover, offer)?;
                    }
                    _ => job.pieces.push(self.cutter.chunk(chunk.plain)?),
                }
            }
            self.window.slide();
        }
        Ok(handover.collect(ctx, &mut job.pieces)?)
    }
}

/// Reads until the window is full. Returns whether the stream has ended.
fn fill(window: &mut Window, reader: &mut dyn Read, ctx: &Context) -> Result<bool, Trouble> {
    while !window.free().is_empty() {
        ctx.check()?;
        match reader.read(window.free()) {
            Ok(0) => return Ok(true),
            Ok(n) => window.fill(n),
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
