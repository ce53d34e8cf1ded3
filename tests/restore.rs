//! Restore: everything comes back, nothing leaves the target, damage stays where it is. On `Memory`, with trees written
//! directly, so that they can be as hostile as a key holder can make them.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::keys::ChunkKind;
use nfreezer::crypto::seal::ObjectType;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::error::Kind;
use nfreezer::format::list::List;
use nfreezer::format::pack::Builder;
use nfreezer::format::page::Page;
use nfreezer::format::record::{Head, Snapshot, Stats};
use nfreezer::format::reference::{Extent, PackRef, Ref};
use nfreezer::format::tree::{Attrs, Content, Node, Xattrs};
use nfreezer::name::Name;
use nfreezer::progress::{Event, Progress};
use nfreezer::repo::{Repository, random};
use nfreezer::restore::{Options, Overwrite, Summary, restore};
use nfreezer::storage::{Local, Memory, Storage};

// ---- a direct writer ----

struct Repo {
    repo: Repository,
    memory: Arc<Memory>,
}

fn pass() -> Passphrase {
    Passphrase::new("correct horse".into()).unwrap()
}

fn repo() -> Repo {
    let memory = Arc::new(Memory::default());
    let storage: Arc<dyn Storage> = memory.clone();
    Repo { repo: Repository::init(storage, &pass(), KdfCost::DEFAULT, "test").unwrap(), memory }
}

fn chunks(repo: &Repository, kind: ChunkKind, plain: &[&[u8]]) -> Vec<Ref> {
    let mut builder = Builder::default();
    let entries: Vec<_> = plain.iter().map(|p| builder.add(repo.keys().chunk_id(kind, p), kind, p, p.len())).collect();
    let object = if kind == ChunkKind::Data { ObjectType::Data } else { ObjectType::Meta };
    let pack = repo.put_pack(object, &builder.finish(false).0).unwrap();
    entries.iter().map(|e| e.in_pack(pack)).collect()
}

fn data(repo: &Repository, bytes: &[u8]) -> Ref {
    chunks(repo, ChunkKind::Data, &[bytes])[0]
}

fn directory(repo: &Repository, mut nodes: Vec<Node>) -> Content {
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    if nodes.is_empty() {
        return Content::Directory(None);
    }
    Content::Directory(Some(chunks(repo, ChunkKind::Page, &[&Page::Leaf(nodes).encode(&PackRef::SELF)])[0]))
}

fn node(name: impl AsRef<[u8]>, mode: u16, content: Content) -> Node {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Node {
        name: name.as_ref().to_vec(),
        attrs: Arc::new(Attrs { mode, uid, gid, user: Vec::new(), group: Vec::new(), fs: 0 }),
        mtime: (1_000_000_000, 123_456_789),
        ctime: 5,
        inode: 0,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content,
    }
}

fn file(repo: &Repository, name: impl AsRef<[u8]>, bytes: &[u8]) -> Node {
    let extents = if bytes.is_empty() { Vec::new() } else { vec![Extent::Data(data(repo, bytes))] };
    node(name, 0o644, Content::File(extents))
}

fn link(mut node: Node, inode: u64, nlink: u32) -> Node {
    (node.inode, node.nlink) = (inode, nlink);
    node
}

fn snapshot(repo: &Repository, nodes: Vec<Node>) -> Snapshot {
    let Content::Directory(root) = directory(repo, nodes) else { unreachable!() };
    Snapshot {
        id: random().unwrap(),
        time: (1_700_000_000, 0),
        host: "host".into(),
        user: "user".into(),
        paths: Vec::new(),
        more_paths: 0,
        group: 0,
        tags: Vec::new(),
        description: String::new(),
        root,
        partial: false,
        warnings: 0,
        stats: Stats::default(),
        program: "test".into(),
    }
}

// ---- what is seen ----

#[derive(Default)]
struct Seen {
    skipped: Mutex<BTreeMap<String, String>>,
    warnings: Mutex<Vec<String>>,
}

impl Progress for Seen {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Skipped { path, why } => {
                let path = String::from_utf8_lossy(path).into_owned();
                self.skipped.lock().unwrap().insert(path, why.to_string());
            }
            Event::Warning { text } => self.warnings.lock().unwrap().push(text.into()),
            _ => {}
        }
    }
}

impl Seen {
    fn skipped(&self) -> Vec<String> {
        self.skipped.lock().unwrap().keys().cloned().collect()
    }
}

fn run(repo: &Repository, s: &Snapshot, target: &Path, options: &Options) -> (Summary, Seen) {
    let seen = Seen::default();
    let summary = restore(repo, s, b"/", target, options, &seen).unwrap();
    assert_no_torso(target);
    (summary, seen)
}

fn plain(repo: &Repository, s: &Snapshot, target: &Path) -> (Summary, Seen) {
    run(repo, s, target, &Options::default())
}

fn assert_no_torso(target: &Path) {
    let mut open = vec![target.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            assert!(!name.as_bytes().starts_with(b".nfreezer-partial"), "left behind: {:?}", entry.path());
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn target() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    (folder, target)
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

// ---- everything comes back ----

#[test]
fn all_kinds_come_back() {
    let Repo { repo, .. } = repo();
    let hostile_name = b"\x1b[2J\nnot utf-8 \xff".as_slice();
    let long = [b'n'; 255];
    let big: Vec<Vec<u8>> = (0..6).map(|i| noise(1 << 20, i)).collect();
    let refs = chunks(&repo, ChunkKind::Data, &big.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let extents: Vec<_> = refs.iter().map(|r| Extent::Data(*r)).collect();
    let list = chunks(&repo, ChunkKind::List, &[&List::Leaf(extents).encode(&PackRef::SELF)])[0];
    let sparse = vec![Extent::Hole(1 << 30), Extent::Data(data(&repo, b"end"))];
    let mut xattrs = file(&repo, "xattrs", b"x");
    xattrs.xattrs = Xattrs::Inline(vec![(b"user.a".to_vec(), b"1\0\xff".to_vec())]);
    let mut old = file(&repo, "old", b"before 1970");
    old.mtime = (-1, 999_999_999);
    let mut late = file(&repo, "late", b"after 2038");
    late.mtime = (5_000_000_000, 1);
    let mut setuid = file(&repo, "setuid", b"s");
    Arc::make_mut(&mut setuid.attrs).mode = 0o4755;
    let locked = node("locked", 0o500, directory(&repo, vec![file(&repo, "inside", b"i")]));
    let nodes = vec![
        file(&repo, hostile_name, b"hostile"),
        file(&repo, long, b"long"),
        file(&repo, "empty", b""),
        node("big", 0o600, Content::Large { size: 6 << 20, list }),
        node("sparse", 0o640, Content::File(sparse)),
        node("hole only", 0o640, Content::File(vec![Extent::Hole(5 << 20)])),
        xattrs,
        old,
        late,
        setuid,
        locked,
        node("empty dir", 0o750, Content::Directory(None)),
        node("dangling", 0o777, Content::Symlink(b"/no/where\xff".to_vec())),
        node("fifo", 0o620, Content::Fifo),
        node("socket", 0o755, Content::Socket),
        node("null", 0o666, Content::Char(1, 3)),
        node("gone", 0o644, Content::Unreadable(13)),
    ];
    let s = snapshot(&repo, nodes);
    let (_keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!((seen.skipped(), summary.damaged, summary.failed), (vec![], 0, 0));
    assert_eq!((summary.files, summary.unreadable, summary.directories), (11, 1, 2));
    assert!(seen.warnings.lock().unwrap()[0].contains("/gone"));

    let at = |name: &[u8]| out.join(OsStr::from_bytes(name));
    assert_eq!(fs::read(at(hostile_name)).unwrap(), b"hostile");
    assert_eq!(fs::read(at(&long)).unwrap(), b"long");
    assert_eq!(fs::read(at(b"big")).unwrap(), big.concat());
    assert_eq!(fs::read(at(b"empty")).unwrap(), b"");
    let sparse = fs::metadata(at(b"sparse")).unwrap();
    assert_eq!(sparse.len(), (1 << 30) + 3);
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
    assert_eq!(fs::metadata(at(b"hole only")).unwrap().len(), 5 << 20);
    assert_eq!(
        (fs::metadata(at(b"old")).unwrap().mtime(), fs::metadata(at(b"old")).unwrap().mtime_nsec()),
        (-1, 999_999_999)
    );
    assert_eq!(fs::metadata(at(b"late")).unwrap().mtime(), 5_000_000_000);
    assert_eq!(fs::metadata(at(b"setuid")).unwrap().mode() & 0o7777, 0o4755);
    let locked = fs::metadata(at(b"locked")).unwrap();
    assert_eq!((locked.mode() & 0o7777, locked.mtime(), locked.mtime_nsec()), (0o500, 1_000_000_000, 123_456_789));
    assert_eq!(fs::read_link(at(b"dangling")).unwrap().as_os_str().as_bytes(), b"/no/where\xff");
    assert_eq!(fs::symlink_metadata(at(b"dangling")).unwrap().mtime(), 1_000_000_000);
    let fifo = fs::symlink_metadata(at(b"fifo")).unwrap();
    assert!(fifo.file_type().is_fifo() && fifo.mode() & 0o777 == 0o620 && fifo.mtime_nsec() == 123_456_789);
    assert!(fs::symlink_metadata(at(b"socket")).unwrap().file_type().is_socket());
    if is_root() {
        assert_eq!(fs::symlink_metadata(at(b"null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    } else {
        assert_eq!(summary.left_out, 1);
    }
    let mut value = [0u8; 16];
    match rustix::fs::getxattr(at(b"xattrs"), "user.a", &mut value[..]) {
        Ok(n) => assert_eq!(&value[..n], b"1\0\xff"),
        Err(_) => assert_eq!(summary.attributes, 1, "this file system knows no user attributes"),
    }
    assert!(!at(b"gone").exists());

    // Once more: all is there, nothing is written.
    let (again, _) = plain(&repo, &s, &out);
    assert_eq!((again.files, again.existing, again.failed), (0, 11 + summary.others, 0));
}

#[test]
fn hard_links_are_hard_links_again_whatever_the_order() {
    let Repo { repo, .. } = repo();
    let shared = file(&repo, "m", &noise(3 << 20, 7));
    let named = |name: &str, n: u32| Node { name: name.into(), ..link(shared.clone(), 42, n) };
    let many: Vec<_> = (0..300).map(|i| named(&format!("l{i:03}"), 304)).collect();
    let sub = node("sub", 0o500, directory(&repo, many));
    let slink = |name: &str| link(node(name, 0o777, Content::Symlink(b"t".to_vec())), 43, 2);
    let mut other = named("z other contents", 304);
    other.content = file(&repo, "", b"forged: same inode, other contents").content;
    let s = snapshot(&repo, vec![named("a", 304), sub, named("z", 304), slink("s1"), slink("s2"), other]);
    let (_keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), Vec::<String>::new());
    let inode = |name: &str| fs::symlink_metadata(out.join(name)).unwrap().ino();
    assert!((0..300).all(|i| inode(&format!("sub/l{i:03}")) == inode("a")) && inode("a") == inode("z"));
    assert_eq!(inode("s1"), inode("s2"));
    assert_ne!(inode("z other contents"), inode("a"));
    assert_eq!((summary.files, summary.links, summary.others), (2, 302, 1));
    assert_eq!(fs::metadata(out.join("sub")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn a_part_of_a_snapshot_lands_in_the_target_and_a_file_under_its_name() {
    let Repo { repo, .. } = repo();
    let inner = node("inner", 0o710, directory(&repo, vec![file(&repo, "f", b"f")]));
    let s = snapshot(&repo, vec![node("outer", 0o755, directory(&repo, vec![inner]))]);
    let (_keep, out) = target();
    restore(&repo, &s, b"/outer/inner/", &out, &Options::default(), &Seen::default()).unwrap();
    assert_eq!(fs::read(out.join("f")).unwrap(), b"f");
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o710, "the target was made, so it is that directory");
    let second = out.with_file_name("second");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("mine"), "").unwrap();
    let mode = fs::metadata(&second).unwrap().mode();
    restore(&repo, &s, b"outer/inner/f", &second, &Options::default(), &Seen::default()).unwrap();
    restore(&repo, &s, b"outer/inner", &second, &Options::default(), &Seen::default()).unwrap();
    assert_eq!(fs::read(second.join("f")).unwrap(), b"f");
    assert_eq!(fs::metadata(&second).unwrap().mode(), mode, "a folder with other things in it keeps its attributes");
    let missing = restore(&repo, &s, b"outer/nothing", &second, &Options::default(), &Seen::default());
    assert_eq!(missing.unwrap_err().kind(), Kind::Failed);
}

#[test]
fn a_deep_and_wide_tree_needs_no_more_descriptors_than_there_are() {
    let Repo { repo, .. } = repo();
    let mut inner = directory(&repo, vec![file(&repo, "bottom", b"bottom")]);
    for _ in 0..1500 {
        inner = directory(&repo, vec![node("d", 0o555, inner), file(&repo, "f", b"f")]);
    }
    let wide: Vec<_> =
        (0..3000).map(|i| node(format!("w{i}"), 0o755, directory(&repo, vec![file(&repo, "f", b"f")]))).collect();
    let s = snapshot(&repo, vec![node("deep", 0o755, inner), node("wide", 0o755, directory(&repo, wide))]);
    let (keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), Vec::<String>::new());
    assert_eq!((summary.files, summary.directories), (1500 + 1 + 3000, 1 + 1500 + 1 + 3000));
    let path = out.join("deep").join("d/".repeat(1500)).join("bottom");
    assert_eq!(fs::read(path).unwrap(), b"bottom");
    assert_eq!(fs::metadata(out.join("deep/d/d")).unwrap().mode() & 0o7777, 0o555);
    // Directories without write permission: help the cleaning up, where this is not root.
    assert!(Command::new("chmod").args(["-R", "u+w"]).arg(keep.path()).status().unwrap().success());
}

// ---- nothing leaves the target ----

#[test]
fn t66_a_symbolic_link_is_never_a_way_out() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    let victim = keep.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let to_victim = Content::Symlink(victim.as_os_str().as_bytes().to_vec());
    // The format refuses two entries of one name; so the link comes first, by another restore into the same target.
    let first = snapshot(&repo, vec![node("evil", 0o777, to_victim)]);
    plain(&repo, &first, &out);
    let evil = directory(&repo, vec![file(&repo, "passwd", b"evil")]);
    let second = snapshot(&repo, vec![node("evil", 0o755, evil), file(&repo, "good", b"good")]);
    let (summary, seen) = plain(&repo, &second, &out);
    assert_eq!((seen.skipped(), summary.failed), (vec!["/evil".to_string()], 1));
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "the victim is untouched");
    assert_eq!(fs::read(out.join("good")).unwrap(), b"good");
    // With permission to replace, the link itself is replaced.
    let options = Options { overwrite: Overwrite::Always, ..Options::default() };
    run(&repo, &second, &out, &options);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    assert!(fs::symlink_metadata(out.join("evil")).unwrap().is_dir());
    assert_eq!(fs::read(out.join("evil/passwd")).unwrap(), b"evil");
}

#[test]
fn t66_two_entries_of_one_name_and_names_that_climb_are_refused_by_the_format() {
    let Repo { repo, .. } = repo();
    for names in [["a", "a"], ["..", "x"], [".", "x"], ["a/b", "x"], ["", "x"], ["a\0", "x"], ["b", "a"]] {
        let nodes = names.map(|name| node(name, 0o777, Content::Symlink(b"/".to_vec()))).to_vec();
        let page = chunks(&repo, ChunkKind::Page, &[&Page::Leaf(nodes).encode(&PackRef::SELF)])[0];
        let bad = node("bad", 0o755, Content::Directory(Some(page)));
        let s = snapshot(&repo, vec![bad, file(&repo, "good", b"good")]);
        let (_keep, out) = target();
        let (summary, seen) = plain(&repo, &s, &out);
        assert_eq!((summary.damaged, summary.files, seen.skipped()), (1, 1, vec!["/bad".to_string()]), "{names:?}");
        assert_eq!(fs::read_dir(out.join("bad")).unwrap().count(), 0);
    }
}

#[test]
fn t67_no_hard_link_to_what_was_there_before() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    fs::create_dir(&out).unwrap();
    let outside = keep.path().join("outside");
    fs::write(&outside, "same").unwrap();
    // A name in the target that is somebody's file, with the very contents that are restored.
    fs::hard_link(&outside, out.join("a")).unwrap();
    symlink(&outside, out.join("c")).unwrap();
    let shared = file(&repo, "a", b"same");
    let b = Node { name: b"b".to_vec(), ..shared.clone() };
    let c = node("c", 0o777, Content::Symlink(outside.as_os_str().as_bytes().to_vec()));
    let d = Node { name: b"d".to_vec(), ..c.clone() };
    let s = snapshot(&repo, vec![link(shared, 1, 2), link(b, 1, 2), link(c, 2, 2), link(d, 2, 2)]);
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!((summary.existing, seen.skipped()), (2, vec![]));
    assert_eq!(fs::metadata(&outside).unwrap().nlink(), 2, "no further link to it");
    assert_eq!(fs::read(out.join("b")).unwrap(), b"same");
    assert_eq!(fs::read_link(out.join("d")).unwrap(), outside);
}

#[test]
fn t69_what_is_there_is_neither_followed_nor_opened_nor_clobbered() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    fs::create_dir(&out).unwrap();
    let victim = keep.path().join("victim");
    fs::write(&victim, "victim").unwrap();
    symlink(&victim, out.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, out.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    fs::write(out.join("longer"), "mine, and longer").unwrap();
    fs::write(out.join("other"), "mine").unwrap();
    fs::write(out.join("equal"), "new!").unwrap();
    fs::create_dir(out.join("folder")).unwrap();
    let names = ["link", "fifo", "longer", "other", "equal", "folder", "fresh"];
    let mut nodes: Vec<_> = names.iter().map(|name| file(&repo, name, b"new!")).collect();
    nodes.push(node("longer-dir", 0o755, Content::Directory(None)));
    let s = snapshot(&repo, nodes);
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), ["/fifo", "/folder", "/link", "/longer", "/other"]);
    assert_eq!((summary.existing, summary.files, summary.failed), (1, 1, 5));
    assert_eq!(fs::read(&victim).unwrap(), b"victim");
    assert_eq!(fs::read(out.join("other")).unwrap(), b"mine");
    assert_eq!(fs::read(out.join("fresh")).unwrap(), b"new!");
    assert_ne!(fs::metadata(out.join("equal")).unwrap().mtime(), 1_000_000_000, "not even its time is touched");

    let options = Options { overwrite: Overwrite::IfChanged, ..Options::default() };
    let (summary, seen) = run(&repo, &s, &out, &options);
    assert_eq!(seen.skipped(), ["/folder"], "a directory is never removed for a file");
    assert_eq!((summary.existing, summary.files), (2, 4));
    assert!(["link", "fifo", "longer", "other", "equal"].iter().all(|n| {
        let meta = fs::symlink_metadata(out.join(n)).unwrap();
        meta.is_file() && meta.mtime() == 1_000_000_000 && fs::read(out.join(n)).unwrap() == b"new!"
    }));
    assert_eq!(fs::read(&victim).unwrap(), b"victim");
}

#[test]
fn a_target_that_is_a_symbolic_link_is_refused() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    fs::create_dir(keep.path().join("real")).unwrap();
    symlink(keep.path().join("real"), &out).unwrap();
    let s = snapshot(&repo, vec![file(&repo, "f", b"f")]);
    for given in [out.clone(), out.join(""), out.join(".")] {
        let e = restore(&repo, &s, b"", &given, &Options::default(), &Seen::default()).unwrap_err();
        assert!(e.hint_text().is_some(), "{e}");
    }
    assert_eq!(fs::read_dir(keep.path().join("real")).unwrap().count(), 0);
}

#[test]
fn t68_a_directory_that_is_swapped_for_a_link_again_and_again_leads_nowhere() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    fs::create_dir(&out).unwrap();
    let victim = keep.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let inside: Vec<_> = (0..8).map(|i| file(&repo, format!("f{i}"), b"x")).collect();
    let sub = directory(&repo, inside);
    let s = snapshot(&repo, (0..40).map(|i| node(format!("d{i}"), 0o755, sub.clone())).collect());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let aside = keep.path().join("aside");
            let mut i = 0;
            while !stop.load(Ordering::Relaxed) {
                let dir = out.join(format!("d{}", i % 40));
                i += 1;
                if fs::rename(&dir, &aside).is_ok() {
                    let _ = symlink(&victim, &dir);
                    let _ = fs::remove_file(&dir);
                    let _ = fs::rename(&aside, &dir);
                    let _ = fs::remove_dir_all(&aside);
                }
            }
        });
        let options = Options { overwrite: Overwrite::Always, ..Options::default() };
        for _ in 0..30 {
            let _ = restore(&repo, &s, b"", &out, &options, &Seen::default());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "nothing outside the target");
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o755);
}

// ---- damage stays where it is ----

fn flip(memory: &Memory, r: &Ref) {
    let name = Name::Pack(r.pack.id);
    let mut bytes = memory.get(&name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.overwrite(&name, bytes);
}

#[test]
fn t19_damage_is_reported_and_all_else_is_restored() {
    let Repo { repo, memory } = repo();
    let [flipped, removed, meta] = [b"flipped", b"removed", b"met@adt"].map(|b| data(&repo, b));
    let long: Vec<Vec<u8>> = (0..3).map(|i| noise(2 << 20, 50 + i)).collect();
    let mut extents: Vec<_> = long.iter().map(|c| Extent::Data(data(&repo, c))).collect();
    let Extent::Data(middle) = extents[1] else { unreachable!() };
    extents.push(Extent::Hole(10));
    let lost = directory(&repo, vec![file(&repo, "x", b"x")]);
    let Content::Directory(Some(page)) = &lost else { unreachable!() };
    let page = *page;
    let one = |name: &str, r: Ref| node(name, 0o644, Content::File(vec![Extent::Data(r)]));
    let nodes = vec![
        one("flipped", flipped),
        link(one("link1", removed), 9, 2),
        link(one("link2", removed), 9, 2),
        one("whole", meta),
        node("long", 0o644, Content::File(extents)),
        node("lost", 0o755, lost),
        file(&repo, "good", b"good"),
    ];
    let s = snapshot(&repo, nodes);
    flip(&memory, &flipped);
    flip(&memory, &middle);
    flip(&memory, &page);
    memory.remove(&Name::Pack(removed.pack.id)).unwrap();
    let (_keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), ["/flipped", "/link1", "/link2", "/long", "/lost"]);
    assert_eq!((summary.damaged, summary.failed, summary.files), (5, 0, 2));
    let why = seen.skipped.lock().unwrap();
    assert!(why["/flipped"].contains(&flipped.pack.id.to_string()), "{}", why["/flipped"]);
    assert!(why["/link1"].contains(&removed.pack.id.to_string()), "{}", why["/link1"]);
    for absent in ["flipped", "link1", "link2", "long"] {
        assert!(!out.join(absent).exists(), "{absent}");
    }
    assert_eq!(fs::read(out.join("good")).unwrap(), b"good");
    assert_eq!(fs::read(out.join("whole")).unwrap(), b"met@adt");
}

#[test]
fn t16_a_chunk_that_is_not_what_its_id_says_is_never_written() {
    let Repo { repo, .. } = repo();
    let (mut wrong, other) = (data(&repo, b"what is there"), data(&repo, b"what is meant"));
    wrong.id = other.id;
    let s = snapshot(&repo, vec![node("f", 0o644, Content::File(vec![Extent::Data(wrong)]))]);
    let (_keep, out) = target();
    assert_eq!((plain(&repo, &s, &out).0.damaged, out.join("f").exists()), (1, false));
}

#[test]
fn t62_a_size_that_its_parts_do_not_have_is_damage() {
    let Repo { repo, .. } = repo();
    let list =
        chunks(&repo, ChunkKind::List, &[&List::Leaf(vec![Extent::Data(data(&repo, b"abc"))]).encode(&PackRef::SELF)]);
    for size in [1, 4, 1 << 62] {
        let s = snapshot(&repo, vec![node("f", 0o644, Content::Large { size, list: list[0] })]);
        let (_keep, out) = target();
        assert_eq!((plain(&repo, &s, &out).0.damaged, out.join("f").exists()), (1, false));
    }
}

#[test]
fn an_interrupted_restore_leaves_no_torso_and_the_next_one_completes() {
    struct StopAfter(Arc<AtomicI32>, AtomicI32);
    impl Progress for StopAfter {
        fn event(&self, event: Event<'_>) {
            if matches!(event, Event::Done { .. }) && self.1.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.0.store(15, Ordering::SeqCst);
            }
        }
    }
    let Repo { repo, .. } = repo();
    let contents: Vec<_> = (0..40).map(|i| noise(100_000, i)).collect();
    let refs = chunks(&repo, ChunkKind::Data, &contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let named = |i: usize| format!("f{i:02}");
    let nodes = (0..40)
        .map(|i| node(named(i), 0o644, Content::File(vec![Extent::Data(refs[i]), Extent::Data(refs[(i + 1) % 40])])));
    let s = snapshot(&repo, vec![node("d", 0o555, directory(&repo, nodes.collect()))]);
    let whole = |i: usize| [contents[i].as_slice(), &contents[(i + 1) % 40]].concat();
    for after in [1, 2, 17, 60] {
        let (keep, out) = target();
        let options = Options::default();
        let progress = StopAfter(Arc::clone(&options.stop), AtomicI32::new(after));
        let e = restore(&repo, &s, b"", &out, &options, &progress).unwrap_err();
        assert_eq!(e.kind(), Kind::Interrupted(15));
        assert_no_torso(&out);
        for i in 0..40 {
            if let Ok(there) = fs::read(out.join("d").join(named(i))) {
                assert!(there == whole(i), "a torso under its final name");
            }
        }
        let (summary, _) = plain(&repo, &s, &out);
        assert_eq!(summary.files + summary.existing, 40);
        assert!((0..40).all(|i| fs::read(out.join("d").join(named(i))).unwrap() == whole(i)));
        assert_eq!(fs::metadata(out.join("d")).unwrap().mode() & 0o777, 0o555);
        fs::set_permissions(out.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        drop(keep);
    }
}

// ---- as an ordinary user, through the binary ----

#[test]
fn an_ordinary_user_gets_everything_but_what_needs_root() {
    if !is_root() {
        return; // then every other test here has run as one
    }
    let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let place = folder.path().join("repo");
    let repo = Repository::init(Arc::new(Local::new(&place)), &pass(), KdfCost::DEFAULT, "test").unwrap();
    let mut roots = file(&repo, "of-root", b"root's");
    Arc::make_mut(&mut roots.attrs).mode = 0o4711;
    let mut read_only = file(&repo, "read-only", b"r");
    Arc::make_mut(&mut read_only.attrs).mode = 0o400;
    read_only.xattrs =
        Xattrs::Inline(vec![(b"trusted.t".to_vec(), b"1".to_vec()), (b"user.u".to_vec(), b"2".to_vec())]);
    let nodes = vec![
        roots,
        read_only,
        node("null", 0o666, Content::Char(1, 3)),
        node("fifo", 0o600, Content::Fifo),
        node("closed", 0o000, directory(&repo, vec![link(file(&repo, "l1", b"l"), 3, 2)])),
        link(file(&repo, "l2", b"l"), 3, 2),
        node("slink", 0o777, Content::Symlink(b"of-root".to_vec())),
    ];
    let head = Head { snapshots: vec![snapshot(&repo, nodes)], ..Head::default() };
    repo.commit(&mut repo.state().unwrap(), head, &[]).unwrap();
    let nobody = 65534;
    let own = |path: &Path| std::os::unix::fs::lchown(path, Some(nobody), Some(nobody)).unwrap();
    let mut open = vec![place.clone()];
    while let Some(path) = open.pop() {
        own(&path);
        open.extend(fs::read_dir(&path).into_iter().flatten().map(|e| e.unwrap().path()));
    }
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    own(&out);
    let binary = folder.path().join("nfreezer");
    fs::copy(env!("CARGO_BIN_EXE_nfreezer"), &binary).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&binary)
        .args(["restore", "latest", "--json", "--target"])
        .arg(&out)
        .arg("-r")
        .arg(&place)
        .env_clear()
        .env("NFREEZER_PASSWORD", "correct horse")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((summary["left_out"].as_u64(), summary["failed"].as_u64()), (Some(1), Some(0)));
    assert!(summary["attributes"].as_u64().unwrap() >= 7, "owners and trusted attributes are counted: {summary}");
    let meta = |name: &str| fs::symlink_metadata(out.join(name)).unwrap();
    assert_eq!((meta("of-root").mode() & 0o7777, meta("of-root").uid()), (0o4711, nobody));
    assert_eq!((meta("read-only").mode() & 0o7777, meta("closed").mode() & 0o7777), (0o400, 0));
    assert_eq!(fs::read(out.join("l2")).unwrap(), b"l");
    assert!(meta("fifo").file_type().is_fifo() && !out.join("null").exists());
    let mut value = [0u8; 8];
    let n = rustix::fs::getxattr(out.join("read-only"), "user.u", &mut value[..]).unwrap_or(0);
    assert!(n == 0 || &value[..n] == b"2");
}
