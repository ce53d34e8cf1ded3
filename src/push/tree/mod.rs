//! Writes the tree of the snapshot, and commits it.
//!
//! In: batches in the order of the walk, each file with its pieces. Out: directory pages and reference lists in metadata
//! packs, and records: checkpoints with a partial snapshot, then the one with the whole snapshot.
//!
//! [`writer`] is the thread. It waits for packs, decides with [`checkpoint`] when to commit, and feeds the [`assembler`],
//! which knows neither threads nor storage.

pub mod assembler;
pub mod checkpoint;
pub mod directory;
pub mod gather;
pub mod growth;
pub mod ledger;
pub mod links;
pub mod lists;
pub mod pack_store;
pub mod store;
pub mod tally;
pub mod writer;
