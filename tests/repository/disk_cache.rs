//! The disk cache saves reads. Nothing in it can do harm, and it never decides which objects the server has.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::repository::passphrase;
use crate::harness::root::{Filesystem, needs_root};
use crate::harness::saved::Saved;
use crate::harness::tree::{assert_same, files_below, in_snapshot, on_disk};
use nfreezer::context::{Context, background};
use nfreezer::crypto::keys::ChunkKind;
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::record::Snapshot;
use nfreezer::name::{Folder, Name};
use nfreezer::push::{Summary, push};
use nfreezer::repo::{Access, CacheUse, Repository, Span};
use nfreezer::storage::{CacheFolder, Memory, Storage};

/// Records the calls, and fails all calls while `is_gone` is set.
#[derive(Default)]
struct Watched {
    calls: Mutex<Vec<String>>,
    bytes: Mutex<usize>,
    is_gone: AtomicBool,
}

impl Rule for Watched {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Connection, "the server is gone"));
        }
        let text = match call {
            Call::Put(name, _) => format!("put {name}"),
            Call::Read(name, ..) => format!("read {name}"),
            call => format!("{call:?}"),
        };
        self.calls.lock().unwrap().push(text);
        if let Call::Read(_, _, len) = call {
            *self.bytes.lock().unwrap() += len;
        }
        call.of(ctx, storage)
    }

    fn expect(&self, folder: Folder) {
        self.calls.lock().unwrap().push(format!("Expect({folder:?})"));
    }
}

struct World {
    saved: Saved<Between<Watched>>,
    dir: tempfile::TempDir,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Makes a repository on a watched server, 60 small files in 4 folders, two large ones, and an empty folder for the
    /// cache.
    fn new() -> Self {
        let saved = Saved::on(Between::with(Memory::default(), Watched::default()));
        (0..60).for_each(|i| saved.write(&format!("{:02}/{i}", i / 15), i, 2000));
        saved.write("large", 1, 150 << 10);
        saved.write("larger", 2, 400 << 10);
        World { saved, dir: tempfile::tempdir().unwrap(), warnings: Arc::default() }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Returns the repository as a new process opens it, with the cache.
    fn process(&self, cache_use: CacheUse) -> Repository {
        let warnings = Arc::clone(&self.warnings);
        let notice = Arc::new(move |text: &str| warnings.lock().unwrap().push(text.to_owned()));
        let cache = Some(CacheFolder::open(&self.cache(), 1 << 30, notice).unwrap());
        self.saved.repo.behind_with(self.saved.memory.clone(), &Access { cache, cache_use, ..Access::default() })
    }

    fn push_with(&self, repo: &Repository) -> Summary {
        push(background(), repo, &self.saved.options()).unwrap()
    }

    fn push(&self) -> Summary {
        self.push_with(&self.process(CacheUse::Write))
    }

    /// Takes the recorded calls of the server and returns those that begin with `begin`.
    fn calls(&self, begin: &str) -> Vec<String> {
        let calls = std::mem::take(&mut *self.saved.memory.calls.lock().unwrap());
        calls.into_iter().filter(|call| call.starts_with(begin)).collect()
    }

    fn bytes(&self) -> usize {
        std::mem::take(&mut *self.saved.memory.bytes.lock().unwrap())
    }

    /// Reads the whole tree of a snapshot as a mount does, and compares it with the disk.
    fn assert_reads(&self, snapshot: &Snapshot) {
        let repo = self.process(CacheUse::Mount);
        assert_same(&in_snapshot(&repo, snapshot, &self.saved.top()), &on_disk(&self.saved.top()));
    }

    fn go(&self, is_gone: bool) {
        self.saved.memory.is_gone.store(is_gone, Ordering::SeqCst);
    }

    /// Returns the files of the cache.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = files_below(&self.cache());
        files.retain(|path| !path.ends_with("CACHEDIR.TAG") && !path.ends_with("packs"));
        files
    }

    fn inner(&self) -> &Memory {
        &self.saved.memory.inner
    }
}

#[test]
fn a_push_without_changes_reads_nothing_of_what_earlier_pushes_wrote_or_read() {
    let world = World::new();
    world.push_with(&world.saved.repo);
    world.push_with(&world.saved.repo);
    world.calls("");
    world.bytes();
    world.push_with(&world.process(CacheUse::Write)); // fills the cache
    let (cold, cold_bytes) = (world.calls(""), world.bytes());
    world.push();
    let (warm, warm_bytes) = (world.calls(""), world.bytes());
    let count = |calls: &[String], begin: &str| calls.iter().filter(|call| call.starts_with(begin)).count();
    assert!(count(&cold, "read packs/") > 0 && count(&cold, "read log/") > 0 && cold_bytes > 5_000, "{cold:?}");
    assert_eq!((count(&warm, "read "), warm_bytes), (0, 0), "{warm:?}");
    // The size of a single pack is asked for only while the listing of the packs is not there yet.
    for other in ["List", "put "] {
        assert_eq!(count(&warm, other), count(&cold, other), "the cache answers no {other}: {warm:?}");
    }
    // A push need not read its own objects from the server either. Here only one push has filled the cache.
    fs::remove_dir_all(world.cache()).unwrap();
    world.saved.write("00/new", 999, 100);
    let first = world.push();
    assert_eq!(first.new, 1);
    world.saved.write("01/new", 998, 100);
    world.calls("");
    assert_eq!(world.push().new, 1);
    assert_eq!(world.calls("read log/"), [""; 0]);
    assert!(world.warnings.lock().unwrap().is_empty());
}

/// Only a command that lists the packs does so, and only once the cache knows that they are few.
#[test]
fn a_push_begins_to_list_the_packs_before_the_passphrase_is_known() {
    let world = World::new();
    let open = |lists_packs| {
        let cache = Some(CacheFolder::open(&world.cache(), 1 << 30, Arc::new(|_| ())).unwrap());
        let access = Access { cache, cache_use: CacheUse::Write, lists_packs, ..Access::default() };
        Repository::open_with(background(), world.saved.memory.clone(), &access, || Ok(passphrase())).unwrap()
    };
    let begun = || world.calls("Expect(PackShard").len();
    world.push_with(&open(true));
    world.push_with(&open(true)); // The first one found no packs.
    begun();
    drop(open(false));
    assert_eq!(begun(), 0);
    let repo = open(true);
    assert_eq!(begun(), 16);
    assert_eq!(world.push_with(&repo).unchanged, 62);
    // A file with a nonsensical number is ignored.
    let noted = fs::read_dir(world.cache()).unwrap().map(|entry| entry.unwrap().path().join("packs"));
    noted.filter(|path| path.exists()).for_each(|path| fs::write(path, "9999999").unwrap());
    begun();
    drop(open(true));
    assert_eq!(begun(), 0);
}

#[test]
fn a_dry_run_adds_nothing_of_its_own() {
    let world = World::new();
    world.push_with(&world.saved.repo);
    world.push_with(&world.process(CacheUse::DryRun));
    let before = world.files().len();
    world.saved.write("00/new", 999, 100);
    world.push_with(&world.process(CacheUse::DryRun));
    // The dry run adds no record or pack of its own. It adds one record that it read, from the push before.
    assert_eq!(world.files().len(), before + 1);
}

#[test]
fn a_push_leaves_contents_out_and_a_mount_keeps_them() {
    let world = World::new();
    let snapshot = world.push().snapshot;
    assert!(world.files().iter().all(|path| path.parent().unwrap().ends_with("metadata")), "{:?}", world.files());
    world.assert_reads(&snapshot);
    assert!(world.files().iter().any(|path| path.parent().unwrap().ends_with("contents")));
    world.calls("");
    world.assert_reads(&snapshot);
    assert_eq!(world.calls("read "), [""; 0]);
    // A reader does not notice that the server is gone.
    world.go(true);
    world.assert_reads(&snapshot);
    // The cache holds no plaintext, and each of its bytes equals the byte on the server.
    world.go(false);
    for path in world.files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let all = Folder::all().flat_map(|folder| world.inner().list(background(), folder).unwrap());
        let entry = all.into_iter().find(|entry| entry.name.file().ends_with(name)).expect("an object of the server");
        let (here, there) = (fs::read(&path).unwrap(), world.inner().get(&entry.name).unwrap());
        assert!(here.len() <= there.len());
        let is_same = here.iter().zip(&there).all(|(here, there)| here == there || *here == 0);
        assert!(is_same, "{name} differs from the object");
    }
}

/// A way to damage two files of the cache.
type Damage = fn(&PathBuf, &PathBuf);

#[test]
fn whatever_happens_to_the_files_of_the_cache_the_data_is_right_and_they_heal() {
    let damages: [(&str, Damage); 9] = [
        ("header", |a, b| both(a, b, |path| flip(path, 50))),
        ("first block", |a, b| both(a, b, |path| flip(path, 500))),
        ("a later block", |a, b| both(a, b, |path| flip(path, 70_000))),
        ("cut in a block", |a, b| both(a, b, |path| shorten(path, 70_000))),
        ("cut in the header", |a, b| both(a, b, |path| shorten(path, 10))),
        ("empty", |a, b| both(a, b, |path| shorten(path, 0))),
        ("exchanged", |a, b| {
            let (first, second) = (fs::read(a).unwrap(), fs::read(b).unwrap());
            fs::write(a, second).unwrap();
            fs::write(b, first).unwrap();
        }),
        ("zeros", |a, b| both(a, b, |path| fs::write(path, vec![0; 100_000]).unwrap())),
        ("deleted", |a, _| fs::remove_file(a).unwrap()),
    ];
    let world = World::new();
    let snapshot = world.push().snapshot;
    for (what, damage) in damages {
        world.assert_reads(&snapshot);
        let files = world.files();
        for pair in files.chunks(2) {
            damage(&pair[0], pair.last().unwrap());
        }
        world.calls("");
        world.assert_reads(&snapshot);
        assert!(!world.calls("read ").is_empty(), "{what}: the test is about bytes that are not used");
        world.go(true);
        world.assert_reads(&snapshot);
        world.go(false);
    }
    assert!(world.warnings.lock().unwrap().is_empty());
    // A folder takes the place of a file of the cache.
    let file = world.files().remove(0);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    world.assert_reads(&snapshot);
    world.push();
}

fn both(a: &PathBuf, b: &PathBuf, damage: impl Fn(&PathBuf)) {
    damage(a);
    if a != b {
        damage(b);
    }
}

fn flip(path: &PathBuf, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    if file.read_at(&mut byte, at).unwrap() == 1 {
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

fn shorten(path: &PathBuf, len: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().len();
    file.set_len(len.min(before)).unwrap();
}

/// The first rule of a writer: an object that only the cache has does not exist.
#[test]
fn a_pack_that_the_server_lost_is_missing_for_writers_and_shown_to_readers() {
    let world = World::new();
    let snapshot = world.push().snapshot;
    let root = snapshot.root.unwrap();
    world.inner().remove(background(), &Name::Pack(root.pack.id)).unwrap();
    let read = |cache_use| world.process(cache_use).chunk(background(), ChunkKind::Page, &root, Span::Exact);
    for reader in [CacheUse::Read, CacheUse::Mount] {
        read(reader).unwrap();
    }
    for writer in [CacheUse::Write, CacheUse::DryRun] {
        assert_eq!(read(writer).unwrap_err().kind(), Kind::Missing, "{writer:?}");
    }
    // A truncated pack does not exist either.
    let (memory, repo) = (world.inner(), world.process(CacheUse::Write));
    let other = world.saved.packs()[0].0;
    let bytes = memory.get(&Name::Pack(other)).unwrap();
    memory.overwrite(&Name::Pack(other), bytes[..bytes.len() - 1].to_vec());
    drop(repo);
    // The next push reports the loss and refers to no lost pack. Its snapshot can be read without the cache.
    let again = world.push();
    assert_ne!(again.snapshot.root, Some(root));
    let without = world.saved.repo.behind(world.saved.memory.clone());
    assert_same(&in_snapshot(&without, &again.snapshot, &world.saved.top()), &on_disk(&world.saved.top()));
}

#[test]
fn what_a_server_sends_wrong_is_never_kept_and_a_copy_elsewhere_shares_the_rest() {
    let world = World::new();
    let root = world.push_with(&world.saved.repo).snapshot.root.unwrap();
    let read = |repo: &Repository| repo.chunk(background(), ChunkKind::Page, &root, Span::Exact);
    let kind = |repo: &Repository| read(repo).map(drop).unwrap_err().kind();
    let name = Name::Pack(root.pack.id);
    let right = world.inner().get(&name).unwrap();
    let wrong: Vec<u8> = right.iter().map(|byte| byte ^ 1).collect();
    let after_header = [&right[..72], &wrong[72..]].concat();
    for bad in [wrong, after_header] {
        world.inner().overwrite(&name, bad);
        assert_eq!(kind(&world.process(CacheUse::Mount)), Kind::Damaged);
        world.go(true);
        assert_eq!(kind(&world.process(CacheUse::Mount)), Kind::Connection);
        world.go(false);
    }
    world.inner().overwrite(&name, right);
    read(&world.process(CacheUse::Mount)).unwrap();
    // The same repository at another address: an empty place shows that nothing is read there.
    let cache = Some(CacheFolder::open(&world.cache(), 1 << 30, Arc::new(|_| ())).unwrap());
    let access = Access { cache, ..Access::default() };
    read(&world.saved.repo.behind_with(Arc::<Memory>::default(), &access)).unwrap();
}

#[test]
fn a_check_reads_past_the_cache() {
    let world = World::new();
    let snapshot = world.push().snapshot;
    world.assert_reads(&snapshot);
    let root = snapshot.root.unwrap();
    let mut bytes = world.inner().get(&Name::Pack(root.pack.id)).unwrap();
    bytes[200] ^= 1;
    world.inner().overwrite(&Name::Pack(root.pack.id), bytes);
    let repo = world.process(CacheUse::Read);
    let state = repo.state(background()).unwrap();
    let mut found = Vec::new();
    let options = nfreezer::check::Options::default();
    let take = &mut |finding: nfreezer::check::Finding<'_>| found.push(format!("{finding:?}"));
    let report = nfreezer::check::check(background(), &repo, &state, &options, take).unwrap();
    assert!(report.is_damaged(), "{found:?}");
}

#[test]
fn many_readers_share_a_cache_that_is_deleted_again_and_again() {
    let world = World::new();
    let snapshot = world.push().snapshot;
    let repos = [0; 3].map(|_| world.process(CacheUse::Mount));
    let (is_done, top) = (AtomicBool::new(false), world.saved.top());
    let model = on_disk(&top);
    std::thread::scope(|scope| {
        let readers = repos.map(|repo| {
            let (model, snapshot, top) = (&model, &snapshot, &top);
            scope.spawn(move || assert_same(&in_snapshot(&repo, snapshot, top), model))
        });
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                let _ = fs::remove_dir_all(world.cache());
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let ended = readers.map(|reader| reader.join());
        is_done.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(|reader| reader.is_ok()));
    });
}

#[test]
fn a_full_disk_is_one_warning_and_no_error() {
    if !needs_root("mount") {
        return;
    }
    let world = World::new();
    let disk = Filesystem::tmpfs(&world.cache());
    fs::set_permissions(world.cache(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let remount = |option: &str| {
        let status = Command::new("mount").args(["-o", option]).arg(world.cache()).status();
        assert!(status.unwrap().success());
    };
    remount("remount,size=256k");
    fs::write(world.cache().join("full"), vec![1; 200 << 10]).unwrap();
    let snapshot = world.push().snapshot;
    world.assert_reads(&snapshot);
    world.assert_reads(&snapshot);
    let warnings = std::mem::take(&mut *world.warnings.lock().unwrap());
    assert!(!warnings.is_empty() && warnings.len() <= 3, "one for each process: {warnings:?}");
    assert!(warnings[0].contains("cannot add to the cache") && warnings[0].contains("No space left"), "{warnings:?}");
    // Reads also work where the cache cannot be written at all.
    remount("remount,ro");
    world.assert_reads(&snapshot);
    drop(disk);
}
