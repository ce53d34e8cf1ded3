//! Actions that need root, and commands that run without its rights.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// User and group id of an account without rights on most systems.
pub const NOBODY: u32 = 65534;

/// Returns whether this process runs as root. If not, reports on standard error, past the capture of the test runner,
/// that the calling test was not run and why it needs root.
#[must_use = "return from the test if this is false"]
pub fn needs_root(what: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let thread = std::thread::current();
    let line = format!("NOT RUN without root: {}: needs {what}\n", thread.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    false
}

/// Returns a `setpriv` command that runs its arguments as the account without rights.
pub fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
}

/// A file system that is mounted at a path until it is dropped.
pub struct Filesystem {
    path: PathBuf,
    _image: Option<tempfile::NamedTempFile>,
}

impl Filesystem {
    /// Mounts a tmpfs, whose inode numbers start from the beginning.
    pub fn tmpfs(path: &Path) -> Filesystem {
        Filesystem::mount(path, &["-t", "tmpfs", "tmpfs"], None)
    }

    /// Mounts a 32 MiB image file, formatted by `mkfs`, a program with its arguments.
    pub fn image(path: &Path, mkfs: &str) -> Filesystem {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(32 << 20).unwrap();
        let mut words = mkfs.split(' ');
        run(Command::new(words.next().unwrap()).args(words).arg(image.path()));
        let name = image.path().to_str().unwrap().to_owned();
        Filesystem::mount(path, &["-o", "loop", &name], Some(image))
    }

    fn mount(path: &Path, source: &[&str], image: Option<tempfile::NamedTempFile>) -> Filesystem {
        std::fs::create_dir_all(path).unwrap();
        run(Command::new("mount").args(source).arg(path));
        Filesystem { path: path.to_owned(), _image: image }
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        // Lazily: a program that scans new mounts may hold this one for a moment.
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
