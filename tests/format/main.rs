//! The format and the index over it: pure, without a repository on a server.

mod format;
mod format_memory;
mod index;
