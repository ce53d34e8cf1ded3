//! Takes the chunks of a file from the one that it replaces, so that only the missing ones are fetched.
//!
//! The existing file is cut by the chunker of the push. It may change at any time, so each chunk that is taken from it is
//! verified by its id first, and the new contents go to a file of their own as always.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{Advice, FileType};
use rustix::io::Errno;

use super::file::File;
use super::{Run, local};
use crate::crypto::chunker;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::Result;
use crate::format::reference::{Extent, Ref};
use crate::holes;
use crate::progress::Event;
use crate::trees::check_size;
use crate::window::Window;

/// Files below this size have a single chunk, which is of use only if it is equal to the saved one.
pub(super) const LEAST: u64 = chunker::MIN as u64;
/// A file of more bytes is restored by several threads, and one such file at a time.
const LARGE: u64 = 32 << 20;
/// Threads that fetch missing chunks of a large file.
const THREADS: usize = 12;
/// Missing chunks that are collected before they are fetched.
const TOGETHER: usize = 256;
/// Most chunks of an existing file that are remembered, 24 bytes each. They are 1 TiB on average.
const MOST: usize = 1 << 20;
/// Bytes of one read.
const READ: usize = 1 << 20;

/// The chunks of an existing file.
struct Basis {
    fd: OwnedFd,
    /// The offsets of chunks by the first 8 bytes of their ids.
    chunks: HashMap<u64, u64>,
}

/// Writes all of a file, with chunks of the existing one where it has them.
pub(super) fn write(run: &Run<'_>, file: &File) -> Result<()> {
    let is_large = file.node.content.size() >= LARGE;
    // One at a time: for its memory, and because its threads use the network as well as several files would.
    let _alone = is_large.then(|| run.large.lock().expect("no holder panics"));
    let Some(basis) = Basis::of(run, file) else { return fetch_all(run, file, is_large) };
    let mut reused = 0;
    let missing = visit(run, file, |offset, r, missing| {
        match local::chunk(run, &basis.fd, r, basis.offset(&r.id).unwrap_or(offset)) {
            Ok(Some(bytes)) => {
                file.put(run, offset, &bytes, true)?;
                reused += bytes.len() as u64;
            }
            // What cannot be read is fetched.
            Ok(None) | Err(_) => missing.push((offset, *r)),
        }
        if missing.len() >= TOGETHER { fetch(run, file, &std::mem::take(missing), is_large) } else { Ok(()) }
    })?;
    run.ctx().event(Event::Reused {
        path: &run.paths.in_target(&file.path()),
        bytes: reused,
        of: file.node.content.size(),
    });
    fetch(run, file, &missing, is_large)
}

/// Writes all of a file that has no predecessor.
fn fetch_all(run: &Run<'_>, file: &File, is_large: bool) -> Result<()> {
    visit(run, file, |offset, r, missing| {
        missing.push((offset, *r));
        if missing.len() >= TOGETHER { fetch(run, file, &std::mem::take(missing), is_large) } else { Ok(()) }
    })
    .and_then(|missing| fetch(run, file, &missing, is_large))
}

/// Visits the chunks of a file with their offsets. Returns the chunks that `each` has put into its list and left there.
fn visit(
    run: &Run<'_>,
    file: &File,
    mut each: impl FnMut(u64, &Ref, &mut Vec<(u64, Ref)>) -> Result<()>,
) -> Result<Vec<(u64, Ref)>> {
    let (mut offset, mut missing) = (0, Vec::new());
    for extent in run.trees.extents(run.ctx(), &file.node.content) {
        if run.halted() {
            return Err(local::ended());
        }
        let extent = extent?;
        if let Extent::Data(r) = &extent {
            each(offset, r, &mut missing)?;
        }
        offset += extent.len();
    }
    check_size(&file.node.content, offset).map(|()| missing)
}

/// Fetches, verifies and writes chunks, those of a large file by several threads.
fn fetch(run: &Run<'_>, file: &File, missing: &[(u64, Ref)], is_large: bool) -> Result<()> {
    let threads = if is_large { THREADS.min(run.options.threads).min(missing.len()) } else { 1 };
    let next = AtomicUsize::new(0);
    if threads <= 1 {
        return fetch_some(run, file, missing, &next);
    }
    thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(|| fetch_some(run, file, missing, &next))).collect();
        started.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })
}

fn fetch_some(run: &Run<'_>, file: &File, missing: &[(u64, Ref)], next: &AtomicUsize) -> Result<()> {
    while let Some((offset, r)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
        file.write(run, *offset, std::slice::from_ref(r))?;
    }
    Ok(())
}

impl Basis {
    /// Cuts the existing file. Returns `None` if there is none that is of use.
    fn of(run: &Run<'_>, file: &File) -> Option<Self> {
        let fd = local::open(&file.held, &file.node.name).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        let size = u64::try_from(stat.st_size).ok()?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() || size < LEAST {
            return None;
        }
        let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential); // only advice
        let mut basis = Basis { fd, chunks: HashMap::new() };
        // An unreadable rest is of no use; the chunks before it are.
        let _ = basis.cut(run, size);
        Some(basis)
    }

    /// Notes the chunks between the holes of the file.
    fn cut(&mut self, run: &Run<'_>, size: u64) -> Result<(), Errno> {
        let mut window = Window::default();
        let mut at = 0;
        while at < size {
            let data = holes::next_data(&self.fd, at, size)?;
            window.start(Some(data.end - data.start));
            let (mut read, mut cut) = (data.start, data.start);
            while cut < data.end {
                if run.halted() || self.chunks.len() >= MOST {
                    return Ok(());
                }
                read = self.fill(&mut window, read, data.end)?;
                while let Some(chunk) = window.cut(run.trees.repo().keys().chunker(), read == data.end) {
                    let id = run.trees.repo().keys().chunk_id(ChunkKind::Data, chunk.plain);
                    self.chunks.entry(key(&id)).or_insert(cut);
                    cut += chunk.plain.len() as u64;
                }
                window.slide();
            }
            at = data.end;
        }
        Ok(())
    }

    /// Reads from `at` on until the window is full or the range ends. Returns where it ended.
    fn fill(&self, window: &mut Window, mut at: u64, end: u64) -> Result<u64, Errno> {
        while at < end {
            let free = window.free();
            let want = free.len().min(READ).min(usize::try_from(end - at).unwrap_or(READ));
            if want == 0 {
                break;
            }
            let n = rustix::io::retry_on_intr(|| rustix::io::pread(&self.fd, &mut free[..want], at))?;
            if n == 0 {
                return Err(Errno::STALE); // truncated meanwhile
            }
            window.fill(n);
            at += n as u64;
        }
        Ok(at)
    }

    fn offset(&self, id: &ChunkId) -> Option<u64> {
        self.chunks.get(&key(id)).copied()
    }
}

fn key(id: &ChunkId) -> u64 {
    id.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Returns whether an existing file is worth being cut for a saved one.
pub(super) fn is_of_use(existing: u64, saved: u64) -> bool {
    existing >= LEAST && saved >= LEAST
}

/// Returns the bytes of a file that the existing one has, and the stored bytes of the chunks that it lacks. `look`: whether
/// there is an existing file to look at.
pub(super) fn missing(run: &Run<'_>, file: &File, look: bool) -> Result<(u64, u64)> {
    let basis = if look { Basis::of(run, file) } else { None };
    let (mut found, mut fetched) = (0, 0);
    visit(run, file, |offset, r, _| {
        let is_there = basis.as_ref().is_some_and(|basis| {
            let at = basis.offset(&r.id).unwrap_or(offset);
            local::chunk(run, &basis.fd, r, at).is_ok_and(|chunk| chunk.is_some())
        });
        if is_there {
            found += u64::from(r.len);
        } else {
            fetched += u64::from(r.stored);
        }
        Ok(())
    })?;
    Ok((found, fetched))
}
