//! The checks of a directory before a backup is mounted on it. A mount there whose process has ended is unmounted first.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::attach::unmount;
use super::mount_table::{absolute, mounted_at};
use crate::error::{Error, Result};
use crate::mounts::BACKUP;
use crate::printable;

/// The directories that a mount must not hide.
#[derive(Clone, Copy, Default)]
pub struct Keep<'k> {
    /// Allows a directory that is not empty or that was backed up.
    pub nonempty: bool,
    /// The repository, if it is on this machine.
    pub repository: Option<&'k Path>,
    /// The sources of the newest backup of this machine.
    pub sources: &'k [PathBuf],
}

/// Checks that a backup can be mounted on a directory; returns its path without symbolic links. A mount there whose
/// process has ended is unmounted.
pub fn prepare(dir: &Path, keep: Keep<'_>, log: &dyn Fn(&str)) -> Result<PathBuf> {
    let path = absolute(dir)?;
    unmount_dead(&path, log)?;
    check_contents(&path, keep.nonempty)?;
    check_repository(&path, keep.repository)?;
    check_sources(&path, &keep)?;
    Ok(path)
}

/// Unmounts the mount of a process that has ended; fails if there is no directory.
fn unmount_dead(path: &Path, log: &dyn Fn(&str)) -> Result<()> {
    let Err(e) = fs::symlink_metadata(path) else { return Ok(()) };
    let shown = printable::name(path.as_os_str().as_bytes());
    if e.raw_os_error() != Some(Errno::NOTCONN.raw_os_error()) || mounted_at(path).is_none() {
        return Err(Error::io(format!("mount at {shown}"), e).hint("make the folder first"));
    }
    log(&format!("{shown} is the mount of a process that has ended; unmounting it"));
    unmount(path, true)
}

/// Fails if a backup is mounted at the path already, or if the directory has contents that the mount would hide.
fn check_contents(path: &Path, nonempty: bool) -> Result<()> {
    let shown = printable::name(path.as_os_str().as_bytes());
    match mounted_at(path) {
        Some(mount) if mount.kind == BACKUP => {
            let error = Error::failed(format!("a backup is mounted at {shown} already"));
            return Err(error.hint("`nfreezer umount DIR` unmounts it"));
        }
        // The automounter waits for this mount, and so does every process that looks into the directory.
        Some(mount) if mount.kind == "autofs" => return Ok(()),
        _ => {}
    }
    let mut entries = fs::read_dir(path).map_err(|e| Error::io(format!("mount at {shown}"), e))?;
    if entries.next().is_some() && !nonempty {
        return Err(Error::failed(format!("the folder {shown} is not empty"))
            .hint("its contents would be hidden while it is mounted; `--nonempty` allows that"));
    }
    Ok(())
}

/// Fails if the mount would hide its own repository, or would be inside it.
fn check_repository(path: &Path, repository: Option<&Path>) -> Result<()> {
    let Some(repository) = repository.and_then(|r| r.canonicalize().ok()) else { return Ok(()) };
    if path.starts_with(&repository) || repository.starts_with(path) {
        let [repository, path] = [&repository, path].map(|p| printable::name(p.as_os_str().as_bytes()));
        return Err(Error::failed(format!("the repository {repository} is at, in or below {path}"))
            .hint("choose a folder elsewhere: the mount would hide its own repository"));
    }
    Ok(())
}

/// Fails if the mount would hide a source of the newest backup.
fn check_sources(path: &Path, keep: &Keep<'_>) -> Result<()> {
    let hidden = keep.sources.iter().find(|source| source.starts_with(path) && !keep.nonempty);
    let Some(source) = hidden else { return Ok(()) };
    let [source, path] = [source.as_path(), path].map(|p| printable::name(p.as_os_str().as_bytes()));
    Err(Error::failed(format!("{source}, a source of the newest backup, is at or below {path}"))
        .hint("the next push would not see it; choose a folder elsewhere, or allow it with `--nonempty`"))
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
        assert!(refused(&path).contains("a source of the newest backup"));
        assert!(refused(&path.join("photos")).contains("/photos, a source"));
        prepare(&[path.join("photos")], true).unwrap();
        prepare(&[path.parent().unwrap().into(), path.with_extension("x")], false).unwrap();
    }
}
