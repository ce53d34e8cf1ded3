//! Reads files that may change meanwhile.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::attributes::{self, Nodes, error, same};
use super::cutter::Cutter;
use super::dir::Dir;
use super::handover::Task;
use super::item::Job;
use super::lane::Lane;
use super::open_file::OpenFile;
use super::workspace::Workspace;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::node::{CHANGED, PARTIAL, Xattrs};
use crate::progress::Event;
use crate::push::pack::piece::Piece;
use crate::window::Window;

/// Attempts to read a file that changes meanwhile.
const ATTEMPTS: usize = 3;
/// Bytes of one call: the files of /proc/sys refuse calls of 4 MiB for want of memory.
const READ: usize = 1 << 20;
/// Size from which on a file is reported to the progress display and read ahead by the kernel.
pub const DISPLAYED: u64 = 4 << 20;

/// The state that all workers share, whatever the repository.
#[derive(Clone, Copy)]
pub struct Shared<'w> {
    pub ctx: &'w Context<'w>,
    /// The same context for work that goes on for a while after the user's stop.
    pub rest: &'w Context<'w>,
    pub nodes: &'w Nodes,
    /// Files that changed each time they were read.
    pub unsteady: &'w AtomicU64,
}

/// Reads the files and streams of one worker.
pub struct Reader<'w> {
    pub shared: Shared<'w>,
    /// One for each repository. While a file is read, those that need it are the first ones, and the one that needs most of
    /// it leads: the file is read into its window.
    pub lanes: Vec<Lane<'w>>,
    /// The number of lanes that need the file.
    active: usize,
    /// Whether the lanes hold the beginning of the file as the nodes of its jobs describe it.
    is_begun: bool,
    /// Offers chunks of large files to idle workers.
    pub offer: Option<Sender<Task>>,
}

/// The change of a file while it was read.
enum Meanwhile {
    Nothing,
    /// It became longer, and `stat` shows no other change.
    Grew,
    Changed,
}

/// The reason why a file could not be read.
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
    pub fn new(shared: Shared<'w>, works: &[Workspace<'w>], compression: i32, offer: Sender<Task>) -> Result<Self> {
        let cutters = works.iter().map(|work| Cutter::new(*work, compression));
        let lanes: Result<Vec<_>> = cutters.enumerate().map(|(i, cutter)| Ok(Lane::new(i, cutter?))).collect();
        Ok(Reader { shared, lanes: lanes?, active: 0, is_begun: false, offer: Some(offer) })
    }

    /// Returns the lane of a repository.
    pub fn lane(&mut self, destination: usize) -> &mut Lane<'w> {
        let at = self.lanes.iter().position(|lane| lane.destination == destination);
        &mut self.lanes[at.expect("each repository has a lane")]
    }

    /// Returns the lanes that need the file.
    pub fn active(&mut self) -> &mut [Lane<'w>] {
        &mut self.lanes[..self.active]
    }

    /// Puts all collected chunks into packs.
    pub fn flush(&mut self) -> Result<()> {
        self.lanes.iter_mut().try_for_each(|lane| lane.step(|lane| lane.cutter.flush()))
    }

    /// Processes a chunk of another worker.
    pub fn serve(&mut self, task: &Task) -> Result<()> {
        self.lane(task.destination).step(|lane| lane.cutter.serve(task))
    }

    /// Sorts the lanes that need the file to the front.
    pub fn sort(&mut self) {
        self.active = self.lanes.iter().filter(|lane| lane.is_active).count();
        if self.lanes.len() > 1 {
            self.lanes.sort_by_key(|lane| (!lane.is_active, lane.start, lane.destination));
        }
    }

    /// Reads a file, again if it changes meanwhile.
    pub fn file(&mut self, job: &mut Job) -> Result<()> {
        let Some(dir) = job.dir.take() else { return Ok(()) };
        self.is_begun = false;
        self.lanes.iter_mut().for_each(|lane| lane.is_active = false);
        job.each(|job| self.lane(job.destination).begin(std::mem::take(&mut job.pieces)));
        if !self.lanes.iter().any(|lane| lane.is_active) {
            return Ok(());
        }
        let path = dir.path_of(&job.node.name);
        if job.stat.st_size as u64 >= DISPLAYED {
            self.flush()?; // the tree may wait for the files before
            self.shared.ctx.event(Event::File { path: &path });
        }
        let mut is_again = false;
        for _ in 0..ATTEMPTS {
            match self.attempt(job, &dir, is_again) {
                Ok(Meanwhile::Nothing) => {
                    self.hand_back(job);
                    return Ok(());
                }
                Ok(Meanwhile::Grew) => is_again = true,
                Ok(Meanwhile::Changed) => is_again = false,
                Err(Trouble::Push(error)) => return Err(error),
                Err(Trouble::File(errno)) => return self.give_up(job, &path, errno),
            }
        }
        job.each(|job| job.node.flags |= CHANGED);
        self.report_unsteady(&path);
        self.hand_back(job);
        Ok(())
    }

    /// Moves the contents to the jobs.
    fn hand_back(&mut self, job: &mut Job) {
        job.each(|job| job.pieces = std::mem::take(&mut self.lane(job.destination).pieces));
    }

    /// Keeps the part of a file that was read before the user's stop, or that a partial snapshot holds. Returns whether there
    /// is any.
    pub fn keep_beginning(&mut self, job: &mut Job) -> Result<bool> {
        if job.dir.is_some() || !std::mem::take(&mut self.is_begun) {
            return Ok(false);
        }
        self.active().iter_mut().try_for_each(Lane::collect)?;
        self.hand_back(job);
        job.each(|job| {
            job.link = None; // the other links would have the contents without the flag
            job.node.flags |= PARTIAL;
            let read = job.pieces.iter().take_while(|piece| !matches!(piece, Piece::Awaited)).count();
            job.pieces.truncate(read);
            job.gone = job.pieces.is_empty();
        });
        Ok(true)
    }

    /// Reports a file that changed each time it was read.
    fn report_unsteady(&self, path: &[u8]) {
        let Shared { ctx, unsteady, .. } = self.shared;
        unsteady.fetch_add(1, Ordering::Relaxed);
        let path = String::from_utf8_lossy(path);
        ctx.warn(&format!("{path} changed each time it was read; the saved content may mix several states"));
    }

    fn give_up(&self, job: &mut Job, path: &[u8], errno: Errno) -> Result<()> {
        if errno == Errno::NOENT {
            job.each(|job| job.gone = true);
            return Ok(());
        }
        let why = match errno {
            Errno::STALE | Errno::LOOP | Errno::NXIO => {
                Error::failed("something else took its place while it was being saved; the next push saves that")
            }
            _ => error("read the file", errno),
        };
        attributes::skip(self.shared.ctx, path, why)?;
        job.each(|job| job.node.content = attributes::unreadable(errno));
        Ok(())
    }

    /// Reads the file once. Returns what happened to it meanwhile.
    ///
    /// `is_again`: the file has only grown since the previous attempt. Then only the length of that attempt is read again. If
    /// the content is the same, each byte was the same before and after a moment between the two reads, so this was the
    /// content of the file in that moment. In this way a log that is written all the time is saved in a consistent state.
    fn attempt(&mut self, job: &mut Job, dir: &Arc<Dir>, is_again: bool) -> Result<Meanwhile, Trouble> {
        self.is_begun = false;
        let file = OpenFile::open(dir, &job.node.name)?;
        let before = file.stat()?;
        if attributes::kind(&before) != FileType::RegularFile {
            return Err(Errno::STALE.into());
        }
        if job.link.is_some_and(|link| link != attributes::id(&before)) {
            job.each(|job| job.link = None); // another file took its place, so the links to come have other contents
        }
        let unchanged = same(&job.stat, &before);
        let is_again = is_again && grew(&job.stat, &before);
        let size = if is_again { job.stat.st_size } else { before.st_size } as u64;
        if !is_again && !unchanged {
            job.each(|job| self.renew(job, &before));
        }
        let path = dir.path_of(&job.node.name);
        let xattrs = self.shared.nodes.xattrs(self.shared.ctx, &path, file.xattrs())?;
        let is_again = is_again && job.node.xattrs == xattrs;
        set_xattrs(job, xattrs);
        let start = self.begin_attempt(job, unchanged, before.st_size as u64)?;
        let is_sparse = (before.st_blocks as u64).saturating_mul(512) < size;
        let read = self.contents(&file, start..size, is_sparse)?;
        let after = file.stat()?;
        if read == size && is_again && self.active().iter().all(Lane::has_same_contents) {
            return Ok(Meanwhile::Nothing);
        }
        if !same(&before, &after) || size != before.st_size as u64 {
            let is_whole = read == size && size == before.st_size as u64;
            return Ok(if is_whole { compare(&before, &after) } else { Meanwhile::Changed });
        }
        // The file did not change. If it is longer or shorter than its size says, only its end is right (/proc, /sys).
        if read == size && file.read(&mut [0], size)? > 0 {
            self.data(&file, size..u64::MAX)?;
        }
        Ok(Meanwhile::Nothing)
    }

    /// Takes over the attributes of the file as it is now.
    fn renew(&self, job: &mut Job, stat: &Stat) {
        let name = std::mem::take(&mut job.node.name);
        job.node = self.shared.nodes.node(name, stat, job.node.content.clone());
        job.stat = *stat;
    }

    /// Takes over the parts of the file that partial snapshots hold, if it is `unchanged`, and publishes them. Returns the
    /// offset from which on the file must be read.
    fn begin_attempt(&mut self, job: &mut Job, unchanged: bool, size: u64) -> Result<u64> {
        let mut begun = Ok(());
        job.each(|job| {
            let lane = self.lane(job.destination);
            lane.begin_attempt();
            let prefix = job.prefix.take().filter(|_| unchanged);
            let result = lane.step(|lane| {
                prefix.map_or(Ok(()), |prefix| lane.take_over(&prefix, size))?;
                lane.publish_start(&job.node)
            });
            if result.is_err() {
                begun = result;
            }
        });
        begun?;
        self.is_begun = true;
        self.sort();
        let start = self.active().first().map_or(0, |lane| lane.start);
        if start > 0 {
            self.shared.ctx.event(Event::Unchanged { files: 0, bytes: start });
        }
        Ok(start)
    }

    /// Reads a range of the file. Returns where it ended, holes included.
    fn contents(&mut self, file: &OpenFile, range: Range<u64>, is_sparse: bool) -> Result<u64, Trouble> {
        let Range { start: mut at, end: size } = range;
        if size >= DISPLAYED {
            file.read_ahead();
        }
        if is_sparse {
            while at < size {
                self.shared.ctx.check()?;
                let data = file.next_data(at, size)?;
                self.active().iter_mut().for_each(|lane| lane.hole(at..data.start));
                at = self.data(file, data.clone())?;
                if at < data.end {
                    break; // truncated meanwhile
                }
            }
        } else {
            at = self.data(file, at..size)?;
        }
        self.active().iter_mut().try_for_each(Lane::collect)?;
        Ok(at)
    }

    /// Cuts a range of the file into chunks. Returns where it ended.
    fn data(&mut self, file: &OpenFile, range: Range<u64>) -> Result<u64, Trouble> {
        let Reader { shared, lanes, active, offer, .. } = self;
        let offer = offer.as_ref();
        let Some((lead, others)) = lanes[..*active].split_first_mut() else { return Ok(range.end) };
        lead.begin_range(&range);
        others.iter_mut().for_each(|lane| lane.begin_range(&range));
        let Range { start: mut at, mut end } = range;
        loop {
            let before = at;
            fill(&mut lead.window, others, file, &mut at, &mut end, offer)?;
            shared.ctx.event(Event::Done { files: 0, bytes: at - before });
            let is_end = at >= end;
            lead.cut(is_end, offer)?;
            lead.step(Lane::publish)?;
            for lane in &mut *others {
                lane.cut(is_end, offer)?;
                lane.step(Lane::publish)?;
            }
            if is_end {
                return Ok(end);
            }
            shared.ctx.check()?;
            lead.window.slide();
        }
    }
}

/// Sets the extended attributes of a file for all repositories.
fn set_xattrs(job: &mut Job, xattrs: Xattrs) {
    job.others.iter_mut().for_each(|other| other.job.node.xattrs.clone_from(&xattrs));
    job.node.xattrs = xattrs;
}

/// Reads from `at` on until the window is full or the range ends. A file that is shorter moves `end`. The other lanes get the
/// same bytes.
fn fill(
    window: &mut Window,
    others: &mut [Lane<'_>],
    file: &OpenFile,
    at: &mut u64,
    end: &mut u64,
    offer: Option<&Sender<Task>>,
) -> Result<(), Trouble> {
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
        others.iter_mut().try_for_each(|lane| lane.feed(&free[..n], *at, offer))?;
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
