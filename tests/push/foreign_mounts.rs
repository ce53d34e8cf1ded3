//! Mounts below a source that hang or belong to another user never stop a push.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::cli::{Env, PASSPHRASE};
use crate::harness::copy_program;
use crate::harness::mounted::{eventually, require_fuse, serving};
use crate::harness::process::{hermetic, run};
use crate::harness::root::{as_nobody, needs_root};
use crate::harness::saved::Saved;
use crate::harness::sshd::signal;
use crate::odd_fuse::{FILES, OddMount};
use nfreezer::context::background;
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{self, Options};
use nfreezer::trees::Trees;

/// Most time that a push takes, also on a busy machine, unless it waits for the mount.
const SOON: Duration = Duration::from_secs(120);

/// A mounted backup at `top/dead` whose process is stopped, and `top/file` beside it.
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

    /// Pushes `top` with these options and checks the exit code, the time, and the saved files. Returns the messages.
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

/// Collects the skipped paths, with the reasons.
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
    // The kernel knows the names below the mount, but not its files.
    assert!(stopped.mount.join("latest").read_dir().unwrap().count() > 0);
    signal(stopped.serving, Signal::STOP);
    let (summary, skipped) = push_top(&stopped, false);
    assert!(!skipped.is_empty() && skipped.iter().all(|line| line.contains("/top/dead")), "{skipped:?}");
    assert!(skipped.iter().any(|line| line.contains("does not answer")), "{skipped:?}");
    assert_eq!(summary.new, 2);
}

#[test]
fn sigterm_ends_a_command_that_waits_for_a_mount() {
    if !needs_root("the system calls of a process that lets no other one of its user look") {
        return;
    }
    let stopped = Stopped::new();
    for arguments in [&["push", "top/dead/latest"][..], &["push", "top", "--files-from", "top/dead/x"]] {
        let mut child = stopped.env.command(arguments.iter().chain(&["--source-timeout", "10m"])).spawn().unwrap();
        let state = format!("/proc/{}/task", child.id());
        eventually("it waits", || waits_for_fuse(Path::new(&state)));
        let start = Instant::now();
        signal(child.id(), Signal::TERM);
        assert_eq!(child.wait().unwrap().code(), Some(143), "{arguments:?}");
        assert!(start.elapsed() < SOON, "{arguments:?}: {:?}", start.elapsed());
    }
}

/// Returns whether a thread of the command is in a system call on a file.
fn waits_for_fuse(threads: &Path) -> bool {
    let calls =
        [libc::SYS_openat, libc::SYS_statx, libc::SYS_readlink, libc::SYS_newfstatat].map(|call| call.to_string());
    let Ok(threads) = threads.read_dir() else { return false };
    threads.flatten().any(|thread| {
        let call = std::fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        calls.iter().any(|one| call.split(' ').next() == Some(one))
    })
}

#[test]
fn a_mount_whose_process_is_dead_is_reported_and_the_rest_is_saved() {
    let stopped = Stopped::new();
    signal(stopped.serving, Signal::KILL);
    let status = || std::fs::metadata(&stopped.mount).map(drop).map_err(|e| e.raw_os_error());
    eventually("the mount is dead", || status() == Err(Some(libc::ENOTCONN)));
    for _ in 0..2 {
        let (summary, skipped) = push_top(&stopped, false);
        assert_eq!((summary.skipped, skipped.len()), (1, 1), "{skipped:?}");
        assert!(skipped[0].contains("/top/dead: ") && skipped[0].contains("not connected"), "{skipped:?}");
        let (summary, skipped) = push_top(&stopped, true);
        assert_eq!((summary.skipped, skipped), (0, Vec::new()));
    }
    for options in [&["-x"][..], &["-e", "dead/"], &["-e", "dead"]] {
        let _ = stopped.push(options, 0);
    }
}

#[test]
fn a_mount_of_another_user_is_reported_and_the_rest_is_saved() {
    if !needs_root("the mount of another user") {
        return;
    }
    require_fuse();
    let env = Env::with_repository();
    env.write("top/file", "kept");
    env.write("top/zone/file", "kept");
    let (user, mount) = (env.path("user"), env.path("top/theirs"));
    std::fs::create_dir(&user).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let program = user.join("nfreezer");
    copy_program(env.command([] as [&str; 0]).get_program(), &program);
    run("cp", &["-r", env.path("repo").to_str().unwrap(), user.join("repo").to_str().unwrap()]);
    for path in [&user, &mount] {
        run("chown", &["-R", "65534:65534", path.to_str().unwrap()]);
        let above = path.ancestors().take_while(|above| *above != Path::new("/tmp") && *above != Path::new("/"));
        above.for_each(|above| drop(run("chmod", &["a+rx", above.to_str().unwrap()])));
    }
    let mut command = as_nobody();
    hermetic(&mut command, &user).env("NFREEZER_PASSWORD", PASSPHRASE).current_dir(&user).arg(&program);
    let status = command.args(["mount", "--repo"]).arg(user.join("repo")).arg(&mount).status();
    assert!(status.unwrap().success());
    let unmounted = Unmounted(mount.clone());
    assert_eq!(std::fs::metadata(&mount).unwrap_err().raw_os_error(), Some(libc::EACCES), "root may not look into it");
    let saved = Saved::new();
    let mut seen = Vec::new();
    for one_file_system in [false, true] {
        let mut select = push::Select::default();
        select.one_file_system = one_file_system;
        let sources = vec![env.path("top")];
        let options =
            Options { sources, host: "h".into(), user: "u".into(), select: select.into(), ..Options::default() };
        let skipped = Skipped::default();
        let summary = push::push(&background().with_progress(&skipped), &saved.repo, &options).unwrap();
        seen.push((summary.new + summary.unchanged + summary.changed, skipped.0.into_inner().unwrap()));
    }
    drop(unmounted);
    let theirs = format!("{}: cannot look at it: Permission denied (os error 13)", mount.display());
    assert_eq!(seen, [(2, vec![theirs]), (2, Vec::new())]);
}

/// Unmounts this folder when dropped.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn one_attribute_that_cannot_be_read_and_a_stale_file_lose_only_themselves() {
    require_fuse();
    let dir = tempfile::tempdir().unwrap();
    let odd = OddMount::at(dir.path());
    let saved = Saved::new();
    let sources = vec![dir.path().to_owned()];
    let options = Options { sources, host: "h".into(), user: "u".into(), ..Options::default() };
    let skipped = Skipped::default();
    let summary = push::push(&background().with_progress(&skipped), &saved.repo, &options).unwrap();
    let file = dir.path().join("file0");
    let mut skipped = skipped.0.into_inner().unwrap();
    skipped.sort();
    let why = "cannot read its extended attribute user.bad: Input/output error (os error 5)";
    let stale = "something else took its place while it was being saved; the next push saves that";
    let last = dir.path().join(format!("file{}", FILES - 1));
    assert_eq!(skipped, [format!("{}: {why}", file.display()), format!("{}: {stale}", last.display())]);
    assert_eq!((summary.new, summary.snapshot.stats.unreadable, summary.skipped), (FILES - 1, 1, 2));
    let trees = Trees::new(&saved.repo);
    let node = trees.at(background(), &summary.snapshot, file.to_str().unwrap().as_bytes()).unwrap();
    let pairs = trees.xattrs(background(), &node).unwrap();
    let value = |name: &str| (name.as_bytes().to_vec(), b"v".to_vec());
    assert_eq!(pairs, [value("user.a"), value("user.z")], "and no name of nfreezer is taken from a source");
    assert!(odd.asked.load(Ordering::Relaxed) <= 1, "flags are asked for once: {:?}", odd.asked);
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
        // Folders of /proc are read-only.
        run("chmod", &["-R", "u+w", env.path("out").to_str().unwrap()]);
        std::fs::remove_dir_all(env.path("out")).unwrap();
    }
}
