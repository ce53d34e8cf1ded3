//! The requests of a repository to its bucket, each tried once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::body::Call;
use super::errors::{self, fault};
use super::http::ANSWER;
use super::runtime::Engine;
use super::signed::{Ask, Signed};
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::name::{Folder, Name};
use crate::progress::Event;
use crate::storage::net::{Connection, Fault};
use crate::storage::{Entry, is_own_folder, taken};

/// Whether the store refuses to create what exists.
#[derive(Default)]
pub struct Exclusive(AtomicU8);

impl Exclusive {
    const YES: u8 = 1;
    const NO: u8 = 2;

    /// Notes whether puts are exclusive: a refusal shows that they are, a replaced object that they are not.
    pub fn set(&self, is_exclusive: bool) {
        self.0.store(if is_exclusive { Self::YES } else { Self::NO }, Ordering::Relaxed);
    }

    /// Returns whether puts are exclusive; `None` if no answer has shown it yet.
    pub fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::YES => Some(true),
            Self::NO => Some(false),
            _ => None,
        }
    }
}

/// A bucket and the folder of the repository in it.
pub struct Client {
    pub store: AmazonS3,
    pub signed: Signed,
    pub prefix: String,
    pub engine: Arc<Engine>,
    pub exclusive: Arc<Exclusive>,
}

impl Connection for Client {
    fn lost(&self) -> Option<String> {
        None
    }
}

/// One page of a listing.
pub struct Page {
    pub entries: Vec<Entry>,
    /// Names that are not ours.
    pub foreign: usize,
    /// The beginning of the next page.
    pub next: Option<String>,
}

impl Client {
    /// Returns the key of a path in the repository.
    pub fn key(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) }
    }

    /// Returns the key of an object, for the crate.
    pub fn path(&self, name: &Name) -> Result<Path, Fault> {
        Path::parse(self.key(&name.path())).map_err(|e| Fault::Final(Error::failed(format!("{name}: {e}"))))
    }

    /// Lists one page of a folder.
    pub fn page(&self, ctx: &Context, folder: Folder, after: Option<String>) -> Result<Page, Fault> {
        let mut start = self.key(&folder.path());
        if !start.is_empty() && !start.ends_with('/') {
            start.push('/');
        }
        let options =
            PaginatedListOptions { delimiter: Some("/".into()), page_token: after, ..PaginatedListOptions::default() };
        let prefix = (!start.is_empty()).then_some(&*start);
        let listed = self.engine.wait(ctx, || {}, self.store.list_paginated(prefix, options))?;
        let listed = listed.map_err(|e| fault(&e, "list", if start.is_empty() { "the bucket" } else { &start }))?;
        let mut page = Page { entries: Vec::new(), foreign: 0, next: listed.page_token };
        for object in listed.result.objects {
            // A console makes an empty object for a folder; its name ends here.
            let Some(file) = object.location.as_ref().strip_prefix(&*start) else { continue };
            match folder.parse(file) {
                Some(name) => {
                    page.entries.push(Entry { name, size: object.size, mtime: object.last_modified.timestamp() });
                }
                None => page.foreign += 1,
            }
        }
        let folders = listed.result.common_prefixes.iter().map(AsRef::as_ref);
        page.foreign +=
            folders.filter_map(|path| path.strip_prefix(&*start)).filter(|n| !is_own_folder(folder, n)).count();
        Ok(page)
    }

    /// Returns the size and the ETag of an object.
    fn look(&self, ctx: &Context, name: &Name) -> Result<(u64, Option<String>), Fault> {
        let path = self.path(name)?;
        let options = GetOptions { head: true, ..GetOptions::default() };
        let head = self.engine.wait(ctx, || {}, self.store.get_opts(&path, options))?;
        let meta = head.map_err(|e| fault(&e, "look at", &name.path()))?.meta;
        Ok((meta.size, meta.e_tag))
    }

    /// Returns the size of an object.
    pub fn size(&self, ctx: &Context, name: &Name) -> Result<u64, Fault> {
        self.look(ctx, name).map(|(size, _)| size)
    }

    /// Reads a range, which is not empty.
    pub fn read(&self, ctx: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
        let path = self.path(name)?;
        let mut options =
            GetOptions { range: Some(GetRange::Bounded(offset..offset + len as u64)), ..GetOptions::default() };
        options.extensions.insert(Arc::new(Call::new(len)));
        let read = async {
            let answer = self.store.get_opts(&path, options).await?;
            let claimed = answer.range.end - answer.range.start;
            Ok((claimed, answer.bytes().await?))
        };
        let (claimed, bytes) = self.engine.wait(ctx, || {}, read)?.map_err(|e| fault(&e, "read", &name.path()))?;
        match (claimed.cmp(&(len as u64)), bytes.len() == len) {
            (std::cmp::Ordering::Equal, true) => Ok(bytes.into()),
            (std::cmp::Ordering::Less, _) => Err(Fault::Final(Error::damaged(format!("object {name} ends too early")))),
            _ => Err(Fault::Lost(format!("{} bytes of {name} came instead of {len}", bytes.len()))),
        }
    }

    /// Sends a request that the crate does not offer. `doing` and `what` name it in errors. `None` if the store refuses it, or
    /// does not know it.
    pub fn ask(&self, ctx: &Context, ask: Ask, doing: &str, what: &str) -> Result<Option<Bytes>, Fault> {
        match self.engine.wait(ctx, || {}, self.signed.send(&self.store, ask))? {
            Ok(answer) => Ok(Some(answer)),
            Err(problem) => match problem.fault(doing, what) {
                Fault::Final(e) if matches!(e.kind(), Kind::Failed | Kind::Missing) => Ok(None),
                fault => Err(fault),
            },
        }
    }

    /// Creates an object. `again` means that an earlier try may have created it already.
    pub fn put(&self, ctx: &Context, name: &Name, bytes: &Bytes, again: bool) -> Result<(), Fault> {
        let taken = || Fault::Final(taken(name));
        if self.exclusive.get() == Some(false) {
            return match self.look(ctx, name) {
                Err(Fault::Final(e)) if e.kind() == Kind::Missing => {
                    self.store(ctx, name, bytes, PutMode::Overwrite, "store")
                }
                Err(e) => Err(e),
                Ok(_) if again && self.holds(ctx, name, bytes)? => Ok(()),
                Ok(_) => Err(taken()),
            };
        }
        match self.store(ctx, name, bytes, PutMode::Create, "store") {
            Err(Fault::Final(e)) if e.kind() == Kind::Exists => {
                self.exclusive.set(true);
                if again && self.holds(ctx, name, bytes)? { Ok(()) } else { Err(taken()) }
            }
            // It does not know conditions.
            Err(Fault::Final(_)) if self.exclusive.get() == Some(false) => self.put(ctx, name, bytes, again),
            other => other,
        }
    }

    /// Puts an object, and looks at it afterwards where another client may have written at the same moment.
    fn store(&self, ctx: &Context, name: &Name, bytes: &Bytes, mode: PutMode, doing: &str) -> Result<(), Fault> {
        let path = self.path(name)?;
        let is_conditional = mode == PutMode::Create;
        let call = Arc::new(Call::new(ANSWER));
        let mut options = PutOptions { mode, ..PutOptions::default() };
        options.extensions.insert(Arc::clone(&call));
        let mut reported = 0;
        let report = || {
            let sent = call.sent.load(Ordering::Relaxed);
            ctx.event(Event::Sent { bytes: sent - reported });
            reported = sent;
        };
        let put = self.engine.wait(ctx, report, self.store.put_opts(&path, bytes.clone().into(), options));
        let put = put.map_err(Fault::Final).and_then(|put| {
            put.map_err(|e| match errors::refusal(&e) {
                Some(refusal) if is_conditional && refusal.is_taken() => Fault::Final(taken(name)),
                Some(refusal) if is_conditional && refusal.is_not_implemented() => {
                    self.exclusive.set(false);
                    refusal.fault(doing, &name.path())
                }
                _ => fault(&e, doing, &name.path()),
            })
        });
        let stored = put.and_then(|put| self.verify(ctx, name, bytes, put.e_tag));
        if stored.is_err() {
            ctx.event(Event::Unsent { bytes: reported });
        }
        stored
    }

    /// Looks at a new object, unless the store is known to create exclusively.
    fn verify(&self, ctx: &Context, name: &Name, bytes: &Bytes, tag: Option<String>) -> Result<(), Fault> {
        if self.exclusive.get() == Some(true) {
            return Ok(());
        }
        let (size, now) = self.look(ctx, name)?;
        let is_same = tag.is_none() || now.is_none() || tag == now;
        if size == bytes.len() as u64 && is_same {
            return Ok(());
        }
        let text = if is_same {
            format!("{name} has {size} bytes in the object store after {} were written", bytes.len())
        } else {
            format!("{name} was replaced in the object store while it was written")
        };
        Err(Fault::Final(Error::failed(text)))
    }

    /// Returns whether an object has exactly these bytes.
    fn holds(&self, ctx: &Context, name: &Name, bytes: &Bytes) -> Result<bool, Fault> {
        if self.size(ctx, name)? != bytes.len() as u64 {
            return Ok(false);
        }
        Ok(bytes.is_empty() || self.read(ctx, name, 0, bytes.len())? == *bytes)
    }

    /// Tries to replace an object, without the condition that it does not exist.
    pub fn replace(&self, ctx: &Context, name: &Name, bytes: &Bytes) -> Result<(), Fault> {
        let path = self.path(name)?;
        let put = self.engine.wait(ctx, || {}, self.store.put(&path, bytes.clone().into()))?;
        put.map(drop).map_err(|e| fault(&e, "replace", &name.path()))
    }

    /// Removes an object.
    pub fn remove(&self, ctx: &Context, name: &Name) -> Result<(), Fault> {
        let path = self.path(name)?;
        let removed = self.engine.wait(ctx, || {}, self.store.delete(&path))?;
        match removed.map_err(|e| fault(&e, "remove", &name.path())) {
            Err(Fault::Final(e)) if e.kind() == Kind::Missing => Ok(()),
            other => other,
        }
    }
}
