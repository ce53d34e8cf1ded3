//! Compares the sources with earlier snapshots, the parents.
//!
//! In: the parents' trees, and for each entry of the walk its name and `stat`. Out: the node that a parent has at that path,
//! or at another path if the file was renamed, and whether its content can be taken over without reading the file.

pub mod copies;
pub mod inode_index;
pub mod old;
pub mod parents;
pub mod renames;
pub mod times;
