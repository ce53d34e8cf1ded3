//! The storage's contract, held by one suite over every implementation and over real servers; and the bad days of a server.

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use harness::proxy::Proxy;
use harness::sshd::{Setup, Sshd, keygen, run};
use nfreezer::error::{Error, Kind};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::storage::{Local, Location, Memory, Options, Prompt, Storage, Transport, open};

/// A name nobody has had yet.
fn fresh() -> ObjectId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[24..].copy_from_slice(&number.to_be_bytes());
    ObjectId(id)
}

/// Bytes that differ from place to place and from seed to seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

fn kind<T: std::fmt::Debug>(result: nfreezer::error::Result<T>) -> Kind {
    result.expect_err("an error").kind()
}

/// What every storage must do, whoever implements it.
fn suite(storage: &dyn Storage) {
    storage.create_folders().expect("folders");
    storage.create_folders().expect("a second time");
    for folder in [Folder::Root].into_iter().chain(Folder::all()) {
        assert_eq!(storage.list(folder).expect("a listing"), []);
        assert_eq!(storage.foreign(folder).expect("a count"), 0, "{folder:?}");
    }

    let (pack, record) = (Name::Pack(fresh()), Name::Record { sequence: 7, id: fresh() });
    assert_eq!(kind(storage.size(&pack)), Kind::Missing);
    assert_eq!(kind(storage.read(&pack, 0, 1)), Kind::Missing);
    assert_eq!(kind(storage.read(&pack, 0, 0)), Kind::Missing);
    storage.remove(&pack).expect("what is not there is removed already");

    for (name, len) in [(Name::Config, 100), (Name::Key(fresh()), 264), (record, 0), (pack, 3_000_001)] {
        let bytes = noise(len as u64, len);
        storage.put(&name, &bytes).expect("a new object");
        assert_eq!(storage.size(&name).expect("a size"), len as u64);
        assert_eq!(storage.read(&name, 0, len).expect("all of it"), bytes);
        let listed = storage.list(name.folder()).expect("a listing");
        assert_eq!(listed.iter().map(|entry| (entry.name, entry.size)).collect::<Vec<_>>(), [(name, len as u64)]);
        for other in [&b""[..], b"other", &bytes] {
            assert_eq!(kind(storage.put(&name, other)), Kind::Exists, "{name} a second time");
        }
        assert_eq!(storage.read(&name, 0, len).expect("unchanged"), bytes);
    }
    assert_eq!(storage.foreign(Folder::Root).expect("a count"), 0);

    let bytes = noise(3_000_001, 3_000_001);
    for (offset, len) in
        [(0, 1), (3_000_000, 1), (3_000_001, 0), (1_234_567, 70_000), (17, 2_999_000), (65_535, 2), (5, 0)]
    {
        let from = usize::try_from(offset).expect("small");
        assert_eq!(storage.read(&pack, offset, len).expect("a range"), bytes[from..from + len], "{len} at {offset}");
    }
    for (offset, len) in
        [(3_000_001, 1), (0, 3_000_002), (2_999_999, 700_000), (u64::MAX, 1), (u64::MAX - 2, 10), (1 << 40, 0)]
    {
        assert_eq!(kind(storage.read(&pack, offset, len)), Kind::Damaged, "{len} at {offset}");
    }

    many_threads(storage);

    storage.remove(&pack).expect("removed");
    storage.remove(&pack).expect("removed already");
    assert_eq!(kind(storage.size(&pack)), Kind::Missing);
    assert_eq!(kind(storage.read(&pack, 0, 1)), Kind::Missing);
    assert!(storage.syncs());
    let (sent, received) = storage.traffic();
    assert!(sent > 3_000_000 && received > 3_000_000, "{sent} {received}");
}

/// Eight callers put, read and list at once.
fn many_threads(storage: &dyn Storage) {
    let before = storage.list(Folder::PackShard(5)).expect("a listing").len();
    let names: Vec<Vec<Name>> = thread::scope(|scope| {
        let caller = |seed: u64| {
            move || {
                let mut names = Vec::new();
                for round in 0..12 {
                    let mut id = fresh();
                    id.0[0] = 0x50 | (id.0[0] & 15);
                    let (name, bytes) = (Name::Pack(id), noise(seed * 100 + round, 1 + 37_000 * round as usize));
                    storage.put(&name, &bytes).expect("a new object");
                    let from = bytes.len() / 3;
                    assert_eq!(storage.read(&name, from as u64, bytes.len() - from).expect("a range"), bytes[from..]);
                    assert_eq!(storage.size(&name).expect("a size"), bytes.len() as u64);
                    storage.list(Folder::PackShard(5)).expect("a listing");
                    names.push(name);
                }
                names
            }
        };
        let callers: Vec<_> = (0..8).map(|seed| scope.spawn(caller(seed))).collect();
        callers.into_iter().map(|caller| caller.join().expect("no panic")).collect()
    });
    let listed = storage.list(Folder::PackShard(5)).expect("a listing");
    assert_eq!(listed.len(), before + 96);
    let listed: BTreeSet<Name> = listed.into_iter().map(|entry| entry.name).collect();
    assert!(names.iter().flatten().all(|name| listed.contains(name)));
}

/// What can only be seen from the server's side; `root` is where its files are.
fn files_suite(storage: &dyn Storage, root: &Path) {
    let mode = |path: &Path| fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777;
    let name = Name::Pack(fresh());
    storage.put(&name, b"bytes").expect("a new object");
    let path = root.join(name.path());
    assert_eq!(mode(&path), 0o400);
    assert!(Folder::all().all(|folder| mode(&root.join(folder.path())) == 0o700));
    let entry =
        storage.list(name.folder()).expect("a listing").into_iter().find(|entry| entry.name == name).expect("listed");
    assert_eq!(entry.mtime, fs::metadata(&path).expect("there").mtime());

    // what is not ours is not listed, but counted
    let before = storage.foreign(Folder::Root).expect("a count");
    fs::write(root.join("notes.txt"), "x").expect("written");
    fs::write(root.join("bad\u{1b}name"), "x").expect("written");
    assert_eq!(storage.foreign(Folder::Root).expect("a count"), before + 2);

    // something else in an object's place
    let (to_link, to_pipe, to_folder) = (Name::Pack(fresh()), Name::Pack(fresh()), Name::Pack(fresh()));
    symlink(&path, root.join(to_link.path())).expect("a link");
    let pipe = root.join(to_pipe.path());
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    fs::create_dir(root.join(to_folder.path())).expect("a folder");
    for name in [to_link, to_pipe, to_folder] {
        let listed = storage.list(name.folder()).expect("a listing");
        assert!(listed.iter().all(|entry| entry.name != name), "{name} is listed");
        assert_eq!(kind(storage.size(&name)), Kind::Damaged);
        assert_eq!(kind(storage.read(&name, 0, 1)), Kind::Damaged);
        assert_eq!(kind(storage.put(&name, b"x")), Kind::Exists);
    }
    assert_eq!(storage.read(&name, 0, 5).expect("still well"), b"bytes");
    fs::remove_file(&pipe).expect("removed");

    // a torso is never written again
    let torso = Name::Pack(fresh());
    fs::write(root.join(torso.path()), "by").expect("written");
    assert_eq!(kind(storage.put(&torso, b"bytes")), Kind::Exists);
    assert_eq!(kind(storage.read(&torso, 0, 5)), Kind::Damaged);

    fs::rename(root, root.with_extension("away")).expect("renamed");
    for kind in [
        kind(storage.list(Folder::Root)),
        kind(storage.list(Folder::PackShard(1))),
        kind(storage.foreign(Folder::Root)),
        kind(storage.size(&Name::Config)),
        kind(storage.read(&Name::Config, 0, 1)),
        kind(storage.put(&Name::Pack(fresh()), b"x")),
        kind(storage.remove(&Name::Config)),
    ] {
        assert_eq!(kind, Kind::NoRepository);
    }
    fs::rename(root.with_extension("away"), root).expect("renamed back");
}

#[test]
fn memory() {
    suite(&Memory::default());
}

#[test]
fn local() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("repo");
    let storage = Local::new(&root);
    suite(&storage);
    files_suite(&storage, &root);
    assert_eq!(kind(Local::new(folder.path().join("no/parent")).create_folders()), Kind::Failed);
}

fn server(sshd: &Sshd, transport: Transport) {
    let storage = sshd.storage(transport);
    suite(&*storage);
    files_suite(&*storage, &sshd.files().join("repo"));
}

#[test]
fn sshd_through_ssh2() {
    server(&Sshd::start(), Transport::Ssh2);
}

#[test]
fn sshd_through_openssh() {
    server(&Sshd::start(), Transport::OpenSsh);
}

#[test]
fn sshd_with_the_sftp_server_program() {
    let setup = Setup { sftp_server: "/usr/lib/openssh/sftp-server".into(), ..Setup::default() };
    server(&Sshd::with(setup), Transport::Ssh2);
}

#[test]
fn dropbear_through_ssh2() {
    server(&Sshd::dropbear(), Transport::Ssh2);
}

#[test]
fn dropbear_through_openssh() {
    server(&Sshd::dropbear(), Transport::OpenSsh);
}

#[test]
fn a_server_that_allows_one_channel_only() {
    let sshd = Sshd::with(Setup { extra: "MaxSessions 1".into(), ..Setup::default() });
    suite(&*sshd.storage(Transport::Ssh2));
}

fn local_repo(sshd: &Sshd) -> std::path::PathBuf {
    let root = sshd.files().join("repo");
    Local::new(&root).create_folders().expect("folders");
    root
}

fn open_error(location: &Location, options: Options) -> Error {
    open(location, options).map(|_| ()).expect_err("an error")
}

#[test]
fn an_append_only_key_can_put_read_and_list_and_nothing_else() {
    let sshd = Sshd::append_only();
    let root = local_repo(&sshd);
    run("chown", &["-R", &format!("--reference={}", sshd.files().display()), &root.display().to_string()]);
    let name = Name::Pack(fresh());
    let bytes = noise(1, 1_000_000);
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let storage = sshd.storage(transport);
        assert!(storage.syncs());
        let mine = Name::Pack(fresh());
        storage.put(&mine, &bytes).expect("a new object");
        assert_eq!(storage.read(&mine, 5, 999_995).expect("a range"), bytes[5..]);
        assert!(storage.list(mine.folder()).expect("a listing").iter().any(|entry| entry.name == mine));
        assert_eq!(kind(storage.put(&mine, &bytes)), Kind::Exists);
        let refused = storage.remove(&mine).expect_err("may not remove");
        assert!(refused.kind() == Kind::Failed && refused.to_string().contains("permission denied"), "{refused}");
        storage.create_folders().expect("all are there");
    }
    sshd.storage(Transport::Ssh2).put(&name, &bytes).expect("a new object");
    let path = root.join(name.path());
    let before = fs::metadata(&path).expect("there");
    assert_eq!(before.mode() & 0o7777, 0o400);

    // the same with another client, which tries everything that SFTP has
    let session = raw_session(&sshd);
    let sftp = session.sftp().expect("SFTP");
    use ssh2::{OpenFlags, OpenType, RenameFlags};
    let all = OpenFlags::WRITE;
    for flags in
        [all, all | OpenFlags::TRUNCATE, all | OpenFlags::APPEND, all | OpenFlags::CREATE | OpenFlags::TRUNCATE]
    {
        assert!(sftp.open_mode(&path, flags, 0o600, OpenType::File).is_err(), "opened with {flags:?}");
    }
    let other = root.join("packs/0/other");
    let stat =
        ssh2::FileStat { size: Some(0), uid: None, gid: None, perm: Some(0o600), atime: Some(0), mtime: Some(0) };
    assert!(sftp.setstat(&path, stat.clone()).is_err());
    assert!(sftp.unlink(&path).is_err());
    assert!(sftp.rename(&path, &other, Some(RenameFlags::all())).is_err());
    assert!(sftp.rename(&path, &other, None).is_err());
    assert!(sftp.rmdir(&root.join("packs/0")).is_err());
    assert!(sftp.mkdir(&other, 0o700).is_err());
    assert!(sftp.symlink(&path, &other).is_err());
    let mut file = sftp.open(&path).expect("may read");
    assert!(file.setstat(stat).is_err());
    assert!(std::io::Write::write(&mut file, b"x").is_err());
    assert!(
        session.channel_session().and_then(|mut channel| channel.exec("rm -rf /tmp/none")).is_ok(),
        "it is given SFTP instead"
    );
    let after = fs::metadata(&path).expect("there");
    assert_eq!((after.mode(), after.mtime_nsec(), after.len()), (before.mode(), before.mtime_nsec(), before.len()));
    assert_eq!(fs::read(&path).expect("readable"), bytes);
    assert!(!other.exists());
}

/// A login of the crate ssh2 alone.
fn raw_session(sshd: &Sshd) -> ssh2::Session {
    let mut session = ssh2::Session::new().expect("a session");
    session.set_tcp_stream(std::net::TcpStream::connect(("127.0.0.1", sshd.port)).expect("connected"));
    session.set_timeout(10_000);
    session.handshake().expect("a handshake");
    session.userauth_pubkey_file(&sshd.user, None, &sshd.identity(), None).expect("logged in");
    session
}

#[test]
fn only_a_known_host_key_is_accepted() {
    let sshd = Sshd::start();
    local_repo(&sshd);
    let location = sshd.location(&sshd.files().join("repo"));
    let key = fs::read_to_string(sshd.host_key().with_extension("pub")).expect("a key");
    let shown = run("ssh-keygen", &["-lf", &sshd.host_key().with_extension("pub").display().to_string()]);
    let fingerprint = shown.split_whitespace().find(|word| word.starts_with("SHA256:")).expect("a fingerprint");
    let place = format!("[127.0.0.1]:{}", sshd.port);
    let other = sshd.scratch().join("other");
    keygen(&other, "ed25519", "");
    let other = fs::read_to_string(other.with_extension("pub")).expect("a key");
    let known = sshd.scratch().join("hosts/known");
    let with =
        |accept| Options { known_hosts: Some(vec![known.clone()]), accept_new_host_key: accept, ..sshd.options() };

    let unknown = open_error(&location, with(false));
    assert_eq!(unknown.kind(), Kind::Connection);
    assert!(unknown.to_string().contains(fingerprint), "{unknown}");
    assert!(unknown.hint_text().is_some_and(|hint| hint.contains("--accept-new-host-key")));
    assert!(!known.exists());

    open(&location, with(true)).expect("accepted");
    open(&location, with(false)).expect("known from now on");
    run("ssh-keygen", &["-H", "-f", &known.display().to_string()]);
    assert!(!fs::read_to_string(&known).expect("a file").contains("127.0.0.1"), "hashed");
    open(&location, with(false)).expect("known by its hash");

    fs::write(&known, format!("{place} {other}")).expect("written");
    for accept in [false, true] {
        let changed = open_error(&location, with(accept));
        assert!(changed.to_string().contains("CHANGED") && changed.to_string().contains(fingerprint), "{changed}");
        assert!(changed.hint_text().is_some_and(|hint| hint.contains("ssh-keygen -R")));
    }
    fs::write(&known, format!("{place} {key}@revoked * {key}")).expect("written");
    for accept in [false, true] {
        let revoked = open_error(&location, with(accept));
        assert!(revoked.kind() == Kind::Connection && revoked.to_string().contains("revoked"), "{revoked}");
    }
    for (lines, expected) in [
        (format!("[127.0.*]:* {key}"), true),
        (format!("[127.0.*]:*,!{place} {key}"), false),
        (format!("127.0.0.1 {key}"), true),
        (format!("# comment\nnonsense\n{place},else {key}"), true),
    ] {
        fs::write(&known, &lines).expect("written");
        assert_eq!(open(&location, with(false)).is_ok(), expected, "{lines}");
    }
    // the openssh transport refuses in the same way
    fs::write(&known, "").expect("written");
    let refused = open_error(&location, Options { transport: Transport::OpenSsh, ..with(false) });
    assert!(refused.kind() == Kind::Connection && refused.to_string().contains("verification failed"), "{refused}");
    open(&location, Options { transport: Transport::OpenSsh, ..with(true) }).expect("accepted");
}

/// Answers every question in the same way and keeps it.
struct Typist {
    answer: &'static str,
    asked: Mutex<Vec<String>>,
}

impl Typist {
    fn new(answer: &'static str) -> Arc<Self> {
        Arc::new(Typist { answer, asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

impl Prompt for Typist {
    fn secret(&self, text: &str) -> nfreezer::error::Result<String> {
        self.asked.lock().expect("no holder panics").push(text.into());
        Ok(self.answer.into())
    }
}

fn authorize(sshd: &Sshd, public: &Path) {
    fs::copy(public, sshd.authorized_keys()).expect("copied");
}

#[test]
fn an_encrypted_key_is_asked_for_once_even_over_reconnects() {
    let sshd = Sshd::start();
    local_repo(&sshd);
    let key = sshd.scratch().join("locked");
    keygen(&key, "ed25519", "open sesame");
    authorize(&sshd, &key.with_extension("pub"));
    let location = sshd.location(&sshd.files().join("repo"));
    let with = |prompt| Options { identity: vec![key.clone()], prompt, ..sshd.options() };

    let typist = Typist::new("open sesame");
    let storage = open(&location, with(typist.clone())).expect("logged in");
    sshd.kill_sessions();
    storage.list(Folder::Log).expect("a listing after a reconnect");
    assert_eq!(typist.asked().len(), 1);
    assert!(typist.asked()[0].contains("locked"));

    let wrong = Typist::new("wrong");
    let refused = open_error(&location, with(wrong.clone()));
    assert!(refused.kind() == Kind::Connection && !refused.to_string().contains("wrong"), "{refused}");
    assert_eq!(wrong.asked().len(), 3, "three tries");
    let nobody = open_error(&location, Options { identity: vec![key], ..sshd.options() });
    assert!(nobody.to_string().contains("nobody can be asked"), "{nobody}");
}

/// An agent of the test's own.
struct Agent(Child, std::path::PathBuf);

impl Agent {
    fn start(folder: &Path) -> Agent {
        let socket = folder.join("agent");
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
        let agent = Agent(child.expect("ssh-agent is not installed: run scripts/setup.sh"), socket);
        while std::os::unix::net::UnixStream::connect(&agent.1).is_err() {
            thread::yield_now();
        }
        agent
    }

    fn add(&self, key: &Path) {
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.1).status();
        assert!(added.expect("ssh-add runs").success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_identity_of_the_agent_is_tried() {
    let sshd = Sshd::start();
    local_repo(&sshd);
    let agent = Agent::start(sshd.scratch());
    for (number, kind) in ["ed25519", "rsa", "ecdsa"].into_iter().enumerate() {
        let key = sshd.scratch().join(format!("key{number}"));
        keygen(&key, kind, "");
        agent.add(&key);
        authorize(&sshd, &key.with_extension("pub"));
    }
    let location = sshd.location(&sshd.files().join("repo"));
    let options = Options { identity: Vec::new(), agent: Some(agent.1.clone()), ..sshd.options() };
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        open(&location, Options { transport, ..options.clone() }).expect("the third key is the right one");
    }
    // with IdentitiesOnly the agent is asked for configured keys only
    let config = sshd.scratch().join("only");
    let line = |key: &str| format!("IdentitiesOnly yes\nIdentityFile {}\n", sshd.scratch().join(key).display());
    let with = || Options { ssh_config: Some(config.clone()), ..options.clone() };
    fs::write(&config, line("key0")).expect("written");
    assert_eq!(open_error(&location, with()).kind(), Kind::Connection);
    fs::write(&config, line("key2")).expect("written");
    fs::remove_file(sshd.scratch().join("key2")).expect("only the public half is left");
    open(&location, with()).expect("the agent has the other half");
}

#[test]
fn passwords_are_asked_for_and_questions_of_the_server_are_marked() {
    for (lines, question) in [
        ("PasswordAuthentication yes\nKbdInteractiveAuthentication no", "password of "),
        ("PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM yes", "server asks: "),
    ] {
        let sshd = Sshd::with(Setup { extra: lines.into(), account: Some("correct horse"), ..Setup::default() });
        let location = sshd.location(&sshd.files());
        let with = |prompt| Options { identity: Vec::new(), prompt, ..sshd.options() };
        let typist = Typist::new("correct horse");
        let storage = open(&location, with(typist.clone())).unwrap_or_else(|e| panic!("{e}\n{}", sshd.log()));
        assert_eq!(storage.list(Folder::Root).expect("a listing"), []);
        assert!(typist.asked().len() == 1 && typist.asked()[0].contains(question), "{:?}", typist.asked());
        let wrong = Typist::new("wrong battery");
        let refused = open_error(&location, with(wrong.clone()));
        assert!(refused.kind() == Kind::Connection && !refused.to_string().contains("battery"), "{refused}");
        assert!((1..=3).contains(&wrong.asked().len()), "{:?}", wrong.asked());
    }
}

#[test]
fn the_ssh_configuration_is_honoured() {
    let sshd = Sshd::start();
    let root = local_repo(&sshd);
    let config = sshd.scratch().join("config");
    let text = format!(
        "Host nas\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n\
         Host far\n  HostName 127.0.0.1\n  Port {0}\n  User {1}\n  IdentityFile {2}\n  ProxyCommand ssh -F {} -o UserKnownHostsFile={} -W %h:%p nas\n",
        sshd.port,
        sshd.user,
        sshd.identity().display(),
        config.display(),
        sshd.known_hosts().display(),
    );
    fs::write(&config, text).expect("written");
    let options = Options { identity: Vec::new(), ssh_config: Some(config), ..sshd.options() };
    for (host, transport) in
        [("nas", Transport::Ssh2), ("nas", Transport::OpenSsh), ("nas", Transport::Auto), ("far", Transport::Auto)]
    {
        let location = Location::parse(&format!("{host}:{}", root.display())).expect("an address");
        let storage = open(&location, Options { transport, ..options.clone() }).expect("connected");
        assert_eq!(storage.list(Folder::Log).expect("a listing"), [], "{host} {transport:?}");
    }
}

#[test]
fn a_connection_that_breaks_again_and_again_only_costs_time() {
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let sshd = Sshd::start();
        local_repo(&sshd);
        let storage = sshd.storage(transport);
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(400));
                    sshd.kill_sessions();
                }
            });
            let callers: Vec<_> = (0..4u64)
                .map(|seed| {
                    let storage = &storage;
                    scope.spawn(move || {
                        for round in 0..6 {
                            let bytes = noise(seed * 10 + round, 3_000_000);
                            let name = loop {
                                let name = Name::Pack(fresh());
                                match storage.put(&name, &bytes) {
                                    Ok(()) => break name,
                                    Err(e) if e.kind() == Kind::Exists => {} // a torso of before: the next id
                                    Err(e) => panic!("{e:?}"),
                                }
                            };
                            assert_eq!(storage.read(&name, 1, 2_999_999).expect("a range"), bytes[1..]);
                            assert_eq!(storage.size(&name).expect("a size"), 3_000_000);
                            storage.list(Folder::Log).expect("a listing");
                        }
                    })
                })
                .collect();
            callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
            ended.store(true, Ordering::SeqCst);
        });
    }
}

#[test]
fn a_server_that_is_gone_or_silent_is_reported_in_time() {
    let mut sshd = Sshd::start();
    local_repo(&sshd);
    let proxy = Proxy::start(sshd.port, Duration::ZERO);
    sshd.trust_port(proxy.port);
    let location = sshd.location_by(proxy.port, &sshd.files().join("repo"));
    let options = Options {
        connect_timeout: Duration::from_secs(1),
        io_timeout: Duration::from_secs(1),
        retry_for: Duration::from_secs(2),
        ..sshd.options()
    };
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let storage = open(&location, Options { transport, ..options.clone() }).expect("connected");
        storage.list(Folder::Log).expect("a listing");
        proxy.freeze(true);
        let (name, bytes) = (Name::Pack(fresh()), noise(1, 5_000_000));
        let start = Instant::now();
        assert_eq!(kind(storage.put(&name, &bytes)), Kind::Connection, "{transport:?}");
        assert_eq!(kind(storage.list(Folder::Log)), Kind::Connection, "{transport:?}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        proxy.freeze(false);
        storage.list(Folder::Log).expect("it came back");
        drop(storage);
    }
    let storage = open(&location, options.clone()).expect("connected");
    sshd.stop();
    let gone = storage.list(Folder::Log).expect_err("gone");
    assert_eq!(gone.kind(), Kind::Connection);
    let first = open_error(&sshd.location(&sshd.files()), options);
    assert_eq!(first.kind(), Kind::Connection);
    let text = first.to_string();
    assert!(text.contains("127.0.0.1") && text.contains(&sshd.port.to_string()) && !text.contains('\n'), "{text}");
    sshd.resume();
    storage.list(Folder::Log).expect("it came back");
}

#[test]
fn a_full_disk_is_named() {
    assert!(rustix::process::getuid().is_root(), "this test mounts a small file system: it needs root");
    let sshd = Sshd::start();
    let disk = sshd.files().join("disk");
    fs::create_dir(&disk).expect("a folder");
    run("mount", &["-t", "tmpfs", "-o", "size=6m", "none", &disk.display().to_string()]);
    let unmount = Unmount(disk.display().to_string());
    let local = Local::new(disk.join("repo"));
    local.create_folders().expect("folders");
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let storage =
            open(&sshd.location(&disk.join("repo")), Options { transport, ..sshd.options() }).expect("connected");
        let name = Name::Pack(fresh());
        assert_eq!(kind(storage.put(&name, &noise(1, 16 << 20))), Kind::NoSpace);
        storage.list(Folder::Log).expect("the connection still works");
        storage.remove(&name).expect("removed");
        storage.put(&Name::Pack(fresh()), &noise(1, 100_000)).expect("there is room again");
    }
    assert_eq!(kind(local.put(&Name::Pack(fresh()), &noise(1, 16 << 20))), Kind::NoSpace);
    drop(unmount);
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        run("umount", &["-l", &self.0]);
    }
}

#[test]
fn any_program_that_speaks_sftp_will_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::Sftp(nfreezer::storage::Remote {
        user: None,
        host: "anywhere".into(),
        port: None,
        path: folder.path().join("repo").display().to_string(),
    });
    let with = |command: &str| Options { ssh_command: Some(command.into()), ..Options::default() };
    suite(&*open(&location, with("/usr/lib/openssh/sftp-server")).expect("started"));
    for bad in ["cat", "true", "false", "/does/not/exist", "yes", "sh -c 'echo no >&2; exit 3'"] {
        let options = Options { io_timeout: Duration::from_secs(2), ..with(bad) };
        assert_eq!(open_error(&location, options).kind(), Kind::Connection, "{bad}");
    }
}
