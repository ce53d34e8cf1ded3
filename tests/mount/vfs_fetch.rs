//! Fetches and read-ahead of the mount, without a kernel. Counts requests and bytes, and never measures time.

use std::cell::RefCell;
use std::sync::Arc;

use crate::harness::faults::{Between, Gone, gone};
use crate::harness::repository;
use crate::harness::rounds::Rounds;
use crate::harness::tree::noise;
use crate::harness::writer::{Body, Item, Segment, Writer};
use nfreezer::context::background;
use nfreezer::format::record::Head;
use nfreezer::name::Folder;
use nfreezer::repo::{Repository, State};
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;
use nfreezer::vfs::{Ahead, Fault, Mode, Options, Vfs, inode};

const MIB: usize = 1 << 20;

struct Repo {
    storage: Arc<Gone>,
    repo: Repository,
    state: State,
}

impl Repo {
    fn of(tree: &Item) -> Repo {
        let storage = gone(Memory::default());
        let repo = repository::init(storage.clone());
        let mut state = State::default();
        Writer::new(&repo).commit(&mut state, tree, |_| {});
        Repo { storage, repo, state }
    }

    /// Makes a mount with an empty block cache of `cache` bytes.
    fn vfs(&self, cache: usize) -> Vfs {
        self.vfs_over(cache, 0)
    }

    /// The same over a network that carries `round_trip` bytes in the time of a round trip.
    fn vfs_over(&self, cache: usize, round_trip: u64) -> Vfs {
        let repo = repository::open(self.storage.clone());
        repo.set_cache(cache);
        let options = Options { cache, round_trip: Some(round_trip), ..Options::default() };
        Vfs::new(background(), Arc::new(repo), self.state.clone(), options).unwrap()
    }
}

fn lookup(vfs: &Vfs, path: &str, mode: Mode) -> Result<u64, Fault> {
    path.split('/').try_fold(inode::ROOT, |ino, name| Ok(vfs.lookup(ino, name.as_bytes(), mode)?.unwrap().ino))
}

/// Visits all folders below a folder like `find`, and returns their number.
fn find(vfs: &Vfs, ino: u64, mode: Mode) -> Result<usize, Fault> {
    let (mut offset, mut count) = (0, 0);
    loop {
        let (mut folders, mut last) = (Vec::new(), None);
        vfs.readdir(ino, offset, false, mode, &mut |e| {
            last = Some(e.next);
            if e.attr.kind == nfreezer::vfs::Kind::Directory && ![b".".as_slice(), b".."].contains(&e.name) {
                folders.push(e.name.to_vec());
            }
            false
        })?;
        let Some(next) = last else { return Ok(count) };
        offset = next;
        for name in folders {
            count += 1 + find(vfs, vfs.lookup(ino, &name, mode)?.unwrap().ino, mode)?;
        }
    }
}

fn folders(count: u32, files: u32) -> Item {
    let file = |i: u32| Item { mtime: Time::new(i.into(), 0), ..Item::file(i.to_string()) };
    let folder = |d: u32| Item::dir((0..files).map(move |f| (format!("file {f}"), file(d * files + f))));
    Item::dir((0..count).map(|d| (format!("folder {d}"), folder(d))))
}

fn prefetch(vfs: &Vfs) {
    let mut walk = vfs.walk();
    while vfs.step(background(), &mut walk).unwrap() {}
}

#[test]
fn names_that_were_fetched_in_the_background_need_nothing_more() {
    let repo = Repo::of(&folders(200, 40));
    let vfs = repo.vfs(96 * MIB);
    let latest = lookup(&vfs, "latest", Mode::Cached).unwrap();
    assert!(matches!(find(&vfs, latest, Mode::Cached), Err(Fault::Wait)));
    prefetch(&vfs);
    repo.storage.arm(0);
    assert_eq!(find(&vfs, latest, Mode::Cached).unwrap(), 200);
    assert!(lookup(&vfs, "latest/folder 7/file 39", Mode::Cached).is_ok());
}

#[test]
fn blocks_in_memory_are_names_without_a_wait() {
    let repo = Repo::of(&folders(50, 10));
    let vfs = repo.vfs(96 * MIB);
    lookup(&vfs, "latest/folder 3", Mode::Fetch(background())).unwrap();
    let calls = repo.storage.calls();
    // The pages of neighbouring folders arrived in the same read. No lookup has used them yet.
    assert!(lookup(&vfs, "latest/folder 4/file 1", Mode::Cached).is_ok());
    assert_eq!(repo.storage.calls(), calls);
}

#[test]
fn a_big_copy_leaves_the_names_in_memory() {
    let big = Item::new(Body::File(vec![Segment::Noise(1, 20 * MIB as u64)]));
    let repo = Repo::of(&Item::dir([("big", big), ("names", folders(100, 30))]));
    let vfs = repo.vfs(4 * MIB);
    prefetch(&vfs);
    let big = lookup(&vfs, "latest/big", Mode::Fetch(background())).unwrap();
    for at in 0..20 {
        assert_eq!(vfs.read(big, at * MIB as u64, MIB as u32, Mode::Fetch(background()), &|_| ()).unwrap().len(), MIB);
    }
    repo.storage.arm(0);
    let names = lookup(&vfs, "latest/names", Mode::Cached).unwrap();
    assert_eq!(find(&vfs, names, Mode::Cached).unwrap(), 100);
}

#[test]
fn the_walk_ends_where_its_room_does() {
    let name = |i: u64| noise(i, 120).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let folder = |d: u64| Item::dir((0..150).map(move |f| (name(d * 1000 + f), Item::file([]))));
    let repo = Repo::of(&Item::dir((0..250).map(|d| (format!("{d:03}"), folder(d)))));
    let stored: u64 =
        (0..16).flat_map(|x| repo.storage.list(background(), Folder::PackShard(x)).unwrap()).map(|e| e.size).sum();
    assert!(stored > 4 * MIB as u64, "{stored}");
    let vfs = repo.vfs(4 * MIB);
    prefetch(&vfs);
    let fetched = vfs.repository().cache_stats().bytes;
    assert!((MIB as u64..3 * MIB as u64).contains(&fetched), "2 MiB may be used for that, {fetched} came");
    assert!(lookup(&vfs, "latest/249", Mode::Fetch(background())).is_ok());
}

#[test]
fn the_walk_goes_on_after_a_break_and_around_damage() {
    let repo = Repo::of(&folders(200, 40));
    let vfs = repo.vfs(96 * MIB);
    repo.storage.arm(0);
    let mut walk = vfs.walk();
    assert!(vfs.step(background(), &mut walk).is_err() && vfs.step(background(), &mut walk).is_err());
    repo.storage.disarm();
    while vfs.step(background(), &mut walk).unwrap() {}
    let latest = lookup(&vfs, "latest", Mode::Cached).unwrap();
    assert_eq!(find(&vfs, latest, Mode::Cached).unwrap(), 200);
    for pack in (0..16).flat_map(|x| repo.storage.list(background(), Folder::PackShard(x)).unwrap()) {
        repo.storage.remove(background(), &pack.name).unwrap();
    }
    let vfs = repo.vfs(96 * MIB);
    prefetch(&vfs);
    assert!(matches!(lookup(&vfs, "latest/folder 1", Mode::Fetch(background())), Err(Fault::Broken(_))));
}

#[test]
fn the_walk_follows_latest() {
    let mut repo = Repo::of(&folders(3, 3));
    let vfs = repo.vfs(96 * MIB);
    prefetch(&vfs);
    Writer::new(&repo.repo).commit(&mut repo.state, &folders(9, 9), |s| s.time.seconds += 1);
    vfs.refresh(repo.state.clone());
    prefetch(&vfs);
    repo.storage.arm(0);
    assert_eq!(find(&vfs, lookup(&vfs, "latest", Mode::Cached).unwrap(), Mode::Cached).unwrap(), 9);
}

#[test]
fn a_thousand_snapshots_open_with_few_requests() {
    let mut repo = Repo::of(&folders(2, 2));
    let first = repo.state.snapshots().remove(0);
    for i in 1..1000_u16 {
        let mut snapshot = first.clone();
        snapshot.id.0[..2].copy_from_slice(&i.to_be_bytes());
        snapshot.time.seconds += i64::from(i) * 3600;
        repo.repo
            .commit(background(), &mut repo.state, Head { snapshots: vec![snapshot], ..Head::default() }, &[])
            .unwrap();
        repo.repo.merge(background(), &mut repo.state).unwrap();
    }
    let before = repo.storage.calls();
    let opened = repository::open(repo.storage.clone());
    let state = opened.state(background()).unwrap();
    let vfs = Vfs::new(background(), Arc::new(opened), state, Options::default()).unwrap();
    let mut entries = 0;
    for folder in [inode::ROOT, lookup(&vfs, "snapshots", Mode::Cached).unwrap()] {
        vfs.readdir(folder, 0, false, Mode::Cached, &mut |_| {
            entries += 1;
            false
        })
        .unwrap();
    }
    assert!(entries > 1000, "{entries}");
    assert!(lookup(&vfs, "latest/folder 1", Mode::Fetch(background())).is_ok());
    let calls = repo.storage.calls() - before;
    assert!(calls < 50, "{calls} requests for the first look");
}

#[test]
fn the_beginning_of_a_photo_costs_little() {
    let photo = |i: u64| Item::new(Body::File(vec![Segment::Noise(i, 3_000_000 + i * 1111)]));
    let repo = Repo::of(&Item::dir((0..20).map(|i| (format!("{i:02}.jpg"), photo(i)))));
    let vfs = repo.vfs(96 * MIB);
    let dir = lookup(&vfs, "latest", Mode::Cached).unwrap();
    find(&vfs, dir, Mode::Fetch(background())).unwrap();
    let before = vfs.repository().cache_stats().bytes;
    for i in 0..20 {
        let ino = lookup(&vfs, &format!("latest/{i:02}.jpg"), Mode::Fetch(background())).unwrap();
        // The kernel requests 128 KiB if a program reads 64 KiB.
        let advise = |ahead| assert_eq!(ahead, Ahead::Heads);
        let bytes = vfs.read(ino, 0, 128 << 10, Mode::Fetch(background()), &advise).unwrap();
        assert!(bytes == noise(i, 3_000_000 + i as usize * 1111)[..128 << 10]);
    }
    let each = (vfs.repository().cache_stats().bytes - before) / 20;
    assert!(each <= 200 << 10, "{each} bytes for the beginning of a photo");
}

/// Reads the heads of some of 60 photos, and follows the advice. Returns the number of reads that waited, and the
/// fetched bytes of contents.
fn heads(repo: &Repo, photos: impl IntoIterator<Item = u64>) -> (u32, u64) {
    heads_at(repo, photos.into_iter().map(|i| (format!("{i:02}.jpg"), i)))
}

/// Like [`heads`], for paths with the seed of each photo.
fn heads_at(repo: &Repo, photos: impl IntoIterator<Item = (String, u64)>) -> (u32, u64) {
    let vfs = repo.vfs(96 * MIB);
    let mut waits = 0;
    for (path, i) in photos {
        let ino = lookup(&vfs, &format!("latest/{path}"), Mode::Fetch(background())).unwrap();
        let advice = RefCell::new(Vec::new());
        let read = |mode| vfs.read(ino, 0, HEAD as u32, mode, &|ahead| advice.borrow_mut().push(ahead));
        let bytes = read(Mode::Cached).or_else(|_| {
            waits += 1;
            read(Mode::Fetch(background()))
        });
        assert!(bytes.unwrap() == noise(i, HEAD));
        advice.take().iter().for_each(|ahead| vfs.walk_ahead(background(), ahead));
    }
    (waits, vfs.repository().cache_stats().contents)
}

/// Bytes that the kernel requests if a program reads 64 KiB.
const HEAD: usize = 128 << 10;

#[test]
fn the_heads_of_photos_are_fetched_before_they_are_read() {
    let photo = |i: u64| Item::new(Body::File(vec![Segment::Noise(i, 600_000 + i * 1111)]));
    let sidecar = |i: u64| Item::new(Body::File(vec![Segment::Noise(1000 + i, 300_000)]));
    let photos = (0..60).map(|i| (format!("{i:02}.jpg"), photo(i)));
    let repo = Repo::of(&Item::dir(photos.chain((0..60).map(|i| (format!("{i:02}.raw"), sidecar(i))))));
    // Three blocks of each photo, and the headers of the packs.
    let each = 3 * 65_600 + 1000;
    for backwards in [false, true] {
        let (waits, bytes) = heads(&repo, (0..60).map(|i| if backwards { 59 - i } else { i }));
        assert_eq!(waits, 3, "backwards {backwards}");
        assert!(bytes <= 60 * each, "backwards {backwards}: {bytes}");
    }
    let (_, bytes) = heads(&repo, 0..30);
    assert!(bytes <= 34 * each, "{bytes}: few heads are fetched after the reader has stopped");
    let (waits, bytes) = heads(&repo, (0..60).map(|i| i * 23 % 60));
    assert!(waits == 60 && bytes <= 60 * each, "here and there: {waits}, {bytes}");
    let (waits, bytes) = heads(&repo, (0..60).step_by(4));
    assert!(waits == 15 && bytes <= 17 * each, "every fourth: {waits}, {bytes}");
    let (waits, bytes) = heads(&repo, (0..60).step_by(2));
    assert!(waits < 20 && bytes <= (30 + 30) * each, "every second: {waits}, {bytes}");
}

#[test]
fn a_reader_of_heads_waits_once_in_each_further_folder() {
    let photo = |i: u64| Item::new(Body::File(vec![Segment::Noise(i, 300_000)]));
    let folder = |d: u64| Item::dir((0..8).map(move |i| (format!("{i}.jpg"), photo(d * 8 + i))));
    let repo = Repo::of(&Item::dir((0..5).map(|d| (d.to_string(), folder(d)))));
    let (waits, bytes) = heads_at(&repo, (0..40).map(|i| (format!("{}/{}.jpg", i / 8, i % 8), i)));
    assert!(waits == 3 + 4 && bytes <= 40 * 3 * 65_700, "{waits}, {bytes}");
    // One photo of each folder: there is no pattern to predict.
    let (waits, bytes) = heads_at(&repo, (0..5).map(|d| (format!("{d}/0.jpg"), d * 8)));
    assert!(waits == 5 && bytes <= 5 * 3 * 65_700, "{waits}, {bytes}");
}

/// Reads 4 KiB at `count` places of a file, and follows the advice. Returns the number of reads that waited, and the fetched
/// bytes of contents.
fn random_reads(repo: &Repo, content: &[u8], count: u64, round_trip: u64) -> (u32, u64) {
    let vfs = repo.vfs_over(96 * MIB, round_trip);
    let ino = lookup(&vfs, "latest/database", Mode::Fetch(background())).unwrap();
    let mut waits = 0;
    for i in 0..count {
        let at = ((i * 1_234_577 % content.len() as u64) & !4095) as usize;
        let advice = RefCell::new(Vec::new());
        let read = |mode| vfs.read(ino, at as u64, 4096, mode, &|ahead| advice.borrow_mut().push(ahead));
        let bytes = read(Mode::Cached).or_else(|_| {
            waits += 1;
            read(Mode::Fetch(background()))
        });
        assert!(bytes.unwrap() == content[at..at + 4096]);
        let ranges = advice.take().into_iter().flat_map(|ahead| vfs.plan(&ahead, Mode::Fetch(background())).unwrap());
        ranges.for_each(|range| vfs.fetch_ahead(background(), &range));
    }
    (waits, vfs.repository().cache_stats().contents)
}

#[test]
fn random_reads_of_a_file_soon_wait_seldom_where_a_round_trip_is_long() {
    let content = noise(5, 8 * MIB);
    let repo = Repo::of(&Item::dir([("database", Item::file(content.clone()))]));
    let (waits, bytes) = random_reads(&repo, &content, 300, 0);
    assert!(waits > 100, "{waits} waits, {bytes} bytes without stretches");
    let (waits, bytes) = random_reads(&repo, &content, 300, 5 << 20);
    assert!(waits < 25 && bytes < 9 << 20, "{waits} waits, {bytes} bytes");
}

#[test]
fn a_read_of_a_compressed_file_waits_for_one_round_trip() {
    // Two chunks of four frames, which shrink to about a half.
    let text: Vec<u8> = noise(3, MIB).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect();
    let storage = Between::<Rounds, Memory>::with(Memory::default(), Rounds::default());
    let repo = repository::init(storage.clone());
    let mut state = State::default();
    Writer::new(&repo).commit(&mut state, &Item::dir([("text", Item::file(text.clone()))]), |_| {});
    let repo = Arc::new(repository::open(storage.clone()));
    let vfs = Vfs::new(background(), repo, state, Options { round_trip: Some(0), ..Options::default() }).unwrap();
    let ino = lookup(&vfs, "latest/text", Mode::Fetch(background())).unwrap();
    for at in [100_000, 700_000, 1_500_000] {
        storage.rule.take();
        let bytes = vfs.read(ino, at as u64, 4096, Mode::Fetch(background()), &|_| ()).unwrap();
        assert!(bytes == text[at..at + 4096]);
        let reads = storage.rule.take();
        assert_eq!(reads.rounds, 1, "at {at}: {reads:?}");
    }
}
