//! The operations of the storage over one connection: pipelined, and each a few lines of protocol. Nothing is repeated
//! here; a lost connection is reported as [`Fault::Lost`] and the caller repeats the whole operation.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Weak};

use lru::LruCache;

use super::call::Call;
use super::errors::{self, Refusal};
use super::packet::{self, Attrs, Malformed, Reply, Request};
use super::parts::{Parts, Writes};
use super::session::{Ask, SMALL, Session, SessionShared};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::storage::net::{Connection, Fault};

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

/// The first refusal, with the tag of its request; the size at the end.
type Written = (Option<(u32, Refusal)>, Option<u64>);

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

    /// The path on the server of something in the repository; empty for the root itself.
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

    /// The size of an object.
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

    /// An open file for `name`, on the channel of `call`. LSTAT goes ahead of OPEN: a pipe would block the server there. What
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
        let (mut file, mut no_file, mut right, mut left) = (None, false, false, 2);
        let mut early = Vec::new();
        while left > 0 {
            let (tag, answer) = call.receive().inspect_err(|_| {
                if file.is_none() {
                    call.opened(guess.as_deref(), None, false);
                }
            })?;
            if !matches!(tag, LSTAT | OPEN) {
                early.push((tag, answer));
                continue;
            }
            left -= 1;
            match (tag, call.decode(&answer)?) {
                (LSTAT, Reply::Attrs(attrs)) if !attrs.may_be_file() => {
                    no_file = true;
                    if !attrs.may_be_folder() && file.is_none() {
                        // the server may hang in OPEN for ever, and this channel with it
                        self.session.give_up("something that is no file stands in an object's place");
                        break;
                    }
                }
                (LSTAT, Reply::Attrs(_) | Reply::Status(..)) => {}
                (_, Reply::Handle(handle)) => {
                    right = call.opened(guess.as_deref(), Some(handle), false);
                    let shared = Arc::downgrade(&self.session.shared);
                    file = Some(Arc::new(OpenFile { channel: call.channel, handle: handle.into(), shared }));
                }
                (_, other) => {
                    call.opened(guess.as_deref(), None, false);
                    match other {
                        Reply::Status(packet::NO_SUCH_FILE, _) => {
                            return Err(self.missing(ctx, Kind::Missing, format!("no object {name}")));
                        }
                        Reply::Status(..) if no_file => {}
                        other => return Err(errors::refused(call, "open", &path, other)),
                    }
                }
            }
        }
        if no_file {
            return Err(errors::no_object(name));
        }
        let file = file.ok_or_else(|| call.nonsense("no handle"))?;
        let before = self.files.lock().expect("no holder panics").push(*name, Arc::clone(&file));
        drop(before);
        if !right && guess.is_some() {
            call.drain()?;
            early.clear();
        }
        Ok(Opened { file, right, early })
    }

    /// Exactly `len` bytes from `offset` on.
    pub fn read(&self, ctx: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
        let early = || Fault::Final(Error::damaged(format!("object {name} ends too early")));
        if len == 0 || offset.checked_add(len as u64).is_none() {
            return if len == 0 && self.size(ctx, name)? >= offset { Ok(Vec::new()) } else { Err(early()) };
        }
        let near = self.cached(name);
        let mut call = match &near {
            Some(file) => self.session.call_near(ctx, file.channel, PATIENCE),
            None => self.session.call(ctx),
        };
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

    /// Creates an object and writes it. `again` means that an earlier try may have done so already. When `ctx` ends the handle is
    /// closed (but for one that the server had not given yet) and the connection goes on.
    pub fn put(&self, ctx: &Context, name: &Name, bytes: &[u8], again: bool) -> Result<(), Fault> {
        let path = self.path(&name.path());
        let mut call = self.session.call_to_put(ctx);
        let open = Request::new(packet::OPEN).string(path.as_bytes()).u32(packet::NEW_FOR_WRITING).mode(0o400);
        let mut writes = Writes::new(bytes, call.write_size());
        let (ahead, fsync) = (call.write_ahead(bytes.len()), self.session.features().fsync);
        let all = |handle: &[u8]| {
            let mut first: Vec<Ask> = std::iter::from_fn(|| writes.next_below(handle, ahead)).collect();
            if writes.is_done() {
                first.extend(ending(handle, fsync));
            }
            first
        };
        let guess = call.open_with(OPEN, open, (ahead, SMALL), all)?;
        let mut early = Vec::new();
        let answer = loop {
            match call.receive()? {
                (OPEN, answer) => break answer,
                other => early.push(other),
            }
        };
        let handle = match call.decode(&answer)? {
            Reply::Handle(handle) => handle.to_vec(),
            Reply::Status(code, text) if code != packet::OK => {
                call.opened(guess.as_deref(), None, false);
                drop(call);
                return self.not_created(ctx, name, bytes, again, Refusal { code, text });
            }
            _ => return Err(call.nonsense("a wrong answer to OPEN")),
        };
        let mut closed = guess.is_some() && writes.is_done();
        if !call.opened(guess.as_deref(), Some(&handle), closed) {
            call.drain()?;
            early.clear();
            closed = false;
            writes = Writes::new(bytes, call.write_size());
        }
        let written = self.write(&mut call, &handle, writes, early, closed);
        if written.is_err() && ctx.check().is_err() {
            self.session.shared.close(call.channel, &handle);
        }
        match written? {
            (None, Some(size)) if size == bytes.len() as u64 => Ok(()),
            (None, size) => Err(Fault::Final(Error::failed(format!(
                "{path} has {} bytes on the server after {} were written",
                size.map_or("an unknown number of".into(), |size| size.to_string()),
                bytes.len()
            )))),
            (Some((tag, refusal)), _) => {
                let doing = if tag == FSYNC { "sync" } else { "write" };
                Err(self.maybe_full(ctx, doing, &path, bytes.len() as u64, refusal))
            }
        }
    }

    /// Writes, syncs, looks at and closes a new file. Returns the first refusal, and the size. `early` are answers that came
    /// before that to OPEN; `closed`: all requests were sent already.
    fn write(
        &self,
        call: &mut Call<'_>,
        handle: &[u8],
        mut writes: Writes<'_>,
        early: Vec<(u32, Vec<u8>)>,
        closed: bool,
    ) -> Result<Written, Fault> {
        let (mut refusal, mut size) = (None, None);
        let mut handle_answer = |call: &Call<'_>, (tag, answer): (u32, Vec<u8>)| -> Result<(), Fault> {
            match (tag, call.decode(&answer)?) {
                (FSTAT, Reply::Attrs(attrs)) => size = attrs.size,
                (_, Reply::Status(packet::OK, _)) if tag != FSTAT => {}
                (_, Reply::Status(code, text)) => refusal = refusal.take().or(Some((tag, Refusal { code, text }))),
                _ => return Err(call.nonsense("a wrong answer to WRITE")),
            }
            Ok(())
        };
        for answer in early {
            handle_answer(call, answer)?;
        }
        while let Some(ask) = writes.next(handle) {
            call.send(ask.tag, ask.request, ask.expects)?;
            writes.size = call.write_size();
            while let Some(answer) = call.try_receive()? {
                handle_answer(call, answer)?;
            }
        }
        if !closed {
            call.send_ending(ending(handle, self.session.features().fsync), handle)?;
        }
        while call.due() > 0 {
            let answer = call.receive()?;
            handle_answer(call, answer)?;
        }
        Ok((refusal, size))
    }

    /// Why an object could not be created; or that it was, before the connection was lost.
    fn not_created(
        &self,
        ctx: &Context,
        name: &Name,
        bytes: &[u8],
        again: bool,
        refusal: Refusal,
    ) -> Result<(), Fault> {
        let path = self.path(&name.path());
        let exists = || Fault::Final(Error::new(Kind::Exists, format!("object {name} exists already")));
        if refusal.code == packet::NO_SUCH_FILE {
            let folder = self.path(&name.folder().path());
            return Err(self.missing(
                ctx,
                Kind::Failed,
                format!("cannot create {path}: the folder {folder} is not there"),
            ));
        }
        match self.look(ctx, &path, false)? {
            None => Err(self.maybe_full(ctx, "create", &path, bytes.len() as u64, refusal)),
            // exactly as long: an earlier attempt sent it, and it may not be on the disk yet. Read, because a WRITE
            // in its middle may have failed.
            Some(found) if again && found.may_be_file() && found.size == Some(bytes.len() as u64) => {
                if self.read(ctx, name, 0, bytes.len())? != bytes {
                    return Err(exists());
                }
                let mut call = self.session.call(ctx);
                let file = self.open(ctx, &mut call, name, SMALL, |_| Vec::new())?.file;
                if !self.session.features().fsync {
                    return Ok(());
                }
                call.ask(Request::extended("fsync@openssh.com").string(&file.handle), |reply| match reply {
                    Reply::Status(packet::OK, _) => Ok(()),
                    _ => Err(exists()), // a new object can be synced
                })
            }
            Some(_) => Err(exists()),
        }
    }

    /// SFTP 3 has one code for most failures; the server's text or the free space identify a full disk.
    pub fn maybe_full(&self, ctx: &Context, doing: &str, path: &str, len: u64, refusal: Refusal) -> Fault {
        if refusal.names_no_space() || self.is_full(ctx, path, len) {
            let text = format!("cannot {doing} {path}: the server has no space left");
            return Fault::Final(
                Error::new(Kind::NoSpace, text).hint("free space on the server, then run the same command again"),
            );
        }
        Fault::Final(refusal.error(doing, path))
    }

    /// Returns whether the server's file system reports no room for `len` bytes or one more file; false if unknown.
    fn is_full(&self, ctx: &Context, path: &str, len: u64) -> bool {
        let folder = path.rsplit_once('/').map_or(".", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        if !self.session.features().statvfs || self.session.is_lost() {
            return false;
        }
        let mut call = self.session.call(ctx);
        let full = call.ask(Request::extended("statvfs@openssh.com").string(folder.as_bytes()), |reply| match reply {
            Reply::Extended(bytes) => Ok(errors::says_full(bytes, len).unwrap_or(false)),
            _ => Ok(false),
        });
        full.unwrap_or(false)
    }
}

/// Returns the last requests of a put, sent together.
fn ending(handle: &[u8], fsync: bool) -> Vec<Ask> {
    let sync = || Ask { tag: FSYNC, request: Request::extended("fsync@openssh.com").string(handle), expects: SMALL };
    let stat = Ask { tag: FSTAT, request: Request::new(packet::FSTAT).string(handle), expects: SMALL };
    let close = Ask { tag: CLOSE, request: Request::new(packet::CLOSE).string(handle), expects: SMALL };
    fsync.then(sync).into_iter().chain([stat, close]).collect()
}
