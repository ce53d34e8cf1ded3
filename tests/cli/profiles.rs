//! Profiles: the output of `profile`, and the profiles that it refuses.

use std::os::unix::fs::PermissionsExt;

use crate::harness::cli::Env;

/// Writes a profile into the user's folder of profiles.
pub fn write_profile(env: &Env, name: &str, text: &str) {
    let folder = env.home().join(".config/nfreezer");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
}

const FULL: &str = r#"
repository = "~/backups"
password-file = "~/pass word"

[push]
sources = ["~/documents", "/etc"]
exclude = ["*.tmp", "~/documents/cache/", "-x"]
exclude-caches = true
one-file-system = false
exclude-larger-than = "1.5G"
tag = ["nightly", "a,b"]

[forget]
keep-daily = 30
keep-within = "14d"

[prune]
every = "7d"
max-unused = "5%"

[check]
every = "30d"
read-data-subset = "2.5%"

[hooks]
before = "mount /mnt"
finally = ["umount /mnt", "date"]
"#;

#[test]
fn a_profile_is_shown_as_the_commands_of_a_run() {
    let env = Env::without_passphrase();
    write_profile(&env, "full", FULL);
    let home = env.home().display().to_string();
    let lines = [
        format!("profile full: {home}/.config/nfreezer/full.toml"),
        "before   mount /mnt".into(),
        format!(
            "push     nfreezer push --repo={home}/backups '--password-file={home}/pass word' '--exclude=*.tmp' \
             --exclude={home}/documents/cache/ --exclude=-x --exclude-caches --exclude-larger-than=1.5G --tag=nightly \
             --tag=a,b -- {home}/documents /etc"
        ),
        format!(
            "forget   nfreezer forget --repo={home}/backups '--password-file={home}/pass word' --keep-daily=30 \
             --keep-within=14d --host=HOST"
        ),
        format!(
            "prune    nfreezer prune --repo={home}/backups '--password-file={home}/pass word' --max-unused=5%   \
             # if the last one is 7 d old"
        ),
        format!(
            "check    nfreezer check --repo={home}/backups '--password-file={home}/pass word' \
             --read-data-subset=2.5%   # if the last one is 30 d old"
        ),
        "finally  umount /mnt".into(),
        "finally  date".into(),
    ];
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let shown = env.nfreezer(["profile", "show", "full"]).exits(0).stdout;
    assert_eq!(shown, lines.join("\n").replace("HOST", host.trim()) + "\n");
    let objects = env.nfreezer(["profile", "show", "full", "--json"]).exits(0).objects();
    assert_eq!(objects[2]["every"], 604_800);
    assert_eq!(objects[4]["hooks"]["finally"][1], "date");
}

#[test]
fn errors_of_a_profile_name_file_line_and_key() {
    let env = Env::without_passphrase();
    let file = env.home().join(".config/nfreezer/bad.toml");
    for (text, line, why, hint) in [
        ("[push]\nsources = [\"/a\"]\nexclud = \"x\"", 3, "exclud: unknown key", "long options of `nfreezer push`"),
        ("[push]\nexclude_caches = true", 2, "exclude_caches: unknown key", "write exclude-caches"),
        ("[push]\nsource = \"/a\"", 2, "source: unknown key", "write sources"),
        ("[push]\nexclude-caches = \"yes\"", 2, "exclude-caches: write true or false", ""),
        (
            "[push]\nsources = [\"/a\"]\n\nexclude-larger-than = \"big\"",
            4,
            "exclude-larger-than: invalid value 'big'",
            "",
        ),
        ("[push]\nsources = \"documents\"", 2, "sources: documents is a relative path", "begins with ~/"),
        ("[push]\nexclude-file = \"x\"", 2, "exclude-file: x is a relative path", ""),
        ("[push]\ndry-run = true", 2, "dry-run: unknown key", ""),
        ("[push]\nrepository = \"x\"", 2, "repository: all commands of a profile use one repository", ""),
        ("[push]\nforce = true\nparent = \"latest\"", 2, "force: ", ""),
        ("[forget]\nkeep-daily = 0", 2, "keep-daily: invalid value '0'", ""),
        ("[forget]\nkeep-daily = [1, 2]", 2, "keep-daily: write one value, not a list", ""),
        ("[forget]\nkeep-daily = true", 2, "keep-daily: write a string or a number", ""),
        ("[forget]\ntag = \"x\"", 1, "forget: no policy is given", "keep-daily"),
        ("[prune]\nevery = 7", 2, "every: write a time", ""),
        ("[prune]\nevery = \"soon\"", 2, "every: write a time such as", ""),
        ("[check]\nread-data = true\naudit = \"2M\"", 2, "read-data: the argument", ""),
        ("password = \"secret\"\n[push]\nsources = \"/a\"", 1, "password: unknown key", "password-command"),
        ("exclude = \"x\"\n[push]\nsources = \"/a\"", 1, "exclude: unknown key", "below [push]"),
        ("\nretry-for = \"often\"\n[push]\nsources = \"/a\"", 2, "retry-for: invalid value", ""),
        ("repository = \"backups\"\n[prune]", 1, "repository: backups is a relative path", ""),
        ("repository = \"s3:x\"\n[prune]", 1, "repository: s3: is an address of another kind", "rclone"),
        ("[backup]\nsources = \"/a\"", 1, "backup: unknown key", "[push]"),
        ("[hooks]\non-error = \"x\"", 2, "on-error: unknown key", "failed"),
        ("[hooks]\nbefore = 1", 2, "before: write a string", ""),
        ("push = 1", 1, "push: it is a table", ""),
        ("repository = \"/x\"", 1, "the profile does nothing", "[push]"),
        ("[[push]]\nsources = [\"/a\"]\n[[push]]\ntag = \"x\"", 3, "push: sources: no source is given", "sources ="),
        ("[push]\nsources = []", 2, "sources: the list is empty", "sources ="),
        ("[push]\nstdin-from-command = []", 2, "stdin-from-command: the list is empty", ""),
        (
            "[push]\nsources = [\"/a\"]\nstdin-from-command = \"x\"",
            3,
            "stdin-from-command: `sources` is given too",
            "[[push]]",
        ),
        ("[push]\nsources = [\"/a\"]\nexclude = [\"[\"]", 3, "exclude: --exclude: the pattern `[` is wrong", ""),
        ("[push]\nsources = [\"/a\"]\nexclude-if-present = \"a/b\"", 3, "exclude-if-present: ", ""),
        ("repository = \"/r\"\n[push]\nsources = [\"/a\"]\nto = \"/r\"", 4, "to: /r and /r are the same", ""),
        ("repository = \"/r\"\n[copy]\nto = \"/r\"", 3, "to: --to names the repository", ""),
        ("[copy]\ntag = \"x\"", 1, "copy: the following required arguments were not provided: --to", ""),
        ("[forget]\nkeep-tag = []", 1, "forget: no policy is given", ""),
        ("password-file = \"/a\"\npassword-command = \"b\"\n[prune]", 2, "password-command: the passphrase has", ""),
        ("password-file = \"/a\"\n[prune]\npassword-command = \"b\"", 3, "password-command: the passphrase has", ""),
        ("[push]\nsources = [\"/a\",\n", 2, "unclosed array", ""),
        ("[push]\nforce = true\nforce = true", 3, "duplicate key", ""),
    ] {
        write_profile(&env, "bad", text);
        let stderr = env.nfreezer(["profile", "check", "bad"]).exits(2).stderr;
        let wanted = format!("nfreezer: error: {}, line {line}: {why}", file.display());
        assert!(stderr.starts_with(&wanted) && stderr.contains(hint), "{text}\n{wanted}\n{stderr}");
        assert!(!stderr.contains("secret"), "{stderr}");
    }
    assert!(env.nfreezer(["profile", "list"]).exits(0).stdout.contains("has errors"));
    std::fs::write(&file, b"\xff\xfe[\0p\0").unwrap();
    let stderr = env.nfreezer(["profile", "check", "bad"]).exits(2).stderr;
    assert!(stderr.contains("bad.toml is encoded in UTF-16"), "{stderr}");
}

#[test]
fn profiles_are_found_listed_and_checked() {
    let env = Env::without_passphrase();
    assert!(env.nfreezer(["profile", "list"]).exits(0).stdout.starts_with("no profiles"));
    write_profile(&env, "home", "repository = \"me@nas:/b\"\n[push]\nsources = [\"/\", \"/no/such\"]\n");
    let listed = env.nfreezer(["profile", "list", "--json"]).exits(0).objects();
    assert_eq!((listed[0]["name"].as_str(), listed[0]["repository"].as_str()), (Some("home"), Some("me@nas:/b")));
    let checked = env.nfreezer(["profile", "check"]).exits(0);
    assert_eq!(checked.stdout, "profile home: no errors\n");
    assert!(checked.stderr.contains("no passphrase") && checked.stderr.contains("/no/such does not exist"));
    // A profile can also be named by its path.
    let path = env.home().join(".config/nfreezer/home.toml");
    env.nfreezer(["profile", "check", path.to_str().unwrap()]).done();
    let missing = env.nfreezer(["profile", "show", "nas"]).exits(2).stderr;
    assert!(missing.contains("there is no profile nas") && missing.contains("/etc/nfreezer/nas.toml"), "{missing}");
    // With these modes every user, or a group, may add a line that runs a command as this user.
    for mode in [0o666, 0o606, 0o660] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = env.nfreezer(["profile", "check", "home"]).exits(2).stderr;
        assert!(refused.contains("other users may change the profile") && refused.contains("chmod go-w"), "{refused}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    env.nfreezer(["profile", "check", "home"]).done();
}
