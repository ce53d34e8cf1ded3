//! Faults of a server: broken connections, silence, full disks, programs that do not speak SFTP.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nfreezer::context::background;
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::repo::Repository;
use nfreezer::storage::{Remote, command_words};

use crate::harness::proxy::Proxy;
use crate::harness::root::needs_root;
use crate::harness::sshd::{descendants, run, signal};
use crate::*;

#[test]
fn openssh_is_taken_where_libssh2_knows_no_algorithm_of_the_server() {
    let extra = "KexAlgorithms sntrup761x25519-sha512@openssh.com".into();
    let sshd = Sshd::with(Setup { extra, ..Setup::default() });
    let root = local_repo(&sshd);
    let error = open_error(&sshd.location(&root), sshd.options());
    assert_eq!(error.kind(), Kind::Connection);
    sshd.storage(Transport::Auto).list(background(), Folder::Log).expect("a listing");
}

#[test]
fn a_connection_that_breaks_again_and_again_only_costs_time() {
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let sshd = Sshd::start();
        local_repo(&sshd);
        let storage = sshd.storage(transport);
        let (ended, done) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                // cuts depend on progress, not on time: a busy machine may need longer than any pause to connect
                let mut next = 5;
                while !ended.load(Ordering::SeqCst) {
                    if done.load(Ordering::SeqCst) >= next {
                        next += 9;
                        sshd.kill_sessions();
                    }
                    thread::sleep(Duration::from_millis(3));
                }
            });
            let callers: Vec<_> = (0..4u64)
                .map(|seed| {
                    let (storage, done) = (&storage, &done);
                    scope.spawn(move || {
                        for round in 0..6 {
                            let bytes = noise(seed * 10 + round, 3_000_000);
                            let name = loop {
                                let name = Name::Pack(fresh());
                                match storage.put(background(), &name, &bytes) {
                                    Ok(()) => break name,
                                    Err(e) if e.kind() == Kind::Exists => {} // an incomplete object: use another id
                                    Err(e) => panic!("{e:?}"),
                                }
                            };
                            done.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(storage.read(background(), &name, 1, 2_999_999).expect("a range"), bytes[1..]);
                            done.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(storage.size(background(), &name).expect("a size"), 3_000_000);
                            storage.list(background(), Folder::Log).expect("a listing");
                            done.fetch_add(2, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
            ended.store(true, Ordering::SeqCst);
        });
        assert!(sshd.logins() > 3, "{transport:?}: the connection was never broken");
    }
}

#[test]
fn a_server_that_is_gone_or_silent_is_reported_in_time() {
    let mut sshd = Sshd::start();
    local_repo(&sshd);
    let proxy = Proxy::start(sshd.port, Duration::ZERO);
    sshd.trust_port(proxy.port);
    let location = sshd.location_by(proxy.port, &sshd.files().join("repo"));
    let options = with_ssh(Options { retry_for: Duration::from_secs(2), ..sshd.options() }, |ssh| {
        ssh.connect_timeout = Duration::from_secs(3); // a login takes a second on a busy machine
        ssh.io_timeout = Duration::from_secs(1);
    });
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let storage = open(
            background(),
            &location,
            with_ssh(options.clone(), |ssh| {
                ssh.transport = transport;
            }),
        )
        .expect("connected");
        storage.list(background(), Folder::Log).expect("a listing");
        proxy.freeze(true);
        let (name, bytes) = (Name::Pack(fresh()), noise(1, 5_000_000));
        assert_eq!(kind(storage.put(background(), &name, &bytes)), Kind::Connection, "{transport:?}");
        assert_eq!(kind(storage.list(background(), Folder::Log)), Kind::Connection, "{transport:?}");
        proxy.freeze(false);
        storage.list(background(), Folder::Log).expect("it came back");
        drop(storage);
    }
    let storage = open(background(), &location, options.clone()).expect("connected");
    sshd.stop();
    let gone = storage.list(background(), Folder::Log).expect_err("gone");
    assert_eq!(gone.kind(), Kind::Connection);
    let first = open_error(&sshd.location(&sshd.files()), options);
    assert_eq!(first.kind(), Kind::Connection);
    let text = first.to_string();
    assert!(text.contains("127.0.0.1") && text.contains(&sshd.port.to_string()) && !text.contains('\n'), "{text}");
    sshd.resume();
    storage.list(background(), Folder::Log).expect("it came back");
}

#[test]
fn a_full_disk_is_named() {
    if !needs_root("a small file system") {
        return;
    }
    assert!(rustix::process::getuid().is_root(), "this test mounts a small file system: it needs root");
    let sshd = Sshd::start();
    let disk = sshd.files().join("disk");
    fs::create_dir(&disk).expect("a folder");
    run("mount", &["-t", "tmpfs", "-o", "size=6m", "none", &disk.display().to_string()]);
    let unmount = Unmount(disk.display().to_string());
    let local = Local::new(disk.join("repo"));
    local.create_folders(background()).expect("folders");
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let storage = open(
            background(),
            &sshd.location(&disk.join("repo")),
            with_ssh(sshd.options(), |ssh| {
                ssh.transport = transport;
            }),
        )
        .expect("connected");
        assert_full_disk_keeps_nothing(&*storage);
    }
    assert_full_disk_keeps_nothing(&local);
    drop(unmount);
}

/// Puts objects that are too large for the disk, which leave nothing there, and a small one.
fn assert_full_disk_keeps_nothing(storage: &dyn Storage) {
    for name in [Name::Pack(fresh()), Name::Record { sequence: 1, id: fresh() }, Name::Key(fresh())] {
        assert_full(storage.put(background(), &name, &noise(1, 16 << 20)));
        assert_eq!(storage.size(background(), &name).expect_err("it was removed").kind(), Kind::Missing, "{name}");
    }
    assert_eq!(storage.list(background(), Folder::Log).expect("the connection still works"), []);
    storage.put(background(), &Name::Pack(fresh()), &noise(1, 100_000)).expect("there is room again");
}

fn assert_full(result: Result<(), Error>) {
    let error = result.expect_err("the disk is full");
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("`nfreezer prune --exclusive`")), "{error}");
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
    let path = folder.path().join("repo").display().to_string();
    let remote = Remote { user: None, host: "anywhere".into(), port: None, path };
    let location = Location::Sftp(remote.clone());
    let with = |command: &str| {
        with_ssh(Options::default(), |ssh| {
            ssh.command = command_words(command);
        })
    };
    suite(&*open(background(), &location, with("/usr/lib/openssh/sftp-server")).expect("started"));
    // only the first process serves SFTP: the others end, and the client continues without them
    let flag = folder.path().join("flag");
    let once = format!("sh -c 'mkdir {} && exec /usr/lib/openssh/sftp-server'", flag.display());
    let second = Remote { path: folder.path().join("second").display().to_string(), ..remote };
    let storage = open(background(), &Location::Sftp(second), with(&once)).expect("started");
    suite(&*storage);
    for bad in ["cat", "true", "false", "/does/not/exist", "yes", "sh -c 'echo no >&2; exit 3'"] {
        let options = with_ssh(with(bad), |ssh| {
            ssh.io_timeout = Duration::from_secs(2);
        });
        let error = open_error(&location, options);
        assert_eq!(error.kind(), Kind::Connection, "{bad}");
        let hint = error.hint_text().is_some_and(|hint| hint.contains("install that program"));
        assert_eq!(hint, bad == "/does/not/exist", "{bad}: {error}");
    }
}

#[test]
fn words_before_sftp_are_shown_with_the_place_to_look() {
    let forced = "ForceCommand printf 'Wel\\033[1mcome\\n'; exec /usr/lib/openssh/sftp-server";
    let sshd = Sshd::with(Setup { extra: forced.into(), ..Setup::default() });
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let options = with_ssh(sshd.options(), |ssh| ssh.transport = transport);
        let error = open_error(&sshd.location(&sshd.files()), options);
        assert_eq!(error.kind(), Kind::Connection);
        assert!(error.to_string().contains(r#""Wel\x1b[1mcome\n"#), "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains(".bashrc")), "{error:?}");
    }
}

#[test]
fn a_connection_that_ends_before_sftp_begins_has_a_hint() {
    for forced in ["ForceCommand /bin/false", "ChrootDirectory /tmp"] {
        let sshd = Sshd::with(Setup { extra: forced.into(), ..Setup::default() });
        let options = with_ssh(sshd.options(), |ssh| ssh.transport = Transport::Ssh2);
        let error = open_error(&sshd.location(&sshd.files()), options);
        assert_eq!(error.kind(), Kind::Connection, "{forced}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("ChrootDirectory")), "{forced}: {error:?}");
    }
}

#[test]
fn a_file_in_the_place_of_the_repository_is_no_damage() {
    let sshd = Sshd::start();
    fs::write(sshd.files().join("file"), "x").expect("written");
    for place in ["file", "file/below"] {
        let location = sshd.location(&sshd.files().join(place));
        let storage = nfreezer::storage::open(background(), &location, sshd.options()).expect("a connection");
        let storage: Arc<dyn Storage> = storage.into();
        let created = Repository::check_empty(background(), &*storage).and_then(|()| {
            let passphrase = Passphrase::new("p".into()).expect("not empty");
            Repository::init(background(), Arc::clone(&storage), &passphrase, KdfCost::DEFAULT, "")
        });
        let error = created.err().expect("it is a file");
        assert_eq!(error.kind(), Kind::Failed, "{place}: {error}");
        assert!(error.to_string().contains("a file may be in the place of a folder"), "{error}");
    }
}

#[test]
fn a_server_that_only_reads_is_reported_as_such() {
    let sshd = Sshd::with(Setup { sftp_server: "internal-sftp -R".into(), ..Setup::default() });
    let root = local_repo(&sshd);
    let name = Name::Pack(fresh());
    Local::new(&root).put(background(), &name, b"bytes").expect("a new object");
    let storage = sshd.storage(Transport::Ssh2);
    assert_eq!(storage.read(background(), &name, 0, 5).expect("it reads"), b"bytes");
    fs::remove_dir(root.join("keys")).expect("removed");
    for error in [
        storage.put(background(), &Name::Pack(fresh()), b"x").expect_err("it only reads"),
        storage.put(background(), &Name::Key(fresh()), b"x").expect_err("it only reads"),
        storage.remove(background(), &name).expect_err("it only reads"),
        storage.create_folders(background()).expect_err("it only reads"),
    ] {
        assert!(error.to_string().contains("the server allows reading only"), "{error}");
        assert!(
            error.hint_text().is_some_and(|hint| hint.contains("-R") && !hint.contains("append-only")),
            "{error:?}"
        );
    }
    // a key that may not create folders is another case
    let other = Sshd::append_only();
    let refused = other.storage(Transport::Ssh2).create_folders(background()).expect_err("append-only");
    assert!(refused.to_string().contains("permission denied"), "{refused}");
}

#[test]
fn a_first_connection_is_tried_again_only_if_that_was_asked_for() {
    let mut sshd = Sshd::start();
    let location = sshd.location(&local_repo(&sshd));
    sshd.stop();
    let (heard, notice) = crate::line::listener();
    let options = Options { notice, retry_first: true, retry_for: Duration::from_secs(60), ..sshd.options() };
    assert_eq!(open_error(&location, sshd.options()).kind(), Kind::Connection);
    thread::scope(|scope| {
        let opening = scope.spawn(|| open(background(), &location, options.clone()).map(drop));
        while heard.lock().expect("no holder panics").is_empty() {
            thread::yield_now();
        }
        sshd.resume();
        opening.join().expect("no panic").expect("it came up");
    });
    let heard = std::mem::take(&mut *heard.lock().expect("no holder panics"));
    assert!(heard.len() == 1 && heard[0].contains("trying again for up to 60 s"), "{heard:?}");
    // a refused login is final
    fs::write(sshd.authorized_keys(), "").expect("written");
    let refused = open_error(&location, options);
    assert!(refused.to_string().contains("refused the login"), "{refused}");
    // the retries end after their time, and when the user stops them
    sshd.stop();
    let short = Options { retry_first: true, retry_for: Duration::from_millis(700), ..sshd.options() };
    assert_eq!(open_error(&location, short.clone()).kind(), Kind::Connection);
    let ctx = background().child();
    ctx.cancel();
    let stopped = open(&ctx, &location, Options { retry_for: Duration::from_secs(600), ..short }).map(drop);
    assert_eq!(kind(stopped), Kind::Cancelled);
}

#[test]
fn a_ctrl_c_at_the_terminal_does_not_reach_the_children() {
    let sshd = Sshd::start();
    local_repo(&sshd);
    let storage = sshd.storage(Transport::OpenSsh);
    let comm = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let mut children = descendants(std::process::id());
    // this includes children of other tests that run at the same time; they must ignore the signals too
    children.retain(|pid| comm(*pid).trim() == "ssh");
    assert!(!children.is_empty());
    for pid in children {
        signal(pid, rustix::process::Signal::INT);
        signal(pid, rustix::process::Signal::HUP);
    }
    storage.put(background(), &Name::Pack(fresh()), &noise(1, 1_000_000)).expect("a new object");
    storage.list(background(), Folder::Log).expect("a listing");
    assert_eq!(sshd.logins(), 1, "the first connection is still there");
}

#[test]
fn a_server_without_extensions_is_used_and_said_not_to_sync() {
    let plain = "internal-sftp -P fsync,statvfs,limits".into();
    let sshd = Sshd::with(Setup { sftp_server: plain, ..Setup::default() });
    local_repo(&sshd);
    let storage = sshd.storage(Transport::Ssh2);
    assert!(!storage.capabilities().durable_put);
    let (name, bytes) = (Name::Pack(fresh()), noise(1, 1_000_000));
    storage.put(background(), &name, &bytes).expect("a new object");
    assert_eq!(storage.read(background(), &name, 1, 999_999).expect("a range"), bytes[1..]);
}
