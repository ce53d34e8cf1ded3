//! Many clients, one repository, no lock: four processes push changing trees over a real sshd and are killed at random.
//! Every snapshot reported as saved is there in the end, and the log was merged meanwhile.
//!
//! `NFREEZER_ROUNDS=50 cargo test --test kills clients -- --nocapture` for more rounds than CI runs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::Dice;
use crate::harness::cli::PASSPHRASE;
use crate::harness::process::hermetic;
use crate::harness::repository;
use crate::harness::sshd::{Sshd, signal};
use crate::harness::tree::{Model, assert_same, in_snapshot, noise, on_disk, write};
use nfreezer::context::background;
use nfreezer::format::record::Head;
use nfreezer::name::{Folder, hex};
use nfreezer::storage::Local;
use rustix::process::Signal;
use tempfile::TempDir;

/// One machine: its home, its tree, and the snapshots reported to it as saved.
struct Client {
    number: u64,
    home: TempDir,
    repository: String,
    saved: Vec<(String, Model)>,
}

impl Client {
    fn new(sshd: &Sshd, number: u64, repository: &Path) -> Client {
        let home = tempfile::tempdir().unwrap();
        sshd.client_config(home.path(), sshd.port);
        Client { number, home, repository: format!("server:{}", repository.display()), saved: Vec::new() }
    }

    fn top(&self) -> PathBuf {
        self.home.path().join("tree")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nfreezer"));
        hermetic(&mut command, self.home.path()).args(arguments);
        command.env("NFREEZER_PASSWORD", PASSPHRASE).env("NFREEZER_REPOSITORY", &self.repository);
        command.arg("-o").arg(format!("ssh.config={}", self.home.path().join("ssh_config").display()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Writes files of all sizes, several of which change, come and go. One is also in the trees of the others.
    fn change(&self, round: u64, dice: &mut Dice) {
        let top = self.top();
        let seed = round * 1000 + self.number;
        write(top.join("common"), noise(round, 700_000));
        write(top.join("growing"), noise(self.number, 300_000 * (1 + round as usize % 9)));
        write(top.join("large"), noise(seed, 3_000_000 + dice.roll(3_000_000) as usize));
        for i in 0..20 {
            write(top.join(format!("d{}/f{i}", dice.roll(4))), noise(seed + i, dice.roll(20_000) as usize));
        }
        let _ = std::fs::remove_dir_all(top.join(format!("d{}", dice.roll(4))));
    }

    fn push(&self) -> Child {
        let top = self.top();
        self.command(&["push", "--json", "--host", &format!("host{}", self.number), top.to_str().unwrap()])
            .spawn()
            .unwrap()
    }

    /// Reads the report of an ended push. Returns true if the push saved a snapshot.
    fn ended(&mut self, child: Child, killed: bool) -> bool {
        let output = child.wait_with_output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(killed || output.status.success(), "nobody stopped it: {} {stdout} {stderr}", output.status);
        if output.status.success() {
            let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
            assert_eq!(last["type"], "summary");
            self.saved.push((last["snapshot"].as_str().unwrap().to_owned(), on_disk(&self.top())));
        }
        output.status.success()
    }
}

fn rounds() -> u64 {
    std::env::var("NFREEZER_ROUNDS").map_or(5, |n| n.parse().expect("NFREEZER_ROUNDS is a number"))
}

/// Runs one round: all four push at once, about half of them are stopped at a random moment. Returns the longest time
/// of a push so far.
fn round(clients: &mut [Client], dice: &mut Dice, longest: Duration) -> Duration {
    let mut running: Vec<_> = clients
        .iter()
        .map(|client| {
            let after = longest.mul_f64(dice.roll(1000) as f64 / 1000.0);
            let end = [Signal::TERM, Signal::KILL][dice.roll(2) as usize];
            (Some(client.push()), Instant::now(), (dice.roll(2) == 0).then_some((after, end)), false)
        })
        .collect();
    let mut took = longest;
    while running.iter().any(|(child, ..)| child.is_some()) {
        for (client, (child, since, stop, stopped)) in clients.iter_mut().zip(&mut running) {
            let Some(process) = child else { continue };
            if let Some((_, end)) = stop.take_if(|(after, _)| since.elapsed() >= *after) {
                signal(process.id(), end);
                *stopped = true;
            }
            if process.try_wait().unwrap().is_some() && client.ended(child.take().expect("it was there"), *stopped) {
                took = took.max(since.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(2)); // between two looks at the processes
    }
    took
}

#[test]
fn four_clients_that_are_killed_at_random_lose_nothing_that_was_saved() {
    let sshd = Sshd::start();
    let path = sshd.files().join("repository");
    let mut clients: Vec<_> = (0..4).map(|number| Client::new(&sshd, number, &path)).collect();
    assert!(clients[0].command(&["init"]).output().unwrap().status.success());
    let open = || repository::open(Arc::new(Local::new(&path)));
    let repo = open();
    let mut state = repo.state(background()).unwrap();
    (0..12).for_each(|_| drop(repo.commit(background(), &mut state, Head::default(), &[]))); // a log that is about to be merged
    let (mut dice, mut longest) = (Dice(4), Duration::from_secs(2));
    for number in 0..rounds() {
        clients.iter().for_each(|client| client.change(number, &mut dice));
        longest = round(&mut clients, &mut dice, longest);
    }
    for client in &mut clients {
        client.change(rounds(), &mut dice);
        assert!(client.ended(client.push(), false));
    }
    let repo = open();
    let state = repo.state(background()).unwrap();
    let (records, saved) = (
        repo.storage().list(background(), Folder::Log).unwrap().len(),
        clients.iter().map(|c| c.saved.len()).sum::<usize>(),
    );
    println!("{} rounds, {saved} snapshots saved, {records} records, {} in force", rounds(), state.records());
    assert!(state.records() <= 20 && records > state.records(), "nothing was merged");
    let snapshots = state.snapshots();
    for client in &clients {
        for (id, model) in &client.saved {
            let snapshot = snapshots.iter().find(|s| hex(&s.id.0) == *id).expect("what was saved is there");
            assert_same(&in_snapshot(&repo, snapshot, &client.top()), model);
        }
    }
}
