//! One entry of the saved tree: compares it with the existing one, then makes it, queues it or leaves it.

use rustix::fs::{FileType, Stat};

use super::dir::{self, Held};
use super::file::{in_the_way, partial_name};
use super::links::{self, Meet};
use super::queue::Queue;
use super::{Overwrite, Run, add, delete, dry, folded, node, reuse};
use crate::error::{Error, Kind, Result};
use crate::format::node::{Content, Node};
use crate::progress::Event;
use crate::time::Time;
use crate::trees::{LOST, LinkKey, lacks_parts};

pub(super) fn entry(run: &Run<'_>, queue: &Queue<'_>, held: &Held, mut node: Node) {
    if let Content::Unreadable(errno) = node.content {
        add(&run.tally.unreadable, 1);
        if errno == LOST {
            return warn(run, &held.path(&node.name), "is lost on the server; `repair` has marked it");
        }
        let why = std::io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
        return warn(run, &held.path(&node.name), &format!("was not readable when it was saved: {why}"));
    }
    if node.flags & crate::format::node::PARTIAL != 0 && !lacks_parts(&node) {
        warn(
            run,
            &held.path(&node.name),
            "was not saved to its end: what there is of it gets the suffix .nfreezer-partial",
        );
        node.name = partial_name(&node.name);
    }
    let path = held.path(&node.name);
    place(run, queue, held, node).unwrap_or_else(|e| run.skip(&path, e));
}

fn warn(run: &Run<'_>, path: &[u8], what: &str) {
    run.ctx().event(Event::Warning { text: &format!("{} {what}", String::from_utf8_lossy(path)) });
}

/// Returns whether the new contents may have chunks of the existing file.
fn is_of_use(stat: &Stat, node: &Node) -> bool {
    reuse::is_of_use(stat.st_size as u64, node.content.size())
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file()
}

/// The next step for an entry.
enum Next {
    /// Make it; something that may be replaced is in its place or not.
    Make { replace: bool },
    /// Compare the file with the existing one first.
    Compare,
    /// The existing entry is as saved. It has this identity, since the file has several names.
    Keep(dir::Identity),
    /// Nothing is to be done.
    Leave,
}

/// Decides by the existing entry.
fn next(run: &Run<'_>, held: &Held, node: &Node, is_file: bool) -> Result<Next> {
    let there = held.stat(&node.name).map_err(|e| Error::io("look what is there", e.into()))?;
    let Some(stat) = there else { return Ok(Next::Make { replace: false }) };
    let comparable = is_file && is_regular(&stat) && stat.st_size as u64 == node.content.size();
    match run.options.overwrite {
        Overwrite::Never if comparable => return Ok(Next::Compare),
        Overwrite::Never if !is_file && node::is_equal(held, node, &stat) => {
            add(&run.tally.existing, 1);
            return Ok(Next::Leave);
        }
        Overwrite::Never => return Err(in_the_way()),
        Overwrite::IfNewer if !is_newer(node, &stat) => {
            add(&run.tally.kept, 1);
            run.ctx().event(Event::Unchanged { files: is_file.into(), bytes: node.content.size() });
            return Ok(Next::Leave);
        }
        Overwrite::Always | Overwrite::IfNewer | Overwrite::IfChanged => {}
    }
    if run.options.overwrite.compares() && !is_file && node::is_unchanged(run, held, node, &stat) {
        return Ok(Next::Keep(dir::identity(&stat)));
    }
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        if !run.options.delete {
            return Err(Error::new(Kind::Exists, "a directory is in its place; --delete would remove it"));
        }
        delete::tree(run, held, &node.name)?;
        return Ok(Next::Make { replace: true });
    }
    // A file with another number of links than when it was saved is created anew: then its links end as saved.
    let is_same_file = comparable && dir::has_links(&stat, node);
    let is_compared = run.options.overwrite.compares() && is_file;
    if is_compared && (is_same_file || is_regular(&stat) && is_of_use(&stat, node)) {
        return Ok(Next::Compare);
    }
    Ok(Next::Make { replace: true })
}

/// Returns whether the saved entry was modified after the existing one.
fn is_newer(node: &Node, stat: &Stat) -> bool {
    node.mtime > Time::new(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

/// Looks at the existing entry and at other names of the same file, then restores or queues the node.
fn place(run: &Run<'_>, queue: &Queue<'_>, held: &Held, node: Node) -> Result<()> {
    folded::note(run, held, &node.name)?;
    let is_file = node.content.is_file();
    let next = next(run, held, &node, is_file)?;
    let key = LinkKey::of(&node).filter(|_| !matches!(next, Next::Compare) || run.options.overwrite.compares());
    match (&next, key) {
        (Next::Leave, _) => return Ok(()),
        (Next::Compare, None) => {
            queue.existing(run, held.clone(), node, None);
            return Ok(());
        }
        (Next::Compare, Some(key)) if run.options.dry_run => {
            if dry::is_compared(run, held, &node, key)? {
                queue.existing(run, held.clone(), node, Some(key));
            }
            return Ok(());
        }
        (Next::Keep(_), key) if run.options.dry_run || key.is_none() => {
            add(&run.tally.existing, 1);
            return Ok(());
        }
        _ => {}
    }
    let replace = !matches!(next, Next::Make { replace: false });
    // An existing file that is compared may turn out to be as saved.
    if matches!(next, Next::Make { .. }) && (replace || held.dir.is_locked) {
        held.check_locks(&node.name)?;
    }
    if run.options.dry_run {
        return dry::entry(run, held, node, replace);
    }
    let (held, node) = match key {
        None => (held.clone(), node),
        Some(key) => match run.links.meet(key, held.clone(), node, replace) {
            Meet::First(held, node) => (held, node),
            Meet::Waits => return Ok(()),
            Meet::Made(first, name) => {
                links::link(run, &first, name);
                return Ok(());
            }
        },
    };
    match (next, key) {
        (Next::Keep(id), Some(key)) => {
            add(&run.tally.existing, 1);
            links::keep(run, &key, &held, &node, id);
            dir::release(run, held);
            Ok(())
        }
        (Next::Compare, _) => {
            queue.existing(run, held, node, key);
            Ok(())
        }
        _ if is_file => {
            queue.file(run, held, node, replace, key);
            Ok(())
        }
        _ => special(run, held, &node, replace, key),
    }
}

/// Makes a symbolic link, named pipe, socket or device.
fn special(run: &Run<'_>, held: Held, node: &Node, replace: bool, key: Option<LinkKey>) -> Result<()> {
    let made = node::make(run, &held, node, replace);
    let result = made.as_ref().map(drop).map_err(super::file::copy);
    if let Some(key) = &key {
        let left_out = || Error::failed("its first name could not be made");
        links::complete(run, key, &held, node, made.and_then(|id| id.ok_or_else(left_out)));
    }
    dir::release(run, held);
    result
}
