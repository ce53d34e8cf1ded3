//! Trees for tests: nasty ones are made on disk; the disk and a snapshot are read into the same model and compared.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nfreezer::context::background;
use nfreezer::crypto::keys::ChunkKind;
use nfreezer::format::node::{Content, Node, PARTIAL};
use nfreezer::format::record::Snapshot;
use nfreezer::format::reference::Extent;
use nfreezer::repo::{Repository, Span};
use nfreezer::time::Time;
use nfreezer::trees::Trees;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use sha2::{Digest, Sha256};

/// A tree by path below its top, which is the empty path.
pub type Model = BTreeMap<Vec<u8>, Seen>;

/// All that must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub what: What,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: Time,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first path in order that is the same file; of directories, 2 + their subdirectories.
    pub link: Result<Vec<u8>, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Directory,
    /// Size, and the hash of each 64 KiB that are not all zeros.
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
    /// A file with these contents.
    pub fn of(bytes: &[u8]) -> What {
        let mut hashes = BTreeMap::new();
        bytes.chunks(BLOCK as usize).enumerate().for_each(|(i, part)| add_block(&mut hashes, i as u64 * BLOCK, part));
        What::File(bytes.len() as u64, hashes)
    }
}

// ---------------------------------------------------------------------------------------------------- from the disk

/// What is on the disk at and below `top`.
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

/// What a snapshot holds at and below the absolute path `top`. Reads everything and panics at the first failure.
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
        xattrs: Trees::new(repo).xattrs(background(), &node).unwrap(),
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
    for extent in Trees::new(repo).extents(background(), content) {
        let bytes = match extent.unwrap() {
            Extent::Data(r) => repo.chunk(background(), ChunkKind::Data, &r, Span::Exact).unwrap(),
            Extent::Hole(len) => {
                // Zeros up to the end of the block, whole blocks by arithmetic, and the rest again as zeros.
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

/// The nodes below the root that bear a flag: absolute path and flags.
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

/// What a partial snapshot holds at and below `top`; empty where it did not get that far.
pub fn in_partial(repo: &Repository, snapshot: &Snapshot, top: &Path) -> Model {
    match Trees::new(repo).at(background(), snapshot, top.as_os_str().as_bytes()) {
        Ok(_) => in_snapshot(repo, snapshot, top),
        Err(_) => Model::new(),
    }
}

/// What a partial snapshot of `top` claims is so on the disk: whole files are equal, a beginning is one. Gives the bytes
/// in it.
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

/// Fails with the differing paths only: a model is long.
pub fn assert_same(left: &Model, right: &Model) {
    let paths: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for path in paths {
        let (a, b) = (left.get(path), right.get(path));
        assert_eq!(a, b, "at {:?}", String::from_utf8_lossy(path));
    }
}

// ------------------------------------------------------------------------------------------------------ makers

/// Returns bytes that no compressor shortens, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes a file and the folders above it.
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: u32) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).is_ok()
}

/// `user::rw-,user:65534:r--,group::r--,mask::r--,other::---` as the kernel stores it.
pub fn some_acl() -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in [(1u8, 6u8, u32::MAX), (2, 4, 65534), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend_from_slice(&[tag, 0, perm, 0]);
        acl.extend(id.to_be_bytes().iter().rev());
    }
    acl
}

/// Every kind of file that this user may make, with every sort of name, time, attribute and content.
pub fn nasty(top: &Path) {
    fs::create_dir_all(top).unwrap();
    names(&top.join("names"));
    contents(&top.join("contents"));
    kinds(&top.join("kinds"));
    attributes(&top.join("attributes"));
}

fn names(top: &Path) {
    let long = [b'n'; 255];
    let odd: [&[u8]; 9] =
        [b"\xff\xfe\x80", b"a\nb", b"\x1b[31mred", b" ", b"-rf", b".hidden", &long, "é\u{202e}txt".as_bytes(), b"\\"];
    for name in odd {
        write(top.join(OsStr::from_bytes(name)), name);
        write(top.join("below").join(OsStr::from_bytes(name)).join("x"), name);
    }
    fs::create_dir_all(top.join("empty/empty/empty")).unwrap();
    write(top.join("deep").join("d/".repeat(300)).join("x"), b"deep");
    (0..300).for_each(|i| write(top.join("deep").join("d/".repeat(i)).join("z"), b"after the folder"));
}

fn contents(top: &Path) {
    for len in [0, 1, 4095, 65536, (512 << 10) - 1, 512 << 10, (512 << 10) + 1, 4 << 20, (4 << 20) + 1] {
        write(top.join(format!("noise-{len}")), noise(len as u64, len));
    }
    write(top.join("zeros"), vec![0; 9 << 20]);
    write(top.join("text"), "all work and no play\n".repeat(100_000));
    write(top.join("large"), noise(7, 11 << 20));
    let sparse = |name: &str, size: u64, data: &[u64]| {
        let file = File::create(top.join(name)).unwrap();
        file.set_len(size).unwrap();
        data.iter().for_each(|at| file.write_all_at(&noise(*at, 4096), *at).unwrap());
    };
    sparse("hole-data", 1 << 30, &[(1 << 30) - 4096]);
    sparse("data-hole", 300 << 20, &[0]);
    sparse("only-hole", 5 << 30, &[]);
    sparse("odd-hole", (200 << 20) + 17, &[1 << 20, 7 << 20, 100 << 20]);
    sparse("many-holes", 20 << 20, &[1 << 20, 2 << 20, 3 << 20, 4 << 20, 5 << 20, 6 << 20]);
    sparse("small-holes", 1 << 20, &[0, 8192, 20480]);
}

fn kinds(top: &Path) {
    fs::create_dir_all(top.join("d")).unwrap();
    symlink("nowhere/at all", top.join("dangling")).unwrap();
    symlink("d", top.join("to-directory")).unwrap();
    symlink(OsStr::from_bytes(&[b't'; 4000]), top.join("long")).unwrap();
    write(top.join("first"), b"linked");
    fs::hard_link(top.join("first"), top.join("d/second")).unwrap();
    fs::hard_link(top.join("first"), top.join("third")).unwrap();
    rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, Mode::from(0o640), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
    if rustix::process::getuid().is_root() {
        let device = |name: &str, kind, major, minor| {
            let dev = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(CWD, top.join(name), kind, Mode::from(0o600), dev).unwrap();
        };
        device("null", FileType::CharacterDevice, 1, 3);
        device("disk", FileType::BlockDevice, 259, 70_000);
        fs::hard_link(top.join("null"), top.join("null-link")).unwrap();
        std::os::unix::fs::lchown(top.join("dangling"), Some(12345), Some(54321)).unwrap();
    }
}

fn attributes(top: &Path) {
    for mode in [0o4755, 0o2755, 0o1777, 0o7777, 0o400] {
        let path = top.join(format!("mode-{mode:o}"));
        write(&path, b"m");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let times = [(-1, 999_999_999), (-62_135_596_800, 0), (0, 0), (4_102_444_800, 1), (1, 500_000_000)];
    for (i, (seconds, ns)) in times.into_iter().enumerate() {
        let path = top.join(format!("time-{i}"));
        write(&path, b"t");
        set_mtime(&path, seconds, ns);
    }
    write(top.join("acl"), b"a");
    set_xattr(&top.join("acl"), "system.posix_acl_access", &some_acl());
    set_xattr(top, "system.posix_acl_default", &some_acl());
    write(top.join("few"), b"x");
    set_xattr(&top.join("few"), "user.one", b"1");
    set_xattr(&top.join("few"), "user.empty", b"");
    write(top.join("big"), b"x");
    // ext4 has one block of 4 KiB for them beside what fits into the inode; others take more.
    for i in 0..40 {
        set_xattr(&top.join("big"), &format!("user.number{i}"), &noise(i, if i < 2 { 1700 } else { 300 }));
    }
    symlink("x", top.join("link")).unwrap();
    set_xattr(&top.join("link"), "trusted.on-a-link", b"t");
    set_mtime(&top.join("link"), 1_000_000_000, 5);
}

/// Waits until what is on the disk now is older than the granule in which a push distrusts times.
pub fn settle() {
    let probe = tempfile::NamedTempFile::new().unwrap();
    let start = probe.path().metadata().unwrap();
    let age = |m: &fs::Metadata| m.ctime() as i128 * 1_000_000_000 + i128::from(m.ctime_nsec());
    loop {
        std::thread::yield_now();
        probe.as_file().write_all_at(b"x", 0).unwrap();
        probe.as_file().flush().unwrap();
        if age(&probe.path().metadata().unwrap()) > age(&start) + 40_000_000 {
            return;
        }
    }
}
