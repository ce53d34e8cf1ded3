//! Compares two trees: entries that were added, removed, changed or renamed.

use std::collections::HashMap;

use super::{Ahead, Below, Lockstep, Tops, Trees};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node, Xattrs};
use crate::format::own;
use crate::format::reference::{Extent, Ref};

/// Differences among which renamed entries are recognised: about 50 MB. In a comparison with more of them, an entry that
/// was renamed over a longer distance is reported as removed and added.
const WINDOW: usize = 64 << 10;

/// The difference of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is only in the new tree, a directory with all that is below it.
    Added,
    /// It is only in the old tree, a directory with all that is below it.
    Removed,
    /// It is in both trees. Entries of a directory are reported by themselves.
    Changed {
        /// The type, the bytes of a file, the target of a symlink or the number of a device is another one.
        content: bool,
        /// The mtime, the mode, the owner or an extended attribute is another one.
        attributes: bool,
    },
    /// It has another path and the same inode number; a file has the same content as well.
    Renamed,
}

/// An entry that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The kind of difference.
    pub change: Change,
    /// Path and node in the old tree.
    pub old: Option<(Vec<u8>, Node)>,
    /// Path and node in the new tree.
    pub new: Option<(Vec<u8>, Node)>,
}

impl Difference {
    /// Returns the directories that only one tree has at this path, each with its top page.
    fn one_sided(&self) -> Vec<(Change, Vec<u8>, Ref)> {
        let top = |side: &Option<(Vec<u8>, Node)>| match side {
            Some((path, Node { content: Content::Directory(Some(top)), .. })) => Some((path.clone(), *top)),
            _ => None,
        };
        let is_directory =
            |side: &Option<(Vec<u8>, Node)>| matches!(side, Some((_, Node { content: Content::Directory(_), .. })));
        if is_directory(&self.old) == is_directory(&self.new) {
            return Vec::new();
        }
        let old = top(&self.old).map(|(path, top)| (Change::Removed, path, top));
        let new = top(&self.new).map(|(path, top)| (Change::Added, path, top));
        old.into_iter().chain(new).collect()
    }

    /// Returns the path in the new tree, of a removed entry the path in the old one.
    pub fn path(&self) -> &[u8] {
        self.new.as_ref().or(self.old.as_ref()).map_or(b"", |(path, _)| path)
    }
}

/// Compares two directories, given their top pages, and reports each difference to `each` in the order of paths; changes
/// below a renamed directory come after all others. Subtrees that both have in common are not read. `is_recursive`:
/// everything below an added or removed directory is reported too. What cannot be read goes to `unreadable` with the path
/// of its directory, and the comparison continues.
///
/// # Errors
///
/// Errors other than damage, and errors of `each`.
pub fn compare(
    ctx: &Context,
    trees: &Trees<'_>,
    old: Option<&Ref>,
    new: Option<&Ref>,
    is_recursive: bool,
    each: &mut dyn FnMut(Difference) -> Result<()>,
    unreadable: &mut dyn FnMut(&[u8], &Error),
) -> Result<()> {
    let ahead = Ahead::new(ctx, trees);
    let (found, renamed) = Default::default();
    let mut comparison = Comparison { ctx, trees, ahead, is_recursive, found, renamed, each, unreadable };
    comparison.renamed.push(Pair { old: (Vec::new(), old.copied()), new: (Vec::new(), new.copied()) });
    while let Some(pair) = comparison.renamed.pop() {
        comparison.directories(pair)?;
        comparison.report()?;
    }
    Ok(())
}

/// Two directories that are compared: the path and the top page of each.
struct Pair {
    old: (Vec<u8>, Option<Ref>),
    new: (Vec<u8>, Option<Ref>),
}

impl Pair {
    fn tops(&self) -> Tops {
        Tops::pair(self.old.1, self.new.1)
    }
}

struct Comparison<'c> {
    ctx: &'c Context<'c>,
    trees: &'c Trees<'c>,
    ahead: Ahead<'c>,
    is_recursive: bool,
    /// Differences that are not reported yet.
    found: Vec<Difference>,
    /// Renamed directories, to be compared with their former entries.
    renamed: Vec<Pair>,
    each: &'c mut dyn FnMut(Difference) -> Result<()>,
    unreadable: &'c mut dyn FnMut(&[u8], &Error),
}

/// A directory of both trees on the way down.
struct Level<'c> {
    steps: Lockstep<'c>,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl<'c> Comparison<'c> {
    fn level(&mut self, pair: Pair) -> Result<Level<'c>> {
        let (trees, ctx) = (self.trees, self.ctx);
        self.ahead.visit(&pair.tops())?;
        let sides = [&pair.old.1, &pair.new.1].map(|top| trees.entries(ctx, top.as_ref()));
        Ok(Level { steps: Lockstep::new(sides.into()), old: pair.old.0, new: pair.new.0 })
    }

    fn directories(&mut self, top: Pair) -> Result<()> {
        let mut open = vec![self.level(top)?];
        while let Some(level) = open.last_mut() {
            let step = match level.steps.next() {
                None => {
                    open.pop();
                    continue;
                }
                Some(Err(e)) if e.kind().is_damage() => {
                    (self.unreadable)(&level.new, &e);
                    continue;
                }
                Some(step) => step?,
            };
            let path = |above: &[u8]| [above, b"/", step.name()].concat();
            let (old_path, new_path) = (path(&level.old), path(&level.new));
            let mut nodes = step.nodes.into_iter();
            let (old, new) = (nodes.next().flatten(), nodes.next().flatten());
            let old = old.map(|node| (old_path, node));
            let new = new.map(|node| (new_path, node));
            if let Some(below) = self.entry(old, new)? {
                if open.len() > limits::DEPTH {
                    return Err(Error::damaged("the directories are nested too deeply"));
                }
                open.push(self.level(below)?);
            }
            if self.found.len() >= WINDOW {
                self.report()?;
            }
        }
        Ok(())
    }

    /// Compares the nodes of both trees under one name. Returns the directories whose entries differ.
    fn entry(&mut self, old: Option<(Vec<u8>, Node)>, new: Option<(Vec<u8>, Node)>) -> Result<Option<Pair>> {
        let change = match (&old, &new) {
            (None, None) => return Ok(None),
            (None, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
            (Some((_, old)), Some((_, new))) => {
                Change::Changed { content: !self.same_content(old, new)?, attributes: !same_attributes(old, new) }
            }
        };
        let below = match (&old, &new) {
            (Some((old_path, old)), Some((new_path, new))) => different_pages(old, new)
                .map(|(old, new)| Pair { old: (old_path.clone(), old), new: (new_path.clone(), new) }),
            _ => None,
        };
        if change != (Change::Changed { content: false, attributes: false }) {
            self.found.push(Difference { change, old, new });
        }
        Ok(below)
    }

    /// Reports the differences found so far, with renamed entries recognised.
    fn report(&mut self) -> Result<()> {
        let mut removed: HashMap<u64, Vec<usize>> = HashMap::new();
        for (i, difference) in self.found.iter().enumerate() {
            if let (Change::Removed, Some((_, old))) = (difference.change, &difference.old) {
                removed.entry(old.inode).or_default().push(i);
            }
        }
        let mut found: Vec<_> = std::mem::take(&mut self.found).into_iter().map(Some).collect();
        for i in 0..found.len() {
            let Some(Difference { change: Change::Added, new: Some((new_path, new)), .. }) = &found[i] else {
                continue;
            };
            let candidates = removed.get(&new.inode).cloned().unwrap_or_default();
            let (new_path, new) = (new_path.clone(), new.clone());
            for candidate in candidates {
                let Some(Difference { old: Some((old_path, old)), .. }) = &found[candidate] else { continue };
                if old.attrs.fs != new.attrs.fs || !self.same_content(old, &new)? {
                    continue;
                }
                if let Some((old, new)) = different_pages(old, &new) {
                    self.renamed.push(Pair { old: (old_path.clone(), old), new: (new_path.clone(), new) });
                }
                let before = found[candidate].take().and_then(|difference| difference.old);
                found[i] = Some(Difference { change: Change::Renamed, old: before, new: Some((new_path, new)) });
                break;
            }
        }
        self.ahead.add(self.renamed.iter().rev().map(Pair::tops).collect());
        let found: Vec<Difference> = found.into_iter().flatten().collect();
        if self.is_recursive {
            self.ahead
                .add(found.iter().flat_map(Difference::one_sided).map(|(_, _, top)| Tops::all(vec![top])).collect());
        }
        found.into_iter().try_for_each(|difference| {
            let below = if self.is_recursive { difference.one_sided() } else { Vec::new() };
            (self.each)(difference)?;
            below.into_iter().try_for_each(|(change, path, top)| self.below(change, &path, top))
        })
    }

    /// Reports everything below a directory that one tree does not have.
    fn below(&mut self, change: Change, above: &[u8], top: Ref) -> Result<()> {
        self.ahead.visit(&Tops::all(vec![top]))?;
        for found in Below::new(self.ctx, self.trees, Some(top)) {
            let found = found?;
            let path = [above, b"/", &found.path].concat();
            let node = match found.node {
                Ok(node) => Some((path, node)),
                Err(e) => {
                    (self.unreadable)(&path, &e);
                    continue;
                }
            };
            let (old, new) = if change == Change::Removed { (node, None) } else { (None, node) };
            (self.each)(Difference { change, old, new })?;
        }
        Ok(())
    }

    /// Returns whether two nodes have one type and the same content. Directories always do: their entries are compared one by one.
    fn same_content(&mut self, old: &Node, new: &Node) -> Result<bool> {
        match (&old.content, &new.content) {
            (Content::Directory(_), Content::Directory(_)) => Ok(true),
            (Content::Large { list: a, .. }, Content::Large { list: b, .. }) if a.id == b.id => Ok(true),
            (a, b) if a.is_file() && b.is_file() => Ok(a.size() == b.size() && self.same_extents(a, b)?),
            (a, b) => Ok(a == b),
        }
    }

    /// Returns whether two files have the same chunks and holes, wherever the chunks are.
    fn same_extents(&mut self, old: &Content, new: &Content) -> Result<bool> {
        let what = |extent: Result<Extent>| {
            extent.map(|extent| match extent {
                Extent::Data(r) => (Some(r.id), u64::from(r.len)),
                Extent::Hole(len) => (None, len),
            })
        };
        let mut old = self.trees.extents(self.ctx, old).map(what);
        let mut new = self.trees.extents(self.ctx, new).map(what);
        loop {
            match (old.next().transpose(), new.next().transpose()) {
                (Ok(None), Ok(None)) => return Ok(true),
                (Ok(a), Ok(b)) if a == b => {}
                (Ok(_), Ok(_)) => return Ok(false),
                // Two lists of which one cannot be read are not the same list.
                (Err(e), _) | (_, Err(e)) if e.kind().is_damage() => return Ok(false),
                (Err(e), _) | (_, Err(e)) => return Err(e),
            }
        }
    }
}

/// Returns the top pages of two directories whose entries differ.
fn different_pages(old: &Node, new: &Node) -> Option<(Option<Ref>, Option<Ref>)> {
    match (&old.content, &new.content) {
        (Content::Directory(a), Content::Directory(b)) if a.map(|r| r.id) != b.map(|r| r.id) => Some((*a, *b)),
        _ => None,
    }
}

fn same_attributes(old: &Node, new: &Node) -> bool {
    let (a, b) = (&old.attrs, &new.attrs);
    old.mtime == new.mtime
        && (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid)
        && (&a.user, &a.group) == (&b.user, &b.group)
        && same_xattrs(old, new)
        && old.flags == new.flags
}

/// Compares extended attributes. Other names for the same users and groups in ACLs are no change of the file.
fn same_xattrs(old: &Node, new: &Node) -> bool {
    match (&old.xattrs, &new.xattrs) {
        (Xattrs::Stored(a), Xattrs::Stored(b)) => a.id == b.id,
        (Xattrs::Inline(a), Xattrs::Inline(b)) => without_names(a).eq(without_names(b)),
        _ => false,
    }
}

fn without_names(pairs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = &(Vec<u8>, Vec<u8>)> {
    pairs.iter().filter(|(name, _)| name != own::ACL_NAMES)
}

#[cfg(test)]
mod tests;
