//! What goes down the line from the walker by way of the workers to the tree.

use std::sync::Arc;

use rustix::fs::Stat;

use super::attributes::Dir;
use super::stream::{Failure, Opener};
use crate::format::node::{Content, Node};
use crate::format::reference::Ref;
use crate::push::pack::piece::Piece;

/// Neighbours in the walk. Small files travel together, so that a hop from thread to thread costs little for each.
#[derive(Default)]
pub struct Batch {
    /// Its place in the ordered queue.
    pub number: u64,
    pub items: Vec<Item>,
    /// Files to read, and their bytes.
    pub files: usize,
    pub bytes: u64,
}

/// One step of the walk, in the order of the tree: parents around children, names ascending.
pub enum Item {
    /// A directory begins.
    Enter(Box<Enter>),
    /// A page of that directory in an earlier snapshot, and its first name.
    Page(Vec<u8>, Ref),
    /// A node that needs no reading; `link` if there are further links to it.
    Node { node: Node, change: Change, link: Option<Link> },
    /// A file to read.
    File(Box<Job>),
    /// A stream to read.
    Stream(Box<StreamJob>),
    /// A further link to a file that came before.
    Link { node: Node, link: Link, old: Option<Box<Node>> },
    /// The directory ends.
    Leave,
}

/// A directory without its contents.
pub struct Enter {
    pub node: Node,
    /// It only leads to sources: other things in it are not saved.
    pub passage: bool,
    pub old: Option<Node>,
}

/// How a file compares to the snapshot before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    New,
    Changed,
    Unchanged,
    Renamed,
}

impl Change {
    pub fn compare(old: Option<&Node>, node: &Node) -> Change {
        match old {
            None => Change::New,
            Some(old) if old == node => Change::Unchanged,
            Some(_) => Change::Changed,
        }
    }
}

/// What links of one file have in common: device and inode number.
pub type Link = (u64, u64);

/// A file to read. The worker fills in what it finds.
pub struct Job {
    pub dir: Arc<Dir>,
    pub stat: Stat,
    pub node: Node,
    pub old: Option<Box<Node>>,
    pub link: Option<Link>,
    /// Its beginning, as an unfinished push has saved it; the file was not touched since.
    pub prefix: Option<Content>,
    /// Its contents, unless `node.content` says that it is unreadable.
    pub pieces: Vec<Piece>,
    /// It was removed before it could be read.
    pub gone: bool,
}

/// A stream on its way to a worker.
pub struct StreamJob {
    pub path: Vec<u8>,
    pub node: Node,
    pub old: Option<Box<Node>>,
    pub size: Option<u64>,
    pub failure: Failure,
    /// Taken by the worker.
    pub open: Option<Opener>,
    /// Its contents, unless `node.content` says that it is unreadable.
    pub pieces: Vec<Piece>,
}
