//! The conditions that a node must meet, and the result: the versions of each path, with their snapshots.

use crate::error::{Error, Result};
use crate::format::node::Node;

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
    /// Returns whether an absolute path matches. The flag is set for a directory.
    pub matches_path: &'r dyn Fn(&[u8], bool) -> bool,
    /// Returns whether a node matches whose path does.
    pub matches: &'r dyn Fn(&Node) -> bool,
    /// Takes the versions of a path that match, by their first snapshot.
    pub found: &'r mut TakeVersions<'r>,
    /// Takes the path of a directory of which a page cannot be read.
    pub unreadable: &'r mut dyn FnMut(&[u8], &Error),
}
