//! Creates an object: writes, syncs and verifies it, with as few round trips as the server allows.

use super::{CLOSE, FSTAT, FSYNC, OPEN, SftpConnection};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::progress::Event;
use crate::storage::net::Fault;
use crate::storage::sftp::errors::{self, Refusal};
use crate::storage::sftp::packet::{self, Reply, Request};
use crate::storage::sftp::parts::Writes;
use crate::storage::sftp::session::call::Call;
use crate::storage::sftp::session::{Ask, SMALL};
use crate::storage::taken;

/// The first refusal, with the tag of its request; the size at the end.
type Written = (Option<(u32, Refusal)>, Option<u64>);

impl SftpConnection {
    /// Creates an object. A missing folder of the repository is made first. `again` means that an earlier try may have
    /// created it already.
    pub fn put(&self, ctx: &Context, name: &Name, bytes: &[u8], again: bool) -> Result<(), Fault> {
        match self.put_once(ctx, name, bytes, again) {
            Err(Fault::Final(e)) if e.kind() == Kind::Missing => {
                self.create_folder_of(ctx, name)?;
                match self.put_once(ctx, name, bytes, again) {
                    Err(Fault::Final(e)) if e.kind() == Kind::Missing => Err(errors::unusable(&e.to_string())),
                    done => done,
                }
            }
            done => done,
        }
    }

    /// Creates an object and writes it. Fails with kind [`Kind::Missing`] if its folder is not there. `again` means that an
    /// earlier try may have done so already. When `ctx` ends, the handle is closed (unless the server has not returned it
    /// yet), and the connection stays open.
    fn put_once(&self, ctx: &Context, name: &Name, bytes: &[u8], again: bool) -> Result<(), Fault> {
        let path = self.path(&name.path());
        let mut call = self.session.call_to_put(ctx);
        let open = Request::new(packet::OPEN).string(path.as_bytes()).u32(packet::NEW_FOR_WRITING).mode(0o400);
        let mut writes = Writes::new(bytes, call.write_size());
        let (ahead, fsync) = (call.write_ahead(bytes.len()), self.session.features().extensions.fsync);
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
        let written = self.write(ctx, &mut call, &handle, &mut writes, early, closed);
        if written.is_err() && ctx.check().is_err() {
            self.session.shared.close(call.channel, &handle);
        }
        if !matches!(written, Ok((None, _))) {
            ctx.event(Event::Unsent { bytes: writes.acknowledged });
        }
        drop(call);
        match written? {
            (None, Some(size)) if size == bytes.len() as u64 => Ok(()),
            written => Err(self.incomplete(ctx, name, bytes.len() as u64, written)),
        }
    }

    /// Returns why an object of this size was not written. Removes it if it is too short: then it is our own, and no reader
    /// can have taken it for an object. An append-only server refuses that.
    fn incomplete(&self, ctx: &Context, name: &Name, len: u64, (refusal, size): Written) -> Fault {
        let path = self.path(&name.path());
        let fault = match refusal {
            None => Fault::Final(Error::failed(format!(
                "{path} has {} bytes on the server after {len} were written",
                size.map_or("an unknown number of".into(), |size| size.to_string()),
            ))),
            Some((tag, refusal)) => {
                let doing = if tag == FSYNC { "sync" } else { "write" };
                self.why_refused(ctx, doing, &path, len, refusal)
            }
        };
        if size.is_some_and(|size| size < len) {
            let _ = self.remove(ctx, name);
        }
        fault
    }

    /// Writes, syncs, looks at and closes a new file. Returns the first refusal, and the size. `early` are answers that came
    /// before that to OPEN; `closed`: all requests were sent already.
    fn write(
        &self,
        ctx: &Context,
        call: &mut Call<'_>,
        handle: &[u8],
        writes: &mut Writes<'_>,
        early: Vec<(u32, Vec<u8>)>,
        closed: bool,
    ) -> Result<Written, Fault> {
        let (mut refusal, mut size) = (None, None);
        let mut handle_answer =
            |call: &Call<'_>, writes: &mut Writes<'_>, (tag, answer): (u32, Vec<u8>)| -> Result<(), Fault> {
                match (tag, call.decode(&answer)?) {
                    (FSTAT, Reply::Attrs(attrs)) => size = attrs.size,
                    (_, Reply::Status(packet::OK, _)) if tag != FSTAT => {
                        ctx.event(Event::Sent { bytes: writes.acknowledge(tag) });
                    }
                    (_, Reply::Status(code, text)) => refusal = refusal.take().or(Some((tag, Refusal { code, text }))),
                    _ => return Err(call.nonsense("a wrong answer to WRITE")),
                }
                Ok(())
            };
        for answer in early {
            handle_answer(call, writes, answer)?;
        }
        while let Some(ask) = writes.next(handle) {
            call.send(ask.tag, ask.request, ask.expects)?;
            writes.size = call.write_size();
            while let Some(answer) = call.try_receive()? {
                handle_answer(call, writes, answer)?;
            }
        }
        if !closed {
            call.send_ending(ending(handle, self.session.features().extensions.fsync), handle)?;
        }
        while call.due() > 0 {
            let answer = call.receive()?;
            handle_answer(call, writes, answer)?;
        }
        Ok((refusal, size))
    }

    /// Returns why an object could not be created, or that it was created before the connection was lost.
    fn not_created(
        &self,
        ctx: &Context,
        name: &Name,
        bytes: &[u8],
        again: bool,
        refusal: Refusal,
    ) -> Result<(), Fault> {
        let path = self.path(&name.path());
        let exists = || Fault::Final(taken(name));
        if refusal.code == packet::NO_SUCH_FILE {
            let folder = self.path(&name.folder().path());
            let text = format!("cannot create {path}: the folder {folder} is not there");
            return Err(self.missing(ctx, Kind::Missing, text));
        }
        match self.look(ctx, &path, false)? {
            None => Err(self.why_refused(ctx, "create", &path, bytes.len() as u64, refusal)),
            // exactly as long: an earlier attempt sent it, and it may not be on the disk yet. Read, because a WRITE
            // in its middle may have failed.
            Some(found) if again && found.may_be_file() && found.size == Some(bytes.len() as u64) => {
                if self.read(ctx, name, 0, bytes.len())? != bytes {
                    return Err(exists());
                }
                ctx.event(Event::Sent { bytes: bytes.len() as u64 });
                let mut call = self.session.call(ctx);
                let file = self.open(ctx, &mut call, name, SMALL, |_| Vec::new())?.file;
                if !self.session.features().extensions.fsync {
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
}

/// Returns the last requests of a put, sent together.
fn ending(handle: &[u8], fsync: bool) -> Vec<Ask> {
    let sync = || Ask { tag: FSYNC, request: Request::extended("fsync@openssh.com").string(handle), expects: SMALL };
    let stat = Ask { tag: FSTAT, request: Request::new(packet::FSTAT).string(handle), expects: SMALL };
    let close = Ask { tag: CLOSE, request: Request::new(packet::CLOSE).string(handle), expects: SMALL };
    fsync.then(sync).into_iter().chain([stat, close]).collect()
}
