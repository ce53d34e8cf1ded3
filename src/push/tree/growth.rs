//! Which folders made the snapshot larger: those whose files have contents that the repository did not have.

/// Folders that are named.
const MOST: usize = 10;
/// Less than this is not worth a line.
const LEAST: u64 = 1 << 20;

/// The folders that grew most, with the bytes of new contents in and below them that belong to none of the others.
#[derive(Clone, Debug, Default)]
pub struct Growth(Vec<(Vec<u8>, u64)>);

impl Growth {
    /// A folder is complete, with so many new bytes in it and below it that no folder was named for. Gives those that it is
    /// not named for itself: they count for the folder above it.
    pub fn leave(&mut self, path: impl FnOnce() -> Vec<u8>, bytes: u64) -> u64 {
        let last = self.0.last().filter(|_| self.0.len() == MOST).map_or(0, |last| last.1);
        if bytes < LEAST || bytes <= last {
            return bytes;
        }
        self.0.truncate(MOST - 1);
        let at = self.0.partition_point(|(_, most)| *most >= bytes);
        self.0.insert(at, (path(), bytes));
        0
    }

    /// Most first.
    pub fn directories(&self) -> Vec<(Vec<u8>, u64)> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_small_alone_counts_for_the_folder_above() {
        let mut growth = Growth::default();
        let leave = |growth: &mut Growth, path: &str, bytes| growth.leave(|| path.into(), bytes);
        assert_eq!(leave(&mut growth, "/a/small", LEAST / 2), LEAST / 2);
        assert_eq!(leave(&mut growth, "/a/large", 5 * LEAST), 0);
        assert_eq!(leave(&mut growth, "/a", LEAST), 0);
        assert_eq!(growth.directories(), [(b"/a/large".to_vec(), 5 * LEAST), (b"/a".to_vec(), LEAST)]);
        for i in 0..20 {
            leave(&mut growth, "/b", (2 + i) * LEAST);
        }
        let sizes: Vec<u64> = growth.directories().iter().map(|(_, bytes)| bytes / LEAST).collect();
        assert_eq!(sizes, (12..22).rev().collect::<Vec<_>>());
        assert_eq!(leave(&mut growth, "/c", 12 * LEAST), 12 * LEAST);
    }
}
