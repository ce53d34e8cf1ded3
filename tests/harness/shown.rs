//! An in-memory repository whose snapshots are written by [`Writer`], and lookups in its tree without a kernel.

use std::collections::HashMap;
use std::sync::Arc;

use super::repository;
use super::writer::{Item, Writer};
use nfreezer::context::background;
use nfreezer::crypto::keys::ChunkId;
use nfreezer::error::Result;
use nfreezer::format::record::Snapshot;
use nfreezer::format::reference::Ref;
use nfreezer::repo::{Repository, State};
use nfreezer::storage::Memory;
use nfreezer::vfs::{Attr, Fault, Mode, Options, Vfs, inode};

pub struct Repo {
    pub memory: Arc<Memory>,
    pub repo: Arc<Repository>,
    pub state: State,
    pub known: HashMap<ChunkId, Ref>,
}

impl Repo {
    pub fn new() -> Self {
        let memory = Arc::<Memory>::default();
        Repo {
            repo: Arc::new(repository::init(memory.clone())),
            memory,
            state: State::default(),
            known: HashMap::new(),
        }
    }

    pub fn push(&mut self, tree: &Item) {
        self.push_as(tree, |_| {});
    }

    pub fn push_as(&mut self, tree: &Item, change: impl FnOnce(&mut Snapshot)) {
        let mut writer = Writer::new(&self.repo);
        writer.known = std::mem::take(&mut self.known);
        self.known = writer.commit_and_keep(&mut self.state, tree, change).1;
    }

    /// Opens the repository again, with empty caches.
    pub fn cold(&self) -> Arc<Repository> {
        Arc::new(repository::open(self.memory.clone()))
    }

    /// Makes a new mount of the open repository, with its cached blocks. Avoids the key derivation of [`Self::cold`].
    pub fn warm(&self) -> Vfs {
        Vfs::new(background(), self.repo.clone(), self.state.clone(), Options::default()).unwrap()
    }

    pub fn vfs(&self) -> Vfs {
        Vfs::new(background(), self.cold(), self.state.clone(), Options::default()).unwrap()
    }
}

pub fn lookup(vfs: &Vfs, path: &str) -> Result<Attr, String> {
    let mut ino = inode::ROOT;
    let mut attr = vfs.getattr(ino, Mode::Fetch(background())).unwrap();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        let found = vfs.lookup(ino, part.as_bytes(), Mode::Fetch(background())).map_err(|e| e.to_string())?;
        attr = found.ok_or_else(|| format!("no {part} of {path}"))?;
        ino = attr.ino;
    }
    Ok(attr)
}

pub fn names(vfs: &Vfs, ino: u64) -> Vec<String> {
    listing(vfs, ino, 0, usize::MAX).into_iter().map(|e| e.0).skip(2).collect()
}

/// Returns at most `most` entries of a directory as (name, inode number, next offset).
pub fn listing(vfs: &Vfs, ino: u64, offset: u64, most: usize) -> Vec<(String, u64, u64)> {
    let mut list = Vec::new();
    vfs.readdir(ino, offset, false, Mode::Fetch(background()), &mut |e| {
        if list.len() == most {
            return true;
        }
        list.push((String::from_utf8_lossy(e.name).into_owned(), e.attr.ino, e.next));
        false
    })
    .unwrap();
    list
}

pub fn read(vfs: &Vfs, ino: u64, offset: u64, size: u32) -> Result<Vec<u8>, Fault> {
    vfs.read(ino, offset, size, Mode::Fetch(background()), &|_| ())
}
