//! SFTP version 3 over any byte streams: an own pipelined client, because libssh2's moves one request at a time
//! (`docs/decisions.md`). From the wire upwards: [`packet`], [`link`], [`engine`], [`session`], [`connection`].

mod connection;
mod errors;
mod flow;
mod folders;
mod guess;
pub mod link;
mod packet;
mod parts;
mod session;
pub mod ssh;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use connection::SftpConnection;
pub use packet::printable;
pub use session::{CLOSED, NOT_SFTP, Session, Times, Traffic};

use super::net::expected::Expected;
use super::net::gate::Gate;
use super::net::limit::Limit;
use super::net::retry::Reconnecting;
use super::{Attack, Capabilities, Entry, Extensions, Space, Storage};
use crate::context::Context;
use crate::error::Result;
use crate::name::{Folder, Name};

/// A repository on an SFTP server.
pub struct Sftp {
    connections: Reconnecting<SftpConnection>,
    traffic: Arc<Traffic>,
    address: String,
    syncs: bool,
    puts: Gate,
    expected: Expected,
}

impl Sftp {
    /// Makes a storage on these connections. They count their bytes in `traffic`.
    pub fn new(
        ctx: &Context,
        connections: Reconnecting<SftpConnection>,
        traffic: Arc<Traffic>,
        address: String,
    ) -> Result<Self> {
        let syncs = connections.run(ctx, |connection, _| Ok(connection.session.features().extensions.fsync))?;
        Ok(Sftp { connections, traffic, address, syncs, puts: Gate::new(None), expected: Expected::default() })
    }

    /// Returns the storage with an upload limit.
    pub fn limited(self, rate: Option<Limit>) -> Self {
        Sftp { puts: Gate::new(rate), ..self }
    }
}

fn list(connections: &Reconnecting<SftpConnection>, ctx: &Context, folder: Folder) -> Result<Vec<Entry>> {
    connections.run(ctx, |connection, _| connection.scan(ctx, folder)).map(|(entries, _)| entries)
}

impl Storage for Sftp {
    fn create_folders(&self, ctx: &Context) -> Result<()> {
        self.connections.run(ctx, |connection, _| connection.create_folders(ctx))
    }

    fn expect(&self, ctx: &Context, folder: Folder) {
        let connections = self.connections.clone();
        let ctx = ctx.detached();
        self.expected.begin(folder, move || list(&connections, &ctx, folder));
    }

    fn list(&self, ctx: &Context, folder: Folder) -> Result<Vec<Entry>> {
        self.expected.take(folder).map_or_else(|| list(&self.connections, ctx, folder), Ok)
    }

    fn foreign(&self, ctx: &Context, folder: Folder) -> Result<usize> {
        self.connections.run(ctx, |connection, _| connection.scan(ctx, folder)).map(|(_, foreign)| foreign)
    }

    fn size(&self, ctx: &Context, name: &Name) -> Result<u64> {
        self.connections.run(ctx, |connection, _| connection.size(ctx, name))
    }

    fn read(&self, ctx: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.connections.run(ctx, |connection, _| connection.read(ctx, name, offset, len))
    }

    fn put(&self, ctx: &Context, name: &Name, bytes: &[u8]) -> Result<()> {
        self.connections
            .run(ctx, |connection, again| self.puts.run(ctx, bytes.len(), || connection.put(ctx, name, bytes, again)))
    }

    fn remove(&self, ctx: &Context, name: &Name) -> Result<()> {
        self.connections.run(ctx, |connection, _| connection.remove(ctx, name))
    }

    fn space(&self, ctx: &Context) -> Result<Option<Space>> {
        self.connections.run(ctx, |connection, _| connection.space(ctx))
    }

    fn extensions(&self, ctx: &Context) -> Result<Option<Extensions>> {
        self.connections.run(ctx, |connection, _| Ok(Some(connection.session.features().extensions)))
    }

    fn attack(&self, ctx: &Context, name: &Name, attack: Attack) -> Result<()> {
        self.connections.run(ctx, |connection, _| connection.attack(ctx, name, attack))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable_put: self.syncs, exclusive_create: false }
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
