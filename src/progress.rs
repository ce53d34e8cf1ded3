//! Events that operations report while they run. The library reports, the binary prints.

use crate::error::Error;

/// An event of an operation. Paths are raw bytes of the file system; escape them before printing.
#[derive(Debug)]
pub enum Event<'a> {
    /// An estimate of the total work; later estimates replace earlier ones.
    Total {
        /// Regular files.
        files: u64,
        /// Bytes of these files.
        bytes: u64,
        /// Whether the total is final.
        complete: bool,
    },
    /// The operation begins with this step. Amounts of the step before do not count any more.
    Step {
        /// The work of the step: `reading trees`.
        name: &'static str,
        /// The objects that [`Event::Done`] counts as files: `page`.
        unit: &'static str,
    },
    /// The operation begins with this file. Only for display.
    File {
        /// The path.
        path: &'a [u8],
    },
    /// This file needs no work: its contents are the same. Only for display.
    Same {
        /// The path.
        path: &'a [u8],
        /// Whether it had another path before.
        renamed: bool,
    },
    /// Additional work is done: files, and bytes read or written for them.
    Done {
        /// Regular files.
        files: u64,
        /// Bytes.
        bytes: u64,
    },
    /// Files, and bytes of files, that needed no work: they count for the total and not for the rate.
    Unchanged {
        /// Regular files.
        files: u64,
        /// Bytes.
        bytes: u64,
    },
    /// New contents are ready to be sent.
    ToSend {
        /// Bytes in the stored form.
        bytes: u64,
    },
    /// The storage has acknowledged bytes of an object.
    Sent {
        /// Bytes.
        bytes: u64,
    },
    /// Bytes that were reported as sent belong to an incomplete object and are sent again.
    Unsent {
        /// Bytes.
        bytes: u64,
    },
    /// An entry is changed, or would be in a run that is not dry.
    Changed {
        /// The path. With a trailing slash: a directory.
        path: &'a [u8],
        /// The change.
        change: Change,
        /// Whether it is only reported.
        dry_run: bool,
    },
    /// A file has contents that were there already and need not be fetched.
    Reused {
        /// The path.
        path: &'a [u8],
        /// Bytes that were there.
        bytes: u64,
        /// The size of the file.
        of: u64,
    },
    /// A path was skipped because of an error. The operation continues, and the exit code reports it.
    Skipped {
        /// The path.
        path: &'a [u8],
        /// The error.
        why: &'a Error,
    },
    /// A path was excluded by the selection; for a directory with everything in it.
    Excluded {
        /// The path. With a trailing slash: everything in that directory except the file that marks it.
        path: &'a [u8],
    },
    /// A finding that does not stop the operation.
    Warning {
        /// The warning, one line.
        text: &'a str,
    },
    /// A detail of a warning, for verbose output only.
    Detail {
        /// One line.
        text: &'a str,
    },
}

/// A change of an entry of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is made.
    Write,
    /// It replaces an entry.
    Overwrite,
    /// It is deleted.
    Delete,
}

/// Receives events from any thread.
pub trait Progress: Send + Sync {
    /// Receives one event. Must return soon.
    fn event(&self, event: Event<'_>);
}

/// Discards all events.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}
