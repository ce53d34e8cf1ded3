//! Shell completions and man pages, tried with the real shells and the real formatter.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::cli::Env;

#[test]
fn completions_and_man_pages_are_written() {
    let env = Env::new();
    env.nfreezer(["generate", "--bash-completion", "bash", "--zsh-completion", "zsh", "--fish-completion", "fish"])
        .done();
    env.nfreezer(["generate", "--man", "new/man"]).done();
    for (file, word) in [("bash", "complete"), ("zsh", "#compdef nfreezer"), ("fish", "complete -c nfreezer")] {
        assert!(fs::read_to_string(env.path(file)).expect("written").contains(word), "{file}");
    }
    let page = fs::read_to_string(env.path("new/man/nfreezer-push.1")).expect("written");
    assert!(page.contains("exclude"), "{page}");
    assert!(env.path("new/man/nfreezer-key-list.1").exists() && env.path("new/man/nfreezer.1").exists());
    assert!(!env.path("new/man/nfreezer-unlock.1").exists(), "hidden commands have no page");
}

#[test]
fn bash_completes_commands_and_options() {
    let env = Env::new();
    env.nfreezer(["generate", "--bash-completion", "bash"]).done();
    let completed = |words: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _nfreezer nfreezer \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            env.path("bash").display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).output().expect("bash runs");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(completed("nfreezer snap").trim(), "snapshots");
    assert_eq!(completed("nfreezer restore --over").trim(), "--overwrite");
}

/// Makes a repository whose latest snapshot holds a folder of unusual names.
fn with_snapshot() -> (Env, String) {
    let mut env = Env::with_repository();
    for name in ["letters/ann's note.txt", "letters/bob.txt", "lists/x", "tab\there"] {
        env.write(&format!("source/{name}"), "x");
    }
    let source = env.path("source");
    env.nfreezer(["push", "-q", "--host", "laptop", "--tag", "nightly", source.to_str().unwrap()]).done();
    env.set("PATH", "/usr/bin:/bin");
    (env, source.to_str().unwrap().to_owned())
}

fn complete(env: &Env, words: &[&str]) -> Vec<String> {
    let output = env.nfreezer(["complete", "--"].iter().chain(words)).exits(0);
    output.stdout.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn snapshots_paths_hosts_and_tags_are_completed() {
    let (env, source) = with_snapshot();
    let all = complete(&env, &["forget", ""]);
    assert!(all.len() == 2 && all[0] == "latest", "{all:?}");
    assert_eq!(complete(&env, &["forget", &all[1][..2]]), [all[1].clone()]);
    assert_eq!(complete(&env, &["restore", "la"]), ["latest:/"]);
    let top = format!("latest:{source}/");
    assert_eq!(complete(&env, &["ls", &format!("{top}l")]), [format!("{top}letters/"), format!("{top}lists/")]);
    assert_eq!(complete(&env, &["ls", &format!("{top}letters/b")]), [format!("{top}letters/bob.txt")]);
    assert_eq!(complete(&env, &["ls", &format!("{top}t")]), [format!("{top}tab\\there")]);
    assert_eq!(complete(&env, &["restore", &top, "letters/b"]), ["letters/bob.txt"]);
    assert_eq!(complete(&env, &["ls", "--host", ""]), ["laptop"]);
    assert_eq!(complete(&env, &["forget", "--tag", "n"]), ["nightly"]);
    assert!(complete(&env, &["ls", "latest:/nosuch/"]).is_empty());
    assert!(complete(&env, &["ls", "-r", "/nosuch", ""]).is_empty());
}

#[test]
fn a_completion_never_prompts_and_writes_nothing() {
    let (mut env, _) = with_snapshot();
    let state = env.home().join(".local/state/nfreezer");
    fs::remove_dir_all(&state).unwrap();
    assert_eq!(complete(&env, &["ls", ""]).len(), 2);
    assert!(!state.exists(), "heads are not remembered");
    env.unset("NFREEZER_PASSWORD");
    assert!(complete(&env, &["ls", ""]).is_empty(), "the passphrase would be typed");
    env.set("NFREEZER_PASSWORD_COMMAND", "sleep 60");
    let begun = Instant::now();
    let slow = env.nfreezer(["complete", "--", "ls", ""]);
    assert!(slow.stdout.is_empty() && slow.stderr.is_empty(), "{slow:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "a slow command is given up");
}

#[test]
fn bash_completes_values() {
    let (env, source) = with_snapshot();
    env.nfreezer(["generate", "--bash-completion", "bash"]).done();
    let completed = |line: &str| {
        let script = format!(
            "source {}; COMP_LINE='{line}' COMP_POINT={}; _nfreezer_values {} '' ''; echo \"${{COMPREPLY[@]}}\"",
            env.path("bash").display(),
            line.len(),
            env!("CARGO_BIN_EXE_nfreezer"),
        );
        let mut command = Command::new("bash");
        let prepared = env.command([""; 0]);
        command.args(["--norc", "-c", &script]).env_clear();
        command.envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().expect("bash runs");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    assert_eq!(completed("nfreezer restore late"), "latest:/");
    assert_eq!(completed(&format!("nfreezer restore latest:{source}/letters/")), {
        format!("{source}/letters/ann\\'s\\ note.txt {source}/letters/bob.txt")
    });
    assert_eq!(completed("nfreezer ls --host "), "laptop");
    assert_eq!(completed("nfreezer forget lat"), "latest");
}

#[test]
fn nothing_to_generate_is_an_error() {
    let env = Env::new();
    env.nfreezer(["generate"]).fails(2);
    let missing = env.nfreezer(["generate", "--bash-completion", "no/such/folder/file"]).exits(1);
    assert!(missing.stderr.contains("no/such/folder/file"), "{}", missing.stderr);
}
