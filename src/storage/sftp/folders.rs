//! Listing and making folders over one connection.

use super::session::call::Call;
use std::collections::VecDeque;

use super::connection::SftpConnection;
use super::errors::{self, Refusal};
use super::packet::{self, Attrs, Reply, Request};
use super::session::{Ask, SMALL};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::Folder;
use crate::storage::net::Fault;
use crate::storage::{Entry, MAX_ENTRIES, is_own_folder};

/// READDIRs in flight: OpenSSH returns 100 names for each. More are sent when half of them are answered: by then
/// the end of a short listing has been seen, and no round trip is lost to requests that came too late. Their answers
/// are some 15 KB each and count as small: none waits until others are answered.
const READDIRS: usize = 32;
/// The tag of OPENDIR.
const OPENDIR: u32 = u32::MAX;
/// LSTATs on the way at once.
const LSTATS: usize = 64;

impl SftpConnection {
    /// The objects in a folder, and how many names there are not ours.
    pub fn scan(&self, ctx: &Context, folder: Folder) -> Result<(Vec<Entry>, usize), Fault> {
        let path = self.path(&folder.path());
        let mut call = self.session.call(ctx);
        let readdir =
            |handle: &[u8]| Ask { tag: 0, request: Request::new(packet::READDIR).string(handle), expects: SMALL };
        let ahead = |handle: &[u8]| (0..READDIRS).map(|_| readdir(handle)).collect();
        let open = Request::new(packet::OPENDIR).string(path.as_bytes());
        let guess = call.open_with(OPENDIR, open, (SMALL, SMALL), ahead)?;
        let mut early = VecDeque::new();
        let answer = loop {
            match call.receive()? {
                (OPENDIR, answer) => break answer,
                (_, answer) => early.push_back(answer),
            }
        };
        let handle = match call.decode(&answer)? {
            Reply::Handle(handle) => handle.to_vec(),
            other => {
                call.opened(guess.as_deref(), None, false);
                return Err(match other {
                    Reply::Status(packet::NO_SUCH_FILE, _) => {
                        self.missing(ctx, Kind::Missing, format!("the folder {path} is not there"))
                    }
                    other => errors::refused(&call, "list", &path, other),
                });
            }
        };
        if !call.opened(guess.as_deref(), Some(&handle), false) {
            call.drain()?;
            early.clear();
        }
        let scanned = self.read_names(&mut call, folder, &path, &handle, early);
        self.session.shared.close(call.channel, &handle);
        scanned
    }

    fn read_names(
        &self,
        call: &mut Call<'_>,
        folder: Folder,
        path: &str,
        handle: &[u8],
        mut early: VecDeque<Vec<u8>>,
    ) -> Result<(Vec<Entry>, usize), Fault> {
        let (mut entries, mut foreign, mut count) = (Vec::new(), 0, 0);
        let mut without_attrs = Vec::new();
        let mut ended = false;
        loop {
            let more = if !ended && call.due() <= READDIRS / 2 { READDIRS - call.due() } else { 0 };
            for _ in 0..more {
                call.send(0, Request::new(packet::READDIR).string(handle), SMALL)?;
            }
            let answer = match early.pop_front() {
                Some(answer) => answer,
                None if call.due() == 0 => break,
                None => call.receive()?.1,
            };
            match call.decode(&answer)? {
                Reply::Names(names) if names.is_empty() => {
                    return Err(call.nonsense("a listing without names and without end"));
                }
                Reply::Names(names) => {
                    count += names.len();
                    if count > MAX_ENTRIES {
                        return Err(Fault::Final(Error::failed(format!("{path} holds more than {MAX_ENTRIES} names"))));
                    }
                    for (bytes, attrs) in names {
                        if matches!(bytes, b"." | b"..") {
                            continue;
                        }
                        let text = std::str::from_utf8(bytes).unwrap_or("");
                        match folder.parse(text) {
                            Some(name) if attrs.size.is_none() => without_attrs.push(name),
                            Some(name) if attrs.may_be_file() => entries.push(entry(name, &attrs)),
                            None if attrs.may_be_folder() && is_own_folder(folder, text) => {}
                            _ => foreign += 1,
                        }
                    }
                }
                Reply::Status(packet::EOF, _) => ended = true,
                other => return Err(errors::refused(call, "list", path, other)),
            }
        }
        let mut next = 0;
        while next < without_attrs.len() || call.due() > 0 {
            while next < without_attrs.len() && call.due() < LSTATS {
                let path = self.path(&without_attrs[next].path());
                call.send(
                    u32::try_from(next).unwrap_or(u32::MAX),
                    Request::new(packet::LSTAT).string(path.as_bytes()),
                    SMALL,
                )?;
                next += 1;
            }
            let (tag, answer) = call.receive()?;
            match call.decode(&answer)? {
                Reply::Attrs(attrs) if attrs.may_be_file() => entries.push(entry(without_attrs[tag as usize], &attrs)),
                Reply::Attrs(_) => foreign += 1,
                Reply::Status(packet::NO_SUCH_FILE, _) => {} // removed meanwhile
                other => return Err(errors::refused(call, "list", path, other)),
            }
        }
        Ok((entries, foreign))
    }

    /// Makes the root and all folders below it; parents first, each level in one burst.
    pub fn create_folders(&self, ctx: &Context) -> Result<(), Fault> {
        let depth = |folder: &Folder| folder.path().split('/').filter(|part| !part.is_empty()).count();
        for level in 0..3 {
            let folders: Vec<Folder> =
                [Folder::Root].into_iter().chain(Folder::all()).filter(|f| depth(f) == level).collect();
            self.create_level(ctx, &folders)?;
        }
        Ok(())
    }

    fn create_level(&self, ctx: &Context, folders: &[Folder]) -> Result<(), Fault> {
        let mut call = self.session.call(ctx);
        for (tag, folder) in (0..).zip(folders) {
            let path = self.path(&folder.path());
            call.send(tag, Request::new(packet::MKDIR).string(path.as_bytes()).mode(0o700), SMALL)?;
        }
        let mut refusals = Vec::new();
        while call.due() > 0 {
            let (tag, answer) = call.receive()?;
            match call.decode(&answer)? {
                Reply::Status(packet::OK, _) => {}
                Reply::Status(code, text) => {
                    refusals.push((self.path(&folders[tag as usize].path()), Refusal { code, text }))
                }
                _ => return Err(call.nonsense("a wrong answer to MKDIR")),
            }
        }
        drop(call);
        for (path, refusal) in refusals {
            match self.look(ctx, &path, true) {
                Ok(Some(attrs)) if attrs.may_be_folder() => {}
                Ok(Some(_)) => return Err(errors::unusable(&format!("{path} on the server is not a folder"))),
                Ok(None) if refusal.code == packet::NO_SUCH_FILE => {
                    let text = format!("cannot make the folder {path} on the server: its parent does not exist");
                    return Err(Fault::Final(
                        Error::failed(text).hint("make the parent folder first, or mend the address"),
                    ));
                }
                Ok(None) => return Err(self.maybe_full(ctx, "make the folder", &path, 0, refusal)),
                Err(Fault::Lost(why)) => return Err(Fault::Lost(why)),
                Err(Fault::Final(_)) => return Err(Fault::Final(refusal.error("make the folder", &path))),
            }
        }
        Ok(())
    }

    /// Removes an object; one that is not there is removed already.
    pub fn remove(&self, ctx: &Context, name: &crate::name::Name) -> Result<(), Fault> {
        self.forget(name);
        let path = self.path(&name.path());
        let mut call = self.session.call(ctx);
        call.send(0, Request::new(packet::REMOVE).string(path.as_bytes()), SMALL)?;
        let (_, answer) = call.receive()?;
        match call.decode(&answer)? {
            Reply::Status(packet::OK, _) => Ok(()),
            Reply::Status(packet::NO_SUCH_FILE, _) => match self.missing(ctx, Kind::Missing, String::new()) {
                Fault::Final(e) if e.kind() == Kind::Missing => Ok(()),
                fault => Err(fault),
            },
            other => Err(errors::refused(&call, "remove", &path, other)),
        }
    }
}

fn entry(name: crate::name::Name, attrs: &Attrs) -> Entry {
    Entry { name, size: attrs.size.unwrap_or(0), mtime: attrs.mtime.map_or(0, i64::from) }
}
