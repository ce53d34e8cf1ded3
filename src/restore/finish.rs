//! The last steps of a file: its name, its further names, and what happens to an existing file.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::dir;
use super::file::{self, File};
use super::{Overwrite, Run, add, attributes, flags};
use super::{dry, links, local, reuse};
use crate::error::{Error, Result};
use crate::inode_flags;
use crate::progress::Event;

/// Lets go of a file; the last holder finishes it.
pub(super) fn release(run: &Run<'_>, file: Arc<File>) {
    if let Some(file) = Arc::into_inner(file) {
        finish(run, file);
    }
}

/// Renames a file to its name, or removes it and reports why. Then creates its further names.
fn finish(run: &Run<'_>, file: File) {
    let result = file::conclude(run, &file);
    if let Some(key) = &file.key {
        links::complete(run, key, &file.held, &file.node, result);
    }
    dir::release(run, file.held);
}

/// Handles a file that exists already: compares its contents, then follows the options.
pub(super) fn existing(run: &Run<'_>, file: File) {
    match local::compare(run, &file.held, &file.node) {
        Ok(Some(fd)) => keep(run, file, &fd),
        Ok(None) if run.options.overwrite == Overwrite::Never => fail(run, file, file::in_the_way()),
        Ok(None) => replace(run, file),
        Err(e) => fail(run, file, e),
    }
}

/// Keeps an existing file with equal contents. One with several names is replaced if it has other attributes, because a name
/// outside of the target would get them too.
fn keep(run: &Run<'_>, file: File, fd: &OwnedFd) {
    let stat = match rustix::fs::fstat(fd) {
        Ok(stat) => stat,
        Err(e) => return fail(run, file, Error::io("compare what is there", e.into())),
    };
    if run.options.overwrite.compares() && stat.st_nlink > 1 {
        if !attributes::are_set(run, fd, &file.node, &|| file.path()) {
            return replace(run, file);
        }
    } else if run.options.overwrite.compares()
        && !run.options.dry_run
        && let Err(e) = dress(run, fd, &file)
    {
        return fail(run, file, e);
    }
    add(&run.tally.existing, 1);
    run.ctx().event(Event::Same { path: &run.paths.in_target(&file.path()), renamed: false });
    add(&run.tally.verified, run.options.verify.into());
    run.ctx().event(Event::Unchanged { files: 1, bytes: file.node.content.size() });
    if let Some(key) = &file.key {
        links::keep(run, key, &file.held, &file.node, dir::identity(&stat));
    }
    dir::release(run, file.held);
}

/// Reports a file that is left as it is, and the further names that wait for it.
fn fail(run: &Run<'_>, file: File, why: Error) {
    let same = file::copy(&why);
    run.skip(&file.path(), why);
    if let Some(key) = &file.key {
        links::complete(run, key, &file.held, &file.node, Err(same));
    }
    dir::release(run, file.held);
}

/// Replaces an existing file by one with the saved contents.
fn replace(run: &Run<'_>, file: File) {
    if let Err(e) = file.held.check_locks(&file.node.name) {
        return fail(run, file, e);
    }
    if run.options.dry_run {
        dry::contents(run, &file, true).unwrap_or_else(|e| run.skip(&file.path(), e));
        return dir::release(run, file.held);
    }
    reuse::write(run, &file).unwrap_or_else(|e| file.fail(e));
    finish(run, file);
}

/// Sets the attributes of an existing file with equal contents.
fn dress(run: &Run<'_>, fd: &OwnedFd, file: &File) -> Result<()> {
    let path = || file.path();
    if inode_flags::is_locked(fd, b"") {
        return if attributes::are_set(run, fd, &file.node, &path) { Ok(()) } else { Err(flags::locked()) };
    }
    let saved = attributes::of_open(run, fd, &file.node, false, &path);
    flags::lock(run, fd, saved);
    Ok(())
}
