//! Encrypted backups on an untrusted server.
//!
//! Reading order: [`name`], [`time`], [`error`] and [`context`]; the core ([`crypto`], [`format`]), which is small and has no I/O;
//! [`storage`]; [`repo`], which joins core and storage; [`trees`], which has the rules of saved trees; then the operations
//! ([`push`], [`restore`], [`check`], [`diff`], [`dump`], [`find`], [`stats`], [`forget`], [`rewrite`],
//! [`prune`], [`doctor`]) and the mount ([`vfs`], [`mount`]). `docs/glossary.md` defines the terms.

#![forbid(unsafe_code)]

pub mod accounts;
pub mod acl;
pub mod allowance;
pub mod check;
pub mod cli;
pub mod context;
pub mod crypto;
pub mod descriptors;
pub mod diff;
pub mod doctor;
pub mod dump;
pub mod error;
pub mod find;
pub mod forget;
pub mod format;
pub mod holes;
pub mod import;
pub mod inode_flags;
pub mod moment;
pub mod mount;
pub mod mounts;
pub mod name;
pub mod pattern;
pub mod printable;
pub mod progress;
pub mod prune;
pub mod push;
pub mod repo;
pub mod restore;
pub mod rewrite;
pub mod seen;
#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
pub mod stats;
pub mod storage;
pub mod time;
pub mod trees;
pub mod vfs;
pub mod window;
pub mod xattr;
