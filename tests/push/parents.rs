//! Facts that a push takes over from its parent unread, and claims that it must not believe. The parents here are
//! forged: one node differs from the disk, so the next snapshot shows whether the file was read.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::harness::repository;
use crate::harness::root::{Filesystem, needs_root};
use crate::harness::tree::{What, assert_same, in_snapshot, noise, on_disk, set_mtime, settle, write};
use nfreezer::context::background;
use nfreezer::crypto::keys::ChunkKind;
use nfreezer::crypto::seal::ObjectType;
use nfreezer::format::node::{CHANGED, Content, Node};
use nfreezer::format::pack::Builder;
use nfreezer::format::page::Page;
use nfreezer::format::record::{Head, Snapshot, SnapshotId};
use nfreezer::format::reference::{Extent, PackRef, Ref};
use nfreezer::push::{Options, Summary, push};
use nfreezer::repo::{Repository, random};
use nfreezer::storage::Memory;
use nfreezer::time::Time;
use nfreezer::trees::Trees;

const LEN: usize = 1000;

struct Case {
    repo: Repository,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        let repo = repository::init(Arc::new(Memory::default()));
        Case { repo, dir: tempfile::tempdir().unwrap() }
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    fn push(&self) -> Summary {
        let sources = vec![self.top()];
        let options = Options { sources, host: "host".into(), user: "user".into(), ..Options::default() };
        push(background(), &self.repo, &options).unwrap()
    }

    fn chunk(&self, kind: ChunkKind, plain: &[u8]) -> Ref {
        let mut builder = Builder::default();
        let entry = builder.add(self.repo.keys().chunk_id(kind, plain), kind, plain, plain.len());
        let object = if kind == ChunkKind::Data { ObjectType::Data } else { ObjectType::Meta };
        entry.in_pack(self.repo.put_pack(background(), object, &mut builder.finish(false).0).unwrap())
    }

    /// Commits a copy of the snapshot, one nanosecond younger, in which the node at `path` is changed.
    fn forge(&self, snapshot: &Snapshot, path: &Path, change: &dyn Fn(&mut Node)) {
        let mut time = snapshot.time;
        time.nanoseconds += 1;
        self.forge_at(time, snapshot, path, change);
    }

    /// Commits such a copy that began at `time`.
    fn forge_at(&self, time: Time, snapshot: &Snapshot, path: &Path, change: &dyn Fn(&mut Node)) {
        let parts: Vec<&[u8]> = path.as_os_str().as_bytes().split(|byte| *byte == b'/').skip(1).collect();
        let root = Some(self.page(snapshot.root.as_ref(), &parts, change));
        let forged = Snapshot { id: SnapshotId(random().unwrap()), root, time, ..snapshot.clone() };
        let head = Head { snapshots: vec![forged], ..Head::default() };
        self.repo.commit(background(), &mut self.repo.state(background()).unwrap(), head, &[]).unwrap();
    }

    fn page(&self, page: Option<&Ref>, parts: &[&[u8]], change: &dyn Fn(&mut Node)) -> Ref {
        let mut nodes: Vec<Node> = Trees::new(&self.repo).entries(background(), page).map(Result::unwrap).collect();
        let node = nodes.iter_mut().find(|node| node.name == parts[0]).unwrap();
        match &node.content {
            Content::Directory(below) => {
                node.content = Content::Directory(Some(self.page(below.as_ref(), &parts[1..], change)))
            }
            _ => change(node),
        }
        self.chunk(ChunkKind::Page, &Page::Leaf(nodes).encode(&PackRef::SELF))
    }
}

#[test]
fn a_file_is_taken_over_unread_only_if_inode_times_and_marks_are_those_of_the_parent() {
    let case = Case::new();
    let path = case.top().join("f");
    write(&path, noise(1, LEN));
    settle();
    let (truth, lie) = (What::of(&noise(1, LEN)), case.chunk(ChunkKind::Data, &noise(2, LEN)));
    let saved = |change: &dyn Fn(&mut Node)| {
        let first = case.push();
        case.forge(&first.snapshot, &path, &|node| {
            node.content = Content::File(vec![Extent::Data(lie)]);
            change(node);
        });
        let second = case.push();
        (in_snapshot(&case.repo, &second.snapshot, &path)[&b""[..]].what.clone(), second.read)
    };
    assert_eq!(saved(&|_| {}), (What::of(&noise(2, LEN)), 0), "what a parent says of an untouched file is believed");
    assert_eq!(saved(&|node| node.inode += 1), (truth.clone(), LEN as u64), "another inode number");
    assert_eq!(saved(&|node| node.ctime += 1), (truth.clone(), LEN as u64), "another ctime");
    assert_eq!(saved(&|node| node.mtime.nanoseconds ^= 1), (truth.clone(), LEN as u64), "another mtime");
    assert_eq!(saved(&|node| node.flags |= CHANGED), (truth, LEN as u64), "changed while it was read");
}

#[test]
fn a_file_of_another_device_with_the_same_inode_number_size_and_mtime_is_not_the_moved_one() {
    if !needs_root("two file systems of its own") {
        return;
    }
    let case = Case::new();
    let [one, two] = ["one", "two"].map(|name| case.top().join(name));
    let _mounted = [&one, &two].map(|path| Filesystem::tmpfs(path));
    let (old, new) = (one.join("old"), two.join("new"));
    write(&old, noise(1, LEN));
    let before = fs::metadata(&old).unwrap();
    settle();
    case.push();
    fs::remove_file(&old).unwrap();
    write(&new, noise(2, LEN));
    set_mtime(&new, before.mtime(), before.mtime_nsec() as u32);
    let after = fs::metadata(&new).unwrap();
    assert_eq!((after.ino(), after.size(), after.mtime()), (before.ino(), before.size(), before.mtime()));
    assert_ne!(after.dev(), before.dev());
    let second = case.push();
    assert_same(&on_disk(&case.top()), &in_snapshot(&case.repo, &second.snapshot, &case.top()));
    assert_eq!((second.read, second.renamed), (LEN as u64, 0));
}

/// Moves a file into a new folder, so that its ctime equals the ctimes of both folders. Pushes it with a parent that
/// has other contents for the old path. Returns the bytes read: none if the push took the file for the moved one.
fn read_after_move(prepare: impl Fn(&Case, Time) -> Time) -> u64 {
    let case = Case::new();
    let [old, new] = ["a/f", "b/f"].map(|name| case.top().join(name));
    write(&old, noise(1, LEN));
    settle();
    let first = case.push();
    settle();
    fs::create_dir(case.top().join("b")).unwrap();
    fs::rename(&old, &new).unwrap();
    fs::remove_dir(case.top().join("a")).unwrap();
    settle();
    let begun = prepare(&case, first.snapshot.time);
    let lie = case.chunk(ChunkKind::Data, &noise(2, LEN));
    let parent = Time::new(begun.seconds, begun.nanoseconds + 1);
    case.forge_at(parent, &first.snapshot, &old, &|node| node.content = Content::File(vec![Extent::Data(lie)]));
    let second = case.push();
    let expected = if second.read == 0 { noise(2, LEN) } else { noise(1, LEN) };
    assert_eq!(in_snapshot(&case.repo, &second.snapshot, &new)[&b""[..]].what, What::of(&expected));
    second.read
}

#[test]
fn a_file_counts_as_moved_only_if_it_was_moved_after_the_parent_and_is_no_longer_at_its_old_path() {
    assert_eq!(read_after_move(|_, begun| begun), 0, "a moved file is not read");
    let read = LEN as u64;
    assert_eq!(read_after_move(|_, _| nfreezer::repo::now()), read, "its ctime is older than the parent");
    let link = |case: &Case| std::os::unix::fs::symlink("b", case.top().join("a")).unwrap();
    assert_eq!(
        read_after_move(|case, begun| {
            link(case);
            begun
        }),
        read,
        "its old path shows it still"
    );
}

#[test]
fn a_file_that_is_written_twice_within_a_second_is_read_twice_where_times_are_whole_seconds() {
    if !needs_root("a file system of its own") {
        return;
    }
    let case = Case::new();
    // Small inodes have no room for nanoseconds.
    let _mounted = Filesystem::image(&case.top(), "mkfs.ext4 -q -I 128");
    let path = case.top().join("f");
    for seed in (0..60).step_by(2) {
        write(&path, noise(seed, LEN));
        let before = fs::metadata(&path).unwrap();
        assert_eq!((before.mtime_nsec(), before.ctime_nsec()), (0, 0));
        case.push();
        write(&path, noise(seed + 1, LEN));
        let after = fs::metadata(&path).unwrap();
        if (before.ctime(), before.mtime(), before.ino()) != (after.ctime(), after.mtime(), after.ino()) {
            continue; // A second began in between, so the times tell the two contents apart.
        }
        let second = case.push();
        let saved = &in_snapshot(&case.repo, &second.snapshot, &path)[&b""[..]];
        assert_eq!(saved.what, What::of(&noise(seed + 1, LEN)));
        return;
    }
    panic!("never were two writes and a push within one second");
}
