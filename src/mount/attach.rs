//! Getting a mount point and letting go of it: mount(2) and umount(2) ourselves where we may, else by `fusermount3`.
//!
//! fuser's own mounting is not used: it unmounts by path what others have mounted there since, cannot detach a busy
//! mount, and lets a comma in the source's name become an option (measured with 0.18).

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::error::{Error, Result};

/// The type that the mount table shows.
const TYPE: &str = "fuse.nfreezer";
const DEVICE: &str = "/dev/fuse";

/// A mount of ours.
pub struct Attached {
    /// Where.
    pub dir: PathBuf,
    /// `major:minor` of the file system: tells our mount from another one at the same place.
    pub device: String,
}

/// Mounts; gives the connection to the kernel.
pub fn attach(dir: &Path, address: &str, allow_other: bool) -> Result<(OwnedFd, Attached)> {
    let source: String = address.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let source = format!("nfreezer:{source}");
    let others = if allow_other { ",default_permissions,allow_other" } else { "" };
    let fd = match directly(dir, &source, others) {
        Ok(fd) => fd,
        Err(Errno::PERM | Errno::ACCESS | Errno::NOENT) => by_helper(dir, &source, others)?,
        Err(e) => return Err(Error::io(format!("mount at {}", dir.display()), e.into())),
    };
    let device = mounted_at(dir).map(|m| m.device).unwrap_or_default();
    Ok((fd, Attached { dir: dir.to_owned(), device }))
}

fn directly(dir: &Path, source: &str, others: &str) -> Result<OwnedFd, Errno> {
    let device = open_device().map_err(|e| e.raw_os_error().map_or(Errno::NOENT, Errno::from_raw_os_error))?;
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let data = format!("fd={},rootmode=40000,user_id={user},group_id={group}{others}", device.as_raw_fd());
    let data = CString::new(data).expect("no NUL in numbers");
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    rustix::mount::mount(source, dir, TYPE, flags, data.as_c_str())?;
    Ok(device.into())
}

/// Whether a second connection can be opened for each thread.
pub fn device_opens() -> bool {
    open_device().is_ok()
}

fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn by_helper(dir: &Path, source: &str, others: &str) -> Result<OwnedFd> {
    let source = source.replace('\\', "\\\\").replace(',', "\\,");
    let options = format!("ro,nosuid,nodev,noatime,fsname={source},subtype=nfreezer{others}");
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("make a socket", e))?;
    let mut child = {
        let mut command = helper();
        command.args(["-o", &options, "--"]).arg(dir).env("_FUSE_COMMFD", "0");
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().map_err(|e| {
            Error::io("run fusermount3", e).hint("only root can mount without it; `apt install fuse3` brings it")
        })?
    };
    let fd = receive(&ours);
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        drop(stderr.read_to_string(&mut said));
    }
    drop(child.wait());
    fd.ok_or_else(|| {
        let said: String = said.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let error = Error::failed(format!("cannot mount at {}: {said}", dir.display()));
        match () {
            () if said.contains("allow_other") => error.hint("put `user_allow_other` into /etc/fuse.conf"),
            () if !Path::new(DEVICE).exists() => error.hint("this kernel has no /dev/fuse: `modprobe fuse` as root"),
            () if !device_opens() => error.hint("/dev/fuse must be open to all users (mode 0666), as udev makes it"),
            () => error,
        }
    })
}

fn helper() -> Command {
    let found = ["/usr/bin/fusermount3", "/bin/fusermount3"].into_iter().find(|path| Path::new(path).exists());
    Command::new(found.unwrap_or("fusermount3"))
}

fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    let mut data = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC))
        .ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Takes our mount out of the tree, also while it is busy. What somebody else mounted there is left alone.
pub fn detach(attached: &Attached) -> Result<()> {
    match mounted_at(&attached.dir) {
        Some(mount) if mount.device == attached.device => unmount(&attached.dir, true),
        _ => Ok(()),
    }
}

/// Unmounts; `lazy`: also while it is busy.
pub fn unmount(dir: &Path, lazy: bool) -> Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    let busy = |e: Error| e.hint("something still uses it; `nfreezer umount --lazy` detaches it all the same");
    match rustix::mount::unmount(dir, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => {}
        Err(e) => {
            let error = Error::io(format!("unmount {}", dir.display()), e.into());
            return Err(if e == Errno::BUSY { busy(error) } else { error });
        }
    }
    let output = helper().arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(dir).output();
    let output = output.map_err(|e| Error::io("run fusermount3", e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace(char::is_control, " ");
    let error = Error::failed(format!("cannot unmount {}: {said}", dir.display()));
    Err(if said.contains("busy") { busy(error) } else { error })
}

/// Unmounts what nfreezer mounted at a folder, for `nfreezer umount`.
pub fn release(dir: &Path, lazy: bool) -> Result<()> {
    let dir = absolute(dir)?;
    match mounted_at(&dir) {
        Some(mount) if mount.kind == TYPE => unmount(&dir, lazy),
        _ => Err(Error::failed(format!("no backup is mounted at {}", dir.display()))),
    }
}

/// A row of the mount table.
pub struct Row {
    /// `major:minor`.
    pub device: String,
    /// File system type.
    pub kind: String,
}

/// What is mounted at exactly this place, the topmost. The mount table is read, since a `stat` might hang.
pub fn mounted_at(dir: &Path) -> Option<Row> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let rows = table.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let (device, place) = (fields.nth(2)?, fields.nth(1)?);
        let kind = fields.skip_while(|f| *f != b"-").nth(1)?;
        (unescaped(place) == dir.as_os_str().as_bytes()).then(|| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Row { device: text(device), kind: text(kind) }
        })
    });
    rows.fold(None, |_, row| Some(row))
}

/// `\040` and its like back to bytes.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match digits {
            Some(d) => {
                out.push(d.iter().fold(0u8, |n, c| n.wrapping_mul(8).wrapping_add(c - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// The path without symbolic links; the last part is not touched where that fails (a dead mount).
fn absolute(dir: &Path) -> Result<PathBuf> {
    if let Ok(path) = dir.canonicalize() {
        return Ok(path);
    }
    let wrong = |e| Error::io(format!("find {}", dir.display()), e);
    let (parent, name) = (dir.parent(), dir.file_name());
    let parent = parent.filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(parent.canonicalize().map_err(wrong)?.join(name.unwrap_or(OsStr::new(""))))
}

/// Whether a folder can be mounted on; mends what a dead mount left. `repository`: where the repository is, if it is on
/// this machine. Gives the path without symbolic links.
pub fn prepare(dir: &Path, nonempty: bool, repository: Option<&Path>, log: &dyn Fn(&str)) -> Result<PathBuf> {
    let path = absolute(dir)?;
    let shown = path.display();
    let mounted = mounted_at(&path);
    if let Err(e) = fs::symlink_metadata(&path) {
        if e.raw_os_error() != Some(Errno::NOTCONN.raw_os_error()) || mounted.is_none() {
            return Err(Error::io(format!("mount at {shown}"), e).hint("make the folder first"));
        }
        log(&format!("{shown} is the dead mount of a process that ended; unmounting it"));
        unmount(&path, true)?;
    } else if mounted.is_some_and(|m| m.kind == TYPE) {
        return Err(
            Error::failed(format!("a backup is mounted at {shown} already")).hint("`nfreezer umount DIR` unmounts it")
        );
    }
    let entries = fs::read_dir(&path).map_err(|e| Error::io(format!("mount at {shown}"), e));
    if entries?.next().is_some() && !nonempty {
        return Err(Error::failed(format!("the folder {shown} is not empty"))
            .hint("its contents would be hidden while it is mounted; `--nonempty` allows that"));
    }
    if let Some(repository) = repository.and_then(|r| r.canonicalize().ok())
        && (path.starts_with(&repository) || repository.starts_with(&path))
    {
        return Err(Error::failed(format!("the repository {} is at, in or below {shown}", repository.display()))
            .hint("choose a folder elsewhere: the mount would hide its own repository"));
    }
    Ok(path)
}

/// Lets the kernel read 1 MiB ahead instead of 128 KiB. Only root may.
pub fn read_ahead(attached: &Attached) {
    drop(fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", attached.device), "1024"));
}

/// The local folder that an address names, if it does.
pub fn local_folder(address: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::ffi::OsString::from_vec(address.as_bytes().to_vec()));
    (path.is_absolute() && path.is_dir()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_understood() {
        assert_eq!(unescaped(br"/a\040b\134c\09"), b"/a b\\c\\09");
        assert_eq!(mounted_at(Path::new("/proc")).unwrap().kind, "proc");
        assert!(mounted_at(Path::new("/proc/self")).is_none());
    }
}
