//! The folders of the disk cache. Everything below the first one is reached from an open folder, by one name at a time and
//! never through a link, so that nothing leads out of it.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::error::{Error, Kind, Result};

const OPENED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Marks the folder for backup programs, which leave out its contents: <https://bford.info/cachedir/>.
const TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# The cache of nfreezer. It may be deleted at any time.\n";

/// Opens the folder of the cache like [`opened`], and makes it if it does not exist.
pub(super) fn made(path: &Path) -> Result<OwnedFd> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
            return Err(Error::io(format!("make the cache {}", path.display()), e));
        }
        _ => {}
    }
    let folder = opened(path)?;
    tag(&folder);
    Ok(folder)
}

/// Opens the folder of the cache. A link at its path is followed: this user, or root, has made it.
pub(super) fn opened(path: &Path) -> Result<OwnedFd> {
    let failed = |e: Errno| Error::io(format!("open the cache {}", path.display()), e.into());
    let folder = match openat(CWD, path, OPENED, Mode::empty()) {
        Err(Errno::NOTDIR) => {
            return Err(Error::new(Kind::Usage, format!("--cache: {} is not a folder", path.display()))
                .hint("give a folder of your own, which is made if it does not exist"));
        }
        folder => folder.map_err(failed)?,
    };
    let stat = fstat(&folder).map_err(failed)?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        let text = format!("--cache: other users may write to the folder {}", path.display());
        return Err(Error::new(Kind::Usage, text).hint("give a folder of your own that `chmod go-w` protects"));
    }
    Ok(folder)
}

/// Opens a folder below another one; makes it if that is wanted.
pub(super) fn below(folder: impl AsFd, name: &str, makes: bool) -> io::Result<OwnedFd> {
    let open = || openat(&folder, name, OPENED | OFlags::NOFOLLOW, Mode::empty());
    match open() {
        Err(Errno::NOENT) if makes => match mkdirat(&folder, name, Mode::RWXU) {
            Err(e) if e != Errno::EXIST => Err(e.into()),
            _ => Ok(open()?),
        },
        opened => Ok(opened?),
    }
}

/// Writes the tag if there is none. The cache works without it.
fn tag(folder: &OwnedFd) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(file) = openat(folder, "CACHEDIR.TAG", flags, Mode::RUSR | Mode::WUSR) {
        let _ = rustix::io::write(file, TAG.as_bytes());
    }
}
