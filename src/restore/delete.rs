//! Deletes entries of the target that the snapshot lacks.
//!
//! Every call takes one name below a directory that is held open. Links are removed and never followed. The root of another
//! mount and the folder of the repository stay, with everything above them.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::dir::{self, FOLDER, Held};
use super::scope::{Choice, Chosen};
use super::{Run, add};
use crate::error::{Error, Kind, Result};
use crate::progress::{Change, Event};
use crate::trees::PARTIAL_SUFFIX as PARTIAL;

/// Most directories below each other; each of them is held open.
const DEPTH: usize = 200;

/// Deletes the entries of a directory that are not among `names`, if the selection covers them.
pub(super) fn extras(run: &Run<'_>, held: &Held, names: &HashSet<Vec<u8>>, chosen: Chosen) {
    if held.dir.is_supposed {
        return; // a dry run, and there is no such directory
    }
    let found = match list(&held.fd) {
        Ok(found) => found,
        Err(errno) => return run.skip(&held.dir.path(), error(errno)),
    };
    for name in found {
        // The rest of a damaged file, or what a restore is writing.
        let is_ours = dir::is_temporary(&name) || name.ends_with(PARTIAL);
        if run.halted() || is_ours || names.contains(&name) || is_spelling(run, held, &name) {
            continue;
        }
        let path = held.path(&name);
        if let Err(e) = remove(run, &held.fd, &name, &path, chosen, 0) {
            run.skip(&path, e);
        }
    }
}

/// Returns whether the name is another spelling of a restored one in a file system that folds names.
fn is_spelling(run: &Run<'_>, held: &Held, name: &[u8]) -> bool {
    let may_be = held.dir.names.lock().expect("no holder panics").has(name);
    may_be && !run.options.dry_run && super::folded::has_variant(held, name).unwrap_or(true)
}

/// Deletes an existing directory with everything in it to make room for another entry.
pub(super) fn tree(run: &Run<'_>, held: &Held, name: &[u8]) -> Result<()> {
    match remove(run, &held.fd, name, &held.path(name), Chosen::default().all(), 0)? {
        true => Ok(()),
        false => Err(Error::new(Kind::Exists, "a directory is in its place, and not all of it could be deleted")),
    }
}

/// Deletes an entry. Returns whether it is gone; entries that the selection does not cover stay.
fn remove(run: &Run<'_>, parent: &OwnedFd, name: &[u8], path: &[u8], above: Chosen, depth: usize) -> Result<bool> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(error)?;
    let folder = FileType::from_raw_mode(stat.st_mode).is_dir();
    let (chosen, itself) = match run.scope.choose(path, folder, above) {
        Choice::Restore(chosen) => (chosen, true),
        Choice::Below(chosen) => (chosen, false),
        Choice::LeaveOut => return Ok(false),
    };
    let is_empty = !folder || contents(run, parent, name, path, chosen, depth)?;
    if !itself || !is_empty {
        return Ok(false);
    }
    if !run.options.dry_run {
        let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(parent, name, flags).map_err(error)?;
    }
    add(&run.tally.deleted, 1);
    let path = &run.paths.in_target(path);
    run.ctx().event(Event::Changed { path, change: Change::Delete, dry_run: run.options.dry_run });
    Ok(true)
}

/// Deletes the entries of a directory. Returns whether none is left.
fn contents(run: &Run<'_>, parent: &OwnedFd, name: &[u8], path: &[u8], chosen: Chosen, depth: usize) -> Result<bool> {
    if depth >= DEPTH {
        return Err(Error::failed("the directories are nested too deeply to be deleted"));
    }
    let fd = rustix::fs::openat(parent, name, FOLDER, Mode::empty()).map_err(error)?;
    let stat = rustix::fs::fstat(&fd).map_err(error)?;
    let is_repository = run.repository == Some(dir::identity(&stat));
    if is_repository || is_mount(&fd)? {
        let what = if is_repository { "the repository itself" } else { "a mount point" };
        run.ctx()
            .warn(&format!("{} is not deleted: it is {what}", String::from_utf8_lossy(&run.paths.in_target(path))));
        return Ok(false);
    }
    let mode = stat.st_mode & 0o7777;
    let is_opened = !run.options.dry_run && mode & 0o700 != 0o700;
    if is_opened {
        // Without the right to write, an ordinary user could delete nothing in it. If this fails, the deletion reports it.
        let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode | 0o700));
    }
    let mut is_empty = true;
    for entry in list(&fd).map_err(error)? {
        run.ctx().check()?;
        let path = [path, b"/", &entry].concat();
        match remove(run, &fd, &entry, &path, chosen, depth + 1) {
            Ok(gone) => is_empty &= gone,
            Err(e) => {
                run.skip(&path, e);
                is_empty = false;
            }
        }
    }
    if is_opened && !is_empty {
        let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)); // it stays, and so does its mode
    }
    Ok(is_empty)
}

/// Returns whether a directory is the root of a mount, also of one that shows a part of the same file system.
fn is_mount(fd: &OwnedFd) -> Result<bool> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map_err(error)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn list(fd: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn error(errno: Errno) -> Error {
    Error::io("delete what the snapshot lacks", errno.into())
}
