//! The line: what happens when a run is asked to stop, when connections break all the time, when a server wants fewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize};
use std::time::Duration;

use crate::harness::proxy::Proxy;
use crate::*;

/// A server behind a proxy, and the way through it.
struct Behind {
    sshd: Sshd,
    proxy: Proxy,
    location: Location,
}

fn behind(setup: Setup) -> Behind {
    let sshd = Sshd::with(setup);
    let root = local_repo(&sshd);
    let proxy = Proxy::start(sshd.port, Duration::ZERO);
    sshd.trust_port(proxy.port);
    let location = sshd.location_by(proxy.port, &root);
    Behind { sshd, proxy, location }
}

#[test]
fn a_put_that_is_told_to_stop_ends_and_the_connection_lives_on() {
    let line = behind(Setup::default());
    let storage = open(&line.location, line.sshd.options()).expect("connected");
    let bytes = noise(1, 64 << 20);
    let name = Name::Pack(fresh());
    let asked = AtomicUsize::new(0);
    // it stops while its requests fill the line, on which nothing moves
    line.proxy.freeze(true);
    let stop = || asked.fetch_add(1, Ordering::SeqCst) >= 5;
    assert_eq!(kind(storage.put_unless(&name, &bytes, &stop)), Kind::Interrupted(0));
    line.proxy.freeze(false);
    storage.put(&Name::Pack(fresh()), &bytes[..100_000]).expect("the connection is still good");
    // in the middle of its writes
    asked.store(0, Ordering::SeqCst);
    let name = Name::Pack(fresh());
    let stop = || asked.fetch_add(1, Ordering::SeqCst) >= 20;
    assert_eq!(kind(storage.put_unless(&name, &bytes, &stop)), Kind::Interrupted(0));
    assert!(storage.size(&name).expect("a torso") < 64 << 20);
    storage.put(&Name::Pack(fresh()), &bytes[..100_000]).expect("the connection is still good");
    assert_eq!(line.sshd.logins(), 1);
    // before it began, and in the pauses of reconnecting
    assert_eq!(kind(storage.put_unless(&Name::Pack(fresh()), b"x", &|| true)), Kind::Interrupted(0));
    line.proxy.accept(false);
    line.proxy.cut();
    asked.store(0, Ordering::SeqCst);
    assert_eq!(kind(storage.put_unless(&Name::Pack(fresh()), b"x", &stop)), Kind::Interrupted(0));
    line.proxy.accept(true);
    storage.list(Folder::Log).expect("it came back");
}

#[test]
fn a_put_into_a_folder_stops_between_its_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Local::new(folder.path());
    storage.create_folders().expect("folders");
    let (name, asked) = (Name::Pack(fresh()), AtomicUsize::new(0));
    let stop = || asked.fetch_add(1, Ordering::SeqCst) >= 3;
    assert_eq!(kind(storage.put_unless(&name, &noise(1, 8 << 20), &stop)), Kind::Interrupted(0));
    assert!((1..8 << 20).contains(&storage.size(&name).expect("a torso")));
    assert_eq!(kind(storage.put_unless(&Name::Pack(fresh()), b"x", &|| true)), Kind::Interrupted(0));
}

#[test]
fn a_run_that_was_asked_to_stop_uses_a_line_that_works_and_gives_up_one_that_does_not() {
    let line = behind(Setup::default());
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let stop = Arc::new(AtomicI32::new(0));
        let patient = Duration::from_secs(900);
        let options = Options { transport, stop: Some(Arc::clone(&stop)), retry_for: patient, ..line.sshd.options() };
        let options = Options { io_timeout: patient, ..options };
        let storage = open(&line.location, options.clone()).expect("connected");
        stop.store(2, Ordering::SeqCst);
        storage.put(&Name::Pack(fresh()), &noise(1, 1_000_000)).expect("a last commit");
        storage.list(Folder::Log).expect("a listing");
        line.proxy.freeze(true);
        assert_eq!(kind(storage.list(Folder::Log)), Kind::Interrupted(2), "{transport:?}");
        assert_eq!(kind(storage.put(&Name::Pack(fresh()), b"x")), Kind::Interrupted(2));
        drop(storage);
        line.proxy.freeze(false);
        // the same while it tries to connect again
        stop.store(0, Ordering::SeqCst);
        let storage = open(&line.location, options).expect("connected");
        line.proxy.accept(false);
        line.proxy.cut();
        stop.store(15, Ordering::SeqCst);
        assert_eq!(kind(storage.list(Folder::Log)), Kind::Interrupted(15), "{transport:?}");
        line.proxy.accept(true);
    }
}
