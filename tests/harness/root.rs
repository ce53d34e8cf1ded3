//! What only root can do, and what root cannot: be refused.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// User and group of the account without rights, `nobody` on most systems.
pub const NOBODY: u32 = 65534;

/// Returns whether this process is root. Otherwise reports on standard error, past the capture of the test runner, that
/// the calling test was not run and what it needs root for.
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

/// A command that `setpriv` runs as the account without rights.
pub fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
}

/// A file system of its own at a path, until it is dropped.
pub struct Filesystem {
    path: PathBuf,
    _image: Option<tempfile::NamedTempFile>,
}

impl Filesystem {
    /// One in memory, whose inode numbers begin anew.
    pub fn tmpfs(path: &Path) -> Filesystem {
        Filesystem::mount(path, &["-t", "tmpfs", "tmpfs"], None)
    }

    /// One in a file of 32 MiB that `mkfs`, a program with its arguments, formats.
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
        // Lazily: something that looks at new mounts may hold it for a moment.
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
