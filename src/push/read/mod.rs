//! Reads files and streams, and cuts them into chunks.
//!
//! In: batches of steps from the walk. Out: the same batches, in which each file has its node and its pieces; new chunks in
//! their stored form go to the open data packs (`pack`).

pub mod attributes;
pub mod cutter;
pub mod dir;
pub mod guard;
pub mod handover;
pub mod item;
pub mod open_file;
pub mod partial;
pub mod reader;
pub mod saved;
pub mod saved_reader;
pub mod stream;
pub mod stream_reader;
pub mod worker;
pub mod workspace;
