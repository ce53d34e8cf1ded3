//! The command line through the binary: exit codes, sources of the passphrase, JSON, what reaches a terminal.
#![allow(missing_docs)]

mod harness;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use harness::cli::{Env, PASSPHRASE};

fn with_repository() -> Env {
    let mut env = Env::new();
    let repo = env.path("repo");
    env.set("NFREEZER_REPOSITORY", repo.to_str().unwrap());
    env.nfreezer(["init"]).done();
    env
}

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
    for command in ["init", "push", "snapshots", "ls", "restore", "version"] {
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
    let mut env = with_repository();
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
    let output = env.nfreezer(["push", "source", "-r", "fresh", "/no/such/source"]).exits(1);
    assert!(output.stderr.contains("/no/such/source"), "{}", output.stderr);
}

#[test]
fn the_passphrase_comes_from_exactly_one_place() {
    let mut env = with_repository();
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
        let output = env.nfreezer(["snapshots", "-p", "pass"]).exits(2);
        assert!(output.stderr.contains(name) && output.stderr.contains("--password-file"), "{}", output.stderr);
        env.unset(name);
    }
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
    // On the command line there is no way.
    env.nfreezer(["snapshots", "--password", PASSPHRASE]).fails(2);
}

#[test]
fn the_repository_comes_from_an_option_a_file_or_the_environment() {
    let mut env = with_repository();
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
    let env = with_repository();
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
    let env = with_repository();
    let mut child = env.command(["snapshots"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn names_of_others_are_escaped_in_messages() {
    let env = with_repository();
    let output = env.nfreezer(["push", "no\u{1b}[2Jsuch\u{202e}source\n"]).exits(1);
    assert!(output.stderr.contains(r"no\x1b[2Jsuch\u{202e}source\n"), "{}", output.stderr);
    let output = env.nfreezer(["-r", "no\u{1b}[2J\u{202e}", "snapshots"]).exits(10);
    assert!(!output.stderr.contains(['\u{1b}', '\u{202e}']), "{}", output.stderr);
}
