//! Mounting and unmounting: mount(2) and umount(2) where this process may call them, else `fusermount3`.
//!
//! fuser's own mounting is not used: it unmounts by path, even if another file system was mounted there since, cannot
//! detach a busy mount, and treats a comma in the name of the source as the end of the option (measured with 0.18).

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::mount_table::{absolute, mounted_at};
use crate::error::{Error, Result};
use crate::mounts::BACKUP;
use crate::printable;

const DEVICE: &str = "/dev/fuse";
/// Hint for a mount that is in use.
const BUSY: &str = "a program still uses it; `nfreezer umount --lazy` detaches it anyway";

/// A mount of this process.
pub struct Attached {
    /// Its path.
    pub dir: PathBuf,
    /// Device number, `major:minor`; distinguishes this mount from a later one at the same path.
    pub device: String,
}

/// Options of a mount.
pub struct AttachOptions<'h> {
    /// Source that the mount table shows.
    pub source: &'h str,
    /// Other users may use the mount.
    pub allow_other: bool,
    /// No program in the mount can be run.
    pub noexec: bool,
}

impl AttachOptions<'_> {
    fn others(&self) -> &'static str {
        if self.allow_other { ",default_permissions,allow_other" } else { "" }
    }
}

/// Mounts; returns the connection to the kernel.
pub fn attach(dir: &Path, how: &AttachOptions<'_>) -> Result<(OwnedFd, Attached)> {
    let source: String = how.source.chars().map(|c| if printable::is_harmful(c) { '?' } else { c }).collect();
    let how = AttachOptions { source: &source, ..*how };
    let fd = match directly(dir, &how) {
        Ok(fd) => fd,
        Err(Errno::PERM | Errno::ACCESS | Errno::NOENT) => by_helper(dir, &how)?,
        Err(e) => return Err(Error::io(format!("mount at {}", dir.display()), e.into())),
    };
    let device = mounted_at(dir).map(|m| m.device).unwrap_or_default();
    Ok((fd, Attached { dir: dir.to_owned(), device }))
}

fn directly(dir: &Path, how: &AttachOptions<'_>) -> Result<OwnedFd, Errno> {
    let device = open_device().map_err(|e| e.raw_os_error().map_or(Errno::NOENT, Errno::from_raw_os_error))?;
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let data = format!("fd={},rootmode=40000,user_id={user},group_id={group}{}", device.as_raw_fd(), how.others());
    let data = CString::new(data).expect("no NUL in numbers");
    let noexec = if how.noexec { MountFlags::NOEXEC } else { MountFlags::empty() };
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME | noexec;
    rustix::mount::mount(how.source, dir, BACKUP, flags, data.as_c_str())?;
    Ok(device.into())
}

/// Returns whether this process can open the device, so that each thread gets a connection of its own.
pub fn device_opens() -> bool {
    open_device().is_ok()
}

fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn by_helper(dir: &Path, how: &AttachOptions<'_>) -> Result<OwnedFd> {
    let others = how.others();
    let noexec = if how.noexec { ",noexec" } else { "" };
    let source = how.source.replace('\\', "\\\\").replace(',', "\\,");
    let options = format!("ro,nosuid,nodev,noatime,fsname={source},subtype=nfreezer{others}{noexec}");
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("make a socket", e))?;
    let mut command = helper();
    command.args(["-o", &options, "--"]).arg(dir).env("_FUSE_COMMFD", "0");
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn();
    // Closes this process's end of the helper's socket; otherwise `receive` would wait forever if the helper fails.
    drop(command);
    let mut child = child.map_err(|e| {
        Error::io("run fusermount3", e).hint("only root can mount without it: `apt install fuse3` installs it")
    })?;
    let fd = receive(&ours);
    let mut message = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        drop(stderr.read_to_string(&mut message));
    }
    drop(child.wait());
    fd.ok_or_else(|| refused(dir, message.trim()))
}

/// Returns the error for a refusal of `fusermount3`, with a hint if the reason is known.
fn refused(dir: &Path, message: &str) -> Error {
    let error = Error::failed(format!("cannot mount at {}: {}", dir.display(), printable::message(message)));
    if message.contains("allow_other") {
        error.hint("put `user_allow_other` into /etc/fuse.conf")
    } else if !Path::new(DEVICE).exists() {
        error.hint("this kernel has no /dev/fuse: run `modprobe fuse` as root")
    } else if !device_opens() {
        error.hint("/dev/fuse must be open to all users (mode 0666), as udev sets it")
    } else {
        error
    }
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

/// Returns whether this mount is still the one at its path.
pub fn is_mounted(attached: &Attached) -> bool {
    mounted_at(&attached.dir).is_some_and(|mount| mount.device == attached.device)
}

/// Detaches this mount, even if it is busy. A later mount of another process at the same path is left alone.
pub fn detach(attached: &Attached) -> Result<()> {
    if is_mounted(attached) { unmount(&attached.dir, true) } else { Ok(()) }
}

/// Unmounts a path; `lazy` detaches it even if it is busy.
pub fn unmount(dir: &Path, lazy: bool) -> Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(dir, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => {}
        Err(e) => {
            let error = Error::io(format!("unmount {}", dir.display()), e.into());
            return Err(if e == Errno::BUSY { error.hint(BUSY) } else { error });
        }
    }
    let output = helper().arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(dir).output();
    let output = output.map_err(|e| Error::io("run fusermount3", e))?;
    if output.status.success() {
        return Ok(());
    }
    let message = printable::message(String::from_utf8_lossy(&output.stderr).trim());
    let error = Error::failed(format!("cannot unmount {}: {message}", dir.display()));
    Err(if message.contains("busy") { error.hint(BUSY) } else { error })
}

/// Outcome of an attempt to unmount an unused mount.
pub enum Expired {
    /// It is unmounted.
    Unmounted,
    /// It is in use, or was used since the last attempt.
    InUse,
    /// Only root may use MNT_EXPIRE.
    Forbidden,
}

/// Unmounts if no process has used the mount since the last call, not even names that the kernel had cached.
pub fn expire(attached: &Attached) -> Expired {
    if !is_mounted(attached) {
        return Expired::InUse;
    }
    match rustix::mount::unmount(&attached.dir, UnmountFlags::EXPIRE | UnmountFlags::NOFOLLOW) {
        Ok(()) => Expired::Unmounted,
        Err(Errno::PERM | Errno::ACCESS) => Expired::Forbidden,
        Err(_) => Expired::InUse,
    }
}

/// Unmounts the backup that is mounted at a path, for `nfreezer umount`.
pub fn release(dir: &Path, lazy: bool) -> Result<()> {
    let dir = absolute(dir)?;
    match mounted_at(&dir) {
        Some(mount) if mount.kind == BACKUP => unmount(&dir, lazy),
        _ => Err(Error::failed(format!("no backup is mounted at {}", dir.display()))),
    }
}

/// Raises the kernel's read-ahead from 128 KiB to 1 MiB. Has no effect unless run as root.
pub fn read_ahead(attached: &Attached) {
    drop(fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", attached.device), "1024"));
}
