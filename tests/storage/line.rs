//! Connections: stopping a run, connections that break again and again, servers that limit their number.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::proxy::Proxy;
use crate::*;
use nfreezer::context::Context;
use nfreezer::progress::{Event, Progress, Silent};

/// A server behind a proxy, and its address through the proxy.
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

/// Cancels a context once this number of bytes was sent.
struct StopAfter<'c> {
    ctx: &'c Context<'static>,
    bytes: u64,
    sent: AtomicU64,
}

impl<'c> StopAfter<'c> {
    fn new(ctx: &'c Context<'static>, bytes: u64) -> Self {
        StopAfter { ctx, bytes, sent: AtomicU64::new(0) }
    }
}

impl Progress for StopAfter<'_> {
    fn event(&self, event: Event<'_>) {
        if let Event::Sent { bytes } = event
            && self.sent.fetch_add(bytes, Ordering::SeqCst) + bytes >= self.bytes
        {
            self.ctx.cancel();
        }
    }
}

#[test]
fn a_put_that_is_reported_to_stop_ends_and_the_connection_lives_on() {
    let line = behind(Setup::default());
    let storage = open(background(), &line.location, line.sshd.options()).expect("connected");
    let bytes = noise(1, 64 << 20);
    let name = Name::Pack(fresh());
    // stopped while its requests fill a frozen connection
    line.proxy.freeze(true);
    let ctx = background().child();
    let stopped = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            ctx.cancel();
        });
        storage.put(&ctx, &name, &bytes)
    });
    assert_eq!(kind(stopped), Kind::Cancelled);
    line.proxy.freeze(false);
    storage.put(background(), &Name::Pack(fresh()), &bytes[..100_000]).expect("the connection is still good");
    // stopped in the middle of its writes
    let (name, ctx) = (Name::Pack(fresh()), background().child());
    let stop = StopAfter::new(&ctx, 8 << 20);
    assert_eq!(kind(storage.put(&ctx.with_progress(&stop), &name, &bytes)), Kind::Cancelled);
    assert!(storage.size(background(), &name).expect("a torso") < 64 << 20);
    storage.put(background(), &Name::Pack(fresh()), &bytes[..100_000]).expect("the connection is still good");
    assert_eq!(line.sshd.logins(), 1);
    // stopped before the put began, and in the pauses between attempts to reconnect
    assert_eq!(kind(storage.put(&ctx, &Name::Pack(fresh()), b"x")), Kind::Cancelled);
    line.proxy.accept(false);
    line.proxy.cut();
    assert_eq!(kind(storage.put(&ctx, &Name::Pack(fresh()), b"x")), Kind::Cancelled);
    line.proxy.accept(true);
    storage.list(background(), Folder::Log).expect("it came back");
}

#[test]
fn a_put_into_a_folder_stops_between_its_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Local::new(folder.path());
    storage.create_folders(background()).expect("folders");
    let (name, ctx) = (Name::Pack(fresh()), background().child());
    let stop = StopAfter::new(&ctx, 1);
    assert_eq!(kind(storage.put(&ctx.with_progress(&stop), &name, &vec![1; 64 << 20])), Kind::Cancelled);
    assert_eq!(kind(storage.size(background(), &name)), Kind::Missing, "the torso was removed");
    assert_eq!(kind(storage.put(&ctx, &Name::Pack(fresh()), b"x")), Kind::Cancelled);
}

#[test]
fn a_run_that_was_asked_to_stop_uses_a_line_that_works_and_gives_up_one_that_does_not() {
    let line = behind(Setup::default());
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let patient = Duration::from_secs(900);
        let options = with_ssh(Options { retry_for: patient, ..line.sshd.options() }, |ssh| {
            ssh.transport = transport;
            ssh.io_timeout = patient;
        });
        let stop = Arc::new(AtomicI32::new(0));
        let ctx = Context::new(&Silent, Arc::clone(&stop));
        let last = ctx.with_grace(Duration::MAX);
        let storage = open(&ctx, &line.location, options.clone()).expect("connected");
        stop.store(2, Ordering::SeqCst);
        assert_eq!(kind(storage.list(&ctx, Folder::Log)), Kind::Interrupted(2), "{transport:?}");
        storage.put(&last, &Name::Pack(fresh()), &noise(1, 1_000_000)).expect("a last commit");
        storage.list(&last, Folder::Log).expect("a listing");
        line.proxy.freeze(true);
        assert_eq!(kind(storage.list(&last, Folder::Log)), Kind::Interrupted(2), "{transport:?}");
        assert_eq!(kind(storage.put(&last, &Name::Pack(fresh()), b"x")), Kind::Interrupted(2));
        drop(storage);
        line.proxy.freeze(false);
        // the same during attempts to reconnect
        let stop = Arc::new(AtomicI32::new(0));
        let ctx = Context::new(&Silent, Arc::clone(&stop));
        let last = ctx.with_grace(Duration::MAX);
        let storage = open(&ctx, &line.location, options).expect("connected");
        line.proxy.accept(false);
        line.proxy.cut();
        stop.store(15, Ordering::SeqCst);
        assert_eq!(kind(storage.list(&last, Folder::Log)), Kind::Interrupted(15), "{transport:?}");
        line.proxy.accept(true);
    }
}

/// Returns a list of messages about the connection, and the notice function that fills it.
pub fn listener() -> (Arc<Mutex<Vec<String>>>, nfreezer::storage::Notice) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let theirs = Arc::clone(&heard);
    (heard, Arc::new(move |text| theirs.lock().expect("no holder panics").push(text.into())))
}

/// Puts objects of 16 MiB from four threads. Each object gets new names until one of its puts succeeds.
fn put_all(storage: &dyn Storage, count: u64) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::SeqCst) < count {
                    let bytes = noise(next.load(Ordering::SeqCst), 16 << 20);
                    while let Err(e) = storage.put(background(), &Name::Pack(fresh()), &bytes) {
                        assert_eq!(e.kind(), Kind::Exists, "{e}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_push_gets_through_although_every_connection_is_killed_after_a_moment() {
    let line = behind(Setup::default());
    let (heard, notice) = listener();
    // 40 MB/s: four simultaneous puts would never end before the next cut, and single puts do
    let limit_upload = Some(40_000_000.into());
    let options = Options { notice, limit_upload, retry_for: Duration::from_secs(600), ..line.sshd.options() };
    let storage = open(background(), &line.location, options).expect("connected");
    let (ended, cuts, begun) = (AtomicBool::new(false), AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut since, mut accepted) = (Instant::now(), line.proxy.accepted());
            while !ended.load(Ordering::SeqCst) {
                if accepted != line.proxy.accepted() {
                    (since, accepted) = (Instant::now(), line.proxy.accepted());
                }
                if since.elapsed() > Duration::from_millis(1500) && cuts.load(Ordering::SeqCst) < 6 {
                    line.proxy.cut();
                    cuts.fetch_add(1, Ordering::SeqCst);
                    since = Instant::now();
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        put_all(&*storage, 16);
        ended.store(true, Ordering::SeqCst);
    });
    let stored: Vec<u64> = (0..16)
        .flat_map(|shard| storage.list(background(), Folder::PackShard(shard)).expect("a listing"))
        .map(|entry| entry.size)
        .collect();
    assert_eq!(stored.iter().filter(|size| **size == 16 << 20).count(), 16);
    assert!(cuts.load(Ordering::SeqCst) > 2, "it was over before it began");
    let heard = heard.lock().expect("no holder panics");
    let minutes = begun.elapsed().as_secs() as usize / 60;
    assert!((1..=2 + 2 * minutes).contains(&heard.len()), "said once a minute, not for every cut: {heard:?}");
}

#[test]
fn the_user_hears_that_the_line_is_gone_and_that_it_is_back() {
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let mut sshd = Sshd::start();
        let root = local_repo(&sshd);
        let (heard, notice) = listener();
        let storage = open(
            background(),
            &sshd.location(&root),
            with_ssh(Options { notice, ..sshd.options() }, |ssh| {
                ssh.transport = transport;
            }),
        )
        .expect("connected");
        sshd.stop();
        thread::scope(|scope| {
            let listing = scope.spawn(|| storage.list(background(), Folder::Log));
            while heard.lock().expect("no holder panics").is_empty() {
                thread::yield_now();
            }
            sshd.resume();
            listing.join().expect("no panic").expect("it came back");
        });
        let heard = heard.lock().expect("no holder panics");
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].contains("trying again for up to 30 s") && heard[1].contains("again after"), "{heard:?}");
        drop(storage);
    }
    // --retry-for 0: no further attempt
    let line = behind(Setup::default());
    let (heard, notice) = listener();
    let options = Options { notice, retry_for: Duration::ZERO, ..line.sshd.options() };
    let storage = open(background(), &line.location, options).expect("connected");
    line.proxy.cut();
    for _ in 0..3 {
        assert_eq!(kind(storage.list(background(), Folder::Log)), Kind::Connection);
    }
    assert_eq!((line.sshd.logins(), heard.lock().expect("no holder panics").len()), (1, 0));
}

#[test]
fn a_login_that_is_refused_on_reconnecting_is_not_tried_by_every_thread() {
    let line = behind(Setup::default());
    let storage = open(background(), &line.location, line.sshd.options()).expect("connected");
    fs::write(line.sshd.authorized_keys(), "").expect("written");
    line.proxy.cut();
    let before = line.proxy.accepted();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(kind(storage.list(background(), Folder::Log)), Kind::Connection));
        }
    });
    assert!(line.proxy.accepted() <= before + 2, "{}", line.proxy.accepted() - before);
}

#[test]
fn a_server_that_wants_fewer_connections_gets_fewer() {
    for sessions in [1, 2] {
        let extra = format!("MaxSessions {sessions}");
        let line = behind(Setup { extra, ..Setup::default() });
        let storage = open(background(), &line.location, line.sshd.options()).expect("connected");
        put_all(&*storage, 8);
        suite_again(&*storage);
        assert_eq!(line.sshd.logins(), 1, "the connection was never lost");
    }
    for most in [1, 2] {
        let line = behind(Setup { extra: "MaxStartups 1".into(), ..Setup::default() });
        line.proxy.most(most);
        let options = with_ssh(line.sshd.options(), |ssh| {
            ssh.transport = Transport::OpenSsh;
        });
        let storage = open(background(), &line.location, options).expect("connected");
        put_all(&*storage, 8);
        suite_again(&*storage);
        assert!(line.proxy.refused() <= 1, "{} attempts were refused", line.proxy.refused());
        assert_eq!(line.sshd.logins(), most);
    }
}

/// Reads and lists from many threads.
fn suite_again(storage: &dyn Storage) {
    many_threads(storage);
}

#[test]
fn limits_hold() {
    let line = behind(Setup::default());
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        let rate = 2_000_000;
        let limits =
            Options { limit_upload: Some(rate.into()), limit_download: Some(rate.into()), ..line.sshd.options() };
        let storage = open(
            background(),
            &line.location,
            with_ssh(limits, |ssh| {
                ssh.transport = transport;
            }),
        )
        .expect("connected");
        let (name, bytes) = (Name::Pack(fresh()), noise(1, 4_000_000));
        let start = Instant::now();
        storage.put(background(), &name, &bytes).expect("a new object");
        let up = start.elapsed();
        assert_eq!(storage.read(background(), &name, 0, bytes.len()).expect("all of it"), bytes);
        let down = start.elapsed() - up;
        // checks only the upper bound of the rate: the actual rate depends on the machine
        assert!(up.as_secs_f64() > 1.7 && down.as_secs_f64() > 1.7, "{transport:?}: {up:?} {down:?}");
    }
}

#[test]
fn an_idle_connection_is_kept_alive() {
    let line = behind(Setup::default());
    let config = line.sshd.scratch().join("alive");
    fs::write(&config, "IdentityFile none\nServerAliveInterval 1\n").expect("written");
    let options = with_ssh(line.sshd.options(), |ssh| {
        ssh.ssh_config = Some(config);
    });
    let storage = open(background(), &line.location, options).expect("connected");
    storage.list(background(), Folder::Log).expect("a listing");
    let before = storage.traffic();
    let grown = |(sent, received): (u64, u64)| sent > before.0 + 200 && received > before.1 + 200;
    while !grown(storage.traffic()) {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(line.sshd.logins(), 1);
}
