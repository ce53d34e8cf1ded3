//! What tests share: trees, bad days, real servers, a slow line, a hermetic environment.
#![allow(dead_code, unused_imports, missing_docs)]

pub mod cli;
pub mod faults;
pub mod hook;
pub mod mounted;
pub mod proxy;
pub mod repository;
pub mod root;
pub mod saved;
pub mod shown;
pub mod sshd;
pub mod stalled;
pub mod tree;
pub mod v0;
pub mod writer;

/// A copy of a program that another user may run. By `cp`, since a file that this process has open for writing cannot be
/// run ("text file busy") while a child of another test's thread, between fork and exec, still holds it open.
pub fn copy_program(program: impl AsRef<std::path::Path>, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg(program.as_ref()).arg(to).status().unwrap();
    assert!(copied.success());
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(to, everyone).unwrap();
}

/// A small generator of choices, from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
