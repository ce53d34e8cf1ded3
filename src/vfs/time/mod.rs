//! The time views of the mount: `at/`, `versions/` and `deleted/`.
//!
//! In: the snapshots of the view, a path, and the directory pages of [`super::pages`]. Out: the snapshot that a moment
//! names, and the entries of merged directories.
//!
//! - [`timeline`]: the snapshots in the order of time; which one was the newest at a moment, which ones describe the
//!   present.
//!   Expressions such as `yesterday` or `2026-11-03` are in [`crate::moment`].
//! - [`history`]: the versions of one path over all snapshots. [`scan`]: all nodes of many directories.
//! - [`former`]: the nodes that exist now, and those that do not exist any more.
//! - [`merged`]: the directories below `versions/` and `deleted/`; [`listing`]: their entries.

mod former;
pub(super) mod history;
mod listing;
pub(super) mod merged;
mod scan;
pub(super) mod timeline;
