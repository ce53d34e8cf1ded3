//! Promises of `push_streams`, on a storage in memory: sources that are not files.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::repository;
use crate::harness::tree::{What, in_snapshot, noise};
use nfreezer::context::{Context, background};
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::node::Content;
use nfreezer::name::Folder;
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{Failure, Options, Stream, StreamKind, Summary, push_streams, tree_order};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;
use nfreezer::trees::Trees;

fn options() -> Options {
    Options { sources: vec![PathBuf::from("/old")], host: "host".into(), ..Options::default() }
}

fn stream(path: &str, failure: Failure, reader: impl Read + Send + 'static) -> Result<Stream> {
    let open: nfreezer::push::Opener = Box::new(move || Ok(Box::new(reader)));
    let kind = StreamKind::File { size: None, failure, open };
    Ok(Stream { path: path.into(), mode: 0o100640, uid: 7, gid: 8, mtime: Time::new(5, 6), kind })
}

fn file(path: &str, bytes: impl Into<Vec<u8>>) -> Result<Stream> {
    stream(path, Failure::Fatal, io::Cursor::new(bytes.into()))
}

fn folder(path: &str) -> Result<Stream> {
    Ok(Stream { path: path.into(), mode: 0o700, uid: 1, gid: 2, mtime: Time::new(3, 4), kind: StreamKind::Folder })
}

fn save(repo: &Repository, streams: Vec<Result<Stream>>) -> Result<Summary> {
    push_streams(background(), repo, &options(), streams.into_iter())
}

/// A reader that returns a little data at a time, and in between reports that there is none yet.
struct Slow(Vec<u8>, bool);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = self.0.len().min(buffer.len()).min(70_001);
        buffer[..n].copy_from_slice(&self.0[..n]);
        self.0.drain(..n);
        Ok(n)
    }
}

/// A reader that returns this number of bytes, then this error.
struct Breaks(usize, fn() -> io::Error);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.min(buffer.len());
        self.0 -= n;
        if n == 0 { Err((self.1)()) } else { Ok(n) }
    }
}

/// A reader that fails once the first pack is stored.
struct OnceStored(Arc<Memory>);

impl Read for OnceStored {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let stored = |x| !self.0.list(background(), Folder::PackShard(x)).unwrap().is_empty();
        match (0..16).any(stored) {
            true => Err(io::Error::other("the disk is on fire")),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

#[test]
fn streams_make_a_tree_with_the_folders_on_their_way() {
    let repo = repository::in_memory().1;
    let large = noise(1, 50 << 20);
    let mut streams = vec![
        folder("/old/a"),
        file("/old/a/1", "one"),
        file("/old/a/b/2", ""),
        stream("/old/a/b/large", Failure::Fatal, Slow(large.clone(), false)),
        file("/old/a.txt", "three"),
        file("/z", "four"),
    ];
    streams.extend((0..3000).map(|i| file(&format!("/zz/{i:04}"), vec![i as u8; i])));
    let summary = save(&repo, streams).unwrap();
    let model = in_snapshot(&repo, &summary.snapshot, Path::new("/"));
    let content = |path: &str| model[path.as_bytes()].what.clone();
    assert_eq!(content("old/a/1"), What::of(b"one"));
    assert_eq!(content("old/a/b/2"), What::of(b""));
    assert_eq!(content("old/a/b/large"), What::of(&large));
    assert_eq!(content("old/a.txt"), What::of(b"three"));
    for i in 0..3000 {
        assert_eq!(content(&format!("zz/{i:04}")), What::of(&vec![i as u8; i]));
    }
    let node = |path: &str| Trees::new(&repo).at(background(), &summary.snapshot, path.as_bytes()).unwrap();
    let attrs = |path| (node(path).attrs.mode, node(path).attrs.uid, node(path).attrs.gid, node(path).mtime);
    assert_eq!(attrs("/z"), (0o640, 7, 8, Time::new(5, 6)));
    assert_eq!(attrs("/old/a"), (0o700, 1, 2, Time::new(3, 4)));
    assert_eq!(attrs("/old").0, 0o755);
    assert_eq!(node("/old").mtime, summary.snapshot.time);
    assert_eq!((summary.new, summary.snapshot.stats.directories), (3005, 4));
    let paths: Vec<_> = summary.snapshot.paths.iter().map(|path| path.to_vec()).collect();
    assert_eq!(paths, [Path::new("/old").as_os_str().as_bytes().to_vec()]);
}

#[test]
fn the_same_streams_again_send_nothing() {
    let repo = repository::in_memory().1;
    let streams = || (0..2000).map(|i| file(&format!("/a/{}/{i:04}", i / 500), noise(i, 2000))).collect::<Vec<_>>();
    let first = save(&repo, streams()).unwrap();
    let second = save(&repo, streams()).unwrap();
    assert_eq!(second.snapshot.root, first.snapshot.root);
    assert_eq!((second.packs, second.unchanged, second.new, second.changed), (0, 2000, 0, 0));
    assert_eq!(second.read, first.read);
    let mut changed = streams();
    changed[700] = file("/a/1/0700", "other");
    let third = save(&repo, changed).unwrap();
    assert_eq!((third.changed, third.unchanged), (1, 1999));
}

#[test]
fn a_fatal_stream_leaves_no_snapshot_and_keeps_what_was_stored() {
    let storage = Arc::new(Memory::default());
    let repo = repository::init(storage.clone());
    let noisy = file("/a/0", noise(1, 40 << 20)); // two packs are open, so the first is stored after 32 MiB
    let error = save(&repo, vec![noisy, stream("/a/1", Failure::Fatal, OnceStored(storage))]).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /a/1: the disk is on fire");
    assert!(repo.state(background()).unwrap().snapshots().iter().all(|s| s.partial));
    let again = save(&repo, vec![file("/a/0", noise(1, 40 << 20))]).unwrap();
    assert!(again.added < 30 << 20, "{}", again.added);
    let open: nfreezer::push::Opener = Box::new(|| Err(Error::new(Kind::NoSpace, "cannot start")));
    let kind = StreamKind::File { size: Some(3), failure: Failure::Fatal, open };
    let stream = Stream { path: b"/x".into(), mode: 0, uid: 0, gid: 0, mtime: Time::new(0, 0), kind };
    let error = save(&repo, vec![Ok(stream)]).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (Kind::NoSpace, "cannot read /x: cannot start".into()));
    assert_eq!(save(&repo, vec![Err(Error::damaged("broken list"))]).unwrap_err().kind(), Kind::Damaged);
    assert_eq!(repo.state(background()).unwrap().snapshots().iter().filter(|s| !s.partial).count(), 1);
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Progress for Seen {
    fn event(&self, event: Event<'_>) {
        if let Event::Skipped { path, why } = event {
            self.0.lock().unwrap().push(format!("{}: {why}", String::from_utf8_lossy(path)));
        }
    }
}

#[test]
fn a_stream_that_may_fail_is_reported_and_saved_as_unreadable() {
    let repo = repository::in_memory().1;
    let broken = || io::Error::other(Error::damaged("the tag is wrong"));
    let streams = vec![file("/a/1", "1"), stream("/a/2", Failure::Skip, Breaks(9 << 20, broken)), file("/a/3", "3")];
    let seen = Seen::default();
    let summary = push_streams(&background().with_progress(&seen), &repo, &options(), streams.into_iter()).unwrap();
    assert_eq!(*seen.0.lock().unwrap(), ["/a/2: the tag is wrong"]);
    assert_eq!((summary.skipped, summary.snapshot.stats.unreadable), (1, 1));
    assert_eq!(Trees::new(&repo).at(background(), &summary.snapshot, b"/a/2").unwrap().content, Content::Unreadable(5));
    assert_eq!(Trees::new(&repo).at(background(), &summary.snapshot, b"/a/3").unwrap().content.size(), 1);
    let gone = || io::Error::other(Error::new(Kind::Connection, "the server is gone"));
    let error = save(&repo, vec![stream("/a/2", Failure::Skip, Breaks(1, gone))]).unwrap_err();
    assert_eq!(error.kind(), Kind::Connection, "a lost connection is not a broken file");
}

#[test]
fn a_reader_that_waits_can_be_interrupted() {
    let repo = repository::in_memory().1;
    let stop = Arc::new(AtomicI32::new(0));
    struct Never(Arc<AtomicI32>, u8);
    impl Read for Never {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1 == 5 {
                self.0.store(15, Ordering::Relaxed);
            }
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    let ctx = Context::new(&nfreezer::progress::Silent, Arc::clone(&stop));
    let streams = vec![stream("/a", Failure::Fatal, Never(stop, 0))];
    let error = push_streams(&ctx, &repo, &options(), streams.into_iter()).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted(15));
    assert!(repo.state(background()).unwrap().snapshots().is_empty());
}

#[test]
fn what_comes_out_of_order_below_a_file_or_with_an_odd_path_is_refused() {
    let repo = repository::in_memory().1;
    for (paths, words) in [
        (&["/b", "/a"][..], "order of the tree: /a after /b"),
        (&["/a", "/a"], "order of the tree: /a after /a"),
        (&["/a.b", "/a/b"], "order of the tree: /a/b after /a.b"),
        (&["/a/b", "/a/b/c"], "/a/b is a file, so there cannot be /a/b/c"),
        (&["a"], "not an absolute path"),
        (&["/"], "not an absolute path"),
        (&[""], "not an absolute path"),
        (&["/a//b"], "not an absolute path"),
        (&["/a/"], "not an absolute path"),
        (&["/a/../b"], "not an absolute path"),
    ] {
        let error = save(&repo, paths.iter().map(|path| file(path, "x")).collect()).unwrap_err().to_string();
        assert!(error.contains(words), "{paths:?}: {error}");
    }
    let late = save(&repo, vec![file("/a/b", "x"), folder("/a")]).unwrap_err().to_string();
    assert!(late.contains("order"), "{late}");
    let mut paths = vec!["/a.b", "/a/z", "/a", "/b", "/a/b/c", "/a/b", "/a b/c"];
    paths.sort_by(|a, b| tree_order(a.as_bytes(), b.as_bytes()));
    assert_eq!(paths, ["/a", "/a/b", "/a/b/c", "/a/z", "/a b/c", "/a.b", "/b"]);
}
