//! Hard links: further names of an inode that this run has made, never of one that was there before. An existing file that is
//! as saved is kept, and so are its further names that exist already.
//!
//! Two saved names are one file if they agree in file system, inode, ctime and contents. The first one is restored; the
//! others wait for it or, if it is complete, are linked at once. It is found again by its path, step by step without
//! following links, and must still be the inode that was made.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::dir::{self, Held};
use super::file::{self, File, copy};
use super::{Run, add, node, rename};
use crate::descriptors;
use crate::error::{Error, Result};
use crate::format::node::{Content, Node};
use crate::progress::Event;
use crate::trees::LinkKey;

/// Most names that may wait; each holds its directory open.
const WAITING: usize = 1024;

/// The place of the first name of a file.
#[derive(Clone)]
pub(super) struct First {
    path: Arc<[u8]>,
    id: (u64, u64),
    /// Whether it was there before.
    is_kept: bool,
}

/// A further name.
pub(super) struct Name {
    held: Held,
    node: Node,
    replace: bool,
}

enum Entry {
    /// Being restored; these wait.
    Coming(Vec<Name>),
    Made(First),
}

#[derive(Default)]
struct Inner {
    known: HashMap<LinkKey, (Entry, u32)>,
    waiting: usize,
}

pub(super) struct Links {
    target: Arc<OwnedFd>,
    most_waiting: usize,
    inner: Mutex<Inner>,
    fewer: Condvar,
}

/// The next step for a name of a file that had several.
pub(super) enum Meet {
    /// Restore it; others may wait for it.
    First(Held, Node),
    /// It waits and will be seen to.
    Waits,
    /// Link it.
    Made(First, Name),
}

impl Links {
    pub fn new(target: Arc<OwnedFd>) -> Self {
        Links {
            target,
            most_waiting: descriptors::share(16, 4, WAITING),
            inner: Mutex::default(),
            fewer: Condvar::new(),
        }
    }

    /// Returns the directory below which all names are.
    pub fn target(&self) -> &OwnedFd {
        &self.target
    }

    /// Notes a name of such a file; called by the walk for each of them.
    pub fn meet(&self, key: LinkKey, held: Held, node: Node, replace: bool) -> Meet {
        let mut inner = self.inner.lock().expect("no holder panics");
        while inner.waiting >= self.most_waiting && matches!(inner.known.get(&key), Some((Entry::Coming(_), _))) {
            inner = self.fewer.wait(inner).expect("no holder panics");
        }
        let Inner { known, waiting } = &mut *inner;
        let Some((entry, seen)) = known.get_mut(&key) else {
            known.insert(key, (Entry::Coming(Vec::new()), 1));
            return Meet::First(held, node);
        };
        *seen += 1;
        match entry {
            Entry::Coming(names) => {
                names.push(Name { held, node, replace });
                *waiting += 1;
                Meet::Waits
            }
            Entry::Made(first) => {
                let first = first.clone();
                if *seen >= node.nlink {
                    known.remove(&key);
                }
                Meet::Made(first, Name { held, node, replace })
            }
        }
    }
}

/// The first name is complete, or will never be: sees to those that wait for it.
pub(super) fn complete(run: &Run<'_>, key: &LinkKey, held: &Held, node: &Node, result: Result<(u64, u64)>) {
    conclude(run, key, node, result.map(|id| First::new(held, node, id, false)));
}

/// The first name was there already, as saved: sees to those that wait for it.
pub(super) fn keep(run: &Run<'_>, key: &LinkKey, held: &Held, node: &Node, id: (u64, u64)) {
    conclude(run, key, node, Ok(First::new(held, node, id, true)));
}

impl First {
    fn new(held: &Held, node: &Node, id: (u64, u64), is_kept: bool) -> Self {
        First { path: held.below_target(&node.name).into(), id, is_kept }
    }
}

fn conclude(run: &Run<'_>, key: &LinkKey, node: &Node, first: Result<First>) {
    let names = {
        let mut inner = run.links.inner.lock().expect("no holder panics");
        let Some((entry, seen)) = inner.known.remove(key) else { return };
        if let Ok(first) = &first
            && seen < node.nlink
        {
            inner.known.insert(*key, (Entry::Made(first.clone()), seen));
        }
        let names = if let Entry::Coming(names) = entry { names } else { Vec::new() };
        inner.waiting -= names.len();
        names
    };
    run.links.fewer.notify_all();
    for name in names {
        match &first {
            Ok(first) => link(run, first, name),
            Err(why) => {
                run.skip(&name.held.path(&name.node.name), copy(why));
                dir::release(run, name.held);
            }
        }
    }
}

/// Makes a further name of a restored file; where this file system cannot, a copy.
pub(super) fn link(run: &Run<'_>, first: &First, name: Name) {
    let Name { held, node, replace } = name;
    let path = held.path(&node.name);
    if first.is_kept && is_name_of(first, &held, &node.name) {
        add(&run.tally.existing, 1);
        run.ctx().event(Event::Same { path: &run.paths.in_target(&path), renamed: false });
        run.ctx().event(Event::Unchanged { files: node.content.is_file().into(), bytes: node.content.size() });
        return dir::release(run, held);
    }
    if replace && let Err(e) = held.check_locks(&node.name) {
        run.skip(&path, e);
        return dir::release(run, held);
    }
    match try_link(run, first, &held, &node, replace) {
        Ok(()) => {
            add(&run.tally.links, 1);
            if matches!(node.content, Content::File(_) | Content::Large { .. }) {
                run.ctx().event(Event::Unchanged { files: 1, bytes: node.content.size() });
            }
            dir::release(run, held);
        }
        Err(Errno::ACCESS | Errno::PERM | Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP | Errno::STALE) => {
            let text = format!("{} becomes a copy: no hard link can be made", String::from_utf8_lossy(&path));
            run.ctx().event(Event::Warning { text: &text });
            if matches!(node.content, Content::File(_) | Content::Large { .. }) {
                let file = File::new(held, node, replace, None);
                file.write_whole(run).unwrap_or_else(|e| file.fail(e));
                drop(file::conclude(run, &file)); // a failure was reported
                return dir::release(run, file.held);
            }
            node::make(run, &held, &node, replace).map(drop).unwrap_or_else(|e| run.skip(&path, e));
            dir::release(run, held);
        }
        Err(e) => {
            let e = if e == Errno::EXIST { file::in_the_way() } else { Error::io("make the hard link", e.into()) };
            run.skip(&path, e);
            dir::release(run, held);
        }
    }
}

/// Returns whether an existing entry is a name of this file.
fn is_name_of(first: &First, held: &Held, name: &[u8]) -> bool {
    held.stat(name).is_ok_and(|stat| stat.is_some_and(|stat| dir::identity(&stat) == first.id))
}

/// Opens the directory of a path below the target, step by step without following links. Returns it, unless it is the
/// target itself, and the name in it.
pub(super) fn parent<'p>(run: &Run<'_>, path: &'p [u8]) -> Result<(Option<OwnedFd>, &'p [u8]), Errno> {
    const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
    let name = parts.pop().unwrap_or_default();
    let mut step: Option<OwnedFd> = None;
    for part in parts {
        let from = step.as_ref().unwrap_or(&run.links.target);
        step = Some(rustix::fs::openat(from, part, STEP, Mode::empty())?);
    }
    Ok((step, name))
}

fn try_link(run: &Run<'_>, first: &First, held: &Held, node: &Node, replace: bool) -> Result<(), Errno> {
    if first.is_kept {
        // It may be a link to a file outside of the target.
        return Err(Errno::STALE);
    }
    let (directory, name) = parent(run, &first.path)?;
    let from = directory.as_ref().unwrap_or(&run.links.target);
    let is_first = |fd: &OwnedFd, name: &[u8]| {
        rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| dir::identity(&stat) == first.id)
    };
    if !is_first(from, name)? {
        return Err(Errno::STALE);
    }
    let temporary = dir::temporary().map_err(|_| Errno::IO)?;
    // Never follows: a symbolic link under that name would be linked itself.
    rustix::fs::linkat(from, name, &held.fd, &temporary, AtFlags::empty())?;
    if !is_first(&held.fd, &temporary)? {
        held.unlink(&temporary);
        return Err(Errno::STALE);
    }
    let placed = rename::place(held, &temporary, &node.name, replace);
    // Renaming one name of a file to another one does nothing.
    held.unlink(&temporary);
    placed.map_err(|_| Errno::EXIST)
}
