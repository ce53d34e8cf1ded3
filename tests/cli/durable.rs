//! Everything that the program reports as saved in a local folder is on the disk. Each object is synced, then its
//! folder, and only then does the record that names the object begin. `strace` shows the system calls.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::cli::Env;
use crate::harness::process::within;
use crate::harness::root::needs_root;
use crate::harness::tree::files_below;

/// The system calls of a run, in the order in which they ended.
struct Trace(Vec<String>);

impl Trace {
    fn of(env: &Env, arguments: &[&str]) -> Trace {
        let log = env.path("trace");
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-y",
            "-qq",
            "-s",
            "4096",
            "-e",
            "trace=openat,fsync,fdatasync,rename,renameat,renameat2",
            "-o",
        ]);
        strace.arg(&log);
        let output = within(strace, &env.command(arguments)).output().expect("strace is installed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let mut begun = HashMap::new();
        let text = fs::read_to_string(&log).unwrap();
        let lines = text.lines().map(|line| line.trim_start().split_once(' ').expect("a process and its call"));
        Trace(lines.filter_map(|(process, call)| whole(process, call.trim_start(), &mut begun)).collect())
    }

    /// Returns the position of the first call that satisfies a condition.
    fn first(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        self.0.iter().position(|call| is(call))
    }

    fn created(&self, path: &Path) -> usize {
        let end = format!("<{}>", path.display());
        let is = |call: &str| call.starts_with("openat(") && call.contains("O_CREAT") && call.ends_with(&end);
        self.first(is).unwrap_or_else(|| panic!("{} is not created", path.display()))
    }

    /// Returns the position of the first sync of a file or folder after a position.
    #[track_caller]
    fn synced(&self, path: &Path, after: usize) -> usize {
        let of = format!("<{}>)", path.display());
        let is = |call: &&String| {
            (call.starts_with("fsync(") || call.starts_with("fdatasync("))
                && call.contains(&of)
                && call.ends_with("= 0")
        };
        let at = self.0[after..].iter().position(|call| is(&call));
        after + at.unwrap_or_else(|| panic!("{} is not synced in time", path.display()))
    }

    /// Checks that an object is synced after it was made, and then its folder. Returns the position of the folder's
    /// sync.
    #[track_caller]
    fn stored(&self, path: &Path) -> usize {
        let synced = self.synced(path, self.created(path));
        self.synced(path.parent().unwrap(), synced)
    }
}

/// Joins the two halves of a call that another process interrupted. Returns `None` for the first half.
fn whole(process: &str, call: &str, begun: &mut HashMap<String, String>) -> Option<String> {
    if let Some(half) = call.strip_suffix(" <unfinished ...>") {
        begun.insert(process.to_owned(), half.to_owned());
        return None;
    }
    match call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
        Some((_, rest)) => Some(begun.remove(process)? + rest),
        None => Some(call.to_owned()),
    }
}

#[test]
fn objects_in_a_local_folder_and_the_remembered_heads_are_synced_before_they_count() {
    if !needs_root("tracing a process that lets no other one of its user look") {
        return;
    }
    let mut env = Env::new();
    let repo = env.path("repo");
    env.set("NFREEZER_REPOSITORY", repo.to_str().unwrap());
    let init = Trace::of(&env, &["init"]);
    let before = files_below(&repo);
    assert_eq!(before.len(), 2, "config and a key file: {before:?}");
    for path in &before {
        init.stored(path);
    }
    env.write("tree/a", "contents ".repeat(10_000));
    env.write("tree/b/c", "more");
    let push = Trace::of(&env, &["push", "tree"]);
    let new: Vec<PathBuf> = files_below(&repo).into_iter().filter(|path| !before.contains(path)).collect();
    let (records, packs): (Vec<_>, Vec<_>) = new.iter().partition(|path| path.starts_with(repo.join("log")));
    assert!(records.len() == 1 && packs.len() >= 2, "{new:?}");
    push.stored(records[0]);
    for pack in packs {
        assert!(push.stored(pack) < push.created(records[0]), "{} is stored before the record", pack.display());
    }
    let state = env.home().join(".local/state/nfreezer");
    let renamed = push.first(|call| call.starts_with("rename") && call.contains(state.to_str().unwrap()));
    let renamed = renamed.expect("the heads are remembered under a temporary name that is renamed");
    let from = push.0[renamed].split('"').nth(1).unwrap();
    assert!(push.synced(Path::new(from), 0) < renamed, "{}", push.0[renamed]);
}
