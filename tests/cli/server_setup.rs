//! `server-setup --append-only` against a real sshd locks an account. The client does all its work through the key. A
//! thief of the key changes nothing, neither with hand-made SFTP requests nor with other requests to sshd.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::harness::cli::Env;
use crate::harness::root::needs_root;
use crate::harness::sshd::{Setup, Sshd, keygen};

/// A server whose account owns its home; sshd reads the keys there as it does by default.
struct Server {
    sshd: Sshd,
    env: Env,
    repository: PathBuf,
    /// SSH configurations: for the key that may do everything, and for the client's key.
    configs: [PathBuf; 2],
    public: PathBuf,
}

impl Server {
    fn new() -> Self {
        let extra =
            "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2\nStrictModes yes\nLogLevel DEBUG1\n".into();
        let sshd = Sshd::with(Setup { account: Some("unused"), extra, ..Setup::default() });
        let home = sshd.scratch().to_owned();
        let owner = fs::metadata(sshd.files()).unwrap().uid();
        let own = |path: &Path| chown(path, Some(owner), Some(owner)).unwrap();
        own(&home);
        let env = Env::new();
        let client = env.home().join("client");
        keygen(&client, "ed25519", "");
        let public = client.with_extension("pub");
        fs::create_dir(home.join(".ssh")).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        // At first both keys may do everything. The home has start files, which run at login.
        let keys = read(&sshd.authorized_keys()) + "# a note\n" + &read(&public);
        for (name, text) in
            [(".ssh/authorized_keys", &*keys), (".ssh/authorized_keys2", &*keys), (".profile", "true\n")]
        {
            fs::write(home.join(name), text).unwrap();
            own(&home.join(name));
        }
        for folder in [".config", ".config/fish", "public"] {
            fs::create_dir(home.join(folder)).unwrap();
            own(&home.join(folder));
        }
        fs::write(home.join(".config/fish/config.fish"), "true\n").unwrap();
        own(&home.join(".config/fish/config.fish"));
        own(&home.join(".ssh"));
        let all = sshd.client_config(&env.home(), sshd.port);
        let mine = env.home().join("client_config");
        let identity = sshd.identity().display().to_string();
        fs::write(&mine, read(&all).replace(&identity, &client.display().to_string())).unwrap();
        let repository = sshd.files().join("repo");
        Server { sshd, env, repository, configs: [all, mine], public }
    }

    fn address(&self) -> String {
        format!("server:{}", self.repository.display())
    }

    /// Runs nfreezer with the administrator's key (0) or the client's (1).
    fn nfreezer(&self, key: usize, arguments: &[&str]) -> crate::harness::cli::Output {
        let config = format!("ssh.config={}", self.configs[key].display());
        self.env.nfreezer([arguments, &["-o", &config]].concat())
    }

    fn install(&self) -> crate::harness::cli::Output {
        let key = self.public.to_str().unwrap();
        self.nfreezer(0, &["server-setup", "--append-only", &self.address(), "--key", key, "--install"])
    }

    fn ssh(&self, arguments: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.configs[1]).args(["-o", "BatchMode=yes"]).args(arguments).stdin(Stdio::null());
        ssh
    }

    /// Returns every path in the account's home with its mode, owner and contents, except files that sshd and the test
    /// write.
    fn everything(&self) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut rest = vec![self.sshd.scratch().to_owned()];
        while let Some(path) = rest.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            let contents = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            found.insert(path, (meta.mode(), meta.uid(), contents));
        }
        found.remove(&self.sshd.scratch().join("log"));
        found
    }
}

/// An SFTP client that sends requests by hand, among them requests that nfreezer never sends.
struct Thief {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Thief {
    fn new(server: &Server) -> Self {
        let mut child =
            server.ssh(&["-s", "server", "sftp"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut thief = Thief { child, to, from };
        thief.to.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).unwrap();
        assert_eq!(thief.answer()[0], 2, "SSH_FXP_VERSION");
        thief
    }

    fn answer(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.from.read_exact(&mut len).expect("the server answers");
        let mut packet = vec![0; u32::from_be_bytes(len) as usize];
        self.from.read_exact(&mut packet).unwrap();
        packet
    }

    /// Sends a request. Returns the handle of the answer, or the status as the error.
    fn ask(&mut self, kind: u8, fields: &[Field<'_>]) -> Result<Vec<u8>, u32> {
        let mut body = vec![kind, 0, 0, 0, 7];
        for field in fields {
            match field {
                Field::Text(text) => {
                    body.extend((text.len() as u32).to_be_bytes());
                    body.extend(*text);
                }
                Field::Number(n) => body.extend(n.to_be_bytes()),
                Field::Long(n) => body.extend(n.to_be_bytes()),
            }
        }
        self.to.write_all(&(body.len() as u32).to_be_bytes()).unwrap();
        self.to.write_all(&body).unwrap();
        let answer = self.answer();
        match answer[0] {
            102 => Ok(answer[9..].to_vec()),
            101 => match u32::from_be_bytes(answer[5..9].try_into().unwrap()) {
                0 => Ok(Vec::new()),
                status => Err(status),
            },
            other => panic!("answer of type {other}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, what: &str, kind: u8, fields: &[Field<'_>]) {
        // 2: no such file, 3: permission denied, 4: failure (the name is taken), 8: not supported.
        assert!(matches!(self.ask(kind, fields), Err(2..=4 | 8)), "{what} was not refused");
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

enum Field<'f> {
    Text(&'f [u8]),
    Number(u32),
    Long(u64),
}
use Field::{Long, Number, Text};

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 16;
const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;

/// Tries every SFTP request that can change a file or folder on one path.
fn attack(thief: &mut Thief, path: &Path) {
    let target = path.to_str().unwrap().as_bytes();
    let other = [target, b".other"].concat();
    for flags in [WRITE, WRITE | TRUNCATE, WRITE | APPEND, WRITE | CREATE, READ | WRITE | CREATE | TRUNCATE] {
        thief.refused("OPEN", 3, &[Text(target), Number(flags), Number(0)]);
    }
    thief.refused("REMOVE", 13, &[Text(target)]);
    thief.refused("RMDIR", 15, &[Text(target)]);
    thief.refused("RENAME", 18, &[Text(target), Text(&other)]);
    thief.refused("RENAME over it", 18, &[Text(b"/etc/hostname"), Text(target)]);
    thief.refused("SYMLINK", 20, &[Text(b"/etc/passwd"), Text(&other)]);
    for handle in [false, true] {
        // A handle that was opened for reading must not allow changes either.
        let opened = if handle { thief.ask(3, &[Text(target), Number(READ), Number(0)]) } else { Err(0) };
        let (kind, on) = match (handle, &opened) {
            (true, Ok(handle)) => (10, &handle[..]),
            (true, Err(_)) => continue,
            (false, _) => (9, target),
        };
        thief.refused("SETSTAT size", kind, &[Text(on), Number(SIZE), Long(0)]);
        thief.refused("SETSTAT mode", kind, &[Text(on), Number(MODE), Number(0o777)]);
        thief.refused("SETSTAT owner", kind, &[Text(on), Number(OWNER), Number(0), Number(0)]);
        thief.refused("SETSTAT times", kind, &[Text(on), Number(TIMES), Number(1), Number(1)]);
        if handle {
            thief.refused("WRITE", 6, &[Text(on), Long(0), Text(b"x")]);
        }
    }
    for (name, fields) in [
        ("posix-rename@openssh.com", [Text(target), Text(&other)]),
        ("hardlink@openssh.com", [Text(target), Text(&other)]),
    ] {
        let [a, b] = fields;
        thief.refused(name, 200, &[Text(name.as_bytes()), a, b]);
    }
    thief.refused("lsetstat", 200, &[Text(b"lsetstat@openssh.com"), Text(target), Number(MODE), Number(0o777)]);
}

/// Attacks the processes of the account through /proc: their memory cannot be written and their environment cannot be
/// read. These processes are SFTP servers of the account; the kernel closes all other processes to it anyway. (A
/// process reaches its own open files, which are its own connection.)
fn attack_processes(thief: &mut Thief, server: &Server) {
    let account = fs::metadata(server.sshd.files()).unwrap().uid();
    let mut tried = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        if !uids.split_whitespace().any(|uid| uid == account.to_string()) {
            continue;
        }
        tried += 1;
        for name in ["mem", "environ", "cwd/x", "root/x"] {
            let path = entry.path().join(name);
            let path = path.to_str().unwrap();
            let what =
                format!("OPEN of {path} of {}", fs::read_to_string(entry.path().join("comm")).unwrap_or_default());
            thief.refused(&what, 3, &[Text(path.as_bytes()), Number(WRITE), Number(0)]);
            thief.refused(&what, 3, &[Text(path.as_bytes()), Number(READ), Number(0)]);
        }
    }
    assert!(tried > 0, "the thief's own sftp-server runs as the account");
    for folder in ["/var/spool/cron", "/var/spool/cron/crontabs", "/run/user"] {
        let path = format!("{folder}/{account}");
        thief.refused("OPEN", 3, &[Text(path.as_bytes()), Number(WRITE | CREATE), Number(0)]);
        thief.refused("MKDIR", 14, &[Text(path.as_bytes()), Number(0)]);
    }
}

#[test]
fn programs_of_the_account_are_warned_of() {
    if !needs_root("an account of its own") {
        return;
    }
    let server = Server::new();
    server.nfreezer(1, &["init", "-r", &server.address()]).done();
    let protected = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0");
    let said = server.install().success().stdout;
    assert!(!said.contains("WARNING"), "{said}");
    assert_eq!(said.contains("not excluded"), !protected, "{said}");
    let account = fs::metadata(server.sshd.files()).unwrap().uid().to_string();
    let mut program = Command::new("setpriv")
        .args(["--reuid", &account, "--clear-groups", "setsid", "sleep", "600"])
        .spawn()
        .unwrap();
    // Before that, the process is still `setpriv`, which belongs to root.
    let comm = format!("/proc/{}/comm", program.id());
    while fs::read_to_string(&comm).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    let said = server.install().success().stdout;
    program.kill().unwrap();
    program.wait().unwrap();
    let warned = said.contains(&format!("this account runs other programs: {}(sleep)", program.id()));
    assert_eq!(warned, !protected, "{said}");
}

#[test]
fn a_thief_of_the_key_changes_nothing_and_the_client_does_all_its_work() {
    if !needs_root("an account of its own") {
        return;
    }
    let server = Server::new();
    let address = server.address();
    let nfreezer = |arguments: &[&str]| server.nfreezer(1, &[&["-r", &address], arguments].concat());
    let said = server.install().exits(1);
    assert!(said.stderr.contains("run `nfreezer init` first"), "{}", said.stderr);
    nfreezer(&["init"]).done();
    let said = server.install().success();
    assert!(said.stdout.contains("other keys of this account that can do everything: 2"), "{}", said.stdout);
    assert!(said.stdout.contains("can still be overwritten") && said.stdout.contains("/public\n"), "{}", said.stdout);
    assert!(said.stdout.contains("This does not protect from:"), "{}", said.stdout);
    // Installs the key again, as after a change of its comment. The result is the same.
    let before = server.everything();
    drop(server.install().success());
    assert!(before == server.everything(), "a second run changes nothing");

    let tree = server.env.write("tree/letter", "dear").parent().unwrap().to_owned();
    for text in ["dear", "dearest"] {
        fs::write(tree.join("letter"), text).unwrap();
        nfreezer(&["push", tree.to_str().unwrap()]).done();
    }
    assert_eq!(nfreezer(&["snapshots", "--json"]).success().objects().len(), 3);
    nfreezer(&["restore", &format!("latest:{}", tree.display()), "--target", "back"]).done();
    assert_eq!(fs::read(server.env.path("back/letter")).unwrap(), b"dearest");
    fs::create_dir(server.env.path("m")).unwrap();
    nfreezer(&["mount", "m"]).done();
    let letter = server.env.path("m/latest").join(tree.strip_prefix("/").unwrap()).join("letter");
    let read = fs::read(letter);
    server.env.nfreezer(["umount", "m"]).done();
    assert_eq!(read.unwrap(), b"dearest");

    let before = server.everything();
    let mut thief = Thief::new(&server);
    let home = server.sshd.scratch();
    let is_object = |path: &&PathBuf| path.starts_with(&server.repository) && path.is_file();
    for path in before.keys().filter(is_object).step_by(3) {
        attack(&mut thief, path);
    }
    for name in [
        ".ssh/authorized_keys",
        ".ssh/authorized_keys2",
        ".profile",
        ".config/fish/config.fish",
        ".ssh",
        "files/repo/log",
    ] {
        attack(&mut thief, &home.join(name));
    }
    for planted in [
        ".ssh/rc",
        ".ssh/environment",
        ".ssh/config",
        ".bashrc",
        ".bash_profile",
        ".bash_login",
        ".zshenv",
        ".forward",
        ".k5login",
        ".rhosts",
        ".shosts",
        ".pam_environment",
        ".config/autostart",
        ".config/fish/functions",
        ".ssh/authorized_keys3",
        ".procmailrc",
    ] {
        let path = home.join(planted);
        let text = path.to_str().unwrap().as_bytes();
        thief.refused(planted, 3, &[Text(text), Number(WRITE | CREATE), Number(0)]);
        thief.refused(planted, 14, &[Text(text), Number(0)]);
    }
    assert!(before == server.everything(), "nothing was changed, removed or added");
    attack_processes(&mut thief, &server);

    // The key may make new objects. They cannot be changed once they are closed.
    let new = server.repository.join("log/new");
    let path = new.to_str().unwrap().as_bytes();
    let handle = thief.ask(3, &[Text(path), Number(WRITE | CREATE), Number(MODE), Number(0o777)]).unwrap();
    thief.ask(6, &[Text(&handle), Long(0), Text(b"own")]).unwrap();
    thief.ask(4, &[Text(&handle)]).unwrap();
    assert_eq!(fs::metadata(&new).unwrap().mode() & 0o7777, 0o400);
    attack(&mut thief, &new);
    let copy = [Text(b"copy-data" as &[u8]), Text(&handle), Long(0), Long(0), Text(&handle), Long(0)];
    thief.refused("copy-data", 200, &copy);
    assert_eq!(fs::read(&new).unwrap(), b"own");
}

#[test]
fn the_key_opens_nothing_but_sftp() {
    if !needs_root("an account of its own") {
        return;
    }
    let server = Server::new();
    server.nfreezer(1, &["init", "-r", &server.address()]).done();
    let before = |what: &str| server.ssh(&["server", what]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&before("echo shell").stdout), "shell\n", "it was a shell until now");
    drop(server.install().success());
    let says = |arguments: &[&str]| {
        let output = server.ssh(arguments).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for command in [
        &["server", "echo shell"][..],
        &["server", "sh", "-c", "echo shell"],
        &["-tt", "server", "echo shell"],
        &["server"],
    ] {
        assert!(!says(command).contains("shell\n"), "{command:?}");
    }
    assert!(says(&["-tt", "server"]).contains("PTY allocation request failed"));
    let port = format!("127.0.0.1:{}", server.sshd.port);
    let said = says(&["-W", &port, "server"]);
    assert!(!said.contains("SSH-2.0") && said.contains("administratively prohibited"), "{said}");
    let said = says(&["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "-N", "server"]);
    assert!(said.contains("remote port forwarding failed"), "{said}");
    let said = says(&["-o", "ExitOnForwardFailure=yes", "-R", "/tmp/nfreezer-thief:127.0.0.1:1", "-N", "server"]);
    assert!(said.contains("remote port forwarding failed"), "{said}");
    // At each login sshd logs the options of the key. They allow no agent, no X11 and no start files.
    let log = server.sshd.log();
    let last = log.lines().rfind(|line| line.contains("key options:")).unwrap_or_else(|| panic!("{log}"));
    assert!(last.contains(" command"), "{last}");
    for allowed in ["agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding"] {
        assert!(!last.contains(allowed), "{last}");
    }
}

#[test]
fn the_installed_openssh_has_no_request_that_is_not_known() {
    use nfreezer::cli::server_setup::{DENIED, HARMLESS};
    let output = Command::new("/usr/lib/openssh/sftp-server").args(["-Q", "requests"]).output().unwrap();
    let known: Vec<&str> = DENIED.split(',').chain(HARMLESS.split(',')).collect();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() > 20, "{text}");
    for request in text.lines() {
        assert!(known.contains(&request), "{request} is new: does it change anything?");
    }
    // The README documents the line that is printed.
    let line = crate::harness::sshd::APPEND_ONLY.trim();
    assert!(line.contains(&format!("internal-sftp -P {DENIED} -u 0377")), "{line}");
    assert!(include_str!("../../README.md").contains(line));
}

#[test]
fn what_is_printed_can_be_looked_at_and_run_by_hand() {
    if !needs_root("an account of its own") {
        return;
    }
    let server = Server::new();
    server.nfreezer(1, &["init", "-r", &server.address()]).done();
    let key = server.public.to_str().unwrap();
    let call = ["server-setup", "--append-only", &server.address(), "--key", key];
    let printed = server.nfreezer(0, &call).success().stdout;
    for words in [crate::harness::sshd::APPEND_ONLY, "# This does not protect from:", "# Match User", "ChrootDirectory"]
    {
        assert!(printed.contains(words), "{words} is missing in {printed}");
    }
    assert!(printed.find("ChrootDirectory") < printed.find("WITHOUT ROOT"), "the stronger form comes first");
    let json = server.nfreezer(0, &[&call[..], &["--json"]].concat()).success().objects();
    assert_eq!((&json[0]["installed"], json[0]["script"].as_str()), (&false.into(), Some(printed.as_str())));
    let mut ssh = server.ssh(&["server", "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    ssh.stdin.take().unwrap().write_all(printed.as_bytes()).unwrap();
    assert!(ssh.wait_with_output().unwrap().status.success());
    let line = json[0]["line"].as_str().unwrap();
    let keys = fs::read_to_string(server.sshd.scratch().join(".ssh/authorized_keys")).unwrap();
    let public = fs::read_to_string(key).unwrap();
    assert!(keys.lines().any(|l| l == line), "{keys}");
    assert_eq!(keys.matches(public.split(' ').nth(1).unwrap()).count(), 1, "{keys}");

    let refused = |arguments: &[&str], why: &str| {
        let said = server.nfreezer(0, arguments).exits(2);
        assert!(said.stderr.contains(why), "{}", said.stderr);
    };
    refused(&["server-setup", &server.address()], "--append-only");
    refused(&["server-setup", "--append-only", "/srv/local"], "/srv/local is on no SSH server");
    refused(&["server-setup", "--append-only", &server.address()], "no public key was found");
    refused(&["server-setup", "--append-only", &server.address(), "--install"], "--install needs --key");
}
