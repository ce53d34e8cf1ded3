//! Inode flags (`chattr`).

use super::support::*;
use crate::harness::root::Filesystem;
use crate::harness::tree::settle;
use nfreezer::format::own::FLAGS;
use nfreezer::push;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Flags of ext4, without `j`, which needs a capability that root in a container may lack.
const ALL: [(&str, IFlags); 7] = [
    ("append", IFlags::APPEND),
    ("dirsync/", IFlags::DIRSYNC),
    ("immutable", IFlags::IMMUTABLE),
    ("noatime", IFlags::NOATIME),
    ("nodump", IFlags::NODUMP),
    ("sync", IFlags::SYNC),
    ("topdir/", IFlags::TOPDIR),
];

fn add(path: &Path, flags: IFlags) {
    let file = fs::File::open(path).unwrap();
    ioctl_setflags(&file, ioctl_getflags(&file).unwrap() | flags).unwrap();
}

fn unlock(path: &Path) {
    let file = fs::File::open(path).unwrap();
    ioctl_setflags(&file, ioctl_getflags(&file).unwrap() - IFlags::IMMUTABLE - IFlags::APPEND).unwrap();
}

/// Returns the flags of all files and folders below a path, limited to [`ALL`].
fn flags_below(top: &Path) -> BTreeMap<PathBuf, IFlags> {
    let known = ALL.iter().fold(IFlags::empty(), |all, (_, flags)| all | *flags);
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if kind.is_dir() || kind.is_file() {
            let flags = ioctl_getflags(fs::File::open(&path).unwrap()).unwrap() & known;
            found.insert(path.strip_prefix(top).unwrap().to_owned(), flags);
        }
    }
    found
}

/// Makes a tree with every flag, locked files with several names, and locked folders with contents.
fn flagged(top: &Path) {
    for (name, flags) in ALL {
        let path = top.join(name);
        fs::create_dir_all(top).unwrap();
        if name.ends_with('/') {
            fs::create_dir(&path).unwrap()
        } else {
            fs::write(&path, name).unwrap()
        }
        add(&path, flags);
    }
    for (name, flags) in [("a", IFlags::APPEND), ("i", IFlags::IMMUTABLE | IFlags::NODUMP)] {
        let folder = top.join(name).join("below");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("inner"), "inner").unwrap();
        fs::hard_link(folder.join("inner"), folder.join("other name")).unwrap();
        fs::hard_link(folder.join("inner"), top.join(name).join("third name")).unwrap();
        symlink("inner", folder.join("link")).unwrap();
        for path in [folder.join("inner"), folder, top.join(name)] {
            add(&path, flags);
        }
    }
}

fn save(repo: &Repository, source: &Path) -> push::Summary {
    let sources = vec![source.to_owned()];
    let options = push::Options { sources, host: "h".into(), user: "u".into(), ..push::Options::default() };
    let summary = push::push(background(), repo, &options).unwrap();
    assert_eq!(summary.skipped, 0);
    summary
}

fn restore_to(repo: &Repository, s: &Snapshot, from: &Path, to: &Path, overwrite: Overwrite) -> (Summary, Seen) {
    let seen = Seen::default();
    let options = Options { overwrite, ..Options::default() };
    let ctx = background().with_progress(&seen);
    let summary = restore(&ctx, repo, s, from.as_os_str().as_bytes(), to, &options).unwrap();
    (summary, seen)
}

#[test]
fn flags_are_saved_and_come_back_last() {
    if !needs_root("an ext4 file system and immutable files") {
        return;
    }
    let Repo { repo, .. } = repo();
    let dir = tempfile::tempdir().unwrap();
    let _disk = Filesystem::image(&dir.path().join("disk"), "mkfs.ext4 -q");
    let (source, out) = (dir.path().join("disk/source"), dir.path().join("disk/out"));
    flagged(&source);
    settle();
    let first = save(&repo, &source);
    let (summary, seen) = restore_to(&repo, &first.snapshot, &source, &out, Overwrite::Never);
    assert_eq!((seen.skipped(), summary.attributes, summary.flags), (Vec::new(), 0, 0));
    assert_eq!((summary.links, flags_below(&out)), (4, flags_below(&source)));
    let links: Vec<_> = ["i/below/inner", "i/below/other name", "i/third name"]
        .map(|name| fs::metadata(out.join(name)).unwrap().ino())
        .into();
    assert!(links.windows(2).all(|two| two[0] == two[1]), "hard links: {links:?}");

    let second = save(&repo, &source);
    assert_eq!((second.read, second.new, second.changed, second.packs), (0, 0, 0, 0), "nothing is read or sent again");
    assert_eq!(first.snapshot.root, second.snapshot.root);

    // A locked entry that is already as saved is no failure.
    let (summary, seen) = restore_to(&repo, &first.snapshot, &source, &out, Overwrite::Never);
    assert_eq!((summary.failed, summary.flags), (0, 0), "{:?}", seen.skipped);
}

#[test]
fn a_locked_entry_of_the_target_is_named_and_left_as_it_is() {
    if !needs_root("an ext4 file system and immutable files") {
        return;
    }
    let Repo { repo, .. } = repo();
    let dir = tempfile::tempdir().unwrap();
    let _disk = Filesystem::image(&dir.path().join("disk"), "mkfs.ext4 -q");
    let (source, out) = (dir.path().join("disk/source"), dir.path().join("disk/out"));
    fs::create_dir_all(source.join("locked")).unwrap();
    for (name, text) in [("equal", "e"), ("other", "new"), ("older", "o"), ("free", "f"), ("locked/new", "n")] {
        fs::write(source.join(name), text).unwrap();
    }
    add(&source.join("equal"), IFlags::IMMUTABLE);
    let saved = save(&repo, &source);
    let _ = restore_to(&repo, &saved.snapshot, &source, &out, Overwrite::Never);
    fs::write(out.join("other"), "old").unwrap();
    fs::set_permissions(out.join("older"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(out.join("locked/new")).unwrap();
    for (name, flags) in [("other", IFlags::IMMUTABLE), ("older", IFlags::APPEND), ("locked", IFlags::APPEND)] {
        add(&out.join(name), flags);
    }
    add(&out.join("free"), IFlags::NODUMP | IFlags::NOATIME);
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        let (summary, seen) = restore_to(&repo, &saved.snapshot, &source, &out, overwrite);
        let skipped = seen.skipped.lock().unwrap();
        let path = |name: &str| source.join(name).to_str().unwrap().to_owned();
        let mut expected = vec![path("locked"), path("locked/new"), path("older"), path("other")];
        if overwrite == Overwrite::Always {
            expected.insert(0, path("equal"));
        }
        assert_eq!(skipped.keys().cloned().collect::<Vec<_>>(), expected, "{overwrite:?}");
        assert!(skipped[&path("other")].starts_with("it is immutable or append-only in the target"), "{skipped:?}");
        assert!(skipped[&path("locked/new")].starts_with("its folder is immutable or append-only"), "{skipped:?}");
        assert_eq!((summary.failed, summary.attributes), (expected.len() as u64, 0));
        assert_eq!(fs::read(out.join("other")).unwrap(), b"old");
        assert_eq!(flags_below(&out)[Path::new("free")], IFlags::empty(), "as saved");
        assert_no_torso(&out);
    }
    for name in ["equal", "other", "older", "locked"] {
        unlock(&out.join(name));
    }
    let (summary, seen) = restore_to(&repo, &saved.snapshot, &source, &out, Overwrite::IfChanged);
    assert_eq!((seen.skipped(), summary.failed), (Vec::new(), 0));
    assert_eq!(flags_below(&out), flags_below(&source));
}

#[test]
fn flags_that_cannot_be_set_are_counted_and_no_failure() {
    let Repo { repo, .. } = repo();
    let with = |mut node: Node, value: &[u8]| {
        node.xattrs = Xattrs::Inline(vec![(FLAGS.to_vec(), value.to_vec())]);
        node
    };
    // Journal and topdir, which no file system in memory supports; then flags of a hostile writer: encrypted, verity.
    let odd = with(file(&repo, "odd", b"x"), &[0x80, 0x80, 0x09]);
    let never = with(file(&repo, "never", b"x"), &[0x80, 0x90, 0xc0, 0x00]);
    let malformed = with(file(&repo, "malformed", b"x"), &[0xd0, 0x00]);
    let hostile = with(file(&repo, "hostile", b"x"), &[0x80, 0x90, 0x40]);
    let s = snapshot(&repo, vec![odd, never, malformed, hostile]);
    let (_keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), ["/malformed", "/never"]);
    assert!(seen.skipped.lock().unwrap()["/malformed"].contains("it is restored without its flags"));
    assert_eq!((summary.files, summary.damaged, summary.failed, summary.attributes), (4, 2, 0, 0));
    if !needs_root("a file system without flags") {
        return;
    }
    let ramfs = tempfile::tempdir().unwrap();
    assert!(Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(ramfs.path()).status().unwrap().success());
    let (summary, _) = plain(&repo, &s, &ramfs.path().join("out"));
    assert!(Command::new("umount").arg(ramfs.path()).status().unwrap().success());
    assert_eq!((summary.files, summary.flags, summary.failed, summary.attributes), (4, 1, 0, 0));
}
