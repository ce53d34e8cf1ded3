//! The mounted tree, without a kernel (vfs) and with one.

#[path = "../harness/mod.rs"]
mod harness;

mod mount;
mod mount_cached;
mod mount_fidelity;
mod mount_line;
mod mount_living;
mod mount_load;
mod mount_model;
mod vfs;
mod vfs_fetch;
mod vfs_model;
mod vfs_scattered;
mod vfs_time;
