//! The index by inode number of all files and directories of the parents.
//!
//! It holds an [`Entry`] for each file and directory and a [`Leaf`] for each leaf page of a directory, but no node: a
//! million files in 50,000 directories take 17 + 4 MB. A hit reads the page again.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use super::old::OldNode;
use super::times::begun_nanoseconds;
use crate::context::Context;
use crate::error::Result;
use crate::format::node::{Content, Node};
use crate::format::page::Page;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::time::Time;
use crate::trees::{Branch, Trees};

/// Bound of the index in bytes. Of a larger tree only the directories are indexed, and beyond the bound nothing.
const MOST: usize = 64 << 20;
/// Decoded pages that are kept: neighbours are mostly renamed together.
const PAGES: NonZeroUsize = NonZeroUsize::new(32).expect("positive");
/// Bound of the nodes of one inode number that are examined: links of one file, and files of other file systems.
const CANDIDATES: usize = 16;

/// Inode number (upper and lower half), [`tag`], number of the leaf.
type Entry = [u32; 4];

/// A leaf page of a directory.
struct Leaf {
    page: Ref,
    /// When the push that saved it started, in nanoseconds.
    begun: i64,
    /// The directory's own node; `None` for the root.
    above: Option<Position>,
}

/// A node: the number of its leaf, and its index there.
#[derive(Clone, Copy)]
struct Position {
    leaf: u32,
    at: u32,
}

/// A page that is not read yet, and the node of its directory.
struct Unread {
    branch: Branch,
    above: Option<Position>,
}

/// The index.
pub struct InodeIndex {
    entries: Vec<Entry>,
    leaves: Vec<Leaf>,
    pages: Mutex<LruCache<u32, Arc<Vec<Node>>>>,
}

/// A node of a parent with the wanted inode number.
pub struct Candidate {
    pub old: OldNode,
    leaf: u32,
}

/// The path and the inode number of a directory of a parent.
pub struct OldPath {
    pub path: Vec<u8>,
    pub inode: u64,
}

/// The tag of directories.
pub const DIRECTORY: u32 = 0;

/// Hashes size and modification time of a file, so that an inode number that another file has now costs no page.
pub fn tag(size: u64, mtime: Time) -> u32 {
    let hash = mix(mix(mix(1, size), mtime.seconds as u64), mtime.nanoseconds.into());
    (hash as u32).max(DIRECTORY + 1)
}

fn mix(sum: u64, part: u64) -> u64 {
    (sum ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

fn entry(node: &Node, leaf: u32, directories_only: bool) -> Option<Entry> {
    let tag = match &node.content {
        Content::Directory(Some(_)) => DIRECTORY,
        Content::File(_) | Content::Large { .. } if !directories_only => tag(node.content.size(), node.mtime),
        _ => return None,
    };
    Some([(node.inode >> 32) as u32, node.inode as u32, tag, leaf])
}

impl InodeIndex {
    /// Reads the trees of all parents. Damaged pages are left out; the walk reports them.
    pub fn read(ctx: &Context, trees: &Trees<'_>, parents: &[Snapshot]) -> Result<Self> {
        let (mut index, directories_only) = InodeIndex::with_room_for(parents);
        let mut seen = HashSet::new();
        for parent in parents {
            let mut unread = Vec::new();
            unread.extend(parent.root.map(|page| Unread { branch: Branch::top(page), above: None }));
            while let Some(Unread { branch, above }) = unread.pop() {
                ctx.check()?;
                if index.bytes() > MOST || parents.len() > 1 && !seen.insert(branch.page.id) {
                    continue;
                }
                match trees.page(ctx, &branch) {
                    Ok((_, Page::Upper(rows))) => {
                        unread.extend(branch.children(&rows).rev().map(|branch| Unread { branch, above }));
                    }
                    Ok((page, Page::Leaf(nodes))) => {
                        let leaf = Leaf { page, begun: begun_nanoseconds(parent), above };
                        unread.extend(index.add(leaf, &nodes, directories_only));
                    }
                    Err(e) if e.kind().is_damage() => {}
                    Err(e) => return Err(e),
                }
            }
        }
        index.entries.sort_unstable();
        Ok(index)
    }

    /// Makes an empty index with room for these trees, and decides whether it can hold more than directories.
    fn with_room_for(parents: &[Snapshot]) -> (Self, bool) {
        let files = parents.iter().fold(0, |sum: u64, s| sum.saturating_add(s.stats.files));
        let directories = parents.iter().fold(0, |sum: u64, s| sum.saturating_add(s.stats.directories));
        let bytes = files
            .saturating_mul(size_of::<Entry>() as u64 + 1)
            .saturating_add(directories.saturating_mul((size_of::<Entry>() + size_of::<Leaf>()) as u64));
        let directories_only = bytes > MOST as u64;
        // Reserved, because a vector that grows needs twice its memory for a moment.
        let expected = if directories_only { directories } else { files.saturating_add(directories) };
        let mut entries = Vec::new();
        entries.reserve_exact(expected.min((MOST / size_of::<Entry>()) as u64) as usize);
        let pages = Mutex::new(LruCache::new(PAGES));
        (InodeIndex { entries, leaves: Vec::new(), pages }, directories_only)
    }

    /// Adds a leaf page. Returns the directories in it, the first one last.
    fn add(&mut self, leaf: Leaf, nodes: &[Node], directories_only: bool) -> Vec<Unread> {
        let number = self.leaves.len() as u32;
        self.entries.extend(nodes.iter().filter_map(|node| entry(node, number, directories_only)));
        self.leaves.push(leaf);
        let mut below = Vec::new();
        for (at, node) in nodes.iter().enumerate().rev() {
            if let Content::Directory(Some(page)) = node.content {
                let above = Some(Position { leaf: number, at: at as u32 });
                below.push(Unread { branch: Branch::top(page), above });
            }
        }
        below
    }

    fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.leaves.len() * size_of::<Leaf>()
    }

    /// Returns the nodes of this inode number and tag, the newest parent first.
    pub fn find(&self, ctx: &Context, trees: &Trees<'_>, inode: u64, tag: u32) -> Result<Vec<Candidate>> {
        let key = [(inode >> 32) as u32, inode as u32, tag];
        let start = self.entries.partition_point(|entry| entry[..3] < key[..]);
        let mut leaves: Vec<u32> = self.entries[start..].iter().take_while(|e| e[..3] == key).map(|e| e[3]).collect();
        leaves.dedup();
        let mut candidates = Vec::new();
        for leaf in leaves.into_iter().take(CANDIDATES) {
            let begun = self.leaves[leaf as usize].begun;
            for node in self.nodes(ctx, trees, leaf)?.iter().filter(|node| node.inode == inode).take(CANDIDATES) {
                candidates.push(Candidate { old: OldNode { node: node.clone(), renamed: true, begun }, leaf });
            }
        }
        Ok(candidates)
    }

    fn nodes(&self, ctx: &Context, trees: &Trees<'_>, leaf: u32) -> Result<Arc<Vec<Node>>> {
        if let Some(nodes) = self.pages.lock().expect("no holder panics").get(&leaf) {
            return Ok(Arc::clone(nodes));
        }
        let nodes = Arc::new(match trees.page(ctx, &Branch::top(self.leaves[leaf as usize].page)) {
            Ok((_, Page::Leaf(nodes))) => nodes,
            Err(e) if !e.kind().is_damage() => return Err(e),
            _ => Vec::new(),
        });
        self.pages.lock().expect("no holder panics").put(leaf, Arc::clone(&nodes));
        Ok(nodes)
    }

    /// Returns the directory of a candidate; `None` for the root, and if a page above cannot be read.
    pub fn directory(&self, ctx: &Context, trees: &Trees<'_>, candidate: &Candidate) -> Result<Option<OldPath>> {
        let (mut parts, mut inode) = (Vec::new(), None);
        let mut next = self.leaves[candidate.leaf as usize].above;
        while let Some(Position { leaf, at }) = next {
            let nodes = self.nodes(ctx, trees, leaf)?;
            let Some(node) = nodes.get(at as usize) else { return Ok(None) };
            inode.get_or_insert(node.inode);
            parts.push(node.name.clone());
            next = self.leaves[leaf as usize].above;
        }
        let path = parts.iter().rev().flat_map(|name| [b"/".as_slice(), name]).collect::<Vec<_>>().concat();
        Ok(inode.map(|inode| OldPath { path, inode }))
    }
}
