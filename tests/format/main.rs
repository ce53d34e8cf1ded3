//! The format and the index over it: pure, without a repository on a server.

#[path = "../harness/mod.rs"]
mod harness;

mod format;
mod format_memory;
mod index;
