//! Restore (skeleton).
#![allow(missing_docs)]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::record::Snapshot;
use crate::progress::Progress;
use crate::repo::Repository;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    #[default]
    Never,
    IfChanged,
    Always,
}
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub overwrite: Overwrite,
    pub numeric_ids: bool,
    pub stop: Arc<AtomicI32>,
    pub threads: usize,
}
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub files: u64,
    pub bytes: u64,
    pub directories: u64,
    pub links: u64,
    pub others: u64,
    pub existing: u64,
    pub damaged: u64,
    pub failed: u64,
    pub unreadable: u64,
    pub left_out: u64,
    pub attributes: u64,
    pub received: u64,
    pub duration: Duration,
}
pub fn restore(_: &Repository, _: &Snapshot, _: &[u8], _: &Path, _: &Options, _: &dyn Progress) -> Result<Summary> {
    Err(Error::failed("not yet"))
}
