//! An in-memory repository that is filled by real pushes, and damage to its objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nfreezer::check::{self, Consent, Finding, Lost, Options, Repaired, Report};
use nfreezer::context::background;
use nfreezer::crypto::seal::block_place;
use nfreezer::format::node::Content;
use nfreezer::format::record::{Snapshot, SnapshotId};
use nfreezer::format::reference::{Extent, Ref};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::push::{self, Summary};
use nfreezer::repo::{Repository, Span};
use nfreezer::restore;
use nfreezer::storage::{Memory, Storage};
use nfreezer::trees::Trees;
use nfreezer::vfs::{self, Entry, Kind, Mode, Vfs, inode};

use super::repository;
use super::tree::{assert_same, noise, on_disk, write};

/// A repository, its objects, and the folder that is pushed into it.
pub struct Saved<S = Memory> {
    pub memory: Arc<S>,
    pub repo: Repository,
    dir: tempfile::TempDir,
}

/// The findings of a check: objects with a message, and lost paths of snapshots.
#[derive(Debug, Default)]
pub struct Told {
    pub objects: Vec<(String, String)>,
    pub paths: Vec<(SnapshotId, String, Lost)>,
}

impl Told {
    pub fn names(&self) -> Vec<&str> {
        self.objects.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Returns the paths below `top` that have lost data in this snapshot.
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

    /// Flips a bit in the first sealed block of a chunk.
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
    /// Makes a new repository on this storage.
    pub fn on(memory: Arc<S>) -> Self {
        let repo = repository::init(memory.clone());
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

    /// Repairs the repository: marks lost objects, and with `yes` also replaces damaged snapshots.
    pub fn repair(&self, options: &Options, yes: bool) -> (Repaired, Told) {
        self.try_repair(options, Consent { yes, dry_run: false }).unwrap()
    }

    /// Restores the pushed folder into a temporary one. Returns the temporary folder, the target in it and the summary.
    pub fn restore(&self, snapshot: &Snapshot) -> (tempfile::TempDir, PathBuf, restore::Summary) {
        self.repo.forget_blocks();
        let keep = tempfile::tempdir().unwrap();
        let (target, top) = (keep.path().join("out"), self.top().display().to_string());
        let options = restore::Options::default();
        let summary = restore::restore(background(), &self.repo, snapshot, top.as_bytes(), &target, &options).unwrap();
        (keep, target, summary)
    }

    /// Checks that the snapshot equals the present contents of the folder.
    pub fn assert_restores(&self, snapshot: &Snapshot) {
        let (_keep, target, summary) = self.restore(snapshot);
        assert_eq!((summary.damaged, summary.failed), (0, 0));
        assert_same(&on_disk(&target), &on_disk(&self.top()));
    }

    /// Checks that every reader, with empty caches, finds the present contents of the folder: a walk over the tree like
    /// `ls`, `restore`, and the mount's file system without a kernel.
    pub fn assert_read_everywhere(&self, snapshot: &Snapshot) {
        let disk = files(&self.top());
        self.repo.forget_blocks();
        assert_eq!(self.listed(snapshot), disk, "ls");
        let (_keep, target, summary) = self.restore(snapshot);
        assert_eq!((summary.damaged, summary.failed), (0, 0));
        assert_eq!(files(&target), disk, "restore");
        assert_eq!(self.shown(snapshot), disk, "vfs");
    }

    fn listed(&self, snapshot: &Snapshot) -> Files {
        let trees = Trees::new(&self.repo);
        let top = trees.at(background(), snapshot, self.top().display().to_string().as_bytes()).unwrap();
        let (mut found, mut open) = (Files::new(), vec![(String::new(), top)]);
        while let Some((path, node)) = open.pop() {
            let contents = match &node.content {
                Content::Directory(page) => {
                    for below in trees.entries(background(), page.as_ref()) {
                        let below = below.unwrap();
                        let name = String::from_utf8(below.name.clone()).unwrap();
                        open.push((if path.is_empty() { name } else { format!("{path}/{name}") }, below));
                    }
                    None
                }
                content => {
                    let extents = trees.extents(background(), content).map(|extent| match extent.unwrap() {
                        Extent::Data(r) => trees.chunk(background(), &r, Span::Exact).unwrap(),
                        Extent::Hole(len) => vec![0; len as usize],
                    });
                    Some(extents.collect::<Vec<_>>().concat())
                }
            };
            if !path.is_empty() {
                found.insert(path, contents);
            }
        }
        found
    }

    fn shown(&self, snapshot: &Snapshot) -> Files {
        let repo = Arc::new(self.repo.behind(self.memory.clone()));
        let state = repo.state(background()).unwrap();
        let at = Some((snapshot.clone(), self.top().display().to_string().into_bytes()));
        let vfs = Vfs::new(background(), repo, state, vfs::Options { at, ..vfs::Options::default() }).unwrap();
        let mode = Mode::Fetch(background());
        let (mut found, mut open) = (Files::new(), vec![(String::new(), inode::ROOT)]);
        while let Some((path, ino)) = open.pop() {
            let mut entries = Vec::new();
            let add = &mut |entry: &Entry<'_>| {
                entries.push((String::from_utf8(entry.name.into()).unwrap(), entry.attr));
                false
            };
            vfs.readdir(ino, 0, true, mode, add).unwrap_or_else(|e| panic!("{path}: {e}"));
            for (name, attr) in entries.into_iter().skip(2) {
                let path = format!("{path}{name}");
                if attr.kind == Kind::Directory {
                    found.insert(path.clone(), None);
                    open.push((format!("{path}/"), attr.ino));
                    continue;
                }
                let read = |at| vfs.read(attr.ino, at, 1 << 20, mode, &|_| ());
                let parts =
                    (0..attr.size).step_by(1 << 20).map(|at| read(at).unwrap_or_else(|e| panic!("{path}: {e}")));
                found.insert(path.clone(), Some(parts.collect::<Vec<_>>().concat()));
            }
        }
        found
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

    /// Returns the first chunk of a file, or the top page of a directory.
    pub fn chunk_of(&self, snapshot: &Snapshot, name: &str) -> Ref {
        let path = self.top().join(name).display().to_string();
        let content = Trees::new(&self.repo).at(background(), snapshot, path.as_bytes()).unwrap().content;
        match content {
            Content::Directory(Some(page)) => page,
            _ => self.chunks(snapshot, name)[0],
        }
    }

    /// Returns the chunks of a file.
    pub fn chunks(&self, snapshot: &Snapshot, name: &str) -> Vec<Ref> {
        let path = self.top().join(name).display().to_string();
        let content = Trees::new(&self.repo).at(background(), snapshot, path.as_bytes()).unwrap().content;
        let trees = Trees::new(&self.repo);
        let extents = trees.extents(background(), &content).map(Result::unwrap);
        extents.filter_map(|extent| if let Extent::Data(r) = extent { Some(r) } else { None }).collect()
    }

    pub fn remove(&self, r: &Ref) {
        self.memory.remove(background(), &Name::Pack(r.pack.id)).unwrap();
    }
}

/// Contents of files by path; `None` for directories.
pub type Files = BTreeMap<String, Option<Vec<u8>>>;

/// Reads the files and directories below `top` on the disk.
pub fn files(top: &Path) -> Files {
    let (mut found, mut open) = (Files::new(), vec![top.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().display().to_string();
            let contents = if path.is_dir() { None } else { Some(std::fs::read(&path).unwrap()) };
            if contents.is_none() {
                open.push(path);
            }
            found.insert(name, contents);
        }
    }
    found
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
