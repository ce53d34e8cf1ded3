//! The command line of `push --to`: two passphrases, the output for each repository, and exit codes.

use std::fs;

use crate::harness::cli::{Env, PASSPHRASE};

const OTHER: &str = "another passphrase";

/// Makes two empty repositories, `repo` and `second`, with their own passphrases, and a folder to save.
fn two_repositories() -> Env {
    let mut env = Env::with_repository();
    env.set("NFREEZER_PASSWORD", OTHER);
    env.nfreezer(["init", "-r", "second"]).done();
    env.set("NFREEZER_PASSWORD", PASSPHRASE);
    env.set("NFREEZER_TO_PASSWORD", OTHER);
    env.write("tree/file", "text");
    env
}

fn assert_second_has(env: &Env, text: &str) {
    let password = env.write("password", OTHER);
    let (password, out) = (password.to_str().unwrap(), format!("out {text}"));
    env.nfreezer(["restore", "latest", "-r", "second", "-p", password, "--target", &out]).done();
    let restored = env.path(&out).join(env.path("tree/file").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(restored).unwrap(), text);
}

#[test]
fn both_repositories_get_a_snapshot_and_each_is_reported() {
    let env = two_repositories();
    let done = env.nfreezer(["push", "tree", "--to", "second"]).exits(0);
    let repo = env.path("repo");
    for line in [format!("repository {}:", repo.display()), "repository second:".into()] {
        assert!(done.stdout.lines().any(|printed| printed == line), "{}", done.stdout);
    }
    assert_eq!(done.stdout.matches(" saved\n").count(), 2, "{}", done.stdout);
    assert_second_has(&env, "text");
    env.write("tree/file", "new text");
    let again = env.nfreezer(["push", "tree", "--to", "second", "--json"]).exits(0);
    let objects = again.objects();
    let pushed: Vec<_> = objects.iter().filter(|object| object["type"] == "push").collect();
    let repositories = pushed.iter().map(|object| object["repository"].as_str().unwrap());
    assert_eq!(repositories.collect::<Vec<_>>(), [repo.to_str().unwrap(), "second"]);
    assert!(pushed.iter().all(|object| object["changed"] == 1 && object["head"].is_string()), "{pushed:?}");
    let summary = objects.last().unwrap();
    assert_eq!((&summary["type"], summary["saved"].as_array().map(Vec::len)), (&"summary".into(), Some(2)));
    assert_second_has(&env, "new text");
}

#[test]
fn only_the_repositories_of_to_are_written_if_there_is_no_other() {
    let mut env = two_repositories();
    env.unset("NFREEZER_REPOSITORY");
    env.nfreezer(["push", "tree", "--to", "second"]).done();
    assert_second_has(&env, "text");
    // Without a passphrase of their own they have the usual one.
    env.unset("NFREEZER_TO_PASSWORD");
    env.set("NFREEZER_PASSWORD", OTHER);
    env.nfreezer(["init", "-r", "third"]).done();
    env.write("tree/file", "new text");
    env.nfreezer(["push", "tree", "--to", "second", "--to", "third"]).done();
    env.set("NFREEZER_PASSWORD", "of no repository");
    let password = env.write("password", OTHER);
    env.nfreezer(["push", "tree", "--to", "second", "--to", "third", "-p", password.to_str().unwrap()]).done();
    assert_second_has(&env, "new text");
}

#[test]
fn if_one_fails_the_other_is_complete_and_the_exit_code_is_3() {
    let env = two_repositories();
    fs::rename(env.path("repo/config"), env.path("config")).unwrap();
    let done = env.nfreezer(["push", "tree", "--to", "second"]).exits(3);
    let line = format!("nfreezer: error: {}: ", env.path("repo").display());
    assert!(done.stderr.lines().any(|printed| printed.starts_with(&line)), "{}", done.stderr);
    assert_second_has(&env, "text");
    let done = env.nfreezer(["push", "tree", "--to", "second", "--json"]).exits(3);
    let (objects, repo) = (done.objects(), env.path("repo"));
    assert!(objects.iter().any(|object| object["type"] == "error" && object["code"] == 10), "{objects:?}");
    let summary = objects.last().unwrap();
    assert_eq!(summary["failed"], serde_json::json!([repo]), "{summary}");
    assert_eq!(summary["saved"], serde_json::json!(["second"]), "{summary}");
    fs::remove_file(env.path("second/config")).unwrap();
    let done = env.nfreezer(["push", "tree", "--to", "second"]).exits(10);
    assert_eq!(done.stderr.matches("nfreezer: error: ").count(), 2, "{}", done.stderr);
}

#[test]
fn a_repository_is_named_once() {
    let mut env = two_repositories();
    std::os::unix::fs::symlink(env.path("repo"), env.path("link")).unwrap();
    env.set("NFREEZER_TO_PASSWORD", PASSPHRASE);
    let repo = env.path("repo").to_str().unwrap().to_owned();
    for to in [repo.as_str(), "link"] {
        let refused = env.nfreezer(["push", "tree", "--to", to]).exits(2);
        assert!(refused.stderr.contains("are the same repository"), "{}", refused.stderr);
    }
    let refused = env.nfreezer(["push", "tree", "--to", "second", "--memory", "150M"]).exits(2);
    assert!(refused.stderr.contains("--memory 208M"), "{}", refused.stderr);
    assert!(!env.nfreezer(["snapshots", "--json"]).exits(0).stdout.contains("short_id"));
}

/// Prints a passphrase after the commands of both repositories have started.
const MEET: &str = "touch $1; n=0; while [ ! -e $2 ]; do sleep 0.1; n=$((n + 1)); [ $n -lt 600 ] || exit 1; done; \
    printf %s \"$3\"";

#[test]
fn the_repositories_are_opened_at_the_same_time() {
    let mut env = two_repositories();
    env.unset("NFREEZER_PASSWORD");
    env.unset("NFREEZER_TO_PASSWORD");
    let script = env.write("meet.sh", MEET);
    let [first, second] = ["first", "second.open"].map(|name| env.path(name).display().to_string());
    let command = |own: &str, other: &str, text: &str| format!("sh {} {own} {other} '{text}'", script.display());
    env.set("NFREEZER_PASSWORD_COMMAND", &command(&first, &second, PASSPHRASE));
    env.set("NFREEZER_TO_PASSWORD_COMMAND", &command(&second, &first, OTHER));
    drop(env.nfreezer(["push", "tree", "--to", "second"]).exits(0));
    env.unset("NFREEZER_PASSWORD_COMMAND");
    env.unset("NFREEZER_TO_PASSWORD_COMMAND");
    assert_second_has(&env, "text");
}
