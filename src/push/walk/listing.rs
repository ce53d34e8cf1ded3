//! The names in one directory, ascending by bytes, in one stretch of memory.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use crate::context::Context;
use crate::error::Result;
use crate::format::node::valid_name;
use crate::push::read::attributes::{self, error};
use crate::push::read::dir::Dir;

#[derive(Default)]
pub struct Listing {
    bytes: Vec<u8>,
    /// Descending by name: the next one is taken from the end.
    places: Vec<Place>,
}

/// The place of a name in the bytes of a listing.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    len: u8,
    kind: EntryKind,
}

impl Place {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at as usize..self.at as usize + usize::from(self.len)]
    }
}

/// The type of an entry, as far as the directory shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Directory,
    Other,
    Unknown,
}

impl From<FileType> for EntryKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::Directory => EntryKind::Directory,
            FileType::Unknown => EntryKind::Unknown,
            _ => EntryKind::Other,
        }
    }
}

/// An entry of a directory.
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: EntryKind,
}

impl Listing {
    /// Reads a directory. If an error interrupts this, returns the names so far and the error.
    pub fn read(dir: impl AsFd) -> (Self, Option<Errno>) {
        let mut listing = Listing::default();
        let mut buffer = [const { MaybeUninit::<u8>::uninit() }; 32 << 10];
        let mut entries = RawDir::new(dir, &mut buffer);
        let mut failed = None;
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => listing.add(entry.file_name().to_bytes(), entry.file_type().into()),
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            }
        }
        listing.sort();
        (listing, failed)
    }

    /// Reads a directory of the sources. Reports a failure, after which names are missing.
    pub fn all(ctx: &Context, dir: &Arc<Dir>) -> Result<Self> {
        let listed = dir.call(|dir| Ok(Listing::read(&dir.fd)));
        let (listing, errno) = listed.unwrap_or_else(|errno| (Listing::default(), Some(errno)));
        if let Some(errno) = errno {
            attributes::skip(ctx, &dir.path, error("read all of the folder", errno))?;
        }
        Ok(listing)
    }

    /// Makes a listing of these names.
    pub fn of<'n>(names: impl Iterator<Item = &'n Vec<u8>>) -> Self {
        let mut listing = Listing::default();
        names.for_each(|name| listing.add(name, EntryKind::Unknown));
        listing.sort();
        listing
    }

    fn add(&mut self, name: &[u8], kind: EntryKind) {
        // Leaves out `.` and `..`. No file system holds 4 GiB of names in one directory.
        if let (true, Ok(at)) = (valid_name(name), u32::try_from(self.bytes.len())) {
            self.places.push(Place { at, len: name.len() as u8, kind });
            self.bytes.extend_from_slice(name);
        }
    }

    fn sort(&mut self) {
        let bytes = self.bytes.as_slice();
        self.places.sort_unstable_by(|a, b| b.name(bytes).cmp(a.name(bytes)));
        self.places.dedup_by(|a, b| a.name(bytes) == b.name(bytes));
    }

    /// Returns whether this name is left.
    pub fn has(&self, name: &[u8]) -> bool {
        self.places.binary_search_by(|place| name.cmp(place.name(&self.bytes))).is_ok()
    }

    /// Returns the number of names that are left.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Takes the next entry, ascending by name.
    pub fn next(&mut self) -> Option<Entry> {
        let place = self.places.pop()?;
        Some(Entry { name: place.name(&self.bytes).to_vec(), kind: place.kind })
    }
}
