//! The memory of a run that repacks full packs. It is measured in a process of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::format::record::Action;
use nfreezer::prune::{self, Unused};
use nfreezer::push;
use nfreezer::repo::{Access, Repository};
use nfreezer::seen::SeenStore;
use nfreezer::storage::Local;

use super::scale::peak;
use super::world::options;
use crate::harness::repository::{init, passphrase};
use crate::harness::tree::{noise, write};

/// Files of 1 MiB: 8 full packs.
const FILES: u64 = 128;
/// Bytes that the process may use: the cache before and after the survey, packs in flight, and the program.
const MOST: u64 = 256 << 20;
const HOME: &str = "NFREEZER_TEST_PRUNED";

#[test]
fn a_run_that_repacks_stays_below_256_mib() {
    let home = tempfile::tempdir().unwrap();
    let repo = init(Arc::new(Local::new(home.path().join("repository"))));
    let top = home.path().join("top");
    let options =
        push::Options { sources: vec![top.clone()], host: "h".into(), user: "u".into(), ..Default::default() };
    (0..FILES).for_each(|i| write(top.join(i.to_string()), noise(i, 1 << 20)));
    let first = push::push(background(), &repo, &options).unwrap().snapshot;
    (0..FILES).step_by(2).for_each(|i| std::fs::remove_file(top.join(i.to_string())).unwrap());
    push::push(background(), &repo, &options).unwrap();
    let mut state = repo.state(background()).unwrap();
    repo.commit_marks(background(), &mut state, [(first.id, Action::Forget)]).unwrap();
    drop(repo);
    let mut measured = Command::new(std::env::current_exe().unwrap());
    measured.args(["--exact", "prune::memory::pruned_process", "--ignored", "--nocapture"]);
    let output = measured.env(HOME, home.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    let peak = text.lines().find_map(|line| line.strip_prefix("measured: peak ")).unwrap();
    let peak: u64 = peak.parse().unwrap();
    assert!(peak <= MOST, "{} MiB", peak >> 20);
}

#[test]
#[ignore = "started by the test above"]
fn pruned_process() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    let open = || {
        let access = Access { seen: Some(SeenStore::at(home.join("seen"))), ..Access::default() };
        let storage = Arc::new(Local::new(home.join("repository")));
        let repo = Repository::open_with(background(), storage, &access, || Ok(passphrase())).unwrap();
        repo.state(background()).unwrap();
        repo
    };
    open();
    let repo = open();
    println!("\nmeasured: opened with {} MiB", peak() >> 20);
    let options = prune::Options { exclusive: true, yes: true, max_unused: Unused::Bytes(0), ..options() };
    let report = prune::prune(background(), &repo, &options, &mut |_| Ok(())).unwrap();
    println!("measured: {report:?}");
    assert!(report.repacked.bytes > 120 << 20 && report.deleted.bytes >= report.repacked.bytes);
    println!("measured: peak {}", peak());
}
