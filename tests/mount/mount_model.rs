//! Pushes several versions of random trees, mounts them, and compares every view with the pushed trees by random
//! operations. By hand: `NFREEZER_ROUNDS=50 NFREEZER_SEED=7 cargo test --test mount mount_model`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use crate::harness::Dice;
use crate::harness::mounted::Mounted;
use crate::harness::repository;
use crate::harness::root::needs_root;
use crate::harness::tree::{noise, set_xattr, settle};
use nfreezer::context::background;
use nfreezer::push::{self, push};
use nfreezer::storage::Memory;
use nfreezer::time::Time;

/// Names of entries, each with the extension of its versions. They are few, so that entries often change their kind.
const NAMES: [(&str, &str); 9] = [
    ("a", ""),
    ("b.txt", ".txt"),
    ("c.tar.gz", ".tar.gz"),
    ("d.d", ".d"),
    (".e", ""),
    ("f g", ""),
    ("\u{e9}.\u{e9}", ".\u{e9}"),
    ("h (file)", ""),
    ("2001-01-01", ""),
];
const SIZES: [usize; 8] = [0, 1, 100, 4096, 5000, 70_000, 300_000, 1_300_000];
const VERSIONS: i64 = 5;
const OPERATIONS: u64 = 500;

/// A node on the disk.
#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    /// Contents of a file, or target of a link.
    bytes: Arc<Vec<u8>>,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    nlink: u64,
    inode: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dir,
    File,
    Link,
    Fifo,
}

type Tree = BTreeMap<PathBuf, Node>;

struct Version {
    /// Name in `snapshots/`.
    name: String,
    id: String,
    tree: Tree,
}

fn kind(meta: &fs::Metadata) -> Kind {
    match meta.file_type() {
        t if t.is_dir() => Kind::Dir,
        t if t.is_symlink() => Kind::Link,
        t if t.is_fifo() => Kind::Fifo,
        _ => Kind::File,
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
        (name.to_vec(), value[..len].to_vec())
    };
    names[..len].split(|b| *b == 0).filter(|name| !name.is_empty()).map(value).collect()
}

/// Reads the tree at and below `path` from the disk.
fn scan(path: &Path, below: &Path, tree: &mut Tree) {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = kind(&meta);
    let bytes = match kind {
        Kind::File => fs::read(path).unwrap(),
        Kind::Link => fs::read_link(path).unwrap().into_os_string().into_vec(),
        _ => Vec::new(),
    };
    let node = Node {
        kind,
        bytes: Arc::new(bytes),
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        nlink: meta.nlink(),
        inode: meta.ino(),
        xattrs: xattrs(path),
    };
    tree.insert(below.into(), node);
    if kind == Kind::Dir {
        for entry in fs::read_dir(path).unwrap() {
            let name = entry.unwrap().file_name();
            scan(&path.join(&name), &below.join(&name), tree);
        }
    }
}

fn contents(dice: &mut Dice) -> Vec<u8> {
    let size = SIZES[dice.roll(SIZES.len() as u64) as usize];
    match dice.roll(3) {
        0 => b"all work and no play ".repeat(size / 21 + 1)[..size].to_vec(),
        _ => noise(dice.roll(20), size),
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Makes one random change below `top`.
fn change(dice: &mut Dice, top: &Path) {
    let mut tree = Tree::new();
    scan(top, Path::new(""), &mut tree);
    let pick = |dice: &mut Dice, wanted: fn(&Node) -> bool| {
        let all: Vec<&PathBuf> = tree.iter().filter(|(_, node)| wanted(node)).map(|(path, _)| path).collect();
        (!all.is_empty()).then(|| top.join(all[dice.roll(all.len() as u64) as usize]))
    };
    let is_file: fn(&Node) -> bool = |node| node.kind == Kind::File;
    let dir = pick(dice, |node| node.kind == Kind::Dir).unwrap();
    let path = dir.join(NAMES[dice.roll(NAMES.len() as u64) as usize].0);
    let (any, file) = (pick(dice, |_| true).unwrap(), pick(dice, is_file));
    match dice.roll(14) {
        0..=3 => {
            remove(&path);
            fs::write(&path, contents(dice)).unwrap();
        }
        4 | 5 if tree.len() < 60 => {
            remove(&path);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("inside.txt"), contents(dice)).unwrap();
        }
        6 => {
            remove(&path);
            symlink(format!("to/{}", dice.roll(5)), &path).unwrap();
        }
        7 => {
            remove(&path);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
        }
        8 => file.into_iter().for_each(|file| {
            if !path.starts_with(&file) && file != path {
                remove(&path);
                fs::hard_link(&file, &path).unwrap_or(());
            }
        }),
        9 => file.into_iter().for_each(|file| {
            let file = fs::File::options().write(true).open(file).unwrap();
            file.set_len(300_000 + dice.roll(9) * 4096).unwrap();
            file.write_all_at(&noise(dice.roll(99), 5000), 200_000 + dice.roll(9) * 8192).unwrap();
        }),
        10 if any != top => remove(&any),
        11 => drop(set_xattr(&any, "user.test", &noise(dice.roll(9), dice.roll(3000) as usize))),
        12 if !any.is_symlink() => {
            fs::set_permissions(&any, fs::Permissions::from_mode(dice.roll(0o10000) as u32)).unwrap();
        }
        _ if !path.starts_with(&any) && !any.starts_with(&path) => {
            remove(&path);
            fs::rename(&any, &path).unwrap();
        }
        _ => {}
    }
}

/// A separate process that maps files into memory. The test process must not crash and has no unsafe code.
struct Mapper {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Mapper {
    fn new() -> Self {
        let script = "import mmap,os,sys\n\
            for line in sys.stdin:\n\
            \x20path,at,size=line.split()\n\
            \x20fd=os.open(bytes.fromhex(path),os.O_RDONLY)\n\
            \x20at,size=int(at),int(size)\n\
            \x20m=mmap.mmap(fd,0,prot=mmap.PROT_READ) if os.fstat(fd).st_size else b''\n\
            \x20print(m[at:at+size].hex(),flush=True)\n\
            \x20m and m.close()\n\
            \x20os.close(fd)\n";
        let mut command = Command::new("python3");
        let mut child =
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Mapper { child, to, from }
    }

    fn map(&mut self, path: &Path, at: u64, size: u64) -> Vec<u8> {
        writeln!(self.to, "{} {at} {size}", nfreezer::name::hex(path.as_os_str().as_bytes())).unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let digits = line.trim_end().as_bytes();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Case {
    versions: Vec<Version>,
    mount: Mounted,
    /// Path of the source in a snapshot.
    top: PathBuf,
    mapper: Mapper,
    /// Every path that ever existed, with the names in it.
    ever: BTreeMap<PathBuf, BTreeSet<Vec<u8>>>,
}

impl Case {
    fn new(dice: &mut Dice) -> Self {
        let memory = Arc::<Memory>::default();
        let repo = repository::init(memory.clone());
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::write(top.join("long"), noise(dice.roll(99), 9 << 20)).unwrap();
        let versions: Vec<Version> = (0..VERSIONS)
            .map(|n| {
                (0..4 + dice.roll(12)).for_each(|_| change(dice, &top));
                settle();
                let time = jiff::Timestamp::from_second(1_600_000_000 + n * 5000).unwrap();
                let options = push::Options {
                    sources: vec![top.clone()],
                    host: "host".into(),
                    time: Some(Time::new(time.as_second(), 5)),
                    ..Default::default()
                };
                let snapshot = push(background(), &repo, &options).unwrap().snapshot;
                let mut tree = Tree::new();
                scan(&top, Path::new(""), &mut tree);
                let name = time.strftime("%Y-%m-%d_%H-%M-%S").to_string();
                Version { name, id: nfreezer::name::hex(&snapshot.id.0[..4]), tree }
            })
            .collect();
        let mut ever = BTreeMap::<PathBuf, BTreeSet<Vec<u8>>>::new();
        for path in versions.iter().flat_map(|v| v.tree.keys()) {
            ever.entry(path.clone()).or_default();
            if let (Some(above), Some(name)) = (path.parent(), path.file_name()) {
                ever.get_mut(above).unwrap().insert(name.as_bytes().to_vec());
            }
        }
        let repo = Arc::new(repository::open(memory));
        let state = repo.state(background()).unwrap();
        let mount = Mounted::new(repo, state);
        let top = top.strip_prefix("/").unwrap().to_path_buf();
        Case { versions, mount, top, mapper: Mapper::new(), ever }
    }

    fn operation(&mut self, dice: &mut Dice) {
        let at = dice.roll(self.versions.len() as u64) as usize;
        let version = &self.versions[at];
        let (view, at) = match dice.roll(7) {
            0 => ("latest".to_owned(), self.versions.len() - 1),
            1 => (format!("snapshots/{}", version.name), at),
            2 => (format!("ids/{}", version.id), at),
            3 => (format!("at/{}", version.name), at),
            4 => (format!("hosts/host/{}", version.name), at),
            5 => return self.versions_of(dice),
            _ => return self.deleted_of(dice),
        };
        let top = self.mount.path(&view).join(&self.top);
        if dice.roll(8) == 0 {
            let path = self.any_path(dice);
            let (there, known) = (fs::symlink_metadata(top.join(&path)).is_ok(), self.versions[at].tree.get(&path));
            // A symbolic link in the path may lead to an existing file.
            let through =
                path.ancestors().skip(1).any(|p| self.versions[at].tree.get(p).is_some_and(|n| n.kind == Kind::Link));
            return assert!(through || there == known.is_some(), "{view} {path:?}");
        }
        let tree = &self.versions[at].tree;
        let (path, node) = tree.iter().nth(dice.roll(tree.len() as u64) as usize).unwrap();
        let shown = top.join(path);
        same_attributes(&shown, node, tree, path, true);
        match node.kind {
            Kind::Dir => {
                let names: BTreeSet<Vec<u8>> = children(tree, path).map(|(p, _)| name(p)).collect();
                assert_eq!(listed(&shown), names, "{shown:?}");
            }
            _ => read(&mut self.mapper, dice, &shown, node),
        }
    }

    fn any_path(&self, dice: &mut Dice) -> PathBuf {
        self.ever.keys().nth(dice.roll(self.ever.len() as u64) as usize).unwrap().clone()
    }

    /// Returns the states of a path while it was not a folder. Each state is its first and its last version.
    fn states(&self, path: &Path) -> Vec<(usize, usize)> {
        let (mut states, mut now): (Vec<(usize, usize)>, Option<&Node>) = (Vec::new(), None);
        for (i, node) in self.versions.iter().enumerate().filter_map(|(i, v)| Some((i, v.tree.get(path)?))) {
            if now.is_some_and(|now| now.kind == node.kind && now.bytes == node.bytes) {
                states.iter_mut().next_back().filter(|_| node.kind != Kind::Dir).into_iter().for_each(|s| s.1 = i);
            } else if node.kind != Kind::Dir {
                states.push((i, i));
            }
            now = Some(node);
        }
        states
    }

    fn versions_of(&mut self, dice: &mut Dice) {
        let path = self.any_path(dice);
        let shown = self.mount.path("versions").join(&self.top).join(&path);
        let states = self.states(&path);
        let file = path.file_name().map_or("", |name| name.to_str().unwrap());
        let ending = NAMES
            .iter()
            .find(|(name, _)| *name == file)
            .map_or(if file == "inside.txt" { ".txt" } else { "" }, |n| n.1);
        let of = |first: usize| format!("{}{ending}", self.versions[first].name);
        let mut names = self.ever[&path].clone();
        names.extend(states.iter().map(|s| of(s.0).into_bytes()));
        assert_eq!(listed(&shown), names, "{shown:?}");
        for (first, last) in states {
            let tree = &self.versions[last].tree;
            same_attributes(&shown.join(of(first)), &tree[&path], tree, &path, false);
            read(&mut self.mapper, dice, &shown.join(of(first)), &tree[&path]);
        }
        assert!(fs::symlink_metadata(shown.join("nothing")).is_err());
    }

    fn now(&self, path: &Path) -> Option<Kind> {
        self.versions.last()?.tree.get(path).map(|node| node.kind)
    }

    /// Returns the newest version with a non-folder at the path, if there is none now. Also returns whether the path
    /// was a folder and is none now.
    fn gone(&self, path: &Path) -> (Option<usize>, bool) {
        let had = |f: &dyn Fn(Kind) -> bool| {
            self.versions.iter().rposition(|v| v.tree.get(path).is_some_and(|node| f(node.kind)))
        };
        let now_folder = self.now(path) == Some(Kind::Dir);
        let file = had(&|kind| kind != Kind::Dir).filter(|_| self.now(path).is_none_or(|kind| kind == Kind::Dir));
        (file, !now_folder && had(&|kind| kind == Kind::Dir).is_some())
    }

    fn deleted_of(&mut self, dice: &mut Dice) {
        let path = self.any_path(dice);
        let shown = self.mount.path("deleted").join(&self.top).join(&path);
        let is_gone = |path: &Path| matches!(self.gone(path), (Some(_), _) | (_, true));
        let below = |path: &Path| self.ever.keys().any(|p| p != path && p.starts_with(path) && is_gone(p));
        match fs::symlink_metadata(&shown) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return assert!(self.gone(&path).0.is_some(), "{shown:?}"),
            Err(_) => return assert!(!below(&path), "{shown:?}"),
        }
        let mut left = listed(&shown);
        let mut reads = Vec::new();
        for name in &self.ever[&path] {
            let child = path.join(OsStr::from_bytes(name));
            let (file, folder) = self.gone(&child);
            let is_dir = fs::symlink_metadata(shown.join(OsStr::from_bytes(name))).is_ok_and(|meta| meta.is_dir());
            assert!(is_dir || !(folder || below(&child)), "{shown:?} {child:?}");
            if is_dir {
                left.remove(name);
            }
            if let Some(last) = file {
                let name = if is_dir { [name, b" (file)".as_slice()].concat() } else { name.clone() };
                assert!(left.remove(&name), "{shown:?} {child:?}");
                reads.push((shown.join(OsStr::from_bytes(&name)), last, child));
            }
        }
        assert!(left.is_empty(), "{shown:?} {left:?}");
        for (shown, last, path) in reads {
            let tree = &self.versions[last].tree;
            same_attributes(&shown, &tree[&path], tree, &path, false);
            read(&mut self.mapper, dice, &shown, &tree[&path]);
        }
    }
}

fn name(path: &Path) -> Vec<u8> {
    path.file_name().unwrap().as_bytes().to_vec()
}

fn children<'t>(tree: &'t Tree, path: &'t Path) -> impl Iterator<Item = (&'t PathBuf, &'t Node)> {
    tree.iter().filter(move |(p, _)| p.parent() == Some(path))
}

fn listed(path: &Path) -> BTreeSet<Vec<u8>> {
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_vec()).collect();
    let set: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(names.len(), set.len(), "no name comes twice in {path:?}");
    set
}

fn same_attributes(shown: &Path, node: &Node, tree: &Tree, path: &Path, links: bool) {
    let meta = fs::symlink_metadata(shown).unwrap_or_else(|e| panic!("{shown:?}: {e}"));
    let (len, nlink) = match node.kind {
        Kind::Dir => (0, 2 + children(tree, path).filter(|(_, n)| n.kind == Kind::Dir).count() as u64),
        _ => (node.bytes.len() as u64, node.nlink),
    };
    let found = (kind(&meta), meta.len(), meta.mode() & 0o7777, (meta.uid(), meta.gid()), meta.nlink());
    assert_eq!(found, (node.kind, len, node.mode, node.owner, nlink), "{shown:?}");
    assert_eq!((meta.mtime(), meta.mtime_nsec()), node.mtime, "{shown:?}");
    assert_eq!(xattrs(shown), node.xattrs, "{shown:?}");
    // Hard links of a file share an inode number. Other files share one only if all their properties are equal.
    let view = shown.ancestors().nth(path.components().count()).unwrap();
    if links && node.nlink > 1 && node.kind != Kind::Dir {
        for (other, _) in tree.iter().filter(|(_, n)| n.inode == node.inode) {
            assert_eq!(view.join(other).symlink_metadata().unwrap().ino(), meta.ino(), "{shown:?} {other:?}");
        }
    }
}

fn read(mapper: &mut Mapper, dice: &mut Dice, shown: &Path, node: &Node) {
    match node.kind {
        Kind::Link => return assert_eq!(fs::read_link(shown).unwrap().as_os_str().as_bytes(), node.bytes.as_slice()),
        Kind::File => {}
        Kind::Dir | Kind::Fifo => return,
    }
    let len = node.bytes.len() as u64;
    let edges = [0, 1, 511, 4096, 65536, 262_144, len.saturating_sub(1), len, len + 1, dice.roll(len + 5000)];
    let at = edges[dice.roll(10) as usize];
    let size = [0, 1, 7, 4096, 65537, len, dice.roll(len + 5000)][dice.roll(7) as usize].min(4 << 20);
    let from = (at as usize).min(node.bytes.len());
    let wanted = &node.bytes[from..node.bytes.len().min(from + size as usize)];
    if dice.roll(4) == 0 {
        assert!(mapper.map(shown, at, size) == wanted, "mapped: {shown:?} {at} {size}");
    }
    let file = fs::File::open(shown).unwrap();
    let mut bytes = vec![0; size as usize];
    let mut done = 0;
    while let n @ 1.. = file.read_at(&mut bytes[done..], at + done as u64).unwrap() {
        done += n;
    }
    assert!(&bytes[..done] == wanted, "{shown:?} {at} {size}");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

#[test]
fn everything_that_is_shown_is_what_was_on_the_disk() {
    if !needs_root("files of every mode and owner") {
        return;
    }
    let seed = number("NFREEZER_SEED", 1);
    for round in 0..number("NFREEZER_ROUNDS", 3) {
        eprintln!("NFREEZER_SEED={} NFREEZER_ROUNDS=1", seed + round);
        let mut dice = Dice((seed + round) << 20);
        let mut case = Case::new(&mut dice);
        (0..OPERATIONS).for_each(|_| case.operation(&mut dice));
    }
}
