//! SFTP servers besides OpenSSH, each with a temporary folder and throw-away keys: proftpd, asyncssh, rclone.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nfreezer::context::background;
use nfreezer::storage::{Location, Options, Storage, Transport};
use tempfile::TempDir;

use super::port::free_port;
use super::sshd::{keygen, run, user, with_ssh};

/// Program of an asyncssh server.
const ASYNCSSH: &str = r"
import asyncio, asyncssh, sys
async def main(port, host_key, keys):
    await asyncssh.listen('127.0.0.1', int(port), server_host_keys=[host_key], authorized_client_keys=keys, sftp_factory=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
";

/// A running server.
pub struct Server {
    folder: TempDir,
    process: Child,
    port: u16,
    /// Path of [`Server::files`] on the server.
    root: String,
}

impl Server {
    /// Starts proftpd with mod_sftp. Needs root.
    pub fn proftpd() -> Server {
        Server::start(|folder, port| {
            let at = |name: &str| folder.join(name).display().to_string();
            let keys = run("ssh-keygen", &["-e", "-m", "RFC4716", "-f", &at("id.pub")]);
            fs::write(at("keys"), keys).expect("written");
            let config = format!(
                "ModulePath /usr/lib/proftpd\nLoadModule mod_sftp.c\nServerType standalone\nDefaultAddress 127.0.0.1\n\
                 Port {port}\nUseIPv6 off\nUser root\nGroup root\nRootLogin on\nUseFtpUsers off\nRequireValidShell off\nWtmpLog off\n\
                 PidFile {}\nScoreboardFile {}\nDelayEngine off\nSystemLog {}\nTransferLog none\nSFTPEngine on\n\
                 SFTPHostKey {}\nSFTPAuthMethods publickey\nSFTPAuthorizedUserKeys file:{}\nSFTPCompression delayed\n\
                 AllowOverwrite on\nUmask 077\n<Directory />\nAllowOverwrite on\n</Directory>\n",
                at("pid"),
                at("scoreboard"),
                at("log"),
                at("host"),
                at("keys"),
            );
            fs::write(at("conf"), config).expect("written");
            let mut command = Command::new("proftpd");
            command.args(["-n", "-c", &at("conf")]);
            (command, at("files"))
        })
    }

    /// Starts an asyncssh server.
    pub fn asyncssh() -> Server {
        Server::start(|folder, port| {
            let at = |name: &str| folder.join(name).display().to_string();
            let mut command = Command::new("python3");
            command.args(["-c", ASYNCSSH, &port.to_string(), &at("host"), &at("id.pub")]);
            (command, at("files"))
        })
    }

    /// Starts `rclone serve sftp`.
    pub fn rclone() -> Server {
        Server::start(|folder, port| {
            let at = |name: &str| folder.join(name).display().to_string();
            let mut command = Command::new("rclone");
            command.args(["serve", "sftp", "--config", &at("rclone.conf"), "--addr", &format!("127.0.0.1:{port}")]);
            command.args(["--key", &at("host"), "--authorized-keys", &at("id.pub"), "--user", &user(), &at("files")]);
            command.env("HOME", folder);
            (command, String::new())
        })
    }

    fn start(prepare: impl FnOnce(&Path, u16) -> (Command, String)) -> Server {
        let folder = tempfile::Builder::new().prefix("nfreezer-server-").tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        keygen(&at("host"), "ed25519", "");
        keygen(&at("id"), "ed25519", "");
        fs::create_dir(at("files")).expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let port = free_port();
        let host = fs::read_to_string(at("host.pub")).expect("a public key");
        fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {host}")).expect("written");
        let (mut command, root) = prepare(folder.path(), port);
        let output = fs::File::create(at("output")).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let process = command.spawn().expect("the server is not installed: run scripts/setup.sh tests");
        let server = Server { process, port, root, folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.answers() {
            let said = fs::read_to_string(server.folder.path().join("output")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the server did not start: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn answers(&self) -> bool {
        let mut banner = [0; 4];
        let connected = TcpStream::connect(("127.0.0.1", self.port)).ok();
        connected.is_some_and(|mut socket| socket.read_exact(&mut banner).is_ok() && &banner == b"SSH-")
    }

    /// Returns the folder that the server serves.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Returns the path on the server of an entry of that folder.
    pub fn path(&self, inner: &str) -> String {
        format!("{}/{inner}", self.root)
    }

    /// Writes an SSH configuration in which the host `server` is this server.
    pub fn config(&self) -> PathBuf {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let config = format!(
            "Host server\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n UserKnownHostsFile {}\n",
            self.port,
            user(),
            at("id"),
            at("known_hosts")
        );
        fs::write(at("ssh_config"), config).expect("written");
        at("ssh_config").into()
    }

    /// Opens the storage at a path of [`Server::path`].
    pub fn storage(&self, path: &str, transport: Transport) -> Box<dyn Storage> {
        let location = Location::parse(&format!("server:{path}")).expect("an address");
        let options = with_ssh(Options::default(), |ssh| {
            ssh.transport = transport;
            ssh.ssh_config = Some(self.config());
            ssh.agent = Some(PathBuf::new());
        });
        nfreezer::storage::open(background(), &location, options).unwrap_or_else(|e| panic!("{e:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
