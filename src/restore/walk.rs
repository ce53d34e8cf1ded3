//! The walk over the saved tree: one thread, in order, with a stack of its own. Makes directories, links and special
//! files itself and queues files. A directory that is only looked into is made when an entry in it is restored.

use std::collections::HashSet;
use std::sync::Arc;

use super::dir::{self, Dir, Held};
use super::folded;
use super::place;
use super::queue::Queue;
use super::scope::{Choice, Chosen};
use super::{Run, delete};
use crate::descriptors;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node};
use crate::format::reference::Ref;
use crate::progress::Event;
use crate::trees::Entries;

/// Most directories above the walk that stay open.
const OPEN: usize = 64;

/// Restores `top` into `target`: its entries if it is a directory, else itself.
pub(super) fn walk(run: &Run<'_>, queue: &Queue<'_>, top: Node, target: Held) {
    let Content::Directory(page) = &top.content else {
        place::entry(run, queue, &target, top);
        return dir::release(run, target);
    };
    let chosen = run.scope.top(&target.dir.path());
    let level = Level::new(run, page.as_ref(), Arc::clone(&target.dir), chosen);
    Walk { run, queue, stack: vec![level], here: target, unmade: Vec::new(), open: descriptors::share(16, 4, OPEN) }
        .go();
}

struct Walk<'a, 'r, 'q> {
    run: &'a Run<'r>,
    queue: &'a Queue<'q>,
    /// The directories from the target to `here`.
    stack: Vec<Level<'a>>,
    here: Held,
    /// The directories from `here` to the current one, which do not exist yet.
    unmade: Vec<Unmade<'a>>,
    /// Number of directories of the stack that stay open.
    open: usize,
}

/// The entries of a directory that are still to come.
struct List<'a> {
    entries: Entries<'a>,
    chosen: Chosen,
    /// The names that the snapshot has, if entries that it lacks are deleted here.
    names: Option<HashSet<Vec<u8>>>,
}

struct Level<'a> {
    list: List<'a>,
    dir: Arc<Dir>,
}

struct Unmade<'a> {
    list: List<'a>,
    node: Node,
    path: Vec<u8>,
}

impl<'a> List<'a> {
    fn new(run: &'a Run<'_>, page: Option<&Ref>, path: &[u8], chosen: Chosen) -> Self {
        let deletes = run.options.delete && run.scope.knows_all_in(path);
        List { entries: run.trees.entries(run.ctx(), page), chosen, names: deletes.then(HashSet::new) }
    }

    /// Returns the next entry and notes its name. Where one cannot be read, nothing is deleted.
    fn next(&mut self) -> Option<Result<Node>> {
        let next = self.entries.next();
        match (&next, &mut self.names) {
            (Some(Ok(node)), Some(names)) => drop(names.insert(node.name.clone())),
            (Some(Err(_)), names) => *names = None,
            _ => {}
        }
        next
    }
}

impl<'a> Level<'a> {
    fn new(run: &'a Run<'_>, page: Option<&Ref>, dir: Arc<Dir>, chosen: Chosen) -> Self {
        Level { list: List::new(run, page, &dir.path(), chosen), dir }
    }
}

impl<'a> Walk<'a, '_, '_> {
    fn go(mut self) {
        loop {
            let list = self.unmade.last_mut().map(|unmade| &mut unmade.list);
            let Some(list) = list.or_else(|| self.stack.last_mut().map(|level| &mut level.list)) else { break };
            // When the end was decided, all directories are left in order.
            let next = if self.run.halted() { None } else { list.next() };
            match next {
                Some(Ok(node)) => self.node(node),
                Some(Err(e)) => self.run.skip(&self.path(), Error::while_doing(e, "entries of the directory are lost")),
                None if self.unmade.pop().is_some() => {}
                None => {
                    if !self.leave() {
                        break;
                    }
                }
            }
        }
        dir::release(self.run, self.here);
    }

    /// Returns the path of the current directory.
    fn path(&self) -> Vec<u8> {
        self.unmade.last().map_or_else(|| self.here.dir.path(), |unmade| unmade.path.clone())
    }

    fn chosen(&self) -> Chosen {
        let unmade = self.unmade.last().map(|unmade| unmade.list.chosen);
        unmade.or_else(|| self.stack.last().map(|level| level.list.chosen)).unwrap_or_default()
    }

    fn node(&mut self, node: Node) {
        let folder = matches!(node.content, Content::Directory(_));
        if self.run.scope.is_all() {
            return self.restore(node, self.chosen());
        }
        let path = dir::join(self.path(), &node.name);
        match self.run.scope.choose(&path, folder, self.chosen()) {
            Choice::Restore(chosen) => {
                if self.make_unmade() {
                    self.restore(node, chosen);
                }
            }
            Choice::Below(chosen) => {
                let Content::Directory(page) = &node.content else { return };
                let list = List::new(self.run, page.as_ref(), &path, chosen);
                self.unmade.push(Unmade { list, node, path });
            }
            Choice::LeaveOut => self.run.ctx().event(Event::Excluded { path: &path }),
        }
    }

    /// Makes the directories on the way to an entry. Without them, nothing in them can be restored.
    fn make_unmade(&mut self) -> bool {
        for unmade in std::mem::take(&mut self.unmade) {
            match self.make(&unmade.node) {
                Ok(made) => self.enter(unmade.list, made),
                Err(e) => {
                    self.run.skip(&unmade.path, e);
                    return false;
                }
            }
        }
        true
    }

    fn restore(&mut self, node: Node, chosen: Chosen) {
        let Content::Directory(page) = &node.content else {
            return place::entry(self.run, self.queue, &self.here, node);
        };
        match self.make(&node) {
            Ok(made) => self.enter(List::new(self.run, page.as_ref(), &made.dir.path(), chosen), made),
            Err(e) => self.run.skip(&self.here.path(&node.name), e),
        }
    }

    fn make(&self, node: &Node) -> Result<Held> {
        if self.stack.len() > limits::DEPTH {
            return Err(Error::damaged("the directories are nested too deeply"));
        }
        folded::note(self.run, &self.here, &node.name)?;
        dir::make(self.run, &self.here, node)
    }

    fn enter(&mut self, list: List<'a>, made: Held) {
        self.stack.push(Level { list, dir: Arc::clone(&made.dir) });
        dir::release(self.run, std::mem::replace(&mut self.here, made));
        // A dry run cannot return through directories that it has not made.
        if !self.run.options.dry_run
            && let Some(i) = self.stack.len().checked_sub(self.open).filter(|i| *i > 0)
        {
            self.stack[i].dir.close();
        }
    }

    /// Leaves the current directory. Returns whether there is one above.
    fn leave(&mut self) -> bool {
        // Only the list is kept: the last holder of the directory sets its attributes.
        let Some(Level { list, .. }) = self.stack.pop() else { return false };
        if let Some(names) = list.names.filter(|_| !self.run.halted()) {
            delete::extras(self.run, &self.here, &names, list.chosen);
        }
        let Some(parent) = self.stack.last() else { return false };
        let dir = Arc::clone(&parent.dir);
        self.here.dir.close();
        match dir.reopen(&self.here.fd) {
            Ok(fd) => {
                dir::release(self.run, std::mem::replace(&mut self.here, Held { dir, fd }));
                true
            }
            Err(e) => {
                self.run.group.fail(e);
                false
            }
        }
    }
}
