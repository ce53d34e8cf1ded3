//! Odd values in files and variables, and outputs that take nothing.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::harness::cli::{Env, Output, PASSPHRASE};
use crate::harness::process::within;

/// Runs the binary with a redirection such as `>/dev/full`.
fn redirected(env: &Env, redirection: &str, arguments: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]);
    Output::of(&mut within(shell, &env.command(arguments)))
}

#[test]
fn a_generated_passphrase_that_cannot_be_printed_protects_nothing() {
    let env = Env::with_repository();
    for (redirection, code) in [(">/dev/full", 14), (">&-", 1), (">/dev/null", 1)] {
        for json in [&[][..], &["--json"]] {
            let init = [&["init", "-r", "new", "--generate-passphrase"], json].concat();
            redirected(&env, redirection, &init).fails(code);
            assert!(!env.path("new/config").exists(), "{redirection}");
            redirected(&env, redirection, &[&["key", "add", "--generate-passphrase"], json].concat()).fails(code);
        }
    }
    assert_eq!(std::fs::read_dir(env.path("repo/keys")).unwrap().count(), 1);
    let made = env.nfreezer(["init", "-r", "new", "--generate-passphrase", "--json"]).success().objects();
    let types: Vec<_> = made.iter().map(|object| object["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["passphrase", "summary"]);
    assert_eq!(made[0]["passphrase"], made[1]["passphrase"]);
}

#[test]
fn help_and_version_fail_if_they_cannot_be_written() {
    let env = Env::new();
    for arguments in [&["--help"][..], &["--version"], &["push", "-h"], &["help", "ls"]] {
        redirected(&env, ">/dev/full", arguments).fails(14);
        redirected(&env, "| true", arguments).fails(0);
    }
}

#[test]
fn a_file_in_the_place_of_a_repository_is_no_repository() {
    let env = Env::with_repository();
    let file = env.write("file", "x");
    for address in ["file".to_owned(), format!("{}/below", file.display())] {
        env.nfreezer(["snapshots", "-r", &address]).fails(10);
        env.nfreezer(["push", "-r", &address, "repo/config"]).fails(10);
        let made = env.nfreezer(["init", "-r", &address]).exits(1);
        assert!(!made.stderr.contains("no passphrase"), "{}", made.stderr);
    }
}

#[test]
fn an_unusual_passphrase_of_a_file_or_a_command_is_named() {
    let mut env = Env::with_repository();
    env.unset("NFREEZER_PASSWORD");
    for (text, word) in [
        (format!("\u{feff}{PASSPHRASE}\n"), "byte order mark"),
        (format!("{PASSPHRASE}\n\n"), "several lines"),
        (format!("{PASSPHRASE} \n"), "blank"),
        (format!("{PASSPHRASE}\r\n"), "CRLF"),
    ] {
        let file = env.write("pass", text);
        File::open(file).unwrap().set_permissions(Permissions::from_mode(0o600)).unwrap();
        for source in [["-p", "pass"], ["--password-command", "cat pass"]] {
            let output = env.nfreezer([&["snapshots"][..], &source].concat()).exits(12);
            assert!(output.stderr.contains(word), "{word}: {}", output.stderr);
        }
    }
    env.write("pass", format!("{PASSPHRASE}\n"));
    let output = env.nfreezer(["snapshots", "-p", "pass"]).success();
    assert!(!output.stderr.contains("part of the passphrase"), "{}", output.stderr);
}

#[test]
fn an_empty_variable_is_not_set_and_a_wrong_one_is_named() {
    let mut env = Env::with_repository();
    env.write("tree/a", "a");
    for name in ["HOST", "MEMORY", "CHECKPOINT", "COMPRESSION", "PAD", "CACHE", "LOCAL_KEY", "PASSWORD_FILE"] {
        env.set(&format!("NFREEZER_{name}"), "");
    }
    env.nfreezer(["push", "tree"]).done();
    let host = env.nfreezer(["snapshots", "--json"]).success().objects()[0]["host"].clone();
    assert_eq!(host, std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
    env.nfreezer(["push", "tree", "--host", ""]).fails(2);
    for name in ["MEMORY", "CHECKPOINT", "COMPRESSION", "PAD"] {
        let name = format!("NFREEZER_{name}");
        env.set(&name, "nonsense");
        let output = env.nfreezer(["push", "tree"]).exits(2);
        assert!(output.stderr.contains(&format!("variable {name}")), "{}", output.stderr);
        env.unset(&name);
    }
    let output = env.nfreezer(["push", "tree", "--memory", "nonsense"]).exits(2);
    assert!(!output.stderr.contains("variable"), "{}", output.stderr);
}
