//! A FUSE file system with a folder of files. One of the extended attributes of the first file cannot be read. The last
//! file is stale, like a file on NFS that was replaced on the server.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyXattr, Request,
};

/// Number of files in the root: `file0`, `file1`, ..
pub const FILES: u64 = 5;
const NAMES: &[u8] = b"user.a\0user.bad\0nfreezer.flags\0user.z\0";
const KEEP: Duration = Duration::from_secs(1);

struct Odd {
    /// Number of requests for flags of inodes.
    asked: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    read: Arc<AtomicUsize>,
}

/// A mount of this file system, unmounted on drop.
pub struct OddMount {
    _session: BackgroundSession,
    /// Number of requests for flags of inodes.
    pub asked: Arc<AtomicUsize>,
    /// Number of files that were opened.
    pub opened: Arc<AtomicUsize>,
    /// Number of calls that read the beginning of a file.
    pub read: Arc<AtomicUsize>,
}

impl OddMount {
    pub fn at(dir: &Path) -> OddMount {
        let [asked, opened, read] = [(); 3].map(|()| Arc::<AtomicUsize>::default());
        let odd = Odd { asked: Arc::clone(&asked), opened: Arc::clone(&opened), read: Arc::clone(&read) };
        OddMount { _session: fuser::spawn_mount(odd, dir, &Config::default()).unwrap(), asked, opened, read }
    }
}

fn attr(ino: u64) -> FileAttr {
    let (kind, perm) = if ino == 1 { (FileType::Directory, 0o755) } else { (FileType::RegularFile, 0o644) };
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    FileAttr {
        ino: INodeNo(ino),
        size: if ino == 1 { 0 } else { 4 },
        blocks: 1,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn send(value: &[u8], size: u32, reply: ReplyXattr) {
    match size {
        0 => reply.size(value.len() as u32),
        room if (room as usize) < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

impl Filesystem for Odd {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.strip_prefix("file")?.parse::<u64>().ok());
        match number.filter(|number| *number < FILES) {
            Some(number) => reply.entry(&KEEP, &attr(number + 2), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&KEEP, &attr(ino.0));
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if ino.0 == FILES + 1 {
            return reply.error(Errno::ESTALE);
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.read.fetch_add(usize::from(offset == 0), Ordering::Relaxed);
        reply.data(if offset == 0 { b"text" } else { b"" });
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for number in offset..FILES {
            if reply.add(INodeNo(number + 2), number + 1, FileType::RegularFile, format!("file{number}")) {
                break;
            }
        }
        reply.ok();
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        send(if ino.0 == 2 { NAMES } else { b"" }, size, reply);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match name.to_str() {
            Some("user.bad") => reply.error(Errno::EIO),
            Some("user.a" | "user.z" | "nfreezer.flags") => send(b"v", size, reply),
            _ => reply.error(Errno::ENODATA),
        }
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        reply.error(Errno::ENOTTY);
    }
}
