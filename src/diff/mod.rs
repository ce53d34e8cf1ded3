//! Compares two snapshots, or a snapshot with a directory on the disk.
//!
//! In: two trees, or a tree and a path. Out: one [`Entry`] for each path that differs, and a [`Summary`].

mod disk;
mod folders;
mod root;
mod summary;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::node::{Content, Node};
use crate::format::reference::Ref;
use crate::trees::{self, Change, Difference, Trees};

pub use disk::{Disk, with_disk};
pub use folders::{Folder, Folders};
pub use summary::{Counts, Summary};

/// The kind of difference of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// It is only on the new side.
    Added,
    /// It is only on the old side.
    Removed,
    /// A file has other contents, a symlink another target, a device another number.
    Content,
    /// Only mode, owner, times or extended attributes differ.
    Attributes,
    /// A file became a directory, for example.
    Type,
    /// It has another path.
    Renamed,
}

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// One side of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The type.
    pub kind: Kind,
    /// Bytes of a file, else 0.
    pub size: u64,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kind of difference.
    pub modifier: Modifier,
    /// The path on the new side, of a removed entry that on the old side; relative to the compared directories.
    pub path: Vec<u8>,
    /// The old path of a renamed entry.
    pub from: Option<Vec<u8>>,
    /// The old side.
    pub old: Option<Side>,
    /// The new side.
    pub new: Option<Side>,
}

/// Receives entries and directories that cannot be read.
pub struct Report<'r> {
    /// Takes each entry.
    pub entry: &'r mut dyn FnMut(Entry) -> Result<()>,
    /// Takes the path of a directory or file that cannot be read.
    pub unreadable: &'r mut dyn FnMut(&[u8], &Error),
}

impl Side {
    fn of(node: &Node) -> Self {
        let kind = match node.content {
            Content::File(_) | Content::Large { .. } => Kind::File,
            Content::Directory(_) => Kind::Directory,
            _ => Kind::Other,
        };
        Side { kind, size: if kind == Kind::File { node.content.size() } else { 0 } }
    }
}

/// Compares two directories of snapshots, given their top pages. Subtrees that both have in common are not read.
///
/// # Errors
///
/// Errors other than damage, and errors of `report`.
pub fn snapshots(
    ctx: &Context,
    trees: &Trees<'_>,
    old: Option<&Ref>,
    new: Option<&Ref>,
    report: Report<'_>,
) -> Result<()> {
    let each = &mut |difference: Difference| (report.entry)(entry(difference));
    trees::compare(ctx, trees, old, new, true, each, report.unreadable)
}

fn entry(difference: Difference) -> Entry {
    let [old, new] =
        [&difference.old, &difference.new].map(|side| side.as_ref().map(|(path, node)| (path, Side::of(node), node)));
    let modifier = match difference.change {
        Change::Added => Modifier::Added,
        Change::Removed => Modifier::Removed,
        Change::Renamed => Modifier::Renamed,
        Change::Changed { content: false, .. } => Modifier::Attributes,
        Change::Changed { .. } if old.zip(new).is_some_and(|(a, b)| !is_same_type(a.2, b.2)) => Modifier::Type,
        Change::Changed { .. } => Modifier::Content,
    };
    let from = old.filter(|_| modifier == Modifier::Renamed).map(|(path, ..)| path.clone());
    let [old, new] = [old, new].map(|side| side.map(|(_, side, _)| side));
    Entry { modifier, path: difference.path().to_vec(), from, old, new }
}

fn is_same_type(a: &Node, b: &Node) -> bool {
    let [x, y] = [a, b].map(|node| (Side::of(node).kind, std::mem::discriminant(&node.content)));
    x.0 == y.0 && (x.0 != Kind::Other || x.1 == y.1)
}
