//! Processes `ssh` that join the built-in transport for bulk data.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nfreezer::storage::{Bulk, Prompt, SshOptions};
use rustix::process::Signal;

use crate::harness::sshd::{descendants, keygen, signal};
use crate::*;

const OBJECT: usize = 1 << 20;
/// Longest wait for something that happens in other processes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens the storage in `auto`, with processes after 2 MiB whatever the round trip is.
fn mixed(sshd: &Sshd, change: impl FnOnce(&mut SshOptions)) -> Box<dyn Storage> {
    let root = local_repo(sshd);
    let options = with_ssh(sshd.options(), |ssh| {
        ssh.transport = Transport::Auto;
        ssh.bulk = Bulk { after: 2 << 20, within: Duration::MAX };
        change(ssh);
    });
    open(background(), &sshd.location(&root), options).expect("connected")
}

fn put(storage: &dyn Storage, objects: &mut Vec<Name>) {
    let name = Name::Pack(fresh());
    storage.put(background(), &name, &noise(objects.len() as u64, OBJECT)).expect("stored");
    objects.push(name);
}

/// Stores objects until `done`.
fn put_until(storage: &dyn Storage, objects: &mut Vec<Name>, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        put(storage, objects);
        if done() {
            return;
        }
        assert!(Instant::now() < deadline, "{what} after {} objects", objects.len());
    }
}

fn assert_stored(storage: &dyn Storage, objects: &[Name]) {
    for (seed, name) in objects.iter().enumerate() {
        let bytes = storage.read(background(), name, 0, OBJECT).expect("readable");
        assert!(bytes == noise(seed as u64, OBJECT), "{name}");
    }
}

/// The processes `ssh` that this test program has started for this server.
fn processes(sshd: &Sshd) -> Vec<u32> {
    let port = format!("\0-p\0{}\0", sshd.port);
    let is_ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"ssh\0") && line.windows(port.len()).any(|window| window == port.as_bytes())
    };
    descendants(std::process::id()).into_iter().filter(is_ours).collect()
}

/// Bytes that these processes have read, from us and from the server.
fn bytes_read(processes: &[u32]) -> u64 {
    let of_one = |pid: &u32| {
        let text = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/io"))).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("rchar: ").and_then(|count| count.parse().ok()));
        line.unwrap_or(0)
    };
    processes.iter().map(of_one).sum::<u64>()
}

#[test]
fn bulk_data_passes_through_processes_and_a_broken_one_is_not_replaced() {
    let sshd = Sshd::start();
    let storage = mixed(&sshd, |_| {});
    let mut objects = Vec::new();
    put(&*storage, &mut objects);
    assert_eq!((sshd.logins(), processes(&sshd)), (1, Vec::new()), "1 MiB is too little");
    put_until(&*storage, &mut objects, "no two processes", || sshd.logins() == 3);
    let children = processes(&sshd);
    assert_eq!(children.len(), 2);
    let mut before = bytes_read(&children);
    put_until(&*storage, &mut objects, "no object went through a process", || {
        let now = bytes_read(&children);
        let passed = now - std::mem::replace(&mut before, now);
        passed >= OBJECT as u64
    });
    let before = bytes_read(&children);
    assert_stored(&*storage, &objects);
    assert!(bytes_read(&children) - before >= (objects.len() * OBJECT) as u64, "reads do not pass through them");

    children.iter().for_each(|pid| signal(*pid, Signal::KILL));
    assert_stored(&*storage, &objects);
    (0..4).for_each(|_| put(&*storage, &mut objects));
    assert_stored(&*storage, &objects);
    assert_eq!((sshd.logins(), processes(&sshd)), (4, Vec::new()), "one new connection, and no new process");
}

#[test]
fn without_a_login_for_processes_the_built_in_transport_goes_on_alone() {
    let sshd = Sshd::start();
    let storage = mixed(&sshd, |_| {});
    fs::write(sshd.authorized_keys(), "").expect("written");
    let mut objects = Vec::new();
    let refused = || sshd.log().lines().filter(|line| line.contains("Connection closed by authenticating")).count();
    put_until(&*storage, &mut objects, "no process tried to log in", || refused() > 0);
    (0..4).for_each(|_| put(&*storage, &mut objects));
    assert_stored(&*storage, &objects);
    assert_eq!((sshd.logins(), refused(), processes(&sshd)), (1, 1, Vec::new()));
}

#[test]
fn no_process_is_started_where_it_is_not_wanted() {
    let sshd = Sshd::start();
    let encrypted = sshd.scratch().join("encrypted");
    keygen(&encrypted, "ed25519", "secret");
    let public = fs::read_to_string(encrypted.with_extension("pub")).expect("a key");
    let keys = fs::read_to_string(sshd.authorized_keys()).expect("the key") + &public;
    fs::write(sshd.authorized_keys(), keys).expect("written");
    let storages = [
        mixed(&sshd, |ssh| ssh.transport = Transport::Ssh2),
        mixed(&sshd, |ssh| ssh.connections = Some(8)),
        mixed(&sshd, |ssh| ssh.bulk.within = Duration::ZERO),
        mixed(&sshd, |ssh| ssh.bulk = Bulk::default()),
        mixed(&sshd, |ssh| {
            ssh.identity = vec![encrypted];
            ssh.prompt = std::sync::Arc::new(Secret);
        }),
    ];
    for (number, storage) in storages.iter().enumerate() {
        let mut objects = Vec::new();
        (0..6).for_each(|_| put(&**storage, &mut objects));
        assert_stored(&**storage, &objects);
        assert_eq!((sshd.logins(), processes(&sshd)), (storages.len(), Vec::new()), "storage {number}");
    }
}

struct Secret;

impl Prompt for Secret {
    fn secret(&self, _: &str) -> Result<String, Error> {
        Ok("secret".into())
    }
}
