//! F: restores that fail or are killed (T70e), and hostile text on a terminal (T70a). Hostile trees and targets are tested
//! in `tests/repository/restore/hostile.rs`.

use std::fs;
use std::path::Path;

use nfreezer::context::background;
use nfreezer::error::Kind;
use nfreezer::restore::{Options, restore};

use crate::harness::cli::Env;
use crate::harness::root::needs_root;
use crate::harness::sshd::run;
use crate::harness::tree::noise;
use crate::harness::writer::Writer;
use crate::oracle::case;
use crate::world::{init, item, told};

/// Checks that every file with its final name is complete. Returns the number of these files.
fn whole(out: &Path, contents: &[(String, Vec<u8>)]) -> usize {
    let there = contents.iter().filter(|(name, _)| out.join(name).exists());
    there.map(|(name, bytes)| assert!(fs::read(out.join(name)).unwrap() == *bytes, "{name} is a torso")).count()
}

struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Disk {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a small file system: it needs root");
        let dir = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "none", &dir.path().display().to_string()]);
        Disk(dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.0.path().display().to_string()]);
    }
}

#[test]
fn t70e_a_full_disk_leaves_no_torso_and_the_same_restore_goes_on_when_there_is_room() {
    if !needs_root("a small file system") {
        return;
    }
    case(|| {
        let (_, repo) = init();
        let contents: Vec<_> = (0..20).map(|i| (format!("f{i:02}"), noise(i, 200_000))).collect();
        let tree = item(&contents.iter().cloned().collect());
        let snapshot = Writer::new(&repo).commit(&mut Default::default(), &tree, |_| {});
        let disk = Disk::new("2m");
        let out = disk.0.path().join("out");
        let error = restore(background(), &repo, &snapshot, b"/", &out, &Options::default()).unwrap_err();
        told(&error);
        assert_eq!(error.kind(), Kind::NoSpace, "{error}");
        let some = whole(&out, &contents);
        assert!(some < 20);
        let names = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| !name.starts_with('f')).collect::<Vec<_>>(), [""; 0], "a torso was left behind");
        run("mount", &["-o", "remount,size=64m", &disk.0.path().display().to_string()]);
        let summary = restore(background(), &repo, &snapshot, b"/", &out, &Options::default()).unwrap();
        assert_eq!((whole(&out, &contents), summary.existing), (20, some as u64));
    });
}

#[test]
fn t70e_a_restore_that_is_killed_leaves_whole_files_and_the_same_one_completes_it() {
    case(|| {
        let env = Env::new();
        let contents: Vec<_> = (0..40).map(|i| (format!("f{i:02}"), noise(i, 1 << 20))).collect();
        contents.iter().for_each(|(name, bytes)| drop(env.write(&format!("source/{name}"), bytes)));
        for arguments in [&["-r", "repo", "init"][..], &["-r", "repo", "push", "source"]] {
            env.nfreezer(arguments).done();
        }
        let source = env.path("source").canonicalize().unwrap().display().to_string();
        let arguments = ["-r", "repo", "restore", &format!("latest:{source}"), "--target", "out"];
        let mut child = env.command(arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
        let out = env.path("out");
        // The kill happens between the first file and the last one, or soon after.
        while whole_names(&out) < 2 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        whole(&out, &contents);
        env.nfreezer(arguments).done();
        assert_eq!(whole(&out, &contents), 40);
    });
}

fn whole_names(out: &Path) -> usize {
    fs::read_dir(out)
        .into_iter()
        .flatten()
        .filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with('f')))
        .count()
}

#[test]
fn t70a_names_that_a_terminal_obeys_are_escaped_by_every_command_and_exact_on_the_disk() {
    case(|| {
        use std::os::unix::ffi::OsStrExt;
        let names: [&[u8]; 6] = [
            b"line\nbreak",
            b"\x1b[2J\x1b]0;owned\x07",
            "\u{202e}gpj.exe".as_bytes(),
            b"latin-\xe9",
            b"-rf",
            b"\r\x08",
        ];
        let env = Env::new();
        fs::create_dir(env.path("source")).unwrap();
        let named = |top: &str, name: &[u8]| env.path(top).join(std::ffi::OsStr::from_bytes(name));
        names.iter().for_each(|name| fs::write(named("source", name), name).unwrap());
        env.nfreezer(["-r", "repo", "init"]).done();
        let source = env.path("source").canonicalize().unwrap().display().to_string();
        let at = format!("latest:{source}");
        let runs: [&[&str]; 8] = [
            &["-r", "repo", "-v", "push", "source"],
            &["-r", "repo", "ls", &at],
            &["-r", "repo", "ls", "-l", &at],
            &["-r", "repo", "--json", "ls", &at],
            &["-r", "repo", "snapshots"],
            &["-r", "repo", "-v", "restore", &at, "--target", "out"],
            &["-r", "repo", "-v", "restore", &at, "--target", "out"],
            &["-r", "repo", "--json", "-v", "restore", &at, "--target", "out2"],
        ];
        for arguments in runs {
            let output = env.nfreezer(arguments);
            let said = [output.stdout.as_str(), output.stderr.as_str()].concat();
            assert_eq!(output.code, 0, "{arguments:?}: {said}");
            let harmless = |c: char| c == '\n' || !(c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
            assert!(said.chars().all(harmless), "{arguments:?}: {said:?}");
            if arguments.contains(&"--json") {
                output.stdout.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
            }
        }
        for name in names {
            assert_eq!(fs::read(named("out", name)).unwrap(), name);
        }
    });
}
