//! What tests share: trees, bad days, real servers, a slow line, a hermetic environment.
#![allow(dead_code, missing_docs)]

pub mod cli;
pub mod faults;
pub mod hook;
pub mod proxy;
pub mod sshd;
pub mod tree;
pub mod v0;
