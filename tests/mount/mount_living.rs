//! Operation of a mount through the binary: start and end, mount(8) and fstab, systemd, logs.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::harness::cli::{Env, PASSPHRASE};
use crate::harness::mounted::{eventually, require_fuse};
use crate::harness::process::{copy_program, hermetic, run};
use crate::harness::root::{as_nobody, needs_root};

/// Returns a repository with one snapshot of `tree/letter`. All tests of this file share it and only read it. It is
/// removed when the last test drops it.
fn backup() -> Arc<Env> {
    static ENV: Mutex<Weak<Env>> = Mutex::new(Weak::new());
    let mut shared = ENV.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        require_fuse();
        let mut env = Env::new();
        let repo = env.path("repo");
        env.set("NFREEZER_REPOSITORY", repo.to_str().unwrap());
        env.nfreezer(["init"]).done();
        env.write("tree/letter", "dear");
        env.nfreezer(["push", "tree"]).done();
        let file = env.write("passphrase", PASSPHRASE);
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let env = Arc::new(env);
        *shared = Arc::downgrade(&env);
        env
    })
}

/// A mount of [`backup`] in its own folder.
struct Mount {
    env: Arc<Env>,
    dir: PathBuf,
}

impl Mount {
    fn point(name: &str) -> Self {
        let env = backup();
        let dir = env.path(name);
        fs::create_dir_all(&dir).unwrap();
        Mount { env, dir }
    }

    fn new(name: &str, options: &[&str]) -> Self {
        let mount = Mount::point(name);
        mount.start(options);
        mount
    }

    fn start(&self, options: &[&str]) {
        self.env.nfreezer([&["mount", self.dir.to_str().unwrap()], options].concat()).done();
    }

    fn letter(&self) -> PathBuf {
        self.dir.join("latest").join(self.env.path("tree/letter").strip_prefix("/").unwrap())
    }

    fn is_mounted(&self) -> bool {
        nfreezer::mount::mounted_at(&self.dir).is_some()
    }

    /// Returns the process that serves the mount.
    fn server(&self) -> Option<u32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let words = [self.dir.to_str().unwrap(), "--background-child"];
        pids.find(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.iter().all(|word| line.split('\0').any(|part| part == *word))
        })
    }

    fn kill(&self, signal: &str) {
        run("kill", &[signal, &self.server().expect("it is served").to_string()]);
    }

    fn gone(&self, how: &str) {
        eventually(&format!("{how}: it is unmounted"), || !self.is_mounted());
        eventually(&format!("{how}: its process has ended"), || self.server().is_none());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-lq").arg(&self.dir).status());
    }
}

#[test]
fn the_command_returns_when_the_mount_answers_and_whatever_unmounts_it_ends_its_process() {
    let mount = Mount::point("ways");
    let dir = mount.dir.to_str().unwrap();
    for how in
        ["nfreezer umount", "nfreezer umount --lazy", "umount", "umount -l", "fusermount3 -u", "-TERM", "-INT", "-HUP"]
    {
        let said = mount.env.nfreezer(["mount", dir]).success();
        assert!(said.stdout.contains(&format!("mounted at {dir}")), "{said:?}");
        assert_eq!(fs::read(mount.letter()).unwrap(), b"dear", "{how}");
        match how.split(' ').collect::<Vec<_>>()[..] {
            // A desktop scans each new mount, which makes it busy for a moment.
            ["nfreezer", ref words @ ..] => {
                eventually(how, || mount.env.nfreezer([words, &[dir]].concat()).code == 0);
            }
            [signal] if signal.starts_with('-') => mount.kill(signal),
            ref words => {
                let mut command = Command::new(words[0]);
                command.args(&words[1..]).arg(dir);
                eventually(how, || command.status().is_ok_and(|status| status.success()));
            }
        }
        mount.gone(how);
    }
    let said = mount.env.nfreezer(["umount", dir]).exits(1);
    assert!(said.stderr.contains("no backup is mounted at"), "{}", said.stderr);
}

#[test]
fn what_a_killed_process_leaves_is_mended_by_the_next_mount_and_taken_away_by_umount() {
    let mount = Mount::new("killed", &[]);
    let dir = mount.dir.to_str().unwrap();
    for again in [true, false] {
        mount.kill("-KILL");
        eventually("it is dead", || fs::metadata(&mount.dir).is_err());
        match again {
            true => {
                mount.env.nfreezer(["mount", dir]).done();
                assert_eq!(fs::read(mount.letter()).unwrap(), b"dear");
            }
            false => mount.env.nfreezer(["umount", dir]).done(),
        }
    }
    mount.gone("umount");
}

#[test]
fn where_the_command_refuses_to_mount_and_why() {
    let mut env = Env::new();
    let repo = env.path("repo");
    env.set("NFREEZER_REPOSITORY", repo.to_str().unwrap());
    env.nfreezer(["init"]).done();
    env.write("tree/letter", "dear");
    env.nfreezer(["push", "tree"]).done();
    fs::remove_file(env.path("tree/letter")).unwrap();
    // The refusals come before the request for the passphrase where that is possible.
    let refused = |place: &Path, options: &[&str], why: &str| {
        let said = env.nfreezer([&["mount", place.to_str().unwrap()], options].concat()).exits(1);
        assert!(said.stderr.contains(why), "{place:?}: {}", said.stderr);
    };
    refused(&repo, &["--nonempty"], "hide its own repository");
    fs::create_dir(repo.join("log/inside")).unwrap();
    refused(&repo.join("log/inside"), &[], "hide its own repository");
    refused(&env.path(""), &["--nonempty"], "hide its own repository");
    refused(&repo.join("log"), &[], "is not empty");
    refused(&env.path("nowhere/deep"), &[], "make the folder first");
    refused(&env.path("tree"), &[], "a source of the newest backup");
    env.nfreezer(["mount", "tree", "--nonempty"]).done();
    env.nfreezer(["umount", "tree"]).done();
    let mount = env.path("m");
    fs::create_dir(&mount).unwrap();
    env.nfreezer(["mount", "--idle-unmount", "0", "m"]).fails(2);
    let said = env.nfreezer(["mount", "--log-file", "nowhere/log", "m"]).exits(1);
    assert!(said.stderr.contains("cannot open the log"), "{}", said.stderr);
    assert!(nfreezer::mount::mounted_at(&mount).is_none());
}

/// Runs a script in a mount namespace with a writable copy of /usr/sbin.
fn with_own_sbin(script: &str) -> String {
    let env = backup();
    let work = env.path("sbin");
    fs::create_dir(&work).unwrap();
    let prepare = r#"
        set -e; cd "$1"; mkdir old new bin dir
        mount --bind /usr/sbin old; for f in old/*; do ln -s "$PWD/$f" new/; done; mount --bind new /usr/sbin
        mount --bind bin /usr/local/bin
    "#;
    let mut command = env.command([] as [&str; 0]);
    let nfreezer = command.get_program().to_owned();
    command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{prepare}\n{script}"), "sh"]);
    command.args([work.as_os_str(), &nfreezer, env.path("repo").as_os_str(), env.path("passphrase").as_os_str()]);
    command.arg(env.path("tree/letter"));
    command.arg(env.path("tree/letter"));
    let output = hermetic(&mut command, &env.home()).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn mount_8_and_fstab_know_it() {
    if !needs_root("mount(8) and a mount namespace") {
        return;
    }
    let said = with_own_sbin(
        r#"
        letter=$5; ln -s "$2" new/mount.fuse.nfreezer
        show() { findmnt -n -o SOURCE,FSTYPE,OPTIONS "$PWD/dir"; cat "dir/latest$letter"; umount dir; }
        mount -t fuse.nfreezer "$3" "$PWD/dir" -o "password_file=$4,allow_other,noexec,dev,nofail,_netdev,x-systemd.automount"
        show
        echo "$3 $PWD/dir fuse.nfreezer ro,_netdev,nofail,user,password_file=$4,io_timeout=9s,x-systemd.automount 0 0" >fstab
        mount -T fstab "$PWD/dir"
        mount -a -T fstab && echo twice is no failure
        show
        for wrong in nonsense allow_other=1 io_timeout=never; do
            mount -t fuse.nfreezer "$3" "$PWD/dir" -o "password_file=$4,$wrong" 2>&1 || echo "code $?"
        done
        echo wrong >wrong
        mount -t fuse.nfreezer "$3" "$PWD/dir" -o "password_file=$PWD/wrong" 2>&1 || echo "code $?"
        "$PWD/new/mount.fuse.nfreezer" "$3" "$PWD/dir" -f -o "password_file=$4" && ! findmnt "$PWD/dir" && echo nothing done
        rm new/mount.fuse.nfreezer
        ln -s "$2" bin/nfreezer
        mount -t fuse.nfreezer "$3" "$PWD/dir" -o "password_file=$4" && echo by mount.fuse3
        show
        "#,
    );
    // The output contains these texts in this order, with other lines in between.
    let expected = [
        "/repo fuse.nfreezer ro,nosuid,nodev,noexec,",
        "deartwice is no failure",
        "/repo fuse.nfreezer ro,nosuid,nodev,noexec,",
        "dearnfreezer: error: unknown mount option nonsense",
        "hint: known are the long options of `nfreezer mount --help`",
        "code 1",
        "error: the option allow_other takes no value",
        "code 1",
        "invalid value 'never' for '--io-timeout",
        "code 1",
        "nfreezer: error: ",
        "code 32",
        "nothing done",
        "by mount.fuse3",
        "/repo fuse.nfreezer ro,",
        "dear",
    ];
    let mut lines = said.lines();
    for expected in expected {
        assert!(lines.any(|line| line.contains(expected)), "{expected:?} is missing, or not at its place, in:\n{said}");
    }
    let options: Vec<&str> = said.lines().filter(|line| line.contains(" fuse.nfreezer ")).collect();
    assert!(options[0].contains(",default_permissions,allow_other"), "{options:?}");
    assert!(!options[1].contains("allow_other"), "{options:?}");
}

/// A process in the foreground that is killed on drop.
struct Foreground(Child);

impl Drop for Foreground {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_unit_tells_systemd_when_it_is_ready_and_when_it_stops() {
    let unit = include_str!("../../scripts/nfreezer-mount.service");
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nWantedBy=default.target\n"));
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let path = unit.lines().find_map(|line| line.strip_prefix("Environment=PATH=")).unwrap();
    let env = backup();
    let socket = env.path("notify");
    let name = format!("nfreezer-test-{}", std::process::id());
    for (i, (listener, address)) in [
        (UnixDatagram::bind(&socket).unwrap(), socket.display().to_string()),
        (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(), format!("@{name}")),
    ]
    .into_iter()
    .enumerate()
    {
        let mount = Mount::point(&format!("home{i}/Backup"));
        let home = mount.dir.parent().unwrap().to_str().unwrap();
        // The folders into which cargo and pip install for one user.
        let bin = format!("{home}/{}", [".cargo/bin", ".local/bin"][i]);
        fs::create_dir_all(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_nfreezer"), format!("{bin}/nfreezer")).unwrap();
        let words: Vec<String> = start.split(' ').map(|word| word.replace("%h", home)).collect();
        let mut command = Command::new(&words[0]);
        let prepared = env.command([""; 0]);
        command.args(&words[1..]).env_clear();
        command.envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", path.replace("%h", home)).current_dir(prepared.get_current_dir().unwrap());
        let mut child = Foreground(command.env("NOTIFY_SOCKET", address).spawn().unwrap());
        listener.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let hear = || {
            let mut buffer = [0; 1000];
            let n = listener.recv(&mut buffer).expect("it says something");
            String::from_utf8(buffer[..n].to_vec()).unwrap()
        };
        let said = hear();
        assert_eq!(fs::read(mount.letter()).unwrap(), b"dear", "it is ready when it says so");
        let pid = child.0.id();
        assert!(said.starts_with(&format!("READY=1\nMAINPID={pid}\nSTATUS=")), "{said}");
        assert!(said.ends_with(&format!("/repo is mounted at {}", mount.dir.display())), "{said}");
        run("kill", &["-TERM", &pid.to_string()]);
        assert_eq!(hear(), "STOPPING=1\nSTATUS=unmounting");
        assert!(child.0.wait().unwrap().success());
        assert!(!mount.is_mounted());
    }
}

#[test]
fn messages_and_figures_go_to_the_log_file_with_their_time() {
    let mount = Mount::new("logged", &["--log-file", "logged.log"]);
    let log = mount.env.path("logged.log");
    let text = || fs::read_to_string(&log).unwrap_or_default();
    assert_eq!(fs::metadata(&log).unwrap().len(), 0, "nothing happened yet");
    assert_eq!(fs::read(mount.letter()).unwrap(), b"dear");
    mount.kill("-USR1");
    let complete = |text: String| text.contains("connections made");
    eventually("the figures are there", || complete(text()));
    for line in text().lines() {
        let (time, rest) = line.split_at(20);
        jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S ", time).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(!rest.is_empty());
    }
    let said = text();
    for figures in ["requests: ", " lookups, ", " reads (", "blocks: ", " from memory, ", " fetched in ", "fetched: "] {
        assert!(said.contains(figures), "{figures} is missing in {said}");
    }
    assert!(!said.contains("fetched: 0 bytes of contents, 0 of folders"), "{said}");
    assert!(!said.contains(", 0 of the log"), "{said}");
    fs::rename(&log, log.with_extension("1")).unwrap();
    mount.kill("-USR1");
    eventually("a log that was moved away begins anew", || complete(text()));
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&log).unwrap());
    assert_eq!(mode & 0o777, 0o600, "names of files are nobody else's business");
    mount.env.nfreezer(["umount", "logged"]).done();
}

#[test]
fn it_unmounts_when_nobody_uses_it() {
    let mount = Mount::point("idle");
    let letter = mount.letter();
    // Opens the file as soon as it is there: within the idle period, also on a busy machine.
    let opener = std::thread::spawn(move || {
        let mut open = None;
        eventually("it is mounted", || {
            open = fs::File::open(&letter).ok();
            open.is_some()
        });
        open
    });
    mount.start(&["--idle-unmount", "1s", "--log-file", "idle.log"]);
    let open = opener.join().unwrap();
    // Longer than two idle periods, after which an unused mount is unmounted.
    std::thread::sleep(Duration::from_millis(3500));
    assert!(mount.is_mounted());
    drop(open);
    mount.gone("nobody uses it");
    assert!(fs::read_to_string(mount.env.path("idle.log")).unwrap().contains("it was not used"));
}

#[test]
fn an_ordinary_users_mount_unmounts_too_when_nobody_uses_it() {
    if !needs_root("another user beside root") {
        return;
    }
    let env = backup();
    let root = env.path("user");
    fs::create_dir(&root).unwrap();
    let program = root.join("nfreezer");
    copy_program(env.command([] as [&str; 0]).get_program(), &program);
    run("cp", &["-r", env.path("repo").to_str().unwrap(), root.join("repo").to_str().unwrap()]);
    run("chown", &["-R", "65534:65534", root.to_str().unwrap()]);
    let path = |path: &Path| run("chmod", &["a+rx", path.to_str().unwrap()]);
    root.ancestors().take_while(|p| *p != Path::new("/tmp") && *p != Path::new("/")).for_each(|p| drop(path(p)));
    let mount = Mount::point("user/m");
    let mut command = as_nobody();
    hermetic(&mut command, &root).env("NFREEZER_PASSWORD", PASSPHRASE).current_dir(&root).arg(&program);
    command.args(["mount", "--idle-unmount", "1s", "--repo"]).arg(root.join("repo")).arg(&mount.dir);
    run("chown", &["65534:65534", mount.dir.to_str().unwrap()]);
    assert!(command.status().unwrap().success());
    mount.gone("nobody uses it");
}
