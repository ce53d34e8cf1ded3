//! Answers to commands that exist in restic, borg, rustic or kopia, but not here.

/// The answer to some commands of other tools.
struct Answer {
    commands: &'static [&'static str],
    message: &'static str,
    hint: &'static str,
}

const ANSWERS: &[Answer] = &[
    Answer {
        commands: &["compact", "gc", "purge", "clean", "cleanup", "vacuum", "maintenance"],
        message: "nfreezer calls this `prune`",
        hint: "`nfreezer prune -n` shows what it would delete, `nfreezer prune` does it",
    },
    Answer {
        commands: &["expire", "delete", "remove", "rm"],
        message: "the command that hides snapshots is `forget`",
        hint: "use `nfreezer forget ID`, or `nfreezer forget -n --keep-daily 7`",
    },
    Answer {
        commands: &["policy", "retention"],
        message: "the options of `forget` are the policy",
        hint: "use `nfreezer forget --keep-within 14d --keep-weekly 8 --prune`, for example once a day",
    },
    Answer {
        commands: &["pin", "unpin", "protect", "unprotect", "lock"],
        message: "the command that pins a snapshot is `tag`",
        hint: "use `nfreezer tag --pin SNAPSHOT`, or `nfreezer tag --unpin SNAPSHOT`",
    },
    Answer {
        commands: &["locate", "search"],
        message: "the command that searches snapshots is `find`",
        hint: "use `nfreezer find PATTERN`",
    },
    Answer {
        commands: &["cat", "print", "show", "export", "export-tar", "tar", "archive"],
        message: "the command that writes contents to standard output is `dump`",
        hint: "use `nfreezer dump SNAPSHOT:PATH`; `nfreezer key export` prints a key file",
    },
    Answer {
        commands: &["info", "repo-info", "repoinfo", "analyze"],
        message: "the command that shows sizes is `stats`",
        hint: "use `nfreezer stats`; folders: `nfreezer du`, `nfreezer diff --stat`, or `nfreezer ls --ncdu latest | ncdu -f -`",
    },
    Answer {
        commands: &["sync", "sync-to", "transfer", "replicate"],
        message: "the command that copies snapshots into another repository is `copy`",
        hint: "use `nfreezer copy --to REPO`",
    },
    Answer {
        commands: &["comment", "describe", "rename", "annotate"],
        message: "the command that changes a description is `rewrite`",
        hint: "use `nfreezer rewrite --description TEXT SNAPSHOT`, or `nfreezer tag --add TAG SNAPSHOT`",
    },
    Answer {
        commands: &["recreate", "amend"],
        message: "the command that removes files from snapshots is `rewrite`",
        hint: "use `nfreezer rewrite --all -n --exclude PATTERN`",
    },
    Answer {
        commands: &["cache"],
        message: "nfreezer has no command for its cache on disk, which is a plain folder",
        hint: "`nfreezer push --cache DIR` uses one; delete the folder to empty it",
    },
    Answer {
        commands: &["rebuild-index", "reindex", "recover", "fix"],
        message: "the command that repairs a repository is `repair`",
        hint: "use `nfreezer repair`, after `nfreezer check`",
    },
    Answer {
        commands: &["verify", "fsck", "scrub", "test"],
        message: "the command that verifies a repository is `check`",
        hint: "use `nfreezer check`",
    },
    Answer {
        commands: &["save", "add", "snapshot", "freeze", "put"],
        message: "the command that takes a snapshot is `push`",
        hint: "use `nfreezer push`; `nfreezer snapshots` lists snapshots, `nfreezer forget ID` hides one",
    },
    Answer {
        commands: &["get", "recall", "checkout", "unfreeze"],
        message: "the command that restores is `restore`",
        hint: "use `nfreezer restore`",
    },
    Answer {
        commands: &["passwd", "password", "change-passphrase", "key-change"],
        message: "the command that changes the passphrase is `key passwd`",
        hint: "use `nfreezer key passwd`",
    },
    Answer {
        commands: &["self-update", "upgrade", "update"],
        message: "nfreezer does not update itself",
        hint: "install the new version over the old one; `nfreezer version` shows the present one",
    },
    Answer {
        commands: &["completion", "completions", "man"],
        message: "the command that writes shell completions and man pages is `generate`",
        hint: "use `nfreezer generate --bash-completion FILE`, or `nfreezer generate --man DIR`",
    },
    Answer {
        commands: &["serve", "server", "web", "webdav", "ui"],
        message: "nfreezer has no server",
        hint: "`nfreezer mount DIR` shows the backup as a folder",
    },
    Answer {
        commands: &["migrate", "import"],
        message: "nfreezer imports only from the Python nFreezer",
        hint: "use `nfreezer import-v0 SRC`, or `nfreezer key import FILE`",
    },
    Answer {
        commands: &["break-lock", "locks"],
        message: "nfreezer has no locks",
        hint: "run the command that you want; nothing has to be unlocked",
    },
];

/// Returns the message and the hint for a command of another tool.
pub fn answer(command: &str) -> Option<(&'static str, &'static str)> {
    let answer = ANSWERS.iter().find(|answer| answer.commands.contains(&command))?;
    Some((answer.message, answer.hint))
}
