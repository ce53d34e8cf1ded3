//! `prune`: the packs that it condemns, deletes, and refuses to delete.

mod aged;
mod ahead;
mod doubts;
mod memory;
mod phases;
mod scale;
mod world;
