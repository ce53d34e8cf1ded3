//! The one file that speaks the kernel's language: FUSE requests to [`Vfs`] operations, faults to error numbers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use super::core::{Core, What};
use crate::vfs::{Attr, Fault, Kind, Mode, NAME, Seek, Vfs};

/// Nothing below a snapshot changes.
const FOREVER: Duration = Duration::from_secs(1 << 24);
/// Largest request: 256 pages, what the kernel allows.
const REQUEST: u32 = 1 << 20;
/// What `df` shows as free, beside the newest snapshot's bytes and nodes as used: how much room the server has is not known,
/// and nothing to write is there anyway. Without it everything would look full to whoever watches over disks.
const FREE: u64 = 1 << 50;
const FREE_NODES: u64 = 1 << 30;
/// Requests that the kernel sends without waiting for answers, all files together.
const BACKGROUND: u16 = 64;

/// See the module.
pub struct Adapter {
    pub core: Arc<Core>,
    no_open: bool,
    no_opendir: bool,
}

impl Adapter {
    pub fn new(core: Arc<Core>) -> Self {
        Adapter { core, no_open: false, no_opendir: false }
    }

    fn vfs(&self) -> &Vfs {
        &self.core.vfs
    }

    /// How long the kernel may keep what it knows of this node and of the names in it.
    fn keep(core: &Core, ino: u64) -> Duration {
        let Some(time) = core.vfs.keep(ino) else { return FOREVER };
        core.vfs.watch().look();
        time
    }
}

fn errno(fault: &Fault) -> Errno {
    match fault {
        Fault::Stale => Errno::ESTALE,
        Fault::Invalid => Errno::EINVAL,
        Fault::NoAttribute => Errno::ENODATA,
        Fault::Unsupported => Errno::EOPNOTSUPP,
        Fault::Beyond => Errno::ENXIO,
        Fault::Broken(_) | Fault::Wait => Errno::EIO,
    }
}

fn file_attr(attr: &Attr) -> FileAttr {
    let mtime = time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: kind(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device(attr.device),
        blksize: 4096,
        flags: 0,
    }
}

fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Block => FileType::BlockDevice,
        Kind::Char => FileType::CharDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

/// The kernel's 32 bits: `mmmM MMmm`, 12 bits of major and 20 of minor.
fn device((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

fn time((seconds, nanos): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    at.and_then(|at| at.checked_add(Duration::new(0, nanos))).unwrap_or(UNIX_EPOCH)
}

/// Sends a value or the error number of a fault.
macro_rules! reply {
    ($reply:expr, $result:expr, $value:pat => $send:expr) => {
        match $result {
            Ok($value) => $send,
            Err(fault) => $reply.error(errno(&fault)),
        }
    };
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.set_max_write(REQUEST);
        if let Err(most) = config.set_max_readahead(REQUEST) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND);
        let _ = config.set_congestion_threshold(BACKGROUND - 8);
        let wanted = [
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        wanted.into_iter().for_each(|flag| {
            let _ = config.add_capabilities(flag);
        });
        self.no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        self.no_opendir = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT).is_ok();
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.core.counters.lookups.fetch_add(1, Relaxed);
        if name.len() > NAME {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let (parent, name) = (parent.0, name.as_bytes().to_vec());
        self.core.answer(
            What::Node(parent),
            reply,
            move |vfs, mode| vfs.lookup(parent, &name, mode),
            move |core, reply, found| {
                let keep = Adapter::keep(core, parent);
                reply!(reply, found, found => {
                    let attr = found.map_or_else(nothing, |attr| file_attr(&attr));
                    reply.entry(&keep, &attr, Generation(0));
                });
            },
            |vfs, late| late.into_iter().for_each(|attr| vfs.forget(attr.ino, 1)),
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.vfs().forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.core.counters.attributes.fetch_add(1, Relaxed);
        self.core.answer(
            What::Node(ino.0),
            reply,
            move |vfs, mode| vfs.getattr(ino.0, mode),
            move |core, reply, attr| {
                let keep = Adapter::keep(core, ino.0);
                reply!(reply, attr, attr => reply.attr(&keep, &file_attr(&attr)));
            },
            |_, _| (),
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.core.answer(
            What::Node(ino.0),
            reply,
            move |vfs, mode| vfs.readlink(ino.0, mode),
            |_, reply, target| reply!(reply, target, target => reply.data(&target)),
            |_, _| (),
        );
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.no_open {
            true => reply.error(Errno::ENOSYS),
            false => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.core.counters.reads.fetch_add(1, Relaxed);
        let core = Arc::clone(&self.core);
        self.core.answer(
            What::Read(ino.0, offset..offset.saturating_add(size.into())),
            reply,
            move |vfs, mode| vfs.read(ino.0, offset, size, mode, &|ahead| core.ahead(ahead)),
            |core, reply, bytes| {
                reply!(reply, bytes, bytes => {
                    core.counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
                    reply.data(&bytes);
                });
            },
            |_, _| (),
        );
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        Adapter::keep(&self.core, ino.0);
        match self.no_opendir {
            true => reply.error(Errno::ENOSYS),
            false => reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.core.counters.listings.fetch_add(1, Relaxed);
        let fill = move |vfs: &Vfs, reply: &mut ReplyDirectory, mode| {
            vfs.readdir(ino.0, offset, false, mode, &mut |e| {
                reply.add(INodeNo(e.attr.ino), e.next, kind(e.attr.kind), OsStr::from_bytes(e.name))
            })
        };
        match guarded(|| fill(self.vfs(), &mut reply, Mode::Cached)) {
            Ok(()) => reply.ok(),
            Err(_) => self.warm(ino.0, offset, reply, move |core, mut reply, warm| {
                reply!(reply, warm.and_then(|()| fill(&core.vfs, &mut reply, Mode::Fetch)), () => reply.ok());
            }),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        self.core.counters.listings.fetch_add(1, Relaxed);
        let keep = Adapter::keep(&self.core, ino.0);
        let fill = move |vfs: &Vfs, reply: &mut ReplyDirectoryPlus, mode| {
            vfs.readdir(ino.0, offset, true, mode, &mut |e| {
                let name = OsStr::from_bytes(e.name);
                reply.add(INodeNo(e.attr.ino), e.next, name, &keep, &file_attr(&e.attr), Generation(0))
            })
        };
        match guarded(|| fill(self.vfs(), &mut reply, Mode::Cached)) {
            Ok(()) => reply.ok(),
            Err(_) => self.warm(ino.0, offset, reply, move |core, mut reply, warm| {
                reply!(reply, warm.and_then(|()| fill(&core.vfs, &mut reply, Mode::Fetch)), () => reply.ok());
            }),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let totals = self.vfs().totals();
        let (used, free) = (totals.bytes.div_ceil(4096), FREE / 4096);
        let (nodes, more) = (totals.nodes, FREE_NODES);
        reply.statfs(used + free, free, free, nodes + more, more, 4096, 255, 4096);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.core.counters.xattrs.fetch_add(1, Relaxed);
        let name = name.as_bytes().to_vec();
        self.core.answer(
            What::Node(ino.0),
            reply,
            move |vfs, mode| vfs.getxattr(ino.0, &name, mode),
            move |_, reply, value| reply!(reply, value, value => sized(reply, &value, size)),
            |_, _| (),
        );
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.core.counters.xattrs.fetch_add(1, Relaxed);
        if !self.vfs().may_have_xattrs() {
            // The kernel does not ask again in this mount.
            return reply.error(Errno::ENOSYS);
        }
        self.core.answer(
            What::Node(ino.0),
            reply,
            move |vfs, mode| vfs.xattrs(ino.0, mode),
            move |_, reply, list| {
                reply!(reply, list, list => {
                    let names: Vec<u8> = list.iter().flat_map(|(name, _)| name.iter().copied().chain([0])).collect();
                    sized(reply, &names, size);
                });
            },
            |_, _| (),
        );
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.core.answer(
            What::Node(ino.0),
            reply,
            move |vfs, mode| vfs.seek(ino.0, offset, what, mode),
            |_, reply, at| reply!(reply, at, at => reply.offset(at as i64)),
            |_, _| (),
        );
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
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
        reply.error(Errno::ENOTTY);
    }
}

impl Adapter {
    /// Has the pages of a listing fetched, then fills it.
    fn warm<R: Send + 'static>(
        &self,
        ino: u64,
        offset: u64,
        reply: R,
        fill: impl Fn(&Arc<Core>, R, Result<(), Fault>) + Send + Sync + Clone + 'static,
    ) {
        let op = move |vfs: &Vfs, mode| vfs.readdir(ino, offset.max(2), false, mode, &mut |_| true);
        self.core.answer(What::Node(ino), reply, op, fill, |_, ()| ());
    }
}

fn guarded<T>(f: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(Fault::Wait))
}

fn sized(reply: ReplyXattr, value: &[u8], size: u32) {
    match size {
        0 => reply.size(value.len() as u32),
        _ if value.len() > size as usize => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// An entry that says, for as long as it is kept, that there is none.
fn nothing() -> FileAttr {
    let (mtime, device) = ((0, 0), (0, 0));
    let kind = Kind::File;
    file_attr(&Attr { ino: 0, kind, mode: 0, nlink: 0, uid: 0, gid: 0, size: 0, blocks: 0, mtime, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_devices_as_the_kernel_has_them() {
        assert_eq!(time((-1, 999_999_999)), UNIX_EPOCH - Duration::from_nanos(1));
        assert_eq!(time((5, 1)), UNIX_EPOCH + Duration::new(5, 1));
        let _ = (time((i64::MAX, 0)), time((i64::MIN, 0)));
        assert_eq!([device((8, 17)), device((300, 70_000))], [0x811, 0x1111_2c70]);
    }
}
