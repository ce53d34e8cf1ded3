//! Nothing leaves the target, whatever the snapshot contains and other users write there.

use super::support::*;

#[test]
fn t66_a_symbolic_link_is_never_a_way_out() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    let victim = keep.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let to_victim = Content::Symlink(victim.as_os_str().as_bytes().to_vec());
    // The format refuses two entries of one name, so another restore into the same target makes the link first.
    let first = snapshot(&repo, vec![node("evil", 0o777, to_victim)]);
    plain(&repo, &first, &out);
    let evil = directory(&repo, vec![file(&repo, "passwd", b"evil")]);
    let second = snapshot(&repo, vec![node("evil", 0o755, evil), file(&repo, "good", b"good")]);
    let (summary, seen) = plain(&repo, &second, &out);
    assert_eq!((seen.skipped(), summary.failed), (vec!["/evil".to_string()], 1));
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "the victim is untouched");
    assert_eq!(fs::read(out.join("good")).unwrap(), b"good");
    // With permission to replace, the link itself is replaced.
    let options = Options { overwrite: Overwrite::Always, ..Options::default() };
    run(&repo, &second, &out, &options);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    assert!(fs::symlink_metadata(out.join("evil")).unwrap().is_dir());
    assert_eq!(fs::read(out.join("evil/passwd")).unwrap(), b"evil");
}

#[test]
fn t66_two_entries_of_one_name_and_names_that_climb_are_refused_by_the_format() {
    let Repo { repo, .. } = repo();
    for names in [["a", "a"], ["..", "x"], [".", "x"], ["a/b", "x"], ["", "x"], ["a\0", "x"], ["b", "a"]] {
        let nodes = names.map(|name| node(name, 0o777, Content::Symlink(b"/".to_vec()))).to_vec();
        let page = chunks(&repo, ChunkKind::Page, &[&Page::Leaf(nodes).encode(&PackRef::SELF)])[0];
        let bad = node("bad", 0o755, Content::Directory(Some(page)));
        let s = snapshot(&repo, vec![bad, file(&repo, "good", b"good")]);
        let (_keep, out) = target();
        let (summary, seen) = plain(&repo, &s, &out);
        assert_eq!((summary.damaged, summary.files, seen.skipped()), (1, 1, vec!["/bad".to_string()]), "{names:?}");
        assert_eq!(fs::read_dir(out.join("bad")).unwrap().count(), 0);
    }
}

#[test]
fn t67_no_hard_link_to_what_was_there_before() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    fs::create_dir(&out).unwrap();
    let outside = keep.path().join("outside");
    fs::write(&outside, "same").unwrap();
    // A name in the target is a hard link to a file elsewhere, with the very contents that are restored.
    fs::hard_link(&outside, out.join("a")).unwrap();
    symlink(&outside, out.join("c")).unwrap();
    let shared = file(&repo, "a", b"same");
    let b = Node { name: b"b".to_vec(), ..shared.clone() };
    let c = node("c", 0o777, Content::Symlink(outside.as_os_str().as_bytes().to_vec()));
    let d = Node { name: b"d".to_vec(), ..c.clone() };
    let s = snapshot(&repo, vec![link(shared, 1, 2), link(b, 1, 2), link(c, 2, 2), link(d, 2, 2)]);
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!((summary.existing, seen.skipped()), (2, vec![]));
    assert_eq!(fs::metadata(&outside).unwrap().nlink(), 2, "no further link to it");
    assert_eq!(fs::read(out.join("b")).unwrap(), b"same");
    assert_eq!(fs::read_link(out.join("d")).unwrap(), outside);
}

#[test]
fn t69_what_is_there_is_neither_followed_nor_opened_nor_clobbered() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    fs::create_dir(&out).unwrap();
    let victim = keep.path().join("victim");
    fs::write(&victim, "victim").unwrap();
    symlink(&victim, out.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, out.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    fs::write(out.join("longer"), "mine, and longer").unwrap();
    fs::write(out.join("other"), "mine").unwrap();
    fs::write(out.join("equal"), "new!").unwrap();
    fs::create_dir(out.join("folder")).unwrap();
    let names = ["link", "fifo", "longer", "other", "equal", "folder", "fresh"];
    let mut nodes: Vec<_> = names.iter().map(|name| file(&repo, name, b"new!")).collect();
    nodes.push(node("longer-dir", 0o755, Content::Directory(None)));
    let s = snapshot(&repo, nodes);
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), ["/fifo", "/folder", "/link", "/longer", "/other"]);
    assert_eq!((summary.existing, summary.files, summary.failed), (1, 1, 5));
    assert_eq!(fs::read(&victim).unwrap(), b"victim");
    assert_eq!(fs::read(out.join("other")).unwrap(), b"mine");
    assert_eq!(fs::read(out.join("fresh")).unwrap(), b"new!");
    assert_ne!(fs::metadata(out.join("equal")).unwrap().mtime(), 1_000_000_000, "not even its time is touched");

    let options = Options { overwrite: Overwrite::IfChanged, ..Options::default() };
    let (summary, seen) = run(&repo, &s, &out, &options);
    assert_eq!(seen.skipped(), ["/folder"], "a directory is never removed for a file");
    assert_eq!((summary.existing, summary.files), (2, 4));
    assert!(["link", "fifo", "longer", "other", "equal"].iter().all(|n| {
        let meta = fs::symlink_metadata(out.join(n)).unwrap();
        meta.is_file() && meta.mtime() == 1_000_000_000 && fs::read(out.join(n)).unwrap() == b"new!"
    }));
    assert_eq!(fs::read(&victim).unwrap(), b"victim");
}

#[test]
fn a_target_that_is_a_symbolic_link_is_refused() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    fs::create_dir(keep.path().join("real")).unwrap();
    symlink(keep.path().join("real"), &out).unwrap();
    let s = snapshot(&repo, vec![file(&repo, "f", b"f")]);
    for given in [out.clone(), out.join(""), out.join(".")] {
        let e = restore(&background().with_progress(&Seen::default()), &repo, &s, b"", &given, &Options::default())
            .unwrap_err();
        assert!(e.hint_text().is_some(), "{e}");
    }
    assert_eq!(fs::read_dir(keep.path().join("real")).unwrap().count(), 0);
}

#[test]
fn t68_a_directory_that_is_swapped_for_a_link_again_and_again_leads_nowhere() {
    let Repo { repo, .. } = repo();
    let (keep, out) = target();
    fs::create_dir(&out).unwrap();
    let victim = keep.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let inside: Vec<_> = (0..8).map(|i| file(&repo, format!("f{i}"), b"x")).collect();
    let sub = directory(&repo, inside);
    let s = snapshot(&repo, (0..40).map(|i| node(format!("d{i}"), 0o755, sub.clone())).collect());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let aside = keep.path().join("aside");
            let mut i = 0;
            while !stop.load(Ordering::Relaxed) {
                let dir = out.join(format!("d{}", i % 40));
                i += 1;
                if fs::rename(&dir, &aside).is_ok() {
                    let _ = symlink(&victim, &dir);
                    let _ = fs::remove_file(&dir);
                    let _ = fs::rename(&aside, &dir);
                    let _ = fs::remove_dir_all(&aside);
                }
            }
        });
        let options = Options { overwrite: Overwrite::Always, ..Options::default() };
        // A swap during a restore costs the restore some entries. Without such a swap the test shows nothing.
        let mut met = 0;
        for round in 0..1000 {
            let result = restore(&background().with_progress(&Seen::default()), &repo, &s, b"", &out, &options);
            met += u32::from(!result.is_ok_and(|summary| summary.failed == 0));
            if met >= 3 && round >= 30 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(met >= 3, "a swap met a restore {met} times");
    });
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "nothing outside the target");
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o755);
}
