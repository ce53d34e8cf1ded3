//! Writes the contents of a file, or a directory as an archive, to a stream.
//!
//! In: a node of a snapshot. Out: bytes, in order. Every chunk is verified before a byte of it is written. Where contents
//! cannot be read, the output ends there and the error names the path: an archive then lacks its end.

mod pax;
mod stream;
mod tar;
mod zip;

use std::io::{self, Write};

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::node::Node;
use crate::format::reference::Ref;
use crate::trees::Trees;
use stream::{Holes, Source};

/// The form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// POSIX tar with extended headers: owners, extended attributes, holes, hard links, names of any length.
    Tar,
    /// zip: modes, times in steps of 2 s, symbolic links.
    Zip,
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Regular files, further names included.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Anything else.
    pub others: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Entries that the format cannot hold, or that were not readable when they were saved.
    pub left_out: u64,
}

/// Writes the contents of a regular file; holes as zeros.
///
/// # Errors
///
/// [`Kind::Damaged`] and [`Kind::Missing`] if the contents are damaged. [`Kind::Cancelled`] if the reader has closed `out`.
pub fn file(ctx: &Context, trees: &Trees<'_>, node: Node, out: &mut dyn Write) -> Result<()> {
    stream::run(ctx, trees, Source::File(node), |entries| {
        while let Some(entry) = entries.next()? {
            entries.copy(&entry, Holes::AsZeros, &mut |bytes| written(out.write_all(bytes)))?;
        }
        written(out.flush())
    })
}

/// Writes the entries of a directory, given its top page, and all below them. Entries that are left out are reported to `ctx`.
///
/// # Errors
///
/// As [`file`].
pub fn archive(
    ctx: &Context,
    trees: &Trees<'_>,
    top: Option<Ref>,
    format: Format,
    out: &mut (dyn Write + Send),
) -> Result<Summary> {
    let source = Source::Directory { top, finds_links: format == Format::Tar };
    stream::run(ctx, trees, source, |entries| match format {
        Format::Tar => tar::write(ctx, entries, out),
        Format::Zip => zip::write(ctx, entries, out),
    })
}

/// Converts an error of the output. A closed pipe is no failure of this program.
fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Error::new(Kind::Cancelled, "standard output was closed"),
        _ => Error::io("write to standard output", e),
    })
}
