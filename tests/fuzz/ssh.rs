//! Targets for the user's SSH files and the output of SSH commands.

#[allow(dead_code)]
#[path = "../../src/storage/sftp/ssh/config.rs"]
mod config;
mod options {
    pub use nfreezer::storage::SshOptions;
}
#[allow(dead_code)]
#[path = "../../src/storage/sftp/ssh/known_hosts.rs"]
mod known_hosts;

use nfreezer::storage::{Remote, SshOptions as Options};

/// Reads a file of known hosts. No line may match a key that is in no file.
pub fn known_hosts(data: &[u8]) {
    let mut file = tempfile();
    std::io::Write::write_all(&mut file.1, data).expect("written");
    let known = known_hosts::KnownHosts::read(&[file.0.clone()]);
    let key = b"\0\0\0\x0bssh-ed25519\0\0\0\x20a key that is in no file of this world";
    for (host, port) in [("host", 22), ("10.0.0.1", 2222)] {
        assert_ne!(known.check(host, port, key), known_hosts::Verdict::Known);
        let _ = known.kinds(host, port);
    }
    let _ = std::fs::remove_file(file.0);
}

fn tempfile() -> (std::path::PathBuf, std::fs::File) {
    let number = rand();
    let path = std::path::PathBuf::from(format!("/dev/shm/nfreezer-fuzz-{}-{number}", std::process::id()));
    let file = std::fs::File::create(&path).expect("there is a /dev/shm");
    (path, file)
}

fn rand() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Parses the output of `ssh -G`.
pub fn config(data: &[u8]) {
    let remote = Remote { user: Some("me".into()), host: "host".into(), port: None, path: "/r".into() };
    let values = config::Values::parse(&String::from_utf8_lossy(data));
    let _ = config::HostConfig::from_values(Some(values), &remote, &Options::default());
}
