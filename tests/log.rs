//! The state of a repository is the fold of its log: records side by side, marks, torsos, records that are gone.

use std::sync::Arc;

use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::error::Kind;
use nfreezer::format::record::{Deed, Head, Mark, NewSection, SectionKind, Snapshot, Stats};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};

fn passphrase() -> Passphrase {
    Passphrase::new("log".into()).unwrap()
}

fn repository() -> (Arc<Memory>, Repository) {
    let memory = Arc::new(Memory::default());
    let repo = Repository::init(Arc::clone(&memory) as _, &passphrase(), KdfCost::DEFAULT, "").unwrap();
    (memory, repo)
}

fn snapshot(id: u8) -> Head {
    let snapshot = Snapshot {
        id: [id; 16],
        time: (id.into(), 0),
        host: "host".into(),
        user: "user".into(),
        paths: Vec::new(),
        more_paths: 0,
        group: 0,
        tags: Vec::new(),
        description: String::new(),
        root: None,
        partial: false,
        warnings: 0,
        stats: Stats::default(),
        program: "test".into(),
        extra: Vec::new(),
    };
    Head { snapshots: vec![snapshot], ..Head::default() }
}

fn mark(snapshot: u8, deed: Deed) -> Head {
    let mark = Mark { sequence: 0, record: None, snapshot: [snapshot; 16], time: 0, deed };
    Head { marks: vec![mark], ..Head::default() }
}

fn ids(repo: &Repository) -> Vec<u8> {
    repo.state().unwrap().snapshots().iter().map(|s| s.id[0]).collect()
}

fn record(memory: &Memory, id: ObjectId) -> Name {
    let mut entries = memory.list(Folder::Log).unwrap().into_iter().map(|e| e.name);
    entries.rfind(|name| matches!(name, Name::Record { id: found, .. } if *found == id)).unwrap()
}

#[test]
fn records_written_side_by_side_all_count() {
    let (memory, one) = repository();
    let two = Repository::open(Arc::clone(&memory) as _, || Ok(passphrase())).unwrap();
    let (mut first, mut second) = (one.state().unwrap(), two.state().unwrap());
    one.commit(&mut first, snapshot(1), &[]).unwrap();
    two.commit(&mut second, snapshot(2), &[]).unwrap();
    one.commit(&mut first, snapshot(3), &[]).unwrap();
    assert_eq!((ids(&one), ids(&two)), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!(one.state().unwrap().frontier().len(), 1, "the last record follows both");
    assert!(one.state().unwrap().warnings().is_empty());
}

#[test]
fn the_later_mark_holds() {
    let (_, repo) = repository();
    let mut state = repo.state().unwrap();
    for head in [snapshot(1), snapshot(2), mark(1, Deed::Forget), mark(2, Deed::Forget), mark(2, Deed::Undelete)] {
        repo.commit(&mut state, head, &[]).unwrap();
    }
    repo.commit(&mut state, mark(2, Deed::Tag(vec!["kept".into()])), &[]).unwrap();
    assert_eq!(ids(&repo), [2]);
    let state = repo.state().unwrap();
    assert_eq!(state.forgotten().len(), 1);
    assert_eq!(state.snapshots()[0].tags, ["kept"]);
    assert_eq!(state.select("latest").unwrap().id, [2; 16]);
    assert_eq!(state.select("0202").unwrap().id, [2; 16]);
    assert_eq!(state.select("latest~1").unwrap_err().kind(), Kind::Failed);
    assert_eq!(state.select("zz").unwrap_err().kind(), Kind::Usage);
}

#[test]
fn a_torso_is_reported_and_counts_for_nothing() {
    let (memory, repo) = repository();
    let mut state = repo.state().unwrap();
    repo.commit(&mut state, snapshot(1), &[]).unwrap();
    let torn = record(&memory, repo.commit(&mut state, snapshot(2), &[]).unwrap());
    let bytes = memory.get(&torn).unwrap();
    for len in [0, 71, 72, 100, bytes.len() - 1] {
        memory.overwrite(&torn, bytes[..len].to_vec());
        let repo = Repository::open(Arc::clone(&memory) as _, || Ok(passphrase())).unwrap();
        assert_eq!(ids(&repo), [1], "cut to {len}");
        let warnings = repo.state().unwrap().warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("incomplete record"), "{warnings:?}");
    }
    memory.overwrite(&torn, bytes);
    assert_eq!(ids(&repo), [1, 2]);
}

#[test]
fn a_record_that_is_gone_is_told_unless_it_was_merged() {
    let (memory, repo) = repository();
    let mut state = repo.state().unwrap();
    let gone = repo.commit(&mut state, snapshot(1), &[]).unwrap();
    repo.commit(&mut state, snapshot(2), &[]).unwrap();
    memory.remove(&record(&memory, gone)).unwrap();
    let warnings = repo.state().unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains(&gone.to_string()), "{warnings:?}");

    let mut state = repo.state().unwrap();
    let ancestry = NewSection { kind: SectionKind::Ancestry, bytes: gone.0[..8].to_vec(), fences: Vec::new() };
    repo.commit(&mut state, snapshot(3), &[ancestry]).unwrap();
    assert_eq!(repo.state().unwrap().warnings(), [""; 0]);
}
