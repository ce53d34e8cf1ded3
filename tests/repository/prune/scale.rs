//! The memory of a plan for 10,000,000 chunks and 1,000 snapshots, and its time over a slow line. The data packs are
//! sparse files, because a plan reads only metadata.
//!
//! `cargo test --test repository scale -- --ignored --nocapture`; `NFREEZER_CHUNKS` sets another number of chunks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nfreezer::context::background;
use nfreezer::crypto::keys::{ChunkId, ChunkKind};
use nfreezer::crypto::seal::ObjectType;
use nfreezer::format::list::List;
use nfreezer::format::node::{Attrs, Content, Node, Xattrs};
use nfreezer::format::pack::{Builder, Entry};
use nfreezer::format::page::Page;
use nfreezer::format::record::{Head, Snapshot, SnapshotId};
use nfreezer::format::reference::{Extent, PackRef, Ref};
use nfreezer::format::sections::index_sections;
use nfreezer::format::{index, limits};
use nfreezer::name::{Name, ObjectId};
use nfreezer::prune;
use nfreezer::repo::{Access, Repository, State, random};
use nfreezer::seen::SeenStore;
use nfreezer::storage::{self, Local, Location, SshOptions, Storage};
use nfreezer::time::Time;

use crate::harness::proxy::Proxy;
use crate::harness::repository::{init, passphrase};
use crate::harness::sshd::Sshd;

const FILES: u64 = 1000;
const SNAPSHOTS: u64 = 1000;
/// Size of a chunk in bytes.
const CHUNK: u32 = 10_000;
/// Number of chunks in a data pack.
const IN_PACK: u64 = 1600;
/// Number of rows in a page of a list.
const ROWS: usize = 3000;
/// Upper bound of the memory of the whole process, in bytes.
const MOST: u64 = 256 << 20;
/// Environment variables with the orders of the measured process.
const HOME: &str = "NFREEZER_TEST_HOME";
const ADDRESS: &str = "NFREEZER_TEST_ADDRESS";

fn chunks() -> u64 {
    std::env::var("NFREEZER_CHUNKS").map_or(10_000_000, |n| n.parse().expect("NFREEZER_CHUNKS is a number"))
}

#[test]
#[ignore = "takes minutes"]
fn a_plan_for_ten_million_chunks_stays_within_256_mib() {
    let sshd = Sshd::start();
    let since = Instant::now();
    Maker::new(&sshd.files()).make();
    println!("made in {:.0?}", since.elapsed());
    let near = measure(&sshd, None);
    assert!(near.peak <= MOST, "{} bytes", near.peak);
    let far = measure(&sshd, Some(Duration::from_millis(25)));
    assert!(far.peak <= MOST, "{} bytes", far.peak);
    assert!(far.seconds < 60.0, "{} s", far.seconds);
}

/// Peak memory of a process in bytes, and time of its plan in seconds.
struct Measured {
    peak: u64,
    seconds: f64,
}

/// Plans in a separate process, on the disk or over a line with this delay each way.
fn measure(sshd: &Sshd, delay: Option<Duration>) -> Measured {
    let home = tempfile::tempdir().unwrap();
    let proxy = delay.map(|delay| Proxy::start(sshd.port, delay));
    let repository = sshd.files().join("repository").display().to_string();
    let address = match &proxy {
        Some(_) => format!("server:{repository}"),
        None => repository,
    };
    sshd.client_config(home.path(), proxy.as_ref().map_or(sshd.port, |proxy| proxy.port));
    let mut measured = Command::new(std::env::current_exe().unwrap());
    measured.args(["--exact", "prune::scale::measured_process", "--ignored", "--nocapture"]);
    let output = measured.env(HOME, home.path()).env(ADDRESS, address).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("delay {delay:?}");
    text.lines().filter(|line| line.starts_with("measured: ")).for_each(|line| println!("{line}"));
    let figure = |name| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    Measured {
        peak: figure("measured: peak ").parse().unwrap(),
        seconds: figure("measured: seconds ").parse().unwrap(),
    }
}

#[test]
#[ignore = "started by the test above"]
fn measured_process() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    let access = Access { seen: Some(SeenStore::at(home.join("seen"))), ..Access::default() };
    let ssh = SshOptions { ssh_config: Some(home.join("ssh_config")), ..SshOptions::default() };
    let options = storage::Options { ssh, ..storage::Options::default() };
    let location = Location::parse(&std::env::var(ADDRESS).unwrap()).unwrap();
    let storage: Arc<dyn Storage> = Arc::from(storage::open(background(), &location, options).unwrap());
    let repo = Repository::open_with(background(), storage, &access, || Ok(passphrase())).unwrap();
    println!("\nmeasured: opened with {} MiB", peak() >> 20);
    let since = Instant::now();
    let plan = prune::plan(background(), &repo, &prune::Options::default()).unwrap();
    println!("measured: {plan:?}");
    println!("measured: seconds {:.1}", since.elapsed().as_secs_f64());
    // The first pages of the first file are in no snapshot.
    assert_eq!(plan.unused.objects, 1);
    assert!(plan.used.bytes - plan.unused_bytes >= chunks() * u64::from(CHUNK));
    println!("measured: peak {}", peak());
}

/// Returns the largest resident size of this process so far, in bytes.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Writes the repository, a file at a time.
struct Maker {
    repo: Repository,
    folder: PathBuf,
    state: State,
    /// Number of chunks so far.
    count: u64,
    packs: Vec<(PackRef, ObjectType)>,
    entries: Vec<(u32, Entry)>,
    snapshots: Vec<Snapshot>,
}

impl Maker {
    fn new(folder: &Path) -> Self {
        let folder = folder.join("repository");
        let repo = init(Arc::new(Local::new(&folder)));
        let state = repo.state(background()).unwrap();
        let (packs, entries, snapshots) = Default::default();
        Maker { repo, folder, state, count: 0, packs, entries, snapshots }
    }

    fn make(&mut self) {
        let mut files = Vec::new();
        for file in 0..FILES {
            let extents = self.contents(chunks() / FILES);
            let mut pages = Pages::default();
            let leaves = extents.chunks(ROWS).map(|rows| pages.leaf(&self.repo, rows)).collect::<Vec<_>>();
            let top = pages.upper(&self.repo, &leaves);
            files.push((extents, self.at(pages, top)));
            if file % 100 == 99 {
                self.commit();
            }
        }
        for snapshot in 0..SNAPSHOTS {
            let changed = (snapshot % FILES) as usize;
            files[changed].0[0] = self.contents(1)[0];
            let mut pages = Pages::default();
            let leaves = files[changed].0.chunks(ROWS).map(|rows| pages.leaf(&self.repo, rows)).collect::<Vec<_>>();
            let list = pages.upper(&self.repo, &leaves);
            let nodes = files.iter().enumerate().map(|(i, (extents, top))| {
                let size = extents.iter().map(Extent::len).sum();
                node(i, Content::Large { size, list: if i == changed { list } else { *top } })
            });
            let root = pages.add(&self.repo, ChunkKind::Page, &Page::Leaf(nodes.collect()).encode(&PackRef::SELF));
            let root = self.at(pages, root);
            files[changed].1 = Ref { pack: root.pack, ..list };
            self.snapshot(snapshot, root);
            if snapshot % 100 == 99 {
                self.commit();
            }
        }
    }

    /// Makes data packs with chunks that no other file has. Returns the extents.
    fn contents(&mut self, count: u64) -> Vec<Extent> {
        let mut extents = Vec::new();
        for first in (0..count).step_by(IN_PACK as usize) {
            let pack = PackRef { id: ObjectId(random().unwrap()), len: limits::PACK as u32 };
            let path = self.folder.join(Name::Pack(pack.id).to_string());
            File::create(path).unwrap().set_len(pack.file_len()).unwrap();
            for i in 0..IN_PACK.min(count - first) {
                self.count += 1;
                let id = ChunkId(random().unwrap());
                let entry = Entry { id, kind: ChunkKind::Data, offset: i as u32 * CHUNK, stored: CHUNK, len: CHUNK };
                extents.push(Extent::Data(entry.in_pack(pack)));
                self.entries.push((self.packs.len() as u32, entry));
            }
            self.packs.push((pack, ObjectType::Data));
        }
        extents
    }

    /// Stores a metadata pack and returns the place of one of its pages.
    fn at(&mut self, pages: Pages, page: Ref) -> Ref {
        let (mut plain, entries) = pages.0.finish(false);
        let pack = self.repo.put_pack(background(), ObjectType::Meta, &mut plain).unwrap();
        self.entries.extend(entries.into_iter().map(|entry| (self.packs.len() as u32, entry)));
        self.packs.push((pack, ObjectType::Meta));
        Ref { pack, ..page }
    }

    fn snapshot(&mut self, number: u64, root: Ref) {
        self.snapshots.push(Snapshot {
            id: SnapshotId(random().unwrap()),
            time: Time::from_seconds(1_700_000_000 + number as i64 * 86_400),
            host: "host".into(),
            user: "user".into(),
            root: Some(root),
            program: "test".into(),
            ..Snapshot::default()
        });
    }

    fn commit(&mut self) {
        let (packs, entries) = (std::mem::take(&mut self.packs), std::mem::take(&mut self.entries));
        let sections = index_sections(&packs, index::rows(&entries), 0);
        let head = Head { snapshots: std::mem::take(&mut self.snapshots), ..Head::default() };
        self.repo.commit(background(), &mut self.state, head, &sections).unwrap();
    }
}

/// A metadata pack that is being filled.
#[derive(Default)]
struct Pages(Builder);

impl Pages {
    fn add(&mut self, repo: &Repository, kind: ChunkKind, plain: &[u8]) -> Ref {
        let id = repo.keys().chunk_id(kind, plain);
        self.0.add(id, kind, plain, plain.len()).in_pack(PackRef::SELF)
    }

    fn leaf(&mut self, repo: &Repository, rows: &[Extent]) -> (u64, Ref) {
        let list = List::Leaf(rows.to_vec());
        (list.span(), self.add(repo, ChunkKind::List, &list.encode(&PackRef::SELF)))
    }

    fn upper(&mut self, repo: &Repository, leaves: &[(u64, Ref)]) -> Ref {
        self.add(repo, ChunkKind::List, &List::Upper(leaves.to_vec()).encode(&PackRef::SELF))
    }
}

fn node(number: usize, content: Content) -> Node {
    let attrs = Attrs { mode: 0o644, uid: 0, gid: 0, user: Vec::new(), group: Vec::new(), fs: 0 };
    Node {
        name: format!("file{number:04}").into_bytes(),
        attrs: Arc::new(attrs),
        mtime: Time::from_seconds(1),
        ctime: 7,
        inode: number as u64 + 1,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content,
    }
}
