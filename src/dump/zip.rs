//! Writes entries as a zip archive. Files that the repository compresses are compressed; for others the time would be lost.
//! Owners, extended attributes and holes are not kept, and further names of a file are files of their own.

use std::io::Write;

use jiff::tz::TimeZone;
use zip::write::{SimpleFileOptions, StreamWriter, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::stream::{Entries, Entry, Holes};
use super::{Summary, written};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::node::Content;
use crate::printable;
use crate::time::Time;

/// From this size on, an entry needs the fields of zip64.
const LARGE: u64 = 0xffff_0000;

/// Writes all entries and the directory at the end of the archive.
pub(super) fn write(ctx: &Context, entries: &mut Entries<'_>, out: &mut (dyn Write + Send)) -> Result<Summary> {
    let mut zip = ZipWriter::new_stream(&mut *out);
    match all(ctx, entries, &mut zip) {
        Ok(summary) => {
            zip.finish().map_err(failed)?;
            written(out.flush()).map(|()| summary)
        }
        Err(e) => {
            // Dropped, it would write the end of the archive, which would look complete.
            std::mem::forget(zip);
            Err(e)
        }
    }
}

fn all<W: Write>(ctx: &Context, entries: &mut Entries<'_>, zip: &mut ZipWriter<StreamWriter<W>>) -> Result<Summary> {
    let mut summary = Summary::default();
    while let Some(entry) = entries.next()? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let options = options(&entry);
        match &entry.node.content {
            Content::Directory(_) => {
                zip.add_directory(name, options).map_err(failed)?;
                summary.directories += 1;
            }
            Content::Symlink(target) => {
                zip.add_symlink(name, String::from_utf8_lossy(target), options).map_err(failed)?;
                summary.others += 1;
            }
            Content::File(_) | Content::Large { .. } => {
                zip.start_file(name, options.compression_method(method(entries, &entry))).map_err(failed)?;
                entries.copy(&entry, Holes::AsZeros, &mut |bytes| written(zip.write_all(bytes)))?;
                summary.files += 1;
                summary.bytes += entry.node.content.size();
            }
            _ => {
                let name = printable::name(&entry.path);
                ctx.warn(&format!(
                    "{name} is left out: a zip archive cannot hold it, or it was not readable when it was saved"
                ));
                summary.left_out += 1;
            }
        }
    }
    Ok(summary)
}

fn method(entries: &Entries<'_>, entry: &Entry) -> CompressionMethod {
    if entries.is_compressible(entry) { CompressionMethod::Deflated } else { CompressionMethod::Stored }
}

fn options(entry: &Entry) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(entry.node.content.size() >= LARGE)
        .unix_permissions(entry.node.attrs.mode.into())
        .last_modified_time(mtime(entry.node.mtime).unwrap_or_default())
}

/// Returns a time as zip stores it: in local time, from 1980 to 2107.
fn mtime(time: Time) -> Option<DateTime> {
    let local = time.timestamp()?.to_zoned(TimeZone::system());
    let field = |value: i8| u8::try_from(value).ok();
    let year = u16::try_from(local.year()).ok()?;
    let (month, day) = (field(local.month())?, field(local.day())?);
    DateTime::from_date_and_time(year, month, day, field(local.hour())?, field(local.minute())?, field(local.second())?)
        .ok()
}

fn failed(e: zip::result::ZipError) -> Error {
    match e {
        zip::result::ZipError::Io(e) => match written(Err(e)) {
            Err(e) => e,
            Ok(()) => Error::failed("the archive cannot be written"),
        },
        other => Error::failed(format!("the archive cannot be written: {other}")),
    }
}
