//! Files in `log/` that are not records: any client with write access can make many of them.

use std::fs;

use crate::harness::cli::Env;

#[test]
fn junk_in_the_log_is_summed_up_by_every_command() {
    let env = Env::with_repository();
    env.write("tree/f", "contents");
    env.nfreezer(["push", "tree"]).done();
    for i in 0..2000u32 {
        fs::write(env.path(format!("repo/log/{i:08x}-{i:064x}")), "junk").unwrap();
    }
    let commands: [&[&str]; 6] = [
        &["snapshots"],
        &["ls", "latest:/"],
        &["push", "tree"],
        &["check"],
        &["repair", "-n"],
        &["restore", "latest", "--target", "out"],
    ];
    for command in commands {
        let output = env.nfreezer(command).exits(0);
        let lines = output.stderr.lines().filter(|line| line.contains("record")).collect::<Vec<_>>();
        assert_eq!(lines.len(), 1, "{command:?}: {}", output.stderr);
        assert!(lines[0].contains("2000 incomplete records are ignored: 00000000, 00000000, 00000000 and 1997 more"));
        assert!(lines[0].contains("`nfreezer check`"), "{}", lines[0]);
    }
    let verbose = env.nfreezer(["check", "-v"]).exits(0);
    assert_eq!(verbose.stderr.matches("warning: incomplete record").count(), 1000, "bounded");
}

#[test]
fn one_incomplete_record_is_a_short_warning_with_a_hint() {
    let env = Env::with_repository();
    fs::write(env.path(format!("repo/log/00000001-{}", "ab".repeat(32))), "").unwrap();
    let stderr = env.nfreezer(["snapshots"]).exits(0).stderr;
    let line = stderr.lines().find(|line| line.contains("incomplete")).unwrap();
    let expected = "nfreezer: warning: incomplete record abababab is ignored: it was cut off while it was written, \
                    or is being written; `nfreezer check` reports whether a snapshot is lost";
    assert_eq!(line, expected);
}
