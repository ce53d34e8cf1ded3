//! Forgotten snapshots: hidden, readable by their ids, and shown again.

use std::fs;
use std::path::{Path, PathBuf};

use nfreezer::context::background;
use nfreezer::error::Kind;
use nfreezer::forget;
use nfreezer::format::record::{Action, Snapshot};
use nfreezer::name::Name;
use nfreezer::storage::Storage;

use crate::harness::cli::Env;
use crate::harness::saved::Saved;

fn forget_one(saved: &Saved, snapshot: &Snapshot) {
    let mut state = saved.repo.state(background()).unwrap();
    saved.repo.commit_marks(background(), &mut state, [(snapshot.id, Action::Forget)]).unwrap();
}

#[test]
fn a_forgotten_snapshot_is_read_by_its_id_only_and_shown_again_by_undelete() {
    let saved = Saved::new();
    saved.write("file", 1, 1000);
    let snapshot = saved.push().snapshot;
    forget_one(&saved, &snapshot);
    let mut state = saved.repo.state(background()).unwrap();
    assert_eq!((state.snapshots(), state.forgotten()), (vec![], vec![snapshot.clone()]));
    let id = snapshot.id.short();
    assert_eq!(state.select("latest").unwrap_err().kind(), Kind::Failed);
    assert_eq!(state.select(&id).unwrap_err().kind(), Kind::Failed, "no push takes it for a parent");
    assert_eq!(state.select_to_read("latest", |_| true).unwrap_err().kind(), Kind::Failed);
    assert_eq!(state.select_to_read(&id, |_| true).unwrap(), snapshot);
    saved.assert_restores(&snapshot);
    let records = saved.records().len();
    forget::undelete(background(), &saved.repo, &mut state, std::slice::from_ref(&snapshot)).unwrap();
    assert_eq!(saved.records().len(), records + 1);
    assert_eq!(saved.repo.state(background()).unwrap().select("latest").unwrap(), snapshot);
    assert!(state.select_forgotten(&id).unwrap_err().to_string().contains("is not forgotten"));
}

#[test]
fn a_snapshot_whose_data_is_gone_is_not_shown_again() {
    let saved = Saved::new();
    saved.write("file", 1, 1000);
    let snapshot = saved.push().snapshot;
    forget_one(&saved, &snapshot);
    saved.memory.remove(background(), &Name::Pack(snapshot.root.unwrap().pack.id)).unwrap();
    saved.repo.forget_blocks();
    let mut state = saved.repo.state(background()).unwrap();
    let records = saved.records();
    let refused = forget::undelete(background(), &saved.repo, &mut state, std::slice::from_ref(&snapshot)).unwrap_err();
    assert!(refused.kind().is_damage() && refused.to_string().contains("its data is gone"), "{refused}");
    assert_eq!(saved.records(), records);
}

fn packs(repo: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(repo.join("packs")).unwrap().flat_map(|f| fs::read_dir(f.unwrap().path()).unwrap());
    let mut packs: Vec<PathBuf> = folders.map(|f| f.unwrap().path()).collect();
    packs.sort_by_key(|pack| pack.metadata().unwrap().len());
    packs
}

/// A server that hides a pack during `repair --yes` must not take a snapshot away for good.
#[test]
fn what_repair_forgets_is_shown_again_by_the_command_that_it_prints() {
    let env = Env::with_repository();
    env.write("src/file", "x".repeat(100_000));
    env.nfreezer(["push", "src"]).done();
    for pack in packs(&env.path("repo")) {
        fs::rename(&pack, env.path(pack.file_name().unwrap())).unwrap();
    }
    let repaired = env.nfreezer(["repair", "--yes"]).success();
    let undo = repaired.stdout.lines().find_map(|line| line.split_once("to undo this: `nfreezer ")).unwrap().1;
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("0 snapshots"));
    let undo: Vec<&str> = undo.trim_end_matches('`').split(' ').collect();
    env.nfreezer(&undo).fails(4);
    for entry in fs::read_dir(env.path("")).unwrap().map(Result::unwrap).filter(|e| e.file_name().len() == 64) {
        let name = entry.file_name().into_string().unwrap();
        fs::rename(entry.path(), env.path(format!("repo/packs/{}/{name}", &name[..1]))).unwrap();
    }
    let forgotten = env.nfreezer(["snapshots", "--forgotten"]).success();
    assert!(forgotten.stdout.contains("Undelete until") && forgotten.stdout.contains(undo[1]), "{forgotten:?}");
    let listed = env.nfreezer(["ls", "-R", undo[1]]).success();
    assert!(listed.stdout.contains("src/file"), "{listed:?}");
    env.nfreezer(["restore", undo[1], "--target", "out"]).done();
    let shown = env.nfreezer(&undo).success();
    assert!(shown.stdout.contains("is shown again"), "{shown:?}");
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("1 snapshot;"));
    assert!(env.nfreezer(["snapshots", "--forgotten"]).success().stdout.contains("0 snapshots forgotten"));
    env.nfreezer(["check", "--read-data"]).done();
    let again = env.nfreezer(&undo).exits(1);
    assert!(again.stderr.contains("is not forgotten"), "{again:?}");
}

#[test]
fn forgotten_snapshots_are_listed_with_the_time_until_which_they_are_kept() {
    let env = Env::with_repository();
    env.write("src/file", b"x");
    env.nfreezer(["push", "src"]).done();
    for pack in packs(&env.path("repo")) {
        fs::remove_file(pack).unwrap();
    }
    env.nfreezer(["repair", "--yes"]).done();
    let listed = env.nfreezer(["--json", "snapshots", "--forgotten"]).success().objects();
    let time = |key: &str| listed[0][key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let kept = time("undelete_until").as_second() - time("forgotten").as_second();
    assert_eq!((listed.len(), kept), (2, 14 * 24 * 3600));
    assert!(jiff::Timestamp::now().as_second() - time("forgotten").as_second() < 600);
}
