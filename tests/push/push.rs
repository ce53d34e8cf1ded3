//! Promises of `push`, on a storage in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::repository;
use crate::harness::tree::{self, What, assert_same, in_snapshot, noise, on_disk, write};
use nfreezer::context::{Context, background};
use nfreezer::error::Kind;
use nfreezer::format::node::{CHANGED, Content};
use nfreezer::name::Folder;
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{Options, Summary, push};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};
use nfreezer::trees::Trees;

fn options(sources: &[&Path]) -> Options {
    Options {
        sources: sources.iter().map(PathBuf::from).collect(),
        host: "host".into(),
        user: "user".into(),
        tags: vec!["b".into(), "a".into(), "b".into()],
        description: "telling words".into(),
        ..Options::default()
    }
}

struct Setup {
    repo: Repository,
    storage: Arc<Memory>,
    dir: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let storage = Arc::new(Memory::default());
        Setup { repo: repository::init(storage.clone()), storage, dir: tempfile::tempdir().unwrap() }
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    fn push(&self) -> Summary {
        let summary = push(background(), &self.repo, &options(&[&self.top()])).unwrap();
        assert_eq!(summary.skipped, 0);
        summary
    }

    fn assert_equal(&self, summary: &Summary) {
        assert_same(&on_disk(&self.top()), &in_snapshot(&self.repo, &summary.snapshot, &self.top()));
    }

    fn packs(&self) -> usize {
        (0..16).map(|x| self.storage.list(background(), Folder::PackShard(x)).unwrap().len()).sum()
    }
}

#[test]
fn every_kind_of_file_comes_back() {
    let setup = Setup::new();
    tree::nasty(&setup.top());
    let summary = setup.push();
    setup.assert_equal(&summary);
    let model = on_disk(&setup.top());
    let count = |f: fn(&What) -> bool| model.values().filter(|seen| f(&seen.what)).count() as u64;
    let stats = summary.snapshot.stats;
    assert_eq!(stats.files, count(|w| matches!(w, What::File(..))));
    assert_eq!(stats.directories, count(|w| *w == What::Directory) + setup.top().components().count() as u64 - 2);
    assert_eq!(stats.new, stats.files);
    assert_eq!(stats.unreadable, 0);
    assert!(summary.read < 60 << 20, "holes were read: {}", summary.read);
    assert_eq!(summary.snapshot.tags, ["a", "b"]);
    assert_eq!(setup.repo.state(background()).unwrap().select("latest").unwrap(), summary.snapshot);
}

#[test]
fn nothing_changed_writes_no_pack_and_reads_no_file() {
    let setup = Setup::new();
    tree::nasty(&setup.top());
    tree::settle();
    let first = setup.push();
    let packs = setup.packs();
    let second = setup.push();
    assert_eq!(setup.packs(), packs);
    assert!(second.sent < 20 << 10, "{}", second.sent);
    assert_eq!((second.read, second.new, second.changed, second.packs), (0, 0, 0, 0));
    assert_eq!(second.unchanged, first.new);
    assert_eq!(second.snapshot.root, first.snapshot.root);
    assert_eq!(second.parent, Some(first.snapshot.id));
    setup.assert_equal(&second);
}

#[test]
fn files_younger_than_the_last_push_are_read_again_and_still_nothing_is_written() {
    let setup = Setup::new();
    write(setup.top().join("f"), b"1");
    write(setup.top().join("large"), noise(1, 20 << 20));
    ["f", "large"].iter().for_each(|name| tree::set_mtime(&setup.top().join(name), 1, 2));
    let first = setup.push();
    let packs = setup.packs();
    let second = setup.push();
    assert_eq!(second.read, first.read, "within one tick of the clock nothing proves that they were not written to");
    assert_eq!((setup.packs(), second.unchanged, second.changed), (packs, 2, 0));
    assert_eq!(second.snapshot.root, first.snapshot.root);
}

#[test]
fn after_mv_of_the_top_folder_no_content_is_sent() {
    let setup = Setup::new();
    (0..300).for_each(|i| write(setup.top().join(format!("old/{}/{i}", i % 20)), noise(i, 20_000)));
    tree::settle();
    setup.push();
    fs::rename(setup.top().join("old"), setup.top().join("new")).unwrap();
    let second = setup.push();
    setup.assert_equal(&second);
    assert!(second.sent < 100 << 10, "{}", second.sent);
    assert_eq!((second.read, second.renamed, second.new), (0, 300, 0), "a renamed folder is not even read again");
    fs::create_dir(setup.top().join("deeper")).unwrap();
    fs::rename(setup.top().join("new/7"), setup.top().join("deeper/7")).unwrap();
    fs::rename(setup.top().join("new/8/8"), setup.top().join("eight")).unwrap();
    tree::settle();
    let third = setup.push();
    setup.assert_equal(&third);
    assert_eq!((third.read, third.renamed, third.new), (0, 16, 0), "nor is a file that was renamed by itself");
    assert!(third.sent < 100 << 10, "{}", third.sent);
    fs::rename(setup.top(), setup.dir.path().join("other")).unwrap();
    let fourth = push(background(), &setup.repo, &options(&[&setup.dir.path().join("other")])).unwrap();
    assert_eq!((fourth.read, fourth.renamed), (0, 300), "also where the source itself was renamed");
}

#[test]
fn duplicates_within_a_run_and_across_runs_are_sent_once() {
    let setup = Setup::new();
    for i in 0..50 {
        write(setup.top().join(format!("{i}/same")), noise(1, 3 << 20));
        write(setup.top().join(format!("{i}/small")), noise(2, 1000));
    }
    let first = setup.push();
    setup.assert_equal(&first);
    assert!(first.sent < 4 << 20, "{}", first.sent);
    write(setup.top().join("again"), noise(1, 3 << 20));
    let second = setup.push();
    setup.assert_equal(&second);
    assert!(second.sent < 100 << 10, "{}", second.sent);
}

#[test]
fn a_byte_inserted_at_the_front_of_a_large_file_sends_little() {
    let setup = Setup::new();
    let bytes = noise(1, 64 << 20);
    write(setup.top().join("f"), &bytes);
    setup.push();
    write(setup.top().join("f"), [b"x".as_slice(), &bytes].concat());
    let second = setup.push();
    setup.assert_equal(&second);
    assert_eq!(second.changed, 1);
    assert!(second.sent < 6 << 20, "{}", second.sent);
}

#[test]
fn changes_of_content_attributes_and_kind_are_seen() {
    let setup = Setup::new();
    let top = setup.top();
    for name in ["same-size", "mode", "kind", "gone", "xattr", "grown"] {
        write(top.join("d").join(name), b"1234");
        tree::set_mtime(&top.join("d").join(name), 1_000_000, 7);
    }
    tree::settle();
    setup.push();
    write(top.join("d/same-size"), b"4321");
    tree::set_mtime(&top.join("d/same-size"), 1_000_000, 7);
    fs::set_permissions(top.join("d/mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(top.join("d/kind")).unwrap();
    fs::create_dir(top.join("d/kind")).unwrap();
    fs::remove_file(top.join("d/gone")).unwrap();
    tree::set_xattr(&top.join("d/xattr"), "user.new", b"1");
    write(top.join("d/grown"), b"12345");
    write(top.join("d/new"), b"n");
    let second = setup.push();
    setup.assert_equal(&second);
    assert_eq!((second.new, second.changed, second.unchanged), (1, 4, 0));
}

#[test]
fn a_directory_of_20_000_entries_comes_back_and_one_change_in_it_costs_little() {
    large_directory(20_000);
}

#[test]
#[ignore = "slow"]
fn a_directory_of_100_000_entries_comes_back_and_one_change_in_it_costs_little() {
    large_directory(100_000);
}

fn large_directory(entries: u64) {
    let setup = Setup::new();
    fs::create_dir_all(setup.top()).unwrap();
    (0..entries).for_each(|i| fs::write(setup.top().join(format!("a rather long name {i}")), []).unwrap());
    tree::settle();
    let first = setup.push();
    setup.assert_equal(&first);
    write(setup.top().join("a rather long name 777x"), b"");
    let second = setup.push();
    setup.assert_equal(&second);
    assert!(second.sent < 140 << 10, "{}", second.sent);
    assert_eq!((second.new, second.unchanged), (1, entries));
}

#[test]
fn several_sources_merge_and_folders_on_the_way_hold_nothing_else() {
    let setup = Setup::new();
    for name in ["a/b/x", "a/c/y", "a/z", "d/e", "f"] {
        write(setup.top().join(name), name);
    }
    fs::set_permissions(setup.top().join("a"), fs::Permissions::from_mode(0o711)).unwrap();
    let sources = ["a/b", "a/b/x", "d", "f"].map(|name| setup.top().join(name));
    let sources: Vec<&Path> = sources.iter().map(PathBuf::as_path).collect();
    let summary = push(background(), &setup.repo, &options(&sources)).unwrap();
    let model = in_snapshot(&setup.repo, &summary.snapshot, &setup.top());
    let paths: Vec<_> = model.keys().map(|path| String::from_utf8(path.clone()).unwrap()).collect();
    assert_eq!(paths, ["", "a", "a/b", "a/b/x", "d", "d/e", "f"]);
    assert_eq!((model[b"a".as_slice()].mode, model[b"a".as_slice()].link.clone()), (0o711, Err(3)));
    assert_eq!(summary.snapshot.paths.len(), 4);
}

#[test]
fn a_missing_source_is_named_and_nothing_is_written() {
    let setup = Setup::new();
    write(setup.top().join("f"), b"1");
    let missing = setup.dir.path().join("missing");
    let error = push(background(), &setup.repo, &options(&[&setup.top(), &missing])).unwrap_err();
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    assert_eq!(setup.packs(), 0);
}

#[test]
fn folders_that_are_left_out_are_reported() {
    use std::os::unix::fs::MetadataExt;
    let setup = Setup::new();
    write(setup.top().join("repository/secret"), b"1");
    write(setup.top().join("f"), b"1");
    let stat = fs::metadata(setup.top().join("repository")).unwrap();
    let log = Log::default();
    let options = Options { exclude_dev_ino: vec![(stat.dev(), stat.ino())], ..options(&[&setup.top()]) };
    let summary = push(&background().with_progress(&log), &setup.repo, &options).unwrap();
    let model = in_snapshot(&setup.repo, &summary.snapshot, &setup.top());
    assert_eq!(model.keys().map(Vec::as_slice).collect::<Vec<_>>(), [b"".as_slice(), b"f"]);
    assert!(log.warnings.lock().unwrap()[0].contains("top/repository"));
}

#[test]
fn no_name_and_no_content_is_in_what_the_server_sees() {
    let setup = Setup::new();
    write(setup.top().join("a-telling-name/another-telling-name"), "a telling content ".repeat(100));
    write(setup.top().join("raw-telling-name"), noise(5, 600 << 10));
    setup.push();
    let top = setup.top();
    let needles: [&[u8]; 5] = [
        b"telling-name",
        b"a telling content",
        b"telling words",
        &noise(5, 16),
        top.parent().unwrap().file_name().unwrap().as_encoded_bytes(),
    ];
    for folder in Folder::all() {
        for entry in setup.storage.list(background(), folder).unwrap() {
            let bytes = setup.storage.get(&entry.name).unwrap();
            for needle in needles {
                assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{needle:?} in {}", entry.name);
            }
        }
    }
}

#[test]
fn full_packs_have_one_size_and_little_is_left_empty() {
    let setup = Setup::new();
    (0..60).for_each(|i| write(setup.top().join(format!("{i}")), noise(i, 3_333_333)));
    let summary = setup.push();
    setup.assert_equal(&summary);
    let sizes: Vec<u64> = (0..16)
        .flat_map(|x| setup.storage.list(background(), Folder::PackShard(x)).unwrap())
        .map(|entry| entry.size)
        .collect();
    let full = sizes.iter().filter(|size| **size > 16 << 20).count() as u64;
    assert!(sizes.iter().filter(|size| **size > 16 << 20).all(|size| *size == sizes.iter().copied().max().unwrap()));
    let waste = summary.stored as f64 / summary.added as f64 - 1.0;
    assert!(full >= 11 && waste < 0.06, "{full} full packs, {waste:.3} more than the contents");
}

// ------------------------------------------------------------------------------------------------ under change

/// Collects the skipped paths and the warnings.
#[derive(Default)]
struct Log {
    skipped: Mutex<Vec<(Vec<u8>, String)>>,
    warnings: Mutex<Vec<String>>,
}

impl Progress for Log {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Skipped { path, why } => self.skipped.lock().unwrap().push((path.to_vec(), why.to_string())),
            Event::Warning { text } => self.warnings.lock().unwrap().push(text.into()),
            _ => {}
        }
    }
}

struct At<F: Fn(&Event<'_>) + Send + Sync>(F);

impl<F: Fn(&Event<'_>) + Send + Sync> Progress for At<F> {
    fn event(&self, event: Event<'_>) {
        (self.0)(&event);
    }
}

#[test]
fn a_file_that_changes_once_while_it_is_read_is_read_again() {
    let setup = Setup::new();
    let path = setup.top().join("f");
    write(&path, noise(1, 10 << 20));
    let times = AtomicUsize::new(0);
    let meddle = At(|event| {
        if matches!(event, Event::Done { files: 0, bytes: 1.. }) && times.fetch_add(1, Ordering::SeqCst) == 2 {
            write(&path, noise(2, 5 << 20));
        }
    });
    let summary = push(&background().with_progress(&meddle), &setup.repo, &options(&[&setup.top()])).unwrap();
    setup.assert_equal(&summary);
    assert_eq!(
        Trees::new(&setup.repo).at(background(), &summary.snapshot, path.to_str().unwrap().as_bytes()).unwrap().flags,
        0
    );
}

#[test]
fn a_file_that_never_keeps_still_is_kept_and_marked_and_read_by_the_next_push() {
    let setup = Setup::new();
    let path = setup.top().join("f");
    write(&path, noise(1, 5 << 20));
    let times = AtomicUsize::new(0);
    let meddle = At(|event| {
        if matches!(event, Event::Done { files: 0, bytes: 1.. }) {
            tree::set_mtime(&path, times.fetch_add(1, Ordering::SeqCst) as i64, 0);
        }
    });
    let summary = push(&background().with_progress(&meddle), &setup.repo, &options(&[&setup.top()])).unwrap();
    let node = Trees::new(&setup.repo).at(background(), &summary.snapshot, path.to_str().unwrap().as_bytes()).unwrap();
    assert_eq!((node.flags, node.content.size()), (CHANGED, 5 << 20));
    let second = setup.push();
    setup.assert_equal(&second);
}

#[test]
fn a_file_that_vanishes_is_no_error_and_a_fifo_in_its_place_does_not_hang() {
    let setup = Setup::new();
    let path = setup.top().join("f");
    for fifo in [false, true] {
        write(&path, noise(1, 5 << 20));
        write(setup.top().join("other"), b"1");
        let skipped = AtomicUsize::new(0);
        let meddle = At(|event| match event {
            Event::File { .. } => {
                fs::remove_file(&path).unwrap();
                if fifo {
                    let mode = rustix::fs::Mode::from(0o600);
                    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
                }
            }
            Event::Skipped { .. } => drop(skipped.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        });
        let summary = push(&background().with_progress(&meddle), &setup.repo, &options(&[&setup.top()])).unwrap();
        let model = in_snapshot(&setup.repo, &summary.snapshot, &setup.top());
        assert_eq!(model.contains_key(b"f".as_slice()), fifo);
        assert_eq!((summary.skipped, summary.snapshot.stats.unreadable), (u64::from(fifo), u64::from(fifo)));
        assert!(model.contains_key(b"other".as_slice()));
        let _ = fs::remove_file(&path);
    }
}

#[test]
fn a_signal_ends_it_with_an_unfinished_snapshot() {
    let setup = Setup::new();
    (0..40).for_each(|i| write(setup.top().join(format!("{i}")), noise(i, 1 << 20)));
    let options = options(&[&setup.top()]);
    let stop = Arc::new(std::sync::atomic::AtomicI32::new(0));
    let signal = Arc::clone(&stop);
    let meddle = At(|event| {
        if let Event::Done { files: 0, bytes: 1.. } = event {
            stop.store(15, Ordering::SeqCst);
        }
    });
    let ctx = Context::new(&meddle, signal);
    assert_eq!(push(&ctx, &setup.repo, &options).unwrap_err().kind(), Kind::Interrupted(15));
    let snapshots = setup.repo.state(background()).unwrap().snapshots();
    assert_eq!(snapshots.iter().map(|s| s.partial).collect::<Vec<_>>(), [true]);
    setup.assert_equal(&setup.push());
}

// -------------------------------------------------------------------------------------------------- unreadable

#[test]
fn what_cannot_be_read_is_reported_and_recorded_and_the_rest_is_saved() {
    if !rustix::process::getuid().is_root() {
        return unreadable_for_this_user();
    }
    use std::os::unix::process::CommandExt;
    // Root can read everything, so an unprivileged user runs this test, from a copy of the binary that this user may
    // read.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let exe = dir.path().join("push-test");
    crate::harness::copy_program(std::env::current_exe().unwrap(), &exe);
    let output = std::process::Command::new(&exe)
        .args(["--exact", "push::what_cannot_be_read_is_reported_and_recorded_and_the_rest_is_saved"])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn unreadable_for_this_user() {
    let setup = Setup::new();
    let (top, log) = (setup.top(), Log::default());
    for name in ["file", "closed/x", "blind/y", "fine"] {
        write(top.join(name), b"1");
    }
    let chmod = |name: &str, mode| fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    chmod("file", 0);
    chmod("closed", 0);
    chmod("blind", 0o400);
    let summary = push(&background().with_progress(&log), &setup.repo, &options(&[&top])).unwrap();
    let model = in_snapshot(&setup.repo, &summary.snapshot, &top);
    let denied = What::Unreadable(rustix::io::Errno::ACCESS.raw_os_error() as u32);
    for name in ["file", "closed", "blind/y"] {
        assert_eq!(model[name.as_bytes()].what, denied, "{name}");
    }
    assert!(matches!(model[b"fine".as_slice()].what, What::File(1, _)));
    assert_eq!((summary.skipped, summary.snapshot.stats.unreadable), (3, 3));
    let skipped = log.skipped.lock().unwrap();
    assert!(skipped.iter().any(|(path, why)| path.ends_with(b"/file") && why.contains("Permission denied")));
    ["file", "closed", "blind"].iter().for_each(|name| chmod(name, 0o700));
    let second = setup.push();
    setup.assert_equal(&second);
}

#[test]
fn a_damaged_parent_is_read_around() {
    let setup = Setup::new();
    (0..20).for_each(|i| write(setup.top().join(format!("{i}/f")), noise(i, 100_000)));
    tree::settle();
    setup.push();
    for x in 0..16 {
        for entry in setup.storage.list(background(), Folder::PackShard(x)).unwrap() {
            let mut bytes = setup.storage.get(&entry.name).unwrap();
            if bytes.len() < 1 << 20 {
                bytes[100] ^= 1; // the metadata pack
                setup.storage.overwrite(&entry.name, bytes);
            }
        }
    }
    let repo = repository::open(setup.storage.clone());
    let log = Log::default();
    let summary = push(&background().with_progress(&log), &repo, &options(&[&setup.top()])).unwrap();
    assert!(log.warnings.lock().unwrap()[0].contains("cannot be read"));
    assert_same(&on_disk(&setup.top()), &in_snapshot(&repo, &summary.snapshot, &setup.top()));
    assert!(matches!(
        Trees::new(&repo).at(background(), &summary.snapshot, b"/").unwrap().content,
        Content::Directory(Some(_))
    ));
}

/// Asks a push to stop when this number of files is done.
struct StopAfter(std::sync::atomic::AtomicU64, Arc<std::sync::atomic::AtomicI32>);

impl Progress for StopAfter {
    fn event(&self, event: Event<'_>) {
        if let Event::Done { files: 1.., .. } = event
            && self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1
        {
            self.1.store(15, std::sync::atomic::Ordering::SeqCst);
        }
    }
}

#[test]
fn what_an_interrupted_push_has_stored_is_not_sent_again() {
    const MIB: usize = 1 << 20;
    let case = Setup::new();
    fs::create_dir_all(case.top()).unwrap();
    for i in 0..12 {
        tree::write(case.top().join(format!("{i:02}")), tree::noise(i, 12 * MIB));
    }
    let top = case.top();
    let options = options(&[&top]);
    let stop = StopAfter(9.into(), Arc::default());
    let interrupted = push(&Context::new(&stop, Arc::clone(&stop.1)), &case.repo, &options).unwrap_err();
    assert_eq!(interrupted.kind(), Kind::Interrupted(15));
    assert!(
        case.repo.state(background()).unwrap().snapshots().iter().all(|s| s.partial),
        "half a push is no whole snapshot"
    );
    let kept = case.packs();
    assert!(kept > 0, "something was stored before the signal");
    let summary = case.push();
    case.assert_equal(&summary);
    let sent_again = summary.stored as usize;
    assert!(sent_again <= (12 * 12 - 16 * kept + 40) * MIB, "{kept} packs were there, {sent_again} bytes were sent");
}

#[test]
fn the_folders_that_grew_are_named() {
    const MIB: usize = 1 << 20;
    let case = Setup::new();
    for (name, bytes) in [("a/big", 5 * MIB), ("b/1/f", MIB / 2), ("b/2/f", 3 * MIB / 4), ("c/tiny", 10)] {
        let path = case.top().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        tree::write(path, tree::noise(bytes as u64, bytes));
    }
    let grew = case.push().grew;
    let named = |name: &str| case.top().join(name).into_os_string().into_encoded_bytes();
    assert_eq!(grew, [(named("a"), 5 * MIB as u64), (named("b"), (5 * MIB / 4) as u64)]);
    fs::copy(case.top().join("a/big"), case.top().join("c/copy")).unwrap();
    assert!(case.push().grew.is_empty(), "contents that are known are no growth");
}
