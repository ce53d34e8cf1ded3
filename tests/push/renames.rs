//! Renamed or moved files are not read again, but only where nothing else can have happened to them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::repository;
use crate::harness::tree::{self, assert_same, in_snapshot, noise, on_disk, settle, write};
use nfreezer::context::background;
use nfreezer::format::node::Node;
use nfreezer::progress::{Event, Progress, Silent};
use nfreezer::push::{Options, Summary, push};
use nfreezer::repo::Repository;
use nfreezer::storage::Memory;
use nfreezer::time::Time;
use nfreezer::trees::Trees;

/// A repository, and a folder on a disk or in memory.
struct Case {
    repo: Repository,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Case::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: tempfile::TempDir) -> Self {
        let repo = repository::init(Arc::new(Memory::default()));
        Case { repo, dir }
    }

    /// Returns a case in the folder of temporary files and one in memory: file systems differ in the times that a
    /// rename changes.
    fn everywhere() -> Vec<Case> {
        vec![Case::new(), Case::at(tempfile::tempdir_in("/dev/shm").unwrap())]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mv(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Pushes `sources` once all their files have come to rest, and compares everything.
    fn push(&self, sources: &[&str]) -> Summary {
        self.push_while(sources, &Silent)
    }

    fn push_while(&self, sources: &[&str], progress: &dyn Progress) -> Summary {
        settle();
        let paths: Vec<PathBuf> = sources.iter().map(|source| self.path(source)).collect();
        let options =
            Options { sources: paths.clone(), host: "host".into(), user: "user".into(), ..Options::default() };
        let summary = push(&background().with_progress(progress), &self.repo, &options).unwrap();
        assert_eq!(summary.skipped, 0);
        for path in paths {
            assert_same(&on_disk(&path), &in_snapshot(&self.repo, &summary.snapshot, &path));
        }
        summary
    }

    fn node(&self, summary: &Summary, name: &str) -> Node {
        Trees::new(&self.repo)
            .at(background(), &summary.snapshot, self.path(name).as_os_str().as_encoded_bytes())
            .unwrap()
    }
}

/// Calls a function on every event.
struct During<F: Fn(&Event<'_>) + Send + Sync>(F);

impl<F: Fn(&Event<'_>) + Send + Sync> Progress for During<F> {
    fn event(&self, event: Event<'_>) {
        (self.0)(&event);
    }
}

/// Returns the counters of a summary: bytes read, and files renamed, new, changed, unchanged.
fn counts(s: &Summary) -> (u64, u64, u64, u64, u64) {
    (s.read, s.renamed, s.new, s.changed, s.unchanged)
}

fn mtime(path: &Path) -> Time {
    let stat = fs::metadata(path).unwrap();
    Time::new(stat.mtime(), stat.mtime_nsec() as u32)
}

#[test]
fn a_file_that_was_renamed_by_itself_is_not_read() {
    for case in Case::everywhere() {
        // Each rename is the last change of one of its folders, so a machine that stalls does not matter.
        for name in ["1/a", "2/b", "3/c", "4/large", "5/empty", "below/stays"] {
            let len = if name == "4/large" { 5 << 20 } else { 1000 };
            write(case.path("top").join(name), if name == "5/empty" { Vec::new() } else { noise(7, len) });
        }
        case.push(&["top"]);
        case.mv("top/1/a", "top/1/new name");
        case.mv("top/2/b", "top/below/b");
        case.mv("top/3/c", "top/c");
        fs::create_dir_all(case.path("top/x/y")).unwrap();
        case.mv("top/4/large", "top/x/y/large");
        case.mv("top/5/empty", "top/x/void");
        let second = case.push(&["top"]);
        assert_eq!(counts(&second), (0, 5, 0, 0, 1), "in {:?}", case.dir);
        assert!(second.stored < 128 << 10 && second.packs == 1, "no content is sent: {second:?}");
        let stat = fs::metadata(case.path("top/1/new name")).unwrap();
        let ctime = case.node(&second, "top/1/new name").ctime;
        assert_eq!(ctime, stat.ctime() * 1_000_000_000 + stat.ctime_nsec(), "the node has the file's present ctime");
        assert_eq!(counts(&case.push(&["top"])), (0, 0, 0, 0, 6), "so the next push knows it where it is now");
    }
}

#[test]
fn files_that_take_each_others_names_are_not_read() {
    let case = Case::new();
    (0..5).for_each(|i| write(case.path(&format!("top/log.{i}")), noise(i, 5000)));
    case.push(&["top"]);
    // The last file is close to the last change of the folder. The number of other such files depends on the machine.
    let fits = |s: &Summary| s.read == (5 - s.renamed - s.unchanged) * 5000 && s.renamed > 0 && s.packs == 1;
    (0..5).rev().for_each(|i| case.mv(&format!("top/log.{i}"), &format!("top/log.{}", i + 1)));
    let rotated = case.push(&["top"]);
    assert!(fits(&rotated), "{rotated:?}");
    case.mv("top/log.1", "top/aside");
    case.mv("top/log.2", "top/log.1");
    case.mv("top/aside", "top/log.2");
    let swapped = case.push(&["top"]);
    assert!(fits(&swapped) && swapped.unchanged == 3, "{swapped:?}");
}

#[test]
fn many_files_moved_one_by_one_are_saved_right_and_their_contents_not_sent() {
    let case = Case::new();
    (0..1500).for_each(|i| write(case.path(&format!("top/a/{i}")), noise(i, 300)));
    fs::create_dir(case.path("top/b")).unwrap();
    case.push(&["top"]);
    (0..1500).for_each(|i| case.mv(&format!("top/a/{i}"), &format!("top/b/{i}")));
    let second = case.push(&["top"]);
    // The number of files that are close enough to the folder's last change depends on the machine.
    assert_eq!((second.renamed + second.new, second.read), (1500, second.new * 300));
    assert!(second.renamed > 0 && second.stored < 300 << 10, "{second:?}");
}

#[test]
fn swapped_moved_and_replaced_folders_are_not_read() {
    for case in Case::everywhere() {
        for (i, folder) in ["a", "b", "c", "d"].iter().enumerate() {
            (0..4).for_each(|f| write(case.path(&format!("top/{folder}/{f}")), noise(10 * i as u64 + f, 1000)));
        }
        case.push(&["top"]);
        case.mv("top/a", "top/aside");
        case.mv("top/b", "top/a");
        case.mv("top/aside", "top/b");
        assert_eq!(counts(&case.push(&["top"])), (0, 8, 0, 0, 8), "swapped, with equal names inside");
        case.mv("top/c", "top/d/c");
        assert_eq!(counts(&case.push(&["top"])), (0, 4, 0, 0, 12), "into a former sibling");
        case.mv("top/d", "top/e");
        write(case.path("top/d/0"), noise(99, 500));
        assert_eq!(counts(&case.push(&["top"])), (500, 8, 0, 1, 8), "a new folder took the place of a moved one");
        case.mv("top/e/c", "top/f");
        case.mv("top/f/1", "top/e/1000");
        write(case.path("top/f/2"), noise(100, 77));
        assert_eq!(counts(&case.push(&["top"])), (77, 3, 0, 1, 13), "moved, and changed inside");
    }
}

#[test]
fn sources_and_the_folders_above_them_may_be_renamed_and_files_go_from_one_to_another() {
    let case = Case::new();
    for name in ["jo/docs/1", "jo/docs/d/2", "jo/pictures/3"] {
        write(case.path(name), noise(name.len() as u64, 3000));
    }
    case.push(&["jo/docs", "jo/pictures"]);
    case.mv("jo/docs/d", "jo/pictures/d");
    case.mv("jo/docs/1", "jo/pictures/1");
    assert_eq!(counts(&case.push(&["jo/docs", "jo/pictures"])), (0, 2, 0, 0, 1), "from one source to another");
    case.mv("jo/pictures", "jo/photos");
    assert_eq!(counts(&case.push(&["jo/photos"])), (0, 3, 0, 0, 0), "the source was renamed");
    case.mv("jo", "joe");
    assert_eq!(counts(&case.push(&["joe/photos"])), (0, 3, 0, 0, 0), "the folder above the source was renamed");
    case.mv("joe/photos/1", "joe/one");
    assert_eq!(counts(&case.push(&["joe/one"])), (0, 1, 0, 0, 0), "the source is a file that was renamed");
}

#[test]
fn links_in_a_moved_folder_are_not_read_and_a_renamed_link_is() {
    let case = Case::new();
    write(case.path("top/a/one"), noise(1, 5000));
    fs::hard_link(case.path("top/a/one"), case.path("top/a/two")).unwrap();
    case.push(&["top"]);
    case.mv("top/a", "top/b");
    assert_eq!(counts(&case.push(&["top"])), (0, 2, 0, 0, 0));
    case.mv("top/b/two", "top/b/three");
    assert_eq!(case.push(&["top"]).read, 5000, "as the ctime of all its links changed");
}

// ----------------------------------------------------------------------------------------- changes that prove nothing

/// Saves a file, calls `change`, which leaves the file at `top/new`, and returns whether the next push read it again.
fn is_read_after(prepare: impl Fn(&Path), change: impl Fn(&Case)) -> bool {
    let case = Case::new();
    write(case.path("top/old"), noise(1, 4000));
    prepare(&case.path("top/old"));
    case.push(&["top"]);
    change(&case);
    let second = case.push(&["top"]);
    assert!((second.read, second.renamed) == (4000, 0) || (second.read, second.renamed) == (0, 1), "{second:?}");
    second.read > 0
}

#[test]
fn a_rename_alone_is_what_the_cases_below_are_compared_with() {
    assert!(!is_read_after(|_| {}, |case| case.mv("top/old", "top/new")));
}

#[test]
fn edited_in_place_with_mtime_set_back_after_the_rename() {
    let change = |case: &Case| {
        case.mv("top/old", "top/new");
        settle();
        let Time { seconds, nanoseconds } = mtime(&case.path("top/new"));
        write(case.path("top/new"), noise(2, 4000));
        tree::set_mtime(&case.path("top/new"), seconds, nanoseconds);
    };
    assert!(is_read_after(|_| {}, change));
}

#[test]
fn a_file_whose_mtime_was_set_before_proves_nothing_by_it() {
    let rename = |case: &Case| {
        let Time { seconds, nanoseconds } = mtime(&case.path("top/old"));
        write(case.path("top/old"), noise(2, 4000));
        tree::set_mtime(&case.path("top/old"), seconds, nanoseconds);
        case.mv("top/old", "top/new");
    };
    assert!(is_read_after(|path| tree::set_mtime(path, 1_000_000_000, 5), rename));
}

#[test]
fn its_mode_changed_too() {
    let chmod = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    let change = |case: &Case| {
        chmod(&case.path("top/old"));
        case.mv("top/old", "top/new");
    };
    assert!(is_read_after(|_| {}, change));
}

#[test]
fn it_had_or_has_another_link() {
    let link = |path: &Path| fs::hard_link(path, path.with_file_name("../other")).unwrap();
    let rename = |case: &Case| case.mv("top/old", "top/new");
    assert!(is_read_after(link, rename));
    let case_link = |case: &Case| {
        rename(case);
        link(&case.path("top/new"));
    };
    assert!(is_read_after(|_| {}, case_link));
}

#[test]
fn another_file_has_got_its_inode_number_and_its_times() {
    let case = Case::new();
    for i in 0..50 {
        write(case.path(&format!("top/{i}")), noise(i, 1000));
    }
    case.push(&["top"]);
    let time = mtime(&case.path("top/0"));
    // File systems reuse freed inode numbers for the next files.
    for i in 0..50 {
        fs::remove_file(case.path(&format!("top/{i}"))).unwrap();
    }
    for i in 0..50 {
        write(case.path(&format!("top/new {i}")), noise(100 + i, 1000));
        tree::set_mtime(&case.path(&format!("top/new {i}")), time.seconds, time.nanoseconds);
    }
    settle();
    write(case.path("top/last"), b"the folder changes later than its files");
    let second = case.push(&["top"]);
    assert_eq!((second.read, second.renamed), (50 * 1000 + 39, 0));
}

#[test]
fn a_young_file_is_read_again_wherever_it_is() {
    let case = Case::new();
    write(case.path("top/old/f"), noise(1, 4000));
    let (path, written) = (case.path("top/old/f"), AtomicBool::new(false));
    let during = During(|event| {
        if matches!(event, Event::Total { .. }) && !written.swap(true, Ordering::SeqCst) {
            write(&path, noise(2, 4000));
        }
    });
    case.push_while(&["top"], &during);
    case.mv("top/old", "top/new");
    assert_eq!(case.push(&["top"]).read, 4000);
}

#[test]
fn attributes_that_were_set_before_the_rename_are_saved_though_the_contents_are_not_read() {
    let case = Case::new();
    write(case.path("top/old"), noise(1, 4000));
    if !tree::set_xattr(&case.path("top/old"), "user.tag", b"red") {
        panic!("{:?} knows no extended attributes: set TMPDIR", case.dir);
    }
    case.push(&["top"]);
    tree::set_xattr(&case.path("top/old"), "user.tag", b"blue");
    case.mv("top/old", "top/new");
    let second = case.push(&["top"]);
    assert_eq!(counts(&second), (0, 1, 0, 0, 0));
    let node = case.node(&second, "top/new");
    assert_eq!(Trees::new(&case.repo).xattrs(background(), &node).unwrap(), [(b"user.tag".to_vec(), b"blue".to_vec())]);
}
