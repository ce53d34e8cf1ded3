//! `prune`: the packs that it condemns, deletes, and refuses to delete.

mod aged;
mod doubts;
mod memory;
mod phases;
mod scale;
mod world;
