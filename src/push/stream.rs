//! Sources that are no files of this machine: standard input, the output of a command, what an importer reads elsewhere.

use std::cmp::Ordering;
use std::io::{self, Read};

use rustix::io::Errno;

use super::cut::Given;
use super::item::Piece;
use super::meta;
use super::read::{Reader, SHOWN, WINDOW};
use crate::crypto::chunker;
use crate::error::{Error, Kind, Result};
use crate::format::tree::Node;
use crate::progress::Event;

/// Something to save that is not found by walking: a file whose contents come from a reader, or a folder.
pub struct Stream {
    /// Where it stands in the snapshot: an absolute path without `.`, `..` and empty parts.
    pub path: Vec<u8>,
    /// Permission bits, of `0o7777`.
    pub mode: u16,
    /// The owner. Names are those that this machine has for the numbers.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Modification time: seconds since the epoch, nanoseconds.
    pub mtime: (i64, u32),
    /// What it is.
    pub kind: StreamKind,
}

/// What a [`Stream`] is.
pub enum StreamKind {
    /// A folder with these attributes. Folders on the way to a file need not be given: they are made with mode 0755, of
    /// the user who runs the push, with the time of the snapshot.
    Folder,
    /// A regular file.
    File {
        /// Bytes that will probably come; only for display.
        size: Option<u64>,
        /// What an error of `open` or of the reader means.
        failure: Failure,
        /// Called once, in the thread that reads it; several streams are read at the same time.
        open: Opener,
    },
}

/// Gives the contents of a [`Stream`]. A reader that can be kept waiting for long gives up every now and then with
/// [`io::ErrorKind::WouldBlock`]: the push asks whether it is to stop, and then for more. An [`Error`] inside of an
/// [`io::Error`] (by [`io::Error::other`]) is told as it is.
pub type Opener = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>;

/// What it means if a stream cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The push fails: there will be no snapshot.
    Fatal,
    /// The file is reported and saved as unreadable, like a file of this machine. Errors of kind
    /// [`Kind::Connection`] and [`Kind::Interrupted`] end the push all the same.
    Skip,
}

/// The order in which streams must come: that of the tree, part by part. (`/a/z` comes before `/a.b`.)
pub fn tree_order(a: &[u8], b: &[u8]) -> Ordering {
    let parts = |path| <[u8]>::split(path, |byte: &u8| *byte == b'/');
    parts(a).cmp(parts(b))
}

/// A stream on its way to a worker.
pub(super) struct StreamJob {
    pub path: Vec<u8>,
    pub node: Node,
    pub old: Option<Box<Node>>,
    pub size: Option<u64>,
    pub failure: Failure,
    /// Taken by the worker.
    pub open: Option<Opener>,
    /// Its contents, unless `node.content` says that it is unreadable.
    pub pieces: Vec<Piece>,
}

impl Reader<'_> {
    pub(super) fn stream(&mut self, job: &mut StreamJob) -> Result<()> {
        let control = self.cutter.shared.control;
        if job.size.is_none_or(|size| size >= SHOWN) {
            self.cutter.flush()?; // others may wait for what came before
            control.event(Event::File { path: &job.path });
        }
        let mut given = Given::default();
        let failed = self.pour(job, &mut given)?;
        let Some(error) = failed else { return self.cutter.collect(&mut job.pieces, &mut given) };
        let fatal = job.failure == Failure::Fatal || matches!(error.kind(), Kind::Connection | Kind::Interrupted(_));
        if fatal {
            return Err(error.while_doing(format_args!("cannot read {}", String::from_utf8_lossy(&job.path))));
        }
        control.skip(&job.path, &error);
        job.pieces.clear();
        job.node.content = meta::unreadable(Errno::IO);
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
                self.cutter.shared.control.check()?;
                match reader.read(&mut window[to..WINDOW]) {
                    Ok(0) => end = true,
                    Ok(n) => to += n,
                    Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                    Err(e) => return Ok(Some(told(e))),
                }
            }
            while to - from >= chunker::MAX || (end && to > from) {
                let len = self.cutter.shared.repo.keys().chunker().cut(&window[from..to]);
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
