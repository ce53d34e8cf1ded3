//! Reads of a tree whose files lie in many small packs, without a kernel. Counts waiting reads; never measures time.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::harness::saved::Saved;
use nfreezer::context::background;
use nfreezer::format::record::Snapshot;
use nfreezer::vfs::{Ahead, Fault, Kind, Mode, Options, Vfs, inode};

/// Pushes 400 files of 6 kB in 20 directories, and then changes 40 of them before each of 30 more pushes.
fn aged() -> (Saved, Snapshot) {
    let saved = Saved::new();
    let write = |i: u64, seed: u64| saved.write(&format!("{:02}/{i:03}", i / 20), seed, 6000 + seed as usize % 100);
    (0..400).for_each(|i| write(i, i));
    let mut newest = saved.push().snapshot;
    for push in 1..=30 {
        (0..40).for_each(|n| write((n * 97 + push * 31) % 400, push * 1000 + n));
        newest = saved.push().snapshot;
    }
    (saved, newest)
}

/// A reader of all files, in the order of inode numbers or of names.
struct Copy<'v> {
    vfs: &'v Vfs,
    by_name: bool,
    follows_tree: bool,
    files: Cell<u32>,
    waits: Cell<u32>,
}

impl Copy<'_> {
    fn directory(&self, ino: u64) {
        let mut entries = Vec::new();
        let add = &mut |entry: &nfreezer::vfs::Entry<'_>| {
            entries.push((entry.name.to_vec(), entry.attr));
            false
        };
        self.vfs.readdir(ino, 0, true, Mode::Fetch(background()), add).unwrap();
        entries.drain(..2);
        if !self.by_name {
            entries.sort_by_key(|(_, attr)| attr.ino);
        }
        for (_, attr) in entries {
            match attr.kind {
                Kind::Directory => self.directory(attr.ino),
                _ => self.file(attr.ino, attr.size),
            }
        }
    }

    fn file(&self, ino: u64, size: u64) {
        let advice = RefCell::new(Vec::new());
        let advise = |ahead| advice.borrow_mut().push(ahead);
        self.files.set(self.files.get() + 1);
        let read = |mode| self.vfs.read(ino, 0, 128 << 10, mode, &advise);
        let bytes = read(Mode::Cached).or_else(|fault| {
            assert!(matches!(fault, Fault::Wait));
            self.waits.set(self.waits.get() + 1);
            read(Mode::Fetch(background()))
        });
        assert_eq!(bytes.unwrap().len() as u64, size);
        for ahead in advice.take() {
            match ahead {
                Ahead::Tree if self.follows_tree => self.vfs.walk_ahead(background(), &ahead),
                Ahead::Tree => {}
                ahead => {
                    for range in self.vfs.plan(&ahead, Mode::Fetch(background())).unwrap() {
                        self.vfs.fetch_ahead(background(), &range);
                    }
                }
            }
        }
    }
}

/// Copies everything. Returns the number of reads that waited, and the number of fetched bytes.
fn copy(saved: &Saved, snapshot: &Snapshot, by_name: bool, follows_tree: bool) -> (u32, u64) {
    let repo = Arc::new(saved.repo.behind(saved.memory.clone()));
    let state = repo.state(background()).unwrap();
    let at = Some((snapshot.clone(), saved.top().display().to_string().into_bytes()));
    let vfs = Vfs::new(background(), repo, state, Options { at, ..Options::default() }).unwrap();
    let copy = Copy { vfs: &vfs, by_name, follows_tree, files: Cell::new(0), waits: Cell::new(0) };
    copy.directory(inode::ROOT);
    assert_eq!(copy.files.get(), 400);
    (copy.waits.get(), vfs.repository().cache_stats().contents)
}

#[test]
fn a_copy_of_a_scattered_tree_seldom_waits() {
    let (saved, newest) = aged();
    for by_name in [false, true] {
        let (before, bytes) = copy(&saved, &newest, by_name, false);
        let (waits, ahead) = copy(&saved, &newest, by_name, true);
        assert!(waits <= 24 && waits * 3 < before, "by name {by_name}: {waits} waits with the walk, {before} without");
        assert!(ahead <= bytes + (64 << 10), "by name {by_name}: {ahead} bytes with the walk, {bytes} without");
    }
}
