//! The directories that made the repository grow: their files have contents that the repository did not have.

/// Directories that are listed.
const MOST: usize = 10;
/// Directories with fewer new bytes than this are not listed.
const LEAST: u64 = 1 << 20;

/// The directories that grew most, each with the new bytes in and below it that no other listed directory accounts for.
#[derive(Clone, Debug, Default)]
pub struct Growth(Vec<(Vec<u8>, u64)>);

impl Growth {
    /// Notes that a directory is finished. `bytes`: new bytes in and below it that no listed directory accounts for yet.
    /// Returns the bytes that are still unaccounted for; they are added to the parent directory.
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

    /// Returns the list, most new bytes first.
    pub fn directories(&self) -> Vec<(Vec<u8>, u64)> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_directory_counts_for_its_parent() {
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
