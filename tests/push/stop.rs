//! The user's stop: nothing new is read, everything that was read is sent, and the partial snapshot names it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::hook::{Hook, hook};
use crate::harness::repository;
use crate::harness::tree::{self, assert_same, in_snapshot, noise, on_disk, write};
use nfreezer::context::{Context, background};
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::record::Snapshot;
use nfreezer::name::{Folder, Name};
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{Checkpoints, Options, Summary, push};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};

/// Size of a small file in bytes.
const SMALL: usize = 300_000;
/// Size of the large file in bytes.
const LARGE: usize = 20 << 20;

struct Setup {
    repo: Repository,
    storage: Arc<Hook>,
    dir: tempfile::TempDir,
    stop: Arc<AtomicI32>,
}

/// Asks the push to stop when this number of bytes was read, and keeps the warnings.
struct StopAfter {
    bytes: u64,
    read: AtomicU64,
    /// Whether the walk is at its end. If it has to be, the reader waits for it before the stop.
    is_walked: AtomicBool,
    stop: Arc<AtomicI32>,
    warnings: Mutex<Vec<String>>,
}

impl Progress for StopAfter {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Done { files: 0, bytes } if self.read.fetch_add(bytes, Ordering::SeqCst) + bytes >= self.bytes => {
                while !self.is_walked.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                self.stop.store(15, Ordering::SeqCst);
            }
            Event::Total { complete: true, .. } => self.is_walked.store(true, Ordering::SeqCst),
            Event::Warning { text } => self.warnings.lock().unwrap().push(text.into()),
            _ => {}
        }
    }
}

impl Setup {
    fn new() -> Self {
        let storage = hook(Memory::default());
        let repo = repository::init(storage.clone());
        Setup { repo, storage, dir: tempfile::tempdir().unwrap(), stop: Arc::default() }
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    /// Writes small files around a large one. Returns the number of bytes.
    fn files(&self) -> u64 {
        (0..30).for_each(|i| write(self.top().join(format!("a/{}/{i}", i % 5)), noise(i, SMALL)));
        write(self.top().join("b/large"), noise(100, LARGE));
        (0..30).for_each(|i| write(self.top().join(format!("c/{i:02}")), noise(200 + i, SMALL)));
        tree::settle();
        (60 * SMALL + LARGE) as u64
    }

    fn options(&self, threads: usize) -> Options {
        Options { sources: vec![self.top()], host: "host".into(), threads: Some(threads), ..Options::default() }
    }

    /// Runs a push that is asked to stop when this number of bytes was read. Returns the error and the warnings.
    fn stopped(&self, bytes: u64, options: &Options) -> (Error, Vec<String>) {
        self.stopped_in(bytes, options, true)
    }

    /// `is_walked`: the stop may come before the end of the walk.
    fn stopped_in(&self, bytes: u64, options: &Options, is_walked: bool) -> (Error, Vec<String>) {
        self.stop.store(0, Ordering::SeqCst);
        let (read, warnings, is_walked) = (AtomicU64::new(0), Mutex::default(), AtomicBool::new(is_walked));
        let progress = StopAfter { bytes, read, is_walked, stop: Arc::clone(&self.stop), warnings };
        let error = push(&Context::new(&progress, Arc::clone(&self.stop)), &self.repo, options).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted(15), "{error}");
        (error, progress.warnings.into_inner().unwrap())
    }

    fn partial(&self) -> Snapshot {
        let [partial] = &self.repo.state(background()).unwrap().snapshots()[..] else { panic!("one snapshot") };
        assert!(partial.partial);
        let bytes = tree::check_partial(&self.repo, partial, &self.top(), &on_disk(&self.top()));
        assert_eq!(bytes, partial.stats.bytes);
        partial.clone()
    }

    fn try_push(&self, threads: usize) -> Result<Summary> {
        let ctx = Context::new(&nfreezer::progress::Silent, Arc::clone(&self.stop));
        push(&ctx, &self.repo, &self.options(threads))
    }

    /// Runs a push to its end and compares the snapshot with the disk.
    fn push(&self) -> Summary {
        self.stop.store(0, Ordering::SeqCst);
        let summary = self.try_push(2).unwrap();
        assert_same(&on_disk(&self.top()), &in_snapshot(&self.repo, &summary.snapshot, &self.top()));
        summary
    }
}

fn is_report(text: &str) -> bool {
    text.contains("MiB that were read are still sent; a second signal ends the push at once")
}

/// Checks that the two pushes together have stored each byte once. The slack is for metadata.
fn assert_sent_once(partial: &Snapshot, whole: &Summary, total: u64) {
    let added = whole.added + partial.stats.added;
    assert!((total..total + SMALL as u64 / 2).contains(&added), "{added} bytes of {total} were stored");
}

#[test]
fn all_that_was_read_before_a_stop_is_kept_and_nothing_is_sent_twice() {
    for (small, large) in [(1, 0), (30, 0), (30, 10 << 20), (30, LARGE), (59, LARGE)] {
        let setup = Setup::new();
        let total = setup.files();
        let at = (small * SMALL + large) as u64;
        let (error, warnings) = setup.stopped(at, &setup.options(1));
        assert!(error.hint_text().unwrap().contains("run the same push again"), "{error}");
        assert!(warnings.iter().filter(|text| is_report(text)).count() <= 1, "{warnings:?}");
        let partial = setup.partial();
        // One thread reads the files one after another: at most the bytes of a chunk that was not cut are lost.
        let kept = partial.stats.bytes;
        assert!(kept + (8 << 20) >= at && kept <= total, "{kept} of {at}");
        if large == 0 || large == LARGE {
            assert!(kept >= at, "all files that were read to their end: {kept} of {at}");
        }
        let whole = setup.push();
        assert_eq!((whole.parent, whole.read + kept), (Some(partial.id), total));
        assert_sent_once(&partial, &whole, total);
    }
}

#[test]
fn threads_that_read_several_files_all_keep_what_they_have_read() {
    for at in [9 << 20, 24 << 20] {
        let setup = Setup::new();
        let total = setup.files();
        setup.stopped(at, &setup.options(4));
        let partial = setup.partial();
        let whole = setup.push();
        assert_eq!(whole.read + partial.stats.bytes, total, "what was read is in the snapshot");
        assert_sent_once(&partial, &whole, total);
    }
}

#[test]
fn further_links_to_a_file_that_was_not_read_are_left_out() {
    let setup = Setup::new();
    for i in 0..20 {
        write(setup.top().join(format!("{i:02}")), noise(i, SMALL));
        fs::hard_link(setup.top().join(format!("{i:02}")), setup.top().join(format!("x{i:02}"))).unwrap();
    }
    write(setup.top().join("large"), noise(100, LARGE));
    fs::hard_link(setup.top().join("large"), setup.top().join("y")).unwrap();
    tree::settle();
    for bytes in [10 * SMALL, 20 * SMALL + (10 << 20)] {
        let (_, warnings) = setup.stopped(bytes as u64, &setup.options(1));
        assert!(!warnings.iter().any(|text| text.contains("link")), "{warnings:?}");
        let snapshots = setup.repo.state(background()).unwrap().snapshots();
        assert!(snapshots.iter().all(|s| s.partial && s.stats.unreadable == 0));
    }
    let whole = setup.push();
    assert_eq!(whole.snapshot.stats.bytes, 2 * (20 * SMALL + LARGE) as u64);
}

#[test]
fn a_part_of_a_file_that_is_not_reached_again_stays_known() {
    let setup = Setup::new();
    let total = setup.files();
    setup.stopped((30 * SMALL + LARGE / 2) as u64, &setup.options(1));
    let first = setup.partial();
    // New files come before the large one. The second push is stopped in them.
    (0..80).for_each(|i| write(setup.top().join(format!("aa/{i}")), noise(300 + i, SMALL)));
    tree::settle();
    setup.stopped_in(75 * SMALL as u64, &setup.options(1), false);
    let second = setup.partial();
    assert!(second.stats.bytes >= first.stats.bytes + 75 * SMALL as u64);
    let whole = setup.push();
    assert_eq!(whole.read + second.stats.bytes, total + 80 * SMALL as u64);
}

#[test]
fn a_push_that_has_read_everything_completes_in_spite_of_a_stop() {
    let setup = Setup::new();
    (0..10).for_each(|i| write(setup.top().join(format!("{i}")), noise(i, SMALL)));
    tree::settle();
    let stop = Arc::clone(&setup.stop);
    setup.storage.after_put(move |_| {
        stop.store(15, Ordering::SeqCst);
        Ok(())
    });
    let summary = setup.try_push(1).unwrap();
    assert!(!summary.snapshot.partial);
    assert_same(&on_disk(&setup.top()), &in_snapshot(&setup.repo, &summary.snapshot, &setup.top()));
}

/// The first data pack is stored once the second one is on its way, and the second one once a record names the first one.
struct Slow {
    packs: AtomicUsize,
    memory: Arc<Memory>,
}

impl Slow {
    fn has_no_record(&self) -> bool {
        self.memory.list(background(), Folder::Log).unwrap().is_empty()
    }
}

impl Rule for Slow {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let Call::Put(Name::Pack(_), bytes) = call else { return call.of(ctx, storage) };
        if bytes.len() < 8 << 20 {
            return call.of(ctx, storage);
        }
        let number = self.packs.fetch_add(1, Ordering::SeqCst);
        while number == 0 && self.packs.load(Ordering::SeqCst) < 2 || number == 1 && self.has_no_record() {
            ctx.check()?;
            std::thread::yield_now();
        }
        call.of(ctx, storage)
    }
}

#[test]
fn while_packs_are_on_their_way_after_a_stop_a_checkpoint_keeps_the_stored_ones() {
    let setup = Setup::new();
    setup.files();
    let memory = Arc::<Memory>::default();
    let slow = Slow { packs: AtomicUsize::new(0), memory: Arc::clone(&memory) };
    let setup = Setup { repo: repository::init(Between::<Slow, Memory>::with(memory, slow)), ..setup };
    let checkpoints = Checkpoints { after_stop: Duration::ZERO, ..Checkpoints::default() };
    let (_, warnings) = setup.stopped(34 << 20, &Options { checkpoints, ..setup.options(1) });
    assert_eq!(warnings.iter().filter(|text| is_report(text)).count(), 1, "{warnings:?}");
    let state = setup.repo.state(background()).unwrap();
    let (last, first) = (state.snapshots(), state.forgotten());
    assert_eq!((last.len(), first.len()), (1, 1), "the checkpoint and the last partial snapshot");
    assert!(last[0].partial && last[0].stats.bytes > first[0].stats.bytes);
}
