//! Reads files that may change meanwhile.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::attributes::{self, error, same};
use super::cutter::Cutter;
use super::dir::Dir;
use super::handover::{Handover, Task};
use super::item::Job;
use super::open_file::OpenFile;
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::format::node::{CHANGED, Content, Node};
use crate::format::reference::Extent;
use crate::progress::Event;
use crate::push::pack::chunks::Place;
use crate::push::pack::piece::Piece;
use crate::window::Window;

/// Attempts to read a file that changes meanwhile.
const ATTEMPTS: usize = 3;
/// Bytes of one call: the files of /proc/sys refuse calls of 4 MiB for want of memory.
const READ: usize = 1 << 20;
/// Size from which on a file is reported to the progress display and read ahead by the kernel.
pub const DISPLAYED: u64 = 4 << 20;

/// Reads the files and streams of one worker.
pub struct Reader<'w> {
    pub cutter: Cutter<'w>,
    pub window: Window,
    /// Where chunks of large files are offered to idle workers.
    pub offer: Option<Sender<Task>>,
    published: Option<Published>,
}

/// How much of a file that is alone in its batch is published in [`super::partial::PartialFiles`].
struct Published {
    batch: u64,
    pieces: usize,
}

/// The change of a file while it was read.
enum Meanwhile {
    Nothing,
    /// It became longer, and `stat` shows no other change.
    Grew,
    Changed,
}

/// Why a file could not be read.
enum Trouble {
    /// The file is at fault.
    File(Errno),
    /// The push must end.
    Push(Error),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Trouble::File(errno)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Push(error)
    }
}

impl<'w> Reader<'w> {
    /// Makes a reader that offers chunks of large files to idle workers by `offer`.
    pub fn new(work: Workspace<'w>, compression: i32, offer: Sender<Task>) -> Result<Self> {
        let cutter = Cutter::new(work, compression)?;
        Ok(Reader { cutter, window: Window::default(), offer: Some(offer), published: None })
    }

    /// Begins a batch. `alone`: its number, if a file is alone in it and its beginning is published while it is read.
    pub fn begin_batch(&mut self, alone: Option<u64>) {
        self.published = alone.map(|batch| Published { batch, pieces: 0 });
    }

    /// Reads a file, again if it changes meanwhile.
    pub fn file(&mut self, job: &mut Job) -> Result<()> {
        let Some(dir) = job.dir.take() else { return Ok(()) };
        let path = dir.path_of(&job.node.name);
        if job.stat.st_size as u64 >= DISPLAYED {
            self.cutter.flush()?; // the tree may wait for the files before
            self.cutter.work.ctx.event(Event::File { path: &path });
        }
        let mut earlier: Option<Vec<Piece>> = None;
        for _ in 0..ATTEMPTS {
            match self.attempt(job, &dir, earlier.as_deref()) {
                Ok(Meanwhile::Nothing) => return Ok(()),
                Ok(Meanwhile::Grew) => earlier = Some(job.pieces.clone()),
                Ok(Meanwhile::Changed) => earlier = None,
                Err(Trouble::Push(error)) => return Err(error),
                Err(Trouble::File(errno)) => return self.give_up(job, &path, errno),
            }
        }
        job.node.flags |= CHANGED;
        self.report_unsteady(&path);
        Ok(())
    }

    /// Reports a file that changed each time it was read.
    fn report_unsteady(&self, path: &[u8]) {
        let Workspace { ctx, unsteady, .. } = self.cutter.work;
        unsteady.fetch_add(1, Ordering::Relaxed);
        let path = String::from_utf8_lossy(path);
        ctx.warn(&format!("{path} changed each time it was read; the saved content may mix several states"));
    }

    fn give_up(&self, job: &mut Job, path: &[u8], errno: Errno) -> Result<()> {
        if errno == Errno::NOENT {
            job.gone = true;
            return Ok(());
        }
        let why = match errno {
            Errno::STALE | Errno::LOOP | Errno::NXIO => {
                Error::failed("something else took its place while it was being saved; the next push saves that")
            }
            _ => error("read the file", errno),
        };
        attributes::skip(self.cutter.work.ctx, path, why)?;
        job.node.content = attributes::unreadable(errno);
        Ok(())
    }

    /// Reads the file once. Returns what happened to it meanwhile.
    ///
    /// `earlier`: the pieces of the previous attempt, if the file has only grown since. Then only that length is read again.
    /// If the content is the same, each byte was the same before and after a moment between the two reads, so this was the
    /// content of the file in that moment. In this way a log that is written all the time is saved in a consistent state.
    fn attempt(&mut self, job: &mut Job, dir: &Arc<Dir>, earlier: Option<&[Piece]>) -> Result<Meanwhile, Trouble> {
        let file = OpenFile::open(dir, &job.node.name)?;
        let before = file.stat()?;
        if attributes::kind(&before) != FileType::RegularFile {
            return Err(Errno::STALE.into());
        }
        if job.link.is_some_and(|link| link != attributes::id(&before)) {
            job.link = None; // another file took its place, so the links to come have other contents
        }
        let unchanged = same(&job.stat, &before);
        let earlier = earlier.filter(|_| grew(&job.stat, &before));
        let size = if earlier.is_some() { job.stat.st_size } else { before.st_size } as u64;
        if earlier.is_none() && !unchanged {
            self.renew(job, &before);
        }
        let path = dir.path_of(&job.node.name);
        let xattrs = self.cutter.work.nodes.xattrs(self.cutter.work.ctx, &path, file.xattrs())?;
        let earlier = earlier.filter(|_| job.node.xattrs == xattrs);
        job.node.xattrs = xattrs;
        job.pieces.clear();
        let start = match job.prefix.take() {
            Some(prefix) if unchanged => self.prefix(&prefix, &mut job.pieces, before.st_size as u64)?,
            _ => 0,
        };
        self.publish_start(&job.node, &job.pieces)?;
        let is_sparse = (before.st_blocks as u64).saturating_mul(512) < size;
        let read = self.contents(&file, start..size, is_sparse, &mut job.pieces)?;
        let after = file.stat()?;
        if read == size && earlier.is_some_and(|earlier| Piece::same(earlier, &job.pieces)) {
            return Ok(Meanwhile::Nothing);
        }
        if !same(&before, &after) || size != before.st_size as u64 {
            let is_whole = read == size && size == before.st_size as u64;
            return Ok(if is_whole { compare(&before, &after) } else { Meanwhile::Changed });
        }
        // The file did not change. If it is longer or shorter than its size says, only its end is right (/proc, /sys).
        if read == size && file.read(&mut [0], size)? > 0 {
            self.data(&file, size..u64::MAX, &mut job.pieces, &mut Handover::default())?;
        }
        Ok(Meanwhile::Nothing)
    }

    /// Takes over the attributes of the file as it is now.
    fn renew(&self, job: &mut Job, stat: &Stat) {
        let name = std::mem::take(&mut job.node.name);
        job.node = self.cutter.work.nodes.node(name, stat, job.node.content.clone());
        job.stat = *stat;
    }

    /// Takes over the part of the file that a partial snapshot holds. Returns its length. If a part of the list cannot be
    /// read, the file is read from there on.
    fn prefix(&self, prefix: &Content, pieces: &mut Vec<Piece>, size: u64) -> Result<u64> {
        let Workspace { trees, ctx, data, .. } = self.cutter.work;
        for extent in trees.extents(ctx, prefix) {
            match extent {
                Ok(Extent::Hole(len)) => pieces.push(Piece::Hole(len)),
                Ok(Extent::Data(r)) => {
                    let pack = data.packs.earlier(r.pack);
                    pieces.push(Piece::Known(r.id, Place { pack, offset: r.offset, stored: r.stored, len: r.len }));
                }
                Err(e) if e.kind().is_damage() => break,
                Err(e) => return Err(e),
            }
        }
        // A hole at the end may go on, and must be one piece.
        while let Some(Piece::Hole(_)) = pieces.last() {
            pieces.pop();
        }
        let end = pieces.iter().map(known_len).sum();
        if end > size {
            pieces.clear();
            return Ok(0);
        }
        ctx.event(Event::Unchanged { files: 0, bytes: end });
        Ok(end)
    }

    /// Publishes the beginning of a file that is alone in its batch.
    fn publish_start(&mut self, node: &Node, pieces: &[Piece]) -> Result<()> {
        if let Some(published) = &mut self.published {
            self.cutter.work.partial.begin(published.batch, node.clone());
            published.pieces = 0;
        }
        self.publish(pieces)
    }

    fn publish(&mut self, pieces: &[Piece]) -> Result<()> {
        let Some(published) = &mut self.published else { return Ok(()) };
        self.cutter.flush()?; // a checkpoint stores the pieces before the first one that is in no pack
        let new = &pieces[published.pieces..];
        let new = &new[..new.iter().take_while(|piece| !matches!(piece, Piece::Awaited)).count()];
        self.cutter.work.partial.extend(published.batch, new);
        published.pieces += new.len();
        Ok(())
    }

    /// Reads a range of the file. Returns where it ended, holes included.
    fn contents(
        &mut self,
        file: &OpenFile,
        range: Range<u64>,
        is_sparse: bool,
        pieces: &mut Vec<Piece>,
    ) -> Result<u64, Trouble> {
        let Range { start: mut at, end: size } = range;
        if size >= DISPLAYED {
            file.read_ahead();
        }
        let mut handover = Handover::default();
        if is_sparse {
            while at < size {
                let data = file.next_data(at, size)?;
                if data.start > at {
                    pieces.push(Piece::Hole(data.start - at));
                }
                at = self.data(file, data.clone(), pieces, &mut handover)?;
                if at < data.end {
                    break; // truncated meanwhile
                }
            }
        } else {
            at = self.data(file, at..size, pieces, &mut handover)?;
        }
        handover.collect(self.cutter.work.ctx, pieces)?;
        Ok(at)
    }

    /// Cuts a range of the file into chunks. Returns where it ended.
    fn data(
        &mut self,
        file: &OpenFile,
        range: Range<u64>,
        pieces: &mut Vec<Piece>,
        handover: &mut Handover,
    ) -> Result<u64, Trouble> {
        let Workspace { repo, ctx, .. } = self.cutter.work;
        let Range { start: mut at, mut end } = range;
        self.window.start(Some(end - at));
        let is_long = self.window.has_several_chunks() && end < u64::MAX;
        loop {
            fill(&mut self.window, file, &mut at, &mut end)?;
            let is_end = at >= end;
            while let Some(chunk) = self.window.cut(repo.keys().chunker(), is_end) {
                match &self.offer {
                    Some(offer) if is_long => self.cutter.share(chunk.plain, pieces, handover, offer)?,
                    _ => pieces.push(self.cutter.chunk(chunk.plain)?),
                }
            }
            self.publish(pieces)?;
            if is_end {
                return Ok(end);
            }
            ctx.check()?;
            self.window.slide();
        }
    }
}

/// Reads from `at` on until the window is full or the range ends. A file that is shorter moves `end`.
fn fill(window: &mut Window, file: &OpenFile, at: &mut u64, end: &mut u64) -> Result<(), Errno> {
    while *at < *end {
        let free = window.free();
        let want = free.len().min(usize::try_from(*end - *at).unwrap_or(READ)).min(READ);
        if want == 0 {
            break;
        }
        let n = file.read(&mut free[..want], *at)?;
        if n == 0 {
            *end = *at;
        }
        window.fill(n);
        *at += n as u64;
    }
    Ok(())
}

fn compare(before: &Stat, after: &Stat) -> Meanwhile {
    if same(before, after) {
        Meanwhile::Nothing
    } else if grew(before, after) {
        Meanwhile::Grew
    } else {
        Meanwhile::Changed
    }
}

/// Returns whether the file became longer, with all other saved attributes unchanged.
fn grew(a: &Stat, b: &Stat) -> bool {
    let is_same_owner = (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid);
    let is_same_file = attributes::id(a) == attributes::id(b) && attributes::nlink(a) == attributes::nlink(b);
    is_same_file && is_same_owner && a.st_size < b.st_size
}

/// The length of a piece in a stored pack.
fn known_len(piece: &Piece) -> u64 {
    match piece {
        Piece::Known(_, place) => place.len.into(),
        Piece::Hole(len) => *len,
        Piece::New(_) | Piece::Awaited => 0,
    }
}
