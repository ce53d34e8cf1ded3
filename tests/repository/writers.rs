//! 1,000 writers in one repository, in memory: the figures of docs/scale.md. Run by hand:
//! `cargo test --test repository writers:: -- --ignored --nocapture`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nfreezer::context::{Context, background};
use nfreezer::crypto::keys::{ChunkId, ChunkKind};
use nfreezer::crypto::seal::ObjectType;
use nfreezer::error::Result;
use nfreezer::format::index;
use nfreezer::format::pack::Entry;
use nfreezer::format::record::{Head, NewSection, SectionKind, Snapshot, SnapshotId};
use nfreezer::format::reference::PackRef;
use nfreezer::name::{Folder, ObjectId};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;

use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::repository;

const WRITERS: u64 = 1000;
/// Chunks of a push: 100 MB.
const CHUNKS: u64 = 100;

/// Counts the requests to the log and their bytes.
#[derive(Default)]
struct Counts {
    lists: AtomicU64,
    listed: AtomicU64,
    reads: AtomicU64,
    read: AtomicU64,
    puts: AtomicU64,
    put: AtomicU64,
}

impl Rule for Counts {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let answer = call.of(ctx, storage)?;
        match (&call, &answer) {
            (Call::List(_), Answer::Entries(entries)) => {
                self.lists.fetch_add(1, Ordering::Relaxed);
                self.listed.fetch_add(entries.len() as u64, Ordering::Relaxed);
            }
            (Call::Read(..), Answer::Bytes(bytes)) => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            (Call::Put(_, bytes), _) => {
                self.puts.fetch_add(1, Ordering::Relaxed);
                self.put.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(answer)
    }
}

impl Counts {
    fn take(&self) -> [u64; 6] {
        [&self.lists, &self.listed, &self.reads, &self.read, &self.puts, &self.put]
            .map(|n| n.swap(0, Ordering::Relaxed))
    }
}

/// Returns 16 bytes that look random.
fn random(n: u64) -> [u8; 16] {
    let mut x = u128::from(n.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    x ^= x >> 61;
    x.wrapping_mul(0xda94_2042_e4dd_58b5_94d0_49bb_1331_11eb).to_be_bytes()
}

/// The record of a push.
fn pushed(writer: u64, day: u64) -> (Head, Vec<NewSection>) {
    let number = day * WRITERS + writer;
    let snapshot = Snapshot {
        id: SnapshotId(random(number)),
        time: Time::new(1_700_000_000 + (day * 86_400 + writer * 86) as i64, 0),
        host: format!("client-{writer:04}"),
        user: "user".into(),
        program: "nfreezer 0.1.0".into(),
        ..Snapshot::default()
    };
    let packs: Vec<_> = (0..7)
        .map(|n| {
            let mut id = [0; 32];
            id[..16].copy_from_slice(&random((1 << 40) | (number * 7 + n)));
            (PackRef { id: ObjectId(id), len: 16 << 20 }, ObjectType::Data)
        })
        .collect();
    let entry = |n: u64| {
        let id = random((1 << 50) | (number * CHUNKS + n));
        let id = ChunkId(*[id, id].concat().first_chunk().expect("32 bytes"));
        ((n % 7) as u32, Entry { id, kind: ChunkKind::Data, offset: n as u32, stored: 10, len: 10 })
    };
    let mut entries: Vec<_> = (0..CHUNKS).map(entry).collect();
    entries.sort_by_key(|(_, entry)| entry.id);
    let (bytes, fences) = index::encode(&entries);
    let packs = NewSection { kind: SectionKind::Packs, bytes: index::encode_packs(&packs), fences: Vec::new() };
    let sections = vec![packs, NewSection { kind: SectionKind::Index { packs: 0 }, bytes, fences }];
    (Head { snapshots: vec![snapshot], ..Head::default() }, sections)
}

/// A push by a new process: reads the log, commits, merges.
fn push(base: &Repository, storage: &Arc<dyn Storage>, writer: u64, day: u64, together: Option<&Barrier>) -> Duration {
    let repo = base.behind(Arc::clone(storage));
    let started = Instant::now();
    let mut state = repo.state(background()).unwrap();
    let took = started.elapsed();
    if let Some(barrier) = together {
        barrier.wait();
    }
    let (head, sections) = pushed(writer, day);
    repo.commit(background(), &mut state, head, &sections).unwrap();
    repo.merge(background(), &mut state).unwrap();
    took
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Prints the log after some pushes, and what a new process does to read it.
fn report(
    what: &str,
    base: &Repository,
    counts: &Between<Counts, Memory>,
    storage: &Arc<dyn Storage>,
    folds: &[Duration],
) {
    let [lists, listed, reads, read, puts, put] = counts.take();
    let objects = storage.list(background(), Folder::Log).unwrap();
    let bytes: u64 = objects.iter().map(|entry| entry.size).sum();
    counts.take();
    let (before, started) = (resident_kib(), Instant::now());
    let state = base.behind(Arc::clone(storage)).state(background()).unwrap();
    let (took, grown) = (started.elapsed(), resident_kib().saturating_sub(before));
    let [open_lists, _, open_reads, open_read, ..] = counts.take();
    let mean = folds.iter().sum::<Duration>() / folds.len().max(1) as u32;
    println!(
        "{what}: {} snapshots, log of {} objects and {bytes} bytes; pushes: {lists} LIST ({listed} names), {reads} GET \
         ({read} bytes), {puts} PUT ({put} bytes), mean fold {mean:?}; a new process: {open_lists} LIST, {open_reads} GET \
         ({open_read} bytes), {took:?}, {grown} KiB",
        state.snapshots().len(),
        objects.len(),
    );
}

#[test]
#[ignore = "prints figures, takes minutes"]
fn a_thousand_writers_in_memory() {
    let (memory, base) = repository::in_memory();
    let counts = Between::with(memory, Counts::default());
    let storage: Arc<dyn Storage> = counts.clone();
    for day in 0..2 {
        let folds: Vec<_> = (0..WRITERS).map(|writer| push(&base, &storage, writer, day, None)).collect();
        report(&format!("day {day}, one after the other"), &base, &counts, &storage, &folds);
    }
    assert_eq!(base.behind(storage).state(background()).unwrap().snapshots().len() as u64, 2 * WRITERS, "none is lost");
}

#[test]
#[ignore = "prints figures"]
fn writers_that_start_at_the_same_moment() {
    for writers in [50, 100] {
        let (memory, base) = repository::in_memory();
        let counts = Between::with(memory, Counts::default());
        let storage: Arc<dyn Storage> = counts.clone();
        let (barrier, folds) = (Barrier::new(writers as usize), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let (base, storage, barrier, folds) = (&base, &storage, &barrier, &folds);
            for writer in 0..writers {
                let run = move || {
                    let took = push(base, storage, writer, 0, Some(barrier));
                    folds.lock().unwrap().push(took);
                };
                thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, run).unwrap();
            }
        });
        report(&format!("{writers} at once"), &base, &counts, &storage, &folds.into_inner().unwrap());
        assert_eq!(base.behind(storage).state(background()).unwrap().snapshots().len() as u64, writers, "none is lost");
    }
}
