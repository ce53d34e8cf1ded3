//! The mount under load: fio's verification through all I/O engines, many readers and open files, and memory use.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::harness::cli::Env;
use crate::harness::faults::Between;
use crate::harness::mounted::{Mounted, eventually, run, serving};
use crate::harness::repository;
use crate::harness::rounds::Rounds;
use crate::harness::stalled::{Stall, Stalled};
use crate::harness::tree::noise;
use crate::harness::writer::{Body, Item, Segment, Writer};
use nfreezer::repo::{Repository, State};
use nfreezer::storage::{Local, Memory, Storage};
use nfreezer::time::Time;

fn noisy(seed: u64, len: u64) -> Item {
    Item { mtime: Time::new(seed as i64, 0), ..Item::new(Body::File(vec![Segment::Noise(seed, len)])) }
}

/// Returns the contents of [`noisy`].
fn body(seed: u64, len: u64) -> Vec<u8> {
    let part = |at: u64| noise(seed + (at << 20), (len - at).min(1 << 20) as usize);
    (0..len).step_by(1 << 20).flat_map(part).collect()
}

/// Writes a tree into a new in-memory repository.
fn pushed(tree: &Item) -> (Arc<Memory>, State) {
    let memory = Arc::<Memory>::default();
    let mut state = State::default();
    Writer::new(&repository::init(memory.clone())).commit(&mut state, tree, |_| {});
    (memory, state)
}

fn cold(storage: Arc<dyn Storage>) -> Arc<Repository> {
    Arc::new(repository::open(storage))
}

#[test]
fn fio_finds_every_block_right_however_it_reads() {
    let source = tempfile::tempdir().unwrap();
    let fio = |file: &str, more: &[&str]| {
        let mut command = Command::new("fio");
        command.current_dir(source.path()).args(["--name=check", "--bs=64k", "--size=6m", "--verify=crc32c"]);
        command.arg(format!("--filename={file}")).args(["--output-format=terse", "--verify_fatal=1"]).args(more);
        let output = command.output().expect("fio is not installed: run scripts/setup.sh tests");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success() && !said.contains("verify failed"), said)
    };
    // One incompressible file, and one compressible file.
    let write = ["--rw=write", "--do_verify=0", "--ioengine=psync"];
    assert!(fio("noise", &[&write[..], &["--refill_buffers"]].concat()).0);
    assert!(fio("text", &[&write[..], &["--refill_buffers", "--buffer_compress_percentage=70"]].concat()).0);
    let (memory, state) = pushed(&Item::dir(
        ["noise", "text"].map(|name| (name, Item::file(fs::read(source.path().join(name)).unwrap()))),
    ));
    let ways =
        [("psync", 0), ("psync", 1), ("mmap", 0), ("libaio", 0), ("libaio", 1), ("io_uring", 0), ("io_uring", 1)];
    for (engine, direct) in ways {
        // Each way has a new mount, so that its reads reach the mount and not the kernel's page cache.
        let mount = Mounted::new(cold(memory.clone()), state.clone());
        for file in ["noise", "text"] {
            let (engine, direct) = (format!("--ioengine={engine}"), format!("--direct={direct}"));
            let file = mount.path("latest").join(file);
            let read = ["--readonly", "--rw=randread", "--iodepth=16", &engine, &direct];
            let (right, said) = fio(file.to_str().unwrap(), &read);
            assert!(right, "{engine} {direct}: {said}");
        }
    }
    // fio must detect wrong blocks.
    fs::write(source.path().join("noise"), vec![7; 6 << 20]).unwrap();
    assert!(!fio("noise", &["--readonly", "--rw=randread", "--ioengine=psync"]).0, "it would find nothing");
}

#[test]
fn sixty_four_readers_get_each_block_once() {
    let tree = Item::dir((0..8).map(|i| (i.to_string(), noisy(i + 1, 2_000_000))));
    let (memory, state) = pushed(&tree);
    let repo = cold(memory);
    let mount = Mounted::new(Arc::clone(&repo), state);
    std::thread::scope(|scope| {
        for reader in 0..64 {
            let mount = &mount;
            scope.spawn(move || {
                for i in 0..8 {
                    let i = (i + reader / 8) % 8;
                    let body = body(i + 1, 2_000_000);
                    let file = File::open(mount.path(&format!("latest/{i}"))).unwrap();
                    // The readers start at different offsets.
                    for at in 0..10 {
                        let at = (at + reader) % 10 * 200_000;
                        let mut part = vec![0; 200_000];
                        file.read_exact_at(&mut part, at).unwrap();
                        assert!(part == body[at as usize..][..200_000], "{i} at {at}");
                    }
                }
            });
        }
    });
    let stats = repo.cache_stats();
    let blocks = 16_000_000 / 65_536 + 40;
    assert!(stats.misses <= blocks, "{} blocks were fetched, there are about {blocks}", stats.misses);
}

#[test]
fn somebody_who_looks_does_not_wait_for_a_copy() {
    let small = (0..5).map(|i| (format!("d{i}"), Item::dir([("f", noisy(100 + i, 50_000))])));
    let tree = Item::dir(small.chain([("big".to_owned(), noisy(1, 60_000_000))]));
    let (memory, state) = pushed(&tree);
    let storage = Stalled::with(memory, Stall::default());
    let mount = Mounted::new(cold(storage.clone()), state);
    // From now on read-ahead hangs. It reads at least 1 MiB at once, and reads for which a program waits are shorter.
    storage.least.store(1 << 20, SeqCst);
    storage.hang(true);
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| fs::read(mount.path("latest/big")).unwrap() == body(1, 60_000_000));
        eventually("the copy waits", || storage.held.load(SeqCst) > 0);
        for i in 0..5 {
            let body = fs::read(mount.path(&format!("latest/d{i}/f"))).unwrap();
            assert!(body == noise(100 + i, 50_000));
        }
        assert!(!copy.is_finished());
        storage.hang(false);
        assert!(copy.join().unwrap());
    });
}

#[test]
fn the_beginnings_of_photos_cost_little_through_the_kernel_too() {
    let photos = Item::dir((0..50).map(|i| (format!("{i:02}.jpg"), noisy(i + 1, 2_500_000 + i * 1111))));
    let (memory, state) = pushed(&photos);
    let repo = cold(memory);
    let mount = Mounted::new(Arc::clone(&repo), state);
    let folder = mount.path("latest");
    run("ls", &["-l", folder.to_str().unwrap()]);
    let before = repo.cache_stats().bytes;
    for i in 0..50 {
        let mut begin = vec![0; 64 << 10];
        File::open(folder.join(format!("{i:02}.jpg"))).unwrap().read_exact_at(&mut begin, 0).unwrap();
        assert!(begin == noise(i + 1, 64 << 10));
    }
    let each = (repo.cache_stats().bytes - before) / 50;
    assert!(each <= 200 << 10, "{each} bytes for the beginning of a photo");
}

#[test]
fn previews_of_a_folder_wait_for_few_round_trips() {
    let photos = Item::dir((0..120).map(|i| (format!("{i:03}.jpg"), noisy(i + 1, 600_000 + i * 1111))));
    let (memory, state) = pushed(&photos);
    let storage = Between::<Rounds, Memory>::with(memory, Rounds::default());
    let repo = cold(storage.clone());
    let mount = Mounted::new(Arc::clone(&repo), state);
    let folder = mount.path("latest");
    run("ls", &["-l", folder.to_str().unwrap()]);
    storage.rule.take();
    for i in 0..120 {
        let mut begin = vec![0; 64 << 10];
        File::open(folder.join(format!("{i:03}.jpg"))).unwrap().read_exact_at(&mut begin, 0).unwrap();
        assert!(begin == noise(i + 1, 64 << 10));
    }
    let reads = storage.rule.take();
    println!("{reads:?}");
    assert!(reads.rounds <= 30, "{reads:?}");
    assert!(reads.bytes <= 120 * (200 << 10), "{reads:?}");
}

/// Returns the peak memory of a process in MiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn five_hundred_open_files_and_a_copy_stay_within_the_memory() {
    let env = Env::new();
    let (dir, place) = (env.path("mnt"), env.path("repo"));
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(&place).unwrap();
    let repo = repository::init(Arc::new(Local::new(place.clone())));
    let files = (0..500).map(|i| (format!("{i:03}"), noisy(i + 1, 250_000)));
    let big = (0..4).map(|i| (format!("big {i}"), noisy(1000 + i, 40_000_000)));
    Writer::new(&repo).commit(&mut State::default(), &Item::dir(files.chain(big)), |_| {});
    env.nfreezer(["mount", "-r", place.to_str().unwrap(), dir.to_str().unwrap()]).done();
    let pid = serving(&dir);
    let open: Vec<_> = (0..500).map(|i| File::open(dir.join(format!("latest/{i:03}"))).unwrap()).collect();
    let right = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for i in 0..4 {
            let file = dir.join(format!("latest/big {i}"));
            let right = &right;
            scope.spawn(move || {
                let same = fs::read(file).unwrap() == body(1000 + i, 40_000_000);
                right.fetch_add(u64::from(same), SeqCst);
            });
        }
        for round in 0..4_u64 {
            for (i, file) in open.iter().enumerate() {
                let mut part = vec![0; 60_000];
                file.read_exact_at(&mut part, round * 60_000).unwrap();
                assert!(part == noise(i as u64 + 1, 250_000)[round as usize * 60_000..][..60_000]);
            }
        }
    });
    assert_eq!(right.into_inner(), 4);
    drop(open);
    let peak = peak(pid);
    println!("peak memory: {peak} MiB");
    env.nfreezer(["umount", dir.to_str().unwrap()]).done();
    assert!(peak <= MOST, "{peak} MiB");
    eventually("the process ends", || {
        !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
    });
}

/// Most memory in MiB: blocks, including blocks that are being fetched (96), unpacked contents (12), folders and lists,
/// replies, and the program itself. The key derivation has released its 64 MiB before.
const MOST: u64 = 192;
