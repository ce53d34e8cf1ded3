//! Commands notice a disk that is not mounted.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::cli::{Env, Output};
use crate::harness::process::within;
use crate::harness::root::needs_root;

/// Runs nfreezer in its own mount namespace, after a script for `sh` that may mount.
fn mounted(env: &Env, script: &str, arguments: &[&str]) -> Output {
    let mut outer = Command::new("unshare");
    let script = format!("set -e; {script}; exec setsid --wait \"$@\"");
    outer.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    Output::of(within(outer, &env.command(arguments)).stdin(Stdio::null()))
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn push_makes_the_repository_once() {
    let env = Env::new();
    env.write("tree/film.mp4", "x");
    env.write("tree/letter", "y");
    let push = || env.nfreezer(["push", "--init", "-r", "tree/backup", "tree", "-e", "*.mp4"]).exits(0).stdout;
    let first = push();
    assert!(first.contains("made repository") && first.contains("keep the passphrase safe"), "{first}");
    let second = push();
    assert!(!second.contains("made repository") && second.contains("1 unchanged"), "{second}");
    let listed = env.nfreezer(["ls", "-R", "-r", "tree/backup", "latest"]).exits(0).stdout;
    assert!(listed.contains("letter") && !listed.contains("film") && !listed.contains("packs"), "{listed}");
    env.nfreezer(["push", "--init", "-r", "other", "tree", "--dry-run"]).fails(10);
    assert!(!env.path("other").exists());
    let objects = env.nfreezer(["push", "--init", "-r", "other", "tree", "--json"]).exits(0).objects();
    assert!(objects.iter().any(|o| o["type"] == "made" && o["repository_id"].is_string()), "{objects:?}");
    env.nfreezer(["push", "--init", "-r", "third", "absent"]).fails(1);
    assert!(!env.path("third").exists(), "nothing is made without a source");
    env.write("full/file", "x");
    env.nfreezer(["push", "--init", "-r", "full", "tree"]).fails(1);
    let no_passphrase = Env::without_passphrase();
    no_passphrase.write("tree/a", "x");
    no_passphrase.nfreezer(["push", "--init", "-r", "repo", "tree"]).fails(2);
    assert!(!no_passphrase.path("repo").exists());
}

#[test]
fn a_repository_that_was_seen_before_and_is_absent_is_not_made_anew() {
    let env = Env::new();
    env.write("tree/a", "x");
    env.nfreezer(["push", "--init", "-r", "disk/repo", "tree"]).done();
    // The disk is no longer mounted: an empty folder is in its place.
    std::fs::rename(env.path("disk"), env.path("elsewhere")).unwrap();
    std::fs::create_dir(env.path("disk")).unwrap();
    for command in [&["push", "--init", "-r", "disk/repo", "tree"][..], &["init", "-r", "disk/repo"]] {
        let refused = env.nfreezer(command).exits(10).stderr;
        assert!(refused.contains("any more: this machine has seen one there"), "{refused}");
        assert!(refused.contains("nfreezer init --yes"), "{refused}");
    }
    assert!(is_empty(&env.path("disk")));
    env.nfreezer(["init", "--yes", "-r", "disk/repo"]).done();
    env.nfreezer(["push", "--init", "-r", "disk/repo", "tree"]).done();
}

#[test]
fn nothing_is_written_to_an_empty_mount_point() {
    if !needs_root("mounts") {
        return;
    }
    let env = Env::new();
    env.write("tree/a", "x");
    std::fs::create_dir(env.path("usb")).unwrap();
    let place = env.path("usb").canonicalize().unwrap();
    let fstab = env.write("fstab", format!("/dev/sdz1 {} ext4 noauto,nofail 0 2\n", place.display()));
    let named = format!("mount --bind {} /etc/fstab", fstab.display());
    let disk = format!("{named}; mount -t tmpfs tmpfs {}", place.display());
    let push = ["push", "--init", "-r", "usb/backup", "tree"];
    for command in [&push[..], &["init", "-r", "usb/backup"], &["init", "-r", "usb"]] {
        let refused = mounted(&env, &named, command).exits(10).stderr;
        assert!(
            refused.contains("/etc/fstab names the mount point") && refused.contains("not to be mounted"),
            "{refused}"
        );
    }
    for command in [&["push", "-r", "usb/backup", "tree"][..], &["snapshots", "-r", "usb/backup"]] {
        let refused = mounted(&env, &named, command).exits(10).stderr;
        let expected = format!("/etc/fstab names the mount point {}", place.display());
        assert!(refused.contains(&expected) && !refused.contains("no repository"), "{refused}");
    }
    assert!(is_empty(&place));
    let made = mounted(&env, &disk, &push).exits(0).stdout;
    assert!(made.contains("made repository") && is_empty(&place), "it went to the disk: {made}");
    mounted(&env, &named, &["init", "--yes", "-r", "usb/other"]).done();
}

#[test]
fn nothing_is_written_to_the_folder_of_removable_disks_itself() {
    if !needs_root("mounts") {
        return;
    }
    let env = Env::new();
    env.write("tree/a", "x");
    let run = "mount -t tmpfs tmpfs /run; mkdir -p /run/media/me/usb";
    let disk = format!("{run}; mount -t tmpfs tmpfs /run/media/me/usb");
    let push = ["push", "--init", "-r", "/run/media/me/usb/backup", "tree"];
    let refused = mounted(&env, run, &push).exits(10).stderr;
    assert!(refused.contains("no disk is mounted at it or above it"), "{refused}");
    mounted(&env, &disk, &push).done();
}
