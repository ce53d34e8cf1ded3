//! A repository in a bucket of an S3-compatible object store, by the crate object_store over connections of our own.
//!
//! From the wire upwards: [`connect`] (TCP, TLS, a [`proxy`]), [`http`] (requests, answers, limits), [`client`] (operations, each tried
//! once), [`dial`] (credentials, region). Asynchronous code runs in [`runtime`] alone. An object is put by one request, which
//! the store obeys wholly or not at all, so there are no torsos.

mod batch;
mod body;
mod client;
mod connect;
mod crypto;
mod dial;
mod errors;
mod http;
mod keys;
mod process;
mod profile;
mod proxy;
mod runtime;
mod signed;
mod versions;
mod xml;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use body::Traffic;
use bytes::Bytes;
use client::{Client, Exclusive};
use dial::Dialer;
use http::Limits;
use runtime::Engine;
use versions::Versions;

use super::bucket::Bucket;
use super::net::expected::Expected;
use super::net::gate::Gate;
use super::net::retry::Reconnecting;
use super::{Attack, Capabilities, Entry, Kept, MAX_ENTRIES, Options, Storage, Version};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name};

/// A listing with more pages without names is refused.
const EMPTY_PAGES: usize = 1000;

/// A repository in a bucket.
pub struct S3 {
    connections: Reconnecting<Client>,
    traffic: Arc<Traffic>,
    exclusive: Arc<Exclusive>,
    address: String,
    puts: Gate,
    expected: Expected,
    /// The store cannot remove many objects by one request.
    removes_singly: AtomicBool,
    /// A listing showed versions.
    is_versioned: AtomicBool,
}

impl S3 {
    /// Opens a bucket: finds the credentials and connects.
    pub fn open(ctx: &Context, bucket: &Bucket, options: Options) -> Result<Self> {
        let (upload, download) = options.paces();
        let traffic = Arc::new(Traffic { upload, download, ..Traffic::default() });
        let exclusive = Arc::new(Exclusive::default());
        let dialer = Dialer {
            bucket: bucket.clone(),
            options: options.s3.clone(),
            limits: Limits { connect: options.ssh.connect_timeout, stalled: options.ssh.io_timeout },
            traffic: Arc::clone(&traffic),
            engine: Arc::new(Engine::start()?),
            exclusive: Arc::clone(&exclusive),
            ctx: ctx.detached(),
            last: Mutex::default(),
        };
        Ok(S3 {
            connections: Reconnecting::new(ctx, Box::new(dialer), options.retry())?,
            traffic,
            exclusive,
            address: bucket.to_string(),
            puts: Gate::new(options.limit_upload),
            expected: Expected::default(),
            removes_singly: AtomicBool::new(false),
            is_versioned: AtomicBool::new(false),
        })
    }

    /// Asks again for `config`, which has just been made, to see whether the store refuses that. The bytes are the same, so a store
    /// that does not refuse loses nothing.
    fn probe(&self, ctx: &Context, bytes: &Bytes) -> Result<()> {
        let silent = ctx.detached();
        let second = self.connections.run(ctx, |client, _| client.put(&silent, &Name::Config, bytes, false));
        match second {
            Err(e) if e.kind() == Kind::Exists => Ok(()),
            Ok(()) => {
                self.exclusive.set(false);
                ctx.warn("the object store does not refuse to replace an object (it ignores If-None-Match)");
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}

/// Lists a folder page by page, and counts foreign objects.
fn scan(connections: &Reconnecting<Client>, ctx: &Context, folder: Folder) -> Result<(Vec<Entry>, usize)> {
    let (mut entries, mut foreign, mut empty, mut after) = (Vec::new(), 0, 0, None);
    loop {
        let page = connections.run(ctx, |client, _| client.page(ctx, folder, after.clone()))?;
        let is_stuck = page.next.is_some() && page.next == after;
        empty += usize::from(page.entries.is_empty() && page.foreign == 0);
        entries.extend(page.entries);
        foreign += page.foreign;
        if is_stuck || entries.len() + foreign > MAX_ENTRIES || empty > EMPTY_PAGES {
            let text = format!("{folder:?} holds more than {MAX_ENTRIES} names, or its listing does not end");
            return Err(Error::failed(text));
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok((entries, foreign)),
        }
    }
}

impl Storage for S3 {
    /// A bucket has no folders; this only shows that it is there.
    fn create_folders(&self, ctx: &Context) -> Result<()> {
        self.connections.run(ctx, |client, _| client.page(ctx, Folder::Root, None)).map(drop)
    }

    fn expect(&self, ctx: &Context, folder: Folder) {
        let connections = self.connections.clone();
        let ctx = ctx.detached();
        self.expected.begin(folder, move || scan(&connections, &ctx, folder).map(|(entries, _)| entries));
    }

    fn list(&self, ctx: &Context, folder: Folder) -> Result<Vec<Entry>> {
        let list = || scan(&self.connections, ctx, folder).map(|(entries, _)| entries);
        self.expected.take(folder).map_or_else(list, Ok)
    }

    fn foreign(&self, ctx: &Context, folder: Folder) -> Result<usize> {
        scan(&self.connections, ctx, folder).map(|(_, foreign)| foreign)
    }

    fn size(&self, ctx: &Context, name: &Name) -> Result<u64> {
        self.connections.run(ctx, |client, _| client.size(ctx, name))
    }

    fn read(&self, ctx: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        if len > 0 && offset.checked_add(len as u64).is_some() {
            return self.connections.run(ctx, |client, _| client.read(ctx, name, offset, len));
        }
        let size = self.size(ctx, name)?;
        match len == 0 && offset <= size {
            true => Ok(Vec::new()),
            false => Err(Error::damaged(format!("object {name} ends too early"))),
        }
    }

    fn put(&self, ctx: &Context, name: &Name, bytes: &[u8]) -> Result<()> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.connections
            .run(ctx, |client, again| self.puts.run(ctx, bytes.len(), || client.put(ctx, name, &bytes, again)))?;
        if *name == Name::Config && self.exclusive.get().is_none() { self.probe(ctx, &bytes) } else { Ok(()) }
    }

    fn remove(&self, ctx: &Context, name: &Name) -> Result<()> {
        self.connections.run(ctx, |client, _| client.remove(ctx, name))
    }

    fn removed_at_once(&self) -> usize {
        if self.removes_singly.load(Ordering::Relaxed) { super::REMOVED_AT_ONCE } else { batch::MOST }
    }

    fn remove_all(&self, ctx: &Context, names: &[Name]) -> Result<Vec<(Name, Error)>> {
        let mut refused = Vec::new();
        for names in names.chunks(batch::MOST) {
            let removed = if self.removes_singly.load(Ordering::Relaxed) {
                None
            } else {
                self.connections.run(ctx, |client, _| client.remove_batch(ctx, names))?
            };
            let open = match removed {
                Some(removed) => {
                    refused.extend(removed.refused);
                    removed.open
                }
                None => {
                    self.removes_singly.store(true, Ordering::Relaxed);
                    names.to_vec()
                }
            };
            refused.extend(super::remove_singly(self, ctx, &open)?);
        }
        Ok(refused)
    }

    fn kept(&self, ctx: &Context, folder: Folder) -> Result<Vec<Kept>> {
        let mut versions = Versions::default();
        loop {
            self.connections.run(ctx, |client, _| client.versions(ctx, folder, &mut versions))?;
            if versions.is_complete() {
                self.is_versioned.fetch_or(versions.is_versioned, Ordering::Relaxed);
                return Ok(versions.kept());
            }
        }
    }

    fn keeps_versions(&self) -> bool {
        self.is_versioned.load(Ordering::Relaxed)
    }

    fn version(&self, ctx: &Context, name: &Name, version: &Version) -> Result<Vec<u8>> {
        self.connections.run(ctx, |client, _| client.version(ctx, name, version))
    }

    fn unhide(&self, ctx: &Context, kept: &Kept) -> Result<bool> {
        self.connections.run(ctx, |client, _| client.unhide(ctx, kept))
    }

    fn put_back(&self, ctx: &Context, kept: &Kept, bytes: &[u8]) -> Result<()> {
        if !kept.is_hidden {
            let sealed = Bytes::copy_from_slice(bytes);
            match self.connections.run(ctx, |client, _| client.replace(ctx, &kept.name, &sealed)) {
                // The policy of the bucket refuses to replace objects. A delete marker makes the name free.
                Err(e) if e.kind() == Kind::Failed => self.remove(ctx, &kept.name)?,
                done => return done,
            }
        }
        match self.put(ctx, &kept.name, bytes) {
            Err(e) if e.kind() == Kind::Exists => Ok(()),
            put => put,
        }
    }

    /// A store knows no second names.
    fn attack(&self, ctx: &Context, name: &Name, attack: Attack) -> Result<()> {
        if attack != Attack::Overwrite {
            return Ok(());
        }
        let other = Bytes::from_static(b"x");
        match self.connections.run(ctx, |client, _| client.replace(ctx, name, &other)) {
            Err(e) if e.kind() == Kind::Connection => Err(e),
            _ => Ok(()),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable_put: true, exclusive_create: self.exclusive.get() == Some(true) }
    }

    fn traffic(&self) -> (u64, u64) {
        (self.traffic.sent.load(Ordering::Relaxed), self.traffic.received.load(Ordering::Relaxed))
    }

    fn connections(&self) -> u64 {
        self.connections.made()
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
