//! Reads files, whatever happens to them meanwhile. One [`Reader`] for each worker thread, with its own window.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{self, Advice, FileType, OFlags, SeekFrom, Stat};
use rustix::io::{self, Errno};

use super::attributes::{self, error};
use super::cutter::{Cutter, Given, Task};
use super::item::{Batch, Item, Job};
use super::workspace::Workspace;
use crate::context::SLICE;
use crate::crypto::chunker;
use crate::error::{Error, Result};
use crate::format::node::{CHANGED, Content, Node, Xattrs};
use crate::format::reference::Extent;
use crate::progress::Event;
use crate::push::pack::chunks::Place;
use crate::push::pack::piece::Piece;

/// Bytes of a file that are held at once: the chunker must see [`chunker::MAX`], and what lies behind is moved to the
/// front when that is reached.
pub const WINDOW: usize = 2 * chunker::MAX;
/// Holes shorter than this are read as zeros: a chunk for each stretch between them would cost more.
const HOLE: u64 = 64 << 10;
/// Attempts to read a file that changes meanwhile.
const ATTEMPTS: usize = 3;
/// Files of this size on are shown and read ahead of by the kernel.
pub const SHOWN: u64 = 4 << 20;

pub struct Reader<'w> {
    pub cutter: Cutter<'w>,
    pub window: Vec<u8>,
    pub offer: Option<Sender<Task>>,
    /// The number of the batch of a file that travels alone, and how many of its pieces were shown in [`super::partial::PartialFiles`].
    alone: Option<(u64, usize)>,
}

enum Next {
    Batch(Batch),
    Task(Task),
    Nothing,
    End,
}

/// What the file did while it was read.
enum Meanwhile {
    Nothing,
    /// Its size grew, as far as can be seen from outside.
    Grew,
    Changed,
}

/// Why a file could not be read: something with the file, or something that ends the push.
enum Trouble {
    File(Errno),
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
    /// Chunks of large files go to `offer` while somebody waits there.
    pub fn new(work: Workspace<'w>, compression: i32, offer: Sender<Task>) -> Result<Self> {
        Ok(Reader { cutter: Cutter::new(work, compression)?, window: Vec::new(), offer: Some(offer), alone: None })
    }

    /// The body of a worker thread. Gives the bytes read.
    pub fn run(mut self, work: &Receiver<Batch>, tasks: &Receiver<Task>) -> Result<u64> {
        let Workspace { ctx, queue, idle, .. } = self.cutter.work;
        loop {
            match self.next(work, tasks)? {
                Next::Batch(mut batch) => {
                    let alone =
                        batch.files == 1 && batch.items.iter().all(|i| matches!(i, Item::File(_) | Item::Page(..)));
                    let number = batch.number;
                    self.alone = alone.then_some((number, 0));
                    self.batch(&mut batch)?;
                    queue.finish(batch.number, batch);
                    self.cutter.work.partial.end(number);
                }
                Next::Task(task) => self.cutter.serve(&task)?,
                Next::Nothing => {}
                Next::End => break,
            }
        }
        // No more files for this one; others may still be at large ones.
        self.offer = None;
        idle.fetch_add(1, Ordering::Relaxed);
        while let Some(task) = ctx.receive(tasks)? {
            self.cutter.serve(&task)?;
        }
        Ok(self.cutter.read)
    }

    fn next(&self, work: &Receiver<Batch>, tasks: &Receiver<Task>) -> Result<Next> {
        let Workspace { ctx, idle, .. } = self.cutter.work;
        ctx.check()?;
        idle.fetch_add(1, Ordering::Relaxed);
        let next = crossbeam_channel::select! {
            recv(work) -> batch => batch.map_or(Next::End, Next::Batch),
            recv(tasks) -> task => task.map_or(Next::Nothing, Next::Task),
            default(SLICE) => Next::Nothing,
        };
        idle.fetch_sub(1, Ordering::Relaxed);
        Ok(next)
    }

    fn batch(&mut self, batch: &mut Batch) -> Result<()> {
        for item in &mut batch.items {
            self.cutter.work.ctx.check()?;
            match item {
                Item::File(job) => self.file(job)?,
                Item::Stream(job) => self.stream(job)?,
                _ => {}
            }
        }
        self.cutter.flush()?;
        self.cutter.work.ctx.event(Event::Done { files: batch.files as u64, bytes: 0 });
        Ok(())
    }

    fn file(&mut self, job: &mut Job) -> Result<()> {
        if job.stat.st_size as u64 >= SHOWN {
            self.cutter.flush()?; // others may wait for what came before
            self.cutter.work.ctx.event(Event::File { path: &job.dir.path_of(&job.node.name) });
        }
        let mut earlier: Option<Vec<Piece>> = None;
        for _ in 0..ATTEMPTS {
            let gave_up = match self.attempt(job, earlier.as_deref()) {
                Ok(Meanwhile::Nothing) => return Ok(()),
                Ok(Meanwhile::Grew) => {
                    earlier = Some(job.pieces.clone());
                    continue;
                }
                Ok(Meanwhile::Changed) => {
                    earlier = None;
                    continue;
                }
                Err(Trouble::Push(error)) => return Err(error),
                Err(Trouble::File(errno)) => errno,
            };
            self.gave_up(job, gave_up);
            return Ok(());
        }
        job.node.flags |= CHANGED;
        self.unsteady(&job.dir.path_of(&job.node.name));
        Ok(())
    }

    /// Reports a file that changed each time it was read.
    fn unsteady(&self, path: &[u8]) {
        let Workspace { ctx, unsteady, .. } = self.cutter.work;
        unsteady.fetch_add(1, Ordering::Relaxed);
        let path = String::from_utf8_lossy(path);
        ctx.warn(&format!("{path} changed each time it was read; what is saved of it may belong to several moments"));
    }

    fn gave_up(&self, job: &mut Job, errno: Errno) {
        if errno == Errno::NOENT {
            job.gone = true;
            return;
        }
        let why = match errno {
            Errno::STALE | Errno::LOOP | Errno::NXIO => {
                Error::failed("something else took its place while it was being saved; the next push saves that")
            }
            _ => error("read the file", errno),
        };
        self.cutter.work.ctx.skip(&job.dir.path_of(&job.node.name), &why);
        job.node.content = attributes::unreadable(errno);
    }

    /// Reads the file once; gives what it did meanwhile.
    ///
    /// `earlier` is what was read of it the last time, if it has only grown since. Then just so much is read again: if it
    /// is the same, each byte was the same before and after the moment between the two readings, so that was the beginning
    /// of the file in that moment. A log that is written to all the time is saved as one consistent state that way.
    fn attempt(&mut self, job: &mut Job, earlier: Option<&[Piece]>) -> Result<Meanwhile, Trouble> {
        let fd = job.dir.open(&job.node.name, OFlags::NOFOLLOW)?;
        let before = fs::fstat(&fd)?;
        if attributes::kind(&before) != FileType::RegularFile {
            return Err(Errno::STALE.into());
        }
        if job.link.is_some_and(|link| link != attributes::id(&before)) {
            job.link = None; // another file took its place: its contents are not those of the links to come
        }
        let unchanged = same(&job.stat, &before);
        let earlier = earlier.filter(|_| grew(&job.stat, &before));
        let mut now = before;
        match earlier {
            Some(_) => now.st_size = job.stat.st_size,
            None if unchanged => {}
            None => {
                let name = std::mem::take(&mut job.node.name);
                job.node = self.cutter.work.nodes.node(name, &before, job.node.content.clone());
                job.stat = before;
            }
        }
        let xattrs = Xattrs::Inline(self.xattrs(job, &fd));
        let earlier = earlier.filter(|_| job.node.xattrs == xattrs);
        job.node.xattrs = xattrs;
        job.pieces.clear();
        let prefix = job.prefix.take().filter(|_| unchanged);
        let begun = prefix.map_or(Ok(0), |prefix| self.prefix(&prefix, &mut job.pieces, before.st_size as u64))?;
        self.begin(&job.node, &job.pieces)?;
        let mut given = Given::default();
        let read = self.contents(&fd, &now, begun, &mut job.pieces, &mut given)?;
        self.cutter.collect(&mut job.pieces, &mut given)?;
        let after = fs::fstat(&fd)?;
        Ok(match () {
            () if read != now.st_size as u64 => Meanwhile::Changed,
            () if earlier.is_some_and(|earlier| Piece::same(earlier, &job.pieces)) => Meanwhile::Nothing,
            () if now.st_size == before.st_size && same(&before, &after) => Meanwhile::Nothing,
            () if now.st_size == before.st_size && grew(&before, &after) => Meanwhile::Grew,
            () => Meanwhile::Changed,
        })
    }

    /// Takes over what an unfinished push has saved of the file; gives where that ends. What cannot be read is read again.
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
        // Another hole may follow; it is to be one with this one.
        while let Some(Piece::Hole(_)) = pieces.last() {
            pieces.pop();
        }
        let len = |piece: &Piece| match piece {
            Piece::Known(_, place) => u64::from(place.len),
            Piece::Hole(len) => *len,
            Piece::New(_) | Piece::Awaited => 0,
        };
        let end = pieces.iter().map(len).sum();
        if end > size {
            pieces.clear();
            return Ok(0);
        }
        ctx.event(Event::Done { files: 0, bytes: end });
        Ok(end)
    }

    /// A file that travels alone is shown while it is being read.
    fn begin(&mut self, node: &Node, pieces: &[Piece]) -> Result<()> {
        if let Some((batch, shown)) = &mut self.alone {
            self.cutter.work.partial.begin(*batch, node.clone());
            *shown = 0;
        }
        self.show(pieces)
    }

    fn show(&mut self, pieces: &[Piece]) -> Result<()> {
        let Some((batch, shown)) = &mut self.alone else { return Ok(()) };
        self.cutter.flush()?; // the beginning that can be kept ends at the first chunk that is in no pack
        let new = pieces[*shown..].iter().take_while(|piece| !matches!(piece, Piece::Awaited)).count();
        self.cutter.work.partial.extend(*batch, &pieces[*shown..*shown + new]);
        *shown += new;
        Ok(())
    }

    fn xattrs(&self, job: &Job, fd: &OwnedFd) -> attributes::Pairs {
        attributes::xattrs_of(fd).unwrap_or_else(|errno| {
            let path = job.dir.path_of(&job.node.name);
            self.cutter.work.ctx.skip(&path, &error("read its extended attributes", errno));
            Vec::new()
        })
    }

    /// Reads from `begun` on. Gives the length of what was there, holes included.
    fn contents(
        &mut self,
        fd: &OwnedFd,
        stat: &Stat,
        begun: u64,
        pieces: &mut Vec<Piece>,
        given: &mut Given,
    ) -> Result<u64, Trouble> {
        let size = stat.st_size as u64;
        if size >= SHOWN {
            let _ = fs::fadvise(fd, 0, None, Advice::Sequential); // only advice
        }
        if (stat.st_blocks as u64).saturating_mul(512) >= size {
            return self.stretch(fd, begun..size, pieces, given);
        }
        let mut at = begun;
        while at < size {
            let data = match next_data(fd, at, size)? {
                data if data.start - at < HOLE && data.start < size => at..data.end,
                data => data,
            };
            if data.start > at {
                pieces.push(Piece::Hole(data.start - at));
            }
            at = self.stretch(fd, data.clone(), pieces, given)?;
            if at < data.end {
                break; // it was cut off meanwhile
            }
        }
        Ok(at)
    }

    /// Cuts a stretch of the file into chunks. Gives where it ended.
    fn stretch(
        &mut self,
        fd: &OwnedFd,
        range: Range<u64>,
        pieces: &mut Vec<Piece>,
        given: &mut Given,
    ) -> Result<u64, Trouble> {
        let Range { start: mut at, end: mut stop } = range;
        let capacity = (stop - at).min(WINDOW as u64) as usize;
        let mut window = std::mem::take(&mut self.window);
        window.resize(window.len().max(capacity), 0);
        let (mut from, mut to) = (0, 0);
        let done = loop {
            while to < capacity && at < stop {
                let want = capacity.min(to.saturating_add(usize::try_from(stop - at).unwrap_or(usize::MAX)));
                match io::pread(fd, &mut window[to..want], at) {
                    Ok(0) => stop = at,
                    Ok(n) => (to, at) = (to + n, at + n as u64),
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            while to - from >= chunker::MAX || (at >= stop && to > from) {
                let len = self.cutter.work.repo.keys().chunker().cut(&window[from..to]);
                let plain = &window[from..from + len];
                match &self.offer {
                    Some(offer) if capacity > chunker::MAX => self.cutter.give(plain, pieces, given, offer)?,
                    _ => pieces.push(self.cutter.chunk(plain)?),
                }
                from += len;
            }
            if at >= stop {
                break stop;
            }
            self.show(pieces)?;
            self.cutter.work.ctx.check()?;
            window.copy_within(from..to, 0);
            (from, to) = (0, to - from);
        };
        self.window = window;
        self.show(pieces)?;
        Ok(done)
    }
}

/// Whether it is the same file and longer, with all else that is to be saved of it.
fn grew(a: &Stat, b: &Stat) -> bool {
    let rest = |s: &Stat| (attributes::id(s), s.st_mode, s.st_uid, s.st_gid, attributes::nlink(s));
    rest(a) == rest(b) && a.st_size < b.st_size
}

/// Whether it is the same file, untouched.
pub fn same(a: &Stat, b: &Stat) -> bool {
    let id = |s: &Stat| (attributes::id(s), s.st_size as u64, attributes::mtime(s), attributes::ctime(s));
    id(a) == id(b)
}

/// The first stretch of data from `at` on that ends at a hole worth its name; empty at the end if there is none.
fn next_data(fd: &OwnedFd, at: u64, size: u64) -> Result<Range<u64>, Errno> {
    let start = match fs::seek(fd, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(size..size),
        // A file system that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(at..size),
        other => other?.min(size),
    };
    if start == size {
        return Ok(size..size);
    }
    let mut end = fs::seek(fd, SeekFrom::Hole(start))?.min(size);
    while end < size {
        match fs::seek(fd, SeekFrom::Data(end)) {
            Ok(next) if next - end < HOLE => end = fs::seek(fd, SeekFrom::Hole(next))?.min(size),
            Err(errno) if errno != Errno::NXIO => return Err(errno),
            _ => break,
        }
    }
    Ok(start..end)
}
