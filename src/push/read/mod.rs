//! Reads files and streams, and cuts them into chunks.
//!
//! In: loads of steps from the walk, with a batch for each repository. Out: the same batches, in which each file has its node
//! and its pieces; new chunks in their stored form go to the open data packs (`pack`). A file is read once: a [`lane`] for each
//! repository cuts it.

pub mod attributes;
pub mod cutter;
pub mod dir;
pub mod guard;
pub mod handover;
pub mod item;
pub mod lane;
pub mod open_file;
pub mod partial;
pub mod reader;
pub mod saved;
pub mod saved_reader;
pub mod stream;
pub mod stream_reader;
pub mod worker;
pub mod workspace;
