//! What `prune` condemns, deletes and refuses to delete.

#[path = "../harness/mod.rs"]
mod harness;

mod doubts;
mod phases;
mod world;
