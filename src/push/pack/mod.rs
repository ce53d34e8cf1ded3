//! Stores new chunks in packs.
//!
//! In: chunks in their stored form, each claimed by one worker. Out: sealed packs on the server, and for each piece of a file
//! its reference once the server has acknowledged the pack.
//!
//! # Pressure
//!
//! The ordered queue bounds the nodes between walk and tree, and a node leaves only when the packs with its contents are
//! stored. So the walk can wait for a pack that never gets full, because no chunks come while it waits. The
//! loop is broken in these steps:
//!
//! 1. The walk finds the queue full and sets [`queue::Queue::pressed`].
//! 2. The tree's thread sees this in [`data_packs::DataPacks::resolve`] and finishes the pack that it waits for.
//! 3. An uploading thread stores the pack; [`packs::Packs::stored`] wakes the tree's thread.
//! 4. The tree's thread releases the nodes, and the walk continues.

pub mod chunks;
pub mod data_packs;
pub mod packs;
pub mod piece;
pub mod presence;
pub mod queue;
