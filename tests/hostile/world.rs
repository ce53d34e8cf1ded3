//! An honest repository, created once and copied for each case. Also reads a repository in all ways, and compares the
//! results with the original files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use nfreezer::context::background;
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::keyfile::KeyFile;
use nfreezer::format::node::Content;
use nfreezer::format::record::{Snapshot, SnapshotId};
use nfreezer::format::reference::{Extent, Ref};
use nfreezer::name::{Folder, Name, hex};
use nfreezer::progress::{Event, Progress};
use nfreezer::repo::{Repository, State};
use nfreezer::restore::{self, restore};
use nfreezer::storage::{Memory, Storage};
use nfreezer::trees::Trees;
use nfreezer::vfs::{self, Fault, Mode, Vfs};

use crate::harness::tree::noise;
use crate::harness::writer::{Body, Item, Writer};
use crate::oracle::{CONTENTS, PASSPHRASE, said};

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

pub struct World {
    objects: BTreeMap<Name, Vec<u8>>,
    /// The repository on an honest storage.
    pub repo: Repository,
    pub truth: BTreeMap<SnapshotId, (Snapshot, Files)>,
    /// Snapshots, oldest first.
    pub snapshots: Vec<SnapshotId>,
    secrets: Vec<String>,
}

pub fn pass() -> Passphrase {
    Passphrase::new(PASSPHRASE.into()).unwrap()
}

/// Opens a repository. Runs one key derivation at a time, since the oracle limits memory.
pub fn open(storage: Arc<dyn Storage>) -> Result<Repository> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    Repository::open(background(), storage, || Ok(pass())).inspect_err(told)
}

/// Checks the text of an error.
pub fn told(error: &Error) {
    said(&error.to_string());
    said(&format!("{error:?}"));
    error.hint_text().into_iter().for_each(said);
}

pub fn init() -> (Arc<Memory>, Repository) {
    let memory = Arc::<Memory>::default();
    let repo = Repository::init(background(), memory.clone(), &pass(), KdfCost::DEFAULT, "test").unwrap();
    (memory, repo)
}

/// Returns the keys of the world as text, or nothing before the world is created.
pub fn secrets() -> impl Iterator<Item = &'static str> {
    WORLD.get().into_iter().flat_map(|world| world.secrets.iter().map(String::as_str))
}

static WORLD: OnceLock<World> = OnceLock::new();

/// Creates two snapshots of small files, each with its own packs.
pub fn world() -> &'static World {
    WORLD.get_or_init(World::make)
}

fn text(n: u32) -> Vec<u8> {
    format!("{CONTENTS} {n}\n").repeat(60).into_bytes()
}

fn trees() -> [Files; 2] {
    let first = [
        ("a", text(1)),
        ("blocks", noise(1, 200_000)),
        ("dir/c", text(2)),
        ("dir/deep/d", noise(2, 70_000)),
        ("empty", Vec::new()),
    ];
    let second = [("a", text(3)), ("blocks", noise(3, 150_000)), ("dir/c", text(4)), ("new", noise(4, 1000))];
    let owned =
        |files: &[(&str, Vec<u8>)]| files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
    [owned(&first), owned(&second)]
}

/// Converts files to the item of the writer.
pub fn item(files: &Files) -> Item {
    let mut root = Item::dir::<&str>([]);
    for (path, bytes) in files {
        let mut at = &mut root;
        for part in path.split('/') {
            let Body::Directory(entries) = &mut at.body else { panic!("{path}") };
            at = entries.entry(part.into()).or_insert_with(|| Item::dir::<&str>([]));
        }
        *at = Item::file(bytes);
    }
    root
}

impl World {
    fn make() -> World {
        let (memory, repo) = init();
        let (mut state, mut truth, mut snapshots) = (State::default(), BTreeMap::new(), Vec::new());
        for (n, files) in trees().into_iter().enumerate() {
            let mut writer = Writer::new(&repo);
            writer.chunk = 64 << 10;
            let snapshot = writer.commit(&mut state, &item(&files), |s| s.time.seconds += n as i64);
            snapshots.push(snapshot.id);
            truth.insert(snapshot.id, (snapshot, files));
        }
        let objects: BTreeMap<_, _> =
            names(&*memory).into_iter().map(|name| (name, memory.get(&name).unwrap())).collect();
        let key = objects.iter().find_map(|(name, bytes)| matches!(name, Name::Key(_)).then_some((name, bytes)));
        let (Name::Key(id), bytes) = key.unwrap() else { unreachable!() };
        let (master, _) = KeyFile::parse(id, repo.id(), bytes).unwrap().open(&pass()).unwrap();
        let secrets = vec![hex(master.expose()), format!("{:?}", master.expose())];
        World { objects, repo, truth, snapshots, secrets }
    }

    /// Returns a copy of all objects.
    pub fn memory(&self) -> Arc<Memory> {
        let memory = Memory::default();
        self.objects.iter().for_each(|(name, bytes)| memory.overwrite(name, bytes.clone()));
        Arc::new(memory)
    }

    pub fn bytes(&self, name: &Name) -> Vec<u8> {
        self.objects[name].clone()
    }

    pub fn key(&self) -> Name {
        *self.objects.keys().find(|name| matches!(name, Name::Key(_))).unwrap()
    }

    /// Returns the records, oldest first.
    pub fn records(&self) -> Vec<Name> {
        self.objects.keys().filter(|name| matches!(name, Name::Record { .. })).copied().collect()
    }

    /// Returns the pack with the pages of a snapshot (0: the older one), and a pack with some of its contents.
    pub fn packs(&self, snapshot: usize) -> (Name, Name) {
        let (snapshot, _) = &self.truth[&self.snapshots[snapshot]];
        let data = self.refs(snapshot, "blocks")[0];
        (Name::Pack(snapshot.root.unwrap().pack.id), Name::Pack(data.pack.id))
    }

    /// Returns the references of a file's chunks.
    pub fn refs(&self, snapshot: &Snapshot, path: &str) -> Vec<Ref> {
        let node = Trees::new(&self.repo).at(background(), snapshot, path.as_bytes()).unwrap();
        let trees = Trees::new(&self.repo);
        let extents = trees.extents(background(), &node.content).map(|extent| match extent.unwrap() {
            Extent::Data(r) => r,
            Extent::Hole(_) => unreachable!(),
        });
        extents.collect()
    }
}

/// Returns every object that a storage lists.
pub fn names(storage: &dyn Storage) -> Vec<Name> {
    let folders = [Folder::Root].into_iter().chain(Folder::all());
    folders.flat_map(|folder| storage.list(background(), folder).unwrap()).map(|entry| entry.name).collect()
}

/// Result of [`look`].
#[derive(Debug, Default)]
pub struct Seen {
    pub snapshots: BTreeSet<SnapshotId>,
    pub warnings: Vec<String>,
    /// Files that could not be read, by snapshot and path, with the error kind; the same for restore and mount.
    pub lost: BTreeMap<(SnapshotId, String), Kind>,
}

impl Seen {
    pub fn kinds(&self) -> Vec<Kind> {
        self.lost.values().copied().collect()
    }
}

/// Reads everything in every way, on a client without seen heads, and compares it with the truth. Contents must be
/// correct, each loss must be reported, and no file may be written outside of the target.
pub fn look(world: &World, storage: Arc<dyn Storage>) -> Result<Seen> {
    let client = || Arc::new(world.repo.behind(Arc::clone(&storage)));
    let state = client().state(background()).inspect_err(told)?;
    let mut seen = Seen { warnings: state.warnings(), ..Seen::default() };
    seen.warnings.iter().for_each(|text| said(text));
    for snapshot in state.snapshots() {
        let (true_snapshot, files) = world.truth.get(&snapshot.id).expect("a snapshot that nobody made");
        assert_eq!(&snapshot, true_snapshot, "an altered snapshot");
        seen.snapshots.insert(snapshot.id);
        let lost = restored(&client(), &snapshot, files);
        let listed = listed(&client(), &snapshot, files);
        let mounted = mounted(&client(), &state, &snapshot, files);
        assert_eq!(lost.keys().collect::<Vec<_>>(), mounted.keys().collect::<Vec<_>>(), "restore and mount disagree");
        assert!(listed.is_subset(&lost.keys().cloned().collect()), "ls loses more than a restore");
        seen.lost.extend(lost.into_iter().map(|(path, kind)| ((snapshot.id, path), kind)));
    }
    Ok(seen)
}

#[derive(Default)]
struct Told(Mutex<BTreeMap<String, Kind>>);

impl Progress for Told {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Skipped { path, why } => {
                told(why);
                let path = String::from_utf8_lossy(path).trim_start_matches('/').to_owned();
                self.0.lock().unwrap().insert(path, why.kind());
            }
            Event::Warning { text } => said(text),
            _ => {}
        }
    }
}

/// Restores a snapshot and checks the result. Returns the files that were not restored.
fn restored(repo: &Repository, snapshot: &Snapshot, files: &Files) -> BTreeMap<String, Kind> {
    let keep = tempfile::tempdir().unwrap();
    fs::write(keep.path().join("outside"), "outside").unwrap();
    let (out, told_of) = (keep.path().join("out"), Told::default());
    let result =
        restore(&background().with_progress(&told_of), repo, snapshot, b"/", &out, &restore::Options::default());
    let mut skipped = told_of.0.into_inner().unwrap();
    match result {
        Ok(summary) => assert_eq!(summary.damaged + summary.failed > 0, !skipped.is_empty()),
        Err(e) => {
            told(&e);
            skipped.insert(String::new(), e.kind());
        }
    }
    assert_eq!(fs::read(keep.path().join("outside")).unwrap(), b"outside");
    assert!(
        fs::read_dir(keep.path())
            .unwrap()
            .all(|e| ["outside", "out"].contains(&e.unwrap().file_name().to_str().unwrap()))
    );
    let mut there = Files::new();
    if out.exists() {
        gather(&out, &out, &mut there);
    }
    for (path, bytes) in &there {
        // A damaged file has another name and zeros in place of lost parts.
        let of = path.strip_suffix(".nfreezer-partial").and_then(|name| files.get(name));
        let rest = |whole: &Vec<u8>| {
            bytes.len() == whole.len() && bytes.iter().zip(whole).all(|(there, saved)| there == saved || *there == 0)
        };
        assert!(of.map_or_else(|| files.get(path) == Some(bytes), rest), "{path} was restored wrong");
    }
    compare(files, &skipped, |path| there.contains_key(path))
}

fn gather(top: &Path, folder: &Path, into: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.file_name().unwrap().as_bytes().starts_with(b".nfreezer"), "a torso was left behind: {path:?}");
        match path.symlink_metadata().unwrap().is_dir() {
            true => gather(top, &path, into),
            false => {
                let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
                into.insert(name, fs::read(&path).unwrap());
            }
        }
    }
}

/// Returns the missing files, each with the reported error kind of the file or of a directory above it. Fails if a
/// missing file was not reported.
fn compare(files: &Files, skipped: &BTreeMap<String, Kind>, is_there: impl Fn(&str) -> bool) -> BTreeMap<String, Kind> {
    let mut lost = BTreeMap::new();
    for path in files.keys().filter(|path| !is_there(path)) {
        let above = skipped.iter().find(|(at, _)| at.is_empty() || *at == path || path.starts_with(&format!("{at}/")));
        let (_, kind) = above.unwrap_or_else(|| panic!("{path} is silently missing"));
        lost.insert(path.clone(), *kind);
    }
    lost
}

/// Returns the directories that cannot be listed.
fn listed(repo: &Repository, snapshot: &Snapshot, files: &Files) -> BTreeSet<String> {
    let (mut skipped, mut there) = (BTreeMap::new(), BTreeSet::new());
    let mut folders = vec![(String::new(), snapshot.root)];
    while let Some((above, page)) = folders.pop() {
        for node in Trees::new(repo).entries(background(), page.as_ref()) {
            let node = match node {
                Ok(node) => node,
                Err(e) => {
                    told(&e);
                    skipped.insert(above.trim_end_matches('/').to_owned(), e.kind());
                    break;
                }
            };
            let path = format!("{above}{}", String::from_utf8(node.name).unwrap());
            match node.content {
                Content::Directory(page) => folders.push((format!("{path}/"), page)),
                _ => {
                    assert_eq!(files[&path].len() as u64, node.content.size());
                    there.insert(path);
                }
            }
        }
    }
    compare(files, &skipped, |path| there.contains(path)).into_keys().collect()
}

/// Reads each file through the mount. Returns the files that could not be read. Reads each file twice, since the second
/// read of a damaged one must fail too.
fn mounted(repo: &Arc<Repository>, state: &State, snapshot: &Snapshot, files: &Files) -> BTreeMap<String, Kind> {
    let options = vfs::Options { at: Some((snapshot.clone(), b"/".to_vec())), ..vfs::Options::default() };
    let vfs = Vfs::new(background(), Arc::clone(repo), state.clone(), options).unwrap();
    let mut skipped = BTreeMap::new();
    for (path, bytes) in files {
        let kinds = [(); 2].map(|()| match read_file(&vfs, path, bytes) {
            Ok(()) => None,
            Err(Fault::Broken(e)) => {
                told(&e);
                Some(e.kind())
            }
            Err(other) => panic!("{path}: {other:?}"),
        });
        assert_eq!(kinds[0], kinds[1], "{path}: not the same the second time");
        skipped.extend(kinds[0].map(|kind| (path.clone(), kind)));
    }
    skipped
}

fn read_file(vfs: &Vfs, path: &str, bytes: &[u8]) -> Result<(), Fault> {
    let mut ino = vfs::inode::ROOT;
    for part in path.split('/') {
        let found = vfs.lookup(ino, part.as_bytes(), Mode::Fetch(background()))?;
        ino = found.unwrap_or_else(|| panic!("{path}: said not to be there")).ino;
    }
    let mut all = Vec::new();
    let mut failed = None;
    for at in (0..bytes.len().max(1)).step_by(16 << 10) {
        match vfs.read(ino, at as u64, 16 << 10, Mode::Fetch(background()), &|_| ()) {
            Ok(part) => {
                let end = (at + part.len()).min(bytes.len());
                assert!(part == bytes[at..end], "{path}: wrong bytes at {at}");
                all.extend(part);
            }
            Err(fault) => failed = Some(fault),
        }
    }
    match failed {
        Some(fault) => Err(fault),
        None => {
            assert!(all == bytes, "{path}: too short");
            Ok(())
        }
    }
}
