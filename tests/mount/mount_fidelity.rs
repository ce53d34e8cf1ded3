//! Properties of a real mount beside names and contents, read by common programs: holes, synthetic attributes, free
//! space, inode numbers and new snapshots.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::harness::mounted::{Mounted, eventually, run};
use crate::harness::repository;
use crate::harness::tree::{noise, set_xattr, settle, write};
use nfreezer::context::background;
use nfreezer::push::{self, push};
use nfreezer::repo::Repository;
use nfreezer::storage::Memory;
use nfreezer::time::Time;

/// A folder that is pushed, `/tmp/.../top`, and its repository.
struct Source {
    repo: Arc<Repository>,
    dir: tempfile::TempDir,
}

impl Source {
    fn new() -> Self {
        let repo = repository::init(Arc::<Memory>::default());
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("top")).unwrap();
        Source { repo: Arc::new(repo), dir }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("top").join(below)
    }

    fn push(&self, second: i64) {
        settle();
        let options = push::Options {
            sources: vec![self.dir.path().join("top")],
            host: "host".into(),
            time: Some(Time::new(second, 0)),
            ..Default::default()
        };
        push(background(), &self.repo, &options).unwrap();
    }

    fn mount(&self) -> Mounted {
        let state = self.repo.state(background()).unwrap();
        Mounted::with(Arc::clone(&self.repo), state, |o| o.refresh = Some(Duration::from_millis(50)))
    }

    /// Returns a path of the source in one of the mount's views.
    fn shown(&self, mount: &Mounted, view: &str, below: &str) -> PathBuf {
        mount.path(view).join(self.path(below).strip_prefix("/").unwrap())
    }
}

fn names(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn new_snapshots_show_in_every_folder_without_a_remount() {
    let source = Source::new();
    write(source.path("letter.txt"), "one");
    write(source.path("gone"), "was here");
    source.push(1_600_000_000);
    let mount = source.mount();
    let at = |view: &str, below: &str| source.shown(&mount, view, below);
    assert_eq!(names(&at("versions", "letter.txt")), ["2020-09-13_12-26-40.txt"]);
    assert_eq!(names(&mount.path("deleted")), [""; 0]);
    assert_eq!(fs::read(at("at/now", "letter.txt")).unwrap(), b"one");
    assert!(fs::metadata(at("versions", "new")).is_err() && fs::metadata(at("latest", "new")).is_err());
    let asked = rustix::fs::lgetxattr(at("latest", "letter.txt"), "user.note", &mut [0; 9]);
    assert_eq!(asked, Err(rustix::io::Errno::OPNOTSUPP), "so that programs stop asking");
    // A process whose working folder is in the mount sees new entries there.
    let inside = std::process::Command::new("sh")
        .current_dir(at("versions", ""))
        .args(["-c", "while ! ls | grep -q '^new$'; do sleep 0.05; done; ls letter.txt"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    write(source.path("letter.txt"), "two, longer");
    fs::remove_file(source.path("gone")).unwrap();
    write(source.path("new"), "n");
    let attributes = set_xattr(&source.path("new"), "user.note", b"hello");
    source.push(1_600_000_100);
    eventually("latest follows", || fs::read(at("latest", "letter.txt")).unwrap() == b"two, longer");
    let versions = ["2020-09-13_12-26-40.txt", "2020-09-13_12-28-20.txt"];
    eventually("versions follow", || names(&at("versions", "letter.txt")) == versions);
    assert_eq!(fs::read(at("versions", "letter.txt").join(versions[0])).unwrap(), b"one");
    eventually("deleted follows", || fs::read(at("deleted", "gone")).is_ok_and(|b| b == b"was here"));
    assert_eq!(names(&at("deleted", "")), ["gone"]);
    eventually("a moment follows", || fs::read(at("at/now", "letter.txt")).unwrap() == b"two, longer");
    assert_eq!(fs::read(at("at/2020-09-13_12-27", "letter.txt")).unwrap(), b"one");
    assert_eq!(fs::read(at("@GMT-2020.09.13-12.26.40", "letter.txt")).unwrap(), b"one");
    eventually("what was not there is", || fs::metadata(at("versions", "new")).is_ok());
    if attributes {
        let value = run("getfattr", &["--only-values", "-n", "user.note", text(&at("latest", "new"))]);
        assert_eq!(value, "hello", "the first attributes of all come with a later push");
    }
    let inside = inside.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(inside.stdout).unwrap(), versions.join("\n") + "\n");
}

#[test]
fn made_up_attributes_are_answered_and_not_copied_and_nobody_asks_for_nothing() {
    let source = Source::new();
    for i in 0..300 {
        write(source.path(&format!("d{}/f{i}", i % 5)), format!("{i}"));
    }
    source.push(1_600_000_000);
    let mount = source.mount();
    let f = source.shown(&mount, "latest", "d0/f0");
    let get = |name: &str| run("getfattr", &["--only-values", "-n", &format!("user.nfreezer.{name}"), text(&f)]);
    assert_eq!(names(&mount.path("ids")), [get("snapshot")[..8].to_owned()]);
    assert_eq!((get("id").len(), get("stored-size")), (32, "1".to_owned()));
    let before = mount.count(" xattrs");
    let listing = run("ls", &["-lR", text(&source.shown(&mount, "latest", ""))]);
    assert!(listing.lines().count() > 300);
    let asked = mount.count(" xattrs") - before;
    assert!(asked <= 10, "{asked} questions for the attributes of 300 files that have none");
    let copy = tempfile::tempdir().unwrap();
    let copied = |program: &str, args: &[&str]| {
        let to = copy.path().join(program);
        run(program, &[args, &[text(&source.shown(&mount, "latest", "")), text(&to)]].concat());
        run("getfattr", &["-Rd", "-m", "-", text(&to)])
    };
    assert!(!copied("cp", &["-a"]).contains("nfreezer"));
    assert!(!copied("rsync", &["-aX"]).contains("nfreezer"));
}

#[test]
fn holes_stay_holes_in_copies_and_archives() {
    let source = Source::new();
    let sparse = |name: &str, size: u64, data: &[u64]| {
        use std::os::unix::fs::FileExt;
        let file = fs::File::create(source.path(name)).unwrap();
        file.set_len(size).unwrap();
        data.iter().for_each(|at| file.write_all_at(&noise(*at, 4096), *at).unwrap());
    };
    sparse("end", 60 << 20, &[(60 << 20) - 4096]);
    sparse("hole", 30 << 20, &[]);
    sparse("many", 30 << 20, &[0, 3 << 20, 7 << 20, 11 << 20, 20 << 20, 29 << 20]);
    write(source.path("dense"), noise(1, 300_000));
    source.push(1_600_000_000);
    let mount = source.mount();
    let copy = tempfile::tempdir().unwrap();
    let archive = copy.path().join("archive.tar");
    run("tar", &["-C", text(&source.shown(&mount, "latest", "")), "-cSf", text(&archive), "."]);
    assert!(archive.metadata().unwrap().len() < 2 << 20, "the archive holds no holes");
    fs::create_dir(copy.path().join("tar")).unwrap();
    run("tar", &["-C", text(&copy.path().join("tar")), "-xf", text(&archive)]);
    run("cp", &["-r", "--sparse=auto", text(&source.shown(&mount, "latest", "")), text(&copy.path().join("cp"))]);
    for name in ["end", "hole", "many", "dense"] {
        let shown = source.shown(&mount, "latest", name);
        let (disk, seen) = (source.path(name).metadata().unwrap(), shown.metadata().unwrap());
        assert_eq!((seen.len(), seen.blocks() * 512 < seen.len()), (disk.len(), name != "dense"), "{name}");
        for how in ["tar", "cp"] {
            let copied = copy.path().join(how).join(name);
            run("cmp", &[text(&copied), text(&source.path(name))]);
            let (blocks, wanted) = (copied.metadata().unwrap().blocks(), disk.blocks());
            assert!(blocks <= wanted + 16, "{how} {name}: {wanted} blocks became {blocks}");
        }
    }
}

#[test]
fn free_space_and_numbers_of_every_mount() {
    let source = Source::new();
    write(source.path("a"), noise(1, 1 << 20));
    write(source.path("d/b"), "old");
    source.push(1_600_000_000);
    write(source.path("d/b"), "newer");
    fs::remove_file(source.path("a")).unwrap();
    write(source.path("c"), noise(2, 3 << 20));
    source.push(1_600_000_100);
    let look = || {
        let mount = source.mount();
        let space = rustix::fs::statvfs(mount.path("")).unwrap();
        let used = (space.f_blocks - space.f_bfree) * space.f_frsize;
        assert_eq!((used, space.f_files - space.f_ffree > 3, space.f_namemax), ((3 << 20) + 4096, true, 255));
        let df = run("df", &["--output=pcent", text(&mount.path(""))]);
        assert_eq!(df.lines().nth(1).unwrap().trim(), "1%", "{df}");
        let views =
            ["latest", "at/2020-09-13_12-27", "versions", "deleted", "hosts/host/latest", "@GMT-2020.09.13-12.26.40"];
        let views = views.iter().flat_map(|view| ["", "d", "d/b", "a"].map(|below| source.shown(&mount, view, below)));
        let numbers = views.map(|path| fs::symlink_metadata(&path).ok().map(|meta| meta.ino()));
        let version = source.shown(&mount, "versions", "d/b/2020-09-13_12-26-40");
        numbers.chain([version.metadata().ok().map(|meta| meta.ino())]).collect::<Vec<_>>()
    };
    let first = look();
    assert_eq!(first, look());
    let there = first.iter().flatten().count();
    assert_eq!(there, 3 + 4 + 4 + 3 + 3 + 4 + 1, "{first:?}");
    // The old file has the same inode number in every view.
    assert_eq!((first[6], first[24]), (first[22], first[6]));
}
