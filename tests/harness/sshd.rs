//! A real SSH server for one test, with a free loopback port, throw-away keys and a temporary folder. Ends on drop.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nfreezer::context::background;
use nfreezer::storage::{Location, Options, SshOptions, Storage, Transport};
use tempfile::TempDir;

use super::mounted::eventually;
use super::port::free_port;
pub use super::process::run;

/// The server program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    OpenSsh,
    Dropbear,
}

/// Configuration of a server.
pub struct Setup {
    pub program: Program,
    /// Options in front of the key in `authorized_keys`.
    pub key_prefix: String,
    /// Value of the line `Subsystem sftp`.
    pub sftp_server: String,
    /// Further lines of `sshd_config`. They come first, since sshd uses the first value of an option.
    pub extra: String,
    /// Password of a separate account, which exists in a mount namespace with another `/etc/passwd`. Needs root.
    pub account: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            program: Program::OpenSsh,
            key_prefix: String::new(),
            sftp_server: "internal-sftp".into(),
            extra: String::new(),
            account: None,
        }
    }
}

/// Name of the account of [`Setup::account`].
pub const ACCOUNT: &str = "nfztest";
/// The next free user id. Each server has its own, so that processes of different servers have different users.
static ACCOUNT_ID: AtomicU32 = AtomicU32::new(54_321);

/// The `authorized_keys` line in section 9 of design.md.
pub const APPEND_ONLY: &str = r#"restrict,command="internal-sftp -P remove,rmdir,mkdir,rename,posix-rename,hardlink,setstat,fsetstat,lsetstat,symlink,copy-data -u 0377" "#;

/// A running server.
pub struct Sshd {
    folder: TempDir,
    pub port: u16,
    pub user: String,
    account_id: Option<u32>,
    program: Program,
    process: Option<Child>,
}

/// Changes the SSH options and returns the options.
pub fn with_ssh(mut options: Options, change: impl FnOnce(&mut SshOptions)) -> Options {
    change(&mut options.ssh);
    options
}

impl Sshd {
    /// Starts OpenSSH with internal-sftp, for the user who runs the tests.
    pub fn start() -> Sshd {
        Sshd::with(Setup::default())
    }

    /// Starts OpenSSH with an append-only key. Root gets a separate account, since file modes do not restrict root.
    pub fn append_only() -> Sshd {
        let account = rustix::process::getuid().is_root().then_some("unused");
        Sshd::with(Setup { key_prefix: APPEND_ONLY.into(), account, ..Setup::default() })
    }

    /// Starts Dropbear with OpenSSH's sftp-server.
    pub fn dropbear() -> Sshd {
        Sshd::with(Setup { program: Program::Dropbear, ..Setup::default() })
    }

    pub fn with(setup: Setup) -> Sshd {
        let folder = tempfile::Builder::new().prefix("nfreezer-sshd-").tempdir().expect("a temporary folder");
        let root = folder.path().to_path_buf();
        let at = |name: &str| root.join(name);
        keygen(&at("host_ed25519"), "ed25519", "");
        keygen(&at("id_ed25519"), "ed25519", "");
        let public = fs::read_to_string(at("id_ed25519.pub")).expect("a public key");
        let mut sshd =
            Sshd { port: free_port(), program: setup.program, process: None, folder, user: user(), account_id: None };
        if let Some(password) = setup.account {
            sshd.make_account(password);
        }
        match setup.program {
            Program::OpenSsh => {
                fs::write(at("authorized_keys"), format!("{}{public}", setup.key_prefix)).expect("written");
                // bash reads ~/.bashrc in a session of sshd only if SHLVL is below 2.
                let config = format!(
                    "{}\nPort {}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile {}\nAuthorizedKeysFile {}\n\
                     StrictModes no\nSetEnv SHLVL=5\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                     MaxStartups 100\nPermitRootLogin yes\nSubsystem sftp {}\nLogLevel VERBOSE\n",
                    setup.extra,
                    sshd.port,
                    at("host_ed25519").display(),
                    at("sshd.pid").display(),
                    at("authorized_keys").display(),
                    setup.sftp_server,
                );
                fs::write(at("sshd_config"), config).expect("written");
                let host = fs::read_to_string(at("host_ed25519.pub")).expect("a public key");
                sshd.known_host_line(&host);
            }
            Program::Dropbear => {
                fs::create_dir_all(at("home/.ssh")).expect("a folder");
                fs::write(at("home/.ssh/authorized_keys"), &public).expect("written");
                let key = at("dropbear_key");
                let made = run("dropbearkey", &["-t", "ed25519", "-f", &key.display().to_string()]);
                let host = made.lines().find(|line| line.starts_with("ssh-ed25519")).expect("a public key").to_string();
                sshd.known_host_line(&host);
            }
        }
        sshd.resume();
        sshd
    }

    /// Adds an account to copies of the system's account files. Its home is the scratch folder.
    fn make_account(&mut self, password: &str) {
        assert!(rustix::process::getuid().is_root(), "the tests with an account of their own need root");
        let read = |file: &str| fs::read_to_string(file).expect("readable for root");
        let home = self.folder.path().display().to_string();
        let hash = run("openssl", &["passwd", "-6", password]);
        let id = ACCOUNT_ID.fetch_add(1, Ordering::Relaxed);
        self.account_id = Some(id);
        let line = format!("{ACCOUNT}:x:{id}:{id}::{home}:/bin/sh\n");
        fs::write(self.at("passwd"), read("/etc/passwd") + &line).expect("written");
        fs::write(self.at("shadow"), read("/etc/shadow") + &format!("{ACCOUNT}:{}:19000::::::\n", hash.trim()))
            .expect("written");
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o711)).expect("ours");
        self.user = ACCOUNT.into();
    }

    fn known_host_line(&self, public: &str) {
        fs::write(self.known_hosts(), format!("[127.0.0.1]:{} {}\n", self.port, public.trim())).expect("written");
    }

    /// Starts or restarts the server on its port and waits until it answers.
    pub fn resume(&mut self) {
        let mut command = match self.program {
            Program::OpenSsh => {
                if rustix::process::getuid().is_root() {
                    fs::create_dir_all("/run/sshd").expect("sshd's own folder");
                }
                let mut command = match self.user == ACCOUNT {
                    false => Command::new("/usr/sbin/sshd"),
                    true => {
                        let mut command = private_mounts(
                            r#"mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/shadow && shift 2 && exec /usr/sbin/sshd "$@""#,
                        );
                        command.arg(self.at("passwd")).arg(self.at("shadow"));
                        command
                    }
                };
                command.arg("-D").arg("-f").arg(self.at("sshd_config")).arg("-E").arg(self.at("log"));
                command
            }
            Program::Dropbear => {
                // dropbear reads keys only from the account's home, so a mount namespace replaces that folder
                assert!(rustix::process::getuid().is_root(), "the tests with dropbear need root (a mount namespace)");
                let mut command = Command::new("unshare");
                let home = std::env::home_dir().expect("a home");
                let script = r#"mount --bind "$1" "$2" && shift 2 && exec dropbear "$@""#;
                command
                    .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
                    .arg(self.at("home"))
                    .arg(home);
                let listen = format!("127.0.0.1:{}", self.port);
                command.args(["-F", "-E", "-s", "-p", &listen, "-P"]).arg(self.at("pid"));
                command.arg("-r").arg(self.at("dropbear_key"));
                command.stderr(fs::File::create(self.at("log")).expect("a file"));
                command
            }
        };
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.process = Some(started.expect("the SSH server is not installed: run scripts/setup.sh"));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.port)) {
                let mut banner = [0; 4];
                if socket.read_exact(&mut banner).is_ok() && &banner == b"SSH-" {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "the SSH server did not start: {}", self.log());
            std::thread::yield_now();
        }
    }

    /// Stops the server and every session. The port number is kept for [`Self::resume`].
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            kill_children(process.id());
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops the server and starts it on another port. Clients that use the old port need a proxy.
    pub fn move_away(&mut self) {
        self.stop();
        let (old, new) = (self.port, free_port());
        let config = fs::read_to_string(self.at("sshd_config")).expect("a file");
        fs::write(self.at("sshd_config"), config.replace(&format!("Port {old}"), &format!("Port {new}")))
            .expect("written");
        self.port = new;
        self.resume();
    }

    /// Sends SIGSTOP or SIGCONT to every process of the server. While they are stopped, connections stay open and
    /// requests get no answer.
    pub fn freeze(&self, yes: bool) {
        let name = if yes { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let own = self.process.as_ref().map(Child::id);
        own.iter().flat_map(|own| std::iter::once(*own).chain(descendants(*own))).for_each(|pid| signal(pid, name));
    }

    /// Waits until no session is left, after the end of their clients. Until then a session may still store what its
    /// client has sent.
    pub fn sessions_end(&self) {
        let own = self.process.as_ref().map(Child::id);
        eventually("the sessions end", || own.is_none_or(|own| descendants(own).is_empty()));
    }

    /// Kills every session but not the server.
    pub fn kill_sessions(&self) {
        if let Some(process) = &self.process {
            kill_children(process.id());
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the folder for the server's files, and creates it.
    pub fn files(&self) -> PathBuf {
        let files = self.at("files");
        fs::create_dir_all(&files).expect("a folder");
        if let Some(id) = self.account_id {
            chown(&files, Some(id), Some(id)).expect("we are root");
        }
        files
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.at("known_hosts")
    }

    pub fn identity(&self) -> PathBuf {
        self.at("id_ed25519")
    }

    pub fn host_key(&self) -> PathBuf {
        self.at("host_ed25519")
    }

    pub fn authorized_keys(&self) -> PathBuf {
        self.at("authorized_keys")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    /// Returns the number of logins that OpenSSH has accepted.
    pub fn logins(&self) -> usize {
        self.log().lines().filter(|line| line.contains("Accepted publickey ")).count()
    }

    /// Returns the temporary folder, in which the test may create files.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the address of a folder on the server.
    pub fn location(&self, path: &Path) -> Location {
        self.location_by(self.port, path)
    }

    /// Like [`Self::location`], through another port such as a proxy's.
    pub fn location_by(&self, port: u16, path: &Path) -> Location {
        let text = format!("sftp://{}@127.0.0.1:{port}/{}", self.user, path.display());
        Location::parse(&text).expect("an address")
    }

    /// Returns options without the user's agent, configuration and known hosts.
    pub fn options(&self) -> Options {
        let empty = self.at("ssh_config");
        fs::write(&empty, "IdentityFile none\n").expect("written");
        with_ssh(Options { retry_for: Duration::from_secs(30), ..Options::default() }, |ssh| {
            ssh.transport = Transport::Ssh2;
            ssh.identity = vec![self.identity()];
            ssh.known_hosts = Some(vec![self.known_hosts()]);
            ssh.ssh_config = Some(empty);
            ssh.agent = Some(PathBuf::new());
            ssh.io_timeout = Duration::from_secs(20);
        })
    }

    /// Writes a configuration file into this folder in which the host `server` is this server, through this port.
    pub fn client_config(&self, folder: &Path, port: u16) -> PathBuf {
        let config = format!(
            "Host server\n HostName 127.0.0.1\n Port {port}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n UserKnownHostsFile {}\n",
            self.user,
            self.identity().display(),
            self.known_hosts().display()
        );
        let file = folder.join("ssh_config");
        fs::write(&file, config).expect("written");
        file
    }

    /// Opens the storage in `files()/repo`, which need not exist.
    pub fn storage(&self, transport: Transport) -> Box<dyn Storage> {
        let options = with_ssh(self.options(), |ssh| {
            ssh.transport = transport;
        });
        nfreezer::storage::open(background(), &self.location(&self.files().join("repo")), options)
            .unwrap_or_else(|e| panic!("{e:?}\n{}", self.log()))
    }

    /// Adds this server's host key to the known hosts for a proxy's port.
    pub fn trust_port(&self, port: u16) {
        let known = fs::read_to_string(self.known_hosts()).expect("a file");
        let line = known.lines().next().expect("a line").replace(&format!(":{}", self.port), &format!(":{port}"));
        fs::write(self.known_hosts(), format!("{known}{line}\n")).expect("written");
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Creates a key pair.
pub fn keygen(file: &Path, kind: &str, passphrase: &str) {
    run("ssh-keygen", &["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", &file.display().to_string()]);
}

/// Returns the user who runs the tests.
pub fn user() -> String {
    run("id", &["-un"]).trim().into()
}

/// Returns a command that runs a shell script in a new mount namespace. The caller adds the script's arguments.
fn private_mounts(script: &str) -> Command {
    assert!(rustix::process::getuid().is_root(), "this test needs root (a mount namespace)");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command
}

/// Returns all descendants of a process, from /proc.
pub fn descendants(parent: u32) -> Vec<u32> {
    let children = |parent: u32| -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        lists
            .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
            .collect()
    };
    let mut all = children(parent);
    let mut next = 0;
    while next < all.len() {
        all.extend(children(all[next]));
        next += 1;
    }
    all
}

/// Sends a signal to a process that may have ended.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn kill_children(parent: u32) {
    descendants(parent).into_iter().for_each(|pid| signal(pid, rustix::process::Signal::KILL));
}
