//! Writes the tree of the snapshot, and commits it.
//!
//! In: batches in the order of the walk, each file with its pieces. Out: directory pages and reference lists in metadata
//! packs, and records: checkpoints with a partial snapshot, then the one with the whole snapshot.

pub mod checkpoint;
pub mod folder;
pub mod growth;
pub mod ledger;
pub mod lists;
pub mod metapack;
pub mod writer;
