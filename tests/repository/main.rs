//! Repositories: their logs, keys and heads, and `check`, `repair` and `restore`, also after damage.

#[path = "../harness/mod.rs"]
mod harness;

mod check;
mod copy;
mod diff;
mod disk_cache;
mod dump;
mod find;
mod forget;
mod heal;
mod junk;
mod keys;
mod log;
mod memory_of_heads;
mod prune;
mod recover;
mod repair;
mod restore;
mod rewrite;
mod rounds;
mod stats;
mod supersede;
mod witness;
mod writers;
