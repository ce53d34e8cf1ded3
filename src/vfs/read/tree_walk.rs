//! The walk of the read-ahead in a tree: the files that a copy of a directory reads next, in the order in which programs
//! read them: `cp` by inode number, which is the place on the server ([`crate::vfs::inode`]), others by name.

use super::ahead::Piece;
use crate::context::Context;
use crate::format::node::{Content, Node};
use crate::format::page::Page;
use crate::format::reference::{Extent, Ref};
use crate::trees::Branch;
use crate::vfs::attr::Fault;
use crate::vfs::inode_table::Inode;
use crate::vfs::{Mode, Vfs, inode};

/// Entries of one directory that are visited.
const ENTRIES: usize = 20_000;
/// Directories below each other that are visited.
const DEPTH: usize = 100;
/// Files up to this size are fetched; larger ones have a read-ahead of their own.
pub(super) const LARGEST: u64 = 1 << 20;

/// The rest of a tree behind a file.
pub struct TreeWalk {
    by_name: bool,
    /// The entries that are still to be visited, by level, the next one last.
    rest: Vec<Vec<Item>>,
}

/// An entry of a directory.
enum Item {
    /// The chunks of a file.
    File(Vec<Ref>),
    Directory(Ref),
}

/// The place of an entry in its directory: the first bits of its inode number, then its position.
type Place = (u16, u64);

impl TreeWalk {
    /// Returns the chunks of the next file; an empty list for a file without any. `None` after the last file.
    pub fn next(&mut self, ctx: &Context, vfs: &Vfs) -> Option<Vec<Piece>> {
        while let Some(level) = self.rest.last_mut() {
            match level.pop() {
                Some(Item::File(chunks)) => {
                    let pieces = chunks.into_iter().map(|chunk| Piece { chunk, part: 0..chunk.len });
                    return Some(pieces.collect());
                }
                Some(Item::Directory(page)) if self.rest.len() < DEPTH => {
                    // A directory that cannot be read is reported to its reader.
                    let entries = vfs.entries(ctx, &page).unwrap_or_default();
                    self.rest.push(ordered(entries, self.by_name, |_| true));
                }
                Some(Item::Directory(_)) => {}
                None => drop(self.rest.pop()),
            }
        }
        None
    }
}

impl Vfs {
    /// Begins a walk behind a file.
    pub(super) fn tree_walk(&self, ctx: &Context, ino: u64, by_name: bool) -> Result<TreeWalk, Fault> {
        let mut rest = Vec::new();
        let mut next = match self.known_inode(ino) {
            Some(Inode::Entry(dir, position)) => Some((dir, position)),
            _ => None,
        };
        while let Some((dir, position)) = next.filter(|(dir, _)| !dir.role.merges() && rest.len() < DEPTH) {
            let entries = dir.page.map(|page| self.entries(ctx, &page)).transpose()?.unwrap_or_default();
            let here = entries.iter().map(|(place, _)| *place).find(|place| place.1 == u64::from(position));
            rest.push(ordered(entries, by_name, |place| here.is_some_and(|here| is_behind(place, &here, by_name))));
            next = dir.parent.and_then(|(number, position)| Some((self.table().get_dir(number)?, position)));
        }
        rest.reverse();
        Ok(TreeWalk { by_name, rest })
    }

    /// Returns the files and directories of a directory, with their places.
    fn entries(&self, ctx: &Context, page: &Ref) -> Result<Vec<(Place, Item)>, Fault> {
        let (mut open, mut entries, mut position) = (vec![Branch::top(*page)], Vec::new(), 0);
        while let Some(branch) = open.pop().filter(|_| entries.len() < ENTRIES) {
            let directory = self.pages.directory(&branch.page, Mode::Fetch(ctx))?;
            branch.check(&directory.page)?;
            match &directory.page {
                Page::Upper(rows) => open.extend(branch.children(rows).rev()),
                Page::Leaf(nodes) => {
                    for node in nodes {
                        entries.extend(item(node).map(|(bits, item)| ((bits, position), item)));
                        position += 1;
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// Returns whether a reader comes to `place` after `here`. Entries with equal bits may come in any order.
fn is_behind(place: &Place, here: &Place, by_name: bool) -> bool {
    if by_name { place.1 > here.1 } else { place.1 != here.1 && place.0 >= here.0 }
}

/// Returns the entries with these places, the last one of the walk first.
fn ordered(mut entries: Vec<(Place, Item)>, by_name: bool, is_wanted: impl Fn(&Place) -> bool) -> Vec<Item> {
    entries.retain(|(place, _)| is_wanted(place));
    if !by_name {
        entries.sort_by_key(|(place, _)| *place);
    }
    entries.into_iter().rev().map(|(_, item)| item).collect()
}

/// Returns what the walk needs of a node, and the first bits of its inode number.
fn item(node: &Node) -> Option<(u16, Item)> {
    match &node.content {
        Content::Directory(Some(page)) => Some((inode::place(page), Item::Directory(*page))),
        Content::File(extents) if node.content.size() <= LARGEST => {
            let chunks: Vec<Ref> = extents.iter().filter_map(chunk).copied().collect();
            Some((chunks.first().map(inode::place)?, Item::File(chunks)))
        }
        _ => None,
    }
}

fn chunk(extent: &Extent) -> Option<&Ref> {
    if let Extent::Data(r) = extent { Some(r) } else { None }
}
