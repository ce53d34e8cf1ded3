//! A mount with a disk cache whose server goes away.

use std::fs;
use std::sync::Arc;

use crate::harness::faults::gone;
use crate::harness::mounted::{Mounted, eventually};
use crate::harness::saved::Saved;
use crate::harness::tree::noise;
use nfreezer::context::background;
use nfreezer::repo::{Access, CacheUse};
use nfreezer::storage::{CacheFolder, Memory};

#[test]
fn a_mount_whose_server_is_gone_shows_what_is_cached() {
    let saved = Saved::on(gone(Memory::default()));
    saved.write("folder/read", 1, 300_000);
    saved.write("folder/unread", 2, 300_000);
    saved.push();
    let dir = tempfile::tempdir().unwrap();
    let mount = || {
        let cache = Some(CacheFolder::open(dir.path(), 1 << 30, Arc::new(|_| ())).unwrap());
        let access = Access { cache, cache_use: CacheUse::Mount, ..Access::default() };
        let repo = Arc::new(saved.repo.behind_with(saved.memory.clone(), &access));
        let state = repo.state(background()).unwrap();
        Mounted::new(repo, state)
    };
    let below = format!("latest{}/folder", saved.top().display());
    assert!(fs::read(mount().path(&below).join("read")).unwrap() == noise(1, 300_000));
    // A second mount without blocks in memory.
    let mount = mount();
    saved.memory.arm(0);
    let folder = mount.path(&below);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    assert!(fs::read(folder.join("read")).unwrap() == noise(1, 300_000));
    let error = fs::read(folder.join("unread")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    saved.memory.disarm();
    eventually("the server is used again", || {
        fs::read(folder.join("unread")).is_ok_and(|bytes| bytes == noise(2, 300_000))
    });
}
