//! Limits of the process: threads, memory, the size of files. None of them is taken for a property of a file or a passphrase.

use std::process::Command;

use serde_json::Value;

use crate::harness::cli::{Env, Output};
use crate::harness::root::needs_root;

/// Runs the binary in a shell with a limit such as `-f 100`.
fn limited(env: &Env, limit: &str, arguments: &[&str]) -> Output {
    let command = env.command(arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
    Output::of(&mut crate::harness::process::within(shell, &command))
}

#[test]
fn a_thread_that_does_not_start_is_an_error_with_a_hint() {
    if !needs_root("another user, for the limit of processes") {
        return;
    }
    let env = Env::with_repository();
    let root = env.home().parent().unwrap().to_owned();
    assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(&root).status().unwrap().success());
    // An account without other processes. Three threads are needed to begin.
    let mut as_other = Command::new("prlimit");
    as_other.args(["--nproc=4", "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]);
    let command = env.command(["snapshots", "--json", "--no-memory"]);
    let output = Output::of(&mut crate::harness::process::within(as_other, &command)).exits(1);
    assert!(
        output.stderr.contains("cannot start a thread") && output.stderr.contains("ulimit -u"),
        "{}",
        output.stderr
    );
    let last: Value = serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((last["type"].as_str(), last["code"].as_u64()), (Some("error"), Some(1)), "{last}");
}

#[test]
fn a_passphrase_that_could_not_be_tried_is_not_wrong() {
    let env = Env::with_repository();
    // Enough for the program, and not for the 64 MiB of the key however few arenas the allocator has.
    let output = limited(&env, "-v 80000", &["snapshots"]).exits(1);
    assert!(output.stderr.contains("memory") && output.stderr.contains("hint: "), "{}", output.stderr);
    assert!(!output.stderr.contains("opens with"), "{}", output.stderr);
}

#[test]
fn a_file_above_the_size_limit_of_the_process_is_an_error_of_its_own() {
    let env = Env::with_repository();
    env.write("tree/large", vec![7; 300_000]);
    env.write("tree/small", "s");
    env.nfreezer(["push", "tree"]).done();
    let what = format!("latest:{}", env.path("tree").display());
    let output = limited(&env, "-f 100", &["restore", &what, "--target", "out"]).exits(1);
    assert!(output.stderr.contains("large: cannot write: File too large"), "{}", output.stderr);
    let names: Vec<_> = std::fs::read_dir(env.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["small"]);
    let output = limited(&env, "-f 10", &["push", "tree", "--force"]).exits(1);
    assert!(output.stderr.contains("File too large"), "{}", output.stderr);
    env.nfreezer(["check"]).done();
}
