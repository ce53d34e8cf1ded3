//! The walk before a reader of heads: the heads of the following files of the directory, in the order of the names.

use std::sync::Arc;

use super::ahead::Piece;
use super::heads::HeadPattern;
use super::layout::FileLayout;
use crate::context::Context;
use crate::vfs::attr::Fault;
use crate::vfs::inode_table::{DirInode, Inode};
use crate::vfs::{Mode, Vfs};

/// Entries between two files that are visited.
const ENTRIES: usize = 1000;

/// The rest of a directory behind a file whose head was read.
pub struct HeadWalk {
    dir: Arc<DirInode>,
    /// Position of the next entry; `None` after the last.
    next: Option<u32>,
    backwards: bool,
    bytes: u64,
    /// Only files of this type are visited.
    only: Option<Suffix>,
}

/// The end of a name that shows the type of the file, in lower case; empty if there is none.
type Suffix = Vec<u8>;

impl HeadWalk {
    /// Returns the pieces of the head of the next file. `None` after the last file.
    pub fn next(&mut self, ctx: &Context, vfs: &Vfs) -> Option<Vec<Piece>> {
        for _ in 0..ENTRIES {
            let position = self.next?;
            let found = vfs.at(&self.dir, position.into(), Mode::Fetch(ctx)).ok()??;
            self.next = self.behind(position);
            let (node, _) = found.node()?;
            if self.only.as_ref().is_some_and(|only| suffix(&node.name) != *only) {
                continue;
            }
            let Some(file) = FileLayout::of(self.dir.attr.ino, position, node).filter(|file| file.size > 0) else {
                continue;
            };
            // A file that cannot be read is reported to its reader.
            return Some(vfs.pieces(&file, 0..self.bytes.min(file.size), Mode::Fetch(ctx)).unwrap_or_default());
        }
        None
    }

    fn behind(&self, position: u32) -> Option<u32> {
        if self.backwards { position.checked_sub(1) } else { position.checked_add(1) }
    }
}

impl Vfs {
    /// Begins a walk behind a file whose head was read.
    pub(super) fn head_walk(&self, ctx: &Context, ino: u64, pattern: &HeadPattern) -> Result<HeadWalk, Fault> {
        let Some(Inode::Entry(dir, _)) = self.known_inode(ino) else { return Err(Fault::Stale) };
        let Some(&position) = pattern.positions.last().filter(|_| !dir.role.merges()) else {
            return Err(Fault::Invalid);
        };
        let mut suffixes = Vec::new();
        for position in &pattern.positions {
            let found = self.at(&dir, u64::from(*position), Mode::Fetch(ctx))?;
            suffixes.extend(found.as_ref().and_then(|found| found.node()).map(|(node, _)| suffix(&node.name)));
        }
        suffixes.dedup();
        let only = if suffixes.len() == 1 { suffixes.pop() } else { None };
        let HeadPattern { backwards, bytes, .. } = *pattern;
        let mut walk = HeadWalk { dir, next: None, backwards, bytes, only };
        walk.next = walk.behind(position);
        Ok(walk)
    }
}

fn suffix(name: &[u8]) -> Suffix {
    let at = name.iter().rposition(|b| *b == b'.');
    at.map(|at| name[at + 1..].to_ascii_lowercase()).unwrap_or_default()
}
