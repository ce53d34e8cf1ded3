//! A client remembers the heads it has seen: a server that rolls back, hides, exchanges or forks records is detected.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use crate::harness::cli::{Env, Output};
use crate::harness::repository::passphrase;
use nfreezer::context::background;
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::keys::RepoId;
use nfreezer::crypto::seal::{self, ObjectType};
use nfreezer::crypto::secret::{Passphrase, Secret};
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::keyfile::{self, KeyInfo};
use nfreezer::format::record::{self, Head, Snapshot, SnapshotId, Stats};
use nfreezer::name::{Folder, Name, ObjectId, hex};
use nfreezer::repo::{Access, Alarm, Repository, Unlock};
use nfreezer::seen::SeenStore as Remembered;
use nfreezer::storage::{Memory, Storage};
use nfreezer::time::Time;
use tempfile::TempDir;

fn unlock(passphrase: &Passphrase) -> Unlock<'_> {
    Unlock { passphrase, cost: KdfCost::DEFAULT, label: "test" }
}

/// A machine with its own state folder.
struct Client {
    folder: TempDir,
    alarm: Alarm,
    /// Open repositories, kept because the key derivation takes time. Each command still reads the log anew.
    opened: Mutex<Vec<(Arc<Memory>, Arc<Repository>)>>,
}

impl Client {
    fn new() -> Self {
        Client { folder: tempfile::tempdir().unwrap(), alarm: Alarm::default(), opened: Mutex::default() }
    }

    fn remembered(&self) -> Remembered {
        Remembered::at(self.folder.path().join("nfreezer"))
    }

    fn access(&self) -> Access {
        self.alarm.store(false, SeqCst);
        Access { seen: Some(self.remembered()), alarm: self.alarm.clone(), ..Access::default() }
    }

    fn open_as(&self, server: &Arc<Memory>, access: Access) -> Result<Repository> {
        Repository::open_with(background(), Arc::clone(server) as _, &access, || Ok(passphrase()))
    }

    fn open(&self, server: &Arc<Memory>) -> Arc<Repository> {
        let access = self.access();
        let mut opened = self.opened.lock().unwrap();
        if let Some((_, repo)) = opened.iter().find(|(there, _)| Arc::ptr_eq(there, server)) {
            return Arc::clone(repo);
        }
        let repo = Arc::new(self.open_as(server, access).unwrap());
        opened.push((Arc::clone(server), Arc::clone(&repo)));
        repo
    }

    fn commit(&self, server: &Arc<Memory>, id: u8) -> ObjectId {
        let repo = self.open(server);
        repo.commit(background(), &mut repo.state(background()).unwrap(), snapshot(id, false), &[]).unwrap()
    }

    /// Returns the warnings of a command that reads.
    fn read(&self, server: &Arc<Memory>) -> Result<Vec<String>> {
        self.open(server).state(background()).map(|state| state.warnings())
    }

    fn heads(&self, repo: &[u8; 32]) -> Vec<ObjectId> {
        let seen = self.remembered().of(repo).unwrap().unwrap();
        seen.copies.iter().flat_map(|copy| &copy.heads).map(|head| head.id).collect()
    }
}

fn server() -> (Arc<Memory>, [u8; 32]) {
    let server = Arc::<Memory>::default();
    let repo = Repository::init_with(background(), server.clone(), unlock(&passphrase()), &Access::default()).unwrap();
    (server, repo.id().0)
}

fn snapshot(id: u8, partial: bool) -> Head {
    let snapshot = Snapshot {
        id: SnapshotId([id; 16]),
        time: Time::new(id.into(), 0),
        host: "host".into(),
        user: "user".into(),
        paths: Vec::new(),
        more_paths: 0,
        group: 0,
        tags: Vec::new(),
        description: String::new(),
        root: None,
        partial,
        warnings: 0,
        stats: Stats::default(),
        program: "test".into(),
        extra: Vec::new(),
    };
    Head { snapshots: vec![snapshot], ..Head::default() }
}

/// Copies the present contents of a server, to be shown again later.
fn copy(server: &Memory) -> Arc<Memory> {
    let copy = Arc::<Memory>::default();
    for folder in [Folder::Root, Folder::Keys, Folder::Log] {
        for entry in server.list(background(), folder).unwrap() {
            copy.overwrite(&entry.name, server.get(&entry.name).unwrap());
        }
    }
    copy
}

fn record(server: &Memory, id: ObjectId) -> Name {
    let mut names = server.list(background(), Folder::Log).unwrap().into_iter().map(|entry| entry.name);
    names.find(|name| matches!(name, Name::Record { id: found, .. } if *found == id)).unwrap()
}

/// Puts a record as if a client wrote it at this time, having seen only the records `seen`.
fn put(client: &Client, server: &Arc<Memory>, mut head: Head, sequence: u32, time: i64, seen: &[ObjectId]) -> ObjectId {
    head.sequence = sequence;
    head.time = time;
    head.heads = seen.to_vec();
    head.heads.sort_unstable();
    let mut bytes = record::encode(head, &[]).unwrap();
    let random: [u8; 32] = nfreezer::repo::random().unwrap();
    let id = seal::seal_in_place(
        client.open(server).keys(),
        ObjectType::Record,
        &random,
        seal::Hedge::Plaintext,
        &mut bytes,
    );
    server.put(background(), &Name::Record { sequence, id }, &bytes).unwrap();
    id
}

fn tampering(result: Result<impl Sized>) -> Error {
    let error = result.err().expect("it must be found out");
    assert_eq!(error.kind(), Kind::Tampering, "{error}");
    error
}

#[test]
fn t33_the_newest_record_is_hidden() {
    let ((server, id), client) = (server(), Client::new());
    client.commit(&server, 1);
    let newest = client.commit(&server, 2);
    assert_eq!(client.heads(&id), [newest]);
    let name = record(&server, newest);
    let bytes = server.get(&name).unwrap();
    server.remove(background(), &name).unwrap();
    let error = tampering(client.read(&server));
    assert!(error.to_string().contains(&newest.short()) && error.to_string().contains("sequence 2, of 20"), "{error}");
    assert!(error.hint_text().unwrap().contains("`nfreezer accept`"), "the hint says how to accept it: {error:?}");
    assert_eq!(client.heads(&id), [newest], "what was seen stays remembered");
    // A truncated record counts as a hidden one.
    server.overwrite(&name, bytes[..100].to_vec());
    assert!(tampering(client.read(&server)).to_string().contains("is damaged now"));
    server.overwrite(&name, bytes);
    assert_eq!(client.read(&server).unwrap(), [""; 0]);
}

#[test]
fn t36_the_state_of_last_week_comes_back_and_nothing_is_written_to_it() {
    let ((server, id), client) = (server(), Client::new());
    client.commit(&server, 1);
    let old = copy(&server);
    client.commit(&server, 2);
    let newest = client.commit(&server, 3);
    tampering(client.read(&old));
    let repo = client.open(&old);
    tampering(repo.commit(background(), &mut Default::default(), snapshot(4, false), &[]));
    assert_eq!(old.list(background(), Folder::Log).unwrap().len(), 1, "nothing was written");
    // With `accept_rollback` the old state can be read. It causes a warning and is not remembered.
    let access = Access { accept_rollback: true, ..client.access() };
    let state = client.open_as(&old, access).unwrap().state(background()).unwrap();
    assert_eq!((state.snapshots().len(), state.warnings().len()), (1, 1), "{:?}", state.warnings());
    assert_eq!(client.heads(&id), [newest]);
    tampering(client.read(&old));
    assert_eq!(client.read(&server).unwrap(), [""; 0]);
}

#[test]
fn t34_without_a_memory_the_first_state_is_taken() {
    let ((server, id), client) = (server(), Client::new());
    let other = Client::new();
    other.commit(&server, 1);
    let old = copy(&server);
    other.commit(&server, 2);
    let stranger = || client.open_as(&old, client.access()).unwrap().is_first_contact();
    assert!(stranger());
    assert_eq!(client.read(&old).unwrap(), [""; 0]);
    assert!(!stranger());
    assert_eq!(client.read(&server).unwrap(), [""; 0], "what is newer is fine");
    tampering(client.read(&old));
    assert_eq!(client.heads(&id).len(), 1);
}

#[test]
fn t35_an_older_record_is_hidden() {
    let ((server, _), client) = (server(), Client::new());
    let first = client.commit(&server, 1);
    client.commit(&server, 2);
    server.remove(background(), &record(&server, first)).unwrap();
    let warnings = client.read(&server).unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains(&first.to_string()), "{warnings:?}");
    assert!(client.alarm.load(SeqCst), "the command ends with exit code 15");
    assert_eq!(client.open(&server).state(background()).unwrap().snapshots().len(), 1, "the others are usable");
    // A client that has never seen the record detects the loss, too, because the other record names it.
    let stranger = Client::new();
    assert_eq!(stranger.read(&server).unwrap().len(), 1);
    assert!(stranger.alarm.load(SeqCst));
}

#[test]
fn what_was_merged_and_removed_is_no_rollback() {
    let ((server, id), client) = (server(), Client::new());
    let first = client.commit(&server, 1);
    let other = Client::new();
    let repo = other.open(&server);
    let mut state = repo.state(background()).unwrap();
    for id in 2..30 {
        repo.commit(background(), &mut state, snapshot(id, false), &[]).unwrap();
    }
    assert!(repo.merge(background(), &mut state).unwrap());
    server.remove(background(), &record(&server, first)).unwrap();
    assert_eq!(client.read(&server).unwrap(), [""; 0]);
    assert_eq!(client.heads(&id).len(), 1);
    assert_ne!(client.heads(&id), [first]);
}

#[test]
fn t28_another_repository_at_the_same_address() {
    let ((server, id), (other, _), client) = (server(), server(), Client::new());
    client.commit(&server, 1);
    let error = tampering(client.open_as(&other, client.access()));
    assert!(error.to_string().contains(&hex(&id[..4])), "{error}");
    let asked =
        Repository::open_with(background(), other.clone(), &client.access(), || panic!("no passphrase for a stranger"));
    tampering(asked);
    let access = Access { accept_rollback: true, ..client.access() };
    assert_eq!(client.open_as(&other, access).unwrap().state(background()).unwrap().warnings().len(), 1);
    // A client that makes a new repository there accepts it.
    let fresh = Arc::<Memory>::default();
    Repository::init_with(background(), fresh.clone(), unlock(&passphrase()), &client.access()).unwrap();
    assert_eq!(client.read(&fresh).unwrap(), [""; 0]);
    tampering(client.open_as(&server, client.access()));
    // An empty folder is no repository, and the message mentions that there was one.
    let error = client.open_as(&Arc::default(), client.access()).err().unwrap();
    assert!(error.kind() == Kind::NoRepository && error.to_string().contains("any more"), "{error}");
}

#[test]
fn t41_forked_views_are_found_when_one_is_shown_to_the_other() {
    let ((server, _), anna, bert) = (server(), Client::new(), Client::new());
    anna.commit(&server, 1);
    bert.read(&server).unwrap();
    let forked = copy(&server);
    anna.commit(&server, 2);
    bert.commit(&forked, 3);
    tampering(bert.read(&server));
    tampering(anna.read(&forked));
}

#[test]
fn t41_forked_views_are_found_when_they_are_joined() {
    let ((server, id), anna, writer) = (server(), Client::new(), Client::new());
    let now = nfreezer::repo::now().seconds;
    let base = put(&writer, &server, snapshot(1, false), 1, now - 90_000, &[]);
    let first = put(&writer, &server, snapshot(2, false), 2, now - 80_000, &[base]);
    anna.read(&server).unwrap();
    // Hours later another client writes two records. The server had shown it only the base.
    let late = put(&writer, &server, snapshot(3, false), 2, now - 40_000, &[base]);
    put(&writer, &server, snapshot(4, false), 3, now - 10_000, &[late]);
    let warnings = anna.read(&server).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&first.short()) && warnings[0].contains(&late.short()), "{warnings:?}");
    assert!(anna.alarm.load(SeqCst));
    assert_eq!(anna.read(&server).unwrap(), [""; 0], "told once");
    assert_eq!(anna.heads(&id).len(), 2);
    let third = Client::new();
    assert_eq!(third.read(&server).unwrap().len(), 1, "a third one finds it too");
    third.commit(&server, 5);
    assert_eq!(Client::new().read(&server).unwrap().len(), 1, "also after they were joined");
}

#[test]
fn pushes_side_by_side_are_no_fork() {
    let ((server, _), client, writer) = (server(), Client::new(), Client::new());
    let now = nfreezer::repo::now().seconds;
    let base = put(&writer, &server, snapshot(1, false), 1, now - 90_000, &[]);
    let one = put(&writer, &server, snapshot(2, false), 2, now - 80_000, &[base]);
    let two = put(&writer, &server, snapshot(3, false), 2, now - 79_000, &[base]);
    let joined = put(&writer, &server, snapshot(4, false), 3, now - 60_000, &[one, two]);
    // A push that ended early follows the heads that were known at its beginning.
    let early = put(&writer, &server, snapshot(5, true), 3, now - 20_000, &[one]);
    let last = put(&writer, &server, snapshot(6, false), 4, now - 10_000, &[joined, early]);
    assert_eq!(client.read(&server).unwrap(), [""; 0]);
    // A record that follows a meanwhile merged record also follows the predecessors of that record.
    let mut merged = Head { superseded: vec![last.min(one), last.max(one)], ..snapshot(7, false) };
    merged.snapshots.extend([2, 6].into_iter().flat_map(|id| snapshot(id, false).snapshots));
    merged.snapshots.sort_by_key(|s| s.id);
    put(&writer, &server, merged, 5, now - 9_000, &[two, joined, early]);
    put(&writer, &server, snapshot(8, false), 5, now - 8_000, &[last]);
    assert_eq!(client.read(&server).unwrap(), [""; 0]);
}

#[test]
fn a_head_that_is_expected_must_be_there() {
    let ((server, _), client) = (server(), Client::new());
    let first = client.commit(&server, 1);
    let old = copy(&server);
    let second = client.commit(&server, 2);
    let expect = |server: &Arc<Memory>, id: ObjectId, accept_rollback| {
        let expect_head = Some(u64::from_be_bytes(*id.0.first_chunk().unwrap()));
        let access = Access { expect_head, accept_rollback, ..Access::default() };
        client.open_as(server, access).unwrap().state(background()).map(|state| state.warnings().len())
    };
    assert_eq!([expect(&server, first, false).unwrap(), expect(&server, second, false).unwrap()], [0, 0]);
    assert_eq!(expect(&old, first, false).unwrap(), 0);
    assert!(tampering(expect(&old, second, false)).to_string().contains(&hex(&second.0[..8])));
    assert_eq!(expect(&old, second, true).unwrap(), 1);
}

#[test]
fn t45_a_damaged_memory_is_none_and_a_missing_one_harmless() {
    let ((server, id), client) = (server(), Client::new());
    client.commit(&server, 1);
    let path = client.remembered().path(&id);
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let good = std::fs::read(&path).unwrap();
    assert!((200..600).contains(&good.len()), "{}", good.len());
    for damage in [b"".to_vec(), good[..100].to_vec(), b"\0garbage\xff".to_vec(), vec![b'a'; 100_000]] {
        std::fs::write(&path, damage).unwrap();
        let warnings = client.read(&server).unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("is damaged"), "{warnings:?}");
        assert_eq!(client.read(&server).unwrap(), [""; 0]);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(client.read(&server).unwrap(), [""; 0]);
    // A folder that cannot be written only causes a warning.
    let nowhere = Access { seen: Some(Remembered::at("/proc/nowhere")), ..Access::default() };
    let warnings = client.open_as(&server, nowhere).unwrap().state(background()).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("cannot tell"), "{warnings:?}");
}

#[test]
fn many_processes_lose_and_garble_nothing() {
    let ((server, id), client) = (server(), Client::new());
    client.commit(&server, 1);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (client, server) = (&client, &server);
            scope.spawn(move || {
                let access = Access { seen: Some(client.remembered()), ..Access::default() };
                let repo = client.open_as(server, access).unwrap();
                for i in 0..10 {
                    repo.commit(
                        background(),
                        &mut repo.state(background()).unwrap(),
                        snapshot(10 + thread * 10 + i, false),
                        &[],
                    )
                    .unwrap();
                }
            });
        }
    });
    let state = client.open(&server).state(background()).unwrap();
    assert_eq!((state.snapshots().len(), state.warnings()), (41, Vec::new()));
    assert_eq!(client.heads(&id), state.frontier());
    let names = std::fs::read_dir(client.folder.path().join("nfreezer")).unwrap().count();
    assert_eq!(names, 2, "one file and the lock");
}

#[test]
fn t25_the_key_file_that_worked_is_tried_first() {
    let ((server, _), client) = (server(), Client::new());
    client.read(&server).unwrap();
    let key = server.list(background(), Folder::Keys).unwrap()[0].name;
    let bytes = server.get(&key).unwrap();
    // The server adds more key files than a client tries, all of them cheaper and in front.
    for i in 0..40u8 {
        server.overwrite(&Name::Key(ObjectId([i; 32])), bytes[..263].to_vec());
    }
    client.open_as(&server, client.access()).unwrap();
    server.remove(background(), &key).unwrap();
    assert_eq!(client.open_as(&server, client.access()).err().unwrap().kind(), Kind::Passphrase);
}

#[test]
fn a_rollback_under_a_mount_is_logged_and_what_was_there_stays() {
    let ((server, _), client) = (server(), Client::new());
    client.commit(&server, 1);
    let old = copy(&server);
    let newest = client.commit(&server, 2);
    let repo = client.open(&server);
    let state = repo.state(background()).unwrap();
    let every = |options: &mut nfreezer::mount::Options| options.refresh = Some(std::time::Duration::from_millis(50));
    let mounted = crate::harness::mounted::Mounted::with(repo, state, every);
    let shown = || std::fs::read_dir(mounted.path("ids")).unwrap().count();
    assert_eq!(shown(), 2);
    let name = record(&server, newest);
    server.remove(background(), &name).unwrap();
    let said = || mounted.messages.lock().unwrap().iter().any(|line| line.contains("older state"));
    crate::harness::mounted::eventually("the rollback is logged", said);
    assert_eq!(shown(), 2);
    drop((old, mounted));
}

fn says(output: Output, code: i32, text: &str) {
    let output = output.exits(code);
    assert!(output.stderr.contains(text), "{}", output.stderr);
}

#[test]
fn every_command_that_reads_says_so_with_exit_code_15() {
    let mut env = Env::new();
    env.set("NFREEZER_REPOSITORY", "repo");
    env.write("source/file", "1");
    env.nfreezer(["init"]).done();
    env.nfreezer(["push", "source"]).done();
    let run = |script: &str| {
        assert!(
            std::process::Command::new("sh")
                .args(["-ec", script])
                .current_dir(env.path(""))
                .status()
                .unwrap()
                .success()
        )
    };
    run("cp -a repo old");
    env.write("source/file", "22");
    let pushed = env.nfreezer(["push", "source"]).success();
    let receipt = pushed.stdout.lines().find_map(|line| line.strip_prefix("receipt: head ")).unwrap();
    let (head, sequence) = receipt.split_once(" sequence ").unwrap();
    assert_eq!((head.len(), sequence), (16, "2"));
    env.nfreezer(["snapshots", "--no-memory", "--expect-head", head]).done();
    run("mv repo new; mv old repo");
    for arguments in [
        &["snapshots"][..],
        &["ls"],
        &["push", "source"],
        &["push", "-n", "source"],
        &["restore", "latest", "--target", "out"],
        &["mount", "-f", "here"],
    ] {
        std::fs::create_dir_all(env.path("here")).unwrap();
        says(env.nfreezer(arguments), 15, "the server shows an older state than this machine has seen: record");
    }
    env.nfreezer(["snapshots", "--no-memory"]).done();
    says(env.nfreezer(["snapshots", "--no-memory", "--expect-head", head]), 15, "--expect-head");
    says(env.nfreezer(["snapshots", "--accept-rollback"]), 0, "older state");
    says(env.nfreezer(["push", "--accept-rollback", "source"]), 2, "unexpected argument");
    says(env.nfreezer(["snapshots", "--expect-head", "12"]), 2, "--expect-head");
    run("mv repo old; mv new repo");
    assert_eq!(env.nfreezer(["snapshots"]).success().stderr, "");
    // A record is gone, though the other one names it. The commands do their work, and the exit code reports the loss.
    run("chmod -R u+w repo; rm repo/log/00000001-*");
    says(env.nfreezer(["snapshots"]), 15, "is missing");
    says(env.nfreezer(["push", "source"]), 15, "is missing");
    says(env.nfreezer(["restore", "latest", "--target", "out"]), 15, "is missing");
    assert_eq!(
        std::fs::read(env.path("out/").join(env.path("source/file").strip_prefix("/").unwrap())).unwrap(),
        b"22"
    );
}

#[test]
fn the_first_contact_is_said_once() {
    let mut env = Env::new();
    env.set("NFREEZER_REPOSITORY", "repo");
    env.nfreezer(["init"]).done();
    assert_eq!(env.nfreezer(["snapshots"]).success().stderr, "", "who made it knows it");
    let state = env.home().join(".local/state/nfreezer");
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 3, "the heads, the sights of snapshots, the lock");
    std::fs::remove_dir_all(&state).unwrap();
    assert_eq!(env.nfreezer(["snapshots", "-q", "--no-memory"]).success().stderr, "");
    assert!(!state.exists(), "nothing is written with --no-memory");
    says(env.nfreezer(["snapshots"]), 0, "first use of this repository on this machine");
    assert_eq!(env.nfreezer(["snapshots"]).success().stderr, "");
    env.set("NFREEZER_NO_MEMORY", "1");
    std::fs::remove_dir_all(&state).unwrap();
    assert_eq!(env.nfreezer(["snapshots"]).success().stderr, "");
    assert!(!state.exists());
}

/// Replaces all key files by a key file of an attacker, who has guessed the passphrase. It holds the attacker's master
/// key.
fn forge_key(server: &Memory, id: &[u8; 32]) {
    for entry in server.list(background(), Folder::Keys).unwrap() {
        server.remove(background(), &entry.name).unwrap();
    }
    let info = KeyInfo { created: 4_000_000_000, label: "forged".into() };
    let (key, file) =
        keyfile::wrap(&Secret::new([6; 32]), &RepoId(*id), &passphrase(), KdfCost::DEFAULT, &[5; 32], &info).unwrap();
    server.overwrite(&Name::Key(key), file);
}

#[test]
fn t31_another_master_key_is_refused_before_anything_is_read_and_is_not_remembered() {
    let ((server, id), client) = (server(), Client::new());
    client.commit(&server, 1);
    client.read(&server).unwrap();
    let true_state = copy(&server);
    let before = client.remembered().of(&id).unwrap();
    forge_key(&server, &id);
    let error = tampering(client.open_as(&server, client.access()));
    assert!(error.to_string().contains("another master key"), "{error}");
    assert_eq!(client.remembered().of(&id).unwrap(), before);
    client.open_as(&true_state, client.access()).unwrap().state(background()).unwrap();
}

#[test]
fn t31_a_log_of_which_no_record_opens_is_no_empty_repository() {
    let ((server, id), client) = (server(), Client::new());
    client.commit(&server, 1);
    forge_key(&server, &id);
    for access in [Access::default(), Client::new().access()] {
        let repo = client.open_as(&server, access).unwrap();
        let error = tampering(repo.state(background()));
        assert!(error.to_string().contains("none of the 1 records"), "{error}");
    }
}

#[test]
fn a_key_is_remembered_only_after_a_record_opened_with_it() {
    let ((server, id), client) = (server(), Client::new());
    client.open_as(&server, client.access()).unwrap().state(background()).unwrap();
    let seen = client.remembered().of(&id).unwrap().unwrap();
    assert!(seen.key.is_none() && seen.master.is_none(), "an empty log proves nothing");
    client.commit(&server, 1);
    client.open_as(&server, client.access()).unwrap().state(background()).unwrap();
    let seen = client.remembered().of(&id).unwrap().unwrap();
    assert!(seen.key.is_some() && seen.master.is_some());
}

#[test]
fn a_copy_that_lags_is_reported_and_only_the_same_address_can_go_back() {
    let env = Env::with_repository();
    env.write("tree/a", "1");
    env.nfreezer(["push", "tree"]).done();
    let copy = |from: &str, to: &str| {
        let paths = [env.path(from), env.path(to)];
        let _ = std::fs::remove_dir_all(&paths[1]);
        assert!(std::process::Command::new("cp").arg("-a").args(paths).status().unwrap().success());
    };
    copy("repo", "copy");
    env.write("tree/a", "22");
    env.nfreezer(["push", "tree"]).done();
    let at_copy = |arguments: &[&str]| env.nfreezer([arguments, &["-r", "copy"]].concat());
    let said = at_copy(&["snapshots"]).exits(0);
    assert!(said.stderr.contains("is behind the copy of this repository at"), "{}", said.stderr);
    drop(at_copy(&["push", "tree"]).exits(0));
    // This machine pushes to both, so neither is behind, and neither is a rollback.
    for said in [env.nfreezer(["snapshots"]).exits(0), at_copy(&["snapshots"]).exits(0)] {
        assert!(!said.stderr.contains("is behind the copy"), "{}", said.stderr);
    }
    // A synchronisation sets the copy back to an older state.
    copy("copy", "newer");
    copy("repo", "copy");
    says(at_copy(&["push", "tree"]), 15, "`nfreezer accept` accepts it for good");
    says(at_copy(&["snapshots"]), 15, "older state");
    let said = at_copy(&["accept"]).exits(0);
    assert!(said.stdout.contains("is accepted, with 2 snapshots"), "{}", said.stdout);
    at_copy(&["push", "tree"]).done();
    // `accept` also accepts another repository in its place.
    std::fs::remove_dir_all(env.path("copy")).unwrap();
    env.nfreezer(["init", "-r", "other"]).done();
    copy("other", "copy");
    says(at_copy(&["snapshots"]), 15, "another repository than before");
    drop(at_copy(&["accept"]).exits(0));
    at_copy(&["snapshots"]).done();
}
