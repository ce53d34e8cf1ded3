//! A push into several repositories: one walk, each file is read once, and the failure of one repository does not affect
//! the others.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::harness::faults::{Answer, Between, Call, Gone, Rule, gone};
use crate::harness::repository;
use crate::harness::tree::{self, assert_same, check_partial, in_snapshot, noise, on_disk, write};
use crate::odd_fuse::{FILES, OddMount};
use nfreezer::context::{Context, background};
use nfreezer::error::{Kind, Result};
use nfreezer::name::{Folder, Name};
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{
    Checkpoints, Destination, Failure, LEAST, Options, Stream, StreamKind, Summary, push, push_streams_to, push_to,
};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;

/// Counts the bytes read from files, and collects the warnings.
#[derive(Default)]
struct Told {
    read: AtomicU64,
    warnings: std::sync::Mutex<Vec<String>>,
    /// The push is asked to stop when this number of bytes was read.
    stop: std::sync::Mutex<Option<(u64, Arc<AtomicI32>)>>,
}

impl Told {
    fn stop_after(&self, bytes: u64, stop: &Arc<AtomicI32>) {
        *self.stop.lock().unwrap() = Some((bytes, Arc::clone(stop)));
    }
}

impl Progress for Told {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Done { bytes, .. } => {
                let read = self.read.fetch_add(bytes, Ordering::Relaxed) + bytes;
                if let Some((_, stop)) = self.stop.lock().unwrap().as_ref().filter(|(after, _)| read >= *after) {
                    stop.store(15, Ordering::SeqCst);
                }
            }
            Event::Warning { text } => self.warnings.lock().unwrap().push(text.into()),
            _ => {}
        }
    }
}

/// Repositories on storages of one kind, and the saved folder.
struct Setup<S> {
    storages: Vec<Arc<S>>,
    repos: Vec<Repository>,
    dir: tempfile::TempDir,
    stop: Arc<AtomicI32>,
    told: Told,
    checkpoints: Checkpoints,
}

impl<S: Storage + 'static> Setup<S> {
    fn of(storages: Vec<Arc<S>>) -> Self {
        let repos = storages.iter().map(|storage| repository::init(storage.clone())).collect();
        let (dir, stop, told) = (tempfile::tempdir().unwrap(), Arc::default(), Told::default());
        Setup { storages, repos, dir, stop, told, checkpoints: Checkpoints::default() }
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    fn options(&self) -> Options {
        let (sources, checkpoints) = (vec![self.top()], self.checkpoints);
        Options { sources, host: "host".into(), user: "user".into(), checkpoints, ..Options::default() }
    }

    fn destinations(&self) -> Vec<Destination<'_>> {
        self.repos.iter().zip(["first", "second"]).map(|(repo, name)| Destination { repo, name }).collect()
    }

    fn try_push(&self) -> Vec<Result<Summary>> {
        self.told.read.store(0, Ordering::Relaxed);
        let ctx = Context::new(&self.told, Arc::clone(&self.stop));
        push_to(&ctx, &self.destinations(), &self.options()).unwrap()
    }

    /// Pushes into all repositories, and compares their snapshots with the disk.
    fn push(&self) -> Vec<Summary> {
        let all: Vec<Summary> = self.try_push().into_iter().map(Result::unwrap).collect();
        self.repos.iter().zip(&all).for_each(|(repo, summary)| self.assert_has(repo, summary));
        all
    }

    fn push_one(&self, at: usize) -> Summary {
        push(background(), &self.repos[at], &self.options()).unwrap()
    }

    fn assert_has(&self, repo: &Repository, summary: &Summary) {
        repo.forget_blocks();
        assert_same(&on_disk(&self.top()), &in_snapshot(repo, &summary.snapshot, &self.top()));
    }

    /// Ends the stop.
    fn go_on(&mut self) {
        self.told = Told::default();
        self.stop.store(0, Ordering::SeqCst);
    }

    fn read(&self) -> u64 {
        self.told.read.load(Ordering::Relaxed)
    }
}

fn in_memory() -> Setup<Memory> {
    Setup::of(vec![Arc::default(), Arc::default()])
}

fn lossy() -> Setup<Gone> {
    Setup::of(vec![gone(Memory::default()), gone(Memory::default())])
}

#[test]
fn both_have_what_a_push_into_one_has_and_each_byte_is_read_once() {
    let setup = in_memory();
    tree::nasty(&setup.top());
    write(setup.top().join("alone in its batch"), noise(3, 18 << 20));
    let both = setup.push();
    let single = repository::in_memory().1;
    let one = push(background(), &single, &setup.options()).unwrap();
    setup.assert_has(&single, &one);
    assert!(one.read > 18 << 20, "{}", one.read);
    assert_eq!((setup.read(), both[0].read, both[1].read), (one.read, one.read, one.read));
    for summary in &both {
        let figures =
            |s: &Summary| (s.new, s.skipped, s.excluded, s.snapshot.stats.directories, s.snapshot.stats.bytes);
        assert_eq!(figures(summary), figures(&one));
    }
    assert_ne!(both[0].snapshot.root, both[1].snapshot.root);
}

#[test]
fn each_file_is_opened_and_read_once() {
    let setup = in_memory();
    fs::create_dir(setup.top()).unwrap();
    let odd = OddMount::at(&setup.top());
    let counts = || [&odd.opened, &odd.read].map(|count| count.swap(0, Ordering::Relaxed));
    let both = setup.try_push();
    let files = FILES as usize - 1;
    assert_eq!(counts(), [files, files]);
    both.into_iter().for_each(|done| assert_eq!((done.as_ref().unwrap().new, done.unwrap().skipped), (4, 2)));
}

#[test]
fn a_repository_reads_only_what_it_lacks() {
    let setup = in_memory();
    for i in 0..40 {
        write(setup.top().join(format!("d{}/f{i}", i % 3)), noise(i, 1000));
    }
    tree::settle();
    setup.push_one(0);
    let second = setup.push();
    assert_eq!([&second[0], &second[1]].map(|s| (s.unchanged, s.new, s.read)), [(40, 0, 0), (0, 40, 40_000)]);
    assert_eq!(setup.read(), 40_000);
    tree::settle();
    fs::rename(setup.top().join("d0"), setup.top().join("moved")).unwrap();
    write(setup.top().join("d1/f1"), noise(99, 500));
    let third = setup.push();
    for summary in &third {
        assert_eq!((summary.renamed, summary.changed, summary.read, summary.unchanged), (14, 1, 500, 25));
    }
    assert_eq!(setup.read(), 500);
}

#[test]
fn a_large_file_goes_on_in_each_repository_from_where_it_is_there() {
    let mut setup = in_memory();
    write(setup.top().join("large"), noise(5, 40 << 20));
    tree::settle();
    setup.told.stop_after(24 << 20, &setup.stop);
    let ctx = Context::new(&setup.told, Arc::clone(&setup.stop));
    push(&ctx, &setup.repos[0], &setup.options()).unwrap_err();
    setup.go_on();
    let both = setup.push();
    assert!(both[0].read <= 24 << 20, "{}", both[0].read);
    assert_eq!((both[1].read, setup.read()), (40 << 20, 40 << 20));
}

#[test]
fn a_repository_that_fails_does_not_affect_the_other() {
    let setup = lossy();
    for i in 0..30 {
        write(setup.top().join(format!("f{i}")), noise(i, 100_000));
    }
    for (bad, calls) in [(0, 0), (0, 1), (1, 2), (0, 3), (1, 4), (0, 5)] {
        setup.storages[bad].arm(calls);
        let mut results = setup.try_push();
        let error = results.remove(bad).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Connection, "the server is gone"), "{calls}");
        setup.assert_has(&setup.repos[1 - bad], results[0].as_ref().unwrap());
        setup.storages[bad].disarm();
    }
    setup.push();
}

#[test]
fn if_both_fail_both_errors_are_reported() {
    let setup = lossy();
    write(setup.top().join("f"), noise(1, 1 << 20));
    for calls in [0, 3] {
        setup.storages.iter().for_each(|storage| storage.arm(calls));
        let results = setup.try_push();
        assert!(results.iter().all(|result| result.as_ref().unwrap_err().kind() == Kind::Connection), "{results:?}");
    }
}

#[test]
fn a_stop_keeps_what_both_have_and_the_next_push_continues() {
    let mut setup = in_memory();
    let hour = Duration::from_secs(3600);
    setup.checkpoints = Checkpoints { after: hour, at_most: hour, ..Checkpoints::default() };
    for i in 0..40 {
        write(setup.top().join(format!("f{i:02}")), noise(i, 1 << 20));
    }
    tree::settle();
    setup.told.stop_after(20 << 20, &setup.stop);
    for result in setup.try_push() {
        assert_eq!(result.unwrap_err().kind(), Kind::Interrupted(15));
    }
    let disk = on_disk(&setup.top());
    for repo in &setup.repos {
        let snapshots = repo.state(background()).unwrap().snapshots();
        assert_eq!(snapshots.iter().map(|s| s.partial).collect::<Vec<_>>(), [true]);
        assert!(check_partial(repo, &snapshots[0], &setup.top(), &disk) > 0);
    }
    setup.go_on();
    let both = setup.push();
    assert!(both.iter().all(|summary| summary.unchanged >= 20 && summary.read <= 20 << 20), "{both:?}");
}

#[test]
fn a_stream_is_read_once() {
    let setup = in_memory();
    let opened = Arc::new(AtomicUsize::new(0));
    let (count, bytes) = (Arc::clone(&opened), noise(8, 9 << 20));
    let expected = bytes.clone();
    let open: nfreezer::push::Opener = Box::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(std::io::Cursor::new(bytes)))
    });
    let kind = StreamKind::File { size: None, failure: Failure::Fatal, open };
    let stream = Stream { path: b"/dir/dump".into(), mode: 0o600, uid: 1, gid: 2, mtime: Time::new(3, 4), kind };
    let options = Options { sources: vec!["/dir/dump".into()], ..setup.options() };
    let ctx = Context::new(&setup.told, Arc::default());
    let both = push_streams_to(&ctx, &setup.destinations(), &options, std::iter::once(Ok(stream))).unwrap();
    assert_eq!((opened.load(Ordering::Relaxed), setup.read()), (1, 9 << 20));
    for (repo, summary) in setup.repos.iter().zip(both) {
        let model = in_snapshot(repo, &summary.unwrap().snapshot, "/dir".as_ref());
        assert!(model.values().any(|seen| seen.what == tree::What::of(&expected)), "{model:?}");
    }
}

#[test]
fn the_repositories_share_the_memory() {
    let setup = in_memory();
    write(setup.top().join("f"), b"1");
    let options = |memory| Options { memory, ..setup.options() };
    let push = |memory| push_to(background(), &setup.destinations(), &options(memory)).unwrap();
    assert!(push(2 * LEAST).iter().all(Result::is_ok));
    for result in push(2 * LEAST - 2) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.hint_text().unwrap().contains("--memory 208M"), "{:?}", error.hint_text());
    }
}

#[test]
fn warnings_about_a_repository_name_it() {
    let setup = in_memory();
    for i in 0..4 {
        write(setup.top().join("f"), noise(i, 100 + i as usize));
        setup.push();
    }
    let storage = &setup.storages[1];
    let mut packs = (0..16).flat_map(|x| storage.list(background(), Folder::PackShard(x)).unwrap());
    storage.remove(background(), &packs.next().unwrap().name).unwrap();
    setup.try_push();
    let warnings = setup.told.warnings.lock().unwrap();
    let missing = "second: 1 pack is missing on the server";
    assert!(warnings.iter().any(|text| text.starts_with(missing)), "{warnings:?}");
    assert!(warnings.iter().all(|text| text.starts_with("second: ")), "{warnings:?}");
}

/// The calls that both repositories must make at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Deed {
    ListLog,
    PutRecord,
}

/// The repositories that have begun each deed.
#[derive(Default)]
struct Meeting {
    begun: Mutex<HashSet<(Deed, usize)>>,
    arrived: Condvar,
}

/// Lets a repository wait in each [`Deed`] until the other one has begun it, too.
struct Meet {
    meeting: Arc<Meeting>,
    number: usize,
}

impl Rule for Meet {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let deed = match call {
            Call::List(Folder::Log) => Deed::ListLog,
            Call::Put(Name::Record { .. }, _) => Deed::PutRecord,
            _ => return call.of(ctx, storage),
        };
        let mut begun = self.meeting.begun.lock().unwrap();
        begun.insert((deed, self.number));
        self.meeting.arrived.notify_all();
        while !(0..2).all(|number| begun.contains(&(deed, number))) {
            let (guard, waited) = self.meeting.arrived.wait_timeout(begun, Duration::from_secs(60)).unwrap();
            begun = guard;
            assert!(!waited.timed_out(), "the other repository does not {deed:?} meanwhile");
        }
        drop(begun);
        call.of(ctx, storage)
    }
}

#[test]
fn the_repositories_are_prepared_and_committed_at_the_same_time() {
    let meeting = Arc::new(Meeting::default());
    let storage = |number| Between::with(Memory::default(), Meet { meeting: Arc::clone(&meeting), number });
    // The repositories are made one after the other.
    let all = [Deed::ListLog, Deed::PutRecord].map(|deed| [(deed, 0), (deed, 1)]).concat();
    meeting.begun.lock().unwrap().extend(all);
    let setup = Setup::of(vec![storage(0), storage(1)]);
    write(setup.top().join("file"), "text");
    for _ in 0..2 {
        meeting.begun.lock().unwrap().clear();
        setup.try_push().into_iter().for_each(|done| drop(done.unwrap()));
        write(setup.top().join("file"), "another text");
    }
    assert!(meeting.begun.lock().unwrap().contains(&(Deed::PutRecord, 1)));
}
