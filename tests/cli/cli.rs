//! The command line through the binary: exit codes, sources of the passphrase, JSON, output on a terminal.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use crate::harness::cli::{Env, PASSPHRASE};
use crate::harness::process::{copy_program, within_as};
use crate::harness::root::{as_nobody, needs_root};

#[test]
fn usage_errors_exit_with_2_and_help_exists_for_every_command() {
    let env = Env::new();
    for bad in [&["nonsense"][..], &["restore", "latest"], &["push"], &["snapshots"], &["ls", "--transport", "pigeon"]]
    {
        let output = env.nfreezer(bad).exits(2);
        assert!(output.stderr.contains("error: "), "{bad:?}: {}", output.stderr);
    }
    for command in ["init", "push", "backup", "snapshots", "ls", "restore", "version", "create", "list", "extract"] {
        let output = env.nfreezer([command, "--help"]).success();
        assert!(output.stdout.contains("Usage: nfreezer"), "{command}");
    }
    let help = env.nfreezer(["--help"]).success().stdout;
    for command in ["init", "push", "snapshots", "ls", "restore"] {
        assert!(help.contains(&format!("\n  {command}")), "{command} is missing in:\n{help}");
    }
    assert!(env.nfreezer(["--version"]).success().stdout.starts_with("nfreezer 0."));
    assert!(env.nfreezer(["unlock"]).success().stdout.contains("no locks"));
}

#[test]
fn old_calls_are_told_the_new_form() {
    let env = Env::new();
    let output = env.nfreezer(["backup", "documents", "me@nas:/backups"]).exits(2);
    assert!(output.stderr.contains("hint: write: nfreezer push -r me@nas:/backups documents"), "{}", output.stderr);
    let output = env.nfreezer(["restore", "me@nas:/backups", "documents"]).exits(2);
    assert!(
        output.stderr.contains("nfreezer restore -r me@nas:/backups latest --target documents"),
        "{}",
        output.stderr
    );
    let output = env.nfreezer(["restore", "latest", "documents"]).exits(2);
    assert!(output.stderr.contains("nfreezer restore latest --target documents"), "{}", output.stderr);
}

#[test]
fn every_bad_day_has_its_code_and_one_clear_line() {
    let mut env = Env::with_repository();
    let one_line = |stderr: &str, words: &str| {
        let mut lines = stderr.lines();
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with("nfreezer: error: ") && first.contains(words), "{stderr}");
        assert!(lines.all(|line| line.starts_with("hint: ")), "{stderr}");
    };
    one_line(&env.nfreezer(["-r", "nowhere", "snapshots"]).exits(10).stderr, "no repository");
    one_line(&env.nfreezer(["restore", "latest", "--target", "out"]).exits(1).stderr, "no snapshot latest");
    one_line(&env.nfreezer(["ls", "../x"]).exits(2).stderr, "not a snapshot");
    one_line(&env.nfreezer(["init"]).exits(1).stderr, "already");
    one_line(&env.nfreezer(["-r", "x@127.0.0.1:/x", "--port", "1", "snapshots"]).exits(13).stderr, "");
    env.write("full/file", "x");
    one_line(&env.nfreezer(["-r", "full", "init"]).exits(1).stderr, "not empty");
    one_line(&env.nfreezer(["init", "-r", "new", "--kdf-memory", "1M"]).exits(2).stderr, "64M to 2G");
    assert!(!env.path("new").exists(), "nothing is made before all is well");
    env.set("NFREEZER_PASSWORD", "wrong");
    one_line(&env.nfreezer(["snapshots"]).exits(12).stderr, "wrong passphrase");
}

#[test]
fn nothing_but_init_makes_a_repository() {
    let env = Env::new();
    env.write("source/file", "x");
    for command in [&["push", "source"][..], &["snapshots"], &["ls"], &["restore", "latest", "--target", "out"]] {
        env.nfreezer([&["-r", "fresh"], command].concat()).fails(10);
        assert!(!env.path("fresh").exists(), "{command:?}");
    }
    fs::create_dir(env.path("fresh")).unwrap();
    let output = env.nfreezer(["-r", "fresh", "push", "source"]).exits(10);
    assert!(output.stderr.contains("nfreezer init"), "{}", output.stderr);
    assert_eq!(fs::read_dir(env.path("fresh")).unwrap().count(), 0);
    let output = env.nfreezer(["push", "-r", "fresh", "/no/such/source"]).exits(1);
    assert!(output.stderr.contains("/no/such/source"), "{}", output.stderr);
}

#[test]
fn the_passphrase_comes_from_exactly_one_place() {
    let mut env = Env::with_repository();
    env.unset("NFREEZER_PASSWORD");
    let file = env.write("pass", format!("{PASSPHRASE}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let output = env.nfreezer(["snapshots"]).exits(2);
    assert!(output.stderr.contains("--password-file"), "nobody can be asked: {}", output.stderr);

    assert_eq!(env.nfreezer(["snapshots", "-p", "pass"]).success().stderr, "");
    let command = format!("printf '%s\\n' '{PASSPHRASE}'");
    assert_eq!(env.nfreezer(["snapshots", "--password-command", &command]).success().stderr, "");
    env.nfreezer(["snapshots", "--password-command", "exit 3"]).fails(1);
    for (name, value) in [("NFREEZER_PASSWORD_FILE", "pass"), ("NFREEZER_PASSWORD_COMMAND", "cat pass")] {
        env.set(name, value);
        assert_eq!(env.nfreezer(["snapshots"]).success().stderr, "");
        env.set(name, "missing");
        assert_eq!(env.nfreezer(["snapshots", "-p", "pass"]).success().stderr, "", "the option wins over {name}");
        env.unset(name);
    }
    let output = env.nfreezer(["snapshots", "-p", "pass", "--password-command", "cat pass"]).exits(2);
    assert!(
        output.stderr.contains("--password-command") && output.stderr.contains("--password-file"),
        "{}",
        output.stderr
    );
    env.set("NFREEZER_PASSWORD", PASSPHRASE).set("NFREEZER_PASSWORD_FILE", "pass");
    env.nfreezer(["snapshots"]).fails(2);
    env.unset("NFREEZER_PASSWORD").unset("NFREEZER_PASSWORD_FILE");

    env.write("two newlines", format!("{PASSPHRASE}\n\n"));
    env.nfreezer(["snapshots", "-p", "two newlines"]).fails(12);
    for empty in ["", "\n"] {
        env.write("empty", empty);
        env.nfreezer(["snapshots", "-p", "empty"]).fails(2);
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = env.nfreezer(["snapshots", "-p", "pass"]).success();
    assert!(output.stderr.contains("chmod 600"), "{}", output.stderr);
    // No option takes the passphrase itself.
    env.nfreezer(["snapshots", "--password", PASSPHRASE]).fails(2);
}

#[test]
fn the_repository_comes_from_an_option_a_file_or_the_environment() {
    let mut env = Env::with_repository();
    env.write("where", "repo\n");
    env.nfreezer(["snapshots", "--repository-file", "where"]).done();
    env.nfreezer(["snapshots", "--repository-file", "where", "-r", "repo"]).fails(2);
    env.set("NFREEZER_REPOSITORY_FILE", "where");
    env.nfreezer(["snapshots"]).fails(2);
    env.nfreezer(["snapshots", "-r", "repo"]).done();
    env.unset("NFREEZER_REPOSITORY");
    env.nfreezer(["snapshots"]).done();
}

#[test]
fn json_is_an_object_a_line_and_ends_with_a_summary_or_an_error() {
    let env = Env::with_repository();
    assert_eq!(env.nfreezer(["snapshots", "--json"]).success().objects()[0]["snapshots"], 0);
    assert_eq!(env.nfreezer(["--json", "version"]).success().objects()[0]["program"], "nfreezer");
    assert_eq!(env.nfreezer(["--json", "unlock"]).success().objects().len(), 1);
    let made = env.nfreezer(["--json", "init", "-r", "second"]).success();
    assert_eq!(made.objects()[0]["repository_id"].as_str().unwrap().len(), 64);
    let error = env.nfreezer(["ls", "--json"]).exits(1);
    let last = error.objects().pop().unwrap();
    assert_eq!((last["type"].as_str(), last["code"].as_u64()), (Some("error"), Some(1)));
    let usage = env.nfreezer(["ls", "--json", "--nonsense"]).exits(2);
    assert_eq!(usage.objects().pop().unwrap()["code"], 2);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let env = Env::with_repository();
    let mut child = env.command(["snapshots"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn names_of_others_are_escaped_in_messages() {
    let env = Env::with_repository();
    let output = env.nfreezer(["push", "no\u{1b}[2Jsuch\u{202e}source\n"]).exits(1);
    assert!(output.stderr.contains(r"no\x1b[2Jsuch\u{202e}source\n"), "{}", output.stderr);
    let output = env.nfreezer(["-r", "no\u{1b}[2J\u{202e}", "snapshots"]).exits(10);
    assert!(!output.stderr.contains(['\u{1b}', '\u{202e}']), "{}", output.stderr);
}

/// Makes a repository with one snapshot: a tree with hostile names, pushed as `/…/source`.
fn with_snapshot() -> Env {
    let env = Env::with_repository();
    env.write("source/plain", "plain");
    env.write("source/sub/esc\u{1b}[2J\u{202e}\nx", "hostile");
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff");
    fs::write(env.path("source").join(odd), "odd").unwrap();
    symlink("esc\u{1b}]0;title\u{7}", env.path("source/link")).unwrap();
    let output = env.nfreezer(["push", "source", "--tag", "t\u{1b}[31m", "--host", "h\u{202e}", "--description", "d"]);
    let output = output.success();
    assert!(output.stdout.contains("3 new") && output.stdout.contains("saved"), "{}", output.stdout);
    env
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_opened() {
    let mut env = Env::without_passphrase();
    env.set("NFREEZER_REPOSITORY", "/nowhere");
    let output = env.nfreezer(["push", "--memory", "103M", "x"]).exits(2);
    assert!(output.stderr.contains("a push needs at least 104M"), "{}", output.stderr);
    let mut env = Env::with_repository();
    env.unset("NFREEZER_PASSWORD");
    let output = env.nfreezer(["snapshots", "-p", "missing"]).exits(2);
    assert!(output.stderr.contains("cannot read the passphrase file missing"), "{}", output.stderr);
    let windows = env.write("windows", format!("{PASSPHRASE}\r\n"));
    fs::set_permissions(windows, fs::Permissions::from_mode(0o600)).unwrap();
    let output = env.nfreezer(["snapshots", "-p", "windows"]).exits(12);
    assert!(output.stderr.contains("windows ends with CRLF"), "{}", output.stderr);
}

#[test]
fn push_ls_snapshots_and_restore_work_together() {
    let env = with_snapshot();
    let inside = format!("latest:{}", env.path("source").display());
    let table = env.nfreezer(["snapshots"]).success().stdout;
    assert!(table.starts_with("ID ") && table.contains("source") && table.contains("1 snapshot"), "{table}");
    let names = env.nfreezer(["ls", &inside]).success().stdout;
    assert_eq!(names, "link\nodd \\xff\nplain\nsub/\n");
    let all = env.nfreezer(["ls", "-l", "-R", &inside]).success().stdout;
    assert!(all.lines().any(|line| line.starts_with('d') && line.ends_with("  sub/")), "{all}");
    assert!(all.contains(r"sub/esc\x1b[2J\u{202e}\nx") && all.contains(r"link -> esc\x1b]0;title\x07"), "{all}");
    for text in [&table, &names, &all] {
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text}");
    }
    let output = env.nfreezer(["restore", &inside, "--target", "out"]).success();
    assert!(output.stdout.contains("restored 3 files"), "{}", output.stdout);
    assert_eq!(fs::read(env.path("out/sub/esc\u{1b}[2J\u{202e}\nx")).unwrap(), b"hostile");
    // A second restore has nothing to do. A file that was changed since then is not overwritten silently.
    env.nfreezer(["restore", &inside, "-t", "out"]).done();
    env.write("out/plain", "mine!");
    let output = env.nfreezer(["restore", &inside, "-t", "out"]).exits(1);
    assert!(output.stderr.contains("plain") && output.stderr.contains("--overwrite"), "{}", output.stderr);
    assert_eq!(fs::read(env.path("out/plain")).unwrap(), b"mine!");
    env.nfreezer(["restore", &inside, "-t", "out", "--overwrite", "if-changed"]).done();
    assert_eq!(fs::read(env.path("out/plain")).unwrap(), b"plain");
    // Restores one file with `-q`, which prints nothing.
    let output = env.nfreezer(["restore", &format!("{inside}/plain"), "-t", "one", "-q"]).success();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert_eq!(fs::read(env.path("one/plain")).unwrap(), b"plain");
}

#[test]
fn json_of_every_command_holds_names_without_loss() {
    let env = with_snapshot();
    let inside = format!("latest:{}", env.path("source").display());
    let pushed = env.nfreezer(["push", "source", "--json", "--time", "2020-02-02T02:02:02Z"]).success();
    let summary = pushed.objects().pop().unwrap();
    let files: u64 = ["new", "changed", "unchanged"].iter().filter_map(|field| summary[field].as_u64()).sum();
    assert_eq!((files, summary["snapshot"].as_str().map(str::len)), (3, Some(32)));
    let listed =
        env.nfreezer(["ls", "--json", summary["short_id"].as_str().unwrap()]).success().objects().pop().unwrap();
    assert_eq!((&listed["snapshot"], &listed["short_id"]), (&summary["snapshot"], &summary["short_id"]));
    let snapshots = env.nfreezer(["snapshots", "--json"]).success().objects();
    assert_eq!((snapshots.len(), snapshots[0]["time"].as_str()), (3, Some("2020-02-02T02:02:02.000000000Z")));
    assert_eq!((&snapshots[1]["host"], &snapshots[1]["tags"][0]), (&"h\u{202e}".into(), &"t\u{1b}[31m".into()));
    let output = env.nfreezer(["ls", "-R", "--json", &inside]).success();
    assert!(output.stdout.bytes().all(|b| b == b'\n' || (b >= b' ' && b != 0x7f)), "{}", output.stdout);
    assert!(!output.stdout.contains('\u{202e}'));
    let nodes = output.objects();
    let find = |field: &str, value: &str| nodes.iter().find(|n| n[field] == value).unwrap().clone();
    assert_eq!(find("path", "sub/esc\u{1b}[2J\u{202e}\nx")["size"], 7);
    assert_eq!(find("path_bytes", "6f646420ff")["kind"], "file");
    assert_eq!(find("path", "link")["target"], "esc\u{1b}]0;title\u{7}");
    let restored = env.nfreezer(["restore", &inside, "-t", "out", "--json"]).success().objects();
    assert_eq!(restored.last().unwrap()["files"], 3);
}

#[test]
fn damage_is_reported_and_exits_with_4() {
    let env = Env::with_repository();
    let mut state = 1u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    };
    env.write("source/big", noise(3 << 20));
    env.nfreezer(["push", "source/big"]).done();
    env.write("source/small", noise(100));
    env.nfreezer(["push", "source"]).done();
    // The largest pack holds `big`.
    let shards = fs::read_dir(env.path("repo/packs")).unwrap().flat_map(|s| fs::read_dir(s.unwrap().path()).unwrap());
    let pack = shards.map(|p| p.unwrap().path()).max_by_key(|p| p.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1 << 20] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    let inside = format!("latest:{}", env.path("source").display());
    let output = env.nfreezer(["restore", &inside, "-t", "out", "--json"]).exits(4);
    let id = pack.file_name().unwrap().to_str().unwrap();
    assert!(output.stderr.contains("/big") && output.stderr.contains(id), "{}", output.stderr);
    let objects = output.objects();
    assert_eq!((objects[0]["type"].as_str(), objects.last().unwrap()["damaged"].as_u64()), (Some("error"), Some(1)));
    let mut names: Vec<_> = fs::read_dir(env.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["big.nfreezer-partial", "small"], "never a torso under its own name");
}

#[test]
fn a_source_that_cannot_be_read_exits_with_3_and_is_reported_again_by_restore() {
    if !needs_root("another user beside root") {
        return;
    }
    let env = Env::with_repository();
    env.write("source/open", "open");
    let closed = env.write("source/closed", "closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    for folder in [env.path("").parent().unwrap(), &env.path(""), &env.path("source"), &env.home()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut open = vec![env.path("repo")];
    while let Some(path) = open.pop() {
        std::os::unix::fs::lchown(&path, Some(65534), Some(65534)).unwrap();
        open.extend(fs::read_dir(&path).into_iter().flatten().map(|e| e.unwrap().path()));
    }
    let binary = env.path("nfreezer");
    copy_program(env!("CARGO_BIN_EXE_nfreezer"), &binary);
    let output = within_as(as_nobody(), &binary, &env.command(["push", "source"])).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("skipped") && stderr.contains("closed"), "{stderr}");
    let inside = format!("latest:{}", env.path("source").display());
    let output = env.nfreezer(["restore", &inside, "-t", "out"]).success();
    assert!(output.stderr.contains("was not readable when it was saved"), "{}", output.stderr);
    assert!(env.path("out/open").exists() && !env.path("out/closed").exists());
}

#[test]
fn a_signal_ends_a_restore_with_128_and_its_number() {
    let env = Env::with_repository();
    let same: Vec<u8> = (0..8u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for i in 0..60 {
        env.write(&format!("source/{i}"), &same);
    }
    env.nfreezer(["push", "source"]).done();
    for (signal, code) in [(rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143)] {
        let mut command = env.command(["restore", "latest", "-t", "out"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while !env.path("out").exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.contains("interrupted")), (Some(code), true), "{stderr}");
        fs::remove_dir_all(env.path("out")).unwrap();
    }
}

#[test]
fn a_real_server_is_trusted_only_when_told_so_and_serves_the_whole_path() {
    let sshd = crate::harness::sshd::Sshd::start();
    let mut env = Env::new();
    let address = format!("sftp://{}@127.0.0.1:{}/{}/repo", sshd.user, sshd.port, sshd.files().display());
    // The test has its own known hosts. `ssh` gets them by its configuration, because it ignores HOME.
    let known = env.path("known_hosts");
    let config = env.write("ssh_config", format!("UserKnownHostsFile {}\nIdentityAgent none\n", known.display()));
    let option = format!("ssh.config={}", config.display());
    env.set("NFREEZER_REPOSITORY", &address);
    let identity = sshd.identity();
    let ssh = |rest: &[&str]| {
        let common = ["-i", identity.to_str().unwrap(), "-o", &option];
        env.nfreezer(common.iter().chain(rest))
    };
    let output = ssh(&["init"]).exits(13);
    assert!(output.stderr.contains("SHA256:") && output.stderr.contains("--accept-new-host-key"), "{}", output.stderr);
    ssh(&["init", "--accept-new-host-key"]).done();
    env.write("source/file", "over the line");
    ssh(&["push", "source"]).done();
    let inside = format!("latest:{}", env.path("source").display());
    for transport in ["ssh2", "openssh"] {
        let output = ssh(&["restore", &inside, "-t", transport, "--transport", transport, "--json"]).success();
        assert!(output.objects().last().unwrap()["received"].as_u64().unwrap() > 1000);
        assert_eq!(fs::read(env.path(transport).join("file")).unwrap(), b"over the line");
    }
    let output = env.nfreezer(["-o", "nonsense=1", "snapshots"]).exits(2);
    assert!(output.stderr.contains("ssh.config="), "{}", output.stderr);
}

#[test]
fn a_missing_source_is_named_and_the_others_are_saved() {
    let env = Env::with_repository();
    env.write("source/file", "x");
    let output = env.nfreezer(["push", "source", "/no/such/source"]).exits(3);
    assert!(output.stderr.contains("/no/such/source") && output.stdout.contains("saved"), "{output:?}");
    let output = env.nfreezer(["push", "/no/such/source", "/nor/this"]).exits(1);
    assert!(output.stderr.contains("/no/such/source") && output.stderr.contains("/nor/this"), "{output:?}");
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("1 snapshot;"));
}

#[test]
fn latest_counts_only_snapshots_that_pass_the_filters() {
    let env = Env::with_repository();
    env.write("one/first", "x");
    env.write("two/second", "y");
    env.nfreezer(["push", "one", "--host", "a", "--tag", "t"]).done();
    env.nfreezer(["push", "two", "--host", "b"]).done();
    let one = env.path("one").display().to_string();
    for filter in [["--host", "a"], ["--tag", "t"], ["--path", &one]] {
        let output = env.nfreezer([&["ls", "-R"][..], &filter].concat()).success();
        assert!(output.stdout.contains("first") && !output.stdout.contains("second"), "{filter:?}: {output:?}");
        assert!(env.nfreezer([&["snapshots"][..], &filter].concat()).success().stdout.contains("1 snapshot;"));
    }
    env.nfreezer(["ls", "--host", "c"]).fails(1);
    let inside = format!("latest:{one}");
    env.nfreezer(["restore", &inside, "--host", "a", "--target", "out"]).done();
    env.nfreezer(["restore", "latest", &one, "--host", "a", "--target", "whole"]).done();
    assert!(env.path(format!("whole{one}/first")).exists(), "a path keeps its place below the target");
    let output = env.nfreezer(["restore", "latest", &one, "--target", "other"]).exits(1);
    assert!(output.stderr.contains(&format!("no {one} in snapshot")) && !env.path("other").exists(), "{output:?}");
    let output = env.nfreezer(["restore", &inside, "--target", "-"]).exits(2);
    assert!(output.stderr.contains("standard output"), "{output:?}");
}

#[test]
fn a_generated_passphrase_opens_however_it_is_typed() {
    let mut env = Env::new();
    env.unset("NFREEZER_PASSWORD");
    let made = env.nfreezer(["init", "-r", "new", "--generate-passphrase", "--json"]).success().objects();
    let printed = made.last().unwrap()["passphrase"].as_str().unwrap().to_owned();
    for typed in [printed.to_uppercase(), printed.replace('-', " "), printed.replace('-', "").replace('0', "o")] {
        env.set("NFREEZER_PASSWORD", &typed);
        env.nfreezer(["snapshots", "-r", "new"]).done();
    }
    env.set("NFREEZER_PASSWORD", &printed.replace('-', "x"));
    env.nfreezer(["snapshots", "-r", "new"]).fails(12);
}
