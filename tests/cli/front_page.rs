//! The commands of `README.md`, on a machine that has never seen nfreezer.

use std::process::Command;

use crate::harness::root::needs_root;

#[test]
fn the_commands_of_the_readme_work_line_by_line() {
    if !needs_root("a user and a server of its own in a copy of this machine") {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/front_page.sh");
    let output = Command::new(script).arg(env!("CARGO_BIN_EXE_nfreezer")).output().expect("the script runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("commands of README.md were run"), "{stdout}");
}
