//! Runs the binary in an isolated environment, without the configuration, agent and passphrase of the user who runs the
//! tests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::process::{hermetic, within};

/// The passphrase that [`Env`] sets in `NFREEZER_PASSWORD`.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// A home folder, a working folder and the variables of one user.
pub struct Env {
    root: TempDir,
    variables: Vec<(String, String)>,
}

/// The exit code and the output of a run.
#[derive(Debug)]
#[must_use = "assert the exit code or compare the text"]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Env {
    /// Makes an environment that contains the passphrase.
    pub fn new() -> Self {
        let mut env = Self::without_passphrase();
        env.set("NFREEZER_PASSWORD", PASSPHRASE);
        env
    }

    /// Makes an environment with an empty repository in the folder `repo`, named by `NFREEZER_REPOSITORY`.
    pub fn with_repository() -> Self {
        let mut env = Env::new();
        let repo = env.path("repo");
        env.set("NFREEZER_REPOSITORY", repo.to_str().unwrap());
        env.nfreezer(["init"]).done();
        env
    }

    pub fn without_passphrase() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["home", "work", "run"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        Env { root, variables: Vec::new() }
    }

    /// Sets a variable for later runs.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.unset(name);
        self.variables.push((name.into(), value.into()));
        self
    }

    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.variables.retain(|(n, _)| n != name);
        self
    }

    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// Returns a path in the working folder of the runs.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join("work").join(name)
    }

    /// Writes a file in the working folder, and creates its parent folders.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nfreezer"));
        let root = self.root.path();
        hermetic(&mut command, &self.home()).args(arguments).current_dir(root.join("work"));
        command.env("XDG_RUNTIME_DIR", root.join("run"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the binary and waits for its end. There is no terminal, so a prompt is a failure.
    pub fn nfreezer<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Output {
        Output::of(&mut without_terminal(&self.command(arguments)))
    }

    /// Starts the binary in the background.
    pub fn spawn<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Child {
        let mut command = without_terminal(&self.command(arguments));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Returns the same command in a session without `/dev/tty`.
fn without_terminal(command: &Command) -> Command {
    let mut outer = Command::new("setsid");
    outer.arg("--wait");
    within(outer, command)
}

impl Output {
    /// Runs a command and waits for its end.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what is printed is UTF-8");
        let code = output.status.code().unwrap_or(-1);
        Output { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Fails the test unless the run exited with 0.
    #[track_caller]
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// Like [`Output::success`], for tests that do not read the output.
    #[track_caller]
    pub fn done(self) {
        drop(self.exits(0));
    }

    /// Like [`Output::exits`], for tests that do not read the output.
    #[track_caller]
    pub fn fails(self, code: i32) {
        drop(self.exits(code));
    }

    /// Fails the test if the run exited with another code or panicked.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("RUST_BACKTRACE"), "{}", self.stderr);
        self
    }

    /// Returns the lines as JSON objects. The last one must be a summary or an error.
    #[track_caller]
    pub fn objects(&self) -> Vec<Value> {
        let objects: Vec<Value> =
            self.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is an object")).collect();
        assert!(objects.iter().all(|o| o["schema"] == 1 && o["type"].is_string()), "{}", self.stdout);
        let last = objects.last().expect("at least one object");
        assert!(last["type"] == "summary" || last["type"] == "error", "{last}");
        objects
    }
}
