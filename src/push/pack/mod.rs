//! Stores new chunks in packs.
//!
//! In: chunks in their stored form, each claimed by one worker. Out: sealed packs on the server, and for each piece of a file
//! its reference once the server has acknowledged the pack. Also holds the ordered queue that joins the threads.

pub mod chunks;
pub mod data_packs;
pub mod packs;
pub mod piece;
pub mod presence;
pub mod queue;
