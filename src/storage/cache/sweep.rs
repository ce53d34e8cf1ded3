//! Bounds the disk cache: removes the files that were not used for the longest time, of all repositories.
//!
//! There is no index beside the files. A file is marked as modified when it is used, so the order survives a
//! restart and is the same for all processes.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, statat, unlinkat};

use super::{Sort, folder};
use crate::name::ObjectId;

/// Most files. Each repository has some for each push, so their number is bounded too.
const FILES: usize = 200_000;

/// A file of the cache.
struct Entry {
    folder: Arc<OwnedFd>,
    name: CString,
    sort: Sort,
    bytes: u64,
    used: (i64, i64),
}

/// Removes files until the others have at most `most` bytes.
pub(super) fn sweep(root: &OwnedFd, most: u64) -> io::Result<()> {
    for entry in surplus(entries(root)?, most, FILES) {
        // Another process may be sweeping, too.
        let _ = unlinkat(&entry.folder, &entry.name, AtFlags::empty());
    }
    Ok(())
}

/// Returns the files to remove: the ones used the longest time ago. Files that hold no contents have half of the room.
fn surplus(mut entries: Vec<Entry>, most: u64, files: usize) -> Vec<Entry> {
    entries.sort_by_key(|entry| entry.used);
    let mut left = entries.len();
    let is_content = |entry: &Entry| entry.sort == Sort::Contents;
    let (mut contents, mut others): (VecDeque<Entry>, VecDeque<Entry>) = entries.into_iter().partition(is_content);
    let (mut content_bytes, mut other_bytes) = (bytes(&contents), bytes(&others));
    let mut removed = Vec::new();
    while content_bytes + other_bytes > most || left > files {
        let takes_other = other_bytes > most / 2 || contents.is_empty();
        let Some(entry) = (if takes_other { others.pop_front() } else { contents.pop_front() }) else { break };
        *(if takes_other { &mut other_bytes } else { &mut content_bytes }) -= entry.bytes;
        left -= 1;
        removed.push(entry);
    }
    removed
}

fn bytes(entries: &VecDeque<Entry>) -> u64 {
    entries.iter().map(|entry| entry.bytes).sum()
}

/// Returns all files of the cache. Names that the cache does not give are left alone.
fn entries(root: &OwnedFd) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for repository in names(root)? {
        let Ok(repository) = folder::below(root, &repository, false) else { continue };
        for sort in Sort::ALL {
            let Ok(folder) = folder::below(&repository, sort.folder(), false).map(Arc::new) else { continue };
            let found = names(&folder)?.into_iter().filter_map(|name| entry(&folder, sort, &name));
            entries.extend(found);
        }
    }
    Ok(entries)
}

fn entry(folder: &Arc<OwnedFd>, sort: Sort, name: &str) -> Option<Entry> {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return None;
    }
    let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    let used = (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0));
    Some(Entry { folder: Arc::clone(folder), name: CString::new(name).ok()?, sort, bytes, used })
}

/// Returns the names in a folder that are 64 hex digits, like the ids of repositories and objects.
fn names(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in Dir::read_from(folder)? {
        let Ok(item) = item else { continue };
        names.extend(item.file_name().to_str().ok().filter(|name| ObjectId::parse(name).is_some()).map(String::from));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sort: Sort, used: i64, bytes: u64) -> Entry {
        let folder = Arc::new(std::fs::File::open("/").unwrap().into());
        Entry { folder, name: CString::default(), sort, bytes, used: (used, 0) }
    }

    fn removed(entries: &[(Sort, i64, u64)], most: u64, files: usize) -> Vec<i64> {
        let entries = entries.iter().map(|(sort, used, bytes)| entry(*sort, *used, *bytes)).collect();
        surplus(entries, most, files).iter().map(|entry| entry.used.0).collect()
    }

    #[test]
    fn contents_go_first_and_the_rest_keeps_half_of_the_room() {
        use Sort::{Contents, Others};
        let all = [(Others, 1, 30), (Contents, 5, 40), (Contents, 2, 40), (Others, 4, 30), (Contents, 3, 10)];
        assert_eq!(removed(&all, 150, 9), [] as [i64; 0]);
        assert_eq!(removed(&all, 120, 9), [2], "the contents that were used first, although metadata is older");
        assert_eq!(removed(&all, 100, 9), [1, 2], "metadata has more than half");
        assert_eq!(removed(&all, 150, 3), [2, 3], "too many files");
        assert_eq!(removed(&all, 0, 0).len(), 5);
    }
}
