//! A repository in memory that real pushes fill, and what can go wrong with its objects.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nfreezer::check::{self, Consent, Finding, Lost, Options, Repaired, Report};
use nfreezer::context::background;
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::seal::block_place;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::format::node::Content;
use nfreezer::format::record::{Snapshot, SnapshotId};
use nfreezer::format::reference::{Extent, Ref};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::push::{self, Summary};
use nfreezer::repo::Repository;
use nfreezer::restore;
use nfreezer::storage::{Memory, Storage};

use super::tree::{assert_same, noise, on_disk, write};

/// A repository, the folder that is pushed into it, and the objects.
pub struct Saved<S = Memory> {
    pub memory: Arc<S>,
    pub repo: Repository,
    dir: tempfile::TempDir,
}

/// What a check has told: objects by path, and (snapshot, path) with what is lost.
#[derive(Debug, Default)]
pub struct Told {
    pub objects: Vec<(String, String)>,
    pub paths: Vec<(SnapshotId, String, Lost)>,
}

impl Told {
    pub fn names(&self) -> Vec<&str> {
        self.objects.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Paths below `top` that are hit in this snapshot.
    pub fn hit(&self, snapshot: &Snapshot, top: &Path) -> Vec<(String, Lost)> {
        let of = self.paths.iter().filter(|(id, ..)| *id == snapshot.id);
        let top = format!("{}/", top.display());
        of.map(|(_, path, lost)| (path.strip_prefix(&top).unwrap_or(path).to_owned(), *lost)).collect()
    }
}

impl Saved {
    pub fn new() -> Self {
        Self::on(Arc::default())
    }

    /// Flips a bit in the first block of a chunk.
    pub fn flip(&self, r: &Ref) {
        let block = u64::from(r.offset) / 65536;
        let (start, len) = block_place(r.pack.len.into(), block, block + 1);
        self.flip_at(&Name::Pack(r.pack.id), start as usize + len / 2);
    }

    pub fn flip_at(&self, name: &Name, at: usize) {
        let mut bytes = self.memory.get(name).unwrap();
        bytes[at] ^= 1;
        self.memory.overwrite(name, bytes);
    }
}

impl<S: Storage + 'static> Saved<S> {
    /// A new repository on this storage.
    pub fn on(memory: Arc<S>) -> Self {
        let passphrase = Passphrase::new("test".into()).unwrap();
        let repo = Repository::init(background(), memory.clone(), &passphrase, KdfCost::DEFAULT, "test").unwrap();
        Saved { memory, repo, dir: tempfile::tempdir().unwrap() }
    }

    pub fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    pub fn write(&self, name: &str, seed: u64, len: usize) {
        write(self.top().join(name), noise(seed, len));
    }

    pub fn push(&self) -> Summary {
        self.try_push().unwrap()
    }

    pub fn try_push(&self) -> nfreezer::error::Result<Summary> {
        push::push(background(), &self.repo, &self.options())
    }

    pub fn options(&self) -> push::Options {
        push::Options { sources: vec![self.top()], host: "host".into(), user: "user".into(), ..Default::default() }
    }

    pub fn check(&self, options: &Options) -> (Report, Told) {
        let told = Mutex::new(Told::default());
        self.repo.forget_blocks();
        let state = self.repo.state(background()).unwrap();
        let report = check::check(background(), &self.repo, &state, options, &mut |found| tell(&told, &found)).unwrap();
        (report, told.into_inner().unwrap())
    }

    pub fn try_repair(&self, options: &Options, consent: Consent) -> nfreezer::error::Result<(Repaired, Told)> {
        let told = Mutex::new(Told::default());
        self.repo.forget_blocks();
        let mut state = self.repo.state(background()).unwrap();
        let take = &mut |found: Finding<'_>| tell(&told, &found);
        let repaired = check::repair(background(), &self.repo, &mut state, options, consent, take)?;
        Ok((repaired, told.into_inner().unwrap()))
    }

    /// Marks what is lost; with `yes` also replaces what is hit.
    pub fn repair(&self, options: &Options, yes: bool) -> (Repaired, Told) {
        self.try_repair(options, Consent { yes, dry_run: false }).unwrap()
    }

    /// Restores the folder that was pushed into a new one. Gives it with the figures.
    pub fn restore(&self, snapshot: &Snapshot) -> (tempfile::TempDir, PathBuf, restore::Summary) {
        self.repo.forget_blocks();
        let keep = tempfile::tempdir().unwrap();
        let (target, top) = (keep.path().join("out"), self.top().display().to_string());
        let options = restore::Options::default();
        let summary = restore::restore(background(), &self.repo, snapshot, top.as_bytes(), &target, &options).unwrap();
        (keep, target, summary)
    }

    /// The snapshot holds what is on the disk now.
    pub fn assert_restores(&self, snapshot: &Snapshot) {
        let (_keep, target, summary) = self.restore(snapshot);
        assert_eq!((summary.damaged, summary.failed), (0, 0));
        assert_same(&on_disk(&target), &on_disk(&self.top()));
    }

    pub fn packs(&self) -> Vec<(ObjectId, u64)> {
        let entries = (0..16).flat_map(|x| self.memory.list(background(), Folder::PackShard(x)).unwrap());
        let id = |name: &Name| if let Name::Pack(id) = name { *id } else { unreachable!() };
        entries.map(|entry| (id(&entry.name), entry.size)).collect()
    }

    pub fn records(&self) -> Vec<Name> {
        let mut all: Vec<_> =
            self.memory.list(background(), Folder::Log).unwrap().into_iter().map(|e| e.name).collect();
        all.sort_by_key(Name::file);
        all
    }

    /// The first chunk of a file, or the top page of a directory.
    pub fn chunk_of(&self, snapshot: &Snapshot, name: &str) -> Ref {
        let path = self.top().join(name).display().to_string();
        let content = self.repo.at(background(), snapshot, path.as_bytes()).unwrap().content;
        match content {
            Content::Directory(Some(page)) => page,
            _ => self.chunks(snapshot, name)[0],
        }
    }

    /// The chunks of a file.
    pub fn chunks(&self, snapshot: &Snapshot, name: &str) -> Vec<Ref> {
        let path = self.top().join(name).display().to_string();
        let content = self.repo.at(background(), snapshot, path.as_bytes()).unwrap().content;
        let extents = self.repo.extents(background(), &content).map(Result::unwrap);
        extents.filter_map(|extent| if let Extent::Data(r) = extent { Some(r) } else { None }).collect()
    }

    pub fn remove(&self, r: &Ref) {
        self.memory.remove(background(), &Name::Pack(r.pack.id)).unwrap();
    }
}

pub fn tell(told: &Mutex<Told>, found: &Finding<'_>) {
    let mut told = told.lock().unwrap();
    match found {
        Finding::Object { name, why } => told.objects.push((name.clone(), why.clone())),
        Finding::Path { snapshot, path, what, .. } => {
            told.paths.push((snapshot.id, String::from_utf8_lossy(path).into_owned(), *what));
        }
    }
}
