//! An interrupted push keeps the contents that it has stored, with the known part of the tree. The next push goes on
//! from there, also inside a file.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use crate::harness::hook::{Hook, hook};
use crate::harness::repository;
use crate::harness::stop_after::StopAfter;
use crate::harness::tree::{self, assert_same, in_snapshot, noise, on_disk, write};
use nfreezer::context::{Context, background};
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::node::PARTIAL;
use nfreezer::format::record::Snapshot;
use nfreezer::name::{Folder, Name};
use nfreezer::push::{Checkpoints, Options, Summary, push};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;
use nfreezer::trees::Trees;

const PACK: u64 = 16 << 20;
const NEVER: Checkpoints = Checkpoints {
    after: Duration::from_secs(3600),
    at_most: Duration::from_secs(3600),
    chunks: None,
    steps: 0,
    after_stop: Duration::from_secs(3600),
};
const ALWAYS: Checkpoints = Checkpoints { after: Duration::ZERO, at_most: Duration::ZERO, ..NEVER };

struct Setup {
    repo: Repository,
    storage: Arc<Hook>,
    dir: tempfile::TempDir,
    stop: Arc<AtomicI32>,
}

impl Setup {
    fn new() -> Self {
        let storage = hook(Memory::default());
        let repo = repository::init(storage.clone());
        Setup { repo, storage, dir: tempfile::tempdir().unwrap(), stop: Arc::default() }
    }

    /// Returns a setup with the same files and an empty repository.
    fn empty(self) -> Self {
        Setup { dir: self.dir, ..Setup::new() }
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    fn try_push(&self, checkpoints: Checkpoints) -> Result<Summary> {
        let ctx = Context::new(&nfreezer::progress::Silent, Arc::clone(&self.stop));
        push(&ctx, &self.repo, &self.options(checkpoints))
    }

    fn options(&self, checkpoints: Checkpoints) -> Options {
        let sources = vec![self.top()];
        Options { sources, host: "host".into(), user: "user".into(), checkpoints, ..Options::default() }
    }

    /// Runs a push without interruption and compares the snapshot with the disk.
    fn push(&self, checkpoints: Checkpoints) -> Summary {
        self.stop.store(0, Ordering::SeqCst);
        self.storage.after_put(|_| Ok(()));
        let summary = self.try_push(checkpoints).unwrap();
        assert_eq!(summary.skipped, 0);
        assert_same(&on_disk(&self.top()), &in_snapshot(&self.repo, &summary.snapshot, &self.top()));
        summary
    }

    /// Runs a push that is asked to stop as soon as the contents of this number of packs are read.
    fn interrupted(&self, packs: u64, checkpoints: Checkpoints) -> Error {
        self.stop.store(0, Ordering::SeqCst);
        let progress = StopAfter::new(packs * PACK, Arc::clone(&self.stop));
        let error = push(&Context::new(&progress, Arc::clone(&self.stop)), &self.repo, &self.options(checkpoints));
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted(15));
        error
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.repo.state(background()).unwrap().snapshots()
    }

    fn records(&self) -> usize {
        self.storage.list(background(), Folder::Log).unwrap().len()
    }

    /// Returns the unfinished files of a snapshot: the paths and the numbers of saved bytes.
    fn beginnings(&self, snapshot: &Snapshot) -> Vec<(Vec<u8>, u64)> {
        let flagged = tree::flagged(&self.repo, snapshot).into_iter().filter(|(_, flags)| flags & PARTIAL != 0);
        flagged
            .map(|(path, _)| {
                (path.clone(), Trees::new(&self.repo).at(background(), snapshot, &path).unwrap().content.size())
            })
            .collect()
    }

    /// Checks the claims of the snapshot against the disk: whole files are equal, and unfinished files are beginnings
    /// of files. Returns the number of bytes in it.
    fn check(&self, snapshot: &Snapshot) -> u64 {
        tree::check_partial(&self.repo, snapshot, &self.top(), &on_disk(&self.top()))
    }
}

/// Writes small files in folders, then a big file, then more small files. Returns the number of bytes.
fn mixed(top: &Path) -> u64 {
    let mut bytes = 0;
    let mut file = |name: String, seed: u64, len: usize| {
        write(top.join(name), noise(seed, len));
        bytes += len as u64;
    };
    (0..60).for_each(|i| file(format!("a/{}/{i}", i % 7), i, 300_000));
    file("b/c/big".into(), 1000, 100 << 20);
    (0..60).for_each(|i| file(format!("d/{i}"), 100 + i, 300_000));
    fs::create_dir(top.join("e")).unwrap();
    std::os::unix::fs::symlink("a", top.join("f")).unwrap();
    tree::settle();
    bytes
}

#[test]
fn a_push_that_is_asked_to_stop_at_any_pack_goes_on_from_there() {
    let mut setup = Setup::new();
    let total = mixed(&setup.top());
    let (mut inside, mut most) = (0, 0);
    for packs in [1, 2, 4, 6, 7] {
        setup = setup.empty();
        let error = setup.interrupted(packs, NEVER);
        assert!(error.hint_text().unwrap().contains("run the same push again"), "{error}");
        let [partial] = &setup.snapshots()[..] else { panic!("one unfinished snapshot") };
        assert!(partial.partial);
        assert_eq!(
            setup.repo.state(background()).unwrap().select("latest").unwrap_err().kind(),
            Kind::Failed,
            "it is not latest"
        );
        let bytes = setup.check(partial);
        assert_eq!(bytes, partial.stats.bytes);
        let (added, stored) = (partial.stats.added, partial.stats.stored);
        assert!(added <= stored, "only contents that are stored count: {added} of {stored}");
        most = most.max(bytes);
        inside += setup.beginnings(partial).len();
        let stored = packs * (PACK - (512 << 10)); // the end of a pack may stay empty
        let whole = setup.push(NEVER);
        assert_eq!(whole.parent, Some(partial.id));
        assert!(whole.read <= total - bytes, "{} of {total} read, {bytes} were saved", whole.read);
        assert!(
            whole.sent < (total + PACK).saturating_sub(stored),
            "{} of {total} sent after {packs} packs",
            whole.sent
        );
        assert_eq!(setup.snapshots(), [whole.snapshot], "the unfinished one has ended");
    }
    assert!(inside >= 3, "the big file was never found unfinished");
    // Contents count up to the first chunk whose pack is not stored. A slow thread may hold a chunk while several packs
    // fill.
    assert!(most > total / 4, "{most} of {total}");
}

#[test]
fn a_push_that_is_stopped_early_leaves_the_unfinished_snapshot_that_got_further() {
    let setup = Setup::new();
    let total = mixed(&setup.top());
    setup.interrupted(6, NEVER);
    let [far] = &setup.snapshots()[..] else { panic!("one unfinished snapshot") };
    // New files in front of all others fill packs before any later file can be in the tree.
    (0..20).for_each(|i| write(setup.top().join(format!("0/{i}")), noise(4000 + i, 1 << 20)));
    write(setup.top().join("1"), noise(5000, 4 * PACK as usize));
    tree::settle();
    setup.stop.store(0, Ordering::SeqCst);
    setup.interrupted(2, NEVER);
    let snapshots = setup.snapshots();
    let near = snapshots.iter().find(|s| s.id != far.id).expect("another unfinished snapshot");
    // The walk may be ahead of the readers and meet the files of the other one. Then the new one has them too.
    assert!(near.partial && (snapshots.contains(far) || near.stats.bytes >= far.stats.bytes), "{near:?} and {far:?}");
    let whole = setup.push(NEVER);
    assert!(whole.read <= total + 6 * PACK - far.stats.bytes, "{} of {total} are read again", whole.read);
    assert_eq!(setup.snapshots(), [whole.snapshot], "both have ended");
}

#[test]
fn checkpoints_while_a_push_goes_on_replace_each_other_and_end_with_it() {
    let setup = Setup::new();
    mixed(&setup.top());
    let whole = setup.push(ALWAYS);
    assert_eq!(setup.snapshots(), [whole.snapshot]);
    let state = setup.repo.state(background()).unwrap();
    let partials = state.forgotten();
    assert!(partials.len() >= 3 && partials.iter().all(|s| s.partial), "{}", partials.len());
    partials.iter().for_each(|s| assert_eq!(setup.check(s), s.stats.bytes));
    let again = setup.push(ALWAYS);
    assert_eq!((again.read, again.packs), (0, 0), "the index of all those records is right");
}

#[test]
fn a_client_that_is_killed_sends_again_only_what_followed_the_last_checkpoint() {
    let setup = Setup::new();
    let total = mixed(&setup.top());
    let mut records = 0;
    setup.storage.after_put(move |name| {
        records += u64::from(matches!(name, Name::Record { .. }));
        // The record is stored, but the client does not learn of it.
        if records >= 3 { Err(Error::new(Kind::Connection, "killed")) } else { Ok(()) }
    });
    assert_eq!(setup.try_push(ALWAYS).unwrap_err().kind(), Kind::Connection);
    let partial = setup.snapshots().pop().unwrap();
    assert!(partial.partial);
    let bytes = setup.check(&partial);
    // The number of bytes read again depends on the order in which the packs were stored.
    let whole = setup.push(NEVER);
    assert!(whole.read <= total - bytes && whole.sent < total - bytes + PACK, "{} {}", whole.read, whole.sent);
    assert_eq!(setup.snapshots(), [whole.snapshot]);
}

#[test]
fn nothing_new_makes_no_record() {
    let setup = Setup::new();
    write(setup.top().join("small"), noise(1, 1 << 20));
    let records = setup.records();
    setup.stop.store(2, Ordering::SeqCst);
    assert_eq!(setup.try_push(ALWAYS).unwrap_err().kind(), Kind::Interrupted(2));
    assert_eq!(setup.records(), records);
    setup.push(ALWAYS);
    // Everything is stored already: the push has many steps, and none of them is worth a record.
    let records = setup.records();
    setup.push(ALWAYS);
    assert_eq!(setup.records(), records + 1);
}

/// Makes directories on several levels, with more pages than fit into a metadata pack: targets of links do not shrink.
fn heavy(top: &Path, links: u64) {
    let target = |i| noise(i, 3500).iter().map(|byte| (byte % 255) + 1).collect::<Vec<u8>>();
    for i in 0..links {
        let folder = top.join(format!("x/{}/{}", i % 3, i % 11));
        fs::create_dir_all(&folder).unwrap();
        let target = target(i);
        std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&target), folder.join(format!("{i}"))).unwrap();
        if i % 50 == 0 {
            write(folder.join(format!("file {i}")), noise(i, 2000));
        }
    }
    for i in 0..9 {
        write(top.join(format!("y/several chunks {i}")), noise(1000 + i, 6 << 20));
        fs::hard_link(top.join(format!("y/several chunks {i}")), top.join(format!("y/z link {i}"))).unwrap();
    }
    tree::settle();
}

#[test]
fn a_metadata_pack_that_is_full_in_the_middle_of_the_tree() {
    let setup = Setup::new();
    heavy(&setup.top(), 10_500);
    let whole = setup.push(NEVER);
    assert!(whole.packs >= 3 + 3, "{} packs", whole.packs);
    let again = setup.push(NEVER);
    assert_eq!((again.packs, again.snapshot.root), (0, whole.snapshot.root));
}

#[test]
fn checkpoints_at_any_step_do_not_change_the_tree() {
    let mut setup = Setup::new();
    heavy(&setup.top(), 6_000);
    for steps in [256, 1_999] {
        setup = setup.empty();
        let whole = setup.push(Checkpoints { steps, ..NEVER });
        let partials = setup.repo.state(background()).unwrap().forgotten();
        assert!(!partials.is_empty());
        for s in partials.iter().rev().take(3) {
            setup.check(s);
        }
        assert_eq!(setup.snapshots(), [whole.snapshot]);
    }
}

#[test]
fn a_checkpoint_after_every_single_step_of_a_nested_tree() {
    let setup = Setup::new();
    tree::nasty(&setup.top());
    tree::settle();
    let whole = setup.push(Checkpoints { steps: 1, ..NEVER });
    let partials = setup.repo.state(background()).unwrap().forgotten();
    assert!(partials.len() > 50, "{}", partials.len());
    let again = setup.push(NEVER);
    assert_eq!((again.read, again.packs, again.snapshot.root), (0, 0, whole.snapshot.root));
}

#[test]
fn few_chunks_in_memory_make_more_records_and_the_same_index() {
    let setup = Setup::new();
    let file = |i: u64| setup.top().join(format!("{}/{i}", i % 13));
    (0..2600).for_each(|i| write(file(i), noise(i % 2200, 20_000)));
    let first = setup.push(Checkpoints { chunks: Some(100), ..NEVER });
    // The number of records depends on how far the walk is ahead of the packs.
    assert!(setup.records() >= 2, "{}", setup.records());
    assert!(first.sent < 2200 * 20_000 + 2 * PACK, "contents of this push are found again: {}", first.sent);
    fs::rename(setup.top(), setup.dir.path().join("old")).unwrap();
    (0..2200).for_each(|i| write(setup.top().join(format!("new/{i}")), noise(2199 - i, 20_000)));
    let second = setup.push(NEVER);
    assert_eq!(second.read, 2200 * 20_000);
    assert!(second.sent < 2 << 20, "all contents are in the index: {}", second.sent);
}

#[test]
fn a_file_that_was_touched_is_not_gone_on_with() {
    for grow in [true, false] {
        let setup = Setup::new();
        write(setup.top().join("big"), noise(1, 80 << 20));
        tree::settle();
        setup.interrupted(3, NEVER);
        let saved = setup.beginnings(&setup.snapshots()[0])[0].1;
        let path = setup.top().join("big");
        match grow {
            true => write(&path, noise(2, 90 << 20)),
            false => write(&path, noise(1, (saved - 5000) as usize)),
        }
        let whole = setup.push(NEVER);
        assert_eq!(whole.read, if grow { 90 << 20 } else { saved - 5000 });
    }
}

#[test]
fn a_file_with_holes_goes_on_where_it_was() {
    let setup = Setup::new();
    let path = setup.top().join("holes");
    fs::create_dir_all(setup.top()).unwrap();
    let file = fs::File::create(&path).unwrap();
    for i in 0..30u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &noise(i, 3 << 20), i * (8 << 20) + (1 << 20)).unwrap();
    }
    file.set_len(300 << 20).unwrap();
    tree::settle();
    setup.interrupted(3, NEVER);
    let partial = setup.snapshots().pop().unwrap();
    let saved = setup.check(&partial);
    let whole = setup.push(NEVER);
    let data = saved / (8 << 20) * (3 << 20);
    assert!(whole.read <= (90 << 20) - data, "{} after {saved}", whole.read);
}

#[test]
fn several_interrupted_pushes_one_after_the_other() {
    let setup = Setup::new();
    let total = mixed(&setup.top());
    let mut read = 0;
    for _ in 0..3 {
        setup.stop.store(0, Ordering::SeqCst);
        setup.interrupted(2, NEVER);
        let partials = setup.snapshots();
        assert!(partials.len() == 1 && partials[0].partial, "the one that got further is left");
        let bytes = setup.check(&partials[0]);
        assert!(bytes >= read, "{bytes} after {read}");
        read = bytes;
    }
    let whole = setup.push(NEVER);
    assert!(whole.read <= total - read);
    assert_eq!(setup.snapshots(), [whole.snapshot]);
}

#[test]
fn a_time_that_was_given_proves_nothing_about_files() {
    let setup = Setup::new();
    write(setup.top().join("f"), b"1");
    tree::settle();
    let later = nfreezer::repo::now().seconds + 1_000_000;
    let given = |time| {
        let options = Options {
            sources: vec![setup.top()],
            host: "host".into(),
            time: Some(Time::new(time, 5)),
            ..Options::default()
        };
        push(background(), &setup.repo, &options).unwrap()
    };
    let first = given(later);
    assert_eq!(first.snapshot.time, Time::new(later, 5));
    assert_eq!(first.snapshot.extra.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1], "the real beginning");
    // The file is written to after the real beginning and before the time on the snapshot. Only the real beginning
    // counts.
    let path = setup.top().join("f");
    let (mtime, old) = (path.metadata().unwrap().modified().unwrap(), fs::read(&path).unwrap());
    assert_eq!(old, b"1");
    fs::write(&path, b"2").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    let second = setup.push(NEVER);
    assert_eq!((second.parent, second.read), (Some(first.snapshot.id), 1));
    // A time long ago does not make files look as if they had been touched since then.
    tree::settle();
    given(1_000_000_000);
    let options = Options { sources: vec![setup.top()], host: "host".into(), ..Options::default() };
    assert_eq!(push(background(), &setup.repo, &options).unwrap().read, 0);
}

#[test]
fn too_little_memory_is_refused_and_little_is_enough() {
    let setup = Setup::new();
    (0..300).for_each(|i| write(setup.top().join(format!("{i}")), noise(i, 200_000)));
    let with = |memory| {
        let options = Options { sources: vec![setup.top()], host: "host".into(), memory, ..Options::default() };
        push(background(), &setup.repo, &options)
    };
    assert_eq!(with(100 << 20).unwrap_err().kind(), Kind::Usage);
    let least = with(104 << 20).unwrap();
    assert_same(&on_disk(&setup.top()), &in_snapshot(&setup.repo, &least.snapshot, &setup.top()));
}
