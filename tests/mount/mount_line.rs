//! Breaks the connection to the server under a mount, with a real sshd and real FUSE. Copied data is correct or the
//! copy fails, cached data stays readable, the mount answers again once the server does, and no process hangs.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::harness::cli::Env;
use crate::harness::mounted::{Mounted, blocked, eventually, run, serving};
use crate::harness::proxy::Proxy;
use crate::harness::repository;
use crate::harness::sshd::{Sshd, descendants, signal};
use crate::harness::tree::noise;
use crate::harness::writer::{Item, Writer};
use nfreezer::context::background;
use nfreezer::mount;
use nfreezer::repo::State;
use nfreezer::storage::{self, Options};

/// A server behind a proxy, and a repository on it with one tree.
struct Far {
    sshd: Sshd,
    proxy: Proxy,
    state: State,
}

impl Far {
    fn with(tree: &Item) -> Far {
        let sshd = Sshd::start();
        let proxy = Proxy::start(sshd.port, Duration::ZERO);
        sshd.trust_port(proxy.port);
        let place = nfreezer::storage::Local::new(sshd.files().join("repo"));
        fs::create_dir_all(sshd.files().join("repo")).unwrap();
        let repo = repository::init(Arc::new(place));
        let mut state = State::default();
        Writer::new(&repo).commit(&mut state, tree, |_| {});
        Far { sshd, proxy, state }
    }

    /// Mounts the repository through the proxy like `nfreezer mount --io-timeout`.
    fn mount(&self, io_timeout: Duration, change: impl FnOnce(&mut Options)) -> Mounted {
        let mut options = Options {
            longest_pause: Duration::from_millis(500),
            retry_for: Duration::from_secs(900),
            ..self.sshd.options()
        };
        options.ssh.io_timeout = (io_timeout / 2).max(Duration::from_secs(1));
        change(&mut options);
        let place = self.sshd.location_by(self.proxy.port, &self.sshd.files().join("repo"));
        let storage = storage::open(background(), &place, options).unwrap();
        let repo = Arc::new(repository::open(Arc::from(storage)));
        Mounted::with(repo, self.state.clone(), |o: &mut mount::Options| {
            (o.io_timeout, o.prefetch) = (io_timeout, true);
        })
    }
}

/// Returns a tree of `count` small files, ten folders with one file each, and a file of 6 MB.
fn tree(count: u64) -> Item {
    let small = (0..count).map(|i| (format!("small {i:04}"), Item::file(noise(i + 1, 3000 + i as usize * 7))));
    let folders = (0..10).map(|d| (format!("d{d}"), Item::dir([("f", Item::file(noise(1000 + d, 200_000)))])));
    Item::dir(small.chain(folders).chain([("big".to_owned(), Item::file(noise(77, 6_000_000)))]))
}

fn is_right(copy: &Path, count: u64) {
    for i in 0..count {
        assert!(fs::read(copy.join(format!("small {i:04}"))).unwrap() == noise(i + 1, 3000 + i as usize * 7), "{i}");
    }
    for d in 0..10 {
        assert!(fs::read(copy.join(format!("d{d}/f"))).unwrap() == noise(1000 + d, 200_000), "d{d}");
    }
    assert!(fs::read(copy.join("big")).unwrap() == noise(77, 6_000_000));
}

/// Starts `cp -a` of the whole snapshot into a folder, in the background.
fn copy(mount: &Mounted, to: &Path) -> Child {
    let from = mount.path("latest/.");
    Command::new("cp").arg("-a").arg(from).arg(to).stderr(Stdio::piped()).spawn().unwrap()
}

/// Checks that no descendant of this process is in an uninterruptible wait.
fn nobody_hangs() {
    eventually("no process is in state D", || {
        descendants(std::process::id()).iter().all(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.rsplit(") ").next().unwrap_or_default().starts_with('D')
        })
    });
}

#[test]
fn connections_that_are_cut_all_the_time_cost_no_byte() {
    let far = Far::with(&tree(300));
    // With the limit, the copy takes seconds: it cannot end before it is cut.
    let mount = far.mount(Duration::from_secs(300), |o| o.limit_download = Some((4 << 20).into()));
    let received = || mount.count(" received");
    let target = tempfile::tempdir().unwrap();
    let (mut copy, mut cuts, mut before) = (copy(&mount, target.path()), 0, received());
    let status = loop {
        std::thread::sleep(Duration::from_millis(2));
        if let Some(status) = copy.try_wait().unwrap() {
            break status;
        }
        // Cuts after each 200 kB received, so that a slow machine makes progress too.
        if cuts < 6 && received() > before + 200_000 {
            far.proxy.cut();
            (cuts, before) = (cuts + 1, received());
        }
    };
    assert!(status.success() && cuts > 1, "{status} after {cuts} cuts");
    is_right(target.path(), 300);
    assert!(far.proxy.accepted() > 2, "{} connections", far.proxy.accepted());
    nobody_hangs();
}

#[test]
fn a_server_that_is_killed_and_comes_back_elsewhere_is_found_again() {
    let mut far = Far::with(&tree(300));
    let mount = far.mount(Duration::from_secs(60), |o| o.limit_download = Some((4 << 20).into()));
    let target = tempfile::tempdir().unwrap();
    let mut copy = copy(&mount, target.path());
    let copied = || fs::read_dir(target.path()).unwrap().count();
    eventually("the copy has begun", || copied() > 20);
    far.sshd.stop();
    // Cached data stays readable.
    run("ls", &["-lR", mount.path("latest").to_str().unwrap()]);
    far.sshd.resume();
    far.sshd.move_away();
    far.proxy.forward_to(far.sshd.port);
    assert!(copy.wait().unwrap().success());
    is_right(target.path(), 300);
    nobody_hangs();
}

#[test]
fn a_server_that_stops_is_an_error_in_time_and_answers_when_it_goes_on() {
    let far = Far::with(&tree(40));
    let mount = far.mount(Duration::from_secs(5), |_| ());
    let (known, big) = (mount.path("latest/small 0007"), mount.path("latest/big"));
    let body = noise(8, 3049);
    eventually("a file is in memory", || fs::read(&known).is_ok_and(|bytes| bytes == body));
    eventually("all names are in memory", || mount.inner().statistics().contains("names: all"));
    far.sshd.freeze(true);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..60u64)
            .map(|i| {
                let big = &big;
                scope.spawn(move || {
                    let file = fs::File::open(big).unwrap();
                    file.read_exact_at(&mut [0; 4096], i * 97_000).map_err(|e| e.raw_os_error())
                })
            })
            .collect();
        assert!(fs::read(&known).unwrap() == body, "what is in memory stays readable");
        run("ls", &["-lR", mount.path("latest").to_str().unwrap()]);
        let failed = readers.into_iter().map(|r| r.join().unwrap());
        assert!(failed.filter(|r| *r == Err(Some(libc::EIO))).count() > 30);
    });
    nobody_hangs();
    far.sshd.freeze(false);
    eventually("it answers again", || fs::read(&big).is_ok_and(|bytes| bytes == noise(77, 6_000_000)));
    is_right(&mount.path("latest"), 40);
}

#[test]
fn a_copy_from_a_server_that_is_gone_ends_with_a_clear_error() {
    let mut far = Far::with(&tree(300));
    let mount = far.mount(Duration::from_secs(5), |o| o.limit_download = Some((2 << 20).into()));
    let target = tempfile::tempdir().unwrap();
    let mut copy = copy(&mount, target.path());
    eventually("the copy has begun", || fs::read_dir(target.path()).unwrap().count() > 20);
    far.sshd.stop();
    // cp continues with the next file after each error. The files that it copied before are correct.
    let mut errors = std::io::BufReader::new(copy.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = errors.by_ref().find(|line| line.contains("Input/output error")).expect("the copy hits an error");
    far.sshd.resume();
    said.extend(errors);
    assert!(!copy.wait().unwrap().success());
    for entry in fs::read_dir(target.path()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let Some(i) = name.strip_prefix("small ").map(|n| n.parse::<u64>().unwrap()) else { continue };
        let bytes = fs::read(entry.path()).unwrap();
        let whole = noise(i + 1, 3000 + i as usize * 7);
        assert!(whole.starts_with(&bytes), "{name} has wrong bytes");
        assert!(bytes == whole || said.contains(&name), "{name} is cut off, and cp does not say so: {said}");
    }
    eventually("it answers again", || fs::read(mount.path("latest/big")).is_ok_and(|b| b == noise(77, 6_000_000)));
    nobody_hangs();
}

/// A mount through the proxy, made by the binary.
struct ByBinary {
    env: Env,
    dir: PathBuf,
    serving: u32,
}

impl ByBinary {
    fn start(far: &Far) -> ByBinary {
        let env = Env::new();
        let (dir, config) = (env.path("mnt"), far.sshd.client_config(&env.home(), far.proxy.port));
        fs::create_dir(&dir).unwrap();
        let repo = format!("server:{}", far.sshd.files().join("repo").display());
        let ssh = format!("ssh.config={}", config.display());
        env.nfreezer(["mount", "-r", &repo, "-o", &ssh, "--io-timeout", "60s", dir.to_str().unwrap()]).done();
        let serving = serving(&dir);
        ByBinary { env, dir, serving }
    }

    /// Returns whether the process has ended. It stays a zombie if its parent does not wait for it.
    fn ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.serving)).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    }
}

impl Drop for ByBinary {
    fn drop(&mut self) {
        if !self.ended() {
            signal(self.serving, rustix::process::Signal::KILL);
        }
        drop(Command::new("umount").arg("-lq").arg(&self.dir).status());
    }
}

#[test]
fn it_ends_by_umount_and_by_sigterm_while_the_server_is_gone() {
    let far = Far::with(&tree(3));
    for by_signal in [false, true] {
        let mount = ByBinary::start(&far);
        // Resolves the path now: access to the folder fails between the end of the service and the end of the mount.
        let place = mount.dir.canonicalize().unwrap();
        let name = mount.dir.join("latest/small 0002");
        assert!(fs::read(&name).unwrap() == noise(3, 3014));
        far.proxy.freeze(true);
        let big = mount.dir.join("latest/big");
        let reader = blocked(move || fs::read(big).is_ok());
        match by_signal {
            true => signal(mount.serving, rustix::process::Signal::TERM),
            false => mount.env.nfreezer(["umount", "--lazy", mount.dir.to_str().unwrap()]).done(),
        }
        eventually("it is not mounted any more", || mount::mounted_at(&place).is_none());
        if by_signal {
            assert!(!reader.join().unwrap(), "who waited gets an error");
            eventually("the process ends", || mount.ended());
            far.proxy.freeze(false);
        } else {
            far.proxy.freeze(false);
            reader.join().unwrap();
            eventually("the process ends", || mount.ended());
        }
    }
    nobody_hangs();
}
