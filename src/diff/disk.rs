//! Compares the tree of a snapshot with a directory on the disk. Both are walked in step, in the order of names.

use std::collections::HashMap;
use std::fs::Metadata;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::vec;

use super::root::Root;
use super::{Entry, Kind, Modifier, Report, Side};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node};
use crate::format::reference::Ref;
use crate::time::Time;
use crate::trees::{Ahead, Below, Entries, Tops, Trees};

/// Entries among which renamed ones are recognised.
const WINDOW: usize = 64 << 10;

/// A directory on the disk, and the way of comparing.
pub struct Disk<'d> {
    /// The directory.
    pub dir: &'d Path,
    /// Contents of files of the same size are read and compared. Otherwise a file of the same size and mtime is unchanged.
    pub contents: bool,
    /// Mode, owner, mtime and extended attributes are compared too.
    pub attributes: bool,
    /// Leaves out a path, given as an absolute one, and whether it is a directory.
    pub excludes: &'d dyn Fn(&[u8], bool) -> bool,
}

/// An entry that differs, with both sides, by which a renamed one is recognised.
struct Found {
    entry: Entry,
    node: Option<Node>,
    disk: Option<Metadata>,
}

/// A directory of both sides.
struct Pair {
    top: Option<Ref>,
    old: Vec<u8>,
    new: Vec<u8>,
}

struct Level<'c> {
    entries: Peekable<Entries<'c>>,
    names: Peekable<vec::IntoIter<Vec<u8>>>,
    old: Vec<u8>,
    new: Vec<u8>,
}

struct Walk<'c, 'r> {
    ctx: &'c Context<'c>,
    trees: &'c Trees<'c>,
    ahead: Ahead<'c>,
    disk: &'c Disk<'c>,
    root: Root,
    found: Vec<Found>,
    renamed: Vec<Pair>,
    report: Report<'r>,
}

/// Compares a directory of a snapshot, given its top page, with one on the disk.
///
/// # Errors
///
/// Errors other than damage that concern no single path, and errors of `report`.
pub fn with_disk(
    ctx: &Context,
    trees: &Trees<'_>,
    top: Option<&Ref>,
    disk: &Disk<'_>,
    report: Report<'_>,
) -> Result<()> {
    let root = Root::open(disk.dir).map_err(|e| Error::io(format!("read {}", disk.dir.display()), e))?;
    let ahead = Ahead::new(ctx, trees);
    let renamed = vec![Pair { top: top.copied(), old: Vec::new(), new: Vec::new() }];
    let mut walk = Walk { ctx, trees, ahead, disk, root, found: Vec::new(), renamed, report };
    while let Some(pair) = walk.renamed.pop() {
        walk.directories(pair)?;
        walk.flush()?;
    }
    Ok(())
}

impl<'c> Walk<'c, '_> {
    fn level(&mut self, pair: Pair) -> Result<Level<'c>> {
        self.ahead.visit(&Tops::all(pair.top.into_iter().collect()))?;
        let (trees, ctx) = (self.trees, self.ctx);
        let entries = trees.entries(ctx, pair.top.as_ref()).peekable();
        let names = self.names(&pair.new).into_iter().peekable();
        Ok(Level { entries, names, old: pair.old, new: pair.new })
    }

    /// Returns the names in a directory of the disk, ascending.
    fn names(&mut self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut names = self.root.names(path).unwrap_or_else(|e| {
            (self.report.unreadable)(path, &Error::io("read the folder", e));
            Vec::new()
        });
        names.sort_unstable();
        names
    }

    fn is_excluded(&self, path: &[u8], is_directory: bool) -> bool {
        let above = self.disk.dir.as_os_str().as_bytes();
        (self.disk.excludes)(&[above.strip_suffix(b"/").unwrap_or(above), path].concat(), is_directory)
    }

    fn directories(&mut self, pair: Pair) -> Result<()> {
        let mut open = vec![self.level(pair)?];
        while let Some(level) = open.last_mut() {
            self.ctx.check()?;
            if let Some(Err(e)) = level.entries.next_if(Result::is_err) {
                if !e.kind().is_damage() {
                    return Err(e);
                }
                (self.report.unreadable)(&level.old, &e);
                continue;
            }
            let old = level.entries.peek().and_then(|node| node.as_ref().ok()).map(|node| node.name.clone());
            let new = level.names.peek().cloned();
            let Some(name) = old.iter().chain(&new).min().cloned() else {
                open.pop();
                continue;
            };
            let node = level.entries.next_if(|node| node.as_ref().is_ok_and(|node| node.name == name)).transpose()?;
            let is_there = level.names.next_if(|other| *other == name).is_some();
            let [old, new] = [&level.old, &level.new].map(|above| [above, &b"/"[..], &name].concat());
            let disk = if is_there { self.stat(&new) } else { None };
            if let Some(below) = self.entry(old, new, node, disk)? {
                if open.len() > limits::DEPTH {
                    return Err(Error::damaged("the directories are nested too deeply"));
                }
                open.push(self.level(below)?);
            }
            if self.found.len() >= WINDOW {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn stat(&mut self, path: &[u8]) -> Option<Metadata> {
        match self.root.stat(path) {
            Ok(found) => Some(found),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None, // removed meanwhile
            Err(e) => {
                (self.report.unreadable)(path, &Error::io("read its attributes", e));
                None
            }
        }
    }

    /// Compares the entries of both sides under one name. Returns the directory that both have.
    fn entry(
        &mut self,
        old: Vec<u8>,
        new: Vec<u8>,
        node: Option<Node>,
        disk: Option<Metadata>,
    ) -> Result<Option<Pair>> {
        let is_directory =
            node.iter().any(|node| matches!(node.content, Content::Directory(_))) || disk.iter().any(Metadata::is_dir);
        if self.is_excluded(&new, is_directory) {
            return Ok(None);
        }
        let modifier = match (&node, &disk) {
            (None, None) => return Ok(None),
            (None, Some(_)) => Some(Modifier::Added),
            (Some(_), None) => Some(Modifier::Removed),
            (Some(node), Some(disk)) => match self.change(node, disk, &new) {
                Err(e) if e.kind().is_damage() || e.kind() == crate::error::Kind::Failed => {
                    (self.report.unreadable)(&new, &e);
                    None
                }
                change => change?,
            },
        };
        let below = match (&node, &disk) {
            (Some(Node { content: Content::Directory(top), .. }), Some(disk)) if disk.is_dir() => {
                Some(Pair { top: *top, old: old.clone(), new: new.clone() })
            }
            _ => None,
        };
        if let Some(modifier) = modifier {
            let path = if modifier == Modifier::Removed { old } else { new };
            let sides = (node.as_ref().map(Side::of), disk.as_ref().map(side));
            let entry = Entry { modifier, path, from: None, old: sides.0, new: sides.1 };
            self.found.push(Found { entry, node, disk });
        }
        Ok(below)
    }

    /// Returns how an entry of the disk differs from a node.
    fn change(&self, node: &Node, disk: &Metadata, path: &[u8]) -> Result<Option<Modifier>> {
        if !is_same_type(node, disk) {
            return Ok(Some(Modifier::Type));
        }
        let is_equal = match &node.content {
            Content::File(_) | Content::Large { .. } if node.content.size() != disk.size() => false,
            Content::File(_) | Content::Large { .. } if self.disk.contents => self.is_equal_file(node, path)?,
            Content::File(_) | Content::Large { .. } => node.mtime == mtime(disk),
            Content::Symlink(target) => {
                self.root.link_target(path).map_err(|e| Error::io("read the link", e))? == *target
            }
            Content::Block(major, minor) | Content::Char(major, minor) => {
                (rustix::fs::major(disk.rdev()), rustix::fs::minor(disk.rdev())) == (*major, *minor)
            }
            _ => true,
        };
        if !is_equal {
            return Ok(Some(Modifier::Content));
        }
        let differs = self.disk.attributes && !self.same_attributes(node, disk, path)?;
        Ok(differs.then_some(Modifier::Attributes))
    }

    fn is_equal_file(&self, node: &Node, path: &[u8]) -> Result<bool> {
        let file = self.root.file(path);
        self.trees.equals_file(self.ctx, &node.content, file.map_err(|e| Error::io("open the file", e))?)
    }

    fn same_attributes(&self, node: &Node, disk: &Metadata, path: &[u8]) -> Result<bool> {
        let attrs = &node.attrs;
        let is_equal = node.mtime == mtime(disk)
            && (attrs.uid, attrs.gid) == (disk.uid(), disk.gid())
            && (node.content == Content::Socket || u32::from(attrs.mode) == disk.mode() & 0o7777);
        Ok(is_equal && self.trees.xattrs_of_file(self.ctx, node)? == self.root.xattrs(path))
    }

    /// Recognises renamed entries among those found so far. Reports all, and everything below added and removed directories.
    fn flush(&mut self) -> Result<()> {
        let mut found: Vec<_> = std::mem::take(&mut self.found).into_iter().map(Some).collect();
        let mut removed: HashMap<u64, Vec<usize>> = HashMap::new();
        for (i, one) in found.iter().flatten().enumerate() {
            if let (Modifier::Removed, Some(node)) = (one.entry.modifier, &one.node) {
                removed.entry(node.inode).or_default().push(i);
            }
        }
        for i in 0..found.len() {
            let Some(Found { entry, disk: Some(disk), .. }) = &found[i] else { continue };
            let candidates = removed.get(&disk.ino()).filter(|_| entry.modifier == Modifier::Added);
            let is_renamed = |j: &&usize| {
                found[**j].as_ref().and_then(|old| old.node.as_ref()).is_some_and(|node| is_renamed(node, disk))
            };
            let Some(from) = candidates.and_then(|candidates| candidates.iter().find(is_renamed)).copied() else {
                continue;
            };
            let old = found[from].take();
            if let (Some(old), Some(new)) = (old, &mut found[i]) {
                self.rename(old, new);
            }
        }
        found.into_iter().flatten().try_for_each(|one| self.emit(one))
    }

    fn rename(&mut self, old: Found, new: &mut Found) {
        if let Some(Content::Directory(top)) = old.node.as_ref().map(|node| &node.content) {
            self.renamed.push(Pair { top: *top, old: old.entry.path.clone(), new: new.entry.path.clone() });
        }
        new.entry.modifier = Modifier::Renamed;
        new.entry.from = Some(old.entry.path);
        new.entry.old = old.entry.old;
        new.node = old.node;
    }

    fn emit(&mut self, one: Found) -> Result<()> {
        let Found { entry, node, disk } = one;
        let (modifier, path) = (entry.modifier, entry.path.clone());
        (self.report.entry)(entry)?;
        if !matches!(modifier, Modifier::Added | Modifier::Removed | Modifier::Type) {
            return Ok(());
        }
        if let Some(Node { content: Content::Directory(Some(top)), .. }) = node {
            self.removed(&path, top)?;
        }
        if disk.is_some_and(|disk| disk.is_dir()) { self.added(path) } else { Ok(()) }
    }

    /// Reports everything below a directory that the disk does not have.
    fn removed(&mut self, above: &[u8], top: Ref) -> Result<()> {
        for found in Below::new(self.ctx, self.trees, Some(top)) {
            let found = found?;
            let path = [above, b"/", &found.path].concat();
            match found.node {
                Err(e) => (self.report.unreadable)(&path, &e),
                Ok(node) => {
                    let old = Some(Side::of(&node));
                    (self.report.entry)(Entry { modifier: Modifier::Removed, path, from: None, old, new: None })?;
                }
            }
        }
        Ok(())
    }

    /// Reports everything below a directory that the snapshot does not have.
    fn added(&mut self, path: Vec<u8>) -> Result<()> {
        let mut open = vec![(self.names(&path).into_iter(), path)];
        while let Some((names, above)) = open.last_mut() {
            self.ctx.check()?;
            let Some(name) = names.next() else {
                open.pop();
                continue;
            };
            let path = [above, &b"/"[..], &name].concat();
            let Some(disk) = self.stat(&path) else { continue };
            if self.is_excluded(&path, disk.is_dir()) {
                continue;
            }
            let new = Some(side(&disk));
            (self.report.entry)(Entry { modifier: Modifier::Added, path: path.clone(), from: None, old: None, new })?;
            if disk.is_dir() {
                open.push((self.names(&path).into_iter(), path));
            }
        }
        Ok(())
    }
}

fn mtime(disk: &Metadata) -> Time {
    Time::new(disk.mtime(), u32::try_from(disk.mtime_nsec()).unwrap_or(0))
}

fn side(disk: &Metadata) -> Side {
    let kind = match disk.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Directory,
        _ => Kind::Other,
    };
    Side { kind, size: if kind == Kind::File { disk.size() } else { 0 } }
}

fn is_same_type(node: &Node, disk: &Metadata) -> bool {
    let kind = disk.file_type();
    match node.content {
        Content::File(_) | Content::Large { .. } => kind.is_file(),
        Content::Directory(_) => kind.is_dir(),
        Content::Symlink(_) => kind.is_symlink(),
        Content::Block(..) => kind.is_block_device(),
        Content::Char(..) => kind.is_char_device(),
        Content::Fifo => kind.is_fifo(),
        Content::Socket => kind.is_socket(),
        Content::Unreadable(_) => false,
    }
}

/// Returns whether an entry of the disk, with the inode number of this node, is the same one under another name.
fn is_renamed(node: &Node, disk: &Metadata) -> bool {
    let is_file = disk.is_file();
    is_same_type(node, disk) && (!is_file || (node.content.size() == disk.size() && node.mtime == mtime(disk)))
}
