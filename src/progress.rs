//! What the operations report while they run. The library reports, the binary speaks.

use crate::error::Error;

/// Something that happened. Paths are bytes as the file system has them: whoever prints them escapes them.
#[derive(Debug)]
pub enum Event<'a> {
    /// The sum of what there is to do is known, or known better: files and bytes.
    Total {
        /// Regular files.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Nothing will be added to it: what is left can be told.
        complete: bool,
    },
    /// Work begins on this file; only for display.
    File {
        /// Its path.
        path: &'a [u8],
    },
    /// So much more is done: files, and bytes read or written for them.
    Done {
        /// Regular files.
        files: u64,
        /// Bytes.
        bytes: u64,
    },
    /// Something could not be done; the work goes on without it, and the exit code will tell.
    Skipped {
        /// Its path.
        path: &'a [u8],
        /// Why.
        why: &'a Error,
    },
    /// Something is left out because the user wants it so; a folder with all that is in it.
    Excluded {
        /// Its path; with a slash at its end: all that is in that folder but what marks it.
        path: &'a [u8],
    },
    /// Something that the user should know, and that changes nothing.
    Warning {
        /// One line.
        text: &'a str,
    },
}

/// Takes events, from any thread.
pub trait Progress: Send + Sync {
    /// Must return soon.
    fn event(&self, event: Event<'_>);
}

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}
