//! A push saves the true contents, whatever happens to a file while it is saved, and whatever its times claim.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::cli::Env;
use crate::harness::repository;
use crate::harness::tree::{self, Model, What, assert_same, in_snapshot, noise, on_disk, settle, write};
use nfreezer::context::background;
use nfreezer::crypto::keys::ChunkKind;
use nfreezer::format::node::{CHANGED, Node};
use nfreezer::format::record::{Head, Snapshot, SnapshotId};
use nfreezer::format::reference::Extent;
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{Options, Summary, push};
use nfreezer::repo::{Repository, Span};
use nfreezer::storage::Memory;
use nfreezer::time::Time;
use nfreezer::trees::Trees;

const MIB: usize = 1 << 20;

struct Case {
    repo: Repository,
    dir: tempfile::TempDir,
    warnings: Mutex<Vec<String>>,
    skipped: Mutex<Vec<(Vec<u8>, String)>>,
}

/// Collects reports and calls a function on every event.
struct Meddler<'c>(&'c Case, &'c (dyn Fn(&Event<'_>) + Send + Sync));

impl Progress for Meddler<'_> {
    fn event(&self, event: Event<'_>) {
        match &event {
            Event::Warning { text } => self.0.warnings.lock().unwrap().push((*text).into()),
            Event::Skipped { path, why } => self.0.skipped.lock().unwrap().push((path.to_vec(), why.to_string())),
            _ => {}
        }
        (self.1)(&event);
    }
}

impl Case {
    fn new() -> Self {
        let repo = repository::init(Arc::new(Memory::default()));
        let dir = tempfile::tempdir().unwrap();
        Case { repo, dir, warnings: Mutex::default(), skipped: Mutex::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("top").join(name)
    }

    fn push(&self) -> Summary {
        self.push_while(None, &|_| {})
    }

    fn push_while(&self, time: Option<Time>, meddle: &(dyn Fn(&Event<'_>) + Send + Sync)) -> Summary {
        let options = Options {
            sources: vec![self.path("")],
            host: "host".into(),
            user: "user".into(),
            time,
            ..Options::default()
        };
        push(&background().with_progress(&Meddler(self, meddle)), &self.repo, &options).unwrap()
    }

    fn model(&self, summary: &Summary) -> Model {
        in_snapshot(&self.repo, &summary.snapshot, &self.path(""))
    }

    /// Checks that the next push saves everything unchanged and reports nothing.
    fn assert_next_push_is_clean(&self) {
        self.skipped.lock().unwrap().clear();
        let summary = self.push();
        assert_eq!((summary.skipped, summary.changed_while_read), (0, 0), "{:?}", self.skipped.lock().unwrap());
        assert_same(&on_disk(&self.path("")), &self.model(&summary));
    }

    fn node(&self, summary: &Summary, name: &str) -> Node {
        Trees::new(&self.repo)
            .at(background(), &summary.snapshot, self.path(name).as_os_str().as_encoded_bytes())
            .unwrap()
    }

    fn bytes(&self, node: &Node) -> Vec<u8> {
        let trees = Trees::new(&self.repo);
        let extents = trees.extents(background(), &node.content).map(Result::unwrap);
        let bytes = extents.map(|extent| match extent {
            Extent::Data(r) => self.repo.chunk(background(), ChunkKind::Data, &r, Span::Exact).unwrap(),
            Extent::Hole(len) => vec![0; len as usize],
        });
        bytes.collect::<Vec<_>>().concat()
    }
}

/// Returns whether the event reports a finished chunk of a large file.
fn chunk_done(event: &Event<'_>) -> bool {
    matches!(event, Event::Done { files: 0, bytes: 1.. })
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn once(done: &AtomicBool, when: bool, deed: impl FnOnce()) {
    if when && !done.swap(true, Ordering::SeqCst) {
        deed();
    }
}

// ------------------------------------------------------------------------------------------------ while it is read

#[test]
fn a_log_that_grows_all_the_time_is_saved_as_it_was_at_one_moment() {
    let case = Case::new();
    let path = case.path("log");
    write(&path, noise(1, 20 * MIB));
    let grow = |event: &Event<'_>| {
        if chunk_done(event) {
            append(&path, b"one more line\n");
        }
    };
    let summary = case.push_while(None, &grow);
    let node = case.node(&summary, "log");
    assert_eq!((node.flags, summary.changed_while_read, summary.skipped), (0, 0, 0));
    let (saved, now) = (case.bytes(&node), fs::read(&path).unwrap());
    assert!(saved.len() >= 20 * MIB && now.len() > saved.len() && now.starts_with(&saved));
    assert_eq!(summary.read, 2 * saved.len() as u64, "the second reading proves the first one");
    assert!(case.warnings.lock().unwrap().is_empty());
    case.assert_next_push_is_clean();
}

#[test]
fn a_file_that_grows_and_changes_at_its_beginning_is_not_taken_for_a_log() {
    let case = Case::new();
    let path = case.path("f");
    write(&path, noise(1, 10 * MIB));
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let count = AtomicU64::new(0);
    let change = |event: &Event<'_>| {
        if chunk_done(event) {
            let i = count.fetch_add(1, Ordering::SeqCst);
            file.write_all_at(&i.to_string().into_bytes(), 10).unwrap();
            append(&path, b"more");
        }
    };
    let summary = case.push_while(None, &change);
    assert_eq!((case.node(&summary, "f").flags, summary.changed_while_read), (CHANGED, 1));
    case.assert_next_push_is_clean();
}

#[test]
fn a_file_that_is_overwritten_all_the_time_is_kept_marked_and_named_and_read_by_the_next_push() {
    let case = Case::new();
    let path = case.path("database");
    write(&path, noise(1, 10 * MIB));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let count = AtomicU64::new(0);
    let change = |event: &Event<'_>| {
        if chunk_done(event) {
            let i = count.fetch_add(1, Ordering::SeqCst);
            file.write_all_at(&i.to_string().into_bytes(), i * 4096).unwrap();
            tree::set_mtime(&path, 1_000_000_000 + i as i64, 0);
        }
    };
    let summary = case.push_while(None, &change);
    let node = case.node(&summary, "database");
    assert_eq!((node.flags, summary.changed_while_read, summary.skipped), (CHANGED, 1, 0));
    assert_eq!(case.bytes(&node).len(), 10 * MIB, "whatever it is, it can be read");
    assert_eq!(summary.read, 30 * MIB as u64);
    assert!(summary.added > 10 * MIB as u64, "what was stored for the readings before is counted");
    assert!(case.warnings.lock().unwrap().iter().any(|text| text.contains("top/database changed each time")));
    settle();
    let second = case.push();
    assert_eq!((second.read, second.changed_while_read), (10 * MIB as u64, 0), "a marked file is read, touched or not");
    assert_same(&on_disk(&case.path("")), &case.model(&second));
    assert_eq!(case.push().read, 0);
}

#[test]
fn a_file_that_changed_while_it_was_read_is_reported_by_the_exit_code() {
    let env = Env::with_repository();
    let path = env.write("src/image", noise(1, 64 * MIB));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let ended = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut i = 0u64;
            while !ended.load(Ordering::Relaxed) {
                file.write_all_at(&i.to_string().into_bytes(), i * 4096 % (60 << 20)).unwrap();
                i += 1;
            }
        });
        let output = env.nfreezer(["--json", "push", "src"]);
        ended.store(true, Ordering::Relaxed);
        output
    });
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.stderr.contains("src/image changed each time it was read"), "{output:?}");
    assert!(output.stdout.contains("\"changed_while_read\":1"), "{output:?}");
    let again = env.nfreezer(["push", "src"]);
    assert_eq!(again.code, 0, "{again:?}");
}

#[test]
fn a_file_that_is_cut_off_or_replaced_while_it_is_read_is_read_again() {
    let cut = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(6 * MIB as u64 + 5).unwrap();
    let replace = |path: &Path| {
        write(path.with_extension("new"), noise(2, 7 * MIB));
        fs::rename(path.with_extension("new"), path).unwrap();
    };
    let shrink_to_nothing = |path: &Path| write(path, b"");
    for deed in [&cut as &(dyn Fn(&Path) + Sync), &replace, &shrink_to_nothing] {
        let (case, done) = (Case::new(), AtomicBool::new(false));
        let path = case.path("f");
        write(&path, noise(1, 30 * MIB));
        let summary = case.push_while(None, &|event| once(&done, chunk_done(event), || deed(&path)));
        assert_eq!(on_disk(&case.path(""))[b"f".as_slice()], case.model(&summary)[b"f".as_slice()]);
        assert_eq!((case.node(&summary, "f").flags, summary.skipped), (0, 0));
        case.assert_next_push_is_clean();
    }
}

// ------------------------------------------------------------------------------------------ before it is opened

#[test]
fn something_else_in_the_place_of_a_file_is_reported_and_saved_by_the_next_push() {
    let fifo = |path: &Path| {
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    let socket = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let link = |path: &Path| symlink("/etc/passwd", path).unwrap();
    let folder = |path: &Path| write(path.join("inside"), b"1");
    for deed in [&fifo as &(dyn Fn(&Path) + Sync), &socket, &link, &folder] {
        let (case, done) = (Case::new(), AtomicBool::new(false));
        let path = case.path("f");
        write(&path, noise(1, 5 * MIB));
        write(case.path("g"), b"g");
        let swap = || {
            fs::remove_file(&path).unwrap();
            deed(&path);
        };
        let summary = case.push_while(None, &|event| once(&done, matches!(event, Event::File { .. }), swap));
        let model = case.model(&summary);
        assert!(matches!(model[b"f".as_slice()].what, What::Unreadable(_)) && model.contains_key(b"g".as_slice()));
        let skipped = case.skipped.lock().unwrap().clone();
        assert!(skipped.len() == 1 && skipped[0].0.ends_with(b"/f"), "{skipped:?}");
        assert!(skipped[0].1.contains("something else took its place"), "{skipped:?}");
        case.assert_next_push_is_clean();
    }
}

#[test]
fn a_link_does_not_get_the_contents_of_a_file_that_took_the_place_of_another_link() {
    let (case, done) = (Case::new(), AtomicBool::new(false));
    let (first, second) = (case.path("a"), case.path("z"));
    write(&first, noise(1, 5 * MIB));
    fs::hard_link(&first, &second).unwrap();
    let replace = || {
        write(case.path("new"), noise(2, 5 * MIB));
        fs::hard_link(case.path("new"), case.dir.path().join("a link to the new one")).unwrap();
        fs::rename(case.path("new"), &first).unwrap();
    };
    let summary = case.push_while(None, &|event| once(&done, matches!(event, Event::File { .. }), replace));
    assert_eq!(case.bytes(&case.node(&summary, "a")), noise(2, 5 * MIB));
    assert!(matches!(case.model(&summary)[b"z".as_slice()].what, What::Unreadable(_)), "and not what `a` is now");
    assert_eq!(summary.skipped, 1);
    case.assert_next_push_is_clean();
}

// ------------------------------------------------------------------------------------------------ while it is walked

#[test]
fn a_folder_that_is_removed_while_it_is_walked_is_no_error() {
    let (case, done) = (Case::new(), AtomicBool::new(false));
    (0..2000).for_each(|i| write(case.path(&format!("d/{i}")), i.to_string()));
    write(case.path("e/f"), b"after it");
    let remove = || fs::remove_dir_all(case.path("d")).unwrap();
    let summary = case.push_while(None, &|event| once(&done, matches!(event, Event::Total { .. }), remove));
    assert_eq!(summary.skipped, 0);
    assert!(case.model(&summary).contains_key(b"e/f".as_slice()));
    case.assert_next_push_is_clean();
}

#[test]
fn a_folder_that_is_renamed_while_it_is_walked_is_saved_under_its_old_name() {
    let (case, done) = (Case::new(), AtomicBool::new(false));
    (0..2000).for_each(|i| write(case.path(&format!("d/{i}")), i.to_string()));
    let before = on_disk(&case.path("d"));
    let rename = || fs::rename(case.path("d"), case.path("e")).unwrap();
    let summary = case.push_while(None, &|event| once(&done, matches!(event, Event::Total { .. }), rename));
    assert_eq!(summary.skipped, 0);
    assert_same(&before, &in_snapshot(&case.repo, &summary.snapshot, &case.path("d")));
    case.assert_next_push_is_clean();
}

#[test]
fn a_deep_folder_that_is_moved_while_it_is_walked_costs_what_is_above_it_nothing() {
    let (case, done) = (Case::new(), AtomicBool::new(false));
    let deep = "d/".repeat(300);
    (0..1000).for_each(|i| write(case.path(&format!("{deep}{i}")), b""));
    write(case.path(&format!("{}z", "d/".repeat(100))), b"in a folder that was moved");
    write(case.path("z"), b"after it");
    let middle = case.path(&"d/".repeat(50));
    let rename = || fs::rename(&middle, case.dir.path().join("away")).unwrap();
    let summary = case.push_while(None, &|event| once(&done, matches!(event, Event::Total { .. }), rename));
    let model = case.model(&summary);
    assert_eq!(model.keys().filter(|path| path.starts_with(deep.as_bytes())).count(), 1000);
    assert!(model.contains_key(b"z".as_slice()), "{:?}", case.skipped.lock().unwrap());
    case.assert_next_push_is_clean();
}

// -------------------------------------------------------------------------------------------------------- times

fn now() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time::new(now.as_secs() as i64, now.subsec_nanos())
}

#[test]
fn a_file_that_is_written_in_the_moment_of_a_push_is_read_by_the_next_whatever_time_the_snapshot_bears() {
    for time in [None, Some(Time::from_seconds(now().seconds + 3600)), Some(Time::from_seconds(1_000_000_000))] {
        let (case, done) = (Case::new(), AtomicBool::new(false));
        write(case.path("young"), b"1234");
        write(case.path("old"), b"12345678");
        settle();
        let rewrite = || write(case.path("young"), b"4321");
        let first = case.push_while(time, &|event| once(&done, matches!(event, Event::Total { .. }), rewrite));
        assert_eq!(first.snapshot.time, time.unwrap_or(first.snapshot.time));
        assert_eq!(case.push().read, 4, "the young file and not the old one, at {time:?}");
    }
}

#[test]
fn a_snapshot_from_the_future_proves_nothing() {
    let case = Case::new();
    write(case.path("f"), b"1234");
    settle();
    let first = case.push();
    let lie = Snapshot {
        id: SnapshotId([9; 16]),
        time: Time::from_seconds(now().seconds + 3600),
        extra: Vec::new(),
        ..first.snapshot.clone()
    };
    let mut state = case.repo.state(background()).unwrap();
    case.repo.commit(background(), &mut state, Head { snapshots: vec![lie], ..Head::default() }, &[]).unwrap();
    let second = case.push();
    assert_eq!((second.parent, second.read), (Some(first.snapshot.id), 0));
}

#[test]
fn equal_size_and_an_older_or_the_same_mtime_is_a_change() {
    let case = Case::new();
    for name in ["older", "same", "untouched"] {
        write(case.path(name), b"1234");
        tree::set_mtime(&case.path(name), 1_500_000_000, 123);
    }
    settle();
    case.push();
    for (name, seconds, nanoseconds) in [("older", 1_400_000_000, 0), ("same", 1_500_000_000, 123)] {
        write(case.path(name), b"4321");
        tree::set_mtime(&case.path(name), seconds, nanoseconds);
    }
    let second = case.push();
    assert_eq!((second.read, second.changed, second.unchanged), (8, 2, 1));
    assert_same(&on_disk(&case.path("")), &case.model(&second));
}

#[test]
fn times_of_all_ages_are_kept_and_compared() {
    let case = Case::new();
    let years = [-377_705_116_800, -62_135_596_801, -1, 0, 1, 4_102_444_800, 9_224_318_015, 13_569_465_600];
    for (i, seconds) in years.into_iter().enumerate() {
        write(case.path(&i.to_string()), b"t");
        tree::set_mtime(&case.path(&i.to_string()), seconds, [0, 1, 999_999_999][i % 3]);
    }
    settle();
    let first = case.push();
    assert_same(&on_disk(&case.path("")), &case.model(&first));
    assert_eq!(case.push().read, 0);
    tree::set_mtime(&case.path("6"), 9_224_318_016, 0);
    let third = case.push();
    assert_eq!((third.read, third.changed), (1, 1));
}
