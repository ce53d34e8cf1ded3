//! `doctor` against real servers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::cli::{Env, Output};
use crate::harness::root::needs_root;
use crate::harness::sshd::{APPEND_ONLY, Setup, Sshd};
use crate::harness::tree::files_below;

/// Returns all files below a folder with their contents.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

struct Client {
    env: Env,
    sshd: Sshd,
    config: String,
    address: String,
}

impl Client {
    /// Starts a server and makes a repository with one snapshot on it.
    fn new(setup: Setup) -> Client {
        let (env, sshd) = (Env::new(), Sshd::with(setup));
        let config = format!("ssh.config={}", sshd.client_config(&env.home(), sshd.port).display());
        let address = format!("server:{}", sshd.files().join("repo").display());
        let client = Client { env, sshd, config, address };
        client.env.write("tree/a", "x");
        client.nfreezer(&["push", "--init", "-r", &client.address, "tree"]).done();
        client
    }

    fn nfreezer(&self, arguments: &[&str]) -> Output {
        self.env.nfreezer([arguments, &["-o", &self.config]].concat())
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.sshd.files().join("repo"))
    }
}

fn levels(objects: &[Value]) -> BTreeMap<&str, &str> {
    let findings = objects.iter().filter(|object| object["type"] == "finding");
    findings.map(|finding| (finding["test"].as_str().unwrap(), finding["level"].as_str().unwrap())).collect()
}

#[test]
fn doctor_tests_a_server_and_leaves_nothing() {
    let client = Client::new(Setup::default());
    let before = client.files();
    let objects = client.nfreezer(&["doctor", &client.address, "--json"]).exits(0).objects();
    let levels = levels(&objects);
    for test in ["login", "repository", "extensions", "latency", "sync", "create", "clock", "upload", "download"] {
        assert_eq!(levels.get(test), Some(&"ok"), "{test}: {objects:?}");
    }
    assert_eq!(levels.get("protection"), Some(&"warn"), "{objects:?}");
    let values = &objects.iter().find(|object| object["test"] == "protection").unwrap()["values"];
    for change in ["overwritten", "renamed", "linked", "deleted"] {
        assert_eq!(values[change], 1, "{values}");
    }
    assert_eq!(objects.last().unwrap()["left"].as_array().unwrap().len(), 0);
    assert_eq!(client.files(), before, "nothing else was changed, and nothing is left");
    let text = client.nfreezer(&["doctor", "-r", &client.address, "-q", "--no-write"]).exits(0).stdout;
    assert!(!text.contains("protection") && !text.contains("login"), "{text}");
    let absent = format!("{}-absent", client.address);
    let text = client.nfreezer(&["doctor", &absent]).exits(1).stdout;
    assert!(text.contains("FAIL  repository  there is none") && text.contains("1 failure"), "{text}");
}

#[test]
fn doctor_sees_an_append_only_server_and_names_what_it_left() {
    if !needs_root("another user beside root") {
        return;
    }
    let client = Client::new(Setup { account: Some("unused"), ..Setup::default() });
    let key = fs::read_to_string(client.sshd.authorized_keys()).unwrap();
    fs::write(client.sshd.authorized_keys(), format!("{APPEND_ONLY}{key}")).unwrap();
    let before = client.files();
    let objects = client.nfreezer(&["doctor", &client.address, "--json"]).exits(0).objects();
    assert_eq!(levels(&objects).get("protection"), Some(&"ok"), "{objects:?}");
    let after = client.files();
    let left: Vec<PathBuf> = objects.last().unwrap()["left"].as_array().unwrap().iter().map(name_of).collect();
    let new: Vec<PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).cloned().collect();
    let mut named: Vec<PathBuf> = left.iter().map(|name| client.sshd.files().join("repo").join(name)).collect();
    named.sort();
    assert_eq!(named, new, "all that is left is named");
    assert!((1..=4).contains(&new.len()) && before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)));
    // The objects left behind count as unused packs; `prune` with a full key removes them.
    client.nfreezer(&["check", "--read-data", "-r", &client.address]).done();
    fs::write(client.sshd.authorized_keys(), key).unwrap();
    client.nfreezer(&["prune", "--exclusive", "--yes", "-r", &client.address]).done();
    assert!(new.iter().all(|path| !path.exists()), "{new:?}");
    // A server that refuses only `remove` and `rmdir` still allows other changes of files: a hole.
    let hole = r#"restrict,command="internal-sftp -P remove,rmdir" "#;
    let key = fs::read_to_string(client.sshd.authorized_keys()).unwrap();
    fs::write(client.sshd.authorized_keys(), format!("{hole}{key}")).unwrap();
    let text = client.nfreezer(&["doctor", &client.address]).exits(1).stdout;
    assert!(text.contains("FAIL  protection  deletion is refused, but") && text.contains("overwritten"), "{text}");
    assert!(text.contains("left on the server, which refuses deletion"), "{text}");
}

fn name_of(left: &Value) -> PathBuf {
    left["name"].as_str().unwrap().into()
}
