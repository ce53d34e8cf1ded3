//! No other user gets more access than the snapshot granted. A restore over an existing tree leaves it as it was saved.

use super::support::*;

fn setfacl(entry: &str, path: &Path) {
    assert!(Command::new("setfacl").args(["-m", entry]).arg(path).status().unwrap().success());
}

fn acl(path: &Path) -> String {
    let output = Command::new("getfacl").args(["-cEpn"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn over(repo: &Repository, s: &Snapshot, target: &Path, overwrite: Overwrite) -> Summary {
    let (summary, seen) = run(repo, s, target, &Options { overwrite, ..Options::default() });
    assert_eq!(seen.skipped(), Vec::<String>::new());
    summary
}

/// Returns the access ACL `u::rw-,u:4711:rw-,g::---,m::rw-,o::---`.
fn saved_acl() -> Vec<u8> {
    let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.swap_bytes().to_be_bytes()].concat();
    let none = u32::MAX;
    let entries = [entry(1, 6, none), entry(2, 6, 4711), entry(4, 0, none), entry(16, 6, none), entry(32, 0, none)];
    [&[2, 0, 0, 0][..], &entries.concat()].concat()
}

#[test]
fn a_default_acl_of_the_target_is_not_inherited() {
    let Repo { repo, .. } = repo();
    let below = directory(&repo, vec![file(&repo, "f", b"x"), node("p", 0o640, Content::Fifo)]);
    let s = snapshot(&repo, vec![node("d", 0o750, below), file(&repo, "f", b"x")]);
    for overwrite in [Overwrite::Never, Overwrite::IfChanged, Overwrite::Always] {
        let (_keep, out) = target();
        fs::create_dir(&out).unwrap();
        setfacl("d:u:4711:rwx,d:g:4712:rwx", &out);
        over(&repo, &s, &out, overwrite);
        assert_eq!(acl(&out.join("f")), "user::rw-\ngroup::r--\nother::r--");
        assert_eq!(acl(&out.join("d")), "user::rwx\ngroup::r-x\nother::---");
        assert_eq!(acl(&out.join("d/f")), "user::rw-\ngroup::r--\nother::r--");
        assert_eq!(acl(&out.join("d/p")), "user::rw-\ngroup::r--\nother::---");
    }
}

#[test]
fn attributes_that_the_snapshot_does_not_have_are_removed() {
    let Repo { repo, .. } = repo();
    let below = directory(&repo, vec![file(&repo, "equal", b"same"), file(&repo, "changed", b"new")]);
    let s = snapshot(&repo, vec![node("d", 0o750, below)]);
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        let (_keep, out) = target();
        fs::create_dir_all(out.join("d")).unwrap();
        fs::write(out.join("d/equal"), b"same").unwrap();
        fs::write(out.join("d/changed"), b"old").unwrap();
        setfacl("d:u:4711:rwx", &out.join("d"));
        for path in ["d", "d/equal", "d/changed"].map(|path| out.join(path)) {
            setfacl("u:4711:rwx", &path);
            rustix::fs::setxattr(&path, "user.extra", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        }
        over(&repo, &s, &out, overwrite);
        for (path, expected) in [("d", "user::rwx\ngroup::r-x\nother::---"), ("d/equal", FILE), ("d/changed", FILE)] {
            assert_eq!(acl(&out.join(path)), expected, "{path}");
            let mut names = [0; 256];
            let len = rustix::fs::listxattr(out.join(path), &mut names[..]).unwrap();
            assert!(!String::from_utf8_lossy(&names[..len]).contains("user.extra"), "{path}");
        }
    }
}

const FILE: &str = "user::rw-\ngroup::r--\nother::r--";

#[test]
fn a_saved_acl_comes_back_and_without_it_the_group_gets_what_it_granted() {
    let Repo { repo, .. } = repo();
    let mut f = file(&repo, "f", b"x");
    f.xattrs = Xattrs::Inline(vec![(b"system.posix_acl_access".to_vec(), saved_acl())]);
    Arc::make_mut(&mut f.attrs).mode = 0o660;
    let s = snapshot(&repo, vec![f]);
    let (_keep, out) = target();
    over(&repo, &s, &out, Overwrite::Never);
    assert_eq!(acl(&out.join("f")), "user::rw-\nuser:4711:rw-\ngroup::---\nmask::rw-\nother::---");
    if !needs_root("a file system without ACLs") {
        return;
    }
    // ramfs does not support ACLs.
    let ramfs = tempfile::tempdir().unwrap();
    assert!(Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(ramfs.path()).status().unwrap().success());
    let summary = over(&repo, &s, &ramfs.path().join("out"), Overwrite::Never);
    let mode = mode(&ramfs.path().join("out/f"));
    assert!(Command::new("umount").arg(ramfs.path()).status().unwrap().success());
    assert_eq!((mode, summary.attributes), (0o600, 1));
}

#[test]
fn a_hard_link_to_a_file_outside_of_the_target_changes_nothing_there() {
    let Repo { repo, .. } = repo();
    let mut f = file(&repo, "f", b"same");
    Arc::make_mut(&mut f.attrs).mode = 0o4777;
    let mut fifo = node("p", 0o666, Content::Fifo);
    fifo.mtime = nfreezer::time::Time::new(1, 0);
    let s = snapshot(&repo, vec![f, fifo]);
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        let (keep, out) = target();
        fs::create_dir(&out).unwrap();
        let outside = keep.path().join("outside");
        fs::write(&outside, b"same").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&outside, out.join("f")).unwrap();
        let pipe = keep.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::hard_link(&pipe, out.join("p")).unwrap();
        over(&repo, &s, &out, overwrite);
        assert_eq!((mode(&outside), mode(&pipe)), (0o600, 0o600));
        assert_eq!((mode(&out.join("f")), mode(&out.join("p"))), (0o4777, 0o666));
    }
}

#[test]
fn links_fifos_and_symlinks_over_an_existing_tree_end_as_saved() {
    let Repo { repo, .. } = repo();
    let a = link(file(&repo, "a", b"AA"), 42, 2);
    let b = Node { name: b"b".to_vec(), ..a.clone() };
    let symlink_node = node("s", 0o777, Content::Symlink(b"to".to_vec()));
    let s = snapshot(&repo, vec![a, b, node("p", 0o600, Content::Fifo), symlink_node]);
    for there in ["BB", "AA", "longer"] {
        for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
            let (_keep, out) = target();
            fs::create_dir(&out).unwrap();
            fs::write(out.join("a"), there).unwrap();
            fs::write(out.join("b"), there).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, out.join("p"), rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
            symlink("to", out.join("s")).unwrap();
            over(&repo, &s, &out, overwrite);
            let meta = |name: &str| fs::symlink_metadata(out.join(name)).unwrap();
            assert_eq!((meta("a").ino(), meta("a").nlink()), (meta("b").ino(), 2), "{there} {overwrite:?}");
            assert_eq!(fs::read(out.join("b")).unwrap(), b"AA");
            assert_eq!((mode(&out.join("p")), meta("p").mtime()), (0o600, 1_000_000_000));
            assert_eq!(meta("s").mtime(), 1_000_000_000);
        }
    }
}

#[test]
fn a_file_system_without_links_and_with_folded_names_takes_a_restore() {
    if !needs_root("a file system without links") {
        return;
    }
    let Repo { repo, .. } = repo();
    let mut nodes: Vec<_> = (0..300).map(|i| file(&repo, format!("m{i:03}"), b"between")).collect();
    nodes.extend([file(&repo, "README", b"upper"), file(&repo, "readme", b"lower")]);
    nodes.extend([node("D", 0o700, directory(&repo, vec![file(&repo, "1", b"1")]))]);
    nodes.extend([node("d", 0o700, directory(&repo, vec![file(&repo, "2", b"2")]))]);
    let s = snapshot(&repo, nodes);
    let folder = tempfile::tempdir().unwrap();
    let script =
        "truncate -s 64M image && mkfs.exfat image && mkdir m && mount.exfat-fuse $(losetup -f --show image) m";
    assert!(Command::new("sh").args(["-c", script]).current_dir(folder.path()).status().unwrap().success());
    let mut results = Vec::new();
    for overwrite in [Overwrite::Never, Overwrite::IfChanged, Overwrite::Always] {
        for times in ["first", "again"] {
            let target = folder.path().join("m").join(format!("{overwrite:?}"));
            let (_, seen) = run(&repo, &s, &target, &Options { overwrite, ..Options::default() });
            let files = fs::read_dir(&target).unwrap().count();
            results.push((times, overwrite, seen.skipped(), fs::read(target.join("README")).unwrap(), files));
        }
    }
    let script = "umount m && losetup -d $(losetup -nO NAME -j image)";
    assert!(Command::new("sh").args(["-c", script]).current_dir(folder.path()).status().unwrap().success());
    for (times, overwrite, skipped, readme, files) in results {
        assert_eq!(skipped, ["/d", "/readme"], "{times} {overwrite:?}");
        assert_eq!((readme.as_slice(), files), (&b"upper"[..], 302), "{times} {overwrite:?}");
    }
}

#[test]
fn attributes_that_cannot_be_read_leave_group_and_others_no_right() {
    let Repo { repo, memory } = repo();
    let acl = vec![(b"system.posix_acl_access".to_vec(), saved_acl())];
    let stored = chunks(&repo, ChunkKind::Xattrs, &[&encode_xattrs(&acl)])[0];
    let mut f = file(&repo, "f", b"x");
    f.xattrs = Xattrs::Stored(stored);
    Arc::make_mut(&mut f.attrs).mode = 0o666;
    let s = snapshot(&repo, vec![f]);
    let pack = Name::Pack(stored.pack.id);
    let mut bytes = memory.get(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.overwrite(&pack, bytes);
    repo.forget_blocks();
    let (_keep, out) = target();
    let (_, seen) = run(&repo, &s, &out, &Options::default());
    assert_eq!(seen.skipped(), ["/f"], "it is reported");
    assert_eq!(mode(&out.join("f")), 0o600, "its ACL may have given the group and others less than its mode");
}

#[test]
fn a_file_whose_owner_cannot_be_set_does_not_run_with_the_rights_of_another_one() {
    if !needs_root("a process of root without the right to change owners") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (place, out) = (folder.path().join("repo"), folder.path().join("out"));
    let repo = repository::init(Arc::new(Local::new(&place)));
    let mut nodes = vec![file(&repo, "user", b"u"), file(&repo, "group", b"g"), file(&repo, "ours", b"o")];
    for (node, (uid, gid, mode)) in nodes.iter_mut().zip([(1234, 0, 0o4755), (0, 1234, 0o2755), (0, 0, 0o4755)]) {
        *Arc::make_mut(&mut node.attrs) = Attrs { mode, uid, gid, ..(*node.attrs).clone() };
    }
    let head = Head { snapshots: vec![snapshot(&repo, nodes)], ..Head::default() };
    repo.commit(background(), &mut repo.state(background()).unwrap(), head, &[]).unwrap();
    let mut command = Command::new("setpriv");
    hermetic(&mut command, folder.path()).env("NFREEZER_PASSWORD", PASSPHRASE);
    command.arg("--bounding-set=-chown").arg(env!("CARGO_BIN_EXE_nfreezer"));
    command.args(["restore", "latest", "--target"]).args([out.as_os_str(), OsStr::new("-r"), place.as_os_str()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let owned = |name: &str| {
        let meta = fs::metadata(out.join(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!([owned("user"), owned("group")], [(0, 0, 0o755); 2], "root's now, without the setuid and setgid bits");
    assert_eq!(owned("ours"), (0, 0, 0o4755), "its owner is the saved one");
}

/// The inode and the change time of an entry.
fn state(path: &Path) -> (u64, i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.ino(), meta.ctime(), meta.ctime_nsec())
}

#[test]
fn hard_links_that_are_as_saved_are_not_written_again() {
    let Repo { repo, .. } = repo();
    let a = link(file(&repo, "a", b"AA"), 42, 2);
    let e = link(node("e", 0o777, Content::Symlink(b"to".to_vec())), 43, 2);
    let [b, f] = [("b", &a), ("f", &e)].map(|(name, node)| Node { name: name.into(), ..node.clone() });
    let s = snapshot(&repo, vec![a, b, e, f]);
    let (keep, out) = target();
    plain(&repo, &s, &out);
    let names = ["a", "b", "e", "f"].map(|name| out.join(name));
    let before = names.each_ref().map(|path| state(path));
    for dry_run in [true, false] {
        let options = Options { overwrite: Overwrite::IfChanged, dry_run, ..Options::default() };
        let (summary, seen) = run(&repo, &s, &out, &options);
        assert_eq!((summary.files, summary.links, summary.others, summary.existing), (0, 0, 0, 4), "{dry_run}");
        assert!(seen.skipped().is_empty() && seen.warnings.lock().unwrap().is_empty());
        assert_eq!(names.each_ref().map(|path| state(path)), before, "{dry_run}");
    }
    let again = || run(&repo, &s, &out, &Options { overwrite: Overwrite::IfChanged, ..Options::default() });
    let is_linked = || fs::metadata(&names[0]).unwrap().ino() == fs::metadata(&names[1]).unwrap().ino();
    // Other contents, other attributes, and other links.
    for change in ["contents", "mode", "copy"] {
        match change {
            "contents" => fs::write(&names[0], "BB").unwrap(),
            "mode" => fs::set_permissions(&names[0], fs::Permissions::from_mode(0o666)).unwrap(),
            _ => {
                fs::remove_file(&names[1]).unwrap();
                fs::copy(&names[0], &names[1]).map(drop).unwrap();
            }
        }
        let (summary, _) = again();
        assert_eq!((summary.files, summary.links, summary.existing), (1, 1, 2), "{change}");
        assert!(is_linked() && fs::read(&names[1]).unwrap() == b"AA" && mode(&names[0]) == 0o644, "{change}");
    }
    // As many links as saved, but one of them lies outside: no further link to it is made.
    let outside = keep.path().join("outside");
    fs::rename(&names[1], &outside).unwrap();
    let before = state(&outside);
    let (_, seen) = again();
    assert!(seen.warnings.lock().unwrap()[0].contains("b becomes a copy"), "{:?}", seen.warnings);
    assert_eq!((state(&outside), fs::read(&names[1]).unwrap()), (before, b"AA".to_vec()));
}
