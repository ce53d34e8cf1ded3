//! The steps of the walk, on their way through the workers to the tree.

use std::sync::Arc;

use rustix::fs::Stat;

use super::dir::Dir;
use super::stream::{Failure, Opener};
use crate::format::node::{Content, Node, PARTIAL};
use crate::format::reference::{Extent, Ref};
use crate::push::pack::piece::Piece;

/// Neighbouring steps of the walk, for each repository. Small files share a load, so that passing them between threads costs
/// little.
pub struct Load {
    /// One for each repository, in the order of the destinations.
    pub batches: Vec<Batch>,
    /// Files to read, each once.
    pub files: usize,
    /// Bytes to read.
    pub bytes: u64,
}

/// The steps of a load for one repository.
#[derive(Default)]
pub struct Batch {
    /// Its number in the ordered queue; `None` if it does not go there.
    pub number: Option<u64>,
    pub items: Vec<Item>,
    /// Files to read.
    pub files: usize,
}

impl Load {
    /// Makes an empty load for this many repositories.
    pub fn new(destinations: usize, capacity: usize) -> Self {
        let batch = || Batch { items: Vec::with_capacity(capacity), ..Batch::default() };
        Load { batches: std::iter::repeat_with(batch).take(destinations).collect(), files: 0, bytes: 0 }
    }

    /// Puts the jobs of a file that was read for several repositories to their places.
    pub fn put<J>(&mut self, others: Vec<Other<J>>, item: impl Fn(Box<J>) -> Item) {
        for Other { destination, at, job } in others {
            self.batches[destination].items[at] = item(job);
        }
    }
}

/// One step of the walk in tree order: a directory encloses its entries, names ascend.
pub enum Item {
    /// A directory begins.
    Enter(Box<Enter>),
    /// A page of the current directory in a parent, and its first name.
    Page(Vec<u8>, Ref),
    /// A node that needs no reading. `link`: further links to it may follow.
    Node { node: Node, change: Change, link: Option<Link> },
    /// A file to read.
    File(Box<Job>),
    /// A stream to read.
    Stream(Box<StreamJob>),
    /// A part of a file of another repository, to be read there.
    Saved(Box<SavedPart>),
    /// A file or stream that is read for another repository too. The worker puts the job here that it finds there
    /// ([`Job::others`]).
    Awaited,
    /// A file or stream that was not read before the user's stop.
    LeftOut,
    /// A further link to a file that came before. `old`: its node in a parent.
    Link { node: Node, link: Link, old: Option<Box<Node>> },
    /// The directory ends.
    Leave,
}

/// A directory without its contents.
pub struct Enter {
    pub node: Node,
    /// Whether it only leads to sources: its other entries are not saved.
    pub passage: bool,
    /// Its node in a parent.
    pub old: Option<Node>,
}

/// The difference between a file and the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    New,
    Changed,
    Unchanged,
    Renamed,
}

impl Change {
    /// Compares a node with the node at the same path in a parent.
    pub fn compare(old: Option<&Node>, node: &Node) -> Change {
        match old {
            None => Change::New,
            Some(old) if old == node => Change::Unchanged,
            Some(_) => Change::Changed,
        }
    }
}

/// The identity of a file with several links: device and inode number.
pub type Link = (u64, u64);

/// The job of another repository for the same file.
pub struct Other<J> {
    /// The number of the repository.
    pub destination: usize,
    /// The place in its batch.
    pub at: usize,
    pub job: Box<J>,
}

/// A file to read. The worker fills in the node and the pieces.
pub struct Job {
    /// The number of the repository.
    pub destination: usize,
    /// The same file for the other repositories that need it. It is read once.
    pub others: Vec<Other<Job>>,
    /// Its directory, which the worker lets go of when it has read the file.
    pub dir: Option<Arc<Dir>>,
    pub stat: Stat,
    pub node: Node,
    /// Its node in a parent.
    pub old: Option<Box<Node>>,
    pub link: Option<Link>,
    /// Its beginning in a partial snapshot; the file did not change since.
    pub prefix: Option<Content>,
    /// Its contents, unless `node.content` is unreadable.
    pub pieces: Vec<Piece>,
    /// Whether it was removed before it could be read.
    pub gone: bool,
}

impl Job {
    /// Returns the step for a file that was not read: the part that a partial snapshot holds stays in the next one.
    pub fn left_out(self: Box<Job>) -> Item {
        let Job { mut node, prefix, .. } = *self;
        let Some(prefix) = prefix else { return Item::LeftOut };
        node.content = prefix;
        node.flags |= PARTIAL;
        Item::Node { node, change: Change::New, link: None }
    }

    /// Calls `change` for the jobs of all repositories.
    pub fn each(&mut self, mut change: impl FnMut(&mut Job)) {
        change(self);
        self.others.iter_mut().for_each(|other| change(&mut other.job));
    }
}

/// A stream to read. The worker fills in the pieces.
pub struct StreamJob {
    /// The number of the repository.
    pub destination: usize,
    /// The same stream for the other repositories.
    pub others: Vec<Other<StreamJob>>,
    pub path: Vec<u8>,
    pub node: Node,
    /// Its node in a parent.
    pub old: Option<Box<Node>>,
    /// Expected size in bytes.
    pub size: Option<u64>,
    pub failure: Failure,
    /// Taken by the worker.
    pub open: Option<Opener>,
    /// Its contents, unless `node.content` is unreadable.
    pub pieces: Vec<Piece>,
}

impl StreamJob {
    /// Calls `change` for the jobs of all repositories.
    pub fn each(&mut self, mut change: impl FnMut(&mut StreamJob)) {
        change(self);
        self.others.iter_mut().for_each(|other| change(&mut other.job));
    }
}

/// A part of a file of another repository. The worker reads the extents and adds their pieces. All parts of a file follow each
/// other.
pub struct SavedPart {
    pub path: Vec<u8>,
    /// The file, without its contents.
    pub node: Node,
    /// Its node in a parent.
    pub old: Option<Box<Node>>,
    pub extents: Vec<Extent>,
    /// Chunks that were announced to [`super::saved::Saved::fetch`].
    pub announced: Vec<Ref>,
    pub pieces: Vec<Piece>,
    pub is_last: bool,
    /// Whether it was not read to its end before the user's stop.
    pub is_cut: bool,
}

impl SavedPart {
    /// Takes the contents so far out, as a part that is not the last one.
    pub fn split(&mut self) -> SavedPart {
        SavedPart {
            path: self.path.clone(),
            node: self.node.clone(),
            old: None,
            extents: std::mem::take(&mut self.extents),
            announced: std::mem::take(&mut self.announced),
            pieces: std::mem::take(&mut self.pieces),
            is_last: false,
            is_cut: false,
        }
    }
}
