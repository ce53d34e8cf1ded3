//! Stands in for what branch push brings; goes away with its merge.
#![allow(missing_docs, dead_code)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};

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
        pub snapshot: crate::format::record::Snapshot,
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
