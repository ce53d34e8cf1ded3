//! The home folder that the program takes from the user's account, and prompts at the user's terminal.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::cli::{Env, Output, PASSPHRASE};
use crate::harness::process::{run, within, within_as};
use crate::harness::root::needs_root;

// ------------------------------------------------------------------------------------------------- local memory

/// Runs the program without HOME and XDG variables, as an account with this home folder. In its mount namespace, the
/// folder `varlib` of the environment is mounted on `/var/lib`.
fn without_home(env: &Env, uid: u32, home: &str, program: &Path, arguments: &[&str]) -> Output {
    let passwd = env.write("passwd", format!("tester:x:{uid}:{uid}::{home}:/bin/sh\n"));
    fs::create_dir_all(env.path("varlib")).unwrap();
    let script = "mount --bind \"$0\" /etc/passwd && mount --bind \"$1\" /var/lib && id=$2 && shift 2 && \
                  exec setpriv --reuid=\"$id\" --regid=\"$id\" --clear-groups \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["-m", "sh", "-c", script]).arg(passwd).arg(env.path("varlib")).arg(uid.to_string());
    let mut inner = env.command(arguments);
    for name in ["HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        inner.env_remove(name);
    }
    Output::of(&mut within_as(outer, program, &inner))
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| entries.count())
}

#[test]
fn without_home_and_xdg_variables_the_memory_is_in_the_home_of_the_account_or_below_var_lib() {
    if !needs_root("an account in a mount namespace") {
        return;
    }
    let env = Env::with_repository();
    let program = env.path("nfreezer");
    crate::harness::copy_program(env.command([] as [&str; 0]).get_program(), &program);
    let account = env.path("account");
    fs::create_dir(&account).unwrap();
    let said = without_home(&env, 0, account.to_str().unwrap(), &program, &["snapshots"]).success().stderr;
    assert!(said.contains("first use of this repository on this machine"), "{said}");
    assert!(files(&account.join(".local/state/nfreezer")) > 0);
    assert_eq!(files(&env.path("varlib")), 0);

    let said = without_home(&env, 0, "/nonexistent", &program, &["snapshots"]).success().stderr;
    assert!(said.contains("first use of this repository on this machine"), "{said}");
    assert!(files(&env.path("varlib/nfreezer")) > 0);
    let said = without_home(&env, 0, "/nonexistent", &program, &["snapshots"]).success().stderr;
    assert_eq!(said, "", "it is remembered");

    run("chmod", &["-R", "a+rX", env.path("repo").to_str().unwrap()]);
    let above = program.ancestors().skip(1).take_while(|above| *above != Path::new("/tmp") && *above != Path::new("/"));
    above.for_each(|above| drop(run("chmod", &["a+rx", above.to_str().unwrap()])));
    let said = without_home(&env, 65534, "/nonexistent", &program, &["snapshots"]).success().stderr;
    assert!(said.contains("no folder to remember the newest heads in"), "{said}");
    assert!(said.contains("set HOME or XDG_STATE_HOME"), "{said}");
}

// ------------------------------------------------------------------------------------------------- the terminal

/// Runs the program on its own terminal and types these lines, each at a prompt with the echo off. Returns the text
/// that the terminal showed.
fn at_terminal(env: &Env, arguments: &[&str], lines: &[&str]) -> Output {
    let script = "
import os, pty, sys, termios, time
lines, typed, shown = sys.argv[1].split(chr(10)), 0, b''
child, fd = pty.fork()
if child == 0: os.execv(sys.argv[2], sys.argv[2:])
while True:
    try: data = os.read(fd, 4096)
    except OSError: break
    if not data: break
    shown += data
    while typed < len(lines) and shown.count(b'passphrase of ') > typed:
        while termios.tcgetattr(fd)[3] & termios.ECHO: time.sleep(0.002)
        os.write(fd, lines[typed].encode() + b'\\n')
        typed += 1
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.buffer.write(shown)
sys.exit(code)
";
    let mut outer = Command::new("timeout");
    outer.args(["60", "python3", "-c", script]).arg(lines.join("\n"));
    Output::of(&mut within(outer, &env.command(arguments)))
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_wrong_passphrase_may_be_typed_again_twice() {
    let mut env = Env::with_repository();
    env.unset("NFREEZER_PASSWORD");
    let typed = at_terminal(&env, &["snapshots"], &["wrong one", "wrong two", PASSPHRASE]).success().stdout;
    assert_eq!((count(&typed, "passphrase of "), count(&typed, "try again")), (3, 2), "{typed}");
    assert!(!typed.contains("wrong one") && !typed.contains(PASSPHRASE), "nothing is echoed: {typed}");

    let typed = at_terminal(&env, &["snapshots"], &["1st", "2nd", "3rd", PASSPHRASE]).exits(12).stdout;
    assert_eq!((count(&typed, "passphrase of "), count(&typed, "try again")), (3, 2), "{typed}");
    at_terminal(&env, &["snapshots"], &[PASSPHRASE]).done();
}
