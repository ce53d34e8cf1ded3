//! Creates files on the disk: plain ones, and all kinds that are difficult to save.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Returns incompressible bytes, different for each seed.
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

/// Returns the ACL `user::rw-,user:65534:r--,group::r--,mask::r--,other::---` in the kernel's encoding.
pub fn some_acl() -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in [(1u8, 6u8, u32::MAX), (2, 4, 65534), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend_from_slice(&[tag, 0, perm, 0]);
        acl.extend(id.to_be_bytes().iter().rev());
    }
    acl
}

/// Creates every kind of file that this user may create, with unusual names, times, attributes and contents.
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
    // ext4 stores them in the inode and one block of 4 KiB. Other file systems have room for more.
    for i in 0..40 {
        set_xattr(&top.join("big"), &format!("user.number{i}"), &noise(i, if i < 2 { 1700 } else { 300 }));
    }
    symlink("x", top.join("link")).unwrap();
    set_xattr(&top.join("link"), "trusted.on-a-link", b"t");
    set_mtime(&top.join("link"), 1_000_000_000, 5);
}

/// Waits until all present changes are older than the interval within which a push distrusts times.
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
