//! The names in one directory, ascending by bytes, in one stretch of memory.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::RawDir;
use rustix::io::Errno;

use crate::format::node::valid_name;

#[derive(Default)]
pub struct Listing {
    bytes: Vec<u8>,
    /// Offset and length of each name in `bytes`, descending by name: the next one is taken from the end.
    places: Vec<(u32, u8)>,
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
                Ok(entry) => listing.add(entry.file_name().to_bytes()),
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            }
        }
        listing.sort();
        (listing, failed)
    }

    /// Makes a listing of these names.
    pub fn of<'n>(names: impl Iterator<Item = &'n Vec<u8>>) -> Self {
        let mut listing = Listing::default();
        names.for_each(|name| listing.add(name));
        listing.sort();
        listing
    }

    fn add(&mut self, name: &[u8]) {
        // Leaves out `.` and `..`. No file system holds 4 GiB of names in one directory.
        if let (true, Ok(at)) = (valid_name(name), u32::try_from(self.bytes.len())) {
            self.places.push((at, name.len() as u8));
            self.bytes.extend_from_slice(name);
        }
    }

    fn sort(&mut self) {
        let name = |(at, len): (u32, u8)| &self.bytes[at as usize..at as usize + usize::from(len)];
        self.places.sort_unstable_by(|a, b| name(*b).cmp(name(*a)));
        self.places.dedup_by(|a, b| name(*a) == name(*b));
    }

    /// Returns whether this name is left.
    pub fn has(&self, name: &[u8]) -> bool {
        let at = |(at, len): &(u32, u8)| &self.bytes[*at as usize..*at as usize + usize::from(*len)];
        self.places.binary_search_by(|place| name.cmp(at(place))).is_ok()
    }

    /// Returns the number of names that are left.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Takes the next name, ascending.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let (at, len) = self.places.pop()?;
        Some(self.bytes[at as usize..at as usize + usize::from(len)].to_vec())
    }
}
