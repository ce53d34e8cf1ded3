//! Real mounts. Without FUSE these tests fail instead of being skipped.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::harness::mounted::{Mounted, blocked, eventually, fuse_descriptors, require_fuse, run};
use crate::harness::repository;
use crate::harness::root::{as_nobody, needs_root};
use crate::harness::stalled::{Stall, Stalled};
use crate::harness::tree::noise;
use crate::harness::writer::{Item, Writer};
use nfreezer::context::background;
use nfreezer::format::node::Content;
use nfreezer::mount;
use nfreezer::name::{Folder, Name};
use nfreezer::push;
use nfreezer::repo::{Repository, State};
use nfreezer::storage::{Memory, Storage};

fn pushed(tree: &Item) -> (Arc<Memory>, Arc<Repository>, State) {
    let memory = Arc::<Memory>::default();
    let repo = Arc::new(repository::init(memory.clone()));
    let mut state = State::default();
    Writer::new(&repo).commit(&mut state, tree, |_| {});
    (memory, repo, state)
}

/// Opens a repository with empty caches.
fn cold(storage: Arc<dyn Storage>) -> Arc<Repository> {
    Arc::new(repository::open(storage))
}

fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

#[test]
fn every_kind_of_node_comes_back_equal() {
    if !needs_root("devices, owners and capabilities") {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let s = source.path();
    let script = r#"
        cd "$1"; umask 022
        mkdir -p a/b/c empty 'a b'; printf x > a/x; ln a/x a/b/y; ln -s ../x a/b/link; ln -s /nowhere/$(printf 'n%.0s' $(seq 200)) dangling
        mkfifo fifo; mknod char c 5 1; mknod block b 8 300; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
        printf '' > zero; head -c 3000000 /dev/urandom > random; seq 300000 > text
        truncate -s 50M sparse; printf end >> sparse; truncate -s 3M hole
        for i in $(seq 0 20); do printf "part $i" | dd of=many bs=1 seek=$((i * 1000000)) conv=notrunc status=none; done
        printf s > setuid; chown 12:34 setuid; chmod 6711 setuid; chmod 1777 empty; chmod 0 zero
        printf n > "$(printf 'line\nbreak\033[31m')"; printf n > "$(printf 'latin-\351')"; printf n > $(printf 'l%.0s' $(seq 255)); printf . > .dot
        setfattr -n user.note -v hello a/x; setfattr -n user.dir -v d a; setfattr -n trusted.t -v t text
        setfattr -n user.large -v "$(head -c 3900 /dev/zero | tr '\0' v)" text
        setfacl -m u:daemon:rx,g:bin:r a/b; setfacl -d -m u:daemon:rwx a/b; setfacl -m u:bin:rw random
        setcap cap_net_bind_service+ep text 2>/dev/null || true
        touch -h -d '1960-02-03 04:05:06.789' a/b/link; touch -d '2100-01-01 00:00:00.000000001' text; touch -d '1901-12-13 20:45:52' zero
        mkdir many-files; cd many-files; for i in $(seq 3000); do echo $i > $i; done
    "#;
    run("bash", &["-ec", script, "bash", s.to_str().unwrap()]);
    let (memory, repo) = repository::in_memory();
    let options = push::Options { sources: vec![s.to_owned()], host: "host".into(), ..Default::default() };
    push::push(background(), &repo, &options).unwrap();
    let mount = Mounted::new(cold(memory), repo.state(background()).unwrap());
    let (shown, target) = (mount.path(&format!("latest{}/", s.display())), tempfile::tempdir().unwrap());
    let compare = |from: &Path| {
        let args = ["-naHAX", "--numeric-ids", "--delete", "--checksum", "--itemize-changes"];
        let paths = [format!("{}/", from.display()), format!("{}/", s.display())];
        run("rsync", &[&args[..], &paths.each_ref().map(String::as_str)].concat())
    };
    assert_eq!(compare(&shown), "");
    run("cp", &["-a", &format!("{}.", shown.display()), target.path().to_str().unwrap()]);
    assert_eq!(compare(target.path()), "");
    for sparse in ["sparse", "hole", "many"] {
        let (from, to) = (s.join(sparse).metadata().unwrap(), target.path().join(sparse).metadata().unwrap());
        assert!(to.blocks() <= from.blocks() + 8, "{sparse}: {} blocks became {}", from.blocks(), to.blocks());
    }
    assert_eq!(run("getfattr", &["--only-values", "-n", "user.note", shown.join("a/b/y").to_str().unwrap()]), "hello");
    assert!(run("getfacl", &["-pc", shown.join("random").to_str().unwrap()]).contains("user:bin:rw-"));
    let y = shown.join("a/b/y").metadata().unwrap();
    assert_eq!((y.nlink(), y.ino()), (2, shown.join("a/x").metadata().unwrap().ino()));
    run("tar", &["-C", shown.to_str().unwrap(), "--acls", "--xattrs", "-cSf", "/dev/null", "."]);
}

#[test]
fn nothing_can_be_changed_and_the_options_are_there() {
    let tree = Item::dir([
        ("f", Item { mode: 0o777, ..Item::file("#!/bin/sh\nexit 0\n") }),
        ("c", Item::other(Content::Char(1, 3))),
    ]);
    let (_, repo, state) = pushed(&tree);
    let mount = Mounted::new(repo, state);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let row = table.lines().find(|line| line.contains(mount.path("").to_str().unwrap().trim_end_matches('/'))).unwrap();
    let (options, rest) = row.split_once(" - ").unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(options.split([' ', ',']).any(|o| o == option), "{option} in {row}");
    }
    assert!(rest.starts_with("fuse.nfreezer nfreezer:memory "), "{row}");
    let f = mount.path("latest/f");
    assert_eq!(errno(fs::write(&f, "x")), Some(libc::EROFS));
    assert_eq!(errno(fs::remove_file(&f)), Some(libc::EROFS));
    assert_eq!(errno(fs::rename(&f, mount.path("latest/g"))), Some(libc::EROFS));
    assert_eq!(errno(fs::create_dir(mount.path("new"))), Some(libc::EROFS));
    assert_eq!(errno(fs::set_permissions(&f, fs::Permissions::from_mode(0o0))), Some(libc::EROFS));
    assert_eq!(errno(fs::File::open(mount.path("latest/c"))), Some(libc::EACCES), "a device cannot be opened");
    assert_eq!(errno(fs::metadata(mount.path(&format!("latest/{}", "n".repeat(256))))), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(fs::metadata(mount.path(&format!("latest/{}", "n".repeat(255))))), Some(libc::ENOENT));
    run("df", &[mount.path("").to_str().unwrap()]);
}

#[test]
fn no_descriptor_is_left_behind() {
    // Other tests of this process mount too, so the test checks the descriptors of a separate process.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mount::one_mount_that_looks_at_its_descriptors", "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "a process of its own, for `no_descriptor_is_left_behind`"]
fn one_mount_that_looks_at_its_descriptors() {
    require_fuse();
    let (_, repo, state) = pushed(&Item::dir([("f", Item::file("x"))]));
    let mount = Mounted::new(repo, state);
    assert!(fuse_descriptors() > 0);
    assert_eq!(fs::read(mount.path("latest/f")).unwrap(), b"x");
    drop(mount);
    eventually("descriptors of /dev/fuse are closed", || fuse_descriptors() == 0);
}

#[test]
fn a_corrupted_object_is_an_error_of_its_file_only_each_time_and_named() {
    let tree = Item::dir([("bad", Item::file(noise(1, 3_000_000))), ("good", Item::file(noise(2, 2_500_000)))]);
    let (memory, _, state) = pushed(&tree);
    let packs = (0..16).flat_map(|x| memory.list(background(), Folder::PackShard(x)).unwrap());
    let name = packs.max_by_key(|e| e.size).unwrap().name;
    let mut bytes = memory.get(&name).unwrap();
    bytes[2_000_000] ^= 1;
    memory.overwrite(&name, bytes);
    let mount = Mounted::new(cold(memory), state);
    for _ in 0..2 {
        assert_eq!(errno(fs::read(mount.path("latest/bad"))), Some(libc::EIO));
    }
    assert_eq!(fs::read(mount.path("latest/good")).unwrap(), noise(2, 2_500_000));
    let mut begin = vec![0; 1 << 20];
    fs::File::open(mount.path("latest/bad")).unwrap().read_exact(&mut begin).unwrap();
    assert_eq!(begin, noise(1, 3_000_000)[..1 << 20]);
    let map = "import mmap,sys; f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ); print(m[2000000-99])";
    let mapped =
        Command::new("python3").args(["-c", map, mount.path("latest/bad").to_str().unwrap()]).output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&mapped.status), Some(libc::SIGBUS), "{mapped:?}");
    let Name::Pack(id) = name else { unreachable!() };
    let messages = mount.messages.lock().unwrap();
    let named = |m: &String| m.contains(&id.to_string()) && m.contains("/latest/bad");
    assert!(messages.iter().any(named), "{messages:?}");
}

fn stalled_tree() -> Item {
    let dirs = (0..30u8).map(|i| (format!("d{i}"), Item::dir([(format!("f{i}"), Item::file([i]))])));
    let closed = Item::dir([("inside", Item::file("of the owner"))]);
    let others = [
        ("big".into(), Item::file(noise(1, 8_000_000))),
        ("secret".into(), Item { mode: 0o600, ..Item::file("of the owner") }),
        ("closed".into(), Item { mode: 0o700, ..closed }),
    ];
    Item::dir(dirs.chain(others))
}

/// Reads a file at 40 places at once through a new mount while the storage hangs, and calls `meanwhile` once most of
/// them wait, with the number of reads that have ended. Returns the errors and the durations of the reads.
fn read_while_it_hangs(
    storage: &Arc<Stalled>,
    state: &State,
    timeout: Duration,
    meanwhile: impl Fn(&Mounted, &AtomicUsize),
) -> Vec<(Option<i32>, Duration)> {
    let mount = Mounted::with(cold(storage.clone()), state.clone(), |o| o.io_timeout = timeout);
    let (big, ended) = (mount.path("latest/big"), AtomicUsize::new(0));
    assert_eq!(fs::metadata(&big).unwrap().len(), 8_000_000);
    storage.hang(true);
    let results = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..40u64)
            .map(|i| {
                let (big, ended) = (&big, &ended);
                scope.spawn(move || {
                    let file = fs::File::open(big).unwrap();
                    let start = Instant::now();
                    let result = file.read_at(&mut [0; 100], i * 200_000);
                    ended.fetch_add(1, SeqCst);
                    (errno(result), start.elapsed())
                })
            })
            .collect();
        eventually("reads wait", || mount.count(" waited") > 20);
        meanwhile(&mount, &ended);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    storage.hang(false);
    assert!(fs::read(&big).unwrap() == noise(1, 8_000_000), "no read fails after the storage answers again");
    results
}

#[test]
fn a_storage_that_hangs_holds_up_no_lookup_and_reads_end_in_time() {
    let (memory, _, state) = pushed(&stalled_tree());
    let storage = Stalled::with(memory, Stall::default());
    let answered = read_while_it_hangs(&storage, &state, Duration::from_secs(60), |mount, ended| {
        run("ls", &["-lR", mount.path("latest").to_str().unwrap()]);
        assert_eq!(ended.load(SeqCst), 0, "no look-up waits for a read");
        storage.hang(false);
    });
    assert!(answered.iter().all(|(errno, _)| errno.is_none()), "{answered:?}");
    for (errno, time) in read_while_it_hangs(&storage, &state, Duration::from_secs(5), |_, _| ()) {
        assert_eq!(errno, Some(libc::EIO));
        assert!(time < Duration::from_secs(10), "the kernel's repetition waits a second time: {time:?}");
    }
}

#[test]
fn the_readme_is_an_ordinary_read_only_file() {
    let (memory, _, state) = pushed(&Item::dir([("a", Item::file("x"))]));
    let mount = Mounted::new(cold(memory), state);
    let readme = mount.path("README");
    let text = fs::read_to_string(&readme).unwrap();
    assert!(text.contains("versions/PATH/") && text.len() as u64 == fs::metadata(&readme).unwrap().len());
    let copies = tempfile::tempdir().unwrap();
    run("cp", &["-a", readme.to_str().unwrap(), copies.path().to_str().unwrap()]);
    assert_eq!(fs::read_to_string(copies.path().join("README")).unwrap(), text);
    assert_eq!(errno(fs::OpenOptions::new().write(true).open(&readme)), Some(libc::EROFS));
    assert_eq!(errno(fs::read_dir(&readme)), Some(libc::ENOTDIR));
}

#[test]
fn requests_that_timed_out_leave_no_worker_behind() {
    let (memory, _, state) = pushed(&stalled_tree());
    let storage = Stalled::with(memory, Stall::default());
    let mount = Mounted::with(cold(storage.clone()), state, |o| o.io_timeout = Duration::from_secs(1));
    let path = |i: usize| mount.path(&format!("latest/d{i}/f{i}"));
    eventually("the mount answers", || fs::metadata(mount.path("latest")).is_ok());
    storage.metadata_too.store(true, SeqCst);
    // Reads that hang from now on end only when the mount cancels them.
    storage.for_ever.store(true, SeqCst);
    storage.hang(true);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..30).map(|i| scope.spawn(move || errno(fs::metadata(path(i))))).collect();
        all.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), Some(libc::EIO)));
    });
    storage.hang(false);
    eventually("names are found again", || (0..30).all(|i| fs::read(path(i)).is_ok_and(|b| b == [i as u8])));
    let body = noise(1, 8_000_000);
    eventually("contents are read", || fs::read(mount.path("latest/big")).is_ok_and(|bytes| bytes == body));
}

#[test]
fn it_can_be_unmounted_while_everything_hangs() {
    let (memory, _, state) = pushed(&stalled_tree());
    let storage = Stalled::with(memory, Stall::default());
    let mount = Mounted::new(cold(storage.clone()), state);
    let big = fs::File::open(mount.path("latest/big")).unwrap();
    storage.metadata_too.store(true, SeqCst);
    storage.hang(true);
    let reader = std::thread::spawn(move || errno(big.read_at(&mut [0; 100], 5_000_000)));
    eventually("a read waits", || mount.count(" waited") > 1);
    drop(mount);
    assert_eq!(reader.join().unwrap(), Some(libc::EIO));
    storage.hang(false);
}

#[test]
fn latest_follows_a_push_without_a_remount() {
    let (memory, repo, mut state) = pushed(&Item::dir([("f", Item::file("old"))]));
    let mount = Mounted::with(cold(memory), state.clone(), |o| o.refresh = Some(Duration::from_millis(50)));
    assert_eq!(fs::read(mount.path("latest/f")).unwrap(), b"old");
    assert_eq!(fs::read_dir(mount.path("snapshots")).unwrap().count(), 1);
    let old = fs::File::open(mount.path("latest/f")).unwrap();
    Writer::new(&repo).commit(&mut state, &Item::dir([("f", Item::file("newer"))]), |s| s.time.seconds += 1);
    eventually("the new one is there", || fs::read(mount.path("latest/f")).unwrap() == b"newer");
    assert_eq!(fs::read_dir(mount.path("snapshots")).unwrap().count(), 2);
    let mut text = String::new();
    (&old).read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
}

#[test]
fn where_it_does_not_mount() {
    require_fuse();
    let (_, repo, state) = pushed(&Item::dir([("f", Item::file("x"))]));
    let dir = tempfile::tempdir().unwrap();
    let start = |path: &Path, nonempty| {
        let options = mount::Options { nonempty, ..mount::Options::default() };
        mount::Mounted::start(background(), repo.clone(), state.clone(), path, options).map_err(|e| e.to_string())
    };
    fs::write(dir.path().join("file"), "x").unwrap();
    let refused = |r: std::result::Result<mount::Mounted, String>, why: &str| {
        let e = r.err().unwrap();
        assert!(e.contains(why), "{e}");
    };
    refused(start(&dir.path().join("nothing"), false), "nothing");
    refused(start(&dir.path().join("file"), false), "mount at");
    refused(start(dir.path(), false), "not empty");
    let mounted = start(dir.path(), true).unwrap();
    refused(start(dir.path(), true), "mounted at");
    // The mount can be busy for a moment: a desktop scans each new mount, and a child of another test's thread holds
    // the open files of this process between fork and exec.
    eventually("it can be unmounted", || mount::release(dir.path(), false).is_ok());
    assert!(mounted.wait(Duration::from_secs(60)), "an umount from outside ends it");
    drop(mounted);
    let e = mount::release(dir.path(), false).unwrap_err().to_string();
    assert!(e.contains("no backup is mounted"), "{e}");
    assert!(dir.path().join("file").exists());
}

/// Serves a mount of [`stalled_tree`], with the signal handling of a mount. Not a test: [`Helper`] starts it as a
/// process.
#[test]
#[ignore = "started by other tests"]
fn helper() {
    let Ok(dir) = std::env::var("NFREEZER_TEST_MOUNT") else { return };
    let (memory, _, state) = pushed(&stalled_tree());
    let storage = Stalled::with(memory, Stall::default());
    let repo = cold(storage.clone());
    let options = mount::Options {
        allow_other: std::env::var("NFREEZER_TEST_OTHERS").is_ok(),
        view: nfreezer::vfs::Options {
            rights: nfreezer::vfs::Rights {
                owner: std::env::var("NFREEZER_TEST_OWNER").is_ok().then_some((65534, 65534)),
                ..Default::default()
            },
            ..Default::default()
        },
        log: Arc::new(|line| eprintln!("{line}")),
        ..Default::default()
    };
    mount::serve(background(), repo, state, Path::new(&dir), options, |phase| {
        if matches!(phase, mount::Phase::Stopping) {
            return Ok(());
        }
        storage.hang(std::env::var("NFREEZER_TEST_HANG").is_ok());
        println!("READY");
        Ok(())
    })
    .unwrap();
    println!("ENDED");
    std::process::exit(0);
}

struct Helper {
    child: std::process::Child,
    out: std::io::BufReader<std::process::ChildStdout>,
    dir: tempfile::TempDir,
}

impl Helper {
    fn start(before: &[&str], env: &[&str]) -> Self {
        use std::io::BufRead;
        require_fuse();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let exe = std::env::current_exe().unwrap();
        // An ordinary user must be able to run the copy and to mount at the folder.
        let copy = dir.path().with_extension("exe");
        crate::harness::copy_program(exe, &copy);
        let folder = dir.path().join("m");
        fs::create_dir(&folder).unwrap();
        if !before.is_empty() {
            std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).unwrap();
        }
        let words: Vec<&str> = before.iter().copied().chain([copy.to_str().unwrap()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["--exact", "mount::helper", "--ignored", "--nocapture"]);
        command.env("NFREEZER_TEST_MOUNT", &folder).stdout(std::process::Stdio::piped());
        command.envs(env.iter().map(|name| (name, "1")));
        let mut child = command.spawn().unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("READY") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the helper ended");
        }
        fs::remove_file(copy).unwrap();
        Helper { child, out, dir }
    }

    fn path(&self, below: &str) -> std::path::PathBuf {
        self.dir.path().join("m").join(below)
    }

    fn mounted(&self) -> Option<mount::TableEntry> {
        mount::mounted_at(&self.dir.path().canonicalize().unwrap().join("m"))
    }

    fn signal(&self, signal: &str) {
        run("kill", &[signal, &self.child.id().to_string()]);
    }

    fn end(&mut self) -> (bool, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().success(), rest)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(Command::new("umount").arg("-lq").arg(self.path("")).status());
    }
}

#[test]
fn sigterm_unmounts_while_a_reader_is_busy() {
    let mut helper = Helper::start(&[], &["NFREEZER_TEST_HANG"]);
    let big = fs::File::open(helper.path("latest/big")).unwrap();
    let reader = blocked(move || errno(big.read_at(&mut [0; 100], 5_000_000)));
    helper.signal("-USR1");
    helper.signal("-TERM");
    let (success, said) = helper.end();
    assert!(success && said.contains("ENDED"), "{said}");
    assert!(reader.join().unwrap().is_some());
    assert!(helper.mounted().is_none());
}

#[test]
fn a_dead_mount_is_mended_at_the_next_one() {
    let mut helper = Helper::start(&[], &[]);
    let path = helper.path("");
    helper.signal("-KILL");
    drop(helper.child.wait());
    assert_eq!(errno(fs::metadata(&path)), Some(libc::ENOTCONN));
    let (_, repo, state) = pushed(&Item::dir([("f", Item::file("x"))]));
    let mounted = mount::Mounted::start(background(), repo, state, &path, mount::Options::default()).unwrap();
    assert_eq!(fs::read(helper.path("latest/f")).unwrap(), b"x");
    drop(mounted);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn an_ordinary_user_mounts_by_fusermount3_and_owns_what_he_sees() {
    if !needs_root("another user beside root") {
        return;
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut helper = Helper::start(&user, &["NFREEZER_TEST_OWNER"]);
    let row = helper.mounted().unwrap();
    assert_eq!(row.kind, "fuse.nfreezer");
    let as_user = |args: &[&str]| Command::new(user[0]).args(&user[1..]).args(args).output().unwrap();
    let path = |p| helper.path(p).to_str().unwrap().to_owned();
    let out = as_user(&["stat", "-c", "%u:%g %s", &path("latest/d7/f7")]);
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "65534:65534 1\n", "{:?}", out.stderr);
    assert!(as_user(&["cmp", "-n", "100", &path("latest/big"), &path("latest/big")]).status.success());
    assert_eq!(errno(fs::read_dir(helper.path(""))), Some(libc::EACCES), "root is another user");
    helper.signal("-TERM");
    assert!(helper.end().0);
    assert!(helper.mounted().is_none());
}

#[test]
fn other_users_get_what_the_modes_allow() {
    if !needs_root("another user beside root") {
        return;
    }
    let mut helper = Helper::start(&[], &["NFREEZER_TEST_OTHERS"]);
    let as_user = |program: &str, path: &str| {
        let output = as_nobody().arg(program).arg(helper.path(path)).output().unwrap();
        output.status.success().then_some(()).ok_or_else(|| String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(as_user("cat", "latest/d1/f1"), Ok(()), "mode 0644");
    assert_eq!(as_user("ls", "latest/d1"), Ok(()), "mode 0755");
    for (program, path) in [("cat", "latest/secret"), ("ls", "latest/closed"), ("cat", "latest/closed/inside")] {
        let refusal = as_user(program, path).expect_err("the mode gives others nothing");
        assert!(refusal.contains("Permission denied"), "{program} {path}: {refusal}");
    }
    helper.signal("-INT");
    assert!(helper.end().0);
}
