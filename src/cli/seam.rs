//! Stands in for what branches storage and push bring; goes away with their merge.
#![allow(missing_docs)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::storage::Storage;

pub enum Location {
    Local(PathBuf),
    Sftp(()),
}
impl Location {
    pub fn parse(text: &str) -> Result<Self> {
        Ok(if text.contains(':') { Location::Sftp(()) } else { Location::Local(text.into()) })
    }
}
pub trait Prompt: Send + Sync {
    fn secret(&self, text: &str) -> Result<String>;
}
pub enum Transport {
    Auto,
    Ssh2,
    OpenSsh,
}
pub struct Options {
    pub transport: Transport,
    pub connections: Option<usize>,
    pub identity: Vec<PathBuf>,
    pub port: Option<u16>,
    pub accept_new_host_key: bool,
    pub retry_for: Duration,
    pub ssh_command: Option<String>,
    pub prompt: Arc<dyn Prompt>,
}
struct No;
impl Prompt for No {
    fn secret(&self, _: &str) -> Result<String> {
        Err(Error::failed("no prompt"))
    }
}
impl Default for Options {
    fn default() -> Self {
        Options {
            transport: Transport::Auto,
            connections: None,
            identity: Vec::new(),
            port: None,
            accept_new_host_key: false,
            retry_for: Duration::ZERO,
            ssh_command: None,
            prompt: Arc::new(No),
        }
    }
}
pub fn open(_: &Location, _: Options) -> Result<Box<dyn Storage>> {
    Err(Error::failed("no storage yet"))
}

pub mod push {
    use super::*;
    use std::sync::atomic::AtomicI32;
    #[derive(Default)]
    pub struct PushOptions {
        pub sources: Vec<PathBuf>,
        pub host: String,
        pub user: String,
        pub tags: Vec<String>,
        pub description: String,
        pub time: Option<(i64, u32)>,
        pub compression: i32,
        pub stop: Arc<AtomicI32>,
        pub exclude_dev_ino: Vec<(u64, u64)>,
    }
    pub use PushOptions as Options;
    pub struct Summary {
        pub snapshot: [u8; 16],
        pub new: u64,
        pub changed: u64,
        pub unchanged: u64,
        pub renamed: u64,
        pub read: u64,
        pub added: u64,
        pub stored: u64,
        pub sent: u64,
        pub received: u64,
        pub skipped: u64,
        pub packs: u64,
        pub duration: Duration,
    }
    pub fn push(_: &crate::repo::Repository, _: &Options, _: &dyn crate::progress::Progress) -> Result<Summary> {
        Err(Error::failed("no push yet"))
    }
}
