//! Runs programs in an isolated environment, as another user, or under another program.

use std::path::Path;
use std::process::{Command, Stdio};

/// Clears the environment of a command except for a home folder, so that the command does not see the configuration,
/// agent or passphrase of the user who runs the tests.
pub fn hermetic<'c>(command: &'c mut Command, home: &Path) -> &'c mut Command {
    command.env_clear().stdin(Stdio::null()).env("HOME", home);
    for (variable, folder) in [("CONFIG", ".config"), ("STATE", ".local/state"), ("CACHE", ".cache")] {
        command.env(format!("XDG_{variable}_HOME"), home.join(folder));
    }
    command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("LANG", "C.UTF-8").env("TZ", "UTC")
}

/// Appends an inner command to a program that runs another one, such as `setpriv` or `strace`. Takes the arguments,
/// folder and environment of the inner command, and no variable of the user who runs the tests.
pub fn within(outer: Command, inner: &Command) -> Command {
    let program = inner.get_program().to_owned();
    within_as(outer, program.as_ref(), inner)
}

/// Like [`within`], with another copy of the inner program.
pub fn within_as(mut outer: Command, program: &Path, inner: &Command) -> Command {
    outer.arg(program).args(inner.get_args()).env_clear().stdin(Stdio::null());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = inner.get_current_dir() {
        outer.current_dir(folder);
    }
    outer
}

/// Runs a system program and returns its standard output. Fails unless it succeeds.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program} is not installed, run scripts/setup.sh: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Copies a program so that another user may run it. Uses `cp`: if this process wrote the file, a child of another
/// test's thread could hold it open between fork and exec, and running it would fail with "text file busy".
pub fn copy_program(program: impl AsRef<Path>, to: &Path) {
    let copied = Command::new("cp").arg(program.as_ref()).arg(to).status().unwrap();
    assert!(copied.success());
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(to, everyone).unwrap();
}
