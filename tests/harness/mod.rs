//! What tests share: real servers, a slow line, a hermetic environment.
#![allow(dead_code, missing_docs)]

pub mod cli;
pub mod proxy;
pub mod sshd;
