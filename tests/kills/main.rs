//! The binary is killed at random moments of pushes of a changing tree. Snapshots reported as saved are there and
//! whole, unfinished ones hold the contents that they claim, and the next push ends well.
//!
//! `NFREEZER_KILLS=200 NFREEZER_MIB=100 NFREEZER_SEED=7 cargo test --test kills killed -- --nocapture`
//! for more of them than CI does.

mod clients;
#[path = "../harness/mod.rs"]
mod harness;
mod line;
mod prune;
mod tree;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::cli::Env;
use harness::repository;
use harness::sshd::{Sshd, signal};
use harness::tree::{Model, assert_same, check_partial, in_snapshot};
use nfreezer::context::background;
use nfreezer::format::record::Snapshot;
use nfreezer::name::hex;
use nfreezer::repo::Repository;
use nfreezer::storage::Local;
use rustix::process::Signal;
use serde_json::Value;
use tree::Tree;

/// A client that pushes into a repository.
struct Client {
    env: Env,
    arguments: Vec<String>,
    /// Folder of the repository on this machine.
    repository: PathBuf,
}

impl Client {
    fn local() -> Client {
        let env = Env::new();
        let repository = env.path("repository");
        Client { arguments: vec!["-r".into(), repository.display().to_string()], repository, env }.init()
    }

    /// Makes a client that connects to this port of the server or of a proxy.
    fn of(sshd: &Sshd, port: u16) -> Client {
        Client::with(sshd, port, sshd.files().join("repository"))
    }

    /// Makes a client with the repository in this folder of the server.
    fn with(sshd: &Sshd, port: u16, repository: std::path::PathBuf) -> Client {
        let env = Env::new();
        let config = format!("ssh.config={}", sshd.client_config(&env.home(), port).display());
        let address = format!("server:{}", repository.display());
        Client { arguments: vec!["-r".into(), address, "-o".into(), config], repository, env }.init()
    }

    fn init(self) -> Client {
        assert!(self.command(&["init"]).output().unwrap().status.success());
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command(arguments);
        command.args(&self.arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn push(&self, source: &std::path::Path, more: &[&str]) -> Child {
        let source = source.to_str().unwrap();
        self.command(&[&["push", "--json", "--host", "host", source], more].concat()).spawn().unwrap()
    }

    fn open(&self) -> Repository {
        repository::open(Arc::new(Local::new(&self.repository)))
    }

    fn records(&self) -> usize {
        std::fs::read_dir(self.repository.join("log")).unwrap().count()
    }
}

/// The result of an ended push.
struct Ended {
    code: Option<i32>,
    summary: Option<Value>,
    text: String,
}

fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!stderr.contains("panicked"), "{stderr}");
    let last = stdout.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let summary = last.filter(|last| last["type"] == "summary");
    Ended { code: output.status.code(), summary, text: format!("{} {stdout} {stderr}", output.status) }
}

/// Waits for a push that must succeed, and returns its summary.
fn succeeded(child: Child) -> Value {
    let ended = ended(child);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    ended.summary.expect("a summary")
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The moment at which the process is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// This time after its start.
    After(Duration),
    /// This time after a record has appeared: of a checkpoint, or of the end.
    Record(Duration),
    /// The process is paused the first time after its start, until a checkpoint is due. It is killed the second time
    /// after a record has appeared.
    Checkpoint(Duration, Duration),
}

/// Counters of a run.
#[derive(Debug, Default)]
struct Counts {
    kills: u64,
    busy: u64,
    after_record: u64,
    partial: u64,
    unreported: u64,
    ended_before: u64,
    versions: usize,
    bytes: u64,
}

struct Run<'a> {
    client: &'a Client,
    /// The server, if the client does not write to the folder itself.
    sshd: Option<&'a Sshd>,
    repo: Repository,
    tree: Tree,
    took: Duration,
    counts: Counts,
    /// Snapshots reported as saved, and their contents.
    saved: Vec<(String, Model)>,
}

impl Run<'_> {
    fn moment(&mut self) -> Moment {
        let micros = self.took.as_micros() as u64;
        let mut up_to = |micros| Duration::from_micros(self.tree.dice.roll(micros));
        let (any, soon, short) = (up_to(micros), up_to(4000), up_to(micros / 2));
        match self.tree.dice.roll(10) {
            0..=4 => Moment::After(any),
            5 => Moment::After((self.took + soon).saturating_sub(Duration::from_millis(20))),
            6 | 7 => Moment::Record(soon),
            _ => Moment::Checkpoint(any, if self.tree.dice.roll(2) == 0 { soon } else { short }),
        }
    }

    /// Runs a push that is killed, while the tree changes or not. Returns false if the push ended before.
    fn kill(&mut self, moment: Moment, busy: bool) -> bool {
        let (before, start) = (self.client.records(), Instant::now());
        let more: &[&str] = if let Moment::Checkpoint(..) = moment { &["--checkpoint", "1s"] } else { &[] };
        let mut child = self.client.push(&self.tree.top(), more);
        let (mut recorded, mut stood, mut changed) = (None, false, start);
        loop {
            if recorded.is_none() && self.client.records() > before {
                recorded = Some(Instant::now());
            }
            let due = match moment {
                Moment::After(time) => start.elapsed() >= time,
                Moment::Record(time) | Moment::Checkpoint(_, time) => recorded.is_some_and(|r| r.elapsed() >= time),
            };
            if due || child.try_wait().unwrap().is_some() {
                break;
            }
            if let Moment::Checkpoint(at, _) = moment
                && !stood
                && start.elapsed() >= at
            {
                signal(child.id(), Signal::STOP);
                std::thread::sleep(Duration::from_millis(1050)); // an interval of checkpoints
                signal(child.id(), Signal::CONT);
                stood = true;
            }
            if busy && changed.elapsed() >= Duration::from_millis(15) {
                self.tree.step();
                changed = Instant::now();
            }
            std::thread::sleep(Duration::from_micros(200)); // between two looks at the process
        }
        signal(child.id(), Signal::KILL);
        let ended = ended(child);
        assert!(matches!(ended.code, None | Some(0 | 3)), "{}", ended.text);
        // The server stores what the client has sent before its end.
        self.sshd.inspect(|sshd| sshd.sessions_end());
        let killed = ended.code.is_none();
        self.counts.after_record += u64::from(killed && self.client.records() > before);
        self.look(ended.summary.as_ref(), busy, killed);
        killed
    }

    /// Checks all snapshots that the push has left, also unreported ones.
    fn look(&mut self, summary: Option<&Value>, busy: bool, killed: bool) {
        let reported = summary.map(|s| s["snapshot"].as_str().unwrap().to_owned());
        for snapshot in self.repo.state(background()).unwrap().snapshots() {
            let id = hex(&snapshot.id.0);
            if self.saved.iter().any(|(saved, _)| *saved == id) {
                continue;
            }
            let model = self.check(&snapshot, busy);
            self.counts.partial += u64::from(snapshot.partial);
            self.counts.unreported += u64::from(killed && !snapshot.partial && reported.is_none());
            if !snapshot.partial {
                self.saved.push((id, model)); // also if it was not reported: it is there, so it has to stay
            }
        }
        if let Some(id) = reported {
            assert!(self.saved.iter().any(|(saved, _)| *saved == id), "what was reported is there");
        }
    }

    /// Checks a snapshot of the push that has just ended, and returns its contents.
    fn check(&mut self, snapshot: &Snapshot, busy: bool) -> Model {
        let top = self.tree.top();
        match (busy, snapshot.partial) {
            (true, _) => {
                let saved = self.tree.check_versions(&self.repo, snapshot);
                self.counts.versions += saved.len();
                saved
            }
            (false, true) => {
                self.counts.bytes += check_partial(&self.repo, snapshot, &top, &self.tree.model());
                Model::new()
            }
            (false, false) => {
                let saved = in_snapshot(&self.repo, snapshot, &top);
                assert_same(&saved, &self.tree.model());
                saved
            }
        }
    }

    /// Runs a push to its end, of a tree that does not change.
    fn finish(&mut self) {
        let start = Instant::now();
        let summary = succeeded(self.client.push(&self.tree.top(), &[]));
        if self.counts.kills.is_multiple_of(10) {
            self.took = start.elapsed();
        }
        let id = summary["snapshot"].as_str().unwrap().to_owned();
        let snapshots = self.repo.state(background()).unwrap().snapshots();
        assert!(snapshots.iter().all(|s| !s.partial), "the unfinished ones have ended");
        let snapshot = snapshots.iter().find(|s| hex(&s.id.0) == id).expect("what was reported is there");
        let model = self.tree.model();
        assert_same(&in_snapshot(&self.repo, snapshot, &self.tree.top()), &model);
        self.saved.push((id, model));
    }
}

fn killed_at_random(client: &Client, sshd: Option<&Sshd>, kills: u64, seed: u64) {
    let tree = Tree::new(seed, (number("NFREEZER_MIB", 16) as usize) << 20);
    let (repo, took) = (client.open(), Duration::ZERO);
    let mut run = Run { client, sshd, repo, tree, took, counts: Counts::default(), saved: Vec::new() };
    run.finish();
    while run.counts.kills < kills {
        run.tree.change();
        if run.counts.kills.is_multiple_of(10) {
            run.finish(); // measures how long it takes when nothing happens
            run.tree.change();
        }
        for _ in 0..1 + run.tree.dice.roll(5) / 4 {
            let (moment, busy) = (run.moment(), run.counts.kills % 2 == 1);
            match run.kill(moment, busy) {
                true => run.counts.kills += 1,
                false => run.counts.ended_before += 1,
            }
            run.counts.busy += u64::from(busy);
            if busy {
                break; // a later partial snapshot may stem from this one, of which only versions are known
            }
        }
        run.finish();
    }
    println!("seed {seed}, {} snapshots saved, {:?}", run.saved.len(), run.counts);
    let repo = client.open();
    let state = repo.state(background()).unwrap();
    for (id, model) in &run.saved {
        let snapshot = state.snapshots().into_iter().find(|s| hex(&s.id.0) == *id).expect("what was saved is there");
        assert_same(&in_snapshot(&repo, &snapshot, &run.tree.top()), model);
    }
}

#[test]
fn pushes_into_a_folder_that_are_killed_at_random_lose_nothing() {
    killed_at_random(&Client::local(), None, number("NFREEZER_KILLS", 12), number("NFREEZER_SEED", 1));
}

#[test]
fn pushes_over_sftp_that_are_killed_at_random_lose_nothing() {
    let sshd = Sshd::start();
    let kills = number("NFREEZER_KILLS", 12).div_ceil(4);
    killed_at_random(&Client::of(&sshd, sshd.port), Some(&sshd), kills, number("NFREEZER_SEED", 1) + 1000);
}
