//! Partial restores, deletions, dry runs and verification.

use super::races::Once;
use super::support::*;
use crate::harness::cli::Env;
use nfreezer::pattern::{Pattern, Patterns};
use nfreezer::restore::Selection;

fn patterns(texts: &[&str]) -> Patterns {
    let pattern = |text: &&str| Pattern { text: text.as_bytes().into(), ignore_case: false, place: "--x".into() };
    Patterns::new(&texts.iter().map(pattern).collect::<Vec<_>>()).unwrap()
}

/// Makes a snapshot of `a/{one,two.tex,sub/{three.tex,four}}` and `b/five`, with `/` as source.
fn sample(repo: &Repository) -> Snapshot {
    let sub = node("sub", 0o750, directory(repo, vec![file(repo, "three.tex", b"3"), file(repo, "four", b"4")]));
    let a = vec![file(repo, "one", b"1"), file(repo, "two.tex", b"2"), sub];
    let b = vec![file(repo, "five", b"5")];
    let nodes = vec![node("a", 0o755, directory(repo, a)), node("b", 0o755, directory(repo, b))];
    Snapshot { paths: vec![b"/".to_vec().into()], ..snapshot(repo, nodes) }
}

/// Returns all paths below a folder; paths of folders end with a slash.
fn paths(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let is_dir = entry.file_type().unwrap().is_dir();
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap().display();
            found.push(format!("{name}{}", if is_dir { "/" } else { "" }));
            if is_dir {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

fn chosen(repo: &Repository, s: &Snapshot, selection: Selection) -> (Vec<String>, Seen) {
    let (_keep, out) = target();
    let (summary, seen) = run(repo, s, &out, &Options { selection, ..Options::default() });
    assert_eq!((summary.failed, summary.damaged), (0, 0));
    (paths(&out), seen)
}

#[test]
fn patterns_and_paths_choose_what_is_restored() {
    let Repo { repo, .. } = repo();
    let s = sample(&repo);
    let include = |texts| Selection { include: patterns(texts), ..Selection::default() };
    assert_eq!(chosen(&repo, &s, include(&["*.tex"])).0, ["a/", "a/sub/", "a/sub/three.tex", "a/two.tex"]);
    assert_eq!(chosen(&repo, &s, include(&["sub/"])).0, ["a/", "a/sub/", "a/sub/four", "a/sub/three.tex"]);
    let (none, seen) = chosen(&repo, &s, include(&["*.pdf"]));
    assert!(none.is_empty() && seen.warnings.lock().unwrap()[0].contains("nothing in the snapshot matches `*.pdf`"));
    let exclude = Selection { exclude: patterns(&["sub", "/b/*"]), ..Selection::default() };
    assert_eq!(chosen(&repo, &s, exclude).0, ["a/", "a/one", "a/two.tex", "b/"]);
    let both = Selection { include: patterns(&["a"]), exclude: patterns(&["*.tex"]), ..Selection::default() };
    assert_eq!(chosen(&repo, &s, both).0, ["a/", "a/one", "a/sub/", "a/sub/four"]);
    let named = Selection { paths: vec![b"/a/sub".into(), b"/b/five".into()], ..Selection::default() };
    assert_eq!(chosen(&repo, &s, named).0, ["a/", "a/sub/", "a/sub/four", "a/sub/three.tex", "b/", "b/five"]);
}

#[test]
fn a_folder_on_the_way_gets_its_attributes() {
    let Repo { repo, .. } = repo();
    let s = sample(&repo);
    let (_keep, out) = target();
    let selection = Selection { include: patterns(&["three.tex"]), ..Selection::default() };
    run(&repo, &s, &out, &Options { selection, ..Options::default() });
    let sub = fs::metadata(out.join("a/sub")).unwrap();
    assert_eq!((sub.mode() & 0o777, sub.mtime()), (0o750, 1_000_000_000));
}

#[test]
fn a_path_that_does_not_exist_is_an_error_before_anything_is_written() {
    let Repo { repo, .. } = repo();
    let s = sample(&repo);
    let (_keep, out) = target();
    let selection = Selection { paths: vec![b"/a/one".into(), b"/a/none".into()], ..Selection::default() };
    let e = restore(background(), &repo, &s, b"/", &out, &Options { selection, ..Options::default() }).unwrap_err();
    assert!(e.to_string().contains("/a/none") && !out.exists(), "{e}");
}

fn deleting() -> Options {
    Options { delete: true, overwrite: Overwrite::IfChanged, ..Options::default() }
}

#[test]
fn what_the_snapshot_lacks_is_deleted_in_the_restored_folders_only() {
    let Repo { repo, .. } = repo();
    let s = sample(&repo);
    let (keep, out) = target();
    plain(&repo, &s, &out);
    let as_saved = paths(&out);
    let outside = keep.path().join("outside");
    fs::create_dir_all(outside.join("d")).unwrap();
    fs::write(outside.join("precious"), "p").unwrap();
    let spoil = || {
        fs::create_dir_all(out.join("a/extra/deep/er")).unwrap();
        fs::write(out.join("a/extra/deep/file"), "x").unwrap();
        fs::set_permissions(out.join("a/extra/deep"), fs::Permissions::from_mode(0o500)).unwrap();
        fs::write(out.join("top"), "x").unwrap();
        symlink(&outside, out.join("a/link")).unwrap();
        symlink(&outside, out.join("a/extra/link")).unwrap();
        fs::remove_file(out.join("a/one")).unwrap();
        fs::create_dir_all(out.join("a/one/is a folder")).unwrap();
    };
    spoil();
    let spoiled = paths(&out);
    let (dry, _) = run(&repo, &s, &out, &Options { dry_run: true, ..deleting() });
    assert_eq!(paths(&out), spoiled, "a dry run deletes nothing");
    let (summary, seen) = run(&repo, &s, &out, &deleting());
    assert_eq!(paths(&out), as_saved, "{:?}", seen.skipped());
    assert_eq!((summary.deleted, summary.files, summary.failed), (9, 1, 0));
    assert_eq!((dry.deleted, dry.files, dry.failed), (9, 1, 0));
    assert_eq!(paths(&outside), ["d/", "precious"], "links are not followed");

    spoil();
    let selection = Selection { exclude: patterns(&["file", "top"]), ..Selection::default() };
    run(&repo, &s, &out, &Options { selection, ..deleting() });
    let mut kept = as_saved.clone();
    kept.extend(["a/extra/", "a/extra/deep/", "a/extra/deep/file", "top"].map(String::from));
    kept.sort();
    assert_eq!(paths(&out), kept, "what is excluded stays, with its folders");
    assert_eq!(
        fs::metadata(out.join("a/extra/deep")).unwrap().mode() & 0o777,
        0o500,
        "a folder that stays keeps its mode"
    );
}

#[test]
fn nothing_is_deleted_where_the_snapshot_does_not_know_all() {
    let Repo { repo, .. } = repo();
    let s = Snapshot { paths: vec![b"/a/sub".to_vec().into()], ..sample(&repo) };
    let (_keep, out) = target();
    plain(&repo, &s, &out);
    for extra in ["x", "a/x", "a/sub/x", "b/x"] {
        fs::write(out.join(extra), "x").unwrap();
    }
    let (summary, _) = run(&repo, &s, &out, &deleting());
    assert_eq!(summary.deleted, 1, "only below the source");
    assert!(out.join("a/x").exists() && out.join("x").exists() && !out.join("a/sub/x").exists());

    let partial = Snapshot { partial: true, ..s.clone() };
    let e = restore(background(), &repo, &partial, b"/", &out, &deleting()).unwrap_err();
    assert_eq!(e.kind(), Kind::Usage);
    let e = restore(background(), &repo, &s, b"/", Path::new("/"), &Options { dry_run: true, ..deleting() });
    assert_eq!(e.unwrap_err().kind(), Kind::Usage, "the target / needs a filter");
}

#[test]
fn a_folder_that_is_swapped_for_a_link_while_it_is_deleted_leads_nowhere() {
    let Repo { repo, .. } = repo();
    let s = sample(&repo);
    let (keep, out) = target();
    plain(&repo, &s, &out);
    let outside = keep.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("precious"), "p").unwrap();
    for i in 0..20 {
        fs::create_dir_all(out.join("a/extra")).unwrap();
        (0..30).for_each(|n| fs::write(out.join(format!("a/extra/{n:02}")), "x").unwrap());
        fs::create_dir_all(out.join("a/later/below")).unwrap();
        // The first deletion removes a/extra/00; a/later comes after it.
        let swap = || {
            let from = if i % 2 == 0 { out.join("a/later") } else { out.join("a/extra") };
            fs::rename(&from, keep.path().join(format!("away{i}"))).unwrap();
            symlink(&outside, &from).unwrap();
        };
        let once = Once::new(|event| matches!(event, Event::Changed { .. }), swap);
        let _ = restore(&background().with_progress(&once), &repo, &s, b"/", &out, &deleting());
        assert!(once.is_done());
        assert_eq!(paths(&outside), ["precious"]);
        let _ = fs::remove_dir_all(out.join("a/extra"));
        let _ = fs::remove_file(out.join("a/extra"));
        let _ = fs::remove_file(out.join("a/later"));
    }
}

#[test]
fn a_mount_point_is_not_deleted() {
    if !needs_root("mount") {
        return;
    }
    let Repo { repo, .. } = repo();
    let s = sample(&repo);
    let (keep, out) = target();
    plain(&repo, &s, &out);
    let source = keep.path().join("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("precious"), "p").unwrap();
    let place = out.join("a/extra/mounted");
    fs::create_dir_all(&place).unwrap();
    let mount = |arguments: &[&OsStr]| Command::new("mount").args(arguments).status().unwrap().success();
    // A bind mount of the same file system, which has the same device number.
    assert!(mount(&["--bind".as_ref(), source.as_ref(), place.as_ref()]));
    let (summary, seen) = run(&repo, &s, &out, &deleting());
    let there = paths(&source);
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    assert_eq!(there, ["precious"]);
    assert_eq!((summary.deleted, summary.failed), (0, 0));
    assert!(seen.warnings.lock().unwrap()[0].contains("it is a mount point"));
}

#[test]
fn a_dry_run_counts_like_the_real_run_and_writes_nothing() {
    let Repo { repo, .. } = repo();
    let mut nodes = vec![
        file(&repo, "new", &noise(1, 100_000)),
        file(&repo, "equal", b"same"),
        file(&repo, "other", b"saved"),
        node("link", 0o777, Content::Symlink(b"x".into())),
        node("dir", 0o755, directory(&repo, vec![file(&repo, "below", b"below")])),
        node("in the way", 0o755, directory(&repo, vec![file(&repo, "below", b"below")])),
    ];
    let linked = file(&repo, "one", b"linked");
    nodes.push(link(linked.clone(), 7, 2));
    nodes.push(Node { name: b"two".to_vec(), ..link(linked, 7, 2) });
    let s = snapshot(&repo, nodes);
    for overwrite in [Overwrite::Never, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Always] {
        let (keep, out) = target();
        let dry = Options { overwrite, dry_run: true, ..Options::default() };
        let (summary, _) = run(&repo, &s, &out, &dry);
        assert!(!out.exists() && summary.files == 6 && summary.links == 1 && summary.to_fetch > 0, "{summary:?}");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("equal"), "same").unwrap();
        fs::write(out.join("other"), "there").unwrap();
        fs::write(out.join("in the way"), "there").unwrap();
        let before = paths(&out);
        let (planned, planned_seen) = run(&repo, &s, &out, &dry);
        assert_eq!((paths(&out), fs::read(out.join("other")).unwrap()), (before, b"there".to_vec()));
        let (done, done_seen) = run(&repo, &s, &out, &Options { dry_run: false, ..dry });
        let figures =
            |s: &Summary| (s.files, s.bytes, s.directories, s.links, s.others, s.existing, s.kept, s.failed, s.damaged);
        assert_eq!(figures(&planned), figures(&done), "{overwrite:?}");
        assert_eq!(planned_seen.skipped(), done_seen.skipped());
        drop(keep);
    }
}

#[test]
fn only_older_entries_are_replaced_by_if_newer() {
    let Repo { repo, .. } = repo();
    let s = snapshot(&repo, vec![file(&repo, "newer there", b"saved"), file(&repo, "older there", b"saved")]);
    let (_keep, out) = target();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("newer there"), "there, longer").unwrap();
    fs::write(out.join("older there"), "there").unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(900_000_000);
    fs::File::options().write(true).open(out.join("older there")).unwrap().set_modified(old).unwrap();
    let (summary, seen) = run(&repo, &s, &out, &Options { overwrite: Overwrite::IfNewer, ..Options::default() });
    assert_eq!((summary.files, summary.kept, summary.failed, seen.skipped()), (1, 1, 0, vec![]));
    assert_eq!(fs::read_to_string(out.join("newer there")).unwrap(), "there, longer");
    assert_eq!(fs::read_to_string(out.join("older there")).unwrap(), "saved");
}

#[test]
fn a_file_whose_bytes_changed_on_the_disk_does_not_get_its_name() {
    let Repo { repo, .. } = repo();
    let saved = noise(8, 50_000);
    let s = snapshot(&repo, vec![file(&repo, "a", &saved), file(&repo, "z", b"fine")]);
    let (_keep, out) = target();
    let options = Options { verify: true, threads: 1, ..Options::default() };
    let (summary, _) = run(&repo, &s, &out, &options);
    assert_eq!((summary.files, summary.verified), (2, 2));
    fs::remove_file(out.join("a")).unwrap();
    // Damages the file under its temporary name, after its only chunk was written.
    let damage = || {
        let entries = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        let torso = entries.into_iter().find(|path| path.to_string_lossy().contains(".nfreezer-partial-")).unwrap();
        use std::os::unix::fs::FileExt;
        fs::File::options().write(true).open(torso).unwrap().write_all_at(b"!", 40_000).unwrap();
    };
    let once = Once::new(|event| matches!(event, Event::Done { files: 0, .. }), damage);
    let summary = restore(&background().with_progress(&once), &repo, &s, b"/", &out, &options).unwrap();
    assert!(once.is_done());
    assert_eq!((summary.files, summary.verified, summary.failed), (0, 1, 1));
    assert!(!out.join("a").exists());
    assert_no_torso(&out);
}

#[test]
fn the_options_reach_the_restore() {
    let env = Env::with_repository();
    for path in ["top/a/x.txt", "top/a/y.tmp", "top/b/z.txt", "top/c"] {
        env.write(path, path);
    }
    env.nfreezer(["push", "top"]).done();
    let from = format!("latest:{}", env.path("top").display());
    env.nfreezer(["restore", &from, "a", "c", "--target", "two"]).done();
    assert_eq!(paths(&env.path("two")), ["a/", "a/x.txt", "a/y.tmp", "c"]);
    env.nfreezer(["restore", &from, "--target", "some", "--include", "*.txt", "-e", "b"]).done();
    assert_eq!(paths(&env.path("some")), ["a/", "a/x.txt"]);
    env.write("two/a/extra", "x");
    let dry = env.nfreezer(["restore", &from, "a", "--target", "two", "--delete", "-n"]);
    assert!(dry.stdout.contains("would delete") && dry.stdout.contains("/a/extra"), "{}", dry.stdout);
    assert!(env.path("two/a/extra").exists());
    let json = env.nfreezer(["restore", &from, "a", "--target", "two", "--delete", "--verify", "--json"]);
    assert!(json.stdout.contains("\"deleted\":1") && !env.path("two/a/extra").exists(), "{}", json.stdout);
    let wrong = env.nfreezer(["restore", &from, "/elsewhere", "--target", "two"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("is not below"), "{}", wrong.stderr);
}
