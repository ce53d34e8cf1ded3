//! The walk over the saved tree: one thread, in order, with a stack of its own. Makes directories, links and special
//! files itself and queues files.

use std::sync::Arc;

use rustix::fs::{FileType, Stat};

use super::dir::{self, Dir, Held};
use super::file::{in_the_way, partial_name};
use super::folded;
use super::links::{self, Meet};
use super::queue::Queue;
use super::{Overwrite, Run, add, node, reuse};
use crate::descriptors;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node};
use crate::progress::Event;
use crate::trees::{Entries, LOST, LinkKey, lacks_parts};

/// Most directories above the walk that stay open.
const OPEN: usize = 64;

/// Restores `top` into `target`: its entries if it is a directory, else itself.
pub(super) fn walk(run: &Run<'_>, queue: &Queue, top: Node, target: Held) {
    let Content::Directory(page) = &top.content else {
        entry(run, queue, &target, top);
        return dir::release(run, target);
    };
    let mut stack: Vec<(Entries<'_>, Arc<Dir>)> =
        vec![(run.trees.entries(run.ctx(), page.as_ref()), Arc::clone(&target.dir))];
    let mut here = target;
    let open = descriptors::share(16, 4, OPEN);
    while let Some((entries, _)) = stack.last_mut() {
        // When the end was decided, all directories are left in order.
        let next = if run.halted() { None } else { entries.next() };
        match next {
            Some(Ok(node)) => match &node.content {
                Content::Directory(page) => {
                    let page = *page;
                    let made = if stack.len() <= limits::DEPTH {
                        folded::note(&here, &node.name).and_then(|()| dir::make(run, &here, &node))
                    } else {
                        Err(Error::damaged("the directories are nested too deeply"))
                    };
                    match made {
                        Ok(made) => {
                            stack.push((run.trees.entries(run.ctx(), page.as_ref()), Arc::clone(&made.dir)));
                            dir::release(run, std::mem::replace(&mut here, made));
                            if let Some(i) = stack.len().checked_sub(open).filter(|i| *i > 0) {
                                stack[i].1.close();
                            }
                        }
                        Err(e) => run.skip(&here.path(&node.name), e),
                    }
                }
                _ => entry(run, queue, &here, node),
            },
            Some(Err(e)) => run.skip(&here.dir.path(), Error::while_doing(e, "entries of the directory are lost")),
            None => {
                drop(stack.pop());
                let Some((_, parent)) = stack.last() else { break };
                here.dir.close();
                match parent.reopen(&here.fd) {
                    Ok(fd) => {
                        let parent = Held { dir: Arc::clone(parent), fd };
                        dir::release(run, std::mem::replace(&mut here, parent));
                    }
                    Err(e) => {
                        run.group.fail(e);
                        return;
                    }
                }
            }
        }
    }
    dir::release(run, here);
}

fn entry(run: &Run<'_>, queue: &Queue, held: &Held, mut node: Node) {
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

/// Looks at the existing entry and at other names of the same file, then restores or queues the node.
fn place(run: &Run<'_>, queue: &Queue, held: &Held, node: Node) -> Result<()> {
    folded::note(held, &node.name)?;
    let there = held.stat(&node.name).map_err(|e| Error::io("look what is there", e.into()))?;
    let is_file = matches!(node.content, Content::File(_) | Content::Large { .. });
    if let Some(stat) = &there {
        let comparable = is_file && is_regular(stat) && stat.st_size as u64 == node.content.size();
        match run.options.overwrite {
            Overwrite::Never if comparable => {
                queue.existing(held.clone(), node);
                return Ok(());
            }
            Overwrite::Never if !is_file && node::is_equal(held, &node, stat) => {
                add(&run.tally.existing, 1);
                return Ok(());
            }
            Overwrite::Never => return Err(in_the_way()),
            // A file with further links, here or when it was saved, is created anew: then its links end as saved.
            Overwrite::IfChanged
                if node.nlink < 2
                    && ((comparable && stat.st_nlink == 1)
                        || (is_file && is_regular(stat) && is_of_use(stat, &node))) =>
            {
                queue.existing(held.clone(), node);
                return Ok(());
            }
            Overwrite::IfChanged | Overwrite::Always => {}
        }
    }
    let replace = there.is_some();
    if replace || held.dir.is_locked {
        held.check_locks(&node.name)?;
    }
    let key = LinkKey::of(&node);
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
    if is_file {
        queue.file(run, held, node, replace, key);
        return Ok(());
    }
    let made = node::make(run, &held, &node, replace);
    let result = made.as_ref().map(drop).map_err(super::file::copy);
    if let Some(key) = &key {
        let left_out = || Error::failed("its first name could not be made");
        links::complete(run, key, &held, &node, made.and_then(|id| id.ok_or_else(left_out)));
    }
    dir::release(run, held);
    result
}
