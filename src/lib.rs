//! Encrypted backups on a server that is not trusted.
//!
//! Reading order: [`name`] and [`error`], then the core ([`crypto`], [`format`]), which is pure and small, then
//! [`storage`], then what joins them ([`repo`]), then the operations.

#![forbid(unsafe_code)]

pub mod acl;
pub mod check;
pub mod cli;
pub mod crypto;
pub mod error;
pub mod format;
pub mod import;
pub mod mount;
pub mod name;
pub mod pattern;
pub mod printable;
pub mod progress;
pub mod push;
pub mod repo;
pub mod restore;
pub mod seen;
pub mod storage;
pub mod time;
pub mod vfs;
