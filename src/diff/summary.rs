//! The figures of a comparison.

use super::{Entry, Kind, Modifier, Side};

/// Entries by kind, and the bytes of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Anything else.
    pub others: u64,
    /// Bytes of files; a changed file counts on both sides.
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, side: Option<Side>) {
        let Some(side) = side else { return };
        match side.kind {
            Kind::File => self.files += 1,
            Kind::Directory => self.dirs += 1,
            Kind::Other => self.others += 1,
        }
        self.bytes = self.bytes.saturating_add(side.size);
    }
}

/// The figures of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files and others with other contents.
    pub changed: u64,
    /// Entries with another type.
    pub types: u64,
    /// Entries of which only attributes differ.
    pub attributes: u64,
    /// Entries with another path.
    pub renamed: u64,
    /// Entries that are only on the new side.
    pub added: Counts,
    /// Entries that are only on the old side.
    pub removed: Counts,
}

impl Summary {
    /// Counts an entry.
    pub fn add(&mut self, entry: &Entry) {
        match entry.modifier {
            Modifier::Added => self.added.add(entry.new),
            Modifier::Removed => self.removed.add(entry.old),
            Modifier::Renamed => self.renamed += 1,
            Modifier::Attributes => self.attributes += 1,
            Modifier::Content | Modifier::Type => {
                *(if entry.modifier == Modifier::Type { &mut self.types } else { &mut self.changed }) += 1;
                self.added.bytes += entry.new.map_or(0, |side| side.size);
                self.removed.bytes += entry.old.map_or(0, |side| side.size);
            }
        }
    }
}
