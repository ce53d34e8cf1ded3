//! The keys of a repository: several passphrases, a second factor, a printed page, and their failures.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::harness::cli::{Env, Output, PASSPHRASE};
use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::process::within;
use crate::harness::root::needs_root;
use crate::harness::sshd::{Setup, Sshd};
use nfreezer::context::{Context, background};
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::keys::RepoId;
use nfreezer::crypto::secret::{Passphrase, Secret};
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::keyfile::{self, KeyFile, KeyInfo};
use nfreezer::format::record::Head;
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::repo::{Access, Repository, Unlock, keys};
use nfreezer::seen::SeenStore as Remembered;
use nfreezer::storage::{Memory, Storage};
use serde_json::Value;

fn pass(text: &str) -> Passphrase {
    Passphrase::new(text.into()).unwrap()
}

/// Returns a passphrase with the local key that consists of this byte.
fn both(text: &str, local: u8) -> Passphrase {
    pass(text).with_local_key(Some(Secret::new([local; 32])))
}

fn unlock(passphrase: &Passphrase) -> Unlock<'_> {
    Unlock { passphrase, cost: KdfCost::DEFAULT, label: "test" }
}

fn open(server: &Arc<Memory>, text: &str, local: Option<u8>) -> Result<Repository> {
    let access = Access { local_key: local.map(|byte| Secret::new([byte; 32])), ..Access::default() };
    Repository::open_with(background(), Arc::clone(server) as _, &access, || Ok(pass(text)))
}

fn only_key(server: &Memory) -> (Name, Vec<u8>) {
    let name = server.list(background(), Folder::Keys).unwrap()[0].name;
    (name, server.get(&name).unwrap())
}

fn passphrase_error(result: Result<impl Sized>) -> Error {
    let error = result.err().expect("it must not open");
    assert_eq!(error.kind(), Kind::Passphrase, "{error}");
    error
}

fn with_local_key() -> Arc<Memory> {
    let server = Arc::<Memory>::default();
    drop(Repository::init_with(background(), server.clone(), unlock(&both("one", 7)), &Access::default()).unwrap());
    server
}

#[test]
fn a_local_key_is_needed_beside_the_passphrase() {
    let server = with_local_key();
    open(&server, "one", Some(7)).unwrap();
    assert!(passphrase_error(open(&server, "one", Some(8))).to_string().contains("passphrase or local key"));
    assert!(passphrase_error(open(&server, "two", Some(7))).to_string().contains("passphrase or local key"));
    let error = passphrase_error(Repository::open(background(), server.clone(), || {
        panic!("no question that cannot be answered")
    }));
    assert!(error.to_string().contains("need a local key") && error.hint_text().unwrap().contains("--local-key"));
    // The owner may add a key file without a local key. The other key files still report that they need one.
    let repo = open(&server, "one", Some(7)).unwrap();
    repo.add_key(background(), unlock(&pass("plain"))).unwrap();
    open(&server, "plain", None).unwrap();
    // With a local key, key files without one are not tried: any client may have made them.
    assert!(passphrase_error(open(&server, "plain", Some(1))).to_string().contains("passphrase or local key"));
    assert!(passphrase_error(open(&server, "one", None)).hint_text().unwrap().contains("--local-key"));
}

/// A client that makes a repository at the same place, either between the first look at it and the put of `config` or
/// after that put.
struct Race {
    exclusive: bool,
}

impl Rule for Race {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let Call::Put(name @ Name::Config, _) = call else { return call.of(ctx, storage) };
        let other = keyfile::encode_config(&RepoId([9; 32]));
        if self.exclusive {
            storage.put(ctx, name, &other)?;
            return call.of(ctx, storage);
        }
        // Behaves like SFTP served by rclone: a later file replaces an existing one.
        let done = call.of(ctx, storage)?;
        storage.remove(ctx, name)?;
        storage.put(ctx, name, &other)?;
        Ok(done)
    }

    fn creates_exclusively(&self) -> bool {
        self.exclusive
    }
}

#[test]
fn of_two_clients_that_make_a_repository_at_one_place_one_learns_of_it() {
    for exclusive in [true, false] {
        let memory = Arc::<Memory>::default();
        let server = Between::<_, Memory>::with(Arc::clone(&memory), Race { exclusive });
        let error =
            Repository::init_with(background(), server, unlock(&pass("mine")), &Access::default()).err().unwrap();
        assert_eq!(error.kind(), Kind::Exists, "{error}");
        assert!(error.to_string().contains("at the same moment"), "{error}");
        assert_eq!(memory.get(&Name::Config).unwrap(), keyfile::encode_config(&RepoId([9; 32])));
    }
}

#[test]
fn t31_a_server_that_clears_or_sets_the_flag_gets_nowhere() {
    for (local, wrong) in [(Some(7), 0), (None, 1)] {
        let server = Arc::<Memory>::default();
        let one = local.map_or_else(|| pass("one"), |local| both("one", local));
        Repository::init_with(background(), server.clone(), unlock(&one), &Access::default()).unwrap();
        let (name, mut bytes) = only_key(&server);
        bytes[41] = wrong;
        server.remove(background(), &name).unwrap();
        server.overwrite(&Name::Key(keyfile::name(&bytes)), bytes);
        passphrase_error(open(&server, "one", None));
        passphrase_error(open(&server, "one", Some(7)));
    }
}

#[test]
fn t21_t22_t24_what_a_key_file_asks_for_is_bounded_before_anything_is_done() {
    let server = Arc::<Memory>::default();
    Repository::init(background(), server.clone(), &pass("one"), KdfCost::DEFAULT, "").unwrap();
    let (name, good) = only_key(&server);
    server.remove(background(), &name).unwrap();
    let cases =
        [[8, 1, 1], [65_536, 1, 1], [u32::MAX, 3, 4], [65_536, u32::MAX, 4], [65_536, 3, 1 << 24], [2 << 20, 5, 4]];
    for numbers in cases {
        let mut bytes = good.clone();
        bytes[44..56].copy_from_slice(&numbers.map(u32::to_be_bytes).concat());
        let name = Name::Key(keyfile::name(&bytes));
        server.overwrite(&name, bytes);
        let error = passphrase_error(open(&server, "one", None));
        assert!(error.to_string().contains("out of bounds"), "{error}");
        server.remove(background(), &name).unwrap();
    }
    for len in [0, 263, 265] {
        let mut bytes = good.clone();
        bytes.resize(len, 0);
        let name = Name::Key(keyfile::name(&bytes));
        server.overwrite(&name, bytes);
        assert!(passphrase_error(open(&server, "one", None)).to_string().contains("wrong size"), "{len}");
        server.remove(background(), &name).unwrap();
    }
}

#[test]
fn every_passphrase_opens_and_the_last_key_stays() {
    let server = Arc::<Memory>::default();
    let repo = Repository::init(background(), server.clone(), &pass("one"), KdfCost::DEFAULT, "first").unwrap();
    let first = *repo.opened_by().0;
    let refused = repo.remove_key(background(), &first).unwrap_err();
    assert!(refused.kind() == Kind::Usage && refused.to_string().contains("last one"), "{refused}");
    let second = repo.add_key(background(), unlock(&pass("two"))).unwrap();
    assert_eq!(open(&server, "two", None).unwrap().opened_by().0, &second);
    assert_eq!(open(&server, "one", None).unwrap().opened_by().1.label, "first");
    // A key file that does not open does not count as another key.
    server.overwrite(&Name::Key(ObjectId([9; 32])), vec![0; 264]);
    assert_eq!(repo.key_files(background()).unwrap().iter().filter(|key| key.what.is_ok()).count(), 2);
    repo.remove_key(background(), &first).unwrap();
    passphrase_error(open(&server, "one", None));
    assert_eq!(repo.remove_key(background(), &second).unwrap_err().kind(), Kind::Usage);
    open(&server, "two", None).unwrap();
}

#[test]
fn t32_a_removed_key_that_comes_back_is_reported() {
    let (server, folder) = (Arc::<Memory>::default(), tempfile::tempdir().unwrap());
    let open = |text: &str| {
        let access = Access { seen: Some(Remembered::at(folder.path())), ..Access::default() };
        Repository::open_with(background(), server.clone(), &access, || Ok(pass(text)))
    };
    Repository::init(background(), server.clone(), &pass("one"), KdfCost::DEFAULT, "").unwrap();
    let (name, bytes) = only_key(&server);
    let repo = open("one").unwrap();
    repo.add_key(background(), unlock(&pass("two"))).unwrap();
    let Name::Key(first) = name else { panic!("{name}") };
    repo.remove_key(background(), &first).unwrap();
    assert_eq!(open("two").unwrap().state(background()).unwrap().warnings(), [""; 0]);
    server.overwrite(&name, bytes);
    let warnings = open("two").unwrap().state(background()).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("is there again"), "{warnings:?}");
    let repo = open("two").unwrap();
    repo.accept(&repo.state(background()).unwrap()).unwrap();
    assert_eq!(open("two").unwrap().state(background()).unwrap().warnings(), [""; 0], "it was accepted");
}

#[test]
fn an_older_and_cheaper_key_file_is_no_replacement() {
    let (server, folder) = (Arc::<Memory>::default(), tempfile::tempdir().unwrap());
    let open = |accept_rollback| {
        let access = Access { seen: Some(Remembered::at(folder.path())), accept_rollback, ..Access::default() };
        Repository::open_with(background(), server.clone(), &access, || Ok(pass("one")))
    };
    let repo = Repository::init(background(), server.clone(), &pass("one"), KdfCost::DEFAULT, "").unwrap();
    let (name, cheap) = only_key(&server);
    let one = pass("one");
    let dearer = Unlock { cost: KdfCost { passes: 4, ..KdfCost::DEFAULT }, ..unlock(&one) };
    let dear = repo.add_key(background(), dearer).unwrap();
    server.remove(background(), &name).unwrap();
    // The key is remembered once a record has opened with it.
    repo.commit(background(), &mut repo.state(background()).unwrap(), Head::default(), &[]).unwrap();
    open(false).unwrap().state(background()).unwrap();
    let bytes = server.get(&Name::Key(dear)).unwrap();
    server.remove(background(), &Name::Key(dear)).unwrap();
    server.overwrite(&name, cheap);
    let error = open(false).err().unwrap();
    assert!(error.kind() == Kind::Tampering && error.to_string().contains("easier to guess"), "{error}");
    assert_eq!(open(true).unwrap().state(background()).unwrap().warnings().len(), 1);
    // Beside the newer key file the older one does no harm: the key file that worked is tried first.
    server.overwrite(&Name::Key(dear), bytes);
    assert_eq!(*open(false).unwrap().opened_by().0, dear);
}

#[test]
fn a_repository_whose_keys_are_lost_opens_with_the_exported_file() {
    let server = with_local_key();
    let (name, file) = only_key(&server);
    server.remove(background(), &name).unwrap();
    server.remove(background(), &Name::Config).unwrap();
    let local = Secret::new([7; 32]);
    let access = |local_key| Access { key_file: Some(file.clone()), local_key, ..Access::default() };
    let opened =
        Repository::open_with(background(), server.clone(), &access(Some(local.clone())), || Ok(pass("one"))).unwrap();
    assert!(opened.state(background()).unwrap().snapshots().is_empty());
    passphrase_error(Repository::open_with(background(), server.clone(), &access(None), || Ok(pass("one"))));
    let import = |text: &str, local| keys::import(background(), &*server, &file, local, || Ok(pass(text)));
    passphrase_error(import("two", Some(&local)));
    passphrase_error(import("one", None));
    assert_eq!(server.list(background(), Folder::Keys).unwrap(), [], "nothing is written before it has opened");
    import("one", Some(&local)).unwrap();
    import("one", Some(&local)).unwrap();
    open(&server, "one", Some(7)).unwrap();
    // The file is not imported into another repository.
    let other = Arc::<Memory>::default();
    Repository::init(background(), other.clone(), &pass("one"), KdfCost::DEFAULT, "").unwrap();
    assert_eq!(
        keys::import(background(), &*other, &file, Some(&local), || Ok(pass("one"))).unwrap_err().kind(),
        Kind::Usage
    );
}

#[test]
fn t20_t30_a_key_file_is_used_whole_or_not_at_all() {
    let (id, one) = (RepoId([2; 32]), both("one", 5));
    let info = KeyInfo { created: 1, label: "x".repeat(63) };
    let wrap = |info: &KeyInfo| keyfile::wrap(&Secret::new([1; 32]), &id, &one, KdfCost::DEFAULT, &[3; 32], info);
    let (name, file) = wrap(&info).unwrap();
    let (master, read) = KeyFile::parse(&name, &id, &file).unwrap().open(&one).unwrap();
    assert_eq!((master.expose(), read), (&[1; 32], info));
    assert!(wrap(&KeyInfo { created: 1, label: "x".repeat(64) }).is_err());
    // Flips bits of every field, under a name that fits: either the layout or the key is refused.
    for at in [0, 8, 40, 41, 42, 43, 47, 51, 55, 56, 87, 88, 119, 120, 247, 248, 263] {
        let mut bytes = file.clone();
        bytes[at] ^= 1;
        let result = KeyFile::parse(&keyfile::name(&bytes), &id, &bytes).and_then(|key| key.open(&one));
        assert!(matches!(result.unwrap_err().kind(), Kind::Passphrase | Kind::Damaged), "{at}");
    }
}

fn environment() -> Env {
    let mut env = Env::new();
    env.set("NFREEZER_REPOSITORY", "repo");
    env
}

/// Returns the keys that `key list --json` shows.
fn listed(env: &Env) -> Vec<Value> {
    let mut objects = env.nfreezer(["key", "list", "--json"]).success().objects();
    assert_eq!(objects.pop().unwrap()["keys"], objects.len());
    objects
}

fn says(output: Output, code: i32, text: &str) {
    let output = output.exits(code);
    assert!(output.stderr.contains(text) || output.stdout.contains(text), "{}{}", output.stdout, output.stderr);
}

#[test]
fn keys_are_added_listed_changed_and_removed() {
    let mut env = environment();
    env.nfreezer(["init"]).done();
    env.write("two", "second\n");
    fs::set_permissions(env.path("two"), fs::Permissions::from_mode(0o600)).unwrap();
    let first = listed(&env)[0]["id"].as_str().unwrap().to_owned();
    says(env.nfreezer(["key", "remove", &first[..8]]), 2, "last one");
    says(env.nfreezer(["key", "add"]), 2, "NFREEZER_NEW_PASSWORD");
    env.nfreezer(["key", "add", "--label", "laptop\u{1b}[2J", "--new-password-file", "two"]).done();
    let keys = listed(&env);
    assert_eq!(keys.len(), 2);
    let mine = keys.iter().find(|key| key["opened"] == true).unwrap();
    assert_eq!((mine["id"].as_str(), mine["label"].as_str()), (Some(first.as_str()), Some("init")));
    assert_eq!(
        (mine["memory"].as_u64(), mine["passes"].as_u64(), &mine["local_key"]),
        (Some(64 << 20), Some(3), &Value::Bool(false))
    );
    let shown = env.nfreezer(["key", "list", "-p", "two"]).success().stdout;
    assert!(
        shown.contains("laptop\\x1b[2J") && shown.contains(&first[..8]) && shown.contains("64.0 MiB x 3 (4)"),
        "{shown}"
    );
    // `passwd` adds a key and then removes the old one; the label stays.
    env.set("NFREEZER_NEW_PASSWORD", "third");
    says(env.nfreezer(["key", "passwd"]), 0, "revokes nothing");
    says(env.nfreezer(["snapshots"]), 12, "wrong passphrase");
    env.set("NFREEZER_PASSWORD", "third");
    let keys = listed(&env);
    assert!(keys.len() == 2 && keys.iter().all(|key| key["id"] != first.as_str()));
    assert_eq!(keys.iter().find(|key| key["opened"] == true).unwrap()["label"], "init");
    says(env.nfreezer(["key", "remove", "zzzz"]), 2, "4 or more digits");
    let two = keys.iter().find(|key| key["opened"] == false).unwrap()["short_id"].as_str().unwrap();
    says(env.nfreezer(["key", "remove", two]), 0, "revokes nothing");
    says(env.nfreezer(["snapshots", "-p", "two"]), 12, "wrong passphrase");
}

#[test]
fn a_made_passphrase_is_printed_once_and_opens() {
    let mut env = Env::without_passphrase();
    env.set("NFREEZER_REPOSITORY", "repo");
    let made = env.nfreezer(["init", "--generate-passphrase"]).success().stdout;
    let passphrase = made.lines().find_map(|line| line.strip_prefix("passphrase: ")).unwrap().to_owned();
    env.set("NFREEZER_PASSWORD", &passphrase);
    assert!(!env.nfreezer(["snapshots"]).success().stdout.contains(&passphrase));
    let added = env.nfreezer(["key", "add", "--generate-passphrase", "--json"]).success().objects().pop().unwrap();
    env.set("NFREEZER_PASSWORD", added["passphrase"].as_str().unwrap());
    env.nfreezer(["snapshots"]).done();
    assert_ne!(added["passphrase"].as_str().unwrap(), passphrase);
}

#[test]
fn the_local_key_of_the_command_line() {
    let mut env = environment();
    says(env.nfreezer(["init", "--local-key", "second"]), 0, "keep copies of it");
    let mode = fs::metadata(env.path("second")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    says(env.nfreezer(["snapshots"]), 12, "need a local key");
    env.nfreezer(["snapshots", "--local-key", "second"]).done();
    says(env.nfreezer(["snapshots", "--local-key", "nothing"]), 2, "does not exist");
    let text = fs::read_to_string(env.path("second")).unwrap();
    let line = text.trim_end();
    env.write("wrong", format!("{}x\n", &line[..line.len() - 1]));
    says(env.nfreezer(["snapshots", "--local-key", "wrong"]), 2, "is not a local key");
    fs::write(env.path("wrong"), "letters").unwrap();
    let mut other = environment();
    other.set("NFREEZER_LOCAL_KEY", env.path("wrong").to_str().unwrap());
    says(other.nfreezer(["init"]), 2, "is not a local key");
    assert_eq!(fs::read(env.path("wrong")).unwrap(), b"letters");
    assert!(!other.path("repo/config").exists());
    // A reader that is written from the format document alone handles the local key, too.
    let recover = |key: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/recover.py");
        let mut python = std::process::Command::new("python3");
        python.args(["-B", script, "list", "repo"]).current_dir(env.path("")).env("NFREEZER_PASSWORD", PASSPHRASE);
        let output = python.env("NFREEZER_LOCAL_KEY", key).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("ModuleNotFoundError"), "modules of Python are missing: run scripts/setup.sh tests");
        output.status.code()
    };
    assert_eq!([recover("second"), recover("/dev/null")], [Some(0), Some(12)]);
    // A key made by `passwd` still needs the local key. The local key can also be left out or changed.
    env.set("NFREEZER_LOCAL_KEY", "second").set("NFREEZER_NEW_PASSWORD", "new");
    env.nfreezer(["key", "passwd"]).done();
    env.set("NFREEZER_PASSWORD", "new").set("NFREEZER_NEW_PASSWORD", "newer");
    assert_eq!(listed(&env)[0]["local_key"], true);
    env.nfreezer(["key", "passwd", "--new-local-key", "third"]).done();
    env.set("NFREEZER_PASSWORD", "newer").set("NFREEZER_NEW_PASSWORD", "newest");
    says(env.nfreezer(["snapshots"]), 12, "passphrase or local key");
    env.set("NFREEZER_LOCAL_KEY", "third");
    env.nfreezer(["key", "passwd", "--without-local-key"]).done();
    env.set("NFREEZER_PASSWORD", "newest").unset("NFREEZER_LOCAL_KEY");
    env.nfreezer(["snapshots"]).done();
}

#[test]
fn a_page_of_paper_brings_a_repository_back() {
    let env = environment();
    env.write("source/letter", "dear");
    env.nfreezer(["init"]).done();
    env.nfreezer(["push", "source"]).done();
    let page = env.nfreezer(["key", "export"]).success().stdout;
    assert!(page.lines().all(|line| line.chars().count() <= 80), "it fits on paper");
    assert!(page.contains("key import FILE") && page.contains('\u{2580}'), "{page}");
    env.nfreezer(["key", "export", "--output", "page"]).done();
    assert_eq!(fs::read_to_string(env.path("page")).unwrap(), page);
    assert_eq!(fs::metadata(env.path("page")).unwrap().permissions().mode() & 0o777, 0o600);
    says(env.nfreezer(["key", "export", "--output", "page"]), 1, "exists");
    let code = env.nfreezer(["key", "export", "--json"]).success().objects().pop().unwrap();
    env.write("scanned", code["text"].as_str().unwrap());

    let keys = env.path("repo/keys");
    fs::remove_dir_all(&keys).unwrap();
    fs::create_dir(&keys).unwrap();
    says(env.nfreezer(["snapshots"]), 4, "has lost its key files");
    for file in ["page", "scanned"] {
        env.nfreezer(["restore", "latest", "--target", &format!("out-{file}"), "--key-file", file]).done();
    }
    let typed: String =
        page.lines().filter(|line| line.contains(" = ")).map(|line| line.to_lowercase() + "\n").collect();
    assert_eq!(typed.lines().count(), 14);
    env.write("typed", typed.replacen("\n03 ", "\n30 ", 1));
    says(env.nfreezer(["key", "import", "typed"]), 2, "line 3 is missing");
    env.write("typed", typed);
    env.nfreezer(["key", "import", "typed"]).done();
    env.nfreezer(["snapshots"]).done();
    fs::remove_file(env.path("repo/config")).unwrap();
    says(env.nfreezer(["snapshots"]), 4, "has lost its file config");
    env.nfreezer(["key", "import", "page"]).done();
    assert!(env.nfreezer(["ls"]).success().stdout.len() > 1);
}

#[test]
fn on_a_terminal_nothing_typed_means_that_one_is_made() {
    let mut env = Env::without_passphrase();
    env.set("NFREEZER_REPOSITORY", "repo");
    let script = r#"
import os, pty, re, signal, sys
signal.alarm(60)
pid, tty = pty.fork()
if pid == 0: os.execv(sys.argv[1], [sys.argv[1], "init"])
seen = b""
def until(text):
    global seen
    while text not in seen:
        try: more = os.read(tty, 4096)
        except OSError: more = b""
        if not more: sys.exit("ended with " + repr(seen))
        seen += more
until(b"generate one): "); os.write(tty, b"\n")
until(b"the same again: ")
made = re.search(rb"passphrase: ([0-9a-z-]+)", seen).group(1)
os.write(tty, made + b"\n")
until(b"made repository")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or print(made.decode()))
"#;
    let mut python = std::process::Command::new("python3");
    python.args(["-c", script]);
    let output = within(python, &env.command([] as [&str; 0])).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    env.set("NFREEZER_PASSWORD", String::from_utf8(output.stdout).unwrap().trim());
    env.nfreezer(["snapshots"]).done();
}

#[test]
fn an_append_only_server_refuses_to_remove_keys_and_that_is_reported() {
    if !needs_root("an account of its own") {
        return;
    }
    let sshd = Sshd::with(Setup { account: Some("unused"), ..Setup::default() });
    let mut env = Env::new();
    let place = sshd.files().join("repo");
    let config = sshd.client_config(&env.path(""), sshd.port);
    let option = format!("ssh.config={}", config.display());
    let repository = format!("server:{}", place.display());
    env.set("NFREEZER_REPOSITORY", &repository).set("NFREEZER_NEW_PASSWORD", "second");
    let ssh = |env: &Env, rest: &[&str]| env.nfreezer(["-o", &option].iter().chain(rest));
    ssh(&env, &["init"]).done();
    // From here on the same server accepts the key only with the line of the README in front of it.
    let key = fs::read_to_string(sshd.authorized_keys()).unwrap();
    fs::write(sshd.authorized_keys(), format!("{}{key}", crate::harness::sshd::APPEND_ONLY)).unwrap();
    let failed = ssh(&env, &["key", "passwd"]).exits(1);
    let text = "the new passphrase opens the repository";
    assert!(failed.stderr.contains(text) && failed.stderr.contains("so does the old one"), "{}", failed.stderr);
    assert!(failed.stderr.contains("append-only"), "{}", failed.stderr);
    assert_eq!(fs::read_dir(place.join("keys")).unwrap().count(), 2);
    let first = env.nfreezer(["key", "list", "--json", "-r", place.to_str().unwrap()]).success().objects();
    let id = first.iter().find(|key| key["opened"] == true).unwrap()["id"].as_str().unwrap().to_owned();
    env.set("NFREEZER_PASSWORD", "second");
    says(ssh(&env, &["key", "remove", &id]), 1, "append-only");
    // An account with full access removes the key.
    env.nfreezer(["key", "remove", &id, "-r", place.to_str().unwrap()]).done();
    ssh(&env, &["snapshots"]).done();
}
