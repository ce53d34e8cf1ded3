//! The memory of a client in cases that are not a plain rollback: damaged and unlisted records, processes without a
//! memory, key files that are easier to guess, and accepted other repositories.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use nfreezer::context::{Context, background};
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::secret::Secret;
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::keyfile::{self, KeyFile, KeyInfo};
use nfreezer::format::record::{Head, Snapshot, SnapshotId};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::repo::{Access, Alarm, Repository, State, Unlock};
use nfreezer::seen::SeenStore;
use nfreezer::storage::{Memory, Storage};

use crate::harness::cli::Env;
use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::repository::{self, passphrase};

fn snapshot(id: u8) -> Head {
    let snapshot =
        Snapshot { id: SnapshotId([id; 16]), host: "host".into(), program: "test".into(), ..Snapshot::default() };
    Head { snapshots: vec![snapshot], ..Head::default() }
}

fn commit(repo: &Repository, id: u8) -> ObjectId {
    repo.commit(background(), &mut repo.state(background()).unwrap(), snapshot(id), &[]).unwrap()
}

fn record(memory: &Memory, id: ObjectId) -> Name {
    let mut names = memory.list(background(), Folder::Log).unwrap().into_iter().map(|entry| entry.name);
    names.find(|name| matches!(name, Name::Record { id: found, .. } if *found == id)).unwrap()
}

#[track_caller]
fn assert_tampering(result: Result<impl Sized>) -> Error {
    let error = result.err().expect("the server must not get away with it");
    assert_eq!(error.kind(), Kind::Tampering, "{error}");
    error
}

/// Leaves the first record out of the first listing of the log.
struct Unlisted(AtomicUsize);

impl Rule for Unlisted {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        match call.of(ctx, storage)? {
            Answer::Entries(mut entries) if matches!(call, Call::List(Folder::Log)) => {
                if self.0.fetch_add(1, SeqCst) == 0 {
                    entries.retain(|entry| !matches!(entry.name, Name::Record { sequence: 1, .. }));
                }
                Ok(Answer::Entries(entries))
            }
            answer => Ok(answer),
        }
    }
}

#[test]
fn a_listing_that_lacks_a_named_record_is_made_again() {
    let (memory, repo) = repository::in_memory();
    commit(&repo, 1);
    commit(&repo, 2);
    let storage = Between::<_, Memory>::with(memory, Unlisted(AtomicUsize::new(0)));
    let alarm = Alarm::default();
    let access = Access { alarm: alarm.clone(), ..Access::default() };
    let client = Repository::open_with(background(), storage.clone(), &access, || Ok(passphrase())).unwrap();
    let state = client.state(background()).unwrap();
    assert_eq!((state.warnings(), state.snapshots().len()), (Vec::new(), 2));
    assert!(!alarm.load(SeqCst), "a listing is not atomic, so a gap in one alone is no alarm");
    assert_eq!(storage.0.load(SeqCst), 2, "listings");
}

#[test]
fn a_process_without_a_memory_misses_what_it_has_read_itself() {
    let (memory, repo) = repository::in_memory();
    commit(&repo, 1);
    let newest = commit(&repo, 2);
    let client = repository::open(memory.clone());
    let mut state = State::default();
    client.refresh(background(), &mut state).unwrap();
    assert_eq!(state.snapshots().len(), 2);
    memory.remove(background(), &record(&memory, newest)).unwrap();
    let error = assert_tampering(client.refresh(background(), &mut state));
    assert!(error.to_string().contains(&newest.short()), "{error}");
}

#[test]
fn a_named_record_that_is_cut_off_or_damaged_raises_the_alarm() {
    let (memory, repo) = repository::in_memory();
    let (first, second) = (commit(&repo, 1), commit(&repo, 2));
    let name = record(&memory, first);
    let good = memory.get(&name).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [good[..good.len() / 2].to_vec(), flipped] {
        memory.overwrite(&name, bad);
        let alarm = Alarm::default();
        let access = Access { alarm: alarm.clone(), ..Access::default() };
        let client = Repository::open_with(background(), memory.clone(), &access, || Ok(passphrase())).unwrap();
        let state = client.state(background()).unwrap();
        assert_eq!(state.lost().into_iter().collect::<Vec<_>>(), [first]);
        assert_eq!(state.snapshots().len(), 1, "the other one is usable");
        assert!(alarm.load(SeqCst), "the command ends with exit code 15");
    }
    // Nothing names the newest record, so a torn one may be a push that was killed.
    memory.overwrite(&name, good);
    let newest = record(&memory, second);
    let cut = memory.get(&newest).unwrap()[..100].to_vec();
    memory.overwrite(&newest, cut);
    let alarm = Alarm::default();
    let access = Access { alarm: alarm.clone(), ..Access::default() };
    let client = Repository::open_with(background(), memory, &access, || Ok(passphrase())).unwrap();
    assert_eq!((client.state(background()).unwrap().lost().len(), alarm.load(SeqCst)), (0, false));
}

#[test]
fn commands_on_a_log_with_a_damaged_older_record_end_with_15_also_beside_other_damage() {
    let env = Env::with_repository();
    for contents in ["one", "two"] {
        env.write("tree/f", contents.repeat(1000));
        env.nfreezer(["push", "tree"]).done();
    }
    let mut records: Vec<_> = fs::read_dir(env.path("repo/log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    records.sort();
    fs::set_permissions(&records[0], fs::Permissions::from_mode(0o600)).unwrap();
    let bytes = fs::read(&records[0]).unwrap();
    fs::write(&records[0], &bytes[..bytes.len() / 2]).unwrap();
    for command in [&["snapshots"][..], &["push", "tree"], &["restore", "latest", "--target", "out"]] {
        let output = env.nfreezer(command).exits(15);
        assert!(output.stderr.contains("incomplete record"), "{command:?}: {}", output.stderr);
    }
    assert!(env.nfreezer(["check"]).exits(4).stdout.contains("damaged: log/"), "to `check` it is damage");
    // If a record is gone and packs are damaged too, the exit code reports the log.
    fs::remove_file(&records[0]).unwrap();
    let packs =
        fs::read_dir(env.path("repo/packs")).unwrap().flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    for pack in packs.map(|entry| entry.unwrap().path()) {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    env.nfreezer(["check", "--read-data"]).fails(15);
}

/// A server, and a client that remembers the key file that opened it.
struct Keyed {
    server: Arc<Memory>,
    folder: tempfile::TempDir,
}

impl Keyed {
    fn new() -> (Keyed, Repository) {
        let (server, repo) = repository::in_memory();
        (Keyed { server, folder: tempfile::tempdir().unwrap() }, repo)
    }

    fn open(&self, local_key: Option<Secret<32>>) -> Result<Repository> {
        let access = Access { seen: Some(SeenStore::at(self.folder.path())), local_key, ..Access::default() };
        Repository::open_with(background(), self.server.clone(), &access, || Ok(passphrase()))
    }

    fn only_key(&self) -> (Name, Vec<u8>) {
        let keys = self.server.list(background(), Folder::Keys).unwrap();
        assert_eq!(keys.len(), 1);
        (keys[0].name, self.server.get(&keys[0].name).unwrap())
    }

    /// Makes this the only key file.
    fn replace_key(&self, name: Name, bytes: Vec<u8>) {
        for entry in self.server.list(background(), Folder::Keys).unwrap() {
            self.server.remove(background(), &entry.name).unwrap();
        }
        self.server.overwrite(&name, bytes);
    }
}

#[test]
fn a_key_file_without_local_key_is_no_replacement_for_one_that_needs_it() {
    let (keyed, repo) = Keyed::new();
    let (weak_name, weak) = keyed.only_key();
    let local = Secret::new([7; 32]);
    let both = passphrase().with_local_key(Some(local.clone()));
    let strong = repo.add_key(background(), Unlock { passphrase: &both, cost: KdfCost::DEFAULT, label: "" }).unwrap();
    keyed.server.remove(background(), &weak_name).unwrap();
    // A key is remembered once a record has opened with it.
    repo.commit(background(), &mut repo.state(background()).unwrap(), Head::default(), &[]).unwrap();
    let opened = keyed.open(Some(local.clone())).unwrap();
    assert_eq!(*opened.opened_by().0, strong);
    opened.state(background()).unwrap();
    keyed.replace_key(weak_name, weak);
    let error = assert_tampering(keyed.open(None));
    assert!(error.to_string().contains("easier to guess"), "{error}");
    let error = keyed.open(Some(local)).err().unwrap();
    assert!(error.kind() == Kind::Passphrase && error.to_string().contains("needs a local key"), "{error}");
}

#[test]
fn a_cheaper_key_file_of_the_same_second_is_no_replacement_and_a_younger_one_is() {
    let (keyed, repo) = Keyed::new();
    let (name, bytes) = keyed.only_key();
    let Name::Key(id) = name else { panic!("{name}") };
    let (master, _) = KeyFile::parse(&id, repo.id(), &bytes).unwrap().open(&passphrase()).unwrap();
    let wrap = |created, passes| {
        let info = KeyInfo { created, label: String::new() };
        let cost = KdfCost { passes, ..KdfCost::DEFAULT };
        let (id, file) = keyfile::wrap(&master, repo.id(), &passphrase(), cost, &[3; 32], &info).unwrap();
        (Name::Key(id), file)
    };
    let (name, file) = wrap(1000, 4);
    keyed.replace_key(name, file);
    repo.commit(background(), &mut repo.state(background()).unwrap(), Head::default(), &[]).unwrap();
    keyed.open(None).unwrap().state(background()).unwrap();
    for (created, accepted) in [(999, false), (1000, false), (1001, true)] {
        let (name, file) = wrap(created, 3);
        keyed.replace_key(name, file);
        match keyed.open(None) {
            Ok(_) => assert!(accepted, "made in second {created}"),
            Err(error) => assert!(!accepted && error.kind() == Kind::Tampering, "made in second {created}: {error}"),
        }
    }
}

#[test]
fn another_repository_that_is_accepted_at_an_address_is_not_remembered_there() {
    let (keyed, _) = Keyed::new();
    drop(keyed.open(None).unwrap().state(background()).unwrap());
    let (other, repo) = repository::in_memory();
    let other_id = repo.id().0;
    commit(&repo, 1);
    let access = |accept_rollback| Access {
        seen: Some(SeenStore::at(keyed.folder.path())),
        accept_rollback,
        ..Access::default()
    };
    let open = |accept| Repository::open_with(background(), other.clone(), &access(accept), || Ok(passphrase()));
    assert_tampering(open(false));
    open(true).unwrap().state(background()).unwrap();
    assert!(SeenStore::at(keyed.folder.path()).of(&other_id).unwrap().is_none(), "accepting writes nothing down");
    assert_tampering(open(false));
}
