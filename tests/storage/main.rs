//! The contract of a storage: one suite runs over every implementation and over real servers. Also tests server faults.

#[path = "../harness/mod.rs"]
mod harness;

mod access;
mod between;
mod bulk;
mod faults;
mod line;
mod logins;
mod moto;
mod object_store;
mod servers;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

use harness::root::needs_root;
use harness::sshd::{Setup, Sshd, run, with_ssh};
use harness::tree::noise;
use nfreezer::context::background;
use nfreezer::error::{Error, Kind};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::progress::{Event, Progress};
use nfreezer::storage::{Capabilities, Local, Location, Memory, Options, Storage, Transport, open};

/// Returns an unused object id.
fn fresh() -> ObjectId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[24..].copy_from_slice(&number.to_be_bytes());
    ObjectId(id)
}

fn kind<T: std::fmt::Debug>(result: nfreezer::error::Result<T>) -> Kind {
    result.expect_err("an error").kind()
}

/// Number of bytes that a storage has reported as sent.
#[derive(Default)]
struct Acknowledged(AtomicI64);

impl Progress for Acknowledged {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Sent { bytes } => self.0.fetch_add(bytes.cast_signed(), Ordering::Relaxed),
            Event::Unsent { bytes } => self.0.fetch_sub(bytes.cast_signed(), Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// Checks the contract of every storage.
fn suite(storage: &dyn Storage) {
    suite_with(storage, true);
}

/// Like [`suite`]. Without `exclusive`, the server need not refuse to create an existing file.
fn suite_with(storage: &dyn Storage, exclusive: bool) {
    storage.create_folders(background()).expect("folders");
    storage.create_folders(background()).expect("a second time");
    for folder in [Folder::Root].into_iter().chain(Folder::all()) {
        assert_eq!(storage.list(background(), folder).expect("a listing"), []);
        assert_eq!(storage.foreign(background(), folder).expect("a count"), 0, "{folder:?}");
    }

    let (pack, record) = (Name::Pack(fresh()), Name::Record { sequence: 7, id: fresh() });
    assert_eq!(kind(storage.size(background(), &pack)), Kind::Missing);
    assert_eq!(kind(storage.read(background(), &pack, 0, 1)), Kind::Missing);
    assert_eq!(kind(storage.read(background(), &pack, 0, 0)), Kind::Missing);
    storage.remove(background(), &pack).expect("what is not there is removed already");

    for (name, len) in [(Name::Config, 100), (Name::Key(fresh()), 264), (record, 0), (pack, 3_000_001)] {
        let bytes = noise(len as u64, len);
        let acknowledged = Acknowledged::default();
        storage.put(&background().with_progress(&acknowledged), &name, &bytes).expect("a new object");
        assert_eq!(acknowledged.0.load(Ordering::Relaxed), len as i64, "{name}: bytes that were reported as sent");
        assert_eq!(storage.size(background(), &name).expect("a size"), len as u64);
        assert_eq!(storage.read(background(), &name, 0, len).expect("all of it"), bytes);
        let listed = storage.list(background(), name.folder()).expect("a listing");
        assert_eq!(listed.iter().map(|entry| (entry.name, entry.size)).collect::<Vec<_>>(), [(name, len as u64)]);
        for other in [&b""[..], b"other", &bytes].into_iter().filter(|_| exclusive) {
            assert_eq!(kind(storage.put(background(), &name, other)), Kind::Exists, "{name} a second time");
        }
        assert_eq!(storage.read(background(), &name, 0, len).expect("unchanged"), bytes);
    }
    assert_eq!(storage.foreign(background(), Folder::Root).expect("a count"), 0);
    if let Some(space) = storage.space(background()).expect("the space") {
        assert!(space.total >= space.free && space.total > 1 << 20, "{space:?}");
    }

    let bytes = noise(3_000_001, 3_000_001);
    for (offset, len) in
        [(0, 1), (3_000_000, 1), (3_000_001, 0), (1_234_567, 70_000), (17, 2_999_000), (65_535, 2), (5, 0)]
    {
        let from = usize::try_from(offset).expect("small");
        assert_eq!(
            storage.read(background(), &pack, offset, len).expect("a range"),
            bytes[from..from + len],
            "{len} at {offset}"
        );
    }
    for (offset, len) in
        [(3_000_001, 1), (0, 3_000_002), (2_999_999, 700_000), (u64::MAX, 1), (u64::MAX - 2, 10), (1 << 40, 0)]
    {
        assert_eq!(kind(storage.read(background(), &pack, offset, len)), Kind::Damaged, "{len} at {offset}");
    }

    many_threads(storage);

    storage.remove(background(), &pack).expect("removed");
    storage.remove(background(), &pack).expect("removed already");
    let many: Vec<Name> = (0..12).map(|_| Name::Pack(fresh())).collect();
    many[..10].iter().for_each(|name| storage.put(background(), name, b"x").expect("a new object"));
    assert!(storage.remove_all(background(), &many).expect("all are gone").is_empty());
    many.iter().for_each(|name| assert_eq!(kind(storage.size(background(), name)), Kind::Missing, "{name}"));
    assert_eq!(kind(storage.size(background(), &pack)), Kind::Missing);
    assert_eq!(kind(storage.read(background(), &pack, 0, 1)), Kind::Missing);
    let (sent, received) = storage.traffic();
    assert!(sent > 3_000_000 && received > 3_000_000, "{sent} {received}");
}

/// Puts, reads and lists from eight threads at once.
fn many_threads(storage: &dyn Storage) {
    let before = storage.list(background(), Folder::PackShard(5)).expect("a listing").len();
    let names: Vec<Vec<Name>> = thread::scope(|scope| {
        let caller = |seed: u64| {
            move || {
                let mut names = Vec::new();
                for round in 0..12 {
                    let mut id = fresh();
                    id.0[0] = 0x50 | (id.0[0] & 15);
                    let (name, bytes) = (Name::Pack(id), noise(seed * 100 + round, 1 + 37_000 * round as usize));
                    storage.put(background(), &name, &bytes).expect("a new object");
                    let from = bytes.len() / 3;
                    assert_eq!(
                        storage.read(background(), &name, from as u64, bytes.len() - from).expect("a range"),
                        bytes[from..]
                    );
                    assert_eq!(storage.size(background(), &name).expect("a size"), bytes.len() as u64);
                    storage.list(background(), Folder::PackShard(5)).expect("a listing");
                    names.push(name);
                }
                names
            }
        };
        let callers: Vec<_> = (0..8).map(|seed| scope.spawn(caller(seed))).collect();
        callers.into_iter().map(|caller| caller.join().expect("no panic")).collect()
    });
    let listed = storage.list(background(), Folder::PackShard(5)).expect("a listing");
    assert_eq!(listed.len(), before + 96);
    let listed: BTreeSet<Name> = listed.into_iter().map(|entry| entry.name).collect();
    assert!(names.iter().flatten().all(|name| listed.contains(name)));
}

/// Checks properties that are visible only in the server's files, which are in `root`.
fn files_suite(storage: &dyn Storage, root: &Path) {
    let mode = |path: &Path| fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777;
    let name = Name::Pack(fresh());
    storage.put(background(), &name, b"bytes").expect("a new object");
    let path = root.join(name.path());
    assert_eq!(mode(&path), 0o400);
    assert!(Folder::all().all(|folder| mode(&root.join(folder.path())) == 0o700));
    let entry = storage
        .list(background(), name.folder())
        .expect("a listing")
        .into_iter()
        .find(|entry| entry.name == name)
        .expect("listed");
    assert_eq!(entry.mtime, fs::metadata(&path).expect("there").mtime());

    // foreign files are not listed, but counted
    let before = storage.foreign(background(), Folder::Root).expect("a count");
    fs::write(root.join("notes.txt"), "x").expect("written");
    fs::write(root.join("bad\u{1b}name"), "x").expect("written");
    assert_eq!(storage.foreign(background(), Folder::Root).expect("a count"), before + 2);

    // links, pipes and folders under the names of objects
    let (to_link, to_pipe, to_folder) = (Name::Pack(fresh()), Name::Pack(fresh()), Name::Pack(fresh()));
    symlink(&path, root.join(to_link.path())).expect("a link");
    let pipe = root.join(to_pipe.path());
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    fs::create_dir(root.join(to_folder.path())).expect("a folder");
    for name in [to_link, to_pipe, to_folder] {
        let listed = storage.list(background(), name.folder()).expect("a listing");
        assert!(listed.iter().all(|entry| entry.name != name), "{name} is listed");
        assert_eq!(kind(storage.size(background(), &name)), Kind::Damaged);
        assert_eq!(kind(storage.read(background(), &name, 0, 1)), Kind::Damaged);
        assert_eq!(kind(storage.put(background(), &name, b"x")), Kind::Exists);
    }
    assert_eq!(storage.read(background(), &name, 0, 5).expect("still well"), b"bytes");
    // unblocks a server that hangs in `open` of the pipe, since it would outlive the test
    let _partner = fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe");
    fs::remove_file(&pipe).expect("removed");

    // an incomplete object is never written again
    let torso = Name::Pack(fresh());
    fs::write(root.join(torso.path()), "by").expect("written");
    assert_eq!(kind(storage.put(background(), &torso, b"bytes")), Kind::Exists);
    assert_eq!(kind(storage.read(background(), &torso, 0, 5)), Kind::Damaged);

    missing_folders(storage, root);

    fs::rename(root, root.with_extension("away")).expect("renamed");
    for kind in [
        kind(storage.list(background(), Folder::Root)),
        kind(storage.list(background(), Folder::PackShard(1))),
        kind(storage.foreign(background(), Folder::Root)),
        kind(storage.size(background(), &Name::Config)),
        kind(storage.read(background(), &Name::Config, 0, 1)),
        kind(storage.put(background(), &Name::Pack(fresh()), b"x")),
        kind(storage.remove(background(), &Name::Config)),
    ] {
        assert_eq!(kind, Kind::NoRepository);
    }
    fs::rename(root.with_extension("away"), root).expect("renamed back");
}

/// Checks a copy of a repository without its empty folders: they count as empty, and a put creates them again.
fn missing_folders(storage: &dyn Storage, root: &Path) {
    let away = root.with_extension("folders");
    fs::create_dir(&away).expect("a folder");
    for folder in ["keys", "log", "packs"] {
        fs::rename(root.join(folder), away.join(folder)).expect("renamed");
    }
    let (pack, record) = (Name::Pack(fresh()), Name::Record { sequence: 9, id: fresh() });
    for folder in Folder::all() {
        assert_eq!(storage.list(background(), folder).expect("an empty listing"), [], "{folder:?}");
        assert_eq!(storage.foreign(background(), folder).expect("a count"), 0);
    }
    for name in [pack, record] {
        assert_eq!(kind(storage.size(background(), &name)), Kind::Missing);
        assert_eq!(kind(storage.read(background(), &name, 0, 1)), Kind::Missing);
        storage.remove(background(), &name).expect("it is not there");
    }
    // a link to a disk that is not mounted does not count as a missing folder
    symlink(away.join("disk"), root.join("log")).expect("a link");
    assert_ne!(kind(storage.list(background(), Folder::Log)), Kind::NoRepository);
    assert_ne!(kind(storage.put(background(), &record, b"record")), Kind::NoRepository);
    fs::remove_file(root.join("log")).expect("removed");
    for name in [pack, record] {
        storage.put(background(), &name, b"bytes").expect("its folder is made again");
        assert_eq!(storage.read(background(), &name, 0, 5).expect("there"), b"bytes");
        let made = root.join(name.folder().path());
        assert_eq!(fs::metadata(made).expect("there").permissions().mode() & 0o7777, 0o700);
    }
    for folder in ["log", "packs"] {
        fs::remove_dir_all(root.join(folder)).expect("removed");
    }
    for folder in ["keys", "log", "packs"] {
        fs::rename(away.join(folder), root.join(folder)).expect("renamed back");
    }
}

/// Checks that the folders above a new repository are created.
fn missing_parents(storage: &dyn Storage, root: &Path) {
    assert_eq!(kind(storage.list(background(), Folder::Root)), Kind::NoRepository);
    assert_eq!(kind(storage.foreign(background(), Folder::Root)), Kind::NoRepository);
    storage.create_folders(background()).expect("folders");
    assert!(root.join("packs/f").is_dir());
    assert_eq!(storage.list(background(), Folder::Root).expect("a listing"), []);
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
    let deep = folder.path().join("no/parent/yet");
    missing_parents(&Local::new(&deep), &deep);
    fs::write(folder.path().join("file"), "x").expect("written");
    assert_eq!(kind(Local::new(folder.path().join("file/repo")).create_folders(background())), Kind::Failed);
}

fn server(sshd: &Sshd, transport: Transport) {
    let storage = sshd.storage(transport);
    assert!(storage.capabilities().durable_put);
    suite(&*storage);
    files_suite(&*storage, &sshd.files().join("repo"));
    let deep = sshd.files().join("no/parent/yet");
    let options = with_ssh(sshd.options(), |ssh| ssh.transport = transport);
    missing_parents(&*open(background(), &sshd.location(&deep), options).expect("connected"), &deep);
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
    if !needs_root("a mount namespace for dropbear") {
        return;
    }
    server(&Sshd::dropbear(), Transport::Ssh2);
}

#[test]
fn dropbear_through_openssh() {
    if !needs_root("a mount namespace for dropbear") {
        return;
    }
    server(&Sshd::dropbear(), Transport::OpenSsh);
}

#[test]
fn a_server_that_allows_one_channel_only() {
    let sshd = Sshd::with(Setup { extra: "MaxSessions 1".into(), ..Setup::default() });
    suite(&*sshd.storage(Transport::Ssh2));
}

fn local_repo(sshd: &Sshd) -> std::path::PathBuf {
    let root = sshd.files().join("repo");
    Local::new(&root).create_folders(background()).expect("folders");
    root
}

fn open_error(location: &Location, options: Options) -> Error {
    open(background(), location, options).map(|_| ()).expect_err("an error")
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
        assert!(storage.capabilities().durable_put);
        let mine = Name::Pack(fresh());
        storage.put(background(), &mine, &bytes).expect("a new object");
        assert_eq!(storage.read(background(), &mine, 5, 999_995).expect("a range"), bytes[5..]);
        assert!(storage.list(background(), mine.folder()).expect("a listing").iter().any(|entry| entry.name == mine));
        assert_eq!(kind(storage.put(background(), &mine, &bytes)), Kind::Exists);
        let refused = storage.remove(background(), &mine).expect_err("may not remove");
        assert!(refused.kind() == Kind::Failed && refused.to_string().contains("permission denied"), "{refused}");
        storage.create_folders(background()).expect("all are there");
    }
    sshd.storage(Transport::Ssh2).put(background(), &name, &bytes).expect("a new object");
    let path = root.join(name.path());
    let before = fs::metadata(&path).expect("there");
    assert_eq!(before.mode() & 0o7777, 0o400);

    // the same with another client, which tries all SFTP operations
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

/// Logs in with the crate ssh2 alone.
fn raw_session(sshd: &Sshd) -> ssh2::Session {
    let mut session = ssh2::Session::new().expect("a session");
    session.set_tcp_stream(std::net::TcpStream::connect(("127.0.0.1", sshd.port)).expect("connected"));
    session.set_timeout(10_000);
    session.handshake().expect("a handshake");
    session.userauth_pubkey_file(&sshd.user, None, &sshd.identity(), None).expect("logged in");
    session
}
