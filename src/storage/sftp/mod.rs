//! SFTP version 3 over any byte streams: an own pipelined client, because libssh2's moves one request at a time
//! (`docs/decisions.md`). From the wire upwards: [`packet`], [`link`], [`engine`], [`session`], [`connection`].

mod call;
mod connection;
mod engine;
mod errors;
mod folders;
pub mod link;
mod packet;
mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use connection::Connection;
pub use packet::printable;
pub use session::{Fault, Session, Traffic};

use super::halt::Stop;
use super::retry::Reconnecting;
use super::{Entry, Storage};
use crate::error::Result;
use crate::name::{Folder, Name};

/// A repository on an SFTP server.
pub struct Sftp {
    connections: Reconnecting,
    traffic: Arc<Traffic>,
    address: String,
    syncs: bool,
}

impl Sftp {
    /// A storage on connections that exist already or are made anew. `traffic` is what they count on.
    pub fn new(connections: Reconnecting, traffic: Arc<Traffic>, address: String) -> Result<Self> {
        let syncs = connections.run(|connection, _| Ok(connection.session.features.fsync))?;
        Ok(Sftp { connections, traffic, address, syncs })
    }
}

impl Storage for Sftp {
    fn create_folders(&self) -> Result<()> {
        self.connections.run(|connection, _| connection.create_folders())
    }

    fn list(&self, folder: Folder) -> Result<Vec<Entry>> {
        self.connections.run(|connection, _| connection.scan(folder)).map(|(entries, _)| entries)
    }

    fn foreign(&self, folder: Folder) -> Result<usize> {
        self.connections.run(|connection, _| connection.scan(folder)).map(|(_, foreign)| foreign)
    }

    fn size(&self, name: &Name) -> Result<u64> {
        self.connections.run(|connection, _| connection.size(name))
    }

    fn read(&self, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.connections.run(|connection, _| connection.read(name, offset, len))
    }

    fn put(&self, name: &Name, bytes: &[u8]) -> Result<()> {
        self.put_unless(name, bytes, &|| false)
    }

    fn put_unless(&self, name: &Name, bytes: &[u8], stop: Stop<'_>) -> Result<()> {
        self.connections.run_unless(stop, |connection, again| connection.put(name, bytes, again, stop))
    }

    fn remove(&self, name: &Name) -> Result<()> {
        self.connections.run(|connection, _| connection.remove(name))
    }

    fn syncs(&self) -> bool {
        self.syncs
    }

    fn traffic(&self) -> (u64, u64) {
        (self.traffic.sent.load(Ordering::Relaxed), self.traffic.received.load(Ordering::Relaxed))
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
