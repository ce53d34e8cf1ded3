//! SFTP servers besides OpenSSH and dropbear: the contract, and a backup with the binary.

use std::fs;

use crate::harness::cli::Env;
use crate::harness::root::needs_root;
use crate::harness::servers::Server;
use crate::*;

/// Checks the contract through both transports, the capabilities, and `init` into a folder whose parent is missing.
fn contract(server: &Server, exclusive: bool, durable: bool) {
    for (transport, name) in [(Transport::Ssh2, "a"), (Transport::OpenSsh, "b")] {
        let expected = Capabilities { durable_put: durable, exclusive_create: false };
        assert_eq!(server.storage(&server.path(name), transport).capabilities(), expected, "as docs/design.md has it");
        suite_with(&*server.storage(&server.path(name), transport), exclusive);
        let path = format!("no{name}/parent/yet");
        missing_parents(&*server.storage(&server.path(&path), transport), &server.files().join(path));
    }
}

/// Runs init, two pushes of `src`, a check and a restore into `out`.
fn round_trip(env: &Env, nfreezer: &dyn Fn(&[&str])) {
    nfreezer(&["init"]);
    nfreezer(&["push", "src"]);
    env.write("src/more", noise(8, 3_000_000));
    nfreezer(&["push", "src"]);
    nfreezer(&["check", "--read-data"]);
    let source = format!("latest:{}", env.path("src").display());
    nfreezer(&["restore", &source, "--target", "out"]);
    run("diff", &["-r", &env.path("src").display().to_string(), &env.path("out").display().to_string()]);
}

/// Makes a backup on this server and restores it.
fn backup(server: &Server) {
    let mut env = Env::new();
    env.set("NFREEZER_REPOSITORY", &format!("server:{}", server.path("new/repo")));
    let config = format!("-ossh.config={}", server.config().display());
    let nfreezer = |arguments: &[&str]| env.nfreezer(arguments.iter().copied().chain([config.as_str()])).done();
    env.write("src/large", noise(7, 20_000_000));
    (0..50).for_each(|i| drop(env.write(&format!("src/{i}/file"), noise(i, 5_000))));
    round_trip(&env, &nfreezer);
    assert!(fs::read_dir(server.files().join("new/repo/packs")).expect("there").count() == 16);
}

#[test]
fn proftpd() {
    if needs_root("logins of the user who runs the tests") {
        let server = Server::proftpd();
        contract(&server, true, true);
        backup(&server);
    }
}

#[test]
fn asyncssh() {
    let server = Server::asyncssh();
    contract(&server, true, true);
    backup(&server);
}

#[test]
fn rclone() {
    let server = Server::rclone();
    contract(&server, false, false); // the server opens existing files in spite of EXCL
    backup(&server);
}

/// Writes an rclone configuration with a local remote and a crypt remote over it.
fn remotes(env: &Env) -> [String; 2] {
    let obscured =
        std::process::Command::new("rclone").args(["obscure", "secret"]).output().expect("rclone runs").stdout;
    let secret = String::from_utf8(obscured).expect("base64");
    let store = env.path("store").display().to_string();
    let text =
        format!("[here]\ntype = local\n[crypt]\ntype = crypt\nremote = here:{store}/crypt\npassword = {secret}\n");
    env.write("rclone.conf", text);
    [format!("here:{store}/plain"), "crypt:deep".into()]
}

#[test]
fn an_address_of_rclone_starts_its_server() {
    let mut env = Env::new();
    env.set("RCLONE_CONFIG", &env.path("rclone.conf").display().to_string());
    let remotes = remotes(&env);
    (0..30).for_each(|i| drop(env.write(&format!("src/{i}/file"), noise(i, 300_000))));
    for remote in remotes {
        env.set("NFREEZER_REPOSITORY", &format!("rclone:{remote}"));
        let nfreezer = |arguments: &[&str]| env.nfreezer(arguments).done();
        round_trip(&env, &nfreezer);
        fs::remove_dir_all(env.path("out")).expect("ours");
    }
}

#[test]
fn a_storage_of_rclone_shows_at_once_what_another_client_wrote() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::parse(&format!("rclone::local:{}/repo", folder.path().display())).expect("an address");
    let open = || open(background(), &location, Options::default()).expect("rclone runs");
    let (one, other) = (open(), open());
    one.create_folders(background()).expect("made");
    assert!(one.list(background(), Folder::Log).expect("listed").is_empty());
    assert!(other.list(background(), Folder::Log).expect("listed").is_empty());
    let name = Name::Record { sequence: 7, id: ObjectId([5; 32]) };
    other.put(background(), &name, b"a record").expect("written");
    let names: Vec<Name> = one.list(background(), Folder::Log).expect("listed").into_iter().map(|e| e.name).collect();
    assert_eq!(names, [name]);
    assert!(!one.capabilities().exclusive_create && !one.capabilities().durable_put);
}
