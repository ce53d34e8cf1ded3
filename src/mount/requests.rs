//! The requests that may wait for the storage, one type each: which vfs operation answers it and how its reply is sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fuser::{
    Errno, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyLseek,
    ReplyXattr,
};

use super::convert::{errno, file_attr, kind, no_entry};
use super::core::{Core, Request, Subject};
use super::read_ahead;
use crate::vfs::{self, Attr, Attributes, Fault, Mode, Vfs};

/// Names and attributes below a snapshot never change.
const FOREVER: Duration = Duration::from_secs(1 << 24);

/// Returns how long the kernel may keep the attributes of this node and the names in it; marks the view as in use if they
/// may change.
pub fn validity(core: &Core, ino: u64) -> Duration {
    let Some(time) = core.vfs.keep(ino) else { return FOREVER };
    core.vfs.freshness().access();
    time
}

/// Sends a value or the error number of a fault.
macro_rules! reply {
    ($reply:expr, $answer:expr, $value:pat => $send:expr) => {
        match $answer {
            Ok($value) => $send,
            Err(fault) => $reply.error(errno(&fault)),
        }
    };
}

pub struct Lookup {
    pub parent: u64,
    pub name: Vec<u8>,
}

impl Request for Lookup {
    type Reply = ReplyEntry;
    type Answer = Option<Attr>;

    fn subject(&self) -> Subject {
        Subject::Node(self.parent)
    }

    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<Option<Attr>, Fault> {
        core.vfs.lookup(self.parent, &self.name, mode)
    }

    fn send(&self, core: &Core, reply: ReplyEntry, answer: Result<Option<Attr>, Fault>) {
        let keep = validity(core, self.parent);
        reply!(reply, answer, found => {
            let attr = found.map_or_else(no_entry, |attr| file_attr(&attr));
            reply.entry(&keep, &attr, Generation(0));
        });
    }

    fn undo(&self, vfs: &Vfs, late: Option<Attr>) {
        if let Some(attr) = late {
            vfs.forget(attr.ino, 1);
        }
    }
}

pub struct GetAttr {
    pub ino: u64,
}

impl Request for GetAttr {
    type Reply = ReplyAttr;
    type Answer = Attr;

    fn subject(&self) -> Subject {
        Subject::Node(self.ino)
    }

    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<Attr, Fault> {
        core.vfs.getattr(self.ino, mode)
    }

    fn send(&self, core: &Core, reply: ReplyAttr, answer: Result<Attr, Fault>) {
        let keep = validity(core, self.ino);
        reply!(reply, answer, attr => reply.attr(&keep, &file_attr(&attr)));
    }
}

pub struct ReadLink {
    pub ino: u64,
}

impl Request for ReadLink {
    type Reply = ReplyData;
    type Answer = Vec<u8>;

    fn subject(&self) -> Subject {
        Subject::Node(self.ino)
    }

    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<Vec<u8>, Fault> {
        core.vfs.readlink(self.ino, mode)
    }

    fn send(&self, _: &Core, reply: ReplyData, answer: Result<Vec<u8>, Fault>) {
        reply!(reply, answer, target => reply.data(&target));
    }
}

pub struct Read {
    pub ino: u64,
    pub offset: u64,
    pub size: u32,
}

impl Request for Read {
    type Reply = ReplyData;
    type Answer = Vec<u8>;

    fn subject(&self) -> Subject {
        Subject::Read(self.ino, self.offset..self.offset.saturating_add(self.size.into()))
    }

    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<Vec<u8>, Fault> {
        core.vfs.read(self.ino, self.offset, self.size, mode, &|advice| read_ahead::schedule(core, advice))
    }

    fn send(&self, core: &Core, reply: ReplyData, answer: Result<Vec<u8>, Fault>) {
        reply!(reply, answer, bytes => {
            core.counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
            reply.data(&bytes);
        });
    }
}

pub struct GetXattr {
    pub ino: u64,
    pub name: Vec<u8>,
    /// Bytes that the caller has room for; 0 asks for the size of the value.
    pub room: u32,
}

impl Request for GetXattr {
    type Reply = ReplyXattr;
    type Answer = Vec<u8>;

    fn subject(&self) -> Subject {
        Subject::Node(self.ino)
    }

    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<Vec<u8>, Fault> {
        core.vfs.getxattr(self.ino, &self.name, mode)
    }

    fn send(&self, _: &Core, reply: ReplyXattr, answer: Result<Vec<u8>, Fault>) {
        reply!(reply, answer, value => send_sized(reply, &value, self.room));
    }
}

pub struct ListXattr {
    pub ino: u64,
    /// Bytes that the caller has room for; 0 asks for the size of the list.
    pub room: u32,
}

impl Request for ListXattr {
    type Reply = ReplyXattr;
    type Answer = Arc<Attributes>;

    fn subject(&self) -> Subject {
        Subject::Node(self.ino)
    }

    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<Arc<Attributes>, Fault> {
        core.vfs.xattrs(self.ino, mode)
    }

    fn send(&self, _: &Core, reply: ReplyXattr, answer: Result<Arc<Attributes>, Fault>) {
        reply!(reply, answer, list => {
            let names: Vec<u8> = list.iter().flat_map(|(name, _)| name.iter().copied().chain([0])).collect();
            send_sized(reply, &names, self.room);
        });
    }
}

fn send_sized(reply: ReplyXattr, value: &[u8], room: u32) {
    if room == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > room as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}

pub struct Seek {
    pub ino: u64,
    pub offset: u64,
    pub what: vfs::Seek,
}

impl Request for Seek {
    type Reply = ReplyLseek;
    type Answer = u64;

    fn subject(&self) -> Subject {
        Subject::Node(self.ino)
    }

    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<u64, Fault> {
        core.vfs.seek(self.ino, self.offset, self.what, mode)
    }

    fn send(&self, _: &Core, reply: ReplyLseek, answer: Result<u64, Fault>) {
        reply!(reply, answer, offset => reply.offset(offset as i64));
    }
}

/// A reply that holds a part of a listing.
pub trait ListingReply: Send + 'static {
    /// Whether each entry counts as a look-up.
    const LOOKUPS: bool;

    /// Adds an entry; returns whether the reply is full and the entry was left out.
    fn add(&mut self, entry: &vfs::Entry<'_>, keep: &Duration) -> bool;

    /// Sends the entries.
    fn send(self);

    /// Sends an error number.
    fn refuse(self, errno: Errno);
}

impl ListingReply for ReplyDirectory {
    const LOOKUPS: bool = false;

    fn add(&mut self, entry: &vfs::Entry<'_>, _: &Duration) -> bool {
        ReplyDirectory::add(
            self,
            INodeNo(entry.attr.ino),
            entry.next,
            kind(entry.attr.kind),
            OsStr::from_bytes(entry.name),
        )
    }

    fn send(self) {
        self.ok();
    }

    fn refuse(self, errno: Errno) {
        self.error(errno);
    }
}

impl ListingReply for ReplyDirectoryPlus {
    const LOOKUPS: bool = true;

    fn add(&mut self, entry: &vfs::Entry<'_>, keep: &Duration) -> bool {
        let name = OsStr::from_bytes(entry.name);
        ReplyDirectoryPlus::add(
            self,
            INodeNo(entry.attr.ino),
            entry.next,
            name,
            keep,
            &file_attr(&entry.attr),
            Generation(0),
        )
    }

    fn send(self) {
        self.ok();
    }

    fn refuse(self, errno: Errno) {
        self.error(errno);
    }
}

/// A part of a listing whose pages are not in memory. Its answer is only that the first page has been fetched; the reply
/// is filled when it is sent, so that no entry counts as a look-up twice.
pub struct ReadDir<R> {
    pub ino: u64,
    pub offset: u64,
    pub keep: Duration,
    pub reply: std::marker::PhantomData<fn(R)>,
}

impl<R: ListingReply> ReadDir<R> {
    /// Fills a reply with the entries that fit.
    pub fn fill(&self, vfs: &Vfs, reply: &mut R, mode: Mode) -> Result<(), Fault> {
        vfs.readdir(self.ino, self.offset, R::LOOKUPS, mode, &mut |entry| reply.add(entry, &self.keep))
    }
}

impl<R: ListingReply> Request for ReadDir<R> {
    type Reply = R;
    type Answer = ();

    fn subject(&self) -> Subject {
        Subject::Node(self.ino)
    }

    fn find(&self, core: &Arc<Core>, mode: Mode) -> Result<(), Fault> {
        core.vfs.readdir(self.ino, self.offset.max(2), false, mode, &mut |_| true)
    }

    fn send(&self, core: &Core, mut reply: R, answer: Result<(), Fault>) {
        match answer.and_then(|()| self.fill(&core.vfs, &mut reply, Mode::Fetch(&core.within(core.timeout)))) {
            Ok(()) => reply.send(),
            Err(fault) => reply.refuse(errno(&fault)),
        }
    }
}
