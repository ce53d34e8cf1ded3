//! A record that supersedes others must contain them. A thief of the passphrase writes a record that does not.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use nfreezer::check::{Consent, Options};
use nfreezer::context::background;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::format::record::{Action, Head, Snapshot};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::repo::{Access, Alarm, Repository};
use nfreezer::seen::SeenStore;
use nfreezer::storage::Storage;

use crate::harness::cli::Env;
use crate::harness::saved::Saved;

fn records(saved: &Saved) -> Vec<ObjectId> {
    let names = saved.memory.list(background(), Folder::Log).unwrap().into_iter().map(|entry| entry.name);
    let ids = names.filter_map(|name| if let Name::Record { id, .. } = name { Some(id) } else { None });
    let mut ids: Vec<ObjectId> = ids.collect();
    ids.sort_unstable();
    ids
}

/// Makes three snapshots and forgets the first one.
fn three(saved: &Saved) -> Vec<Snapshot> {
    let snapshots: Vec<Snapshot> = (1..=3)
        .map(|seed| {
            saved.write("file", seed, 1000);
            saved.push().snapshot
        })
        .collect();
    let mut state = saved.repo.state(background()).unwrap();
    saved.repo.commit_marks(background(), &mut state, [(snapshots[0].id, Action::Forget)]).unwrap();
    snapshots
}

/// Returns a client with a memory, and its alarm.
fn client(saved: &Saved, folder: &tempfile::TempDir) -> (Repository, Alarm) {
    let alarm = Alarm::default();
    let access = Access { seen: Some(SeenStore::at(folder.path())), alarm: alarm.clone(), ..Access::default() };
    let repo = saved.repo.behind_with(Arc::clone(&saved.memory) as _, &access);
    (repo, alarm)
}

/// Commits a forged record with the passphrase. It claims to contain all records, but contains only these snapshots.
fn forge(saved: &Saved, snapshots: &[Snapshot]) -> ObjectId {
    let head = Head { superseded: records(saved), snapshots: snapshots.to_vec(), ..Head::default() };
    saved.repo.commit(background(), &mut saved.repo.state(background()).unwrap(), head, &[]).unwrap()
}

#[test]
fn a_record_that_hides_all_others_is_ignored_by_a_client_with_a_memory() {
    for kept in [0, 1] {
        let (saved, memory) = (Saved::new(), tempfile::tempdir().unwrap());
        let snapshots = three(&saved);
        let (repo, alarm) = client(&saved, &memory);
        assert_eq!(repo.state(background()).unwrap().snapshots(), snapshots[1..]);
        assert!(!alarm.load(SeqCst));
        // The forged record may contain the newest snapshot, whose record the client remembers.
        let forged = forge(&saved, &snapshots[3 - kept..]);
        for _ in 0..2 {
            let (repo, alarm) = client(&saved, &memory);
            let state = repo.state(background()).unwrap();
            assert_eq!(state.snapshots(), snapshots[1..], "{kept}");
            assert_eq!(state.forgotten(), snapshots[..1]);
            assert!(alarm.load(SeqCst));
            let warnings = state.warnings().join("\n");
            assert!(warnings.contains(&format!("record {} claims to contain", forged.short())), "{warnings}");
        }
    }
}

#[test]
fn check_finds_a_record_that_hides_others_without_a_memory_and_repair_replaces_it() {
    let (saved, memory) = (Saved::new(), tempfile::tempdir().unwrap());
    let snapshots = three(&saved);
    client(&saved, &memory).0.state(background()).unwrap();
    let forged = forge(&saved, &[]);
    assert!(saved.repo.state(background()).unwrap().snapshots().is_empty(), "hidden from a client without a memory");
    let (report, told) = saved.check(&Options::default());
    assert_eq!((&report.false_records[..], report.snapshots), (&[forged][..], 2));
    assert!(report.is_rolled_back() && told.names().contains(&format!("log/*-{forged}").as_str()), "{told:?}");
    let dry = saved.try_repair(&Options::default(), Consent { yes: false, dry_run: true }).unwrap().0;
    assert_eq!(dry.false_records, [forged]);
    assert!(saved.repo.state(background()).unwrap().snapshots().is_empty(), "a dry run writes nothing");
    let (repaired, _) = saved.repair(&Options::default(), false);
    assert_eq!(repaired.false_records, [forged]);
    let state = saved.repo.state(background()).unwrap();
    assert_eq!((state.snapshots(), state.forgotten()), (snapshots[1..].to_vec(), snapshots[..1].to_vec()));
    let (report, _) = saved.check(&Options::default());
    assert!(!report.is_rolled_back() && !report.is_damaged(), "{report:?}");
    let (repo, alarm) = client(&saved, &memory);
    assert_eq!(repo.state(background()).unwrap().snapshots(), snapshots[1..]);
    assert!(!alarm.load(SeqCst));
}

#[test]
fn honest_merges_raise_no_alarm() {
    let (saved, memory) = (Saved::new(), tempfile::tempdir().unwrap());
    let mut pushed = Vec::new();
    for seed in 1..=40 {
        saved.write("file", seed, 100);
        pushed.push(saved.push().snapshot);
        if seed % 7 == 0 {
            let (repo, alarm) = client(&saved, &memory);
            let state = repo.state(background()).unwrap();
            assert_eq!((state.snapshots(), state.warnings()), (pushed.clone(), vec![]));
            assert!(!alarm.load(SeqCst));
        }
    }
    let (report, _) = saved.check(&Options::default());
    assert!(!report.is_rolled_back() && report.false_records.is_empty());
}

#[test]
fn the_program_ends_with_15_and_shows_the_hidden_snapshots() {
    let env = Env::with_repository();
    env.write("src/file", b"x");
    env.nfreezer(["push", "src"]).done();
    let repo = {
        let storage = nfreezer::storage::open(
            background(),
            &nfreezer::storage::Location::parse(env.path("repo").to_str().unwrap()).unwrap(),
            Default::default(),
        );
        let passphrase = || Ok(Passphrase::new(crate::harness::cli::PASSPHRASE.into()).unwrap());
        Repository::open(background(), Arc::from(storage.unwrap()), passphrase).unwrap()
    };
    let mut state = repo.state(background()).unwrap();
    let head = Head { superseded: state.frontier(), ..Head::default() };
    repo.commit(background(), &mut state, head, &[]).unwrap();
    let listed = env.nfreezer(["snapshots"]).exits(15);
    assert!(listed.stdout.contains("1 snapshot;") && listed.stderr.contains("the claim is ignored"), "{listed:?}");
    let checked = env.nfreezer(["check", "--no-memory"]).exits(15);
    assert!(checked.stdout.contains("1 record HIDE others"), "{checked:?}");
    let repaired = env.nfreezer(["repair", "--no-memory"]).exits(15);
    assert!(repaired.stdout.contains("it claimed to contain others"), "{repaired:?}");
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("1 snapshot;"));
    env.nfreezer(["check"]).done();
}
