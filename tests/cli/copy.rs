//! The command line of `copy`: two passphrases, filters, output, and exit codes.

use std::fs;

use crate::harness::cli::Env;

const OTHER: &str = "another passphrase";

/// Makes a repository with three snapshots, and an empty one with another passphrase.
fn two_repositories() -> Env {
    let mut env = Env::with_repository();
    for (host, tag, text) in [("laptop", "home", "1"), ("server", "etc", "2"), ("laptop", "home", "3")] {
        env.write("tree/file", text);
        env.nfreezer(["push", "tree", "--host", host, "--tag", tag]).done();
    }
    env.set("NFREEZER_PASSWORD", OTHER);
    env.nfreezer(["init", "-r", "second"]).done();
    env.set("NFREEZER_PASSWORD", crate::harness::cli::PASSPHRASE);
    env
}

fn snapshots(env: &Env, repository: &str, password: &str) -> Vec<serde_json::Value> {
    let file = env.write("password-to-list", password);
    let file = file.to_str().unwrap().to_owned();
    let listed = env.nfreezer(["snapshots", "--json", "-r", repository, "-p", &file]).exits(0);
    listed.objects().into_iter().filter(|object| object["type"] == "snapshot").collect()
}

#[test]
fn all_snapshots_are_copied_once_and_the_passphrase_of_the_target_has_sources_of_its_own() {
    let mut env = two_repositories();
    let refused = env.nfreezer(["copy", "--to", "second"]).exits(2);
    assert!(refused.stderr.contains("--to-password-file"), "{}", refused.stderr);
    let wrong = env.write("wrong", "wrong");
    env.nfreezer(["copy", "--to", "second", "--to-password-file", wrong.to_str().unwrap()]).fails(12);
    env.set("NFREEZER_TO_PASSWORD", OTHER);
    let dry = env.nfreezer(["copy", "--to", "second", "-n"]).exits(0);
    assert!(dry.stdout.contains("3 snapshots would be copied, 0 there already"), "{}", dry.stdout);
    assert!(snapshots(&env, "second", OTHER).is_empty());
    let done = env.nfreezer(["copy", "--to", "second"]).exits(0);
    assert!(done.stdout.contains("3 snapshots copied, 0 there already"), "{}", done.stdout);
    let again = env.nfreezer(["copy", "--to", "second", "--json"]).exits(0);
    let summary = again.objects().pop().unwrap();
    assert_eq!((summary["existing"].as_u64(), summary["copied"].as_array().map(Vec::len)), (Some(3), Some(0)));
    let repo = env.path("repo").to_str().unwrap().to_owned();
    let (from, to) = (snapshots(&env, &repo, crate::harness::cli::PASSPHRASE), snapshots(&env, "second", OTHER));
    for (from, to) in from.iter().zip(&to) {
        for field in ["time", "host", "user", "paths", "tags", "description", "files", "bytes", "program"] {
            assert_eq!(from[field], to[field], "{field}");
        }
        assert_eq!((&to["copy_of"], &from["copy_of"]), (&from["id"], &serde_json::Value::Null));
    }
    let file = env.write("password", OTHER);
    env.nfreezer(["restore", "latest", "-r", "second", "-p", file.to_str().unwrap(), "--target", "out"]).done();
    let restored = env.path("out").join(env.path("tree/file").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(restored).unwrap(), "3");
}

#[test]
fn filters_restrict_what_is_copied_and_a_forgotten_copy_comes_back_only_by_its_id() {
    let mut env = two_repositories();
    env.set("NFREEZER_TO_PASSWORD_COMMAND", &format!("echo {OTHER}"));
    env.nfreezer(["copy", "--to", "second", "--host", "server"]).done();
    assert_eq!(snapshots(&env, "second", OTHER).len(), 1);
    env.nfreezer(["copy", "latest", "--to", "second", "--tag", "home"]).done();
    let copies = snapshots(&env, "second", OTHER);
    assert_eq!(copies.len(), 2);
    let (copy, original) = (copies[1]["id"].as_str().unwrap(), copies[1]["copy_of"].as_str().unwrap());
    let file = env.write("password", OTHER);
    env.nfreezer(["forget", copy, "--yes", "-r", "second", "-p", file.to_str().unwrap()]).done();
    env.nfreezer(["copy", "--to", "second"]).done();
    assert_eq!(snapshots(&env, "second", OTHER).len(), 2, "the other one of the laptop, not the forgotten one");
    env.nfreezer(["copy", original, "--to", "second"]).done();
    assert_eq!(snapshots(&env, "second", OTHER).len(), 3);
}

#[test]
fn a_repository_is_not_copied_into_itself() {
    let mut env = two_repositories();
    env.set("NFREEZER_TO_PASSWORD", crate::harness::cli::PASSPHRASE);
    let repo = env.path("repo");
    std::os::unix::fs::symlink(&repo, env.path("link")).unwrap();
    for to in [repo.to_str().unwrap(), "link"] {
        let refused = env.nfreezer(["copy", "--to", to]).exits(2);
        assert!(refused.stderr.contains("names the repository that is to be copied"), "{}", refused.stderr);
    }
}

#[test]
fn a_damaged_snapshot_is_reported_and_the_others_are_copied() {
    let mut env = two_repositories();
    env.set("NFREEZER_TO_PASSWORD", OTHER);
    let packs = || {
        let shards = fs::read_dir(env.path("repo/packs")).unwrap().map(|shard| shard.unwrap().path());
        let files = shards.flat_map(|shard| fs::read_dir(shard).unwrap().map(|file| file.unwrap().path()));
        files.collect::<std::collections::BTreeSet<_>>()
    };
    let before = packs();
    env.write("tree/broken", "4");
    env.nfreezer(["push", "tree"]).done();
    let new: Vec<_> = packs().difference(&before).cloned().collect();
    for pack in new {
        let mut bytes = fs::read(&pack).unwrap();
        bytes.iter_mut().skip(600).for_each(|byte| *byte ^= 1);
        // Objects are read-only; only root may write to them anyway.
        fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let done = env.nfreezer(["copy", "--to", "second", "--json"]).exits(4);
    let objects = done.objects();
    let error = objects.iter().find(|object| object["type"] == "error").unwrap();
    let summary = objects.last().unwrap();
    assert_eq!(summary["damaged"].as_array().unwrap(), &[error["snapshot"].clone()]);
    assert_eq!(summary["copied"].as_array().unwrap().len(), 3);
    assert_eq!(snapshots(&env, "second", OTHER).len(), 3);
}
