//! Searches the trees of many snapshots for paths, and groups equal nodes of a path to versions.
//!
//! In: snapshots and a test of a node. Out: for each path that has a match, its versions, each with the snapshots that have
//! it. All trees are walked as one: a page that several snapshots have at one path is read once.

mod set;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::context::Context;
use crate::crypto::keys::ChunkId;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node, Xattrs};
use crate::format::page::Page;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::trees::{Ahead, Branch, Tops, Trees};
use set::Set;

/// A node that is equal in one or more snapshots.
#[derive(Clone, Debug)]
pub struct Version {
    /// The node.
    pub node: Node,
    /// The first snapshot that has it, as an index into the snapshots that were given.
    pub first: usize,
    /// The last snapshot that has it.
    pub last: usize,
    /// The number of snapshots that have it.
    pub count: usize,
}

/// Takes a path and its versions.
pub type TakeVersions<'r> = dyn FnMut(&[u8], Vec<Version>) -> Result<()> + 'r;

/// Chooses nodes and receives their versions.
pub struct Report<'r> {
    /// Returns whether a node at an absolute path matches.
    pub matches: &'r dyn Fn(&[u8], &Node) -> bool,
    /// Takes the versions of a path that match, by their first snapshot.
    pub found: &'r mut TakeVersions<'r>,
    /// Takes the path of a directory of which a page cannot be read.
    pub unreadable: &'r mut dyn FnMut(&[u8], &Error),
}

/// A directory in some of the snapshots: each distinct top page, with the snapshots that have it.
type Directory = BTreeMap<ChunkId, (Ref, Arc<Set>)>;

/// The nodes under one name that match, with their snapshots.
type Matches = Vec<(Node, Set)>;

/// Searches these snapshots, which are in the order of their times. Paths come in the order of a walk.
///
/// # Errors
///
/// Errors other than damage, and errors of `report`.
pub fn find(ctx: &Context, trees: &Trees<'_>, snapshots: &[Snapshot], report: Report<'_>) -> Result<()> {
    let mut roots = Directory::new();
    for (i, snapshot) in snapshots.iter().enumerate() {
        if let Some(root) = snapshot.root {
            add(&mut roots, root, &Set::one(i, snapshots.len()));
        }
    }
    let mut search = Search { ctx, trees, ahead: Ahead::new(ctx, trees), report };
    let mut open = vec![vec![(Vec::new(), roots)].into_iter()];
    while let Some(level) = open.last_mut() {
        let Some((path, directory)) = level.next() else {
            open.pop();
            continue;
        };
        let below = search.directory(&path, directory)?;
        if open.len() > limits::DEPTH {
            return Err(Error::damaged("the directories are nested too deeply"));
        }
        open.push(below.into_iter());
    }
    Ok(())
}

fn add(directory: &mut Directory, top: Ref, snapshots: &Set) {
    let (_, set) = directory.entry(top.id).or_insert_with(|| (top, Arc::new(snapshots.clone())));
    Arc::make_mut(set).add(snapshots);
}

struct Search<'s, 'r> {
    ctx: &'s Context<'s>,
    trees: &'s Trees<'s>,
    ahead: Ahead<'s>,
    report: Report<'r>,
}

impl Search<'_, '_> {
    /// Searches one directory in all snapshots. Returns the directories below it.
    fn directory(&mut self, path: &[u8], directory: Directory) -> Result<Vec<(Vec<u8>, Directory)>> {
        self.ahead.visit(&Tops::all(directory.values().map(|(top, _)| *top).collect()))?;
        let mut pages: BTreeMap<(Vec<u8>, ChunkId), (Branch, Set)> = BTreeMap::new();
        for (top, snapshots) in directory.into_values() {
            pages.insert((Vec::new(), top.id), (Branch::top(top), (*snapshots).clone()));
        }
        let (mut matches, mut below) = (BTreeMap::new(), BTreeMap::new());
        while let Some((_, (branch, snapshots))) = pages.pop_first() {
            self.ctx.check()?;
            match self.trees.page(self.ctx, &branch) {
                Ok((_, Page::Upper(rows))) => {
                    for child in branch.children(&rows) {
                        let key = (child.first().unwrap_or_default().to_vec(), child.page.id);
                        let (_, set) = pages.entry(key).or_insert_with(|| (child, snapshots.clone()));
                        set.add(&snapshots);
                    }
                }
                Ok((_, Page::Leaf(nodes))) => {
                    let snapshots = Arc::new(snapshots);
                    nodes.into_iter().for_each(|node| self.node(path, node, &snapshots, &mut matches, &mut below));
                }
                Err(e) if e.kind().is_damage() => (self.report.unreadable)(path, &e),
                Err(e) => return Err(e),
            }
        }
        for (name, nodes) in matches {
            self.report(&[path, b"/", name.as_slice()].concat(), nodes)?;
        }
        Ok(below.into_iter().map(|(name, tops)| ([path, b"/", name.as_slice()].concat(), tops)).collect())
    }

    fn node(
        &self,
        above: &[u8],
        node: Node,
        snapshots: &Arc<Set>,
        matches: &mut BTreeMap<Vec<u8>, Matches>,
        below: &mut BTreeMap<Vec<u8>, Directory>,
    ) {
        if let Content::Directory(Some(top)) = node.content {
            let tops = below.entry(node.name.clone()).or_default();
            tops.entry(top.id)
                .and_modify(|(_, set)| Arc::make_mut(set).add(snapshots))
                .or_insert_with(|| (top, Arc::clone(snapshots)));
        }
        let path = [above, b"/", node.name.as_slice()].concat();
        if !(self.report.matches)(&path, &node) {
            return;
        }
        let versions = matches.entry(node.name.clone()).or_default();
        match versions.iter_mut().find(|(other, _)| is_same(other, &node)) {
            Some((_, set)) => set.add(snapshots),
            None => versions.push((node, (**snapshots).clone())),
        }
    }

    fn report(&mut self, path: &[u8], nodes: Matches) -> Result<()> {
        let mut versions: Vec<Version> = nodes
            .into_iter()
            .filter_map(|(node, set)| {
                Some(Version { node, first: set.first()?, last: set.last()?, count: set.count() })
            })
            .collect();
        versions.sort_by_key(|version| (version.first, version.last));
        (self.report.found)(path, versions)
    }
}

/// Returns whether two nodes of one path are the same version. A directory is the same whatever it holds.
fn is_same(a: &Node, b: &Node) -> bool {
    let content = match (&a.content, &b.content) {
        (Content::Directory(_), Content::Directory(_)) => true,
        (Content::File(x), Content::File(y)) => {
            use crate::format::reference::Extent;
            let same = |pair: (&Extent, &Extent)| match pair {
                (Extent::Data(x), Extent::Data(y)) => x.id == y.id,
                (x, y) => x == y,
            };
            x.len() == y.len() && x.iter().zip(y).all(same)
        }
        (Content::Large { size, list }, Content::Large { size: other, list: b }) => size == other && list.id == b.id,
        (x, y) => x == y,
    };
    let xattrs = match (&a.xattrs, &b.xattrs) {
        (Xattrs::Stored(x), Xattrs::Stored(y)) => x.id == y.id,
        (x, y) => x == y,
    };
    // The number of the file system is not compared: it depends on what else was saved.
    let owner = |node: &Node| {
        let attrs = &node.attrs;
        (attrs.mode, attrs.uid, attrs.gid, attrs.user.clone(), attrs.group.clone())
    };
    let is_directory = matches!(a.content, Content::Directory(_));
    content && xattrs && owner(a) == owner(b) && (is_directory || a.mtime == b.mtime) && a.flags == b.flags
}
