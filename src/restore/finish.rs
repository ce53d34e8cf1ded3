//! The last steps of a file: its name, its further names, and what happens to an existing file.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::dir;
use super::file::{self, File};
use super::{Overwrite, Run, add, attributes, flags};
use super::{dry, links, local, reuse};
use crate::error::Result;
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
        Ok(Some(fd)) => {
            if run.options.overwrite.compares()
                && !run.options.dry_run
                && let Err(e) = dress(run, &fd, &file)
            {
                run.skip(&file.path(), e);
                return dir::release(run, file.held);
            }
            add(&run.tally.existing, 1);
            run.ctx().event(Event::Same { path: &file.path(), renamed: false });
            add(&run.tally.verified, run.options.verify.into());
            run.ctx().event(Event::Unchanged { files: 1, bytes: file.node.content.size() });
            dir::release(run, file.held);
        }
        Ok(None) if run.options.overwrite == Overwrite::Never => {
            run.skip(&file.path(), file::in_the_way());
            dir::release(run, file.held);
        }
        Ok(None) => replace(run, file),
        Err(e) => {
            run.skip(&file.path(), e);
            dir::release(run, file.held);
        }
    }
}

/// Replaces an existing file by one with the saved contents.
fn replace(run: &Run<'_>, file: File) {
    if let Err(e) = file.held.check_locks(&file.node.name) {
        run.skip(&file.path(), e);
        return dir::release(run, file.held);
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
