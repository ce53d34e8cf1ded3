//! A tree that changes at random, with every version of every content that was ever in it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nfreezer::format::node::{CHANGED, PARTIAL};
use nfreezer::format::record::Snapshot;
use nfreezer::repo::Repository;
use sha2::{Digest, Sha256};

use crate::harness::Dice;
use crate::harness::tree::{Model, What, flagged, in_partial, noise, on_disk, write};

const BLOCK: usize = 64 << 10;

/// Returns a digest that identifies the contents of a file.
fn key(what: &What) -> [u8; 32] {
    Sha256::digest(format!("{what:?}")).into()
}

pub struct Tree {
    dir: tempfile::TempDir,
    pub dice: Dice,
    next: u64,
    /// Digests of all contents of small files; renames add none.
    versions: HashSet<[u8; 32]>,
    /// Contents of the file that only grows.
    log: Vec<u8>,
    /// Contents of the big file. `bigs` holds its versions since [`Tree::change`], the present one last.
    big: Vec<u8>,
    /// Approximate size of the big file in bytes.
    size: usize,
    bigs: Vec<What>,
}

impl Tree {
    pub fn new(seed: u64, size: usize) -> Tree {
        let dir = tempfile::Builder::new().prefix("nfreezer-kills-").tempdir().unwrap();
        let big = noise(seed, size);
        let bigs = vec![What::of(&big)];
        let (versions, log, dice) = (HashSet::new(), Vec::new(), Dice(seed));
        let mut tree = Tree { dir, dice, next: seed << 32, versions, log, big, size, bigs };
        write(tree.big_path(), &tree.big);
        (0..150).for_each(|_| tree.add());
        tree.append();
        tree
    }

    pub fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    fn big_path(&self) -> PathBuf {
        self.top().join("m/big")
    }

    /// Makes contents that were never in the tree before.
    fn fresh(&mut self, len: usize) -> Vec<u8> {
        self.next += 1;
        noise(self.next, len)
    }

    fn folder(&mut self) -> PathBuf {
        let (a, b) = (self.dice.roll(8), self.dice.roll(3));
        self.top().join(format!("{}{a}/s{b}", if a < 4 { "a" } else { "z" }))
    }

    /// Puts new contents at a path in one step, whatever was there.
    fn put(&mut self, path: &Path) {
        let len = match self.dice.roll(12) {
            0 => 0,
            1 => self.dice.roll(3 << 20),
            _ => self.dice.roll(60_000),
        };
        let bytes = self.fresh(len as usize);
        self.versions.insert(key(&What::of(&bytes)));
        let staged = self.dir.path().join("staged");
        write(&staged, bytes);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_dir(path);
        let _ = fs::rename(staged, path);
    }

    fn add(&mut self) {
        let path = self.folder().join(format!("f{}", self.dice.roll(400)));
        self.put(&path);
    }

    fn append(&mut self) {
        let len = self.dice.roll(30_000) as usize;
        let more = self.fresh(len);
        self.log.extend_from_slice(&more);
        let path = self.top().join("n/log");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::options().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut &file, &more).unwrap();
    }

    /// Picks one of the small files.
    fn some(&mut self) -> Option<PathBuf> {
        let folder = self.folder();
        let mut all: Vec<_> = fs::read_dir(folder).ok()?.map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
        all.sort();
        (!all.is_empty()).then(|| all.swap_remove(self.dice.roll(all.len() as u64) as usize))
    }

    /// Makes one change that is complete on return. A reader sees no half of it, except a shorter log.
    pub fn step(&mut self) {
        match self.dice.roll(10) {
            0 | 1 => self.add(),
            2 | 3 => drop(self.some().map(|path| self.put(&path))),
            4 => {
                let to = self.folder().join(format!("f{}", self.dice.roll(400)));
                let from = self.some();
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                from.map(|from| fs::rename(from, to));
            }
            5 => {
                let (from, to) = (self.folder(), self.folder());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                let _ = fs::rename(from, &to).or_else(|_| fs::rename(to.parent().unwrap(), self.top().join("moved")));
            }
            6 => drop(self.some().map(fs::remove_file)),
            7 if self.dice.roll(4) == 0 => drop(fs::remove_dir_all(self.folder())),
            7 | 8 => self.append(),
            _ => self.edit_big(),
        }
    }

    fn edit_big(&mut self) {
        let (at, bytes) = (self.dice.roll((self.big.len() / BLOCK) as u64) as usize * BLOCK, self.fresh(4096));
        self.big[at..at + 4096].copy_from_slice(&bytes);
        let Some(What::File(size, mut blocks)) = self.bigs.last().cloned() else { unreachable!("a file") };
        let block = &self.big[at..self.big.len().min(at + BLOCK)];
        let What::File(_, one) = What::of(block) else { unreachable!("a file") };
        blocks.insert(at as u64, one[&0]);
        self.bigs.push(What::File(size, blocks));
        File::options().write(true).open(self.big_path()).unwrap().write_all_at(&bytes, at as u64).unwrap();
    }

    /// Makes the changes between two pushes: many small ones, and the big file grows, changes or gets an insertion.
    pub fn change(&mut self) {
        let len = (1 << 20) + self.dice.roll(self.size as u64 / 3) as usize;
        let new = self.fresh(len);
        match self.dice.roll(5) {
            0 | 1 => {
                self.big.extend_from_slice(&new);
                let file = File::options().append(true).open(self.big_path()).unwrap();
                std::io::Write::write_all(&mut &file, &new).unwrap();
            }
            2 => {
                let at = self.dice.roll((self.big.len() - new.len()) as u64) as usize;
                self.big[at..at + new.len()].copy_from_slice(&new);
                let file = File::options().write(true).open(self.big_path()).unwrap();
                file.write_all_at(&new, at as u64).unwrap();
            }
            3 => {
                let at = self.dice.roll(self.big.len() as u64) as usize;
                self.big.splice(at..at, new);
                write(self.big_path(), &self.big);
            }
            _ => {} // this time only small ones
        }
        if self.big.len() > self.size / 5 * 7 {
            self.big.truncate(self.size / 5 * 4);
            File::options().write(true).open(self.big_path()).unwrap().set_len(self.big.len() as u64).unwrap();
        }
        self.bigs = vec![What::of(&self.big)];
        let steps = 1 + self.dice.roll(60);
        (0..steps).for_each(|_| self.step());
    }

    /// Returns the whole tree on the disk, and checks that it agrees with the recorded versions.
    pub fn model(&self) -> Model {
        let model = on_disk(&self.top());
        let what = |path: &str| model[path.as_bytes()].what.clone();
        assert!(Some(&what("m/big")) == self.bigs.last() && what("n/log") == What::of(&self.log));
        model
    }

    /// Checks that each complete file of a snapshot made while the tree changed is a version that existed. Returns the
    /// contents of the snapshot.
    pub fn check_versions(&self, repo: &Repository, snapshot: &Snapshot) -> Model {
        let top = self.top();
        let (saved, flags) = (in_partial(repo, snapshot, &top), flagged(repo, snapshot));
        for (path, seen) in &saved {
            let What::File(size, _) = seen.what else { continue };
            let flags = flags.get(&[top.as_os_str().as_bytes(), b"/", path].concat()).copied().unwrap_or(0);
            let existed = match path.as_slice() {
                b"m/big" => flags & (CHANGED | PARTIAL) != 0 || self.bigs.contains(&seen.what),
                b"n/log" => size as usize <= self.log.len() && seen.what == What::of(&self.log[..size as usize]),
                _ => flags & PARTIAL != 0 || self.versions.contains(&key(&seen.what)),
            };
            assert!(existed, "at {:?}: {size} bytes that never were", String::from_utf8_lossy(path));
        }
        saved
    }
}
