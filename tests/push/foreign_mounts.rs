//! Mounts below a source that hang or belong to another user: they never stop a push.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::cli::Env;
use crate::harness::mounted::{eventually, require_fuse, serving};
use crate::harness::saved::Saved;
use crate::harness::sshd::signal;
use nfreezer::context::background;
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{self, Options};

/// A push that takes longer waits for the mount.
const SOON: Duration = Duration::from_secs(15);

/// A mounted backup in the folder `top/dead` whose process is stopped, and `top/file` beside it.
struct Stopped {
    env: Env,
    mount: PathBuf,
    serving: u32,
}

impl Stopped {
    fn new() -> Self {
        require_fuse();
        let mut env = Env::with_repository();
        env.write("some/file", "contents");
        env.nfreezer(["push", "some"]).done();
        env.write("top/file", "kept");
        env.write("top/zone/file", "kept");
        let mount = env.path("top/dead");
        std::fs::create_dir(&mount).unwrap();
        env.nfreezer(["mount", mount.to_str().unwrap()]).done();
        let serving = serving(&mount);
        signal(serving, Signal::STOP);
        env.set("NFREEZER_REPOSITORY", env.path("other").to_str().unwrap());
        env.nfreezer(["init"]).done();
        Stopped { env, mount, serving }
    }

    /// Pushes `top` with these options; nothing is reported but what is expected.
    #[track_caller]
    fn push(&self, options: &[&str], code: i32) -> String {
        let start = Instant::now();
        let arguments = ["push", "top", "--source-timeout", "1s"].iter().chain(options);
        let output = self.env.nfreezer(arguments).exits(code);
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        let listed =
            self.env.nfreezer(["ls", "--recursive", &format!("latest:{}", self.env.path("top").display())]).success();
        assert!(listed.stdout.contains("file") && listed.stdout.contains("zone"), "{}", listed.stdout);
        output.stderr
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.mount).status());
        signal(self.serving, Signal::KILL);
    }
}

#[test]
fn an_excluded_mount_that_hangs_is_not_touched() {
    let stopped = Stopped::new();
    for options in [&["-e", "dead"][..], &["-e", "dead/"], &["-e", "/**/top/dead/"], &["--iexclude", "DEAD/"]] {
        assert_eq!(stopped.push(options, 0), "", "{options:?}");
    }
    stopped.env.write("top/.nfreezerignore", "dead/\n");
    assert_eq!(stopped.push(&[], 0), "");
}

#[test]
fn a_mounted_backup_that_hangs_is_left_out_by_its_device() {
    let stopped = Stopped::new();
    for options in [&[][..], &["-x"]] {
        let said = stopped.push(options, 0);
        assert!(said.contains("top/dead") && said.contains("mounted backup"), "{said}");
    }
}

/// Keeps what is left out.
#[derive(Default)]
struct Skipped(Mutex<Vec<String>>);

impl Progress for Skipped {
    fn event(&self, event: Event<'_>) {
        if let Event::Skipped { path, why } = event {
            self.0.lock().unwrap().push(format!("{}: {why}", String::from_utf8_lossy(path)));
        }
    }
}

fn push_top(stopped: &Stopped, one_file_system: bool) -> (push::Summary, Vec<String>) {
    let saved = Saved::new();
    let mut select = push::Select::default();
    select.one_file_system = one_file_system;
    let options = Options {
        sources: vec![stopped.env.path("top")],
        host: "host".into(),
        user: "user".into(),
        select: select.into(),
        patience: Duration::from_millis(300),
        ..Options::default()
    };
    let skipped = Skipped::default();
    let start = Instant::now();
    let summary = push::push(&background().with_progress(&skipped), &saved.repo, &options).unwrap();
    assert!(start.elapsed() < SOON);
    (summary, skipped.0.into_inner().unwrap())
}

#[test]
fn a_mount_that_does_not_answer_is_reported_and_the_rest_is_saved() {
    let stopped = Stopped::new();
    let (summary, skipped) = push_top(&stopped, false);
    let dead = format!("{}: cannot look at it: its file system does not answer", stopped.mount.display());
    assert_eq!(skipped, [dead]);
    assert_eq!((summary.new, summary.skipped), (2, 1));
    let (summary, skipped) = push_top(&stopped, true);
    assert_eq!((summary.new, summary.skipped, skipped.len()), (2, 0, 0), "an empty folder stands for the mount");
}

#[test]
fn a_mount_that_stops_while_it_is_open_is_given_up() {
    let stopped = Stopped::new();
    signal(stopped.serving, Signal::CONT);
    // The names below the mount are known to the kernel; its files are not.
    assert!(stopped.mount.join("latest").read_dir().unwrap().count() > 0);
    signal(stopped.serving, Signal::STOP);
    let (summary, skipped) = push_top(&stopped, false);
    assert!(!skipped.is_empty() && skipped.iter().all(|line| line.contains("/top/dead")), "{skipped:?}");
    assert!(skipped.iter().any(|line| line.contains("does not answer")), "{skipped:?}");
    assert_eq!(summary.new, 2);
}

#[test]
fn sigterm_ends_a_command_that_waits_for_a_mount() {
    let stopped = Stopped::new();
    for arguments in
        [&["push", "top/dead/latest"][..], &["push", "top", "--source-timeout", "10m", "--files-from", "top/dead/x"]]
    {
        let mut child = stopped.env.command(arguments).spawn().unwrap();
        let state = format!("/proc/{}/task", child.id());
        eventually("it waits", || waits_for_fuse(Path::new(&state)));
        let start = Instant::now();
        signal(child.id(), Signal::TERM);
        assert_eq!(child.wait().unwrap().code(), Some(143), "{arguments:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{arguments:?}: {:?}", start.elapsed());
    }
}

/// Returns whether the thread of the command is in a call on a file.
fn waits_for_fuse(threads: &Path) -> bool {
    let calls =
        [libc::SYS_openat, libc::SYS_statx, libc::SYS_readlink, libc::SYS_newfstatat].map(|call| call.to_string());
    let Ok(threads) = threads.read_dir() else { return false };
    threads.flatten().any(|thread| {
        let call = std::fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        calls.iter().any(|one| call.split(' ').next() == Some(one))
    })
}

// ------------------------------------------------------------------------------------------------ files of the kernel

#[test]
fn files_of_proc_and_sys_are_saved_to_their_end() {
    let env = Env::with_repository();
    let files =
        ["/proc/version", "/proc/sys/kernel/ostype", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"];
    let files: Vec<&str> =
        files.into_iter().filter(|file| std::fs::read(file).is_ok_and(|bytes| !bytes.is_empty())).collect();
    assert!(files.iter().any(|file| file.starts_with("/proc")) && files.iter().any(|file| file.starts_with("/sys")));
    for _ in 0..2 {
        let output = env.nfreezer(["push"].iter().chain(&files)).success();
        assert!(!output.stderr.contains("changed"), "{}", output.stderr);
        env.nfreezer(["restore", "latest", "--target", "out"]).done();
        for file in &files {
            let restored = std::fs::read(env.path("out").join(&file[1..])).unwrap();
            assert_eq!(restored, std::fs::read(file).unwrap(), "{file}");
        }
        std::fs::remove_dir_all(env.path("out")).unwrap();
    }
}
