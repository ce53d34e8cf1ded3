//! The FUSE operations: decodes each request of the kernel and answers it at once or hands it to [`Core::answer`].

use std::ffi::OsStr;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr,
};

use super::core::{Core, guarded};
use super::requests::{GetAttr, GetXattr, ListXattr, ListingReply, Lookup, Read, ReadDir, ReadLink, Seek, validity};
use crate::vfs::{self, Mode, NAME, Vfs};

/// Largest request in bytes: 256 pages, which is the kernel's limit.
const REQUEST: u32 = 1 << 20;
/// Free bytes that `df` shows. The room on the server is not known and nothing can be written; without free bytes, tools
/// that watch disks would report a full one. The bytes of the newest snapshot count as used.
const FREE: u64 = 1 << 50;
/// Free nodes that `df -i` shows.
const FREE_NODES: u64 = 1 << 30;
/// Unit of the sizes in `statfs`, in bytes.
const BLOCK: u64 = 4096;
/// Requests that the kernel sends without waiting for answers, all files together.
const BACKGROUND: u16 = 64;

/// The FUSE operations of one mount.
pub struct Adapter {
    core: Arc<Core>,
    /// The kernel needs no `open`.
    no_open: bool,
    /// The kernel needs no `opendir`.
    no_opendir: bool,
}

impl Adapter {
    pub fn new(core: Arc<Core>) -> Self {
        Adapter { core, no_open: false, no_opendir: false }
    }

    fn vfs(&self) -> &Vfs {
        &self.core.vfs
    }

    /// Fills a part of a listing from memory, or hands it to a worker.
    fn list<R: ListingReply>(&self, ino: u64, offset: u64, mut reply: R) {
        self.core.counters.listings.fetch_add(1, Relaxed);
        let keep = validity(&self.core, ino);
        let request = ReadDir { ino, offset, keep, reply: PhantomData };
        match guarded(|| request.fill(self.vfs(), &mut reply, Mode::Cached)) {
            Ok(()) => reply.send(),
            Err(_) => self.core.answer(request, reply),
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.set_max_write(REQUEST);
        if let Err(largest) = config.set_max_readahead(REQUEST) {
            let _ = config.set_max_readahead(largest);
        }
        let _ = config.set_max_background(BACKGROUND);
        let _ = config.set_congestion_threshold(BACKGROUND - 8);
        let wanted = [
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        for flag in wanted {
            let _ = config.add_capabilities(flag);
        }
        self.no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        self.no_opendir = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT).is_ok();
        Ok(())
    }

    fn lookup(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.core.counters.lookups.fetch_add(1, Relaxed);
        if name.len() > NAME {
            return reply.error(Errno::ENAMETOOLONG);
        }
        self.core.answer(Lookup { parent: parent.0, name: name.as_bytes().to_vec() }, reply);
    }

    fn forget(&self, _: &fuser::Request, ino: INodeNo, count: u64) {
        self.vfs().forget(ino.0, count);
    }

    fn getattr(&self, _: &fuser::Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.core.counters.attributes.fetch_add(1, Relaxed);
        self.core.answer(GetAttr { ino: ino.0 }, reply);
    }

    fn readlink(&self, _: &fuser::Request, ino: INodeNo, reply: ReplyData) {
        self.core.answer(ReadLink { ino: ino.0 }, reply);
    }

    fn open(&self, _: &fuser::Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.core.counters.reads.fetch_add(1, Relaxed);
        self.core.answer(Read { ino: ino.0, offset, size }, reply);
    }

    fn opendir(&self, _: &fuser::Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        validity(&self.core, ino.0);
        if self.no_opendir {
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(&self, _: &fuser::Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list(ino.0, offset, reply);
    }

    fn readdirplus(&self, _: &fuser::Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.list(ino.0, offset, reply);
    }

    fn statfs(&self, _: &fuser::Request, _: INodeNo, reply: ReplyStatfs) {
        let totals = self.vfs().totals();
        let used = totals.bytes.div_ceil(BLOCK);
        let free = FREE / BLOCK;
        let nodes = totals.nodes + FREE_NODES;
        reply.statfs(used + free, free, free, nodes, FREE_NODES, BLOCK as u32, NAME as u32, BLOCK as u32);
    }

    fn getxattr(&self, _: &fuser::Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.core.counters.xattrs.fetch_add(1, Relaxed);
        self.core.answer(GetXattr { ino: ino.0, name: name.as_bytes().to_vec(), room: size }, reply);
    }

    fn listxattr(&self, _: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.core.counters.xattrs.fetch_add(1, Relaxed);
        if !self.vfs().may_have_xattrs() {
            // The kernel does not ask again in this mount.
            return reply.error(Errno::ENOSYS);
        }
        self.core.answer(ListXattr { ino: ino.0, room: size }, reply);
    }

    fn lseek(&self, _: &fuser::Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let what = match whence {
            libc::SEEK_DATA => vfs::Seek::Data,
            libc::SEEK_HOLE => vfs::Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.core.answer(Seek { ino: ino.0, offset, what }, reply);
    }

    fn access(&self, _: &fuser::Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
