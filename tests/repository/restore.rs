//! Restore: everything comes back. Nothing leaves the target ([`hostile`]), and damage stays where it is ([`damage`]).
//! The tests use `Memory`, with trees written directly or by `push`.

mod choose;
mod damage;
mod fetched;
mod flags;
mod hostile;
mod names;
mod races;
mod reuse;
mod rights;
mod support;

use std::os::unix::fs::PermissionsExt;

use crate::harness::cli::Env;
use crate::harness::copy_program;
use crate::harness::root::{as_nobody, needs_root};
use nfreezer::context::background;
use nfreezer::push;
use nfreezer::time::Time;
use support::*;

/// Returns whether the file system of a folder has user attributes, which older ones in memory lack.
fn knows_user_attributes(folder: &Path) -> bool {
    let probe = tempfile::NamedTempFile::new_in(folder).unwrap();
    crate::harness::tree::set_xattr(probe.path(), "user.probe", b"1")
}

#[test]
fn all_kinds_come_back() {
    let Repo { repo, .. } = repo();
    let hostile_name = b"\x1b[2J\nnot utf-8 \xff".as_slice();
    let long = [b'n'; 255];
    let big: Vec<Vec<u8>> = (0..6).map(|i| noise(i, 1 << 20)).collect();
    let refs = chunks(&repo, ChunkKind::Data, &big.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let extents: Vec<_> = refs.iter().map(|r| Extent::Data(*r)).collect();
    let list = chunks(&repo, ChunkKind::List, &[&List::Leaf(extents).encode(&PackRef::SELF)])[0];
    let sparse = vec![Extent::Hole(1 << 30), Extent::Data(data(&repo, b"end"))];
    let mut xattrs = file(&repo, "xattrs", b"x");
    xattrs.xattrs = Xattrs::Inline(vec![(b"user.a".to_vec(), b"1\0\xff".to_vec())]);
    let mut old = file(&repo, "old", b"before 1970");
    old.mtime = Time::new(-1, 999_999_999);
    let mut late = file(&repo, "late", b"after 2038");
    late.mtime = Time::new(5_000_000_000, 1);
    let mut setuid = file(&repo, "setuid", b"s");
    Arc::make_mut(&mut setuid.attrs).mode = 0o4755;
    let locked = node("locked", 0o500, directory(&repo, vec![file(&repo, "inside", b"i")]));
    let nodes = vec![
        file(&repo, hostile_name, b"hostile"),
        file(&repo, long, b"long"),
        file(&repo, "empty", b""),
        node("big", 0o600, Content::Large { size: 6 << 20, list }),
        node("sparse", 0o640, Content::File(sparse)),
        node("hole only", 0o640, Content::File(vec![Extent::Hole(5 << 20)])),
        xattrs,
        old,
        late,
        setuid,
        locked,
        node("empty dir", 0o750, Content::Directory(None)),
        node("dangling", 0o777, Content::Symlink(b"/no/where\xff".to_vec())),
        node("fifo", 0o620, Content::Fifo),
        node("socket", 0o755, Content::Socket),
        node("null", 0o666, Content::Char(1, 3)),
        node("gone", 0o644, Content::Unreadable(13)),
    ];
    let s = snapshot(&repo, nodes);
    let (_keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!((seen.skipped(), summary.damaged, summary.failed), (vec![], 0, 0));
    assert_eq!((summary.files, summary.unreadable, summary.directories), (11, 1, 2));
    assert!(seen.warnings.lock().unwrap()[0].contains("/gone"));

    let at = |name: &[u8]| out.join(OsStr::from_bytes(name));
    assert_eq!(fs::read(at(hostile_name)).unwrap(), b"hostile");
    assert_eq!(fs::read(at(&long)).unwrap(), b"long");
    assert_eq!(fs::read(at(b"big")).unwrap(), big.concat());
    assert_eq!(fs::read(at(b"empty")).unwrap(), b"");
    let sparse = fs::metadata(at(b"sparse")).unwrap();
    assert_eq!(sparse.len(), (1 << 30) + 3);
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
    assert_eq!(fs::metadata(at(b"hole only")).unwrap().len(), 5 << 20);
    assert_eq!(
        (fs::metadata(at(b"old")).unwrap().mtime(), fs::metadata(at(b"old")).unwrap().mtime_nsec()),
        (-1, 999_999_999)
    );
    assert_eq!(fs::metadata(at(b"late")).unwrap().mtime(), 5_000_000_000);
    assert_eq!(fs::metadata(at(b"setuid")).unwrap().mode() & 0o7777, 0o4755);
    let locked = fs::metadata(at(b"locked")).unwrap();
    assert_eq!((locked.mode() & 0o7777, locked.mtime(), locked.mtime_nsec()), (0o500, 1_000_000_000, 123_456_789));
    assert_eq!(fs::read_link(at(b"dangling")).unwrap().as_os_str().as_bytes(), b"/no/where\xff");
    assert_eq!(fs::symlink_metadata(at(b"dangling")).unwrap().mtime(), 1_000_000_000);
    let fifo = fs::symlink_metadata(at(b"fifo")).unwrap();
    assert!(fifo.file_type().is_fifo() && fifo.mode() & 0o777 == 0o620 && fifo.mtime_nsec() == 123_456_789);
    assert!(fs::symlink_metadata(at(b"socket")).unwrap().file_type().is_socket());
    if is_root() {
        assert_eq!(fs::symlink_metadata(at(b"null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    } else {
        assert_eq!(summary.left_out, 1);
    }
    let mut value = [0u8; 16];
    if knows_user_attributes(&out) {
        let n = rustix::fs::getxattr(at(b"xattrs"), "user.a", &mut value[..]).unwrap();
        assert_eq!((&value[..n], summary.attributes), (&b"1\0\xff"[..], 0));
    } else {
        assert_eq!(summary.attributes, 1);
    }
    assert!(!at(b"gone").exists());

    // A second restore finds everything and writes nothing.
    let (again, _) = plain(&repo, &s, &out);
    assert_eq!((again.files, again.existing, again.failed), (0, 11 + summary.others, 0));
}

#[test]
fn hard_links_are_hard_links_again_whatever_the_order() {
    let Repo { repo, .. } = repo();
    let shared = file(&repo, "m", &noise(7, 3 << 20));
    let named = |name: &str, n: u32| Node { name: name.into(), ..link(shared.clone(), 42, n) };
    let many: Vec<_> = (0..300).map(|i| named(&format!("l{i:03}"), 304)).collect();
    let sub = node("sub", 0o500, directory(&repo, many));
    let slink = |name: &str| link(node(name, 0o777, Content::Symlink(b"t".to_vec())), 43, 2);
    let mut other = named("z other contents", 304);
    other.content = file(&repo, "", b"forged: same inode, other contents").content;
    let s = snapshot(&repo, vec![named("a", 304), sub, named("z", 304), slink("s1"), slink("s2"), other]);
    let (_keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), Vec::<String>::new());
    let inode = |name: &str| fs::symlink_metadata(out.join(name)).unwrap().ino();
    assert!((0..300).all(|i| inode(&format!("sub/l{i:03}")) == inode("a")) && inode("a") == inode("z"));
    assert_eq!(inode("s1"), inode("s2"));
    assert_ne!(inode("z other contents"), inode("a"));
    assert_eq!((summary.files, summary.links, summary.others), (2, 302, 1));
    assert_eq!(fs::metadata(out.join("sub")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn a_part_of_a_snapshot_lands_in_the_target_and_a_file_under_its_name() {
    let Repo { repo, .. } = repo();
    let inner = node("inner", 0o710, directory(&repo, vec![file(&repo, "f", b"f")]));
    let s = snapshot(&repo, vec![node("outer", 0o755, directory(&repo, vec![inner]))]);
    let (_keep, out) = target();
    restore(&background().with_progress(&Seen::default()), &repo, &s, b"/outer/inner/", &out, &Options::default())
        .unwrap();
    assert_eq!(fs::read(out.join("f")).unwrap(), b"f");
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o710, "the target was made, so it is that directory");
    let second = out.with_file_name("second");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("mine"), "").unwrap();
    let mode = fs::metadata(&second).unwrap().mode();
    restore(&background().with_progress(&Seen::default()), &repo, &s, b"outer/inner/f", &second, &Options::default())
        .unwrap();
    restore(&background().with_progress(&Seen::default()), &repo, &s, b"outer/inner", &second, &Options::default())
        .unwrap();
    assert_eq!(fs::read(second.join("f")).unwrap(), b"f");
    assert_eq!(fs::metadata(&second).unwrap().mode(), mode, "a folder with other things in it keeps its attributes");
    let missing = restore(
        &background().with_progress(&Seen::default()),
        &repo,
        &s,
        b"outer/nothing",
        &second,
        &Options::default(),
    );
    assert_eq!(missing.unwrap_err().kind(), Kind::Failed);
}

#[test]
fn a_deep_and_wide_tree_needs_no_more_descriptors_than_there_are() {
    let Repo { repo, .. } = repo();
    let mut inner = directory(&repo, vec![file(&repo, "bottom", b"bottom")]);
    for _ in 0..1500 {
        inner = directory(&repo, vec![node("d", 0o555, inner), file(&repo, "f", b"f")]);
    }
    let wide: Vec<_> =
        (0..3000).map(|i| node(format!("w{i}"), 0o755, directory(&repo, vec![file(&repo, "f", b"f")]))).collect();
    let s = snapshot(&repo, vec![node("deep", 0o755, inner), node("wide", 0o755, directory(&repo, wide))]);
    let (keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), Vec::<String>::new());
    assert_eq!((summary.files, summary.directories), (1500 + 1 + 3000, 1 + 1500 + 1 + 3000));
    let path = out.join("deep").join("d/".repeat(1500)).join("bottom");
    assert_eq!(fs::read(path).unwrap(), b"bottom");
    assert_eq!(fs::metadata(out.join("deep/d/d")).unwrap().mode() & 0o7777, 0o555);
    // Directories without write permission must be made writable before a user other than root can delete them.
    assert!(Command::new("chmod").args(["-R", "u+w"]).arg(keep.path()).status().unwrap().success());
}

#[test]
fn what_push_saved_comes_back_equal() {
    let Repo { repo, .. } = repo();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    crate::harness::tree::nasty(&source);
    let options = push::Options {
        sources: vec![source.clone()],
        host: "host".into(),
        user: "user".into(),
        tags: Vec::new(),
        description: String::new(),
        ..push::Options::default()
    };
    let pushed = push::push(&background().with_progress(&Seen::default()), &repo, &options).unwrap();
    assert_eq!(pushed.skipped, 0);
    let out = folder.path().join("out");
    let path = source.as_os_str().as_bytes();
    let seen = Seen::default();
    let summary =
        restore(&background().with_progress(&seen), &repo, &pushed.snapshot, path, &out, &Options::default()).unwrap();
    assert_eq!((seen.skipped(), summary.damaged, summary.failed), (vec![], 0, 0));
    assert_no_torso(&out);
    crate::harness::tree::assert_same(&crate::harness::tree::on_disk(&source), &crate::harness::tree::on_disk(&out));
}

#[test]
fn an_ordinary_user_gets_everything_but_what_needs_root() {
    if !needs_root("another user beside root") {
        return;
    }
    let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let place = folder.path().join("repo");
    let repo = repository::init(Arc::new(Local::new(&place)));
    let mut roots = file(&repo, "of-root", b"root's");
    Arc::make_mut(&mut roots.attrs).mode = 0o4711;
    let mut read_only = file(&repo, "read-only", b"r");
    Arc::make_mut(&mut read_only.attrs).mode = 0o400;
    read_only.xattrs =
        Xattrs::Inline(vec![(b"trusted.t".to_vec(), b"1".to_vec()), (b"user.u".to_vec(), b"2".to_vec())]);
    let nodes = vec![
        roots,
        read_only,
        node("null", 0o666, Content::Char(1, 3)),
        node("fifo", 0o620, Content::Fifo),
        node("closed", 0o000, directory(&repo, vec![link(file(&repo, "l1", b"l"), 3, 2)])),
        link(file(&repo, "l2", b"l"), 3, 2),
        node("slink", 0o777, Content::Symlink(b"of-root".to_vec())),
    ];
    let head = Head { snapshots: vec![snapshot(&repo, nodes)], ..Head::default() };
    repo.commit(background(), &mut repo.state(background()).unwrap(), head, &[]).unwrap();
    let nobody = 65534;
    let own = |path: &Path| std::os::unix::fs::lchown(path, Some(nobody), Some(nobody)).unwrap();
    let mut open = vec![place.clone()];
    while let Some(path) = open.pop() {
        own(&path);
        open.extend(fs::read_dir(&path).into_iter().flatten().map(|e| e.unwrap().path()));
    }
    let [out, home] = ["out", "home"].map(|name| folder.path().join(name));
    for folder in [&out, &home] {
        fs::create_dir(folder).unwrap();
        own(folder);
    }
    let binary = folder.path().join("nfreezer");
    copy_program(env!("CARGO_BIN_EXE_nfreezer"), &binary);
    let mut command = as_nobody();
    hermetic(&mut command, &home).env("NFREEZER_PASSWORD", PASSPHRASE).arg(&binary);
    command.args(["restore", "latest", "--json", "--target"]).arg(&out).arg("-r").arg(&place);
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((summary["left_out"].as_u64(), summary["failed"].as_u64()), (Some(1), Some(0)));
    assert!(summary["attributes"].as_u64().unwrap() >= 7, "owners and trusted attributes are counted: {summary}");
    let meta = |name: &str| fs::symlink_metadata(out.join(name)).unwrap();
    assert_eq!((meta("of-root").mode() & 0o7777, meta("of-root").uid()), (0o711, nobody));
    assert_eq!((meta("read-only").mode() & 0o7777, meta("closed").mode() & 0o7777), (0o400, 0));
    assert_eq!(fs::read(out.join("l2")).unwrap(), b"l");
    assert!(meta("fifo").file_type().is_fifo() && meta("fifo").mode() & 0o777 == 0o600 && !out.join("null").exists());
    let mut value = [0u8; 8];
    if knows_user_attributes(&out) {
        let n = rustix::fs::getxattr(out.join("read-only"), "user.u", &mut value[..]).unwrap();
        assert_eq!(&value[..n], b"2");
    }
}

#[test]
fn files_that_their_owner_cannot_read_are_restored_again() {
    if !needs_root("files of another user") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("nfreezer");
    copy_program(env!("CARGO_BIN_EXE_nfreezer"), &program);
    std::fs::create_dir(dir.path().join("top")).unwrap();
    std::fs::write(dir.path().join("top/file"), "contents").unwrap();
    std::fs::set_permissions(dir.path().join("top/file"), std::fs::Permissions::from_mode(0o200)).unwrap();
    let run = |program: &std::path::Path, arguments: &[&str], mut command: std::process::Command| {
        command.arg(program).args(arguments).current_dir(dir.path()).env("HOME", dir.path());
        let output = command.env("NFREEZER_PASSWORD", "x").env("NFREEZER_REPOSITORY", dir.path().join("repo")).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&program, &["init"], std::process::Command::new("env"));
    run(&program, &["push", "top"], std::process::Command::new("env"));
    run(Path::new("chown"), &["-R", "65534:65534", "."], std::process::Command::new("env"));
    let from = format!("latest:{}/top", dir.path().display());
    for _ in 0..2 {
        run(&program, &["restore", &from, "--target", "out", "--overwrite", "if-changed"], as_nobody());
        let restored = dir.path().join("out/file");
        assert_eq!(std::fs::read_to_string(&restored).unwrap(), "contents");
        assert_eq!(std::fs::metadata(&restored).unwrap().permissions().mode() & 0o7777, 0o200);
    }
}

#[test]
fn a_snapshot_from_the_future_comes_after_all_others() {
    let env = Env::with_repository();
    env.write("top/file", "future");
    env.nfreezer(["push", "top", "--time", "2199-01-01 00:00:00"]).done();
    env.write("top/file", "now, and longer");
    env.nfreezer(["push", "top"]).done();
    for (snapshot, contents) in [("latest", "now, and longer"), ("latest~1", "future")] {
        let from = format!("{snapshot}:{}", env.path("top").display());
        env.nfreezer(["restore", &from, "--target", snapshot]).done();
        assert_eq!(std::fs::read_to_string(env.path(snapshot).join("file")).unwrap(), contents);
    }
}
