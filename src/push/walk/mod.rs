//! Walks the sources in tree order and decides for each file whether it must be read.
//!
//! In: the paths or streams to save, the selection, and for each repository the parent snapshots (`compare`). Out: for each
//! repository steps ([`super::read::item`]) in batches, each with its place in the ordered queue. Batches with files to read go
//! to the workers (`read`), all others directly to the tree (`tree`).

pub mod batcher;
pub mod destination;
pub mod file;
pub mod known_links;
pub mod levels;
pub mod listing;
pub mod mount_points;
pub mod picker;
pub mod saved;
pub mod select;
pub mod sources;
pub mod special;
pub mod streams;
pub mod walker;
