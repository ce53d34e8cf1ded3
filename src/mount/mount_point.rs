//! Where a backup may be mounted: the mount table, and what a folder must be like. Mends what a dead mount left behind.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::attach::{TYPE, unmount};
use crate::error::{Error, Result};
use crate::printable;

/// A row of the mount table.
pub struct Row {
    /// `major:minor`.
    pub device: String,
    /// File system type.
    pub kind: String,
}

/// What is mounted at exactly this place, the topmost. The mount table is read, since a `stat` might hang.
pub fn mounted_at(dir: &Path) -> Option<Row> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let rows = table.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let (device, place) = (fields.nth(2)?, fields.nth(1)?);
        let kind = fields.skip_while(|f| *f != b"-").nth(1)?;
        (unescaped(place) == dir.as_os_str().as_bytes()).then(|| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Row { device: text(device), kind: text(kind) }
        })
    });
    rows.fold(None, |_, row| Some(row))
}

/// `\040` and its like back to bytes.
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

/// The path without symbolic links; the last part is not touched where that fails (a dead mount).
pub fn absolute(dir: &Path) -> Result<PathBuf> {
    if let Ok(path) = dir.canonicalize() {
        return Ok(path);
    }
    let wrong = |e| Error::io(format!("find {}", dir.display()), e);
    let (parent, name) = (dir.parent(), dir.file_name());
    let parent = parent.filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(parent.canonicalize().map_err(wrong)?.join(name.unwrap_or(OsStr::new(""))))
}

/// What must not be hidden by a mount.
#[derive(Clone, Copy, Default)]
pub struct Keep<'k> {
    /// Also over a folder that is not empty, and over what is backed up.
    pub nonempty: bool,
    /// Where the repository is, if it is on this machine.
    pub repository: Option<&'k Path>,
    /// What the newest backup of this machine was made of.
    pub sources: &'k [PathBuf],
}

/// Whether a folder can be mounted on; mends what a dead mount left. Gives the path without symbolic links.
pub fn prepare(dir: &Path, keep: Keep<'_>, log: &dyn Fn(&str)) -> Result<PathBuf> {
    let path = absolute(dir)?;
    let shown = printable::name(path.as_os_str().as_bytes());
    let mut mounted = mounted_at(&path);
    if let Err(e) = fs::symlink_metadata(&path) {
        if e.raw_os_error() != Some(Errno::NOTCONN.raw_os_error()) || mounted.is_none() {
            return Err(Error::io(format!("mount at {shown}"), e).hint("make the folder first"));
        }
        log(&format!("{shown} is the dead mount of a process that ended; unmounting it"));
        unmount(&path, true)?;
        mounted = mounted_at(&path);
    }
    match mounted {
        Some(m) if m.kind == TYPE => {
            let error = Error::failed(format!("a backup is mounted at {shown} already"));
            return Err(error.hint("`nfreezer umount DIR` unmounts it"));
        }
        // What is mounted there waits for us: whoever looks into the folder waits too.
        Some(m) if m.kind == "autofs" => {}
        _ => {
            let entries = fs::read_dir(&path).map_err(|e| Error::io(format!("mount at {shown}"), e));
            if entries?.next().is_some() && !keep.nonempty {
                return Err(Error::failed(format!("the folder {shown} is not empty"))
                    .hint("its contents would be hidden while it is mounted; `--nonempty` allows that"));
            }
        }
    }
    if let Some(repository) = keep.repository.and_then(|r| r.canonicalize().ok())
        && (path.starts_with(&repository) || repository.starts_with(&path))
    {
        return Err(Error::failed(format!("the repository {} is at, in or below {shown}", repository.display()))
            .hint("choose a folder elsewhere: the mount would hide its own repository"));
    }
    if let Some(source) = keep.sources.iter().find(|source| source.starts_with(&path) && !keep.nonempty) {
        let source = printable::name(source.as_os_str().as_bytes());
        return Err(Error::failed(format!("{source}, which the newest backup was made of, is at or below {shown}"))
            .hint("the next push would not see it; choose a folder elsewhere, or allow it with `--nonempty`"));
    }
    Ok(path)
}

/// The local folder that an address names, if it does.
pub fn local_folder(address: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::ffi::OsString::from_vec(address.as_bytes().to_vec()));
    (path.is_absolute() && path.is_dir()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_backed_up_is_not_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let prepare = |sources: &[PathBuf], nonempty| {
            let keep = Keep { nonempty, sources, repository: None };
            prepare(&path, keep, &|_| ()).map_err(|e| e.to_string())
        };
        let refused = |source: &Path| prepare(&[source.into()], false).unwrap_err();
        assert!(refused(&path).contains("the newest backup was made of"));
        assert!(refused(&path.join("photos")).contains("/photos, which"));
        prepare(&[path.join("photos")], true).unwrap();
        prepare(&[path.parent().unwrap().into(), path.with_extension("x")], false).unwrap();
    }

    #[test]
    fn the_mount_table_is_understood() {
        assert_eq!(unescaped(br"/a\040b\134c\09"), b"/a b\\c\\09");
        assert_eq!(mounted_at(Path::new("/proc")).unwrap().kind, "proc");
        assert!(mounted_at(Path::new("/proc/self")).is_none());
    }
}
