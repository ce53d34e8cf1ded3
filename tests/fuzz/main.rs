//! Fuzzing of all decoders of untrusted bytes. This file is the root of two crates: an ordinary test, which runs the
//! corpus, the regressions and some thousand mutations of both, and the library of the cargo-fuzz targets in the
//! `Cargo.toml` beside it (`scripts/fuzz.sh`). Private decoders of the storage and the import are included from their
//! sources.
#![allow(missing_docs)]

// Names that the included sources import as `crate::..`.
#[allow(unused_imports)]
use nfreezer::{context, crypto, error, name, printable, progress};

mod import;
#[allow(dead_code)]
#[path = "../../src/storage/sftp/packet.rs"]
mod packet;
mod ssh;
mod storage;
pub mod targets;

#[cfg(test)]
mod corpus;
