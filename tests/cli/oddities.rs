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

/// Pushes with a redirection of standard input.
fn push_from(env: &Env, redirection: &str, arguments: &[&str]) -> Output {
    redirected(env, redirection, &[&["push"], arguments].concat())
}

#[test]
fn an_empty_standard_input_is_a_warning() {
    let env = Env::with_repository();
    env.write("one", "1");
    for arguments in [&["--stdin"][..], &["-"]] {
        let empty = push_from(&env, "</dev/null", arguments).success();
        let words = "warning: /stdin is an empty file: standard input is empty";
        assert_eq!(empty.stderr.matches(words).count(), 1, "{}", empty.stderr);
        assert!(push_from(&env, "<&-", arguments).success().stderr.contains(words));
        assert!(!push_from(&env, "<one", arguments).success().stderr.contains("empty file"));
    }
    let json = push_from(&env, "</dev/null", &["--stdin", "--json"]).success().objects();
    assert!(json.iter().any(|o| o["type"] == "warning"), "{json:?}");
    let command = env.nfreezer(["push", "--stdin-from-command", "--", "true"]).success();
    assert!(command.stderr.contains("/stdin is an empty file: the command wrote nothing"), "{}", command.stderr);
}

#[test]
fn standard_input_is_read_by_one_option_only() {
    let mut env = Env::with_repository();
    env.write("one", "1");
    env.write("list", "one\n");
    push_from(&env, "<list", &["one", "--exclude-file", "-"]).done();
    for (arguments, a, b) in [
        (&["--files-from", "-", "--files-from-raw", "-"][..], "--files-from -", "--files-from-raw -"),
        (&["--files-from", "-", "--files-from", "/dev/stdin"], "--files-from -", "--files-from /dev/stdin"),
        (&["--stdin", "--exclude-file", "-"], "--exclude-file -", "--stdin"),
        (&["one", "--exclude-file", "-", "--iexclude-file", "-"], "--exclude-file -", "--iexclude-file -"),
        (&["--stdin", "-p", "/dev/stdin"], "--stdin", "--password-file /dev/stdin"),
        (&["--stdin", "--local-key", "/dev/stdin"], "--stdin", "--local-key /dev/stdin"),
        (&["--stdin", "--key-file", "/dev/fd/0"], "--stdin", "the key file /dev/fd/0"),
    ] {
        let refused = push_from(&env, "<list", arguments).exits(2);
        let words = format!("{a} and {b} both read standard input");
        assert!(refused.stderr.contains(&words), "{arguments:?}: {}", refused.stderr);
    }
    // A command for the passphrase does not take the contents that are saved.
    env.unset("NFREEZER_PASSWORD");
    let command = format!("cat > taken; echo '{PASSPHRASE}'");
    push_from(&env, "<list", &["--stdin", "--password-command", &command]).done();
    assert_eq!(std::fs::read(env.path("taken")).unwrap(), b"");
    let dump = env.nfreezer(["dump", "latest:/stdin", "--password-command", &format!("echo '{PASSPHRASE}'")]);
    assert_eq!(dump.success().stdout, "one\n");
}

#[test]
fn lists_in_an_encoding_of_windows_are_refused_with_the_remedy() {
    let env = Env::with_repository();
    env.write("tree/a.tmp", "1");
    env.nfreezer(["push", "tree"]).done();
    let text: Vec<u8> = "\u{feff}*.tmp\r\n".encode_utf16().flat_map(|unit| [unit as u8, (unit >> 8) as u8]).collect();
    env.write("little", &text);
    env.write("big", text.chunks(2).flat_map(|unit| [unit[1], unit[0]]).collect::<Vec<_>>());
    for list in ["little", "big"] {
        for option in ["--exclude-file", "--iexclude-file", "--files-from", "--files-from-verbatim"] {
            let refused = env.nfreezer(["push", "tree", option, list]).exits(2);
            let words = format!("{option}: {list} is encoded in UTF-16");
            assert!(refused.stderr.contains(&words), "{}", refused.stderr);
            assert!(refused.stderr.contains("iconv -f UTF-16 -t UTF-8"), "{}", refused.stderr);
        }
        env.nfreezer(["restore", "latest", "--target", "out", "--include-file", list]).fails(2);
        env.nfreezer(["snapshots", "--repository-file", list]).fails(2);
    }
    env.write("tree/.nfreezerignore", text);
    let pushed = env.nfreezer(["push", "tree"]).exits(3);
    assert!(pushed.stderr.contains("it is encoded in UTF-16"), "{}", pushed.stderr);
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
