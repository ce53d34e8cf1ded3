//! Test fixtures: trees, storage faults, real servers, a slow line, an isolated environment.
#![allow(dead_code, unused_imports, missing_docs)]

pub mod cli;
pub mod faults;
pub mod hook;
pub mod mounted;
pub mod object_store;
pub mod port;
pub mod process;
pub mod proxy;
pub mod repository;
pub mod root;
pub mod rounds;
pub mod saved;
pub mod servers;
pub mod shown;
pub mod sshd;
pub mod stalled;
pub mod stop_after;
pub mod tree;
pub mod v0;
pub mod writer;

pub use process::copy_program;

/// A small random number generator with a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
