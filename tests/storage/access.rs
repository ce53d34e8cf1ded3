//! Object stores behind a proxy, with the bucket in the name of the host, with credentials that expire or come from a program,
//! and with a wish for a pause.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nfreezer::storage::S3Options;

use crate::harness::cli::Env;
use crate::harness::object_store::{KEY_ID, Reply, SECRET, Store, options};
use crate::*;

/// Returns options with these variables beside the key of the tests.
fn with(variables: &[(&str, &str)]) -> Options {
    let mut options = options();
    options.s3.environment.extend(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    options
}

fn at(address: &str, options: Options) -> nfreezer::error::Result<Box<dyn Storage>> {
    open(background(), &Location::parse(address).expect("an address"), options)
}

#[test]
fn a_store_behind_a_proxy_and_a_bucket_in_the_name_of_its_host() {
    let store = Store::start();
    let proxy = format!("http://jo:hidden@127.0.0.1:{}", store.port);
    for (style, host) in [("false", "store.example:9000"), ("true", "bucket.store.example:9000")] {
        let variables = [("http_proxy", &*proxy), ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", style)];
        let storage = at("s3+http://store.example:9000/bucket/repo", with(&variables)).expect("through the proxy");
        suite(&*storage);
        assert!(storage.kept(background(), Folder::Log).expect("an answer").is_empty());
        let seen = store.seen();
        assert!(seen.iter().all(|request| request.headers["host"] == host), "{:?}", seen[0].headers);
        assert!(seen.iter().all(|request| request.headers["proxy-authorization"] == "Basic am86aGlkZGVu"));
        store.clear();
    }
    // A tunnel that the proxy refuses, and a proxy that does not exist.
    for (answer, text) in [("407 Login", "wants a login"), ("403 No", "refuses it (status 403)")] {
        store.next("CONNECT", 1, move || Reply::Raw(format!("HTTP/1.1 {answer}\r\n\r\n").into_bytes()));
        let error = at("s3://store.example/bucket", with(&[("HTTPS_PROXY", &proxy)])).map(drop).expect_err(answer);
        assert!(error.kind() == Kind::Connection && error.to_string().contains(text), "{error}");
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
    assert_eq!(store.seen().last().expect("a request").path, "store.example:443");
    let nowhere = format!("http://jo:hidden@127.0.0.1:{}", harness::port::free_port());
    let error = at("s3://store.example/bucket", with(&[("HTTPS_PROXY", &nowhere)])).map(drop).expect_err("no proxy");
    assert!(error.to_string().contains("the proxy 127.0.0.1:") && !error.to_string().contains("hidden"), "{error}");
}

/// Options whose credentials are in a folder.
fn of_home(home: &std::path::Path) -> Options {
    Options { s3: S3Options { environment: BTreeMap::new(), home: Some(home.into()) }, ..options() }
}

#[test]
fn credentials_that_expire_while_the_storage_is_open_are_read_again() {
    let store = Store::start();
    let home = tempfile::tempdir().expect("a folder");
    fs::create_dir(home.path().join(".aws")).expect("a folder");
    let write = |token: &str| {
        let text = format!(
            "[default]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\naws_session_token={token}\n"
        );
        fs::write(home.path().join(".aws/credentials"), text).expect("written");
    };
    write("first");
    let storage = at(&store.address(), of_home(home.path())).expect("open");
    storage.put(background(), &Name::Pack(fresh()), b"bytes").expect("a new object");
    store.script(|request| {
        let is_old = request.headers.get("x-amz-security-token").is_some_and(|token| token == "first");
        is_old.then(|| Reply::error(400, "ExpiredToken"))
    });
    write("second");
    let name = Name::Pack(fresh());
    storage.put(background(), &name, b"bytes").expect("with new credentials");
    assert_eq!((storage.size(background(), &name).expect("it is there"), storage.connections()), (5, 2));
    // There are no new ones.
    store.script(|_| Some(Reply::error(400, "ExpiredToken")));
    let error = storage.size(background(), &name).expect_err("expired");
    assert!(error.kind() == Kind::Connection && error.to_string().contains("have expired"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("get new ones")), "{error}");
}

#[test]
fn a_program_of_a_profile_hands_out_credentials() {
    let store = Store::start();
    let mut env = Env::new();
    let program = env.write(
        "program",
        format!("echo '{{\"Version\":1,\"AccessKeyId\":\"{KEY_ID}\",\"SecretAccessKey\":\"{SECRET}\"}}'"),
    );
    env.write(".aws/config", format!("[profile nas]\ncredential_process = sh '{}'\n", program.display()));
    let home = env.path(".").display().to_string();
    env.set("AWS_PROFILE", "nas").set("HOME", &home);
    env.set("NFREEZER_REPOSITORY", &store.address());
    env.nfreezer(["init"]).done();
    env.write("src/file", b"contents");
    let push = env.nfreezer(["push", "-v", "--json", "src"]).success();
    assert!(!format!("{push:?}").contains(SECRET));
    let nowhere = format!("s3+http://127.0.0.1:{}/nowhere/repo", store.port);
    let missing = env.nfreezer(["snapshots", "-r", &nowhere]);
    assert!(missing.code == 10 && missing.stderr.contains("NoSuchBucket"), "{missing:?}");
    env.write("program", format!("echo {SECRET}; exit 1"));
    let failed = env.nfreezer(["snapshots", "--json"]);
    assert!(failed.code == 13 && failed.stderr.contains("credential_process of the profile nas failed"), "{failed:?}");
    assert!(!format!("{failed:?}").contains(SECRET));
}

#[test]
fn a_busy_store_may_ask_for_a_longer_pause() {
    let store = Store::start();
    let storage = store.storage();
    let after = || vec![("Retry-After".to_owned(), "1".to_owned())];
    store.next("PUT", 1, move || Reply::Answer(503, after(), String::new()));
    let started = Instant::now();
    storage.put(background(), &Name::Pack(fresh()), b"bytes").expect("the second time");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}
