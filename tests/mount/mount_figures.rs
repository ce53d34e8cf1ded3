//! Figures of the mount over a repository in memory, at two round trip times. Not a test of speed: nothing is asserted.
//! `cargo test --release --test mount figures -- --ignored --nocapture`

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::mounted::{Mounted, run};
use crate::harness::repository;
use crate::harness::tree::noise;
use crate::harness::writer::{Body, Item, Segment, Writer};
use nfreezer::context::Context;
use nfreezer::error::Result;
use nfreezer::repo::{Repository, State};
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;

/// A line with a round trip time, and 120 MB/s for each read.
struct Line(Duration);
type Far = Between<Line>;

impl Rule for Line {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let takes = match call {
            Call::List(_) => self.0,
            Call::Read(_, _, len) if !self.0.is_zero() => self.0 + Duration::from_nanos(len as u64 * 8),
            _ => Duration::ZERO,
        };
        std::thread::sleep(takes);
        call.of(ctx, storage)
    }
}

fn push(memory: &Arc<Memory>, repo: &Repository, state: &mut State, tree: &Item, tag: &str) {
    let start = Instant::now();
    Writer::new(repo).commit(state, tree, |s| s.tags = vec![tag.into()]);
    println!("  {tag} written in {:.1?}, {} MB", start.elapsed(), memory.traffic().0 / 1_000_000);
}

fn small_files(dirs: usize, files: usize, size: usize) -> Item {
    let body = |d: usize, f: usize| {
        let seed = (d * 10_000 + f) as u64;
        let half = noise(seed, (seed as usize * 7919) % (size * 2) / 2);
        [half.as_slice(), &vec![b' '; half.len()]].concat()
    };
    let file = |d: usize, f: usize| Item {
        mtime: Time::new(1_700_000_000 + (d * 10_000 + f) as i64, 7),
        ..Item::file(body(d, f))
    };
    let dir = |d: usize| Item::dir((0..files).map(|f| (format!("file-{f:05}.txt"), file(d, f))));
    Item::dir((0..dirs).map(|d| (format!("folder-{d:04}"), dir(d))))
}

struct Bench {
    memory: Arc<Memory>,
    state: State,
    rtt: Duration,
    second: Mutex<Duration>,
}

impl Bench {
    /// Runs work over a fresh mount and prints time, requests and what was fetched.
    fn time(&self, what: &str, work: impl FnOnce(&Mounted)) {
        let storage = Far::with(self.memory.clone(), Line(self.rtt));
        let repo = repository::open(storage);
        let mount = Mounted::new(Arc::new(repo), self.state.clone());
        let before = self.memory.traffic().1;
        let start = Instant::now();
        work(&mount);
        let time = start.elapsed().saturating_sub(*self.second.lock().unwrap());
        *self.second.lock().unwrap() = Duration::ZERO;
        let fetched = (self.memory.traffic().1 - before) as f64 / 1e6;
        let c = |word| mount.count(word);
        let (reads, waited, fetches) = (c(" reads ("), c(" waited"), c(" reads of "));
        println!(
            "{what:34} {:8.2} s  {reads:6} reads {:6} lookups {:5} listings {waited:6} waited {fetches:6} fetches {fetched:8.1} MB",
            time.as_secs_f64(),
            c(" lookups"),
            c(" listings"),
        );
        let messages = mount.messages.lock().unwrap();
        assert!(messages.is_empty(), "{messages:?}");
    }

    fn again(&self, command: &str) {
        let start = Instant::now();
        run("sh", &["-c", command]);
        println!("  (again, what follows: {:.2} s)", start.elapsed().as_secs_f64());
        *self.second.lock().unwrap() = start.elapsed();
    }
}

#[test]
#[ignore = "takes minutes and asserts nothing"]
fn figures() {
    let memory = Arc::<Memory>::default();
    let repo = repository::init(memory.clone());
    let mut state = State::default();
    push(&memory, &repo, &mut state, &small_files(1000, 100, 400), "names");
    push(&memory, &repo, &mut state, &small_files(200, 100, 8000), "small");
    push(&memory, &repo, &mut state, &small_files(1, 20_000, 8000), "flat");
    let big = Item::new(Body::File(vec![Segment::Noise(1, 1 << 30)]));
    let text: Vec<u8> = (0..40_000_000u32).flat_map(|i| format!("{i} ").into_bytes()).take(256 << 20).collect();
    push(&memory, &repo, &mut state, &Item::dir([("big", big), ("text", Item::file(text))]), "large");
    let photo = |i: u64| Item::new(Body::File(vec![Segment::Noise(1000 + i, 3_000_000 + i * 1000)]));
    push(&memory, &repo, &mut state, &Item::dir((0..200).map(|i| (format!("{i:03}.jpg"), photo(i)))), "photos");
    for rtt in [0, 50] {
        println!("--- round trip {rtt} ms");
        let bench = Bench {
            memory: memory.clone(),
            state: state.clone(),
            rtt: Duration::from_millis(rtt),
            second: Mutex::default(),
        };
        let at = |m: &Mounted, tag: &str| m.path(&format!("tags/{tag}/latest")).to_str().unwrap().to_owned();
        let sh = |command: String| drop(run("sh", &["-c", &command]));
        bench.time("ls of the root of a snapshot", |m| sh(format!("ls {}", at(m, "names"))));
        bench.time("find, 100,000 files", |m| {
            sh(format!("find {} | wc -l", at(m, "names")));
            bench.again(&format!("find {} | wc -l", at(m, "names")));
        });
        bench.time("ls -lR, 100,000 files", |m| {
            sh(format!("ls -lR {} >/dev/null", at(m, "names")));
            bench.again(&format!("ls -lR {} >/dev/null", at(m, "names")));
        });
        for tag in ["small", "flat"] {
            let target = tempfile::tempdir_in("/dev/shm").unwrap();
            let to = target.path().display();
            bench.time(&format!("cp -a, 20,000 files, {tag}"), |m| sh(format!("cp -a {} {to}", at(m, tag))));
            bench.time(&format!("tar, 20,000 files, {tag}"), |m| {
                sh(format!("tar cf - -C {} . | cat >/dev/null", at(m, tag)))
            });
        }
        bench.time("cat of 1 GiB", |m| sh(format!("cat {}/big >/dev/null", at(m, "large"))));
        bench.time("dd bs=128k of 1 GiB", |m| {
            sh(format!("dd if={}/big of=/dev/null bs=128k status=none", at(m, "large")))
        });
        bench.time("cat of 256 MiB, compressed", |m| {
            sh(format!("cat {}/text >/dev/null", at(m, "large")));
            bench.again(&format!("cat {}/text >/dev/null", at(m, "large")));
        });
        bench.time("first 64 KiB of 200 photos", |m| {
            sh(format!("cd {}; for f in *; do dd if=$f bs=64k count=1 status=none; done >/dev/null", at(m, "photos")));
        });
        bench.time("cp of 200 photos of 3 MB", |m| sh(format!("cat {}/* >/dev/null", at(m, "photos"))));
        bench.time("500 reads of 4 KiB in 1 GiB", |m| {
            let file = std::fs::File::open(format!("{}/big", at(m, "large"))).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
            let mut at = 12345u64;
            for _ in 0..500 {
                at = at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                file.read_exact_at(&mut [0; 4096], (at >> 20) % ((1 << 30) - 4096)).unwrap();
            }
        });
    }
}
