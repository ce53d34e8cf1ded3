//! Regular files. Several threads may write parts of one file; the last one of them sets its size, its attributes and its
//! name, or removes the incomplete file.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::Errno;

use super::dir::{self, Held};
use super::{Overwrite, Run, add, attributes, flags, local, rename};
use crate::error::{Error, Kind, Result};
use crate::format::limits;
use crate::format::node::Node;
use crate::format::reference::{Extent, Ref};
use crate::progress::Event;
use crate::trees::{LinkKey, PARTIAL_SUFFIX as PARTIAL, check_size};

/// Returns the name of the intact rest of a file: the name with a suffix. A name too long for that is cut and gets eight
/// digits of a hash, so that two of them stay two.
pub(super) fn partial_name(name: &[u8]) -> Vec<u8> {
    if name.len() + PARTIAL.len() <= limits::NAME {
        return [name, PARTIAL].concat();
    }
    let mut hash = DefaultHasher::new();
    name.hash(&mut hash);
    let digits = format!("~{:08x}", hash.finish() as u32);
    let room = limits::NAME - PARTIAL.len() - digits.len();
    // Not within a character of UTF-8.
    let end = (0..=room).rev().find(|end| name[*end] & 0xc0 != 0x80).unwrap_or(room);
    [&name[..end], digits.as_bytes(), PARTIAL].concat()
}

/// A file that is being restored.
pub(super) struct File {
    pub held: Held,
    pub node: Node,
    /// Whether it may take the place of something.
    pub replace: bool,
    /// Under which key further names of it wait.
    pub key: Option<LinkKey>,
    /// Bytes of chunks; the rest of its size is holes.
    written: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<(Arc<OwnedFd>, Vec<u8>)>,
    failed: Option<Error>,
    /// The reason why parts of it are missing.
    lost: Option<Error>,
}

impl File {
    pub fn new(held: Held, node: Node, replace: bool, key: Option<LinkKey>) -> Self {
        File { held, node, replace, key, written: AtomicU64::new(0), state: Mutex::default() }
    }

    pub fn path(&self) -> Vec<u8> {
        self.held.path(&self.node.name)
    }

    /// Notes that the file will not get its name; the first reason is kept.
    pub fn fail(&self, why: Error) {
        self.state.lock().expect("no holder panics").failed.get_or_insert(why);
    }

    /// Returns the file under its temporary name, created by the first thread that needs it.
    fn open(&self, run: &Run<'_>) -> Result<Arc<OwnedFd>> {
        const NEW: OFlags =
            OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
        let mut state = self.state.lock().expect("no holder panics");
        if let Some((fd, _)) = &state.open {
            return Ok(Arc::clone(fd));
        }
        run.ctx().event(Event::File { path: &run.paths.in_target(&self.path()) });
        let name = dir::temporary()?;
        let fd = rustix::fs::openat(&self.held.fd, &name, NEW, Mode::RUSR | Mode::WUSR);
        let fd = Arc::new(fd.map_err(|e| Error::io("make the file", e.into()))?);
        flags::begin(run, &fd, &self.node);
        state.open = Some((Arc::clone(&fd), name));
        Ok(fd)
    }

    /// Fetches, verifies and writes chunks that follow each other from `offset` on.
    pub fn write(&self, run: &Run<'_>, mut offset: u64, refs: &[Ref]) -> Result<()> {
        for r in refs {
            if self.state.lock().expect("no holder panics").failed.is_some() || run.halted() {
                return Err(local::ended());
            }
            let bytes = match run.fetch.chunk(run.ctx(), r) {
                Err(e) if e.kind().is_damage() => {
                    self.state.lock().expect("no holder panics").lost.get_or_insert(e);
                    offset += u64::from(r.len);
                    continue;
                }
                other => other?,
            };
            self.put(run, offset, &bytes, false)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes a verified chunk. `reused`: it was not fetched.
    pub fn put(&self, run: &Run<'_>, offset: u64, chunk: &[u8], reused: bool) -> Result<()> {
        let fd = self.open(run)?;
        write_all(&fd, chunk, offset)?;
        let bytes = chunk.len() as u64;
        add(&self.written, bytes);
        if reused {
            add(&run.tally.reused, bytes);
            run.ctx().event(Event::Unchanged { files: 0, bytes });
        } else {
            run.ctx().event(Event::Done { files: 0, bytes });
        }
        Ok(())
    }

    /// Writes all of it in this thread.
    pub fn write_whole(&self, run: &Run<'_>) -> Result<()> {
        let mut offset = 0;
        for extent in run.trees.extents(run.ctx(), &self.node.content) {
            let extent = extent?;
            if let Extent::Data(r) = &extent {
                self.write(run, offset, std::slice::from_ref(r))?;
            }
            offset += extent.len();
        }
        check_size(&self.node.content, offset)
    }

    /// Reads the contents back from the disk and compares them by chunk id.
    fn verify(&self, run: &Run<'_>, fd: &Arc<OwnedFd>) -> Result<()> {
        let failed = |e: Errno| Error::io("read back what was written", e.into());
        rustix::fs::fdatasync(fd).map_err(failed)?;
        // Otherwise the memory of the kernel would be verified. A file system that does not take the advice still reads.
        let _ = rustix::fs::fadvise(fd, 0, None, Advice::DontNeed);
        if !local::has_contents(run, fd, &self.node)? {
            return Err(Error::failed("its contents were read back and are not those that were written"));
        }
        add(&run.tally.verified, 1);
        Ok(())
    }

    fn complete(&self, run: &Run<'_>) -> Result<(u64, u64)> {
        let lost = {
            let mut state = self.state.lock().expect("no holder panics");
            let nothing = self.written.load(Ordering::Relaxed) == 0;
            if let Some(why) = state.failed.take().or_else(|| state.lost.take_if(|_| nothing)) {
                return Err(why);
            }
            state.lost.take()
        };
        let fd = self.open(run)?;
        rustix::fs::ftruncate(&fd, self.node.content.size()).map_err(|e| Error::io("write", e.into()))?;
        if run.options.verify && lost.is_none() {
            self.verify(run, &fd)?;
        }
        let saved = attributes::of_open(run, &fd, &self.node, true, &|| self.path());
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("look at the new file", e.into()))?;
        let open = self.state.lock().expect("no holder panics").open.take();
        let id = dir::identity(&stat);
        let place = |name: &[u8], replace| match &open {
            Some((_, temporary)) => rename::place(&self.held, temporary, name, replace),
            None => Ok(()),
        };
        let Some(why) = lost else {
            place(&self.node.name, self.replace)?;
            match self.key {
                Some(_) => flags::lock_later(run, self.held.below_target(&self.node.name), id, saved),
                None => flags::lock(run, &fd, saved),
            }
            return Ok(id);
        };
        // The intact rest gets a name that is not mistaken for the file.
        let placed = place(&partial_name(&self.node.name), run.options.overwrite != Overwrite::Never).is_ok();
        let left =
            if placed { "; the rest of it has the suffix .nfreezer-partial, with zeros for the lost part" } else { "" };
        Err(Error::new(why.kind(), format!("{why}{left}")))
    }
}

/// Renames a complete file to its name, or removes it and reports why. Returns its identity.
pub(super) fn conclude(run: &Run<'_>, file: &File) -> Result<dir::Identity> {
    let result = file.complete(run);
    if let Some((_, temporary)) = &file.state.lock().expect("no holder panics").open {
        file.held.unlink(temporary);
    }
    match &result {
        Ok(_) => {
            let size = file.node.content.size();
            add(&run.tally.files, 1);
            add(&run.tally.bytes, size);
            let holes = size.saturating_sub(file.written.load(Ordering::Relaxed));
            run.ctx().event(Event::Unchanged { files: 0, bytes: holes });
            run.ctx().event(Event::Done { files: 1, bytes: 0 });
        }
        Err(why) => run.skip(&file.path(), copy(why)),
    }
    result
}

pub(super) fn copy(e: &Error) -> Error {
    Error::new(e.kind(), e.to_string())
}

/// Returns why an existing entry is left alone.
pub(super) fn in_the_way() -> Error {
    Error::new(Kind::Exists, "it exists already and is different; --overwrite if-changed replaces it")
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::io("write", e.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_with_the_longest_name_keeps_a_name_of_its_own() {
        assert_eq!(partial_name(b"a"), b"a.nfreezer-partial");
        let long = |last: &str| partial_name(format!("{}{last}", "\u{e9}".repeat(127)).as_bytes());
        let (one, two) = (long("x"), long("y"));
        assert_ne!(one, two);
        for name in [one, two] {
            assert!(name.len() <= limits::NAME && name.ends_with(PARTIAL));
            assert!(std::str::from_utf8(&name).is_ok(), "no character is cut");
        }
        let bytes = partial_name(&[0xff; 255]);
        assert!(bytes.len() <= limits::NAME && bytes.ends_with(PARTIAL));
    }
}
