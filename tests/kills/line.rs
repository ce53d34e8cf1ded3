//! A push through a real server that is killed, asked to end, or loses the server for a while.

use nfreezer::context::background;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::proxy::Proxy;
use crate::harness::sshd::{Sshd, signal};
use crate::harness::tree::{assert_same, check_partial, in_snapshot, noise, on_disk, settle, write};
use crate::{Client, ended, number, succeeded};

const PACK: u64 = 16 << 20;
/// Bytes in the tree; with `LIMIT` a push of it takes some seconds.
const SIZE: u64 = 192 << 20;
/// With little memory, the push reads only a few packs ahead, and has not read everything when it is asked to end.
const LIMIT: [&str; 6] = ["--limit-upload", "32M", "--checkpoint", "1s", "--memory", "104M"];

struct Line {
    sshd: Sshd,
    proxy: Proxy,
    client: Client,
    dir: tempfile::TempDir,
}

/// Starts a server behind a proxy, and writes a large file with small ones before it.
fn line() -> Line {
    let sshd = Sshd::start();
    let repository = sshd.files().join("repository");
    line_to(sshd, repository)
}

fn line_to(sshd: Sshd, repository: PathBuf) -> Line {
    let proxy = Proxy::start(sshd.port, Duration::ZERO);
    sshd.trust_port(proxy.port);
    let client = Client::with(&sshd, proxy.port, repository);
    let dir = tempfile::tempdir().unwrap();
    (0..10).for_each(|i| write(dir.path().join(format!("top/a/{i}")), noise(i, 100_000)));
    write(dir.path().join("top/large"), noise(100, SIZE as usize - 1_000_000));
    settle();
    Line { sshd, proxy, client, dir }
}

impl Line {
    fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    /// Starts a push and waits until this number of full packs is on the server.
    fn push_until(&self, packs: usize) -> Child {
        let mut child = self.client.push(&self.top(), &LIMIT);
        while full_packs(&self.client.repository) < packs {
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
            std::thread::sleep(Duration::from_millis(2)); // between two looks at the folder
        }
        child
    }

    /// Compares the only snapshot, a partial one, with the disk. Returns the number of bytes that it holds.
    fn partial(&self) -> Option<u64> {
        let repo = self.client.open();
        let snapshots = repo.state(background()).unwrap().snapshots();
        let [partial] = &snapshots[..] else { return None };
        assert!(partial.partial);
        Some(check_partial(&repo, partial, &self.top(), &on_disk(&self.top())))
    }

    /// Runs the next push to its end without a limit, and checks that it goes on behind these bytes.
    fn goes_on(&self, bytes: u64) {
        let summary = succeeded(self.client.push(&self.top(), &[]));
        let [read, sent] = ["read", "sent"].map(|name| summary[name].as_u64().unwrap());
        println!("{bytes} of {SIZE} bytes were held; the next push read {read} and sent {sent}");
        assert!(read <= SIZE - bytes && sent < SIZE - bytes + PACK, "{bytes} were held: {summary}");
        self.compare();
    }

    fn compare(&self) {
        let repo = self.client.open();
        let snapshots = repo.state(background()).unwrap().snapshots();
        let [whole] = &snapshots[..] else { panic!("one snapshot") };
        assert!(!whole.partial);
        assert_same(&in_snapshot(&repo, whole, &self.top()), &on_disk(&self.top()));
    }
}

fn full_packs(repository: &Path) -> usize {
    pack_sizes(repository).filter(|size| *size > PACK).count()
}

fn pack_sizes(repository: &Path) -> impl Iterator<Item = u64> {
    let shards = std::fs::read_dir(repository.join("packs")).unwrap();
    let packs = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    packs.filter_map(|pack| pack.unwrap().metadata().ok()).map(|meta| meta.len())
}

/// Waits up to two minutes for a process to end, longer than a push may need to commit its work. Returns its exit code,
/// the time that it took, and its output.
fn ends(mut child: Child) -> (Option<i32>, Duration, String) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("it hangs: {}", ended(child).text);
        }
        std::thread::sleep(Duration::from_millis(2)); // between two looks at the process
    }
    let took = start.elapsed();
    let ended = ended(child);
    (ended.code, took, ended.text)
}

#[test]
fn after_a_kill_nothing_that_a_checkpoint_held_is_read_or_sent_again() {
    let line = line();
    let mut child = line.client.push(&line.top(), &LIMIT);
    let (repo, mut held) = (line.client.open(), 0);
    while held < SIZE / 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        held = repo.state(background()).unwrap().snapshots().first().map_or(0, |partial| partial.stats.bytes);
        std::thread::sleep(Duration::from_millis(50)); // between two looks at the log
    }
    signal(child.id(), Signal::KILL);
    assert_eq!(ended(child).code, None);
    line.sshd.sessions_end();
    let bytes = line.partial().expect("a partial snapshot");
    assert!(bytes >= held);
    line.goes_on(bytes);
}

#[test]
fn a_push_that_is_asked_to_end_does_so_and_keeps_what_it_has() {
    let line = line();
    let child = line.push_until(4);
    signal(child.id(), Signal::TERM);
    let (code, took, text) = ends(child);
    println!("SIGTERM on a line with a limit: ended after {took:?}");
    assert_eq!(code, Some(143), "{text}");
    assert!(text.contains("run the same push again"), "{text}");
    line.goes_on(line.partial().expect("a partial snapshot"));
}

#[test]
fn on_a_slow_line_little_is_half_done_when_a_push_is_killed() {
    // The repository is in memory, since a disk that is busy with other work may take seconds to sync the first pack.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let line = line_to(Sshd::start(), memory.path().join("repository"));
    // At this limit, sending all packs that could be in flight at once takes longer than this push runs.
    let mut child = line.client.push(&line.top(), &["--limit-upload", "4M"]);
    let repository = &line.client.repository;
    // One or two packs are sent at a time. On a busy machine the line is not measured well, and up to four packs are
    // sent.
    while full_packs(repository) < 3 || pack_sizes(repository).count() < 4 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(2)); // between two looks at the folder
    }
    signal(child.id(), Signal::KILL);
    assert_eq!(ended(child).code, None);
    let half_done = pack_sizes(repository).filter(|size| *size < PACK).count();
    assert!(half_done <= 4, "{half_done} packs are half done");
}

#[test]
fn a_push_whose_server_is_frozen_ends_when_it_is_asked_to() {
    let line = line();
    let child = line.push_until(4);
    line.proxy.freeze(true);
    signal(child.id(), Signal::TERM);
    let (code, took, text) = ends(child);
    println!("SIGTERM while the server is frozen: ended after {took:?}");
    assert_eq!(code, Some(143), "{text}");
    line.proxy.freeze(false);
    let held = line.partial().unwrap_or(0);
    line.goes_on(held);
}

#[test]
fn a_push_goes_on_when_its_server_comes_back() {
    let mut line = line();
    let child = line.push_until(3);
    line.sshd.stop();
    let outage = Duration::from_secs(number("NFREEZER_OUTAGE", 5));
    std::thread::sleep(outage); // the outage under test
    line.sshd.resume();
    let back = Instant::now();
    let summary = succeeded(child);
    println!("the server was away for {outage:?}; the push ended {:?} after it came back: {summary}", back.elapsed());
    line.compare();
}
