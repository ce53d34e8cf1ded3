//! The differences of each folder, with all below it: where a backup grew.

use std::collections::BTreeMap;

use super::{Entry, Modifier};

/// The differences below one folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Entries that are only on the new side.
    pub added: u64,
    /// Entries that are only on the old side.
    pub removed: u64,
    /// Entries with other contents or another type.
    pub changed: u64,
    /// Bytes of files on the new side less those on the old side.
    pub growth: i64,
}

/// Sums differences by folder. Holds one row for each folder with differences.
#[derive(Debug, Default)]
pub struct Folders {
    rows: BTreeMap<Vec<u8>, Folder>,
}

impl Folders {
    /// Adds an entry to its folder.
    pub fn add(&mut self, entry: &Entry) {
        if matches!(entry.modifier, Modifier::Attributes | Modifier::Renamed) {
            return;
        }
        let end = entry.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let row = self.rows.entry(entry.path[..end].to_vec()).or_default();
        match entry.modifier {
            Modifier::Added => row.added += 1,
            Modifier::Removed => row.removed += 1,
            _ => row.changed += 1,
        }
        let size = |side: Option<super::Side>| side.map_or(0, |side| i64::try_from(side.size).unwrap_or(i64::MAX));
        row.growth = row.growth.saturating_add(size(entry.new)).saturating_sub(size(entry.old));
    }

    /// Returns the folders down to `depth` levels below the folder that holds all differences, each with the sum of all
    /// below it. The folder that grew most comes first.
    pub fn grown(&self, depth: usize) -> Vec<(Vec<u8>, Folder)> {
        let common = self.common();
        let mut sums: BTreeMap<&[u8], Folder> = BTreeMap::new();
        for (path, row) in &self.rows {
            for end in ends(path).filter(|end| *end >= common).take(depth + 1) {
                let sum = sums.entry(&path[..end]).or_default();
                sum.added += row.added;
                sum.removed += row.removed;
                sum.changed += row.changed;
                sum.growth = sum.growth.saturating_add(row.growth);
            }
        }
        let mut sums: Vec<_> = sums.into_iter().map(|(path, sum)| (path.to_vec(), sum)).collect();
        sums.retain(|(_, sum)| *sum != Folder::default());
        sums.sort_by(|(a, x), (b, y)| y.growth.cmp(&x.growth).then_with(|| a.cmp(b)));
        sums
    }

    /// Returns the length of the path of the folder that holds all differences.
    fn common(&self) -> usize {
        let mut paths = self.rows.keys();
        let Some(first) = paths.next() else { return 0 };
        paths.fold(first.len(), |common, path| {
            let is_shared = |end: &usize| *end <= common && first.get(..*end) == path.get(..*end);
            ends(path).filter(is_shared).last().unwrap_or(0)
        })
    }
}

/// Returns the lengths of a path and of all folders above it, the shortest first.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let slashes = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
    let last = (!path.is_empty()).then_some(path.len());
    std::iter::once(0).chain(slashes).chain(last)
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Side};
    use super::*;

    fn entry(modifier: Modifier, path: &str, old: u64, new: u64) -> Entry {
        let side = |size| (size > 0).then_some(Side { kind: Kind::File, size });
        Entry { modifier, path: path.into(), from: None, old: side(old), new: side(new) }
    }

    #[test]
    fn folders_are_summed_below_the_one_that_holds_all_differences() {
        let mut folders = Folders::default();
        for entry in [
            entry(Modifier::Added, "/home/me/photos/2026/a", 0, 500),
            entry(Modifier::Content, "/home/me/photos/b", 100, 50),
            entry(Modifier::Removed, "/home/me/mail/c", 30, 0),
            entry(Modifier::Added, "/home/me/d", 0, 1),
            entry(Modifier::Attributes, "/home/me", 0, 0),
        ] {
            folders.add(&entry);
        }
        let shown = |depth| {
            let rows = folders.grown(depth).into_iter();
            rows.map(|(path, sum)| (String::from_utf8(path).unwrap(), sum.growth)).collect::<Vec<_>>()
        };
        let name = |text: &str| text.to_owned();
        assert_eq!(shown(0), [(name("/home/me"), 421)]);
        let photos = name("/home/me/photos");
        assert_eq!(shown(1), [(photos.clone(), 450), (name("/home/me"), 421), (name("/home/me/mail"), -30)]);
        assert_eq!(shown(2)[0], (name("/home/me/photos/2026"), 500));
        assert_eq!(folders.grown(1)[0].1, Folder { added: 1, removed: 0, changed: 1, growth: 450 });
        assert!(Folders::default().grown(3).is_empty());
    }
}
