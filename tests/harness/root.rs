//! What only root can do, and what root cannot: be refused.

use std::io::Write;
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
