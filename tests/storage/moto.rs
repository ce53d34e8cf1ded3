//! moto, an object store that keeps versions: the contract, and recovery after a thief has deleted objects.

use nfreezer::crypto::keys::RepoId;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::format::keyfile::encode_config;
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::push::{Options, push};
use nfreezer::repo::Repository;
use nfreezer::storage::{Capabilities, Kept, Storage};

use crate::harness::cli::{Env, PASSPHRASE};
use crate::harness::object_store::{KEY_ID, Moto, SECRET};
use crate::{background, fresh, noise, run, suite};

fn names(storage: &dyn Storage) -> Vec<Name> {
    let folders = [Folder::Root].into_iter().chain(Folder::all());
    folders.flat_map(|folder| storage.list(background(), folder).expect("a listing")).map(|entry| entry.name).collect()
}

#[test]
fn a_store_with_versions() {
    let server = Moto::start();
    let storage = server.open("suite");
    suite(&*storage);
    assert_eq!(storage.capabilities(), Capabilities { durable_put: true, exclusive_create: true });

    let storage = server.open("kept");
    let mut ids: Vec<ObjectId> = (0..1100).map(|_| fresh()).collect();
    ids.iter_mut().for_each(|id| id.0[0] = 0x30);
    let packs: Vec<Name> = ids.into_iter().map(Name::Pack).collect();
    assert!(storage.kept(background(), packs[0].folder()).expect("a listing").is_empty());
    packs[..20].iter().for_each(|name| storage.put(background(), name, b"bytes").expect("a new object"));
    storage.remove_all(background(), &packs[..20]).expect("removed");
    storage.put(background(), &packs[0], b"again").expect("the name is free");
    storage.remove(background(), &packs[0]).expect("removed again");
    storage.remove(background(), &packs[0]).expect("a second marker");
    storage.put(background(), &packs[1], b"again").expect("the name is free");
    let kept = storage.kept(background(), packs[0].folder()).expect("a listing");
    let (kept, visible): (Vec<Kept>, Vec<Kept>) = kept.into_iter().partition(|kept| kept.is_hidden);
    assert_eq!(kept.len(), 19, "the second one is there");
    assert!(visible.len() == 1 && visible[0].name == packs[1] && visible[0].is_overwritten());
    assert!(kept.iter().all(|kept| kept.versions[0].size == 5 && packs[..20].contains(&kept.name)));
    let first = kept.iter().find(|kept| kept.name == packs[0]).expect("it is kept");
    assert!(storage.unhide(background(), first).expect("back") && first.is_overwritten());
    assert_eq!(storage.read(background(), &packs[0], 0, 5).expect("it is there"), b"again", "the newest version");
    assert!(storage.keeps_versions());
    // If no delete marker can be removed, the version is read and put again.
    let third = kept.iter().find(|kept| kept.name == packs[2]).expect("it is kept");
    assert!(!storage.unhide(background(), &Kept { markers: Vec::new(), ..third.clone() }).expect("an answer"));
    let bytes = storage.version(background(), &packs[2], &third.versions[0]).expect("it is kept");
    storage.put_back(background(), third, &bytes).expect("back");
    assert_eq!(storage.read(background(), &packs[2], 0, 5).expect("it is there"), b"bytes");
    thief(&server);
}

/// Deletes objects like a thief, and brings them back.
fn thief(server: &Moto) {
    let mut env = Env::new();
    env.set("AWS_ACCESS_KEY_ID", KEY_ID).set("AWS_SECRET_ACCESS_KEY", SECRET);
    env.set("NFREEZER_REPOSITORY", &server.address("repo"));
    (0..3u64).for_each(|i| drop(env.write(&format!("src/{i}"), noise(i, 100_000))));
    env.nfreezer(["init"]).done();
    // Enough pushes for a merge. The prune deletes the merged records.
    let passphrase = || Ok(Passphrase::new(PASSPHRASE.into()).expect("long enough"));
    let repo = Repository::open(background(), server.open("repo").into(), passphrase).expect("open");
    let sources = vec![env.path("src")];
    let options = Options { sources, host: "h".into(), user: "u".into(), memory: 104 << 20, ..Options::default() };
    for n in 0..17u64 {
        env.write("src/more", noise(50 + n, 60_000));
        push(background(), &repo, &options).expect("pushed");
    }
    env.nfreezer(["forget", "--keep-last", "2", "--yes"]).done();
    env.nfreezer(["prune", "--exclusive", "--keep-forgotten", "0d", "--yes"]).done();
    let storage = server.open("repo");
    assert!(!storage.kept(background(), Folder::Log).expect("a listing").is_empty(), "prune has deleted records");
    env.nfreezer(["check"]).done();
    let idle = env.nfreezer(["repair"]).success();
    assert!(idle.stdout.contains("nothing is to be repaired"), "{idle:?}");

    let all = names(&*storage);
    let contents: Vec<Name> = all.iter().filter(|name| matches!(name, Name::Pack(_))).copied().collect();
    storage.remove_all(background(), &contents[..1]).expect("a thief deletes");
    let check = env.nfreezer(["check"]);
    assert!(check.code == 4 && check.stdout.contains("1 object DELETED although needed"), "{check:?}");
    let dry = env.nfreezer(["repair", "--dry-run"]).success();
    assert!(names(&*storage).len() + 1 == all.len() && !dry.stdout.contains("brought back"), "{dry:?}");
    let back = env.nfreezer(["repair"]).success();
    assert!(back.stdout.contains("1 object brought back") && !back.stdout.contains("marked as lost"), "{back:?}");
    env.nfreezer(["check", "--read-data"]).done();

    // A machine without seen heads detects that the newest record, which no other record names, was deleted.
    let newest = all.iter().filter(|name| matches!(name, Name::Record { .. })).max_by_key(|name| name.path());
    let newest = *newest.expect("a record");
    storage.remove(background(), &newest).expect("a thief deletes");
    let mut other = Env::new();
    other.set("AWS_ACCESS_KEY_ID", KEY_ID).set("AWS_SECRET_ACCESS_KEY", SECRET);
    other.set("NFREEZER_REPOSITORY", &server.address("repo"));
    let check = other.nfreezer(["check"]);
    assert!(check.code == 15 && check.stdout.contains(&newest.path()), "{check:?}");
    let back = env.nfreezer(["repair"]).success();
    assert!(back.stdout.contains("brought back"), "the machine that has seen it: {back:?}");
    env.nfreezer(["check"]).done();

    storage.remove_all(background(), &all).expect("a thief deletes everything");
    let gone = env.nfreezer(["check"]);
    assert!(gone.code == 10 && gone.stderr.contains("was deleted, and the store keeps versions"), "{gone:?}");
    let back = env.nfreezer(["repair"]).success();
    assert!(back.stdout.contains("brought back") && back.stdout.contains("key list"), "{back:?}");
    env.nfreezer(["check", "--read-data"]).done();
    let source = env.path("src").display().to_string();
    env.nfreezer(["restore", &format!("latest:{source}"), "--target", "out"]).done();
    run("diff", &["-r", &source, &env.path("out").display().to_string()]);
}

/// Replaces an object by other bytes of the same length.
fn overwrite(server: &Moto, storage: &dyn Storage, name: &Name) {
    let size = storage.size(background(), name).expect("it is there");
    server.put(&format!("/bucket/repo/{}", name.path()), &"x".repeat(size as usize));
}

#[test]
fn objects_that_a_thief_overwrites_come_back() {
    let server = Moto::start();
    let mut env = Env::new();
    env.set("AWS_ACCESS_KEY_ID", KEY_ID).set("AWS_SECRET_ACCESS_KEY", SECRET);
    env.set("NFREEZER_REPOSITORY", &server.address("repo"));
    env.nfreezer(["init"]).done();
    for n in 0..2u64 {
        env.write(&format!("src/{n}"), noise(n, 300_000));
        env.nfreezer(["push", "src"]).done();
    }
    let storage = server.open("repo");
    let all = names(&*storage);
    let packs: Vec<Name> = all.iter().filter(|name| matches!(name, Name::Pack(_))).copied().collect();
    let newest = all.iter().filter(|name| matches!(name, Name::Record { .. })).max_by_key(|name| name.path());
    let (newest, config) = (*newest.expect("a record"), Name::Config);
    let key = *all.iter().find(|name| matches!(name, Name::Key(_))).expect("a key file");

    // A pack keeps its size, another one is also deleted.
    overwrite(&server, &*storage, &packs[0]);
    overwrite(&server, &*storage, &packs[1]);
    storage.remove(background(), &packs[1]).expect("deleted");
    let check = env.nfreezer(["check"]);
    assert!(check.code == 4 && check.stdout.contains("1 object OVERWRITTEN: the store"), "{check:?}");
    assert!(check.stdout.contains("1 object DELETED although needed"), "{check:?}");
    // The newest record, which no other record names, on a machine that has never seen it.
    overwrite(&server, &*storage, &newest);
    let mut other = Env::new();
    other.set("AWS_ACCESS_KEY_ID", KEY_ID).set("AWS_SECRET_ACCESS_KEY", SECRET);
    other.set("NFREEZER_REPOSITORY", &server.address("repo"));
    let check = other.nfreezer(["check"]);
    assert!(check.code == 15 && check.stdout.contains("OVERWRITTEN"), "{check:?}");
    let back = env.nfreezer(["repair"]).success();
    assert!(back.stdout.contains("brought back") && !back.stdout.contains("marked as lost"), "{back:?}");
    env.nfreezer(["check", "--read-data"]).done();

    // Objects without which nothing opens.
    overwrite(&server, &*storage, &key);
    overwrite(&server, &*storage, &config);
    let closed = env.nfreezer(["snapshots"]);
    assert!(closed.code == 10 && closed.stderr.contains("config of s3+http"), "{closed:?}");
    let back = env.nfreezer(["repair"]).success();
    assert!(back.stdout.contains("2 objects brought back"), "{back:?}");
    let foreign = String::from_utf8(encode_config(&RepoId([b'x'; 32]))).expect("ASCII");
    server.put("/bucket/repo/config", &foreign);
    assert_eq!(env.nfreezer(["snapshots"]).code, 15, "another repository");
    let back = other.nfreezer(["repair"]).success();
    assert!(back.stdout.contains("1 object brought back"), "{back:?}");
    env.nfreezer(["check", "--read-data"]).done();
    let again = env.nfreezer(["repair"]).success();
    assert!(again.stdout.contains("nothing is to be repaired"), "{again:?}");

    // A new repository in the place of a deleted one keeps its own `config`.
    storage.remove_all(background(), &names(&*storage)).expect("deleted");
    let mut third = Env::new();
    third.set("AWS_ACCESS_KEY_ID", KEY_ID).set("AWS_SECRET_ACCESS_KEY", SECRET);
    third.set("NFREEZER_REPOSITORY", &server.address("repo"));
    third.nfreezer(["init"]).done();
    third.nfreezer(["repair"]).done();
    third.nfreezer(["snapshots"]).done();
}
