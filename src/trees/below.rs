//! Visits everything below a directory in the order of paths, with read-ahead.

use super::{Ahead, Entries, Tops, Trees};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node};
use crate::format::reference::Ref;

/// A node below a directory.
pub struct Found {
    /// Its path, relative to the directory, without a slash in front.
    pub path: Vec<u8>,
    /// The directories between the top and the node; 0 for an entry of the top.
    pub depth: usize,
    /// The node, or why the rest of the directory `path` cannot be read.
    pub node: Result<Node>,
}

/// The nodes below a directory, each directory before its entries. Walks with an own stack, so that no depth of a tree can
/// overflow the stack of the thread.
pub struct Below<'t> {
    ctx: &'t Context<'t>,
    trees: &'t Trees<'t>,
    ahead: Ahead<'t>,
    /// The open directories: their entries, and the length of their path.
    stack: Vec<(Entries<'t>, usize)>,
    path: Vec<u8>,
    /// The directory that was returned last and is still to be entered.
    next: Option<Ref>,
}

impl<'t> Below<'t> {
    /// Walks the entries of the directory with this top page, and all below them.
    pub fn new(ctx: &'t Context<'t>, trees: &'t Trees<'t>, top: Option<Ref>) -> Self {
        Below { ctx, trees, ahead: Ahead::new(ctx, trees), stack: Vec::new(), path: Vec::new(), next: top }
    }

    /// Does not enter the directory that was returned last.
    pub fn skip(&mut self) {
        self.next = None;
    }

    fn enter(&mut self, top: Ref) -> Result<()> {
        if self.stack.len() > limits::DEPTH {
            return Err(Error::damaged("the directories are nested too deeply"));
        }
        self.ahead.visit(&Tops::all(vec![top]))?;
        self.stack.push((self.trees.entries(self.ctx, Some(&top)), self.path.len()));
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Found>> {
        if let Some(top) = self.next.take() {
            self.enter(top)?;
        }
        loop {
            let depth = self.stack.len().saturating_sub(1);
            let Some((entries, length)) = self.stack.last_mut() else { return Ok(None) };
            self.path.truncate(*length);
            match entries.next() {
                None => drop(self.stack.pop()),
                Some(Err(e)) if e.kind().is_damage() => {
                    let above = depth.saturating_sub(1);
                    return Ok(Some(Found { path: self.path.clone(), depth: above, node: Err(e) }));
                }
                Some(node) => {
                    let node = node?;
                    if !self.path.is_empty() {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(&node.name);
                    self.next = if let Content::Directory(top) = &node.content { *top } else { None };
                    return Ok(Some(Found { path: self.path.clone(), depth, node: Ok(node) }));
                }
            }
        }
    }
}

impl Iterator for Below<'_> {
    type Item = Result<Found>;

    /// Returns the next node. An error that is no damage ends the walk.
    fn next(&mut self) -> Option<Result<Found>> {
        self.step().inspect_err(|_| self.stack.clear()).transpose()
    }
}
