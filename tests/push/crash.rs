//! A push may die at any moment. Earlier snapshots stay whole, no half-saved snapshot is ever shown, and the next push
//! succeeds.

use std::path::{Path, PathBuf};

use crate::harness::faults::{gone, torn};
use crate::harness::repository;
use crate::harness::tree::{Model, assert_same, in_snapshot, noise, on_disk, write};
use nfreezer::context::background;
use nfreezer::error::Kind;
use nfreezer::format::record::Snapshot;
use nfreezer::push::{Options, Summary, push};
use nfreezer::repo::Repository;
use nfreezer::storage::Memory;

fn save(repo: &Repository, top: &Path) -> nfreezer::error::Result<Summary> {
    let options = Options {
        sources: vec![PathBuf::from(top)],
        host: "host".into(),
        user: "user".into(),
        tags: Vec::new(),
        description: String::new(),
        ..Options::default()
    };
    push(background(), repo, &options)
}

/// Writes a few folders and files, one of which differs in each round. A push of them stores two data packs, one
/// metadata pack and one record.
fn change(top: &Path, round: u64) {
    write(top.join("changing"), noise(round, 18 << 20));
    write(top.join(format!("{}/new", round % 3)), noise(round, 3000));
    write(top.join("d/same"), b"same");
}

/// Repeats a failing push, a check of everything saved, and a push without a fault, until a push ends before its fault.
/// Returns the number of failed pushes.
fn rounds(repo: &Repository, arm: impl Fn(i64), disarm: impl Fn()) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    change(&top, 0);
    let first = save(repo, &top).unwrap().snapshot;
    let first_model = on_disk(&top);
    for n in 0.. {
        change(&top, n + 1);
        arm(n as i64);
        let hit = save(repo, &top);
        disarm();
        check(repo, &first, &first_model);
        match hit {
            Ok(summary) => {
                check(repo, &summary.snapshot, &on_disk(&top));
                return n;
            }
            Err(e) => assert_eq!(e.kind(), Kind::Connection, "{e}"),
        }
        let again = save(repo, &top).unwrap();
        check(repo, &again.snapshot, &on_disk(&top));
        assert!(n < 200, "it never succeeds");
    }
    unreachable!()
}

fn check(repo: &Repository, snapshot: &Snapshot, model: &Model) {
    let top = PathBuf::from(String::from_utf8(snapshot.paths[0].to_vec()).unwrap());
    assert!(repo.state(background()).unwrap().snapshots().contains(snapshot));
    assert_same(&in_snapshot(repo, snapshot, &top), model);
}

#[test]
fn a_server_that_goes_away_at_any_call_costs_only_that_push() {
    let storage = gone(Memory::default());
    let repo = repository::init(storage.clone());
    // Only about every third call fails, because many calls list folders.
    let calls = rounds(&repo, |n| storage.arm(3 * n + n % 3), || storage.disarm());
    assert!(calls >= 8, "only {calls} calls were made to fail");
}

#[test]
fn a_client_that_is_killed_while_it_sends_any_object_costs_only_that_push() {
    let storage = torn(Memory::default());
    let repo = repository::init(storage.clone());
    let puts = rounds(&repo, |n| storage.arm(n), || storage.disarm());
    assert!(puts >= 4, "only {puts} objects were cut");
}
