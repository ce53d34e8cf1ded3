//! Reads files: contents become chunks, chunks that nobody has are compressed and put into packs. One [`Reader`] for
//! each worker thread, with its own buffers and compressor.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;
use rustix::fs::{self, Advice, FileType, OFlags, SeekFrom, Stat};
use rustix::io::{self, Errno};

use super::chunks::Place;
use super::control::Control;
use super::data::{Data, Fresh};
use super::item::{Batch, Item, Job, Piece};
use super::line::Line;
use super::meta::{self, Nodes, error};
use crate::crypto::chunker;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::{Error, Kind, Result};
use crate::format::stored::Packer;
use crate::format::tree::{CHANGED, Xattrs};
use crate::progress::Event;
use crate::repo::{Index, Repository};

/// Bytes of a file that are held at once: the chunker must see [`chunker::MAX`], and what lies behind is moved to the
/// front when that is reached.
const WINDOW: usize = 2 * chunker::MAX;
/// Holes shorter than this are read as zeros: a chunk for each stretch between them would cost more.
const HOLE: u64 = 64 << 10;
/// Attempts to read a file that changes meanwhile.
const ATTEMPTS: usize = 3;
/// Chunks of at least this many stored bytes go to their pack at once, smaller ones together.
const LARGE: usize = 128 << 10;
/// Stored bytes of small chunks that go to their packs together.
const TOGETHER: usize = 1 << 20;
/// Files of this size on are shown and read ahead of by the kernel.
const SHOWN: u64 = 4 << 20;

/// What all workers share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'w> {
    pub repo: &'w Repository,
    pub control: &'w Control<'w>,
    pub nodes: &'w Nodes,
    pub index: &'w Index<'w>,
    pub data: &'w Data<'w>,
    pub line: &'w Line<'w, Batch>,
    /// Whether the damaged index was reported.
    pub warned: &'w AtomicBool,
}

pub(super) struct Reader<'w> {
    shared: Shared<'w>,
    packer: Option<Packer>,
    window: Vec<u8>,
    /// Stored forms of small chunks that were claimed and are not in a pack yet.
    small: Vec<u8>,
    fresh: Vec<(ChunkId, usize, Range<usize>)>,
    read: u64,
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
    pub fn new(shared: Shared<'w>, compression: i32) -> Result<Self> {
        let packer = (compression != 0).then(|| Packer::new(compression)).transpose()?;
        Ok(Reader { shared, packer, window: Vec::new(), small: Vec::new(), fresh: Vec::new(), read: 0 })
    }

    /// The body of a worker thread. Gives the bytes read.
    pub fn run(mut self, work: &Receiver<(u64, Batch)>) -> Result<u64> {
        while let Some((number, mut batch)) = self.shared.control.receive(work)? {
            for item in &mut batch.items {
                if let Item::File(job) = item {
                    self.shared.control.check()?;
                    self.file(job)?;
                }
            }
            self.flush()?;
            self.shared.control.event(Event::Done { files: batch.files as u64, bytes: 0 });
            self.shared.line.finish(number, batch);
        }
        Ok(self.read)
    }

    fn file(&mut self, job: &mut Job) -> Result<()> {
        if job.stat.st_size as u64 >= SHOWN {
            self.shared.control.event(Event::File { path: &job.dir.path_of(&job.node.name) });
        }
        for _ in 0..ATTEMPTS {
            let gave_up = match self.attempt(job) {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(Trouble::Push(error)) => return Err(error),
                Err(Trouble::File(errno)) => errno,
            };
            if gave_up == Errno::NOENT {
                job.gone = true;
            } else {
                self.shared.control.skip(&job.dir.path_of(&job.node.name), &error("read the file", gave_up));
                job.node.content = meta::unreadable(gave_up);
            }
            return Ok(());
        }
        job.node.flags |= CHANGED;
        Ok(())
    }

    /// Reads the file once; gives whether it stayed the same meanwhile.
    fn attempt(&mut self, job: &mut Job) -> Result<bool, Trouble> {
        let fd = job.dir.open(&job.node.name, OFlags::NOFOLLOW)?;
        let before = fs::fstat(&fd)?;
        if meta::kind(&before) != FileType::RegularFile {
            return Err(Errno::STALE.into());
        }
        if !same(&job.stat, &before) {
            let name = std::mem::take(&mut job.node.name);
            job.node = self.shared.nodes.node(name, &before, job.node.content.clone());
            job.stat = before;
        }
        job.node.xattrs = Xattrs::Inline(self.xattrs(job, &fd));
        job.pieces.clear();
        let mut pieces = std::mem::take(&mut job.pieces);
        let read = self.contents(&fd, &before, &mut pieces)?;
        job.pieces = pieces;
        Ok(read == before.st_size as u64 && same(&before, &fs::fstat(&fd)?))
    }

    fn xattrs(&self, job: &Job, fd: &OwnedFd) -> meta::Pairs {
        meta::xattrs_of(fd).unwrap_or_else(|errno| {
            let path = job.dir.path_of(&job.node.name);
            self.shared.control.skip(&path, &error("read its extended attributes", errno));
            Vec::new()
        })
    }

    /// Gives the length of what was there, holes included.
    fn contents(&mut self, fd: &OwnedFd, stat: &Stat, pieces: &mut Vec<Piece>) -> Result<u64, Trouble> {
        let size = stat.st_size as u64;
        if size >= SHOWN {
            let _ = fs::fadvise(fd, 0, None, Advice::Sequential); // only advice
        }
        if (stat.st_blocks as u64).saturating_mul(512) >= size {
            return self.stretch(fd, 0..size, pieces);
        }
        let mut at = 0;
        while at < size {
            let data = match next_data(fd, at, size)? {
                data if data.start - at < HOLE && data.start < size => at..data.end,
                data => data,
            };
            if data.start > at {
                pieces.push(Piece::Hole(data.start - at));
            }
            at = self.stretch(fd, data.clone(), pieces)?;
            if at < data.end {
                break; // it was cut off meanwhile
            }
        }
        Ok(at)
    }

    /// Cuts a stretch of the file into chunks. Gives where it ended.
    fn stretch(&mut self, fd: &OwnedFd, range: Range<u64>, pieces: &mut Vec<Piece>) -> Result<u64, Trouble> {
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
                let len = self.shared.repo.keys().chunker().cut(&window[from..to]);
                pieces.push(self.chunk(&window[from..from + len])?);
                from += len;
            }
            if at >= stop {
                break stop;
            }
            self.shared.control.check()?;
            window.copy_within(from..to, 0);
            (from, to) = (0, to - from);
        };
        self.window = window;
        Ok(done)
    }

    /// Finds a chunk or adds it.
    fn chunk(&mut self, plain: &[u8]) -> Result<Piece> {
        let Shared { repo, control, data, .. } = self.shared;
        self.read += plain.len() as u64;
        control.event(Event::Done { files: 0, bytes: plain.len() as u64 });
        let id = repo.keys().chunk_id(ChunkKind::Data, plain);
        if data.chunks.has(&id, plain.len())? {
            return Ok(Piece::New(id));
        }
        if let Some(place) = self.known(&id, plain.len())? {
            return Ok(Piece::Known(id, place));
        }
        if data.chunks.claim(id, plain.len())? {
            let packed = self.packer.as_mut().and_then(|packer| packer.pack(plain));
            let stored = packed.as_deref().unwrap_or(plain);
            if stored.len() >= LARGE {
                data.add(std::iter::once(Fresh { id, len: plain.len(), stored }))?;
            } else {
                let start = self.small.len();
                self.small.extend_from_slice(stored);
                self.fresh.push((id, plain.len(), start..self.small.len()));
                if self.small.len() >= TOGETHER {
                    self.flush()?;
                }
            }
        }
        Ok(Piece::New(id))
    }

    /// Where the repository has it. What cannot be looked up is sent again: that costs time, not safety.
    fn known(&self, id: &ChunkId, len: usize) -> Result<Option<Place>> {
        let Shared { control, index, data, warned, .. } = self.shared;
        match index.find(id) {
            Ok(Some((ChunkKind::Data, r))) if r.len as usize == len => {
                let pack = data.packs.earlier(r.pack);
                Ok(Some(Place { pack, offset: r.offset, stored: r.stored, len: r.len }))
            }
            Ok(_) => Ok(None),
            Err(e) if matches!(e.kind(), Kind::Damaged | Kind::Missing) => {
                if !warned.swap(true, Ordering::Relaxed) {
                    control.warn(&format!("part of the index cannot be read, its contents are sent again: {e}"));
                }
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Puts the small chunks into packs.
    fn flush(&mut self) -> Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let fresh = self.fresh.drain(..);
        self.shared.data.add(fresh.map(|(id, len, at)| Fresh { id, len, stored: &self.small[at] }))?;
        self.small.clear();
        Ok(())
    }
}

fn same(a: &Stat, b: &Stat) -> bool {
    let id = |s: &Stat| (meta::id(s), s.st_size as u64, meta::mtime(s), meta::ctime(s));
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
