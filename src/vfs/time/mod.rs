//! The time views of the mount: `versions/`, `deleted/` and `at/`.
//!
//! In: the snapshots of the view, a path, and the directory pages of [`super::pages`]. Out: the entries of merged
//! folders, and the snapshot that a moment names.
//!
//! - [`timeline`]: the snapshots in order of time; which one was the newest at a moment, which ones describe the present.
//! - [`moment`]: expressions such as `yesterday` or `2026-11-03`. Pure.
//! - [`history`]: the versions of one path over all snapshots, and the scan over the pages of many directories.
//! - [`present`]: the nodes that exist now, and the former ones that do not.
//! - [`merged`]: the folders below `versions/` and `deleted/`.

pub(super) mod history;
pub(super) mod merged;
pub(super) mod moment;
mod present;
pub(super) mod timeline;
