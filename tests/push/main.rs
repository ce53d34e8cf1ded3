//! The contents that a push saves, from files and streams, and its behaviour when it is interrupted.

#[path = "../harness/mod.rs"]
mod harness;

mod crash;
mod descriptors;
mod duties;
mod foreign_mounts;
mod import_v0;
mod odd_fuse;
mod parents;
mod push;
mod renames;
mod resume;
mod rights;
mod scattered;
mod select;
mod several;
mod sizes;
mod stop;
mod streams;
mod truth;
