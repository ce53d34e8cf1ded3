//! Programs that serve SFTP besides OpenSSH and dropbear: the contract, and a backup with the binary.

use std::fs;

use crate::harness::cli::Env;
use crate::harness::root::needs_root;
use crate::harness::servers::Server;
use crate::*;

/// The contract through both transports, and `init` into a folder whose parent is missing.
fn contract(server: &Server, exclusive: bool) {
    for (transport, name) in [(Transport::Ssh2, "a"), (Transport::OpenSsh, "b")] {
        suite_with(&*server.storage(&server.path(name), transport), exclusive);
        let path = format!("no{name}/parent/yet");
        missing_parents(&*server.storage(&server.path(&path), transport), &server.files().join(path));
    }
}

/// Init, two pushes, a check and a restore.
fn backup(server: &Server) {
    let mut env = Env::new();
    env.set("NFREEZER_REPOSITORY", &format!("server:{}", server.path("new/repo")));
    let config = format!("-ossh.config={}", server.config().display());
    let nfreezer = |arguments: &[&str]| env.nfreezer(arguments.iter().copied().chain([config.as_str()])).done();
    env.write("src/large", noise(7, 20_000_000));
    (0..50).for_each(|i| drop(env.write(&format!("src/{i}/file"), noise(i, 5_000))));
    nfreezer(&["init"]);
    nfreezer(&["push", "src"]);
    env.write("src/more", noise(8, 3_000_000));
    nfreezer(&["push", "src"]);
    nfreezer(&["check", "--read-data"]);
    let source = format!("latest:{}", env.path("src").display());
    nfreezer(&["restore", &source, "--target", "out"]);
    run("diff", &["-r", &env.path("src").display().to_string(), &env.path("out").display().to_string()]);
    assert!(fs::read_dir(server.files().join("new/repo/packs")).expect("there").count() == 16);
}

#[test]
fn proftpd() {
    if needs_root("logins of the user who runs the tests") {
        let server = Server::proftpd();
        contract(&server, true);
        backup(&server);
    }
}

#[test]
fn asyncssh() {
    let server = Server::asyncssh();
    contract(&server, true);
    backup(&server);
}

#[test]
fn rclone() {
    let server = Server::rclone();
    contract(&server, false); // it opens an existing file in spite of EXCL
    backup(&server);
}
