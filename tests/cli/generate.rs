//! Shell completions and man pages, tried with the real shells and the real formatter.

use std::fs;
use std::process::Command;

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

#[test]
fn nothing_to_generate_is_an_error() {
    let env = Env::new();
    env.nfreezer(["generate"]).fails(2);
    let missing = env.nfreezer(["generate", "--bash-completion", "no/such/folder/file"]).exits(1);
    assert!(missing.stderr.contains("no/such/folder/file"), "{}", missing.stderr);
}
