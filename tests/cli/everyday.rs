//! Small details that users meet in their first days.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::harness::cli::Env;
use crate::harness::tree::settle;

fn in_latest(env: &Env, path: &str) -> OsString {
    let mut what = OsString::from("latest:");
    what.push(env.path(path));
    what
}

#[test]
fn a_home_with_the_own_state_is_unchanged_after_a_push() {
    let env = Env::with_repository();
    std::fs::write(env.home().join("letter"), "x").unwrap();
    let home = env.home();
    let push = |more: &[&str]| {
        let mut command = vec![OsStr::new("push"), home.as_os_str()];
        command.extend(more.iter().map(OsStr::new));
        env.nfreezer(command).exits(0)
    };
    assert!(push(&[]).stdout.contains("1 new"));
    let state = home.join(".local/state/nfreezer");
    assert!(state.is_dir(), "the test is about a home that holds the state");
    let second = push(&["--skip-if-unchanged", "-v"]);
    assert!(second.stdout.contains("nothing has changed"), "{}", second.stdout);
    assert!(second.stdout.contains("1 left out"), "{}", second.stdout);
    assert!(second.stderr.contains(&format!("excluded {}", state.display())), "{}", second.stderr);
    // The state folder is saved if it is a source itself.
    env.nfreezer([OsStr::new("push"), state.as_os_str()]).done();
    let mut what = OsString::from("latest:");
    what.push(&state);
    assert!(!env.nfreezer([OsStr::new("ls"), &what]).exits(0).stdout.is_empty());
}

#[test]
fn unchanged_files_are_named_with_two_v_and_renamed_ones_with_one() {
    let env = Env::with_repository();
    let file = env.write("tree/a", "a");
    env.write("tree/b", "b");
    settle();
    env.nfreezer(["push", "tree"]).done();
    let unchanged = format!("unchanged {}", file.display());
    let once = env.nfreezer(["push", "tree", "-v"]).exits(0).stderr;
    assert!(!once.contains("unchanged"), "{once}");
    let twice = env.nfreezer(["push", "tree", "-vv"]).exits(0).stderr;
    assert!(twice.contains(&unchanged), "{twice}");
    std::fs::rename(&file, env.path("tree/c")).unwrap();
    let renamed = env.nfreezer(["push", "tree", "-v"]).exits(0).stderr;
    assert!(renamed.contains(&format!("renamed {}", env.path("tree/c").display())), "{renamed}");
    env.nfreezer(["restore", "latest", "--target", "out"]).done();
    let again = env.nfreezer(["restore", "latest", "--target", "out", "-vv"]).exits(0).stderr;
    assert!(again.contains("unchanged ") && again.contains("tree/b"), "{again}");
}

#[test]
fn a_refused_command_line_gets_a_hint_that_helps() {
    let env = Env::with_repository();
    env.write("tree/letter", "x");
    env.nfreezer(["push", "tree"]).done();
    let refused = |words: &[&str], hint: &str| {
        let error = env.nfreezer(words).exits(2).stderr;
        assert!(error.contains(hint), "{words:?}: {error}");
    };
    refused(&["ls", "latest", "/etc"], "behind the snapshot: latest:/etc");
    refused(&["dump", "latest", "/etc/fstab"], "behind the snapshot: latest:/etc/fstab");
    refused(&["find", "-s", "latest", "letter"], "the form is `nfreezer find");
    refused(&["check", "--read-data-subset", "10m"], "`-h` behind the command");
    refused(&["schedule", "install", "home"], "PROFILE --daily TIME|--weekly TIME|--hourly");
    refused(&["undelete", "latest"], "nfreezer snapshots --forgotten");
    refused(&["snapshots", "-r", "me@nas"], "user@host:/path");
    let relative = env.nfreezer(["ls", "latest:tree"]).exits(1).stderr;
    assert!(relative.contains("paths in a snapshot are absolute"), "{relative}");
    let part = env.nfreezer(["check", "--read-data-subset", "30/30"]).exits(0).stdout;
    assert!(part.contains("read and verified"), "also if the part has no pack: {part}");
}

#[test]
fn a_path_is_accepted_as_it_is_printed() {
    let env = Env::with_repository();
    let folder = env.path("tree");
    std::fs::create_dir(&folder).unwrap();
    let bytes = OsStr::from_bytes(b"bad\xff\\x\n.txt");
    std::fs::write(folder.join(bytes), "contents").unwrap();
    env.write(r"tree/lite\x41ral", "literal");
    env.write("tree/liteAral", "other");
    env.nfreezer(["push", "tree"]).done();
    let listed = env.nfreezer([OsStr::new("ls"), &in_latest(&env, "tree")]).exits(0).stdout;
    let name = listed.lines().next().unwrap();
    assert_eq!(name, r"bad\xff\\x\n.txt");
    let place = |name: &str| in_latest(&env, &format!("tree/{name}"));
    let target = |target| [OsStr::new("--target"), OsStr::new(target)];
    let restored = env.nfreezer([&[OsStr::new("restore"), &place(name)], &target("out")[..]].concat()).exits(0);
    assert!(
        restored.stdout.contains(r"restored to out/bad\xff"),
        "the place of the file is named: {}",
        restored.stdout
    );
    assert_eq!(std::fs::read(env.path("out").join(bytes)).unwrap(), b"contents");
    let words = [OsStr::new("restore"), &in_latest(&env, "tree"), OsStr::new(name)];
    env.nfreezer([&words[..], &target("three")[..]].concat()).done();
    assert_eq!(std::fs::read(env.path("three").join(bytes)).unwrap(), b"contents");
    // A path that exists exactly as typed is used as typed, without unescaping.
    env.nfreezer([&[OsStr::new("restore"), &place(r"lite\x41ral")], &target("two")[..]].concat()).done();
    assert_eq!(std::fs::read(env.path(r"two/lite\x41ral")).unwrap(), b"literal");
    let missing = env.nfreezer([OsStr::new("ls"), &place(r"no\xff")]).exits(1).stderr;
    assert!(missing.contains("in snapshot"), "{missing}");
}

#[test]
fn a_target_that_is_a_file_gets_the_hint_for_files() {
    let env = Env::with_repository();
    env.write("tree/letter", "x");
    env.write("existing", "x");
    std::os::unix::fs::symlink("tree", env.path("link")).unwrap();
    env.nfreezer(["push", "tree"]).done();
    let restore = |target| env.nfreezer(["restore", "latest", "--target", target]).exits(1).stderr;
    let (file, link) = (restore("existing"), restore("link"));
    assert!(file.contains("is not a folder") && file.contains("a single file keeps its name in it"), "{file}");
    assert!(link.contains("is not a folder") && link.contains("give the folder it points to"), "{link}");
}

#[test]
fn a_restore_never_deletes_the_repository() {
    let env = Env::new();
    env.write("self/file", "x");
    env.nfreezer(["init", "-r", "self/repo"]).done();
    env.nfreezer(["push", "-r", "self/repo", "self"]).done();
    env.write("self/more", "y");
    let what = in_latest(&env, "self");
    let restore = |target: &str| {
        let command = ["restore", "-r", "self/repo"].map(OsString::from).into_iter();
        env.nfreezer(command.chain([what.clone(), "--target".into(), target.into(), "--delete".into()]))
    };
    let output = restore("self").success();
    assert!(output.stderr.contains("self/repo is not deleted: it is the repository itself"), "{output:?}");
    assert!(!env.path("self/more").exists() && output.stdout.contains("1 deleted"), "{output:?}");
    for inside in ["self/repo", "self/repo/packs", "self/repo/new/folder"] {
        let output = restore(inside).exits(2);
        assert!(output.stderr.contains("it is the repository itself, or lies in it"), "{output:?}");
    }
    env.nfreezer(["check", "-r", "self/repo", "--read-data"]).done();
}

#[test]
fn a_dry_run_deletes_as_much_as_the_real_one() {
    let env = Env::with_repository();
    (0..4).for_each(|i| drop(env.write(&format!("src/{i}/{i}/file"), "x")));
    env.nfreezer(["push", "src"]).done();
    env.write("out/mine", "y");
    env.write("out/2/mine", "z");
    let what = in_latest(&env, "src");
    let restore = |more: &str| {
        let command = ["restore".into(), what.clone(), "--target".into(), "out".into(), "--delete".into()];
        env.nfreezer(command.into_iter().chain([OsString::from(more)])).success().stdout
    };
    let planned = restore("--dry-run");
    assert!(planned.contains("2 would be deleted") && planned.contains("would delete out/2/mine"), "{planned}");
    let done = restore("--verify");
    assert!(done.contains("2 deleted"), "{done}");
}

#[test]
fn a_listing_for_ncdu_names_its_root() {
    let env = Env::with_repository();
    env.write("src/file", "x");
    env.nfreezer(["push", "src"]).done();
    let listing = env.nfreezer(["ls", "--ncdu", "latest"]).success().stdout;
    assert!(listing.contains(r#"[{"name":"/"}"#), "{listing}");
}

#[test]
fn a_check_of_one_snapshot_calls_no_pack_of_another_one_unused() {
    let env = Env::with_repository();
    env.write("src/file", "x");
    env.nfreezer(["push", "src"]).done();
    env.write("src/more", "y");
    env.nfreezer(["push", "src"]).done();
    let output = env.nfreezer(["check", "latest~1"]).success();
    assert!(!output.stdout.contains("not used"), "{}", output.stdout);
}

#[test]
fn a_refused_forget_claims_nothing() {
    let env = Env::with_repository();
    env.write("src/file", "x");
    env.nfreezer(["push", "src"]).done();
    let output = env.nfreezer(["forget", "latest"]).exits(1);
    assert!(output.stderr.contains("nothing was forgotten") && output.stdout.is_empty(), "{output:?}");
    let output = env.nfreezer(["forget", "latest", "--yes"]).success();
    assert!(output.stdout.contains(": forgotten"), "{output:?}");
}

/// Returns the text of the file that remembers the last runs, from the state folder of `env`.
fn remembered_runs(env: &Env) -> String {
    let folder = env.home().join(".local/state/nfreezer");
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let runs = files.filter(|path| path.extension() == Some(OsStr::new("runs")));
    runs.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn the_last_successful_runs_are_remembered() {
    let env = Env::with_repository();
    env.write("tree/a", "a");
    env.nfreezer(["push", "tree", "--no-memory"]).done();
    env.nfreezer(["push", "tree", "--dry-run"]).done();
    env.nfreezer(["check", "latest"]).done();
    assert_eq!(remembered_runs(&env), "", "neither a dry run nor a check of one snapshot counts");
    env.nfreezer(["push", "tree"]).done();
    env.nfreezer(["check"]).done();
    let words = |text: String| text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(words(remembered_runs(&env)), ["nfreezer", "copy", "push", "check", "sum"]);
    env.nfreezer(["check", "--read-data"]).done();
    env.nfreezer(["prune"]).done();
    let all = ["nfreezer", "copy", "push", "check", "check-data", "prune", "sum"];
    assert_eq!(words(remembered_runs(&env)), all);
    for shard in std::fs::read_dir(env.path("repo/packs")).unwrap() {
        let packs = std::fs::read_dir(shard.unwrap().path()).unwrap();
        packs.for_each(|pack| std::fs::remove_file(pack.unwrap().path()).unwrap());
    }
    let before = remembered_runs(&env);
    env.nfreezer(["check"]).fails(4);
    assert_eq!(remembered_runs(&env), before, "a check that finds damage is no success");
}

#[test]
fn diff_names_its_snapshots_and_compares_those_of_the_same_sources() {
    let env = Env::with_repository();
    env.write("a/file", "1");
    env.write("b/other", "1");
    env.nfreezer(["push", "a"]).done();
    env.nfreezer(["push", "b"]).done();
    let ids = |host: &str| {
        let objects = env.nfreezer(["snapshots", "--json", "--path", host]).exits(0).objects();
        let snapshots = objects.iter().filter(|object| object["type"] == "snapshot");
        snapshots.map(|s| s["short_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // No older snapshot has the sources of the latest one, so `diff` warns that the sources differ.
    let different = env.nfreezer(["diff"]).exits(0);
    assert!(different.stderr.contains("the snapshots have different sources"), "{different:?}");
    env.write("a/file", "22");
    env.nfreezer(["push", "a"]).done();
    let same = env.nfreezer(["diff"]).exits(0);
    assert_eq!(same.stderr, "");
    assert!(same.stdout.contains("M    ") && !same.stdout.contains("b/other"), "{}", same.stdout);
    let ids = ids(env.path("a").to_str().unwrap());
    assert!(same.stdout.contains(&format!("Compared: {} of ", ids[0])), "{}", same.stdout);
    assert!(same.stdout.contains(&format!(" with {} of ", ids[1])), "{}", same.stdout);
    let disk = env.nfreezer(["diff", "--with", "a"]).exits(0).stdout;
    assert!(disk.contains(&format!("Compared: {} of ", ids[1])) && disk.contains("/a\n"), "{disk}");
}

#[test]
fn a_filter_without_a_match_is_an_error() {
    let env = Env::with_repository();
    env.write("tree/a", "1");
    env.nfreezer(["push", "tree"]).done();
    for command in [&["find", "a"][..], &["stats"]] {
        let failed = env.nfreezer([command, &["--host", "nobody"]].concat()).exits(1).stderr;
        assert!(failed.contains("no snapshot passes the filters") && failed.contains("hint: hosts: "), "{failed}");
    }
    let empty = Env::with_repository();
    empty.nfreezer(["stats"]).done();
    empty.nfreezer(["find", "a"]).done();
}

#[test]
fn links_and_pipes_that_are_unchanged_stay_the_same_inodes() {
    use std::os::unix::fs::MetadataExt;
    let env = Env::with_repository();
    env.write("tree/a", "1");
    std::os::unix::fs::symlink("a", env.path("tree/link")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(env.path("tree/pipe")).status().unwrap().success());
    env.nfreezer(["push", "tree"]).done();
    let what = in_latest(&env, "tree");
    let restore = || {
        let words = [OsStr::new("restore"), &what, OsStr::new("--target"), OsStr::new("out")];
        env.nfreezer([&words[..], &["--overwrite", "if-changed"].map(OsStr::new)].concat()).exits(0)
    };
    drop(restore());
    let inode = |name: &str| env.path("out").join(name).symlink_metadata().unwrap().ino();
    let before = ["link", "pipe"].map(inode);
    drop(restore());
    assert_eq!(["link", "pipe"].map(inode), before);
    // A restore also undoes a change of the attributes alone.
    let pipe = env.path("out/pipe");
    std::fs::set_permissions(&pipe, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    drop(restore());
    assert_eq!(pipe.metadata().unwrap().mode(), env.path("tree/pipe").metadata().unwrap().mode());
}

#[test]
fn du_shows_folders_with_the_largest_first_and_counts_links_once() {
    let env = Env::with_repository();
    env.write("tree/small/a", "1");
    env.write("tree/large/deep/b", "b".repeat(5000));
    env.write("tree/large/c", "c".repeat(300));
    std::fs::hard_link(env.path("tree/large/c"), env.path("tree/large/other name")).unwrap();
    env.nfreezer(["push", "tree"]).done();
    let what = in_latest(&env, "tree");
    let folders = |depth: &str| {
        let words = [OsStr::new("du"), &what, OsStr::new("--json"), OsStr::new("-d"), OsStr::new(depth)];
        let objects = env.nfreezer(words).exits(0).objects();
        let folders = objects.iter().filter(|object| object["type"] == "folder");
        let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        folders
            .map(|o| (name(o["path"].as_str().unwrap()), o["bytes"].as_u64().unwrap(), o["files"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    let [tree, large, deep, small] = [("tree", 5301, 3), ("large", 5300, 2), ("deep", 5000, 1), ("small", 1, 1)]
        .map(|(name, bytes, files)| (name.to_owned(), bytes, files));
    assert_eq!(folders("0"), std::slice::from_ref(&tree));
    assert_eq!(folders("1"), [tree.clone(), large.clone(), small.clone()]);
    assert_eq!(folders("9"), [tree, large, deep, small]);
    let text = env.nfreezer([OsStr::new("du"), &what]).exits(0).stdout;
    assert!(text.starts_with("   5.2 KiB         3 files  /") && text.ends_with("/tree/small\n"), "{text}");
}

#[test]
fn snapshots_lists_those_that_are_named() {
    let env = Env::with_repository();
    for name in ["one", "two", "three"] {
        env.write(&format!("{name}/file"), name);
        env.nfreezer(["push", name]).done();
    }
    let shown = |arguments: &[&str]| {
        let lines = env.nfreezer([&["snapshots", "--json"], arguments].concat()).exits(0).objects();
        lines.iter().filter_map(|line| Some(line["id"].as_str()?.to_owned())).collect::<Vec<_>>()
    };
    let ids = shown(&[]);
    assert_eq!(shown(&["latest", &ids[0], &ids[0]]), [ids[0].clone(), ids[2].clone()]);
    env.nfreezer(["forget", &ids[0], &ids[1], "--yes"]).done();
    assert_eq!(shown(&["--forgotten", &ids[1]]), [ids[1].clone()]);
    let wrong = env.nfreezer(["snapshots", "0000"]).exits(1).stderr;
    assert!(wrong.contains("0000"), "{wrong}");
}

#[test]
fn a_restore_names_what_it_changes_by_its_path_on_the_disk() {
    let env = Env::with_repository();
    env.write("src/a", "saved");
    env.write("src/d/b", "saved");
    env.nfreezer(["push", "src"]).done();
    env.write("out/a", "other");
    env.write("out/extra", "x");
    let what = in_latest(&env, "src");
    let restore = |more: &[&str]| {
        let common = ["--target", "out", "--delete", "--overwrite", "always"].into_iter().chain(more.iter().copied());
        let command = [OsString::from("restore"), what.clone()].into_iter();
        env.nfreezer(command.chain(common.map(OsString::from))).success()
    };
    let planned = restore(&["-n"]).stdout;
    for line in ["would overwrite out/a", "would write out/d/", "would write out/d/b", "would delete out/extra"] {
        assert!(planned.lines().any(|planned| planned == line), "{line}: {planned}");
    }
    let objects = restore(&["-n", "--json"]).objects();
    let paths: Vec<_> = objects.iter().filter(|o| o["type"] == "change").map(|o| o["path"].as_str().unwrap()).collect();
    assert!(paths.len() == 4 && paths.iter().all(|path| path.starts_with("out/")), "{paths:?}");
    let done = restore(&["-v"]).stderr;
    for line in ["restored out/a", "restored out/d/b", "deleted out/extra"] {
        assert!(done.lines().any(|done| done == line), "{line}: {done}");
    }
}

#[test]
fn a_search_without_a_match_says_what_patterns_match() {
    let env = Env::with_repository();
    env.write("src/gone with the wind.txt", "x");
    env.nfreezer(["push", "src"]).done();
    let nothing = env.nfreezer(["find", "gone"]).success();
    assert!(nothing.stderr.contains("hint: a pattern matches whole names; `nfreezer find '*gone*'`"), "{nothing:?}");
    assert!(env.nfreezer(["find", "*gone*"]).success().stderr.is_empty());
    for arguments in [&["find", "*none*"][..], &["find", "none", "-q"]] {
        assert!(env.nfreezer(arguments).success().stderr.is_empty());
    }
}

#[test]
fn a_folder_below_the_longest_path_is_compared_with_its_snapshot() {
    let env = Env::with_repository();
    env.write("src/file", "x");
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let mut folder = rustix::fs::open(env.path("src"), flags, rustix::fs::Mode::empty()).unwrap();
    let name = "n".repeat(250);
    for _ in 0..20 {
        rustix::fs::mkdirat(&folder, &name, rustix::fs::Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, &name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    let write = |name: &str, text: &[u8]| {
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let file = rustix::fs::openat(&folder, name, flags, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(rustix::io::write(&file, text), Ok(text.len()));
    };
    write("kept", b"1");
    env.nfreezer(["push", "src"]).done();
    let same = env.nfreezer(["diff", "--with", "src", "--metadata", "--content", "-q"]).success();
    assert_eq!((same.stdout.as_str(), same.stderr.as_str()), ("", ""));
    write("new", b"2");
    let found = env.nfreezer(["diff", "--with", "src"]).success();
    let [added] = found.stdout.lines().filter(|line| line.starts_with("+ ")).collect::<Vec<_>>()[..] else {
        panic!("{found:?}")
    };
    assert!(added.ends_with("/new") && added.len() > 5000 && found.stderr.is_empty(), "{found:?}");
}
