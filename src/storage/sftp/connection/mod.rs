//! The operations of the storage over one connection. In: names, ranges and sealed bytes. Out: the results of SFTP requests,
//! which are sent without waiting for each other where that is possible. Nothing is repeated here; a lost connection is
//! reported as [`Fault::Lost`] and the caller repeats the whole operation.

mod attack;
mod put;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Weak};

use lru::LruCache;

use super::errors::{self, Disk, FileSystem, Refusal};
use super::packet::{self, Attrs, Malformed, Reply, Request};
use super::parts::Parts;
use super::session::call::Call;
use super::session::{Ask, SMALL, Session, SessionShared};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::storage::net::{Connection, Fault};
use crate::storage::{FULL_DISK, Space};

/// Files that are kept open for the next read.
const OPEN_FILES: usize = 64;
/// Bytes of backlog by which the channel with the open file may exceed the idlest one before a read moves to the latter.
const PATIENCE: usize = 4 << 20;
/// Servers that always answer a READ with fewer bytes than this are refused.
const LEAST_READ: usize = 4 << 10;
/// Tags; READs and WRITEs are numbered from 0.
const OPEN: u32 = u32::MAX - 3;
const LSTAT: u32 = u32::MAX - 4;
const FSYNC: u32 = u32::MAX;
const FSTAT: u32 = u32::MAX - 1;
const CLOSE: u32 = u32::MAX - 2;

/// A file that is open on the server; closed when the last user lets go.
struct OpenFile {
    channel: usize,
    handle: Vec<u8>,
    shared: Weak<SessionShared>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.close(self.channel, &self.handle);
        }
    }
}

/// The result of [`SftpConnection::open`]: whether the requests sent ahead are valid, and their answers.
struct Opened {
    file: Arc<OpenFile>,
    right: bool,
    early: Vec<(u32, Vec<u8>)>,
}

/// A live connection to the server, and the repository's place on it.
pub struct SftpConnection {
    pub session: Session,
    files: Mutex<LruCache<Name, Arc<OpenFile>>>,
    root: String,
}

impl Connection for SftpConnection {
    fn lost(&self) -> Option<String> {
        self.session.lost()
    }
}

impl SftpConnection {
    pub fn new(session: Session, root: &str) -> Self {
        let open = OPEN_FILES.min(session.features().max_handles / 2).max(1);
        let files = Mutex::new(LruCache::new(NonZeroUsize::new(open).unwrap_or(NonZeroUsize::MIN)));
        SftpConnection { session, files, root: root.into() }
    }

    /// Returns the path on the server of something in the repository; empty for the root itself.
    pub fn path(&self, inner: &str) -> String {
        match (inner, self.root.as_str()) {
            ("", root) => root.into(),
            (inner, "/") => format!("/{inner}"),
            (inner, root) => format!("{root}/{inner}"),
        }
    }

    /// Returns the attributes at `path`, or `None`; `follow` resolves symbolic links.
    pub fn look(&self, ctx: &Context, path: &str, follow: bool) -> Result<Option<Attrs>, Fault> {
        let mut call = self.session.call(ctx);
        let kind = if follow { packet::STAT } else { packet::LSTAT };
        let request = Request::new(kind).string(path.as_bytes());
        call.send(0, request, SMALL)?;
        let (_, answer) = call.receive()?;
        match call.decode(&answer)? {
            Reply::Attrs(attrs) => Ok(Some(attrs)),
            Reply::Status(packet::NO_SUCH_FILE, _) => Ok(None),
            other => Err(errors::refused(&call, "look at", path, other)),
        }
    }

    /// Returns the fault for something that is missing: perhaps the repository itself.
    pub fn missing(&self, ctx: &Context, kind: Kind, text: String) -> Fault {
        match self.look(ctx, &self.path(""), true) {
            Ok(None) => Fault::Final(Error::new(
                Kind::NoRepository,
                format!("there is no folder {} on the server", self.path("")),
            )),
            Ok(Some(_)) => Fault::Final(Error::new(kind, text)),
            Err(fault) => fault,
        }
    }

    /// Returns the size of an object.
    pub fn size(&self, ctx: &Context, name: &Name) -> Result<u64, Fault> {
        match self.look(ctx, &self.path(&name.path()), false)? {
            None => Err(self.missing(ctx, Kind::Missing, format!("no object {name}"))),
            Some(attrs) if !attrs.may_be_file() => Err(errors::no_object(name)),
            Some(attrs) => attrs.size.ok_or_else(|| errors::unusable("the server does not tell the size of files")),
        }
    }

    fn cached(&self, name: &Name) -> Option<Arc<OpenFile>> {
        self.files.lock().expect("no holder panics").get(name).cloned()
    }

    /// Drops an open file, which closes it after its last read.
    pub fn forget(&self, name: &Name) {
        let file = self.files.lock().expect("no holder panics").pop(name);
        drop(file); // outside the lock
    }

    /// Opens the file of `name`, on the channel of `call`. LSTAT goes ahead of OPEN: a pipe would block the server there. What
    /// `ahead` makes is sent with it where the handle can be guessed; then its answers are `early`, or still due.
    fn open(
        &self,
        ctx: &Context,
        call: &mut Call<'_>,
        name: &Name,
        expects: usize,
        ahead: impl FnOnce(&[u8]) -> Vec<Ask>,
    ) -> Result<Opened, Fault> {
        let path = self.path(&name.path());
        call.send(LSTAT, Request::new(packet::LSTAT).string(path.as_bytes()), SMALL)?;
        let open = Request::new(packet::OPEN).string(path.as_bytes()).u32(packet::FOR_READING).u32(0);
        let guess = call.open_with(OPEN, open, (SMALL, expects), ahead)?;
        let (mut opened, mut no_file, mut left) = (None, false, 2);
        let mut early = Vec::new();
        while left > 0 {
            let (tag, answer) = call.receive().inspect_err(|_| {
                if opened.is_none() {
                    call.opened(guess.as_deref(), None, false);
                }
            })?;
            match tag {
                LSTAT => {
                    if let Reply::Attrs(attrs) = call.decode(&answer)?
                        && !attrs.may_be_file()
                    {
                        no_file = true;
                        if !attrs.may_be_folder() && opened.is_none() {
                            // the server may hang in OPEN for ever, and this channel with it
                            self.session.give_up("something that is no file stands in an object's place");
                            break;
                        }
                    }
                }
                OPEN => opened = self.opened(ctx, call, name, guess.as_deref(), &answer, no_file)?,
                _ => {
                    early.push((tag, answer));
                    continue;
                }
            }
            left -= 1;
        }
        if no_file {
            return Err(errors::no_object(name));
        }
        let (file, right) = opened.ok_or_else(|| call.nonsense("no handle"))?;
        let before = self.files.lock().expect("no holder panics").push(*name, Arc::clone(&file));
        drop(before);
        if !right && guess.is_some() {
            call.drain()?;
            early.clear();
        }
        Ok(Opened { file, right, early })
    }

    /// Takes the answer to OPEN: the open file, and whether its handle was guessed. `None` if it was refused because no file is
    /// there.
    fn opened(
        &self,
        ctx: &Context,
        call: &Call<'_>,
        name: &Name,
        guess: Option<&[u8]>,
        answer: &[u8],
        no_file: bool,
    ) -> Result<Option<(Arc<OpenFile>, bool)>, Fault> {
        let reply = call.decode(answer)?;
        if let Reply::Handle(handle) = reply {
            let right = call.opened(guess, Some(handle), false);
            let shared = Arc::downgrade(&self.session.shared);
            return Ok(Some((Arc::new(OpenFile { channel: call.channel, handle: handle.into(), shared }), right)));
        }
        call.opened(guess, None, false);
        match reply {
            Reply::Status(packet::NO_SUCH_FILE, _) => {
                Err(self.missing(ctx, Kind::Missing, format!("no object {name}")))
            }
            Reply::Status(..) if no_file => Ok(None),
            other => Err(errors::refused(call, "open", &self.path(&name.path()), other)),
        }
    }

    /// Returns exactly `len` bytes from `offset` on.
    pub fn read(&self, ctx: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
        let early = || Fault::Final(Error::damaged(format!("object {name} ends too early")));
        if len == 0 || offset.checked_add(len as u64).is_none() {
            return if len == 0 && self.size(ctx, name)? >= offset { Ok(Vec::new()) } else { Err(early()) };
        }
        let near = self.cached(name);
        let open = near.as_ref().map(|file| file.channel);
        let mut call = self.session.call_to_read(ctx, open, PATIENCE, len);
        let mut parts = Parts::new(offset, len);
        let (most, count) = (call.read_size(), call.reads_ahead());
        let (file, mut answers) = match near {
            Some(file) if file.channel == call.channel => (file, VecDeque::new()),
            _ => {
                let ahead = |handle: &[u8]| std::iter::from_fn(|| parts.next(handle, most)).take(count).collect();
                let opened = self.open(ctx, &mut call, name, len.min(count * most), ahead)?;
                if !opened.right {
                    parts = Parts::new(offset, len);
                }
                (opened.file, VecDeque::from(opened.early))
            }
        };
        let limit = 2 * (len / LEAST_READ) + 64;
        loop {
            let answer = match answers.pop_front() {
                Some(answer) => Some(answer),
                None => match parts.next(&file.handle, call.read_size()) {
                    Some(_) if parts.asked.len() > limit => {
                        return Err(errors::unusable("the server gives far less than it is asked for"));
                    }
                    Some(ask) => {
                        call.send(ask.tag, ask.request, ask.expects)?;
                        call.try_receive()?
                    }
                    None if call.due() > 0 => Some(call.receive()?),
                    None => return Ok(parts.bytes),
                },
            };
            let Some((tag, answer)) = answer else { continue };
            match call.decode(&answer)? {
                Reply::Data(data) => parts.take(tag, data).map_err(|Malformed(what)| call.nonsense(what))?,
                Reply::Status(packet::EOF, _) => return Err(early()),
                other => return Err(errors::refused(&call, "read", &self.path(&name.path()), other)),
            }
        }
    }

    /// Returns the fault for a write that was refused. SFTP 3 has one code for most reasons; the server's text, its file system
    /// and its other refusals tell them apart.
    pub fn why_refused(&self, ctx: &Context, doing: &str, path: &str, len: u64, refusal: Refusal) -> Fault {
        let disk = self.disk(ctx, path, len);
        let error = if refusal.names_no_space() || disk == Disk::Full {
            let text = format!("cannot {doing} {path}: the server has no space left");
            Error::new(Kind::NoSpace, text).hint(FULL_DISK)
        } else if disk == Disk::ReadOnly {
            Error::failed(format!("cannot {doing} {path}: the file system of the server is mounted read-only"))
                .hint("the log of the server may name a broken disk; `mount`, `ls` and `restore` still work")
        } else if refusal.code == packet::PERMISSION_DENIED && self.is_read_only(ctx) {
            Error::failed(format!("cannot {doing} {path}: the server allows reading only")).hint(
                "its SFTP server runs read-only (`-R`), or the account may only read; `mount`, `ls` and `restore` work",
            )
        } else {
            refusal.error(doing, path)
        };
        Fault::Final(error)
    }

    /// Returns the reason of the file system that holds `path` for refusing to write `len` bytes.
    fn disk(&self, ctx: &Context, path: &str, len: u64) -> Disk {
        let folder = path.rsplit_once('/').map_or(".", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        if self.session.is_lost() {
            return Disk::Other;
        }
        let system = self.file_system(ctx, folder).ok().flatten();
        system.map_or(Disk::Other, |system| system.reason(len))
    }

    /// Asks for the state of the file system that holds `folder`; `None` if the server cannot tell.
    fn file_system(&self, ctx: &Context, folder: &str) -> Result<Option<FileSystem>, Fault> {
        if !self.session.features().extensions.statvfs {
            return Ok(None);
        }
        let request = Request::extended("statvfs@openssh.com").string(folder.as_bytes());
        self.session.call(ctx).ask(request, |reply| match reply {
            Reply::Extended(bytes) => Ok(FileSystem::decode(bytes).ok()),
            _ => Ok(None),
        })
    }

    /// Returns the space on the file system of the repository.
    pub fn space(&self, ctx: &Context) -> Result<Option<Space>, Fault> {
        let root = self.path("");
        match self.file_system(ctx, if root.is_empty() { "." } else { &root })? {
            Some(system) => Ok(Some(system.space)),
            None if self.look(ctx, &root, true)?.is_none() => {
                let text = format!("there is no folder {root} on the server");
                Err(Fault::Final(Error::new(Kind::NoRepository, text)))
            }
            None => Ok(None),
        }
    }

    /// Returns whether the server refuses for lack of permission even what would fail for another reason: to create the
    /// folder `.` as a file, and `/` as a folder. An append-only server refuses only the second one so.
    fn is_read_only(&self, ctx: &Context) -> bool {
        let create = Request::new(packet::OPEN).string(b".").u32(packet::NEW_FOR_WRITING).mode(0o400);
        let make = Request::new(packet::MKDIR).string(b"/").mode(0o700);
        [create, make].into_iter().all(|request| {
            let mut call = self.session.call(ctx);
            let denied = call.ask(request, |reply| Ok(matches!(reply, Reply::Status(packet::PERMISSION_DENIED, _))));
            denied.unwrap_or(false)
        })
    }
}
