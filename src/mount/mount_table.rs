//! The mount table of the kernel, and paths as it shows them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// File system type of a mounted backup.
pub const TYPE: &str = "fuse.nfreezer";

/// One mount in the mount table.
pub struct TableEntry {
    /// Device number, `major:minor`.
    pub device: String,
    /// File system type.
    pub kind: String,
}

/// Returns the topmost mount at exactly this path. Reads the mount table, since a `stat` might hang.
pub fn mounted_at(dir: &Path) -> Option<TableEntry> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let mut entries = table.split(|b| *b == b'\n').filter_map(|line| entry_at(line, dir));
    entries.next_back()
}

/// Parses a line of mountinfo (`id parent major:minor root path options .. - type ..`) if it is about this path.
fn entry_at(line: &[u8], dir: &Path) -> Option<TableEntry> {
    let mut fields = line.split(|b| *b == b' ');
    let device = fields.nth(2)?;
    let path = fields.nth(1)?;
    let kind = fields.skip_while(|f| *f != b"-").nth(1)?;
    (unescaped(path) == dir.as_os_str().as_bytes()).then(|| TableEntry { device: lossy(device), kind: lossy(kind) })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Decodes `\040` and similar octal escapes.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match digits {
            Some(d) => {
                out.push(d.iter().fold(0u8, |n, c| n.wrapping_mul(8).wrapping_add(c - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// Returns the path without symbolic links. The last part stays as it is where that fails, as at the mount point of an
/// ended process.
pub fn absolute(dir: &Path) -> Result<PathBuf> {
    if let Ok(path) = dir.canonicalize() {
        return Ok(path);
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent
        .canonicalize()
        .map_err(|e| Error::io(format!("find {}", dir.display()), e).hint("make the folder first: `mkdir -p`"))?;
    Ok(parent.join(dir.file_name().unwrap_or(OsStr::new(""))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_understood() {
        assert_eq!(unescaped(br"/a\040b\134c\09"), b"/a b\\c\\09");
        assert_eq!(mounted_at(Path::new("/proc")).unwrap().kind, "proc");
        assert!(mounted_at(Path::new("/proc/self")).is_none());
    }
}
