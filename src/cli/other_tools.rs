//! Answers to commands that exist in restic, borg, rustic or kopia, but not here.

/// Returns the message and the hint for a command of another tool.
pub fn answer(command: &str) -> Option<(&'static str, &'static str)> {
    Some(match command {
        "compact" | "gc" | "purge" | "cleanup" | "vacuum" => {
            ("nfreezer calls this `prune`", "`nfreezer prune -n` shows what it would delete, `nfreezer prune` does it")
        }
        "expire" | "delete" | "remove" | "rm" => (
            "the command that hides snapshots is `forget`",
            "use `nfreezer forget ID`, or `nfreezer forget -n --keep-daily 7`",
        ),
        "diff" => (
            "nfreezer has no command `diff` yet",
            "`nfreezer mount DIR` shows all snapshots as folders below DIR/snapshots; compare two of them with `diff -r`",
        ),
        "find" | "locate" | "search" => (
            "nfreezer has no command `find` yet",
            "`nfreezer ls -R SNAPSHOT` lists all paths; `nfreezer mount DIR` shows old versions and deleted files of a path",
        ),
        "dump" | "cat" | "print" | "show" => (
            "nfreezer does not write contents to standard output",
            "use `nfreezer restore SNAPSHOT:PATH --target DIR`, or `nfreezer mount DIR` and `cat`",
        ),
        "export" | "export-tar" | "tar" | "archive" => (
            "nfreezer writes no archives",
            "use `nfreezer mount DIR` and `tar`; `nfreezer key export` prints a key file",
        ),
        "stats" | "du" | "info" | "repo-info" | "repoinfo" | "analyze" => (
            "nfreezer has no command for statistics yet",
            "`nfreezer snapshots` shows the size of each snapshot, `nfreezer check` that of the repository",
        ),
        "copy" | "sync" | "sync-to" | "transfer" | "replicate" => (
            "nfreezer does not copy snapshots between repositories yet",
            "use `nfreezer push` for each of the two repositories",
        ),
        "comment" | "describe" | "rename" | "annotate" => (
            "nfreezer changes only the tags of a snapshot",
            "use `nfreezer tag --add TAG SNAPSHOT`; `nfreezer push --description TEXT` describes a new snapshot",
        ),
        "recreate" | "amend" => (
            "the command that removes files from snapshots is `rewrite`",
            "use `nfreezer rewrite --all -n --exclude PATTERN`",
        ),
        "cache" => ("nfreezer has no cache on disk", "`nfreezer mount --cache-size SIZE` sets the cache in memory"),
        "rebuild-index" | "reindex" | "recover" | "fix" => {
            ("the command that mends a repository is `repair`", "use `nfreezer repair`, after `nfreezer check`")
        }
        "verify" | "fsck" | "scrub" | "test" => {
            ("the command that verifies a repository is `check`", "use `nfreezer check`")
        }
        "save" | "add" | "snapshot" | "freeze" | "put" => {
            ("the command that takes a snapshot is `push`", "use `nfreezer push`")
        }
        "get" | "recall" | "checkout" | "unfreeze" => {
            ("the command that restores is `restore`", "use `nfreezer restore`")
        }
        "passwd" | "password" | "change-passphrase" | "key-change" => {
            ("the command that changes the passphrase is `key passwd`", "use `nfreezer key passwd`")
        }
        "self-update" | "upgrade" | "update" => (
            "nfreezer does not update itself",
            "install the new version over the old one; `nfreezer version` shows the present one",
        ),
        "completion" | "completions" | "generate" | "man" => {
            ("nfreezer has no shell completions and no man pages yet", "`nfreezer COMMAND --help` explains all options")
        }
        "serve" | "server" | "web" | "webdav" | "ui" => {
            ("nfreezer has no server", "`nfreezer mount DIR` shows the backup as a folder")
        }
        "migrate" | "import" => (
            "nfreezer imports only from the Python nFreezer",
            "use `nfreezer import-v0 SRC`, or `nfreezer key import FILE`",
        ),
        "break-lock" | "locks" => {
            ("nfreezer has no locks", "nothing ever needs to be unlocked; run the command that you want")
        }
        _ => return None,
    })
}
