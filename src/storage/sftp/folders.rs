//! Listing and making folders over one connection.

use std::collections::VecDeque;

use super::connection::SftpConnection;
use super::errors::{self, Refusal};
use super::packet::{self, Attrs, Reply, Request};
use super::session::call::Call;
use super::session::{Ask, SMALL};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name};
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

/// Objects and foreign names of one folder, collected while it is listed.
#[derive(Default)]
struct Listing {
    entries: Vec<Entry>,
    foreign: usize,
    /// All names so far, also `.` and `..`.
    count: usize,
    /// Objects whose attributes the server did not send.
    without_attrs: Vec<Name>,
}

impl Listing {
    fn add(&mut self, folder: Folder, bytes: &[u8], attrs: &Attrs) {
        self.count += 1;
        if matches!(bytes, b"." | b"..") {
            return;
        }
        let text = std::str::from_utf8(bytes).unwrap_or("");
        match folder.parse(text) {
            Some(name) if attrs.size.is_none() => self.without_attrs.push(name),
            Some(name) if attrs.may_be_file() => self.entries.push(entry(name, attrs)),
            None if attrs.may_be_folder() && is_own_folder(folder, text) => {}
            _ => self.foreign += 1,
        }
    }
}

impl SftpConnection {
    /// Returns the objects in a folder, and how many names there are not ours. A folder of the repository that is
    /// missing while the root is there has none.
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
                return match other {
                    Reply::Status(packet::NO_SUCH_FILE, _) => self.absent(ctx, folder),
                    other => Err(errors::refused(&call, "list", &path, other)),
                };
            }
        };
        if !call.opened(guess.as_deref(), Some(&handle), false) {
            call.drain()?;
            early.clear();
        }
        let mut listing = Listing::default();
        let listed = self.read_names(&mut call, folder, &handle, early, &mut listing);
        self.session.shared.close(call.channel, &handle);
        if !listed? {
            return self.absent(ctx, folder);
        }
        self.look_at_each(&mut call, &path, &mut listing)?;
        Ok((listing.entries, listing.foreign))
    }

    /// Returns the listing of a folder that the server calls missing: empty if it is one of the repository, whose root
    /// is there.
    fn absent(&self, ctx: &Context, folder: Folder) -> Result<(Vec<Entry>, usize), Fault> {
        let text = format!("the folder {} is not there", self.path(&folder.path()));
        let missing = self.missing(ctx, Kind::Missing, text);
        if !matches!(&missing, Fault::Final(e) if e.kind() == Kind::Missing) || folder.chain().next().is_none() {
            return Err(missing);
        }
        for own in folder.chain() {
            match self.look(ctx, &self.path(&own.path()), false)? {
                None => return Ok((Vec::new(), 0)),
                // a link to a place that is not there, such as a disk that is not mounted
                Some(attrs) if !attrs.may_be_folder() => return Err(missing),
                Some(_) => {}
            }
        }
        Err(missing)
    }

    /// Reads all names. False if the server calls the folder missing only now (asyncssh).
    fn read_names(
        &self,
        call: &mut Call<'_>,
        folder: Folder,
        handle: &[u8],
        mut early: VecDeque<Vec<u8>>,
        listing: &mut Listing,
    ) -> Result<bool, Fault> {
        let path = self.path(&folder.path());
        let (mut ended, mut absent) = (false, false);
        loop {
            let more = if !ended && call.due() <= READDIRS / 2 { READDIRS - call.due() } else { 0 };
            for _ in 0..more {
                call.send(0, Request::new(packet::READDIR).string(handle), SMALL)?;
            }
            let answer = match early.pop_front() {
                Some(answer) => answer,
                None if call.due() == 0 => return Ok(!absent),
                None => call.receive()?.1,
            };
            match call.decode(&answer)? {
                Reply::Names(names) if names.is_empty() => {
                    return Err(call.nonsense("a listing without names and without end"));
                }
                Reply::Names(names) => {
                    names.iter().for_each(|(bytes, attrs)| listing.add(folder, bytes, attrs));
                    if listing.count > MAX_ENTRIES {
                        return Err(Fault::Final(Error::failed(format!("{path} holds more than {MAX_ENTRIES} names"))));
                    }
                }
                Reply::Status(packet::EOF, _) => ended = true,
                Reply::Status(packet::NO_SUCH_FILE, _) if listing.count == 0 => (ended, absent) = (true, true),
                other => return Err(errors::refused(call, "list", &path, other)),
            }
        }
    }

    /// Asks for the attributes of objects that a listing showed without them.
    fn look_at_each(&self, call: &mut Call<'_>, folder: &str, listing: &mut Listing) -> Result<(), Fault> {
        let names = std::mem::take(&mut listing.without_attrs);
        let mut next = 0;
        while next < names.len() || call.due() > 0 {
            while next < names.len() && call.due() < LSTATS {
                let path = self.path(&names[next].path());
                let tag = u32::try_from(next).unwrap_or(u32::MAX);
                call.send(tag, Request::new(packet::LSTAT).string(path.as_bytes()), SMALL)?;
                next += 1;
            }
            let (tag, answer) = call.receive()?;
            match call.decode(&answer)? {
                Reply::Attrs(attrs) if attrs.may_be_file() => listing.entries.push(entry(names[tag as usize], &attrs)),
                Reply::Attrs(_) => listing.foreign += 1,
                Reply::Status(packet::NO_SUCH_FILE, _) => {} // removed meanwhile
                other => return Err(errors::refused(call, "list", folder, other)),
            }
        }
        Ok(())
    }

    /// Makes the root with its parents, and all folders below it; parents first, each level in one burst.
    pub fn create_folders(&self, ctx: &Context) -> Result<(), Fault> {
        let root = self.path("");
        if self.look(ctx, &root, true)?.is_none() {
            let mut missing = Vec::new();
            let mut rest = root.as_str();
            while let Some((parent, _)) = rest.rsplit_once('/')
                && !parent.is_empty()
                && self.look(ctx, parent, true)?.is_none()
            {
                missing.push(parent.to_string());
                rest = parent;
            }
            for parent in missing.into_iter().rev() {
                self.create_level(ctx, &[parent])?;
            }
        }
        self.create_level(ctx, &[root])?;
        for shards in [false, true] {
            let level = Folder::all().filter(|folder| matches!(folder, Folder::PackShard(_)) == shards);
            let paths: Vec<String> = level.map(|folder| self.path(&folder.path())).collect();
            self.create_level(ctx, &paths)?;
        }
        Ok(())
    }

    /// Makes the missing folders that lead to an object's.
    pub fn create_folder_of(&self, ctx: &Context, name: &Name) -> Result<(), Fault> {
        for folder in name.folder().chain() {
            self.create_level(ctx, &[self.path(&folder.path())])?;
        }
        Ok(())
    }

    /// Makes folders that have the same depth. Those that exist are left as they are.
    fn create_level(&self, ctx: &Context, paths: &[String]) -> Result<(), Fault> {
        let mut call = self.session.call(ctx);
        for (tag, path) in (0..).zip(paths) {
            call.send(tag, Request::new(packet::MKDIR).string(path.as_bytes()).mode(0o700), SMALL)?;
        }
        let mut refusals = Vec::new();
        while call.due() > 0 {
            let (tag, answer) = call.receive()?;
            match call.decode(&answer)? {
                Reply::Status(packet::OK, _) => {}
                Reply::Status(code, text) => refusals.push((&paths[tag as usize], Refusal { code, text })),
                _ => return Err(call.nonsense("a wrong answer to MKDIR")),
            }
        }
        drop(call);
        for (path, refusal) in refusals {
            match self.look(ctx, path, true) {
                Ok(Some(attrs)) if attrs.may_be_folder() => {}
                Ok(Some(_)) => return Err(errors::unusable(&format!("{path} on the server is not a folder"))),
                Ok(None) => return Err(self.why_refused(ctx, "make the folder", path, 0, refusal)),
                Err(Fault::Lost(why)) => return Err(Fault::Lost(why)),
                Err(Fault::Final(_) | Fault::Busy(..)) => {
                    return Err(Fault::Final(refusal.error("make the folder", path)));
                }
            }
        }
        Ok(())
    }

    /// Removes an object; one that is not there is removed already.
    pub fn remove(&self, ctx: &Context, name: &Name) -> Result<(), Fault> {
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
            Reply::Status(code, text) => {
                drop(call);
                Err(self.why_refused(ctx, "remove", &path, 0, Refusal { code, text }))
            }
            _ => Err(call.nonsense("a wrong answer to REMOVE")),
        }
    }
}

fn entry(name: Name, attrs: &Attrs) -> Entry {
    Entry { name, size: attrs.size.unwrap_or(0), mtime: attrs.mtime.map_or(0, i64::from) }
}
