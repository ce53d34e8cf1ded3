//! E: objects of a writer that has the key (T61). Decoders on their own are in `tests/format/format.rs`,
//! `tests/format/format_memory.rs` and `tests/fuzz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nfreezer::context::{Context, background};
use nfreezer::crypto::keys::ChunkKind;
use nfreezer::crypto::seal::ObjectType;
use nfreezer::error::Kind;
use nfreezer::format::node::{Attrs, Content, Node, Xattrs};
use nfreezer::format::pack::Builder;
use nfreezer::format::page::Page;
use nfreezer::format::record::Snapshot;
use nfreezer::format::reference::{PackRef, Ref};
use nfreezer::progress::{Event, Progress};
use nfreezer::repo::{Repository, State};
use nfreezer::restore::{Options, restore};
use nfreezer::time::Time;
use nfreezer::trees::Trees;
use nfreezer::vfs::{self, Mode, Vfs};

use crate::harness::writer::{Item, Writer};
use crate::oracle::case;
use crate::world::{told, world};

fn folder(name: &str, page: Option<Ref>) -> Node {
    Node {
        name: name.into(),
        attrs: Arc::new(Attrs { mode: 0o755, uid: 0, gid: 0, user: Vec::new(), group: Vec::new(), fs: 0 }),
        mtime: Time::new(1, 0),
        ctime: 1,
        inode: 1,
        nlink: 2,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content: Content::Directory(page),
    }
}

/// Commits a snapshot with `depth` levels of directories. All names of a level refer to the same page below, so that a
/// few bytes hold a tree larger than any disk. Returns the state and the snapshot.
fn levels(repo: &Repository, depth: usize, names: &[&str]) -> (State, Snapshot) {
    let mut builder = Builder::default();
    let mut below = None;
    for _ in 0..depth {
        let nodes = names.iter().map(|name| folder(name, below)).collect();
        let plain = Page::Leaf(nodes).encode(&PackRef::SELF);
        let id = repo.keys().chunk_id(ChunkKind::Page, &plain);
        below = Some(builder.add(id, ChunkKind::Page, &plain, plain.len()).in_pack(PackRef::SELF));
    }
    let pack = repo.put_pack(background(), ObjectType::Meta, &mut builder.finish(false).0).unwrap();
    let mut state = State::default();
    let root = below.map(|page| Ref { pack, ..page });
    let snapshot = Writer::new(repo).commit(&mut state, &Item::dir::<&str>([]), |s| s.root = root);
    (state, snapshot)
}

#[derive(Default)]
struct Stop {
    after: u64,
    seen: AtomicU64,
    signal: Arc<AtomicI32>,
    options: Options,
}

impl Progress for Stop {
    fn event(&self, event: Event<'_>) {
        if let Event::Skipped { why, .. } = event {
            told(why);
        }
        if self.seen.fetch_add(1, Ordering::SeqCst) >= self.after {
            self.signal.store(15, Ordering::SeqCst);
        }
    }
}

#[test]
fn t61_a_tree_that_is_too_deep_is_refused_where_it_is_too_deep() {
    case(|| {
        let repo = world().repo.behind(Arc::<nfreezer::storage::Memory>::default());
        let (state, snapshot) = levels(&repo, 6000, &["d"]);
        let keep = tempfile::tempdir().unwrap();
        let seen = Stop { after: u64::MAX, ..Stop::default() };
        let summary = restore(
            &Context::new(&seen, Arc::clone(&seen.signal)),
            &repo,
            &snapshot,
            b"/",
            &keep.path().join("out"),
            &seen.options,
        )
        .unwrap();
        assert_eq!((summary.directories, summary.damaged), (4096, 1));
        // Removes directories of a depth that `fs::remove_dir_all` cannot handle.
        assert!(std::process::Command::new("rm").arg("-rf").arg(keep.path().join("out")).status().unwrap().success());
        let vfs = Vfs::new(
            background(),
            Arc::new(repo),
            state,
            vfs::Options { at: Some((snapshot, b"/".to_vec())), ..Default::default() },
        )
        .unwrap();
        let mut ino = vfs::inode::ROOT;
        for _ in 0..5000 {
            ino = vfs.lookup(ino, b"d", Mode::Fetch(background())).unwrap().expect("a folder").ino;
        }
        assert!(vfs.path(ino).len() >= 10_000);
    });
}

#[test]
fn t61_a_tree_larger_than_any_disk_is_walked_in_little_memory_and_can_be_stopped() {
    case(|| {
        let repo = world().repo.behind(Arc::<nfreezer::storage::Memory>::default());
        // 2 to the power of 60 folders.
        let (_, snapshot) = levels(&repo, 60, &["a", "b"]);
        let keep = tempfile::tempdir().unwrap();
        let seen = Stop { after: 2000, ..Stop::default() };
        let stopper = Arc::clone(&seen.signal);
        let out = keep.path().join("out");
        // A restore of directories reports no progress, so this thread checks the disk.
        let watch = {
            let (out, stop) = (out.clone(), Arc::clone(&stopper));
            move || {
                while !out.join("a/".repeat(59) + "b").exists() && stop.load(Ordering::SeqCst) == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                stop.store(15, Ordering::SeqCst);
            }
        };
        let watch = std::thread::Builder::new().name("test::stop".into()).spawn(watch).unwrap();
        let error =
            restore(&Context::new(&seen, Arc::clone(&seen.signal)), &repo, &snapshot, b"/", &out, &seen.options)
                .unwrap_err();
        watch.join().unwrap();
        assert_eq!(error.kind(), Kind::Interrupted(15));
        assert!(Trees::new(&repo).at(background(), &snapshot, "/b/a".repeat(30).as_bytes()).is_ok());
    });
}

#[test]
fn t61_a_folder_of_many_entries_and_a_file_of_many_names() {
    case(|| {
        let repo = world().repo.behind(Arc::<nfreezer::storage::Memory>::default());
        let link = |i: u32| (format!("link{i:06}"), Item { inode: 7, nlink: 20_000, ..Item::file("one file") });
        let mut state = State::default();
        let snapshot = Writer::new(&repo).commit(&mut state, &Item::dir((0..20_000).map(link)), |_| {});
        assert_eq!(
            Trees::new(&repo).entries(background(), snapshot.root.as_ref()).filter(|node| node.is_ok()).count(),
            20_000
        );
        let keep = tempfile::tempdir().unwrap();
        let seen = Stop { after: u64::MAX, ..Stop::default() };
        let summary = restore(
            &Context::new(&seen, Arc::clone(&seen.signal)),
            &repo,
            &snapshot,
            b"/",
            &keep.path().join("out"),
            &seen.options,
        )
        .unwrap();
        assert_eq!((summary.damaged, summary.failed), (0, 0));
        let meta = std::fs::metadata(keep.path().join("out/link019999")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&meta), 20_000);
    });
}
