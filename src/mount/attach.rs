//! Getting a mount point and letting go of it: mount(2) and umount(2) ourselves where we may, else by `fusermount3`.
//!
//! fuser's own mounting is not used: it unmounts by path what others have mounted there since, cannot detach a busy
//! mount, and lets a comma in the source's name become an option (measured with 0.18).

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

use super::mount_point::{absolute, mounted_at};
use crate::error::{Error, Result};
use crate::printable;

/// The type that the mount table shows.
pub const TYPE: &str = "fuse.nfreezer";
const DEVICE: &str = "/dev/fuse";

/// A mount of ours.
pub struct Attached {
    /// Where.
    pub dir: PathBuf,
    /// `major:minor` of the file system: tells our mount from another one at the same place.
    pub device: String,
}

/// How to mount.
pub struct How<'h> {
    /// What the mount table shows as the source.
    pub source: &'h str,
    /// Other users may look too.
    pub allow_other: bool,
    /// No program in it can be run.
    pub noexec: bool,
}

impl How<'_> {
    fn others(&self) -> &'static str {
        if self.allow_other { ",default_permissions,allow_other" } else { "" }
    }
}

/// Mounts; gives the connection to the kernel.
pub fn attach(dir: &Path, how: &How<'_>) -> Result<(OwnedFd, Attached)> {
    let source: String = how.source.chars().map(|c| if printable::is_harmful(c) { '?' } else { c }).collect();
    let how = How { source: &source, ..*how };
    let fd = match directly(dir, &how) {
        Ok(fd) => fd,
        Err(Errno::PERM | Errno::ACCESS | Errno::NOENT) => by_helper(dir, &how)?,
        Err(e) => return Err(Error::io(format!("mount at {}", dir.display()), e.into())),
    };
    let device = mounted_at(dir).map(|m| m.device).unwrap_or_default();
    Ok((fd, Attached { dir: dir.to_owned(), device }))
}

fn directly(dir: &Path, how: &How<'_>) -> Result<OwnedFd, Errno> {
    let device = open_device().map_err(|e| e.raw_os_error().map_or(Errno::NOENT, Errno::from_raw_os_error))?;
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let data = format!("fd={},rootmode=40000,user_id={user},group_id={group}{}", device.as_raw_fd(), how.others());
    let data = CString::new(data).expect("no NUL in numbers");
    let noexec = if how.noexec { MountFlags::NOEXEC } else { MountFlags::empty() };
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME | noexec;
    rustix::mount::mount(how.source, dir, TYPE, flags, data.as_c_str())?;
    Ok(device.into())
}

/// Whether a second connection can be opened for each thread.
pub fn device_opens() -> bool {
    open_device().is_ok()
}

fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn by_helper(dir: &Path, how: &How<'_>) -> Result<OwnedFd> {
    let (others, noexec) = (how.others(), if how.noexec { ",noexec" } else { "" });
    let source = how.source.replace('\\', "\\\\").replace(',', "\\,");
    let options = format!("ro,nosuid,nodev,noatime,fsname={source},subtype=nfreezer{others}{noexec}");
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
        let said = printable::message(said.trim());
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

/// Whether it is still what is mounted at its place.
pub fn mounted(attached: &Attached) -> bool {
    mounted_at(&attached.dir).is_some_and(|mount| mount.device == attached.device)
}

/// Takes our mount out of the tree, also while it is busy. What somebody else mounted there is left alone.
pub fn detach(attached: &Attached) -> Result<()> {
    if mounted(attached) { unmount(&attached.dir, true) } else { Ok(()) }
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
    let said = printable::message(String::from_utf8_lossy(&output.stderr).trim());
    let error = Error::failed(format!("cannot unmount {}: {said}", dir.display()));
    Err(if said.contains("busy") { busy(error) } else { error })
}

/// What came of an attempt to unmount what nobody uses.
pub enum Expired {
    /// It is unmounted.
    Gone,
    /// Somebody uses it, or has looked at it since the last attempt.
    Used,
    /// Only root can ask the kernel.
    Forbidden,
}

/// Unmounts if nobody has looked at it since the last call, not even at what the kernel has in memory.
pub fn expire(attached: &Attached) -> Expired {
    if !mounted(attached) {
        return Expired::Used;
    }
    match rustix::mount::unmount(&attached.dir, UnmountFlags::EXPIRE | UnmountFlags::NOFOLLOW) {
        Ok(()) => Expired::Gone,
        Err(Errno::PERM | Errno::ACCESS) => Expired::Forbidden,
        Err(_) => Expired::Used,
    }
}

/// Unmounts what nfreezer mounted at a folder, for `nfreezer umount`.
pub fn release(dir: &Path, lazy: bool) -> Result<()> {
    let dir = absolute(dir)?;
    match mounted_at(&dir) {
        Some(mount) if mount.kind == TYPE => unmount(&dir, lazy),
        _ => Err(Error::failed(format!("no backup is mounted at {}", dir.display()))),
    }
}

/// Lets the kernel read 1 MiB ahead instead of 128 KiB. Only root may.
pub fn read_ahead(attached: &Attached) {
    drop(fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", attached.device), "1024"));
}
