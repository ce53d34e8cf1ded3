//! One directory in all snapshots: the entries of its distinct pages, with the snapshots that have each.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::Names;
use super::report::{Report, Version};
use super::set::Set;
use crate::crypto::keys::ChunkId;
use crate::error::{Error, Result};
use crate::format::node::{Content, Node, Xattrs};
use crate::format::page::Page;
use crate::format::reference::{Extent, Ref};
use crate::trees::Branch;

/// The distinct top pages of a directory, each with the snapshots that have it.
#[derive(Default)]
pub struct Tops(Vec<Top>);

struct Top {
    page: Ref,
    snapshots: Arc<Set>,
}

impl Tops {
    /// Adds the top page of some snapshots.
    pub fn add(&mut self, page: Ref, snapshots: &Arc<Set>) {
        // Snapshots come about in their order, and most have the page of the one before.
        match self.0.iter_mut().rev().find(|top| top.page.id == page.id) {
            Some(top) => Arc::make_mut(&mut top.snapshots).add(snapshots),
            None => self.0.push(Top { page, snapshots: Arc::clone(snapshots) }),
        }
    }

    /// Returns the number of pages.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the bytes of the pages.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|top| u64::from(top.page.len)).sum()
    }
}

/// A directory that is to be read.
pub struct Directory {
    /// Its absolute path, without a slash at the end.
    pub path: Vec<u8>,
    /// The directories above it.
    pub depth: usize,
    /// Its top pages.
    pub tops: Tops,
}

/// A path with a match.
pub struct Found {
    pub path: Vec<u8>,
    /// By their first snapshot.
    pub versions: Vec<Version>,
}

/// The matches in a directory.
pub struct Outcome {
    /// The path of the directory.
    pub path: Vec<u8>,
    /// The matches, by name.
    pub found: Vec<Found>,
    /// The errors of pages that cannot be read.
    pub unreadable: Vec<Error>,
    /// Bytes of the matches, about.
    pub weight: usize,
}

/// A page that is to be read, with the snapshots that have it.
pub struct OpenPage {
    pub branch: Branch,
    pub snapshots: Set,
}

/// A directory of which pages are being read.
pub struct Reading {
    path: Vec<u8>,
    /// The pages that are to be read next.
    open: Vec<OpenPage>,
    /// The places of the pages in `open`.
    places: HashMap<ChunkId, usize>,
    names: Names<Name>,
    unreadable: Vec<Error>,
}

/// The entries under one name.
#[derive(Default)]
struct Name {
    /// Whether the path matches, if it is known: of a directory, and of anything else.
    matches: [Option<bool>; 2],
    /// The entries that match.
    versions: Vec<Match>,
    tops: Tops,
}

/// A node that matches, with the snapshots that have it.
struct Match {
    node: Node,
    snapshots: Set,
}

impl Reading {
    /// Begins to read a directory.
    pub fn new(directory: &Directory) -> Self {
        let page = |top: &Top| OpenPage { branch: Branch::top(top.page), snapshots: (*top.snapshots).clone() };
        let (places, names, unreadable) = Default::default();
        let open = directory.tops.0.iter().map(page).collect();
        Reading { path: directory.path.clone(), open, places, names, unreadable }
    }

    /// Takes the pages that are to be read next.
    pub fn take(&mut self) -> std::vec::IntoIter<OpenPage> {
        self.places.clear();
        std::mem::take(&mut self.open).into_iter()
    }

    /// Adds a page of some snapshots.
    ///
    /// # Errors
    ///
    /// The error of the page, if it is no damage.
    pub fn add(&mut self, report: &Report<'_>, branch: &Branch, snapshots: Set, page: Result<Page>) -> Result<()> {
        match page {
            Ok(Page::Upper(rows)) => branch.children(&rows).for_each(|child| self.child(child, &snapshots)),
            Ok(Page::Leaf(nodes)) => {
                let snapshots = Arc::new(snapshots);
                nodes.into_iter().for_each(|node| self.node(report, node, &snapshots));
            }
            Err(e) if e.kind().is_damage() => self.unreadable.push(e),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn child(&mut self, child: Branch, snapshots: &Set) {
        let place = *self.places.entry(child.page.id).or_insert(self.open.len());
        match self.open.get_mut(place) {
            Some(page) => page.snapshots.add(snapshots),
            None => self.open.push(OpenPage { branch: child, snapshots: snapshots.clone() }),
        }
    }

    fn node(&mut self, report: &Report<'_>, node: Node, snapshots: &Arc<Set>) {
        let name = self.names.get(&node.name);
        if let Content::Directory(Some(top)) = node.content {
            name.tops.add(top, snapshots);
        }
        let is_directory = matches!(node.content, Content::Directory(_));
        let known = &mut name.matches[usize::from(is_directory)];
        let matches = *known.get_or_insert_with(|| (report.matches_path)(&join(&self.path, &node.name), is_directory));
        if !matches || !(report.matches)(&node) {
            return;
        }
        match name.versions.iter_mut().rev().find(|known| is_same(&known.node, &node)) {
            Some(known) => known.snapshots.add(snapshots),
            None => name.versions.push(Match { node, snapshots: (**snapshots).clone() }),
        }
    }

    /// Returns the matches, and the directories below this one.
    pub fn end(self, directory: &Directory) -> (Outcome, Vec<Directory>) {
        let (mut found, mut below, mut weight) = (Vec::new(), Vec::new(), 0);
        for (name, Name { versions, tops, .. }) in self.names.into_sorted() {
            if !versions.is_empty() {
                weight += versions.iter().map(|known| known.node.weight()).sum::<usize>();
                found.push(Found { path: join(&self.path, &name), versions: by_first(versions) });
            }
            if tops.len() > 0 {
                below.push(Directory { path: join(&self.path, &name), depth: directory.depth + 1, tops });
            }
        }
        (Outcome { path: self.path, found, unreadable: self.unreadable, weight }, below)
    }
}

impl Match {
    fn version(self) -> Option<Version> {
        let Match { node, snapshots: set } = self;
        Some(Version { node, first: set.first()?, last: set.last()?, count: set.count() })
    }
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    [above, b"/", name].concat()
}

/// Returns versions by their first snapshot.
fn by_first(matches: Vec<Match>) -> Vec<Version> {
    let mut versions: Vec<Version> = matches.into_iter().filter_map(Match::version).collect();
    versions.sort_by_key(|version| (version.first, version.last));
    versions
}

/// Returns whether two nodes of one path are the same version. A directory is the same whatever it holds.
fn is_same(a: &Node, b: &Node) -> bool {
    let is_directory = matches!(a.content, Content::Directory(_));
    (is_directory || a.mtime == b.mtime)
        && a.flags == b.flags
        && has_same_content(&a.content, &b.content)
        && has_same_owner(a, b)
        && match (&a.xattrs, &b.xattrs) {
            (Xattrs::Stored(x), Xattrs::Stored(y)) => x.id == y.id,
            (x, y) => x == y,
        }
}

fn has_same_content(a: &Content, b: &Content) -> bool {
    match (a, b) {
        (Content::Directory(_), Content::Directory(_)) => true,
        (Content::File(x), Content::File(y)) => {
            let is_same = |pair: (&Extent, &Extent)| match pair {
                (Extent::Data(x), Extent::Data(y)) => x.id == y.id,
                (x, y) => x == y,
            };
            x.len() == y.len() && x.iter().zip(y).all(is_same)
        }
        (Content::Large { size, list }, Content::Large { size: other, list: b }) => size == other && list.id == b.id,
        (x, y) => x == y,
    }
}

/// Compares mode and owner. The number of the file system is not compared: it depends on what else was saved.
fn has_same_owner(a: &Node, b: &Node) -> bool {
    let (a, b) = (&a.attrs, &b.attrs);
    (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid) && (&a.user, &a.group) == (&b.user, &b.group)
}
