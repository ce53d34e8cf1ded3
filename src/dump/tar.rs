//! Writes entries as a POSIX tar archive. Files with holes are in the format that GNU tar calls sparse 1.0.

use std::io::Write;

use tar::{EntryType, Header};

use super::pax::Records;
use super::stream::{Entries, Entry, Holes};
use super::{Summary, written};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::node::{Content, PARTIAL};
use crate::printable;
use crate::time::Time;
use crate::trees::{PARTIAL_SUFFIX, lacks_parts};

/// The unit of an archive.
const BLOCK: u64 = 512;
/// The largest size and time of a header field of 12 octal digits.
const LARGEST: u64 = 0o77_777_777_777;
/// The largest id of a header field of 8 octal digits.
const LARGEST_ID: u32 = 0o7_777_777;

/// Writes all entries and the end of the archive.
pub(super) fn write(ctx: &Context, entries: &mut Entries<'_>, out: &mut dyn Write) -> Result<Summary> {
    let mut summary = Summary::default();
    while let Some(mut entry) = entries.next()? {
        let Some(kind) = entry_type(&entry) else {
            let name = printable::name(&entry.path);
            ctx.warn(&format!(
                "{name} is left out: a tar archive cannot hold it, or it was not readable when it was saved"
            ));
            summary.left_out += 1;
            continue;
        };
        if entry.node.flags & PARTIAL != 0 && !lacks_parts(&entry.node) {
            entry.path.extend_from_slice(PARTIAL_SUFFIX);
        }
        member(entries, &entry, kind, out)?;
        match kind {
            EntryType::Directory => summary.directories += 1,
            _ if entry.is_file() => summary.files += 1,
            _ => summary.others += 1,
        }
        summary.bytes += if kind == EntryType::Regular { entry.node.content.size() } else { 0 };
    }
    written(out.write_all(&[0; 2 * BLOCK as usize]).and_then(|()| out.flush()))?;
    Ok(summary)
}

/// Returns the type of an entry; `None` for one that an archive cannot hold.
fn entry_type(entry: &Entry) -> Option<EntryType> {
    if entry.link.is_some() {
        return Some(EntryType::Link);
    }
    match entry.node.content {
        Content::File(_) | Content::Large { .. } => Some(EntryType::Regular),
        Content::Directory(_) => Some(EntryType::Directory),
        Content::Symlink(_) => Some(EntryType::Symlink),
        Content::Block(..) => Some(EntryType::Block),
        Content::Char(..) => Some(EntryType::Char),
        Content::Fifo => Some(EntryType::Fifo),
        Content::Socket | Content::Unreadable(_) => None,
    }
}

/// Writes the headers of an entry, and its contents.
fn member(entries: &mut Entries<'_>, entry: &Entry, kind: EntryType, out: &mut dyn Write) -> Result<()> {
    let (map, size) = match &entry.data {
        Some(parts) => (sparse_map(parts, entry.node.content.size()), parts.iter().map(|(_, len)| len).sum()),
        None if kind == EntryType::Regular => (Vec::new(), entry.node.content.size()),
        None => (Vec::new(), 0),
    };
    let stored = map.len() as u64 + size;
    let mut records = Records::default();
    let xattrs = if kind == EntryType::Link { Vec::new() } else { entries.xattrs(entry)? };
    let header = header(entry, kind, stored, &mut records);
    for (name, value) in xattrs {
        records.add(&[b"SCHILY.xattr.", name.as_slice()].concat(), &value);
    }
    if !records.bytes().is_empty() {
        let len = records.bytes().len() as u64;
        written(out.write_all(extension(len)?.as_bytes()))?;
        written(out.write_all(records.bytes()))?;
        pad(len, out)?;
    }
    written(out.write_all(header.as_bytes()))?;
    written(out.write_all(&map))?;
    entries.copy(entry, Holes::LeftOut, &mut |bytes| written(out.write_all(bytes)))?;
    pad(stored, out)
}

fn pad(len: u64, out: &mut dyn Write) -> Result<()> {
    let rest = (BLOCK - len % BLOCK) % BLOCK;
    written(out.write_all(&[0; BLOCK as usize][..rest as usize]))
}

/// Returns the header of an extended header.
fn extension(len: u64) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    set(&mut header.as_old_mut().name, b"./PaxHeaders/extended");
    header.set_mode(0o644);
    header.set_size(len);
    header.set_cksum();
    if len > LARGEST { Err(Error::failed("an extended header of the archive is too long")) } else { Ok(header) }
}

/// Returns the map of a file with holes: the number of its parts, and the offset and length of each.
fn sparse_map(parts: &[(u64, u64)], size: u64) -> Vec<u8> {
    // A last part without length marks a hole at the end.
    let end = parts.last().map_or(0, |(at, len)| at + len);
    let last = (end < size).then_some((size, 0));
    let mut map = format!("{}\n", parts.len() + usize::from(last.is_some()));
    for (at, len) in parts.iter().copied().chain(last) {
        map.push_str(&format!("{at}\n{len}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
    map
}

/// Returns the header of an entry. Values that do not fit go to the extended header.
fn header(entry: &Entry, kind: EntryType, size: u64, records: &mut Records) -> Header {
    let (node, attrs) = (&entry.node, &entry.node.attrs);
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(attrs.mode.into());
    let slash: &[u8] = if kind == EntryType::Directory { b"/" } else { b"" };
    let path = [&entry.path, slash].concat();
    if entry.data.is_some() {
        records.add(b"GNU.sparse.major", b"1");
        records.add(b"GNU.sparse.minor", b"0");
        records.add(b"GNU.sparse.name", &path);
        records.add(b"GNU.sparse.realsize", node.content.size().to_string().as_bytes());
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(&path);
        text(&mut header.as_old_mut().name, b"path", &[b"GNUSparseFile.0/", name].concat(), records);
    } else {
        text(&mut header.as_old_mut().name, b"path", &path, records);
    }
    let target = match (&entry.link, &node.content) {
        (Some(link), _) => link.as_slice(),
        (None, Content::Symlink(target)) => target.as_slice(),
        _ => b"",
    };
    text(&mut header.as_old_mut().linkname, b"linkpath", target, records);
    if let Some(ustar) = header.as_ustar_mut() {
        text(&mut ustar.uname, b"uname", &attrs.user, records);
        text(&mut ustar.gname, b"gname", &attrs.group, records);
        if let Content::Block(major, minor) | Content::Char(major, minor) = node.content {
            ustar.set_device_major(major);
            ustar.set_device_minor(minor);
        }
    }
    header.set_uid(id(b"uid", attrs.uid, records));
    header.set_gid(id(b"gid", attrs.gid, records));
    if size > LARGEST {
        records.add(b"size", size.to_string().as_bytes());
    }
    header.set_size(size.min(LARGEST));
    header.set_mtime(mtime(node.mtime, records));
    header.set_cksum();
    header
}

/// Sets a text field. A text that does not fit, or is not ASCII, is a record as well.
fn text(field: &mut [u8], key: &[u8], value: &[u8], records: &mut Records) {
    if value.len() > field.len() || !value.is_ascii() {
        records.add(key, value);
    }
    set(field, value);
}

fn set(field: &mut [u8], value: &[u8]) {
    let len = value.len().min(field.len());
    field[..len].copy_from_slice(&value[..len]);
}

fn id(key: &[u8], id: u32, records: &mut Records) -> u64 {
    if id > LARGEST_ID {
        records.add(key, id.to_string().as_bytes());
        return 0;
    }
    id.into()
}

fn mtime(time: Time, records: &mut Records) -> u64 {
    let seconds = u64::try_from(time.seconds).unwrap_or(0).min(LARGEST);
    if time != Time::from_seconds(seconds.cast_signed()) {
        records.add(b"mtime", decimal(time).as_bytes());
    }
    seconds
}

/// Formats a time as a decimal number of seconds. The nanoseconds of a time before 1970 count forwards.
fn decimal(time: Time) -> String {
    let nanoseconds = time.nanoseconds;
    if time.seconds < 0 && nanoseconds > 0 {
        let (seconds, rest) = (time.seconds + 1, 1_000_000_000 - nanoseconds);
        return format!("-{}.{rest:09}", seconds.unsigned_abs());
    }
    format!("{}.{nanoseconds:09}", time.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers() {
        let shown = |seconds, nanoseconds| decimal(Time::new(seconds, nanoseconds));
        assert_eq!(shown(5, 1), "5.000000001");
        assert_eq!(shown(-1, 500_000_000), "-0.500000000");
        assert_eq!(shown(-2, 250_000_000), "-1.750000000");
        assert_eq!(shown(-2, 0), "-2.000000000");
    }

    #[test]
    fn a_map_of_holes_marks_a_hole_at_the_end() {
        let map = sparse_map(&[(0, 10), (4096, 5)], 10_000);
        assert_eq!(map.len(), 512);
        assert!(map.starts_with(b"3\n0\n10\n4096\n5\n10000\n0\n\0"));
        assert!(sparse_map(&[(7, 3)], 10).starts_with(b"1\n7\n3\n\0"));
        assert!(sparse_map(&[], 10).starts_with(b"1\n10\n0\n\0"));
    }
}
