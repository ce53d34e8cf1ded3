//! Trees for tests. Reads a folder on the disk or in a snapshot into the same model, and compares models.

mod make;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nfreezer::context::background;
use nfreezer::format::node::{Content, Node, PARTIAL};
use nfreezer::format::record::Snapshot;
use nfreezer::format::reference::Extent;
use nfreezer::repo::{Repository, Span};
use nfreezer::time::Time;
use nfreezer::trees::Trees;
use sha2::{Digest, Sha256};

pub use make::{nasty, noise, set_mtime, set_xattr, settle, some_acl, write};

/// A tree by path below its top, which is the empty path.
pub type Model = BTreeMap<Vec<u8>, Seen>;

/// All properties of an entry that a restore must reproduce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub what: What,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: Time,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For files, the first path in order with the same inode. For directories, 2 + the number of subdirectories.
    pub link: Result<Vec<u8>, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Directory,
    /// Size, and the hash of each 64 KiB block that is not all zeros.
    File(u64, BTreeMap<u64, [u8; 32]>),
    Symlink(Vec<u8>),
    Block(u32, u32),
    Char(u32, u32),
    Fifo,
    Socket,
    Unreadable(u32),
}

const BLOCK: u64 = 64 << 10;

impl What {
    /// Returns a file with these contents.
    pub fn of(bytes: &[u8]) -> What {
        let mut hashes = BTreeMap::new();
        bytes.chunks(BLOCK as usize).enumerate().for_each(|(i, part)| add_block(&mut hashes, i as u64 * BLOCK, part));
        What::File(bytes.len() as u64, hashes)
    }
}

// ---------------------------------------------------------------------------------------------------- from the disk

/// Returns every file below a folder, in the order of their paths.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Reads the tree at and below `top` from the disk.
pub fn on_disk(top: &Path) -> Model {
    let (mut model, mut links) = (Model::new(), HashMap::new());
    walk_disk(top, Vec::new(), &mut model, &mut links);
    model
}

fn walk_disk(path: &Path, name: Vec<u8>, model: &mut Model, links: &mut HashMap<(u64, u64), Vec<u8>>) {
    let stat = fs::symlink_metadata(path).unwrap();
    let kind = stat.file_type();
    let device = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    let what = match () {
        () if kind.is_dir() => What::Directory,
        () if kind.is_file() => file_on_disk(path, stat.len()),
        () if kind.is_symlink() => What::Symlink(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
        () if kind.is_block_device() => What::Block(device.0, device.1),
        () if kind.is_char_device() => What::Char(device.0, device.1),
        () if kind.is_fifo() => What::Fifo,
        () => What::Socket,
    };
    let mut below: Vec<PathBuf> = match kind.is_dir() {
        true => fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect(),
        false => Vec::new(),
    };
    below.sort_by(|a, b| a.file_name().unwrap().as_bytes().cmp(b.file_name().unwrap().as_bytes()));
    let directories = below.iter().filter(|p| fs::symlink_metadata(p).unwrap().is_dir()).count();
    let link = match kind.is_dir() {
        true => Err(2 + directories as u32),
        false => Ok(links.entry((stat.dev(), stat.ino())).or_insert_with(|| name.clone()).clone()),
    };
    let mtime = Time::new(stat.mtime(), stat.mtime_nsec() as u32);
    let owner = (stat.uid(), stat.gid());
    let seen = Seen { what, mode: stat.mode() & 0o7777, owner, mtime, xattrs: xattrs_on_disk(path), link };
    model.insert(name.clone(), seen);
    for path in below {
        walk_disk(&path, join(&name, path.file_name().unwrap().as_bytes()), model, links);
    }
}

fn file_on_disk(path: &Path, size: u64) -> What {
    let Ok(mut file) = File::open(path) else { return What::Unreadable(0) };
    let (mut hashes, mut at) = (BTreeMap::new(), 0);
    while at < size {
        let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) else { break };
        at = data / BLOCK * BLOCK;
        file.seek(SeekFrom::Start(at)).unwrap();
        let mut block = Vec::new();
        (&file).take(BLOCK).read_to_end(&mut block).unwrap();
        add_block(&mut hashes, at, &block);
        at += BLOCK;
    }
    What::File(size, hashes)
}

fn add_block(hashes: &mut BTreeMap<u64, [u8; 32]>, at: u64, block: &[u8]) {
    if block.iter().any(|b| *b != 0) {
        hashes.insert(at, Sha256::digest(block).into());
    }
}

/// Returns the extended attributes of a node without those that nfreezer adds.
fn xattrs_in_snapshot(repo: &Repository, node: &Node) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Trees::new(repo).xattrs(background(), node).unwrap();
    pairs.retain(|(name, _)| !nfreezer::format::own::is_own(name));
    pairs
}

fn xattrs_on_disk(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut all = Vec::new();
    for name in names[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice()).unwrap();
        all.push((name.to_vec(), value[..len].to_vec()));
    }
    all.sort();
    all
}

// ------------------------------------------------------------------------------------------------ from a snapshot

/// Reads the tree at and below the absolute path `top` from a snapshot. Panics at the first failure.
pub fn in_snapshot(repo: &Repository, snapshot: &Snapshot, top: &Path) -> Model {
    let node = Trees::new(repo).at(background(), snapshot, top.as_os_str().as_bytes()).unwrap();
    let (mut model, mut links) = (Model::new(), HashMap::new());
    walk_snapshot(repo, node, Vec::new(), &mut model, &mut links);
    model
}

type Links = HashMap<(u32, u64, i64), Vec<u8>>;

fn walk_snapshot(repo: &Repository, node: Node, name: Vec<u8>, model: &mut Model, links: &mut Links) {
    let what = match &node.content {
        Content::Directory(_) => What::Directory,
        Content::File(_) | Content::Large { .. } => file_in_snapshot(repo, &node.content),
        Content::Symlink(target) => What::Symlink(target.clone()),
        Content::Block(major, minor) => What::Block(*major, *minor),
        Content::Char(major, minor) => What::Char(*major, *minor),
        Content::Fifo => What::Fifo,
        Content::Socket => What::Socket,
        Content::Unreadable(errno) => What::Unreadable(*errno),
    };
    let link = match what {
        What::Directory => Err(node.nlink),
        _ => Ok(links.entry((node.attrs.fs, node.inode, node.ctime)).or_insert_with(|| name.clone()).clone()),
    };
    let seen = Seen {
        what,
        mode: node.attrs.mode.into(),
        owner: (node.attrs.uid, node.attrs.gid),
        mtime: node.mtime,
        xattrs: xattrs_in_snapshot(repo, &node),
        link,
    };
    model.insert(name.clone(), seen);
    if let Content::Directory(page) = &node.content {
        for node in Trees::new(repo).entries(background(), page.as_ref()) {
            let node = node.unwrap();
            let name = join(&name, &node.name);
            walk_snapshot(repo, node, name, model, links);
        }
    }
}

fn file_in_snapshot(repo: &Repository, content: &Content) -> What {
    let (mut hashes, mut block, mut at) = (BTreeMap::new(), Vec::new(), 0);
    let trees = Trees::new(repo);
    for extent in trees.extents(background(), content) {
        let bytes = match extent.unwrap() {
            Extent::Data(r) => trees.chunk(background(), &r, Span::Exact).unwrap(),
            Extent::Hole(len) => {
                // Fills the open block with zeros, skips whole zero blocks, and begins a block with the rest.
                let fill = (BLOCK - block.len() as u64).min(len);
                block.resize(block.len() + fill as usize, 0);
                if block.len() as u64 == BLOCK {
                    add_block(&mut hashes, at, &std::mem::take(&mut block));
                    at += BLOCK + (len - fill) / BLOCK * BLOCK;
                    block.resize(((len - fill) % BLOCK) as usize, 0);
                }
                continue;
            }
        };
        for byte_run in bytes.chunks(4096) {
            let mut run = byte_run;
            while !run.is_empty() {
                let n = run.len().min(BLOCK as usize - block.len());
                block.extend_from_slice(&run[..n]);
                run = &run[n..];
                if block.len() as u64 == BLOCK {
                    add_block(&mut hashes, at, &std::mem::take(&mut block));
                    at += BLOCK;
                }
            }
        }
    }
    add_block(&mut hashes, at, &block);
    let size = at + block.len() as u64;
    assert_eq!(size, content.size());
    What::File(size, hashes)
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// Returns the absolute path and the flags of every node below the root that has a flag.
pub fn flagged(repo: &Repository, snapshot: &Snapshot) -> BTreeMap<Vec<u8>, u8> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(Vec::new(), snapshot.root)];
    while let Some((path, page)) = folders.pop() {
        for node in Trees::new(repo).entries(background(), page.as_ref()) {
            let node = node.unwrap();
            let path = [&path, b"/".as_slice(), &node.name].concat();
            if node.flags != 0 {
                found.insert(path.clone(), node.flags);
            }
            if let Content::Directory(page) = node.content {
                folders.push((path, page));
            }
        }
    }
    found
}

/// Reads the tree at and below `top` from a partial snapshot. Returns an empty tree if `top` is not in it.
pub fn in_partial(repo: &Repository, snapshot: &Snapshot, top: &Path) -> Model {
    match Trees::new(repo).at(background(), snapshot, top.as_os_str().as_bytes()) {
        Ok(_) => in_snapshot(repo, snapshot, top),
        Err(_) => Model::new(),
    }
}

/// Checks a partial snapshot of `top` against the disk: complete files must be equal, and partial files must be
/// prefixes. Returns the number of bytes in the snapshot.
pub fn check_partial(repo: &Repository, snapshot: &Snapshot, top: &Path, disk: &Model) -> u64 {
    let (saved, flags) = (in_partial(repo, snapshot, top), flagged(repo, snapshot));
    let mut bytes = 0;
    for (path, seen) in &saved {
        let there = disk.get(path).expect("nothing is made up");
        match (&seen.what, &there.what) {
            (What::File(size, hashes), What::File(whole, all)) => {
                bytes += size;
                let absolute = [top.as_os_str().as_bytes(), b"/", path].concat();
                if flags.get(&absolute).is_some_and(|flags| flags & PARTIAL != 0) {
                    assert!(size <= whole && *size > 0);
                    let full = |at: &u64| at + BLOCK <= *size;
                    assert!(hashes.iter().filter(|(at, _)| full(at)).all(|(at, hash)| all.get(at) == Some(hash)));
                } else {
                    assert_eq!((size, hashes), (whole, all), "at {:?}", String::from_utf8_lossy(path));
                }
            }
            (What::Directory, What::Directory) => {}
            (a, b) => assert_eq!(a, b),
        }
    }
    bytes
}

/// Checks that two models are equal. Reports only the first differing path, since a model is long.
pub fn assert_same(left: &Model, right: &Model) {
    let paths: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for path in paths {
        let (a, b) = (left.get(path), right.get(path));
        assert_eq!(a, b, "at {:?}", String::from_utf8_lossy(path));
    }
}
