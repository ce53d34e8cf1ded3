//! The mount table of the kernel, and paths as it shows them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::mounts;

/// One mount in the mount table.
pub struct TableEntry {
    /// Device number, `major:minor`.
    pub device: String,
    /// File system type.
    pub kind: String,
}

/// Returns the topmost mount at exactly this path. Reads the mount table, since a `stat` might hang.
pub fn mounted_at(dir: &Path) -> Option<TableEntry> {
    let mount = mounts::table().into_iter().rfind(|mount| mount.place == dir.as_os_str().as_bytes());
    mount.map(|mount| TableEntry { device: mount.device_text(), kind: mount.kind })
}

/// Returns the path without symbolic links. The last part stays unresolved if that fails, as at the mount point of an
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
        assert_eq!(mounted_at(Path::new("/proc")).unwrap().kind, "proc");
        assert!(mounted_at(Path::new("/proc/self")).is_none());
    }
}
