//! The main job through the binary, a real sshd and the real kernel: backups come back unchanged, and the server learns
//! nothing.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::cli::PASSPHRASE;
use crate::harness::process::hermetic;
use crate::harness::root::needs_root;
use crate::harness::sshd::{Setup, Sshd};
use crate::harness::tree::files_below;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_nfreezer");
/// The user id of clients that are not root.
const NOBODY: u32 = 65534;

/// A user of nfreezer with a home folder and a repository.
struct Client {
    home: TempDir,
    repository: String,
    uid: Option<u32>,
}

impl Client {
    /// Makes a client of a repository on this server, with this user id or as root.
    fn of(sshd: &Sshd, uid: Option<u32>) -> Client {
        let repository = sshd.files().join("repository").display().to_string();
        let client = Client::new(format!("server:{repository}"), uid);
        let at = |name: &str| client.home.path().join(name);
        fs::copy(sshd.identity(), at("id")).unwrap();
        fs::copy(sshd.known_hosts(), at("known_hosts")).unwrap();
        let config = format!(
            "Host server\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n UserKnownHostsFile {}\n",
            sshd.port,
            sshd.user,
            at("id").display(),
            at("known_hosts").display()
        );
        fs::write(at("ssh_config"), config).unwrap();
        for name in ["id", "known_hosts", "ssh_config"] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
            chown(at(name), uid, uid).unwrap();
        }
        client
    }

    fn new(repository: String, uid: Option<u32>) -> Client {
        let home = tempfile::Builder::new().prefix("nfreezer-client-").tempdir().unwrap();
        chown(home.path(), uid, uid).unwrap();
        Client { home, repository, uid }
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.home.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        chown(&folder, self.uid, self.uid).unwrap();
        folder
    }

    /// Returns a command that runs a program as this client, in a hermetic environment.
    fn command(&self, program: &str) -> Command {
        let mut command = match self.uid {
            None => Command::new(program),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups", program]);
                command
            }
        };
        hermetic(&mut command, self.home.path()).env("NFREEZER_PASSWORD", PASSPHRASE);
        command.env("NFREEZER_REPOSITORY", &self.repository);
        command
    }

    fn command_nfreezer(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(BINARY);
        let config = self.home.path().join("ssh_config");
        if config.exists() {
            command.arg("-o").arg(format!("ssh.config={}", config.display()));
        }
        command.args(arguments);
        command
    }

    fn nfreezer(&self, arguments: &[&str]) -> Output {
        self.command_nfreezer(arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.nfreezer(arguments);
        assert!(output.status.success(), "nfreezer {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a push that must end with this code. Returns its summary as JSON.
    fn push(&self, sources: &[&str], code: Option<i32>) -> serde_json::Value {
        let output = self.nfreezer(&[&["push", "--json"], sources].concat());
        assert_eq!(output.status.code(), code, "push {sources:?}: {}", text(&output));
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        serde_json::from_str(&last).unwrap()
    }

    fn mount(&self, extra: &[&str]) -> Mounted<'_> {
        let folder = self.folder("mnt");
        self.ok(&[&["mount", folder.to_str().unwrap()], extra].concat());
        Mounted { client: self, folder }
    }
}

struct Mounted<'a> {
    client: &'a Client,
    folder: PathBuf,
}

impl Mounted<'_> {
    fn latest(&self, path: &Path) -> PathBuf {
        self.folder.join("latest").join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let output = self.client.nfreezer(&["umount", self.folder.to_str().unwrap()]);
        if !std::thread::panicking() {
            assert!(output.status.success(), "{}", text(&output));
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(self.folder.to_str().unwrap()), "still mounted");
        }
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Returns the changes that rsync would make to turn `to` into a copy of `from`.
fn difference(client: &Client, from: &Path, to: &Path, without: &[&Path]) -> String {
    let mut rsync = client.command("rsync");
    rsync.args(without.iter().map(|path| format!("--exclude=/{}", path.display())));
    rsync.args(["-naHAX", "--delete", "--checksum", "--itemize-changes"]);
    let output = rsync.arg(format!("{}/", from.display())).arg(format!("{}/", to.display())).output().unwrap();
    text(&output).trim().strip_prefix("exit status: 0").map_or_else(|| text(&output), |rest| rest.trim().to_owned())
}

fn python_folders() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|p| p.is_dir() && p.file_name().unwrap().to_string_lossy().starts_with("python3")).collect()
}

/// Copies the first 6000 files and links of a system folder, with all their attributes, because the folder itself may
/// change at any time. Files that vanish meanwhile are left out.
fn copy_part(from: &Path, to: &Path) -> PathBuf {
    let script = r#"
        cd / && find "$1" \( -type f -o -type l \) -print0 2>/dev/null | LC_ALL=C sort -z | head -zn 6000 |
            tar -c --xattrs --acls --null -T - --ignore-failed-read 2>/dev/null | tar -x --xattrs --acls -C "$2""#;
    let below = from.strip_prefix("/").unwrap();
    let status = Command::new("bash").args(["-c", script, "-"]).args([below, to]).status().unwrap();
    assert!(status.success());
    to.join(below)
}

/// Returns the paths below these folders that this client cannot read.
fn unreadable(client: &Client, sources: &[&str]) -> Vec<PathBuf> {
    let mut find = client.command("find");
    find.args(sources).args(["(", "-type", "d", "-o", "-type", "f", ")", "!", "-readable", "-prune", "-print"]);
    let output = find.output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

fn whole_way(uid: Option<u32>) {
    let sshd = Sshd::start();
    let client = Client::of(&sshd, uid);
    let copy = client.folder("system");
    let sources: Vec<PathBuf> = [PathBuf::from("/usr/share")].into_iter().chain(python_folders()).collect();
    let sources: Vec<PathBuf> = sources.iter().map(|from| copy_part(from, &copy)).collect();
    let sources: Vec<&str> = sources.iter().map(|p| p.to_str().unwrap()).collect();
    let unreadable = unreadable(&client, &sources);
    assert!(uid.is_some() || unreadable.is_empty());
    let code = Some(if unreadable.is_empty() { 0 } else { 3 });
    client.ok(&["init"]);
    let first = client.push(&sources, code);
    assert!(first["new"].as_u64().unwrap() > 1000, "{first}");
    assert_eq!(first["skipped"], unreadable.len(), "{first}");

    let mounted = client.mount(&["--owner", "keep"]);
    for source in &sources {
        let source = Path::new(source);
        let without: Vec<_> = unreadable.iter().filter_map(|path| path.strip_prefix(source).ok()).collect();
        assert_eq!(difference(&client, &mounted.latest(source), source, &without), "", "the mount, {source:?}");
        // Only root can give files away, so only root gets back the owners of the system's files.
        if uid.is_none() {
            let target = client.folder("restored").join(source.file_name().unwrap());
            let what = format!("latest:{}", source.display());
            client.ok(&["restore", &what, "--target", target.to_str().unwrap()]);
            assert_eq!(difference(&client, &target, source, &[]), "", "the restore, {source:?}");
            fs::remove_dir_all(target).unwrap();
        }
    }
    drop(mounted);

    let again = client.push(&sources, code);
    assert_eq!(again["packs"], 0, "{again}");
    assert!(again["sent"].as_u64().unwrap() < 20_000, "{again}");
}

#[test]
fn usr_share_and_python_come_back_to_root() {
    whole_way(None);
}

#[test]
fn usr_share_and_python_come_back_to_an_ordinary_user() {
    if !needs_root("another user beside root") {
        return;
    }
    whole_way(Some(NOBODY));
}

/// Makes a small tree of the client's own.
fn small_tree(client: &Client) -> PathBuf {
    let tree = client.folder("tree");
    for (name, size) in [("letters/to-alice.txt", 300), ("letters/to-bob.txt", 70_000), ("photos/image.raw", 3_000_000)]
    {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let words = b"a secret sentence that must never be seen on the server. ".iter().cycle();
        let noise = (0u64..).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8);
        let plain = words.copied().take(size).collect::<Vec<_>>();
        fs::write(&path, if size > 1_000_000 { noise.take(size).collect() } else { plain }).unwrap();
        chown(&path, client.uid, client.uid).unwrap();
        chown(path.parent().unwrap(), client.uid, client.uid).unwrap();
    }
    tree
}

#[test]
fn an_ordinary_user_gets_own_files_back_from_mount_and_restore() {
    if !needs_root("another user beside root") {
        return;
    }
    let sshd = Sshd::start();
    let client = Client::of(&sshd, Some(NOBODY));
    let tree = small_tree(&client);
    client.ok(&["init"]);
    client.push(&[tree.to_str().unwrap()], Some(0));
    let mounted = client.mount(&[]);
    assert_eq!(difference(&client, &mounted.latest(&tree), &tree, &[]), "");
    let target = client.folder("restored");
    client.ok(&["restore", &format!("latest:{}", tree.display()), "--target", target.to_str().unwrap()]);
    assert_eq!(difference(&client, &target, &tree, &[]), "");
}

#[test]
fn every_kind_of_file_comes_back_by_cp() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd, None);
    let tree = client.folder("nasty");
    crate::harness::tree::nasty(&tree);
    // A directory of several pages.
    let many = tree.join("many");
    fs::create_dir(&many).unwrap();
    (0..20_000).for_each(|i| drop(fs::File::create(many.join(format!("entry {i}"))).unwrap()));
    client.ok(&["init"]);
    client.push(&[tree.to_str().unwrap()], Some(0));
    let mounted = client.mount(&[]);
    assert_eq!(difference(&client, &mounted.latest(&tree), &tree, &[]), "", "the mount");
    let copy = client.home.path().join("copy");
    let cp = client.command("cp").arg("-a").arg(mounted.latest(&tree)).arg(&copy).output().unwrap();
    assert!(cp.status.success(), "{}", text(&cp));
    assert_eq!(difference(&client, &copy, &tree, &[]), "", "cp -a");
    let target = client.home.path().join("restored");
    client.ok(&["restore", &format!("latest:{}", tree.display()), "--target", target.to_str().unwrap()]);
    assert_eq!(difference(&client, &target, &tree, &[]), "", "the restore");
}

#[test]
fn the_server_sees_no_name_no_content_and_few_sizes() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd, None);
    let tree = small_tree(&client);
    client.ok(&["init"]);
    // Sets attributes of each kind: a time, an owner with a name, an extended attribute, the target of a link.
    let letter = tree.join("letters/to-bob.txt");
    crate::harness::tree::set_mtime(&letter, 1_234_567_890, 0);
    let attribute =
        rustix::fs::setxattr(&letter, c"user.telltale-name", b"telltale-value", rustix::fs::XattrFlags::empty());
    attribute.unwrap();
    std::os::unix::fs::symlink("telltale-target", tree.join("link")).unwrap();
    client.push(&[tree.to_str().unwrap(), "--tag", "telltale-tag", "--description", "telltale-description"], Some(0));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let user = rustix::fs::stat(&letter).unwrap().st_uid;
    let user = nix::unistd::User::from_uid(user.into()).unwrap().map_or("no name".into(), |user| user.name);
    let words = ["letters", "alice", "image.raw", "secret sentence", "telltale", "photos", "nfreezer 0", &user];
    // The time is searched for as a number and as the format encodes it. Shorter words occur in sealed bytes by chance.
    let mtime: &[&[u8]] = &[&1_234_567_890u64.to_be_bytes(), b"\xa4\x8b\xb0\x99\x09"];
    for file in files_below(&sshd.files().join("repository")) {
        let bytes = fs::read(&file).unwrap();
        for word in words.iter().chain([&host.trim()]).filter(|word| word.len() > 4) {
            assert!(!bytes.windows(word.len()).any(|w| w == word.as_bytes()), "{word:?} in {file:?}");
        }
        assert!(!mtime.iter().any(|time| bytes.windows(time.len()).any(|w| w == *time)), "the time in {file:?}");
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name == "config" || name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "{name}");
        let plain = nfreezer::crypto::seal::plain_len(bytes.len() as u64);
        let class = |len: u64| len.is_power_of_two() || len.is_multiple_of(len.next_power_of_two() / 8);
        assert!([44, 264].contains(&bytes.len()) || plain.is_some_and(class), "{file:?} has {} bytes", bytes.len());
        let is_record = file.parent().unwrap().ends_with("log");
        assert!(!is_record || plain.unwrap().is_power_of_two(), "{file:?} has {} bytes", bytes.len());
    }
}

#[test]
fn a_renamed_top_folder_sends_no_content() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd, None);
    let tree = small_tree(&client);
    client.ok(&["init"]);
    client.push(&[tree.to_str().unwrap()], Some(0));
    let moved = client.home.path().join("moved");
    fs::rename(&tree, &moved).unwrap();
    let summary = client.push(&[moved.to_str().unwrap()], Some(0));
    assert_eq!((summary["read"].as_u64(), summary["renamed"].as_u64()), (Some(0), Some(3)), "{summary}");
    assert!(summary["added"].as_u64().unwrap() < 10_000, "only directories are new: {summary}");
    assert!(summary["sent"].as_u64().unwrap() < 200_000, "{summary}");
    let mounted = client.mount(&[]);
    assert_eq!(difference(&client, &mounted.latest(&moved), &moved, &[]), "");
}

#[test]
fn a_push_that_gets_ctrl_c_goes_on_inside_the_file() {
    const SIZE: u64 = 200 << 20;
    let sshd = Sshd::start();
    let client = Client::of(&sshd, None);
    client.ok(&["init"]);
    let folder = client.folder("large");
    let words = (0..SIZE / 8).scan(0x9e37_79b9_7f4a_7c15u64, |x, _| {
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        Some(x.to_be_bytes())
    });
    fs::write(folder.join("file"), words.flatten().collect::<Vec<u8>>()).unwrap();
    crate::harness::tree::settle();
    // With little memory, the push reads only a few packs ahead, and with the limit the rest takes seconds: it has not read
    // everything when the signal reaches it.
    let limits = ["--memory", "104M", "--limit-upload", "32M"];
    let mut push = client.command_nfreezer(&[&["push"], &limits[..], &[folder.to_str().unwrap()]].concat());
    let mut push = push.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let packs = || {
        let shards = fs::read_dir(sshd.files().join("repository/packs")).unwrap();
        let all = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
        all.filter(|pack| pack.as_ref().unwrap().metadata().is_ok_and(|meta| meta.len() > 16 << 20)).count()
    };
    while packs() < 3 {
        assert!(push.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&push), rustix::process::Signal::INT).unwrap();
    let output = push.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(text(&output).contains("run the same push again"), "{}", text(&output));
    let snapshots = client.ok(&["snapshots", "--json"]);
    assert_eq!(snapshots.matches(r#""partial":true"#).count(), 1, "{snapshots}");
    let summary = client.push(&[folder.to_str().unwrap()], Some(0));
    let [read, sent] = ["read", "sent"].map(|name| summary[name].as_u64().unwrap());
    assert!(read < SIZE - (32 << 20) && sent < SIZE - (32 << 20), "{summary}");
    let snapshots = client.ok(&["snapshots", "--json"]);
    assert_eq!(snapshots.matches(r#""partial":true"#).count(), 0, "{snapshots}");
    let mounted = client.mount(&[]);
    assert_eq!(difference(&client, &mounted.latest(&folder), &folder, &[]), "");
}

#[test]
fn a_push_killed_at_any_moment_loses_nothing() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd, None);
    let tree = small_tree(&client);
    client.ok(&["init"]);
    client.push(&[tree.to_str().unwrap()], Some(0));
    let before = client.ok(&["ls", "latest", "-R"]);
    let more = client.folder("more");
    for i in 0..400u32 {
        let noise = (0u32..).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(i * 7919) >> 13) as u8);
        fs::write(more.join(format!("{i}")), noise.take(100_000).collect::<Vec<_>>()).unwrap();
    }
    for round in 0..12 {
        let mut push = client.command_nfreezer(&["push", "-q", more.to_str().unwrap()]);
        let mut push = push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The kills happen between the start of a push and about the end of a whole push.
        let until = Instant::now() + Duration::from_millis(60 * round + 100);
        while Instant::now() < until && push.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = push.kill();
        push.wait().unwrap();
        let snapshots = client.ok(&["snapshots", "--json"]);
        for line in snapshots.lines().filter(|line| line.contains(r#""type":"snapshot""#)) {
            let snapshot: serde_json::Value = serde_json::from_str(line).unwrap();
            let files = snapshot["stats"]["files"].as_u64().or(snapshot["files"].as_u64());
            assert!(snapshot["partial"] == true || [Some(3), Some(400)].contains(&files), "half a snapshot: {line}");
        }
    }
    client.push(&[more.to_str().unwrap()], Some(0));
    let mounted = client.mount(&[]);
    assert_eq!(difference(&client, &mounted.latest(&more), &more, &[]), "");
    drop(mounted);
    let snapshots = client.ok(&["snapshots", "--json"]);
    // A warning may come first: a kill can leave a record that is cut off.
    let first = snapshots.lines().find(|line| line.contains(r#""type":"snapshot""#)).unwrap();
    let first: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!(client.ok(&["ls", first["id"].as_str().unwrap(), "-R"]), before);
}

#[test]
fn one_flipped_byte_in_any_pack_costs_only_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new(folder.path().join("repository").display().to_string(), None);
    let tree = small_tree(&client);
    client.ok(&["init"]);
    client.push(&[tree.to_str().unwrap()], Some(0));
    // A second push stores the photo in its own packs, so that a pack without the letters exists.
    let photo = tree.join("photos/second.raw");
    fs::write(
        &photo,
        (0u64..2_000_000).map(|i| (i.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    client.push(&[tree.to_str().unwrap()], Some(0));
    for pack in files_below(&folder.path().join("repository/packs")) {
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(&pack).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 40).unwrap(); // in the commitment: the whole object is lost
        file.write_all_at(&[byte[0] ^ 1], 40).unwrap();
        let id = pack.file_name().unwrap().to_str().unwrap();

        let target = client.folder("restored");
        let what = format!("latest:{}", tree.display());
        let restore = client.nfreezer(&["restore", &what, "--target", target.to_str().unwrap()]);
        assert_eq!(restore.status.code(), Some(4), "{}", text(&restore));
        assert!(text(&restore).contains(id), "the message names {id}: {}", text(&restore));
        let mut back = 0;
        for restored in files_below(&target) {
            let original = tree.join(restored.strip_prefix(&target).unwrap());
            assert_eq!(fs::read(&restored).unwrap(), fs::read(original).unwrap(), "{restored:?}");
            back += 1;
        }
        fs::remove_dir_all(&target).unwrap();

        let mounted = client.mount(&[]);
        let mut readable = 0;
        for name in ["letters/to-alice.txt", "letters/to-bob.txt", "photos/image.raw", "photos/second.raw"] {
            match fs::read(mounted.latest(&tree).join(name)) {
                Ok(bytes) => {
                    assert_eq!(bytes, fs::read(tree.join(name)).unwrap());
                    readable += 1;
                }
                Err(e) => assert_eq!(e.raw_os_error(), Some(5), "EIO for {name}, not {e}"),
            }
        }
        assert_eq!(readable, back, "mount and restore agree");
        assert!(readable < 4, "the damage was seen");
        drop(mounted);
        file.write_all_at(&byte, 40).unwrap();
    }
    let target = client.folder("restored");
    client.ok(&["restore", &format!("latest:{}", tree.display()), "--target", target.to_str().unwrap()]);
    assert_eq!(difference(&client, &target, &tree, &[]), "");
}

#[test]
fn through_an_append_only_key_everything_works_and_nothing_can_be_altered() {
    if !needs_root("another user beside root") {
        return;
    }
    let full = Sshd::with(Setup { account: Some("unused"), ..Setup::default() });
    let client = Client::of(&full, None);
    client.ok(&["init"]);
    // From here on the same server accepts the key only with the line of the README in front of it.
    let key = fs::read_to_string(full.authorized_keys()).unwrap();
    fs::write(full.authorized_keys(), format!("{}{key}", crate::harness::sshd::APPEND_ONLY)).unwrap();
    let tree = small_tree(&client);
    client.push(&[tree.to_str().unwrap()], Some(0));
    fs::write(tree.join("new"), "more").unwrap();
    client.push(&[tree.to_str().unwrap()], Some(0));
    let mounted = client.mount(&[]);
    assert_eq!(difference(&client, &mounted.latest(&tree), &tree, &[]), "");
    drop(mounted);
    let target = client.folder("restored");
    client.ok(&["restore", &format!("latest:{}", tree.display()), "--target", target.to_str().unwrap()]);
    assert_eq!(difference(&client, &target, &tree, &[]), "");

    let repository = full.files().join("repository");
    let before: Vec<_> = files_below(&repository).into_iter().map(|f| (fs::read(&f).unwrap(), f)).collect();
    let mut deeds = String::from("cd repository\n-mkdir foreign\n-rename config gone\n-rm config\n-chmod 777 config\n");
    for (_, file) in &before {
        let name = file.strip_prefix(&repository).unwrap().display();
        deeds += &format!(
            "-rm {name}\n-rename {name} gone\n-chmod 600 {name}\n-put /etc/hostname {name}\n-symlink /etc/passwd {name}\n-ln {name} link\n"
        );
    }
    let batch = client.home.path().join("batch");
    fs::write(&batch, deeds.replace("cd repository", &format!("cd {}", repository.display()))).unwrap();
    let config = client.home.path().join("ssh_config");
    let sftp = client.command("sftp").arg("-F").arg(&config).arg("-b").arg(&batch).arg("server").output().unwrap();
    assert!(text(&sftp).contains("rm"), "sftp ran: {}", text(&sftp));
    let after: Vec<_> = files_below(&repository).into_iter().map(|f| (fs::read(&f).unwrap(), f)).collect();
    assert!(before == after, "nothing that exists was altered or removed, and nothing was added: {}", text(&sftp));

    // Check, repair and healing need no other permissions.
    client.ok(&["check", "--read-data"]);
    let packs = files_below(&repository.join("packs"));
    fs::remove_file(packs.iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap()).unwrap();
    client.ok(&["repair"]);
    client.push(&[tree.to_str().unwrap()], Some(0));
    client.ok(&["repair", "--yes"]);
    client.ok(&["check", "--read-data"]);
}

#[test]
fn recover_py_gives_back_what_restore_gives_back() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    let client = Client::new(repository.display().to_string(), None);
    let tree = client.folder("nasty");
    crate::harness::tree::nasty(&tree);
    client.ok(&["init"]);
    client.push(&[tree.to_str().unwrap()], Some(0));
    let target = client.home.path().join("recovered");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/recover.py");
    let mut recover = Command::new("python3");
    recover.arg(script).arg("restore").arg(&repository).arg("latest").arg(&target);
    let recover = recover.env("NFREEZER_PASSWORD", PASSPHRASE).output().unwrap();
    assert!(recover.status.success(), "{}", text(&recover));
    // An ordinary user gets no setuid and setgid bits from it.
    let modes: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["2755", "4755", "7777"] };
    let expected: Vec<_> = modes.iter().map(|mode| format!(".f...p..... attributes/mode-{mode}")).collect();
    let found = difference(&client, &target.join(tree.strip_prefix("/").unwrap()), &tree, &[]);
    assert_eq!(found, expected.join("\n"));
}
