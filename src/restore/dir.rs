//! Directories of the target, held open. Everything else is done on one name below one of them.
//!
//! A name is a single component (the format refuses `/`, `.` and `..`), so `O_NOFOLLOW` on each step is all that is
//! needed to stay below the target. `openat2` with `RESOLVE_BENEATH` would do the same for longer paths.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::names::Names;
use super::{Run, add, attributes, flags};
use crate::acl;
use crate::error::{Error, Kind, Result};
use crate::format::node::{Content, Node};
use crate::inode_flags;
use crate::name::hex;
use crate::progress::{Change, Event};
use crate::repo::random;

pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory of the target. It gets its attributes when its last holder lets go ([`release`]).
pub(super) struct Dir {
    pub parent: Option<Arc<Dir>>,
    pub name: Vec<u8>,
    /// The saved directory, for its attributes; `None` if they are not ours to set.
    saved: Option<Node>,
    /// Device and inode, to know it again.
    id: (u64, u64),
    /// Whether this run has made it.
    is_new: bool,
    /// Whether it was there before and is immutable or append-only, so that nothing can be made in it.
    pub is_locked: bool,
    /// The names that this run restores in it.
    pub names: Mutex<Names>,
    /// Whether a dry run only supposes it. Its descriptor is one of a directory above it then.
    pub is_supposed: bool,
    /// `None` once the walk is far below it or has left it; see [`Dir::reopen`].
    fd: Mutex<Option<Arc<OwnedFd>>>,
}

/// A directory that is open.
#[derive(Clone)]
pub(super) struct Held {
    pub dir: Arc<Dir>,
    pub fd: Arc<OwnedFd>,
}

/// A directory that was just opened.
struct Opened {
    fd: OwnedFd,
    stat: Stat,
    is_new: bool,
}

impl Held {
    fn new(parent: Option<Arc<Dir>>, name: &[u8], saved: Option<Node>, opened: Opened) -> Self {
        let Opened { fd, stat, is_new } = opened;
        let is_locked = !is_new && inode_flags::is_locked(&fd, b"");
        let fd = Arc::new(fd);
        let dir = Dir {
            parent,
            name: name.to_vec(),
            saved,
            id: identity(&stat),
            is_new,
            is_locked,
            names: Mutex::default(),
            is_supposed: false,
            fd: Mutex::new(Some(Arc::clone(&fd))),
        };
        Held { dir: Arc::new(dir), fd }
    }

    /// Returns the stand-in for a directory that a dry run would make.
    fn supposed(parent: Option<Arc<Dir>>, name: &[u8], saved: Option<Node>, fd: Arc<OwnedFd>) -> Self {
        let dir = Dir {
            parent,
            name: name.to_vec(),
            saved,
            id: (0, 0),
            is_new: true,
            is_locked: false,
            names: Mutex::default(),
            is_supposed: true,
            fd: Mutex::new(Some(Arc::clone(&fd))),
        };
        Held { dir: Arc::new(dir), fd }
    }

    /// Returns the path in the snapshot of an entry, for people.
    pub fn path(&self, name: &[u8]) -> Vec<u8> {
        join(self.dir.path(), name)
    }

    /// Returns the path of an entry relative to the target.
    pub fn below_target(&self, name: &[u8]) -> Vec<u8> {
        [&self.dir.below_target(), b"/".as_slice(), name].concat()
    }

    /// Returns the status of an entry; symlinks are not followed.
    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>, Errno> {
        if self.dir.is_supposed {
            return Ok(None);
        }
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns whether an existing entry is immutable or append-only.
    pub fn is_locked(&self, name: &[u8]) -> bool {
        inode_flags::is_locked(&self.fd, name)
    }

    /// Fails if an entry cannot be made, or an existing one cannot be replaced, because of flags.
    pub fn check_locks(&self, name: &[u8]) -> Result<()> {
        match name {
            _ if self.dir.is_locked => Err(flags::locked_directory()),
            name if self.is_locked(name) => Err(flags::locked()),
            _ => Ok(()),
        }
    }

    pub fn unlink(&self, name: &[u8]) {
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
    }
}

impl Dir {
    /// Returns the path in the snapshot, for people.
    pub fn path(&self) -> Vec<u8> {
        let mut path = self.below_target();
        let top = std::iter::successors(Some(self), |d| d.parent.as_deref()).last().unwrap_or(self);
        if !path.is_empty() && top.name != b"/" {
            path.insert(0, b'/');
        }
        path.splice(0..0, top.name.iter().copied());
        path
    }

    /// Returns the path relative to the target; empty for the target itself.
    pub fn below_target(&self) -> Vec<u8> {
        let up = std::iter::successors(Some(self), |d| d.parent.as_deref());
        let mut names: Vec<&[u8]> = up.filter(|d| d.parent.is_some()).map(|d| d.name.as_slice()).collect();
        names.reverse();
        names.join(&b'/')
    }

    /// Returns the open directory; if it was closed meanwhile, again through `..` of a directory below it.
    pub fn reopen(&self, below: &OwnedFd) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = &*self.fd.lock().expect("no holder panics") {
            return Ok(Arc::clone(fd));
        }
        let again = rustix::fs::openat(below, "..", FOLDER, Mode::empty()).and_then(|new| {
            let same = identity(&rustix::fs::fstat(&new)?) == self.id;
            if same { Ok(new) } else { Err(Errno::STALE) }
        });
        // It is not kept here: the files in it may end much later, and those of many directories would stay open.
        again.map(Arc::new).map_err(|e| Error::io("return to a directory of the target", e.into()))
    }

    /// Closes it as far as the walk is concerned; its holders keep it open.
    pub fn close(&self) {
        *self.fd.lock().expect("no holder panics") = None;
    }
}

/// Returns the path of an entry of a directory.
pub(super) fn join(mut path: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if path != b"/" {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// Returns whether an existing file has as many links as the saved one.
pub(super) fn has_links(stat: &Stat, node: &Node) -> bool {
    #[allow(clippy::unnecessary_cast)] // types differ between architectures
    let links = stat.st_nlink as u64;
    links == u64::from(node.nlink.max(1))
}

/// Opens the target, or makes it. `saved` is the directory whose contents it gets: it gets its attributes too, if it was
/// made now or holds nothing yet.
pub(super) fn open_target(path: &Path, name: &[u8], saved: Option<&Node>, dry_run: bool) -> Result<Held> {
    // Without a slash or dot at the end, which would follow a link.
    let path: PathBuf = path.components().collect();
    let doing = || format!("open the target {}", path.display());
    let mut made = false;
    if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        if dry_run {
            let fd = rustix::fs::open("/", FOLDER, Mode::empty()).map_err(|e| Error::io(doing(), e.into()))?;
            return Ok(Held::supposed(None, name, saved.cloned(), Arc::new(fd)));
        }
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|e| Error::io(doing(), e))?;
        }
        rustix::fs::mkdir(&path, Mode::RWXU).map_err(|e| Error::io(doing(), e.into()))?;
        made = true;
    }
    let fd = rustix::fs::open(&path, FOLDER, Mode::empty()).map_err(|e| match e {
        Errno::LOOP | Errno::NOTDIR => {
            Error::failed(format!("the target {} is not a folder", path.display())).hint(if path.is_symlink() {
                "a symbolic link is not followed: give the folder it points to"
            } else {
                "give a folder; a single file keeps its name in it"
            })
        }
        e => Error::io(doing(), e.into()),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io(doing(), e.into()))?;
    let ours = made || is_empty(&fd).map_err(|e| Error::io(doing(), e.into()))?;
    let opened = Opened { fd, stat, is_new: made };
    Ok(Held::new(None, name, saved.filter(|_| ours).cloned(), opened))
}

fn is_empty(fd: &OwnedFd) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(fd)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a directory with mode 0700, or opens the one that is there.
pub(super) fn make(run: &Run<'_>, parent: &Held, node: &Node) -> Result<Held> {
    if run.options.dry_run {
        return suppose(run, parent, node);
    }
    let failed = |e: Errno| Error::io("make the directory", e.into());
    let mkdir = || rustix::fs::mkdirat(&parent.fd, &node.name, Mode::RWXU);
    let open = |flags| rustix::fs::openat(&parent.fd, &node.name, flags, Mode::empty());
    let mut made = match mkdir() {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(_) if parent.dir.is_locked => return Err(flags::locked_directory()),
        Err(e) => return Err(failed(e)),
    };
    let fd = match open(FOLDER) {
        Err(Errno::NOTDIR | Errno::LOOP) if parent.is_locked(&node.name) => return Err(flags::locked()),
        Err(Errno::NOTDIR | Errno::LOOP) if !made && run.options.overwrite.replaces_by_directory() => {
            parent.unlink(&node.name);
            mkdir().map_err(failed)?;
            made = true;
            open(FOLDER)
        }
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(Error::new(Kind::Exists, "something else is in its place")),
        Err(Errno::ACCESS) if !made => {
            // Our own directory without the right to read it: perhaps an earlier restore left it.
            let path = open(OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC).map_err(failed)?;
            rustix::fs::chmod(attributes::proc_path(&path), Mode::RWXU).and_then(|()| open(FOLDER))
        }
        other => other,
    };
    let fd = fd.map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let own = stat.st_uid == rustix::process::geteuid().as_raw();
    if made && !own {
        return Err(Error::failed("another program replaced the new directory"));
    }
    if made {
        // An inherited default ACL, which would pass on to everything below until the attributes are set.
        let _ = rustix::fs::fremovexattr(&fd, acl::DEFAULT);
        let _ = rustix::fs::fremovexattr(&fd, acl::ACCESS);
        let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
    } else if own && stat.st_mode & 0o700 != 0o700 && !inode_flags::is_locked(&fd, b"") {
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode | 0o700)).map_err(failed)?;
    }
    let saved = Node { content: Content::Directory(None), ..node.clone() };
    let opened = Opened { fd, stat, is_new: made };
    let held = Held::new(Some(Arc::clone(&parent.dir)), &node.name, Some(saved), opened);
    if !made {
        name_torsos(run, &held, &node.content);
    }
    Ok(held)
}

/// Opens the directory that is there, or supposes that it was made.
fn suppose(run: &Run<'_>, parent: &Held, node: &Node) -> Result<Held> {
    let failed = |e: Errno| Error::io("make the directory", e.into());
    let there = parent.stat(&node.name).map_err(failed)?;
    let saved = Node { content: Content::Directory(None), ..node.clone() };
    let above = Some(Arc::clone(&parent.dir));
    if let Some(stat) = there {
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let fd = rustix::fs::openat(&parent.fd, &node.name, FOLDER, Mode::empty()).map_err(failed)?;
            let stat = rustix::fs::fstat(&fd).map_err(failed)?;
            return Ok(Held::new(above, &node.name, Some(saved), Opened { fd, stat, is_new: false }));
        }
        if !run.options.overwrite.replaces_by_directory() {
            return Err(Error::new(Kind::Exists, "something else is in its place"));
        }
    }
    let change = if there.is_some() { Change::Overwrite } else { Change::Write };
    let path = [&run.paths.in_target(&parent.path(&node.name))[..], b"/"].concat();
    run.ctx().event(Event::Changed { path: &path, change, dry_run: true });
    Ok(Held::supposed(above, &node.name, Some(saved), Arc::clone(&parent.fd)))
}

/// Lets go of a directory. The last holder sets its attributes, then lets go of its parent.
pub(super) fn release(run: &Run<'_>, held: Held) {
    let Held { mut dir, mut fd } = held;
    loop {
        let Some(last) = Arc::into_inner(dir) else { return };
        // Before its mode may forbid the way up.
        let up = last.parent.as_ref().map(|parent| parent.reopen(&fd));
        if let Some(node) = &last.saved {
            if !run.options.dry_run {
                dress(run, &fd, &last, node);
            }
            if last.parent.is_some() {
                add(&run.tally.directories, 1);
            }
        }
        match (last.parent, up) {
            (Some(parent), Some(Ok(up))) => (dir, fd) = (parent, up),
            (_, Some(Err(e))) => return run.skip(&last.name, e),
            _ => return,
        }
    }
}

/// Sets the attributes of a directory. An existing one that is locked keeps its own.
fn dress(run: &Run<'_>, fd: &OwnedFd, dir: &Dir, node: &Node) {
    let path = || dir.path();
    if dir.is_locked {
        if !attributes::are_set(run, fd, node, &path) {
            run.skip(&path(), flags::locked());
        }
        return;
    }
    let saved = attributes::of_open(run, fd, node, dir.is_new, &path);
    flags::lock(run, fd, saved);
}

/// The prefix of the names of incomplete entries.
const TEMPORARY: &[u8] = b".nfreezer-partial-";

/// Returns an unpredictable name for an incomplete entry.
pub(super) fn temporary() -> Result<Vec<u8>> {
    Ok([TEMPORARY, hex(&random::<8>()?).as_bytes()].concat())
}

/// Returns whether a name is one of [`temporary`].
pub(super) fn is_temporary(name: &[u8]) -> bool {
    name.strip_prefix(TEMPORARY).is_some_and(|rest| rest.len() == 16 && rest.iter().all(u8::is_ascii_hexdigit))
}

/// Names what a restore that was killed has left in a directory that was there before. It is not removed: another restore
/// may be at it. Entries of such a name that the snapshot holds in this directory, which is `saved` there, do not count.
pub(super) fn name_torsos(run: &Run<'_>, held: &Held, saved: &Content) {
    let page = if let Content::Directory(page) = saved { page.as_ref() } else { None };
    let Ok(entries) = rustix::fs::Dir::read_from(&held.fd) else { return };
    let is_saved = |name: &[u8]| run.trees.entry(run.ctx(), page, name).is_ok_and(|node| node.is_some());
    let is_torso = |name: &[u8]| is_temporary(name) && !is_saved(name);
    let count = entries.flatten().filter(|entry| is_torso(entry.file_name().to_bytes())).count();
    if count > 0 {
        let path = run.paths.in_target(&held.dir.path());
        let text = format!(
            "{count} file(s) .nfreezer-partial-* in {} are what a killed restore has left: remove them",
            String::from_utf8_lossy(&path)
        );
        run.ctx().event(Event::Warning { text: &text });
    }
}
