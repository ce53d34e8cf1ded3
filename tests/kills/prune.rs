//! Four clients push changing trees and forget snapshots while a fifth one prunes all the time with a grace time of
//! seconds, over a real sshd. All of them are killed at random. In the end every kept snapshot can be restored, and
//! hardly any other data is left.
//!
//! Each client is a separate process: this test program, which runs [`client_process`] with its orders in the
//! environment, because the program itself does not allow a grace time of seconds.
//!
//! `NFREEZER_MINUTES=30 cargo test --test kills prune -- --nocapture` for longer than CI does.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::Dice;
use crate::harness::repository::{init, open, passphrase};
use crate::harness::sshd::{Sshd, signal};
use crate::harness::tree::{Model, assert_same, in_snapshot, noise, on_disk, write};
use nfreezer::check::{self, Part};
use nfreezer::context::background;
use nfreezer::error::Result;
use nfreezer::format::record::{Action, Head, Mark};
use nfreezer::name::hex;
use nfreezer::prune;
use nfreezer::push;
use nfreezer::repo::{Access, Repository};
use nfreezer::restore;
use nfreezer::seen::SeenStore;
use nfreezer::storage::{self, Local, Location, SshOptions, Storage};
use rustix::process::Signal;
use tempfile::TempDir;

const GRACE: Duration = Duration::from_secs(6);
/// Most time beyond the usual one until each client has forgotten some snapshots.
const LONGEST: Duration = Duration::from_secs(300);
const CLIENTS: u64 = 4;
/// Beginning of the answer of a prune that has nothing to do.
const IDLE: &str = "0 deleted, 0 condemned;";
/// Number of snapshots that a client keeps.
const KEPT: usize = 3;

/// Environment variables with the orders of a client process.
const ORDER: &str = "NFREEZER_TEST_ORDER";
const HOME: &str = "NFREEZER_TEST_HOME";
const ADDRESS: &str = "NFREEZER_TEST_ADDRESS";

/// One machine: its home with its memory, and its tree.
struct Client {
    number: u64,
    home: TempDir,
    address: String,
}

impl Client {
    fn new(sshd: &Sshd, number: u64, repository: &Path) -> Client {
        let home = tempfile::tempdir().unwrap();
        sshd.client_config(home.path(), sshd.port);
        Client { number, home, address: format!("server:{}", repository.display()) }
    }

    fn top(&self) -> PathBuf {
        self.home.path().join("tree")
    }

    /// Starts a process of this client.
    fn start(&self, order: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "prune::client_process", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env(ORDER, order).env(HOME, self.home.path()).env(ADDRESS, &self.address).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a process, kills it after a random part of `longest` in a third of the cases, and returns its answer. Without
    /// `longest` it is never killed.
    fn run(&self, order: &str, dice: &mut Dice, longest: Option<Duration>) -> Option<String> {
        let child = self.start(order);
        let since = Instant::now();
        let longest = longest.filter(|_| dice.roll(3) == 0);
        if let Some(longest) = longest {
            let after = longest.mul_f64(dice.roll(1000) as f64 / 1000.0);
            std::thread::sleep(after.saturating_sub(since.elapsed()));
            signal(child.id(), Signal::KILL);
        }
        let output = child.wait_with_output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(longest.is_some() || output.status.success(), "{order}: {stdout}\n{stderr}");
        if let Some(why) = stdout.lines().find(|line| line.contains("refused: ")) {
            println!("{order} is {why}");
        }
        stdout.lines().find_map(|line| Some(line.split_once("answer: ")?.1.to_owned()))
    }

    /// Changes some files of all sizes. One is also in the trees of the others.
    fn change(&self, round: u64, dice: &mut Dice) {
        let top = self.top();
        write(top.join("common"), noise(round / 4, 700_000));
        write(top.join("steady"), noise(self.number, 2_000_000));
        write(top.join("large"), noise(round * 1000 + self.number, 1_000_000 + dice.roll(3_000_000) as usize));
        for i in 0..10 {
            let name = format!("d{}/f{}", dice.roll(4), dice.roll(20));
            write(top.join(name), noise(round * 1000 + self.number + i, dice.roll(20_000) as usize));
        }
        let _ = std::fs::remove_dir_all(top.join(format!("d{}", dice.roll(4))));
    }
}

/// A snapshot that was reported as saved.
struct Saved {
    client: u64,
    id: String,
    model: Model,
    is_kept: bool,
}

fn minutes() -> f64 {
    std::env::var("NFREEZER_MINUTES").map_or(0.3, |n| n.parse().expect("NFREEZER_MINUTES is a number"))
}

/// Changes, pushes and forgets as one client until `end`, and until it has forgotten two snapshots.
fn pushes(client: &Client, saved: &Mutex<Vec<Saved>>, end: Instant) {
    let mut dice = Dice(client.number + 1);
    let (mut longest, mut forgotten) = (Duration::from_secs(2), 0);
    for round in 0.. {
        client.change(round, &mut dice);
        let since = Instant::now();
        if let Some(id) = client.run("push", &mut dice, Some(longest)) {
            let model = on_disk(&client.top());
            saved.lock().unwrap().push(Saved { client: client.number, id, model, is_kept: true });
            longest = longest.max(since.elapsed());
        }
        let oldest = {
            let mut saved = saved.lock().unwrap();
            let own: Vec<&mut Saved> = saved.iter_mut().filter(|s| s.client == client.number && s.is_kept).collect();
            let is_enough = own.len() > KEPT;
            // A killed process may or may not have forgotten the snapshot.
            own.into_iter().next().filter(|_| is_enough).map(|s| {
                s.is_kept = false;
                s.id.clone()
            })
        };
        if let Some(id) = oldest {
            client.run(&format!("forget {id}"), &mut dice, Some(Duration::from_secs(1)));
            forgotten += 1;
        }
        // A slow machine needs longer until something can be deleted.
        if Instant::now() > end + if forgotten >= 2 { Duration::ZERO } else { LONGEST } {
            break;
        }
    }
}

#[test]
fn clients_and_a_prune_that_are_killed_at_random_lose_nothing_that_was_saved() {
    let sshd = Sshd::start();
    let path = sshd.files().join("repository");
    init(Arc::new(Local::new(&path)));
    let clients: Vec<Client> = (0..=CLIENTS).map(|number| Client::new(&sshd, number, &path)).collect();
    let saved = Mutex::new(Vec::new());
    let (runs, deleted, largest) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes());
    let pruner = &clients[CLIENTS as usize];
    let prune_once = |dice: &mut Dice, longest| {
        let Some(answer) = pruner.run("prune", dice, longest) else { return String::new() };
        runs.fetch_add(1, Ordering::Relaxed);
        deleted.fetch_add(answer.split(' ').next().unwrap().parse().unwrap(), Ordering::Relaxed);
        answer
    };
    std::thread::scope(|scope| {
        let (saved, pushers) = (&saved, &clients[..CLIENTS as usize]);
        let pushers: Vec<_> = pushers.iter().map(|client| scope.spawn(move || pushes(client, saved, end))).collect();
        let mut dice = Dice(99);
        while pushers.iter().any(|pusher| !pusher.is_finished()) {
            println!("prune: {}", prune_once(&mut dice, Some(Duration::from_secs(8))));
            largest.fetch_max(size(&path), Ordering::Relaxed);
            std::thread::sleep(GRACE / 4); // the grace time of the condemned packs passes
        }
    });
    // Two idle runs in a row: a run that sees condemned packs for the first time only waits for their grace time.
    let mut idle = 0;
    for _ in 0..20 {
        std::thread::sleep(GRACE + Duration::from_secs(1)); // the grace time of the condemned packs passes
        let answer = prune_once(&mut Dice(1), None);
        println!("in the end: {answer}");
        idle = if answer.starts_with(IDLE) { idle + 1 } else { 0 };
        if idle == 2 {
            break;
        }
    }
    let repo = open(Arc::new(Local::new(&path)));
    let saved = saved.into_inner().unwrap();
    let live = verify(&repo, &clients, &saved);
    let (total, all) = (size(&path), saved.len());
    println!(
        "{all} snapshots saved, {} kept, {runs:?} prunes ended and deleted {deleted:?} objects; {total} bytes, {live} live \
         ({:.2}), at most {largest:?}",
        saved.iter().filter(|s| s.is_kept).count(),
        total as f64 / live as f64
    );
    assert!(total as f64 <= 1.2 * live as f64, "garbage remains");
    assert!(deleted.into_inner() > 0, "nothing was ever deleted");
}

/// Restores all kept snapshots, compares them with the pushed trees, and reads every pack. Returns the bytes that they
/// need.
fn verify(repo: &Repository, clients: &[Client], saved: &[Saved]) -> u64 {
    let state = repo.state(background()).unwrap();
    let snapshots = state.snapshots();
    for Saved { client, id, model, .. } in saved.iter().filter(|s| s.is_kept) {
        let snapshot = snapshots.iter().find(|s| hex(&s.id.0) == *id).expect("a kept snapshot is there");
        let top = clients[*client as usize].top();
        assert_same(&in_snapshot(repo, snapshot, &top), model);
        let target = tempfile::tempdir().unwrap();
        let (path, options) = (target.path().join("tree"), restore::Options::default());
        restore::restore(background(), repo, snapshot, top.as_os_str().as_bytes(), &path, &options).unwrap();
        assert_same(&on_disk(&path), model);
    }
    let options = check::Options { read: Some(Part::All), ..check::Options::default() };
    let report = check::check(background(), repo, &state, &options, &mut |found| println!("{found:?}")).unwrap();
    assert!(!report.is_damaged() && !report.is_rolled_back(), "{report:?}");
    let plan = prune::plan(background(), repo, &prune::Options::default()).unwrap();
    plan.used.bytes - plan.unused_bytes
}

/// Returns the bytes of all files of the repository.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().filter_map(Result::ok);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0, // removed meanwhile
    });
    sizes.sum()
}

/// Errors that other clients or a slow machine cause: nothing was lost, and the next run may succeed.
const IN_THE_WAY: [&str; 3] = ["other clients write all the time", "took too long", "condemned while the push went on"];

/// Returns the value, or prints the reason why there is none this time.
fn unless_in_the_way<T>(result: Result<T>) -> Option<T> {
    match result {
        Err(e) if IN_THE_WAY.iter().any(|text| e.to_string().contains(text)) => {
            println!("refused: {e}");
            None
        }
        other => Some(other.unwrap()),
    }
}

/// Runs one order of a client and prints the answer.
#[test]
#[ignore = "started by the test above"]
fn client_process() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let home = PathBuf::from(std::env::var(HOME).unwrap());
    let options = storage::Options {
        ssh: SshOptions { ssh_config: Some(home.join("ssh_config")), ..SshOptions::default() },
        ..storage::Options::default()
    };
    let location = Location::parse(&std::env::var(ADDRESS).unwrap()).unwrap();
    let storage: Arc<dyn Storage> = Arc::from(storage::open(background(), &location, options).unwrap());
    let access = Access { seen: Some(SeenStore::at(home.join("seen"))), ..Access::default() };
    let repo = Repository::open_with(background(), storage, &access, || Ok(passphrase())).unwrap().with_grace(GRACE);
    match order.split_once(' ').unwrap_or((&order, "")) {
        ("push", _) => {
            let host = home.file_name().unwrap().to_string_lossy().into_owned();
            let options = push::Options { sources: vec![home.join("tree")], host, ..push::Options::default() };
            if let Some(summary) = unless_in_the_way(push::push(background(), &repo, &options)) {
                println!("answer: {}", hex(&summary.snapshot.id.0));
            }
        }
        ("forget", id) => forget(&repo, id),
        ("prune", _) => {
            let options =
                prune::Options { grace: GRACE, keep_forgotten: GRACE, yes: true, ..prune::Options::default() };
            if let Some(report) = unless_in_the_way(prune::prune(background(), &repo, &options, &mut |_| Ok(()))) {
                println!(
                    "answer: {} deleted, {} condemned; {report:?}",
                    report.deleted.objects, report.condemned.objects
                );
            }
        }
        (other, _) => panic!("no order {other}"),
    }
}

fn forget(repo: &Repository, id: &str) {
    let mut state = repo.state(background()).unwrap();
    if let Some(snapshot) = state.snapshots().into_iter().find(|s| hex(&s.id.0) == id) {
        let mark = Mark::new(snapshot.id, repo.now().seconds, Action::Forget);
        let head = Head { marks: vec![mark], ..Head::default() };
        unless_in_the_way(repo.commit(background(), &mut state, head, &[]));
    }
}
