//! Push and restore with few descriptors: no file is lost because none is free.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags, mkdirat, open, openat};

use crate::harness::cli::{Env, Output};
use crate::harness::sshd::Sshd;

/// Number of folders, each with a small file.
const FOLDERS: usize = 1500;
/// Number of folders inside each other; their path is longer than the kernel accepts.
const LEVELS: usize = 600;
/// Shell command that runs a program with at most 128 descriptors.
const LIMIT: &str = "ulimit -n 128 && exec \"$0\" \"$@\"";

fn many_folders(top: &Path) {
    for i in 0..FOLDERS {
        let folder = top.join(i.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), i.to_string()).unwrap();
    }
    let mut here = open(top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for i in 0..LEVELS {
        here = enter(&here, &level(i), true);
        let flags = OFlags::CREATE | OFlags::WRONLY;
        File::from(openat(&here, "file", flags, Mode::RUSR).unwrap()).write_all(level(i).as_bytes()).unwrap();
    }
}

fn level(i: usize) -> String {
    format!("level-{i:04}")
}

fn enter(here: &OwnedFd, name: &str, make: bool) -> OwnedFd {
    if make {
        mkdirat(here, name, Mode::RWXU).unwrap();
    }
    openat(here, name, OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn assert_all_there(top: &Path) {
    for i in 0..FOLDERS {
        assert_eq!(fs::read_to_string(top.join(format!("{i}/file"))).unwrap(), i.to_string());
    }
    let mut here = open(top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for i in 0..LEVELS {
        here = enter(&here, &level(i), false);
        let file = File::from(openat(&here, "file", OFlags::RDONLY, Mode::empty()).unwrap());
        assert_eq!(std::io::read_to_string(file).unwrap(), level(i));
    }
}

/// Runs the program with at most 128 descriptors.
fn limited(env: &Env, arguments: &[&str], options: &[&str]) -> Output {
    let command = env.command(arguments.iter().chain(options));
    let mut shell = Command::new("sh");
    shell.args(["-c", LIMIT]).arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().unwrap());
    Output::of(&mut shell)
}

fn push_and_restore(env: &Env, options: &[&str]) {
    let top = env.path("top");
    many_folders(&top);
    let pushed = limited(env, &["push", "top"], options).success();
    assert!(pushed.stdout.contains(&format!("{} new", FOLDERS + LEVELS)), "{}", pushed.stdout);
    let from = format!("latest:{}", top.display());
    limited(env, &["restore", &from, "--target", "out"], options).done();
    assert_all_there(&env.path("out"));
    limited(env, &["push", "top"], options).done();
}

#[test]
fn many_folders_and_a_long_path_need_few_descriptors() {
    push_and_restore(&Env::with_repository(), &[]);
}

#[test]
fn many_folders_and_a_long_path_need_few_descriptors_by_sftp() {
    let sshd = Sshd::start();
    let mut env = Env::new();
    let config = format!("ssh.config={}", sshd.client_config(&env.home(), sshd.port).display());
    env.set("NFREEZER_REPOSITORY", &format!("sftp://server/{}/repo", sshd.files().display()));
    env.nfreezer(["init", "-o", &config]).done();
    push_and_restore(&env, &["-o", &config]);
}
