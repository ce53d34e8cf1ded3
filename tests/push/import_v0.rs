//! Promises of `import-v0`: a repository that the real Python program made is imported whole. Whatever a server does to
//! one, damaged files are named and never taken for data, and the rest is imported.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::harness::cli::Env;
use crate::harness::repository;
use crate::harness::tree::{What, noise};
use crate::harness::v0::{Run, V0};
use nfreezer::context::{Context, background};
use nfreezer::crypto::secret::Passphrase;
use nfreezer::error::{Error, Kind, Result};
use nfreezer::import::OldRepository;
use nfreezer::name::Name;
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{Failure, Options, Stream, StreamKind, push_streams};
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;
use sha2::{Digest, Sha256};

/// Skipped paths with the reasons, and warnings.
#[derive(Default)]
struct Said(Mutex<(Vec<String>, Vec<String>)>);

impl Progress for Said {
    fn event(&self, event: Event<'_>) {
        let mut said = self.0.lock().unwrap();
        match event {
            Event::Skipped { path, why } => said.0.push(format!("{}: {why}", String::from_utf8_lossy(path))),
            Event::Warning { text } => said.1.push(text.to_owned()),
            _ => {}
        }
    }
}

fn old_passphrase() -> Result<Passphrase> {
    Ok(Passphrase::new("old".into()).unwrap())
}

/// Result of an import: the contents or the error of each file, the skipped paths, and the warnings.
#[derive(Debug, PartialEq)]
struct Came {
    files: BTreeMap<String, std::result::Result<Vec<u8>, String>>,
    skipped: Vec<String>,
    warned: Vec<String>,
}

impl Came {
    fn names(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    fn errors(&self) -> Vec<&str> {
        self.files.values().filter_map(|file| file.as_ref().err()).map(String::as_str).collect()
    }
}

/// Reads all files of an old repository.
fn import(storage: Arc<dyn Storage>) -> Result<Came> {
    let said = Said::default();
    let old = OldRepository::open(&background().with_progress(&said), storage, old_passphrase)?;
    let mut files = BTreeMap::new();
    for item in old.items() {
        let Some(file) = item.file else { continue };
        let contents = (file.open)().map_err(|e| e.to_string()).and_then(read);
        assert!(files.insert(String::from_utf8(item.path).unwrap(), contents).is_none());
    }
    let (skipped, warned) = said.0.into_inner().unwrap();
    assert_eq!(old.skipped(), skipped.len() as u64);
    Ok(Came { files, skipped, warned })
}

fn read(mut reader: Box<dyn Read + Send>) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = vec![];
    let mut part = vec![0; 100_000];
    loop {
        match reader.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend(&part[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.to_string()),
        }
    }
}

fn error_of(result: Result<Came>) -> Error {
    result.expect_err("it must fail")
}

#[test]
fn later_entries_count_and_deleted_names_are_gone() {
    let mut v0 = V0::new();
    v0.file(b"a", 5, b"first");
    v0.file(b"gone", 5, b"gone");
    v0.file(b"back", 5, b"first");
    v0.file(b"a", 6, b"second");
    v0.delete(b"gone");
    v0.delete(b"back");
    v0.delete(b"never was there");
    v0.run = Run::new(b"old", 2);
    v0.file(b"back", 7, b"second");
    let came = import(Arc::new(v0.finish())).unwrap();
    let second = Ok(b"second".to_vec());
    assert_eq!(came.files, BTreeMap::from([("a".into(), second.clone()), ("back".into(), second)]));
    assert_eq!((came.skipped.len(), came.warned.len()), (0, 0));
}

#[test]
fn times_are_kept_to_the_nanosecond_and_folders_have_the_latest_of_theirs() {
    let mut v0 = V0::new();
    v0.file(b"a/b/x", 1_600_000_000_123_456_789, b"x");
    v0.file(b"a/c", u64::MAX, b"c");
    v0.file(b"z", 0, b"z");
    let old = OldRepository::open(&background().with_progress(&Said::default()), Arc::new(v0.finish()), old_passphrase)
        .unwrap();
    let times: Vec<_> = old.items().map(|item| (String::from_utf8(item.path).unwrap(), item.mtime)).collect();
    let (x, c) = (Time::new(1_600_000_000, 123_456_789), Time::new(18_446_744_073, 709_551_615));
    let expected = [("", c), ("a", c), ("a/b", x), ("a/b/x", x), ("a/c", c), ("z", Time::default())];
    assert_eq!(times, expected.map(|(path, time)| (path.to_owned(), time)));
    assert_eq!(old.newest(Time::new(2_000_000_000, 0)), Some(x), "a time in the future says nothing");
    assert_eq!(old.total(), (3, 3));
}

#[test]
fn contents_of_any_length_come_in_pieces() {
    let mut v0 = V0::new();
    let big = noise(3, (3 << 20) + 5);
    // A piece has 1 MiB, including its header of 48 bytes.
    let lengths = [0, 1, 15, 16, 17, (1 << 20) - 49, (1 << 20) - 48, (1 << 20) - 47, (2 << 20) - 48, (3 << 20) + 5];
    for len in lengths {
        v0.file(format!("{len}").as_bytes(), 1, &big[..len]);
    }
    let came = import(Arc::new(v0.finish())).unwrap();
    for len in lengths {
        assert!(came.files[&len.to_string()].as_deref() == Ok(&big[..len]), "{len}");
    }
}

#[test]
fn many_small_files_come_through_the_budget() {
    let mut v0 = V0::new();
    let contents = noise(4, 900_000);
    let id = v0.file(b"first", 1, &contents);
    for number in 0..60 {
        v0.entry(id, 1, Sha256::digest(&contents).into(), format!("{number}").as_bytes());
    }
    // All files are announced before the first one is read. A push may do the same.
    let old = OldRepository::open(&background().with_progress(&Said::default()), Arc::new(v0.finish()), old_passphrase)
        .unwrap();
    let all: Vec<_> = old.items().filter_map(|item| item.file).collect();
    assert_eq!(all.len(), 61);
    for file in all.into_iter().rev() {
        assert!(read((file.open)().unwrap()).as_ref() == Ok(&contents));
    }
}

#[test]
fn a_changed_byte_anywhere_in_the_contents_is_found() {
    let mut v0 = V0::new();
    let big = noise(5, (2 << 20) + 100);
    let id = v0.file(b"big", 1, &big);
    let small = v0.file(b"small", 1, b"small");
    let storage = v0.finish();
    let [big_object, small_object] = [id, small].map(|id| storage.get(&Name::OldObject(id)).unwrap());
    let storage = Arc::new(storage);
    let damaged = |id, mut bytes: Vec<u8>, at: usize| {
        bytes[at] ^= 1;
        storage.overwrite(&Name::OldObject(id), bytes);
        import(storage.clone()).unwrap()
    };
    // Every fourth byte is changed: in the salt, the nonce, the tag, and all of the ciphertext.
    for at in (0..small_object.len()).step_by(4) {
        assert_eq!(
            damaged(small, small_object.clone(), at).errors(),
            ["its contents are damaged (their tag is wrong)"]
        );
    }
    storage.overwrite(&Name::OldObject(small), small_object);
    for at in [0, 16, 32, 48, 1 << 20, big_object.len() - 1] {
        let came = damaged(id, big_object.clone(), at);
        assert_eq!(came.errors(), ["its contents are damaged (their tag is wrong)"], "{at}");
        assert_eq!(came.files["small"], Ok(b"small".to_vec()));
    }
}

#[test]
fn contents_that_are_missing_cut_lengthened_or_exchanged_are_found() {
    let mut v0 = V0::new();
    let [a, b, cut, long, torso, _] =
        [b"aaaa", b"bbbb", b"cutt", b"long", b"tors", b"fine"].map(|name: &[u8; 4]| v0.file(name, 1, name));
    v0.entry([99; 16], 1, [7; 32], b"miss");
    let objects = [a, b].map(|id| v0.storage.get(&Name::OldObject(id)).unwrap());
    v0.change(a, |bytes| bytes.clone_from(&objects[1]));
    v0.change(b, |bytes| bytes.clone_from(&objects[0]));
    v0.change(cut, |bytes| bytes.truncate(bytes.len() - 1));
    v0.change(long, |bytes| bytes.push(0));
    v0.change(torso, |bytes| bytes.truncate(47));
    let came = import(Arc::new(v0.finish())).unwrap();
    for (name, words) in [
        ("aaaa", "SHA-256"),
        ("bbbb", "SHA-256"),
        ("cutt", "tag is wrong"),
        ("long", "tag is wrong"),
        ("tors", "too short"),
        ("miss", "not there (object 6363"),
    ] {
        assert!(came.files[name].as_ref().is_err_and(|e| e.contains(words)), "{name}: {:?}", came.files[name]);
    }
    assert_eq!(came.files["fine"], Ok(b"fine".to_vec()));
}

#[test]
fn an_object_of_no_bytes_ends() {
    let mut v0 = V0::new();
    let id = v0.file(b"a", 1, b"a");
    v0.change(id, Vec::clear);
    assert!(!import(Arc::new(v0.finish())).unwrap().errors().is_empty());
}

#[test]
fn an_index_that_is_cut_anywhere_gives_the_entries_before_the_cut() {
    let mut v0 = V0::new();
    let mut ends = vec![0];
    for name in [b"a", b"b", b"c"] {
        v0.file(name, 1, name);
        ends.push(v0.index.len());
    }
    let whole = v0.index.clone();
    let storage = Arc::new(v0.finish());
    let near = |len: usize| ends.iter().any(|end| len.abs_diff(*end) < 6);
    for len in (0..whole.len()).filter(|len| len % 9 == 0 || near(*len)) {
        storage.overwrite(&Name::OldIndex, whole[..len].to_vec());
        let before = ends.iter().filter(|end| **end <= len).count() - 1;
        match import(storage.clone()) {
            Ok(came) => {
                assert_eq!((came.files.len(), came.errors().len()), (before, 0), "{len}");
                assert_eq!((came.skipped.len(), came.warned.len()), (0, usize::from(!ends.contains(&len))), "{len}");
            }
            Err(e) => assert_eq!((before, e.kind()), (0, Kind::Failed), "{len}: {e}"),
        }
    }
}

#[test]
fn what_was_appended_behind_a_torso_is_found() {
    let mut v0 = V0::new();
    v0.file(b"a", 1, b"a");
    let torn = v0.run.block([1; 16], 1, [0; 32], b"torn off");
    v0.run = Run::new(b"old", 2);
    let before = v0.index.clone();
    v0.index.clear();
    v0.file(b"b", 1, b"b");
    v0.file(b"c", 1, b"c");
    let after = std::mem::take(&mut v0.index);
    let storage = Arc::new(v0.finish());
    for len in (1..torn.len()).filter(|len| len % 7 == 0 || *len < 6 || *len + 2 > torn.len()) {
        storage.overwrite(&Name::OldIndex, [&before, &torn[..len], &after].concat());
        let came = import(storage.clone()).unwrap();
        assert_eq!(came.names(), ["a", "b", "c"], "{len}");
        assert_eq!((came.skipped.len(), came.warned.len()), (0, 1), "{len}");
    }
}

#[test]
fn a_changed_byte_in_the_index_costs_one_entry_which_is_reported() {
    let mut v0 = V0::new();
    let mut starts = Vec::new();
    for name in [b"a", b"b", b"c", b"d"] {
        starts.push(v0.index.len());
        v0.file(name, 1, name);
    }
    let whole = v0.index.clone();
    let storage = Arc::new(v0.finish());
    for at in (0..whole.len()).filter(|at| at % 23 == 0 || starts.iter().any(|start| (*start..start + 4).contains(at)))
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x80;
        storage.overwrite(&Name::OldIndex, bytes);
        let came = import(storage.clone()).unwrap();
        let hit = starts.iter().filter(|start| **start <= at).count() - 1;
        let mut left = vec!["a", "b", "c", "d"];
        left.remove(hit);
        assert_eq!((came.names(), came.skipped.len() + came.warned.len()), (left, 1), "{at}: {came:?}");
    }
}

#[test]
fn entries_that_are_no_entries_are_reported_and_left_out() {
    let mut v0 = V0::new();
    v0.file(b"fine", 1, b"fine");
    let bomb = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 40 << 20], 9);
    assert!(bomb.len() < 60_000, "it would be refused by its length");
    let short = miniz_oxide::deflate::compress_to_vec_zlib(&[1; 63], 6);
    for zlib in [&bomb[..], &short, b"no zlib stream at all", &bomb[..1000]] {
        let block = v0.run.raw_block(zlib);
        v0.index.extend(block);
    }
    for name in [&b"../../etc/passwd"[..], b"a/../b", b"", b"nul\0", b"a//b", &[b'n'; 256]] {
        v0.file(name, 1, b"bad");
    }
    v0.file(b"fine too", 1, b"fine");
    let came = import(Arc::new(v0.finish())).unwrap();
    assert_eq!((came.names(), came.skipped.len()), (vec!["fine", "fine too"], 10), "{:?}", came.skipped);
    assert!(came.skipped.iter().any(|text| text.starts_with("../../etc/passwd: ")), "{:?}", came.skipped);
}

#[test]
fn a_wrong_passphrase_is_reported_before_anything_else() {
    let right = V0::new;
    let mut v0 = right();
    v0.file(b"a", 1, b"a");
    let storage: Arc<dyn Storage> = Arc::new(v0.finish());
    let said = Said::default();
    let wrong = || Ok(Passphrase::new("wrong".into()).unwrap());
    let error = OldRepository::open(&background().with_progress(&said), storage, wrong).err().unwrap();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::Passphrase, "wrong passphrase of the old repository")
    );
    assert!(said.0.into_inner().unwrap().0.is_empty());
    // The import does not try all salts of an index that has many.
    let mut v0 = right();
    for number in 0..200u8 {
        let mut block = v0.run.block([1; 16], 1, [0; 32], b"x");
        block[4..20].fill(number);
        v0.index.extend(block);
    }
    let storage = Arc::new(v0.finish());
    assert_eq!(error_of(import(storage.clone())).kind(), Kind::Passphrase);
    assert!(storage.traffic().1 < 100_000);
}

#[test]
fn what_is_no_old_repository_or_an_empty_one_is_said() {
    let error = error_of(import(Arc::new(Memory::default())));
    assert_eq!((error.kind(), error.hint_text().unwrap().contains("destination")), (Kind::NoRepository, true));
    let storage = Memory::default();
    storage.put(background(), &Name::Config, b"x").unwrap();
    assert!(error_of(import(Arc::new(storage))).hint_text().unwrap().contains("needs no import"));
    let mut v0 = V0::new();
    v0.file(b"a", 1, b"a");
    v0.delete(b"a");
    for v0 in [V0::new(), v0] {
        let error = error_of(import(Arc::new(v0.finish())));
        assert_eq!((error.kind(), error.to_string().contains("holds no files")), (Kind::Failed, true));
    }
}

#[test]
fn asking_to_stop_ends_the_reading_of_the_index() {
    let mut v0 = V0::new();
    v0.file(b"a", 1, b"a");
    let stopped = Context::new(&nfreezer::progress::Silent, Arc::new(std::sync::atomic::AtomicI32::new(2)));
    let result = OldRepository::open(&stopped, Arc::new(v0.finish()), old_passphrase);
    assert_eq!(result.err().map(|e| e.kind()), Some(Kind::Interrupted(2)));
}

#[test]
fn damaged_contents_are_saved_as_unreadable_and_never_as_data() {
    let mut v0 = V0::new();
    let big = noise(6, 12 << 20);
    let id = v0.file(b"big", 1, &big);
    v0.file(b"fine", 1, b"fine");
    v0.change(id, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let said = Said::default();
    let old = OldRepository::open(&background().with_progress(&said), Arc::new(v0.finish()), old_passphrase).unwrap();
    let storage = Arc::new(Memory::default());
    let repo = repository::init(storage);
    let streams = old.items().filter_map(|item| {
        let file = item.file?;
        let kind = StreamKind::File { size: Some(file.size), failure: Failure::Skip, open: file.open };
        Some(Ok(Stream { path: [b"/", &item.path[..]].concat(), mode: 0o600, uid: 0, gid: 0, mtime: item.mtime, kind }))
    });
    let options = Options { sources: vec!["/".into()], ..Options::default() };
    let done = push_streams(&background().with_progress(&said), &repo, &options, streams).unwrap();
    assert_eq!((done.skipped, done.snapshot.stats.files, done.snapshot.stats.unreadable), (1, 1, 1));
    let tree = crate::harness::tree::in_snapshot(&repo, &done.snapshot, Path::new("/"));
    let what = |path: &[u8]| &tree[path].what;
    assert_eq!((what(b"big"), matches!(what(b"fine"), What::File(..))), (&What::Unreadable(5), true));
    let said = said.0.into_inner().unwrap().0;
    assert_eq!(said, ["/big: its contents are damaged (their tag is wrong)"]);
}

// The binary, on repositories that the real program made.

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v0").join(name)
}

fn with_repository() -> Env {
    let mut env = Env::new();
    let repo = env.path("repo");
    env.set("NFREEZER_REPOSITORY", repo.to_str().unwrap());
    env.set("NFREEZER_OLD_PASSWORD", "old passphrase");
    env.nfreezer(["init"]).done();
    env
}

/// Returns the lines of `NAME.txt` for the files below a folder.
fn listing(top: &Path) -> Vec<String> {
    let (mut lines, mut open) = (Vec::new(), vec![top.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.metadata().unwrap();
            if meta.is_dir() {
                assert_eq!(meta.permissions().mode() & 0o7777, 0o700);
                open.push(path);
                continue;
            }
            assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
            let contents = fs::read(&path).unwrap();
            let digest: String = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
            let (inner, time) = (path.strip_prefix(top).unwrap(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec());
            lines.push(format!("{}\t{time}\t{}\t{digest}", inner.display(), contents.len()));
        }
    }
    lines.sort();
    lines
}

fn expected(name: &str) -> Vec<String> {
    let text = fs::read_to_string(golden(&format!("{name}.txt"))).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn what_the_real_program_made_comes_over() {
    let mut env = with_repository();
    for (name, passphrase, warning) in [
        ("runs", "old passphrase", ""),
        ("windows", "K\u{e4}se & Br\u{f6}tchen", ""),
        ("replaced", "old passphrase", "left out thing of the old index"),
        ("cut", "old passphrase", "50 bytes from 1091 on: a run of the old program was interrupted"),
        ("appended", "old passphrase", "77 bytes from 254 on: a run of the old program was interrupted"),
    ] {
        env.set("NFREEZER_OLD_PASSWORD", passphrase);
        let place = format!("/home/jo/{name}");
        let source = golden(name);
        let output = env.nfreezer(["import-v0", source.to_str().unwrap(), "--as", &place, "--json"]).success();
        assert_eq!((output.stderr.contains("warning"), output.stderr.contains(warning)), (!warning.is_empty(), true));
        let summary = output.objects().pop().unwrap();
        let id = summary["snapshot"].as_str().unwrap().to_owned();
        assert_eq!(
            (summary["new"].as_u64(), summary["skipped"].as_u64()),
            (Some(expected(name).len() as u64), Some(0))
        );
        env.nfreezer(["restore", &format!("{id}:{place}"), "-t", name]).done();
        assert_eq!(listing(&env.path(name)), expected(name), "{name}");
    }
}

#[test]
fn the_snapshot_says_where_it_comes_from_and_how_old_it_is() {
    let env = with_repository();
    let source = golden("runs");
    let source = source.to_str().unwrap();
    let output = env.nfreezer(["import-v0", source, "--tag", "laptop", "--host", "gone"]).success();
    assert!(output.stdout.contains("8 new") && output.stdout.contains("from the old repository"), "{}", output.stdout);
    let snapshots = env.nfreezer(["snapshots", "--json"]).success().objects();
    let snapshot = &snapshots[0];
    assert_eq!(snapshot["time"], "2020-09-13T12:26:56.049382583Z", "that of the newest file");
    assert_eq!((&snapshot["host"], &snapshot["paths"][0]), (&"gone".into(), &"/".into()));
    assert_eq!(snapshot["tags"], serde_json::json!(["import-v0", "laptop"]));
    assert_eq!(snapshot["description"], format!("from the Python nFreezer at {source}"));
    let names = env.nfreezer(["ls"]).success().stdout;
    assert_eq!(names, "comes back\nelsewhere/\nempty\nplain.txt\nsub/\n");
    // A second import, with its own time, reads everything and stores nothing new.
    let again =
        ["import-v0", source, "--host", "gone", "--time", "2021-01-01T00:00:00Z", "--json", "--description", "x"];
    let summary = env.nfreezer(again).success().objects().pop().unwrap();
    assert_eq!((&summary["unchanged"], &summary["added"], &summary["packs"]), (&8.into(), &0.into(), &0.into()));
    assert!(summary["read"].as_u64() == Some(644) && summary["fetched"].as_u64() > Some(1000), "{summary}");
    let snapshots = env.nfreezer(["snapshots", "--json"]).success().objects();
    assert_eq!(
        (&snapshots[1]["time"], &snapshots[1]["description"]),
        (&"2021-01-01T00:00:00.000000000Z".into(), &"x".into())
    );
}

#[test]
fn nothing_is_written_to_the_old_repository() {
    let env = with_repository();
    let copy = env.path("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(golden("runs")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        fs::set_permissions(copy.join(entry.file_name()), fs::Permissions::from_mode(0o400)).unwrap();
    }
    fs::write(copy.join("0123456789abcdef0123456789abcdef.tmp"), "of an interrupted run").unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o500)).unwrap();
    let before = listing_of_names(&copy);
    env.nfreezer(["import-v0", "copy"]).done();
    assert_eq!(listing_of_names(&copy), before);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).unwrap();
}

fn listing_of_names(folder: &Path) -> Vec<(String, u64, i64)> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            (entry.file_name().into_string().unwrap(), meta.len(), meta.mtime_nsec())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn damage_exits_with_3_and_bad_calls_have_their_codes() {
    let mut env = with_repository();
    let copy = env.path("copy");
    fs::create_dir(&copy).unwrap();
    let mut objects = Vec::new();
    for entry in fs::read_dir(golden("runs")).unwrap() {
        let entry = entry.unwrap();
        let to = copy.join(entry.file_name());
        fs::copy(entry.path(), &to).unwrap();
        if entry.file_name() != ".files" && entry.metadata().unwrap().len() == 648 {
            objects.push(to);
        }
    }
    // The object with 600 bytes of contents is `elsewhere/moved`.
    let mut bytes = fs::read(&objects[0]).unwrap();
    bytes[300] ^= 1;
    fs::write(&objects[0], bytes).unwrap();
    let output = env.nfreezer(["import-v0", "copy", "--json"]).exits(3);
    assert!(output.stderr.contains("skipped /elsewhere/moved: "), "{}", output.stderr);
    let objects = output.objects();
    assert_eq!(objects.last().unwrap()["skipped"], 1);
    assert!(objects.iter().any(|o| o["type"] == "error" && o["path"] == "/elsewhere/moved"), "{}", output.stdout);
    let output = env.nfreezer(["restore", "latest", "-t", "out"]).success();
    assert!(output.stderr.contains("was not readable when it was saved"), "{}", output.stderr);
    assert!(!env.path("out/elsewhere/moved").exists() && env.path("out/plain.txt").exists());

    for place in ["relative", "/a/../b", ""] {
        env.nfreezer(["import-v0", "copy", "--as", place]).fails(2);
    }
    let output = env.nfreezer(["import-v0", "repo"]).exits(10);
    assert!(output.stderr.contains("no file .files") && output.stderr.contains("needs no import"), "{}", output.stderr);
    env.nfreezer(["import-v0", "nowhere"]).fails(10);
    let output = env.nfreezer(["-r", "copy", "snapshots"]).exits(10);
    assert!(
        output.stderr.contains("hint: this is one of the Python nFreezer: `nfreezer import-v0`"),
        "{}",
        output.stderr
    );
    env.set("NFREEZER_OLD_PASSWORD", "wrong");
    let output = env.nfreezer(["import-v0", "copy"]).exits(12);
    assert!(output.stderr.contains("wrong passphrase of the old repository"), "{}", output.stderr);
    env.set("NFREEZER_OLD_PASSWORD", "\u{20ac}");
    let output = env.nfreezer(["import-v0", "copy"]).exits(12);
    assert!(output.stderr.contains("Latin-1"), "{}", output.stderr);
    env.set("NFREEZER_OLD_PASSWORD", "old passphrase").set("NFREEZER_PASSWORD", "wrong");
    let output = env.nfreezer(["import-v0", "copy"]).exits(12);
    assert!(!output.stderr.contains("old repository"), "{}", output.stderr);
}

#[test]
fn the_old_passphrase_has_sources_of_its_own() {
    let mut env = with_repository();
    let source = golden("runs");
    let source = source.to_str().unwrap();
    let file = env.write("old", "old passphrase\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // An option takes precedence over the environment.
    env.set("NFREEZER_OLD_PASSWORD", "wrong");
    env.nfreezer(["import-v0", source, "--old-password-file", "old"]).done();
    env.nfreezer(["import-v0", source, "--old-password-command", "cat old"]).done();
    let output =
        env.nfreezer(["import-v0", source, "--old-password-file", "old", "--old-password-command", "cat old"]).exits(2);
    assert!(output.stderr.contains("--old-password-file, --old-password-command"), "{}", output.stderr);
    env.set("NFREEZER_OLD_PASSWORD_FILE", "old");
    env.nfreezer(["import-v0", source]).fails(2);
    env.unset("NFREEZER_OLD_PASSWORD");
    env.nfreezer(["import-v0", source]).done();
    env.unset("NFREEZER_OLD_PASSWORD_FILE").set("NFREEZER_OLD_PASSWORD_COMMAND", "cat old");
    env.nfreezer(["import-v0", source]).done();
    env.unset("NFREEZER_OLD_PASSWORD_COMMAND");
    let output = env.nfreezer(["import-v0", source]).exits(2);
    assert!(output.stderr.contains("NFREEZER_OLD_PASSWORD"), "{}", output.stderr);
}

#[test]
fn it_comes_from_a_real_server_over_both_transports() {
    let sshd = crate::harness::sshd::Sshd::start();
    let mut env = Env::new();
    let base = format!("sftp://{}@127.0.0.1:{}/{}", sshd.user, sshd.port, sshd.files().display());
    env.set("NFREEZER_REPOSITORY", &format!("{base}/repo")).set("NFREEZER_OLD_PASSWORD", "old passphrase");
    let folder = sshd.files().join("old");
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(golden("runs")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let known = env.path("known_hosts");
    let config = env.write("ssh_config", format!("UserKnownHostsFile {}\nIdentityAgent none\n", known.display()));
    let (option, identity) = (format!("ssh.config={}", config.display()), sshd.identity());
    let ssh = |rest: &[&str]| {
        let common = ["-i", identity.to_str().unwrap(), "-o", &option];
        env.nfreezer(common.iter().chain(rest))
    };
    ssh(&["init", "--accept-new-host-key"]).done();
    let old = format!("{base}/old");
    for transport in ["ssh2", "openssh"] {
        let place = format!("/{transport}");
        let output = ssh(&["import-v0", &old, "--as", &place, "--transport", transport, "--json"]).success();
        let id = output.objects().pop().unwrap()["snapshot"].as_str().unwrap().to_owned();
        ssh(&["restore", &format!("{id}:{place}"), "-t", transport]).done();
        assert_eq!(listing(&env.path(transport)), expected("runs"));
    }
}
