//! `prune`: the packs that it condemns, deletes, and refuses to delete.

mod doubts;
mod phases;
mod scale;
mod world;
