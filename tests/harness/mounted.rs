//! Real mounts for tests: mounted in this process, unmounted on drop, with a check for leftovers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nfreezer::context::background;
use nfreezer::mount::{self, Options};
use nfreezer::repo::{Repository, State};

pub use super::process::run;

/// A mount of a repository in a temporary folder.
pub struct Mounted {
    mounted: Option<mount::Mounted>,
    dir: tempfile::TempDir,
    pub messages: Arc<Mutex<Vec<String>>>,
}

impl Mounted {
    pub fn new(repo: Arc<Repository>, state: State) -> Self {
        Mounted::with(repo, state, |_| {})
    }

    pub fn with(repo: Arc<Repository>, state: State, change: impl FnOnce(&mut Options)) -> Self {
        require_fuse();
        let dir = tempfile::tempdir().unwrap();
        let messages = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&messages);
        let mut options = Options {
            log: Arc::new(move |line| log.lock().unwrap().push(line.into())),
            prefetch: false,
            ..Options::default()
        };
        change(&mut options);
        let mounted = mount::Mounted::start(background(), repo, state, dir.path(), options).unwrap();
        assert_eq!(mount::mounted_at(&dir.path().canonicalize().unwrap()).unwrap().kind, "fuse.nfreezer");
        Mounted { mounted: Some(mounted), dir, messages }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn inner(&self) -> &mount::Mounted {
        self.mounted.as_ref().unwrap()
    }

    /// Returns the number before this word in the statistics.
    pub fn count(&self, word: &str) -> u64 {
        let text = self.inner().statistics();
        let before = text.split(word).next().unwrap().trim_end();
        before.rsplit([' ', '(']).next().unwrap().parse().unwrap_or_else(|_| panic!("{word} in {text}"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mounted = self.mounted.take().unwrap();
        let path = mounted.dir().clone();
        let detached = mounted.detach();
        let ended = mounted.wait(Duration::from_secs(60));
        drop(mounted);
        if !std::thread::panicking() {
            detached.unwrap();
            assert!(ended, "the session ends when nobody uses it any more");
            assert!(mount::mounted_at(&path).is_none(), "it is still mounted");
        }
    }
}

/// Fails if real mounts are not possible: a skipped test proves nothing.
pub fn require_fuse() {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    assert!(device.is_ok(), "/dev/fuse cannot be opened ({device:?}): run scripts/setup.sh as root");
}

/// Returns the background process that serves the mount at this folder.
pub fn serving(dir: &Path) -> u32 {
    let mine = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("--background-child") && line.contains(dir.to_str().unwrap())
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    all.collect::<Vec<u32>>().into_iter().find(mine).expect("a process serves the mount")
}

/// Waits until the condition is true. Fails after two minutes, which a busy machine may need.
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}: not after two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a thread, and returns once it is blocked in a system call that opens or reads a file.
pub fn blocked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        work()
    });
    let path = format!("/proc/self/task/{}/syscall", told.recv().unwrap().as_raw_nonzero());
    let calls = [libc::SYS_read, libc::SYS_pread64, libc::SYS_openat, libc::SYS_statx].map(|call| call.to_string());
    eventually("a reader waits", || {
        assert!(!thread.is_finished(), "the reader does not wait");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.split(' ').next().is_some_and(|call| calls.iter().any(|one| one == call))
    });
    thread
}

/// Returns the number of descriptors of `/dev/fuse` in this process.
pub fn fuse_descriptors() -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    fds.filter(|fd| {
        fd.as_ref().is_ok_and(|fd| std::fs::read_link(fd.path()).is_ok_and(|p| p == Path::new("/dev/fuse")))
    })
    .count()
}
