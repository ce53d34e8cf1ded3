//! Object stores: the contract over a scripted server and over rclone, store faults, and a backup with the binary.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nfreezer::storage::{Kept, S3Options};

use crate::harness::cli::Env;
use crate::harness::object_store::{KEY_ID, Rclone, Reply, SECRET, Store, options};
use crate::*;

/// Less than the timeout of a store that is silent, and more than a busy machine needs for some requests.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_store_within_the_test() {
    let store = Store::start();
    let storage = store.storage();
    assert!(!storage.capabilities().exclusive_create, "nothing has shown it yet");
    suite(&*storage);
    assert_eq!(storage.capabilities(), Capabilities { durable_put: true, exclusive_create: true });
    suite(&*Store::start().with_pages(7).storage());
}

#[test]
fn a_store_that_replaces_objects_is_detected_when_a_repository_is_made() {
    let store = Store::start().replacing();
    let storage = store.storage();
    let warnings = Warnings::default();
    let ctx = background().with_progress(&warnings);
    storage.put(&ctx, &Name::Config, b"config").expect("a new object");
    let warnings = std::mem::take(&mut *warnings.0.lock().expect("no holder panics"));
    assert!(warnings.len() == 1 && warnings[0].contains("ignores If-None-Match"), "{warnings:?}");
    assert!(!storage.capabilities().exclusive_create);
    let name = Name::Pack(fresh());
    storage.put(background(), &name, b"bytes").expect("a new object");
    assert_eq!(kind(storage.put(background(), &name, b"other")), Kind::Exists, "it looks before it puts");
    assert_eq!(storage.read(background(), &name, 0, 5).expect("unchanged"), b"bytes");
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn event(&self, event: Event<'_>) {
        if let Event::Warning { text } = event {
            self.0.lock().expect("no holder panics").push(text.into());
        }
    }
}

#[test]
fn a_store_without_conditions_is_used_without_them() {
    let store = Store::start();
    store.script(|request| {
        let is_conditional = request.headers.contains_key("if-none-match");
        is_conditional.then(|| Reply::error(501, "NotImplemented"))
    });
    let storage = store.storage();
    suite(&*storage);
    assert!(!storage.capabilities().exclusive_create);
}

#[test]
fn an_object_is_put_back_although_the_policy_refuses_to_replace_it() {
    let store = Store::start();
    let storage = store.storage();
    let name = Name::Pack(fresh());
    let kept = Kept { name, is_hidden: false, versions: Vec::new(), markers: Vec::new() };
    for policy in [false, true] {
        store.insert(&format!("repo/{}", name.path()), b"of a thief");
        store.script(move |request| {
            let replaces = request.method == "PUT" && !request.headers.contains_key("if-none-match");
            (policy && replaces).then(|| Reply::error(403, "AccessDenied"))
        });
        storage.put_back(background(), &kept, b"bytes").expect("it is put");
        assert_eq!(storage.read(background(), &name, 0, 5).expect("it is there"), b"bytes");
    }
}

#[test]
fn names_of_others_are_counted_and_a_folder_of_a_console_is_not() {
    let store = Store::start();
    let storage = store.storage();
    for key in ["repo/", "repo/keys/", "repo/notes.txt", "repo/other/x", "repo/packs/0/x", "elsewhere"] {
        store.insert(key, b"x");
    }
    assert_eq!(storage.foreign(background(), Folder::Root).expect("a count"), 2);
    assert_eq!(storage.foreign(background(), Folder::Keys).expect("a count"), 0);
    assert_eq!(storage.foreign(background(), Folder::PackShard(0)).expect("a count"), 1);
    assert_eq!(storage.list(background(), Folder::PackShard(0)).expect("a listing"), []);
}

#[test]
fn a_put_whose_answer_was_lost_is_resolved_by_reading_back() {
    let store = Store::start();
    let storage = store.storage();
    let bytes = noise(3, 300_000);
    for name in [Name::Pack(fresh()), Name::Record { sequence: 3, id: fresh() }] {
        store.next("PUT", 1, || Reply::Lost);
        storage.put(background(), &name, &bytes).expect("it is there");
        assert_eq!(storage.read(background(), &name, 0, bytes.len()).expect("all of it"), bytes);
    }
    // an existing object of the same length with other bytes is not the uploaded one
    let name = Name::Pack(fresh());
    store.insert(&format!("repo/{}", name.path()), &noise(4, 300_000));
    store.next("PUT", 1, || Reply::Closed);
    assert_eq!(kind(storage.put(background(), &name, &bytes)), Kind::Exists);
}

/// Puts objects and returns their names.
fn put_many(storage: &dyn Storage, count: usize) -> Vec<Name> {
    let names: Vec<Name> = (0..count).map(|_| Name::Pack(fresh())).collect();
    names.iter().for_each(|name| storage.put(background(), name, b"bytes").expect("a new object"));
    names
}

/// Returns the numbers of POST and DELETE requests since the last call.
fn deletes(store: &Store) -> (usize, usize) {
    let seen = store.seen();
    let count = |method: &str| seen.iter().filter(|request| request.method == method).count();
    (count("POST"), count("DELETE"))
}

#[test]
fn many_objects_are_removed_by_few_requests() {
    let store = Store::start();
    let storage = store.storage();
    let mut names = put_many(&*storage, 30);
    names.extend((0..2000).map(|_| Name::Pack(fresh()))); // gone already
    store.seen();
    assert!(storage.remove_all(background(), &names).expect("removed").is_empty());
    assert_eq!(deletes(&store), (3, 0));
    assert!(store.objects().is_empty());
    // A store that does not support this request.
    store.script(|request| (request.method == "POST").then(|| Reply::error(501, "NotImplemented")));
    let names = put_many(&*storage, 30);
    store.seen();
    assert!(storage.remove_all(background(), &names[..10]).expect("removed").is_empty());
    assert!(storage.remove_all(background(), &names[10..]).expect("removed").is_empty());
    assert_eq!(deletes(&store), (1, 30), "it is asked once");
    assert!(store.objects().is_empty());
}

#[test]
fn an_answer_about_many_objects_is_believed_for_each_that_it_names() {
    let store = Store::start();
    let storage = store.storage();
    let names = put_many(&*storage, 4);
    let key = |i: usize| format!("<Key>repo/{}</Key>", names[i].path());
    let of = |i: usize, code: &str| format!("<Error>{}<Code>{code}</Code><Message>no</Message></Error>", key(i));
    let other = "<Error><Key>../../x</Key><Code>AccessDenied</Code></Error><Deleted><Key>y</Key></Deleted>";
    // The first object is refused, the second and the last need another request, and the third does not exist.
    let (first, busy, gone) = (of(0, "AccessDenied"), of(1, "InternalError"), of(2, "NoSuchKey"));
    let body = format!("<?xml version=\"1.0\"?><DeleteResult>{first}{busy}{gone}{other}</DeleteResult>");
    store.next("POST", 1, move || Reply::Answer(200, Vec::new(), body.clone()));
    store.seen();
    let refused = storage.remove_all(background(), &names).expect("an answer");
    assert_eq!(refused.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [names[0]]);
    let text = refused[0].1.to_string();
    assert!(text.contains(&names[0].path()) && text.contains("AccessDenied"), "{text}");
    assert_eq!(deletes(&store), (1, 2));
    // Without a valid answer, each object gets its own request.
    for body in ["", "<html>Welcome</html>", "<DeleteResult><Deleted>", "<DeleteResult>&lol;</DeleteResult>"] {
        let storage = store.storage();
        let names = put_many(&*storage, 2);
        store.next("POST", 1, move || Reply::Answer(200, Vec::new(), body.into()));
        assert!(storage.remove_all(background(), &names).expect("removed").is_empty(), "{body}");
        names.iter().for_each(|name| assert_eq!(kind(storage.size(background(), name)), Kind::Missing));
    }
    let impatient = store.open(Options { retry_for: Duration::ZERO, ..options() }).expect("open");
    store.next("POST", usize::MAX, || Reply::Closed);
    store.seen();
    assert_eq!(kind(impatient.remove_all(background(), &names)), Kind::Connection);
    assert_eq!(deletes(&store).1, 0, "a lost connection is no reason to go on");
}

#[test]
fn a_busy_store_is_asked_again() {
    let store = Store::start();
    let storage = store.storage();
    let name = Name::Pack(fresh());
    for (status, code) in [(503, "SlowDown"), (500, "InternalError"), (409, "ConditionalRequestConflict"), (429, "")] {
        store.next("PUT", 1, move || Reply::error(status, code));
        let name = Name::Pack(fresh());
        storage.put(background(), &name, b"bytes").expect("the second time");
        store.next("GET", 1, move || Reply::error(status, code));
        assert_eq!(storage.read(background(), &name, 0, 5).expect("the second time"), b"bytes");
    }
    let impatient = store.open(Options { retry_for: Duration::from_millis(10), ..options() }).expect("open");
    store.next("PUT", usize::MAX, || Reply::error(503, "SlowDown"));
    let error = impatient.put(background(), &name, b"bytes").expect_err("it stays busy");
    assert!(error.kind() == Kind::Connection && error.to_string().contains("SlowDown (status 503)"), "{error}");
}

#[test]
fn answers_that_are_cut_or_wrong() {
    let store = Store::start();
    let storage = store.storage();
    let (name, bytes) = (Name::Pack(fresh()), noise(5, 200_000));
    storage.put(background(), &name, &bytes).expect("a new object");
    store.next("GET", 1, || Reply::Cut(100_000));
    assert_eq!(storage.read(background(), &name, 0, 200_000).expect("the second time"), bytes);
    store.next("GET", 1, || Reply::Closed);
    storage.list(background(), name.folder()).expect("the second time");
    let range = |range: &str| vec![("Content-Range".to_owned(), range.to_owned())];
    store.next("GET", 1, move || Reply::Answer(206, range("bytes 5-9/200000"), "bytes".into()));
    assert_eq!(kind(storage.read(background(), &name, 0, 5)), Kind::Failed, "another range");
    store.next("GET", 1, || Reply::Answer(200, Vec::new(), "<html>Welcome</html>".into()));
    let error = storage.list(background(), Folder::Log).expect_err("no S3");
    assert!(error.to_string().contains("its answer is not valid"), "{error}");
    let wrong = "<ListBucketResult><Contents><Key>repo/log//x</Key><Size>-1</Size></Contents></ListBucketResult>";
    store.next("GET", 1, move || Reply::Answer(200, Vec::new(), wrong.into()));
    assert_eq!(kind(storage.list(background(), Folder::Log)), Kind::Failed);
    let endless = "<ListBucketResult><NextContinuationToken>x</NextContinuationToken></ListBucketResult>";
    store.next("GET", usize::MAX, move || Reply::Answer(200, Vec::new(), endless.into()));
    assert!(storage.list(background(), Folder::Log).expect_err("no end").to_string().contains("does not end"));
}

#[test]
fn refusals_have_hints_and_exit_codes_and_no_message_shows_a_secret() {
    let store = Store::start();
    let storage = store.storage();
    let name = Name::Pack(fresh());
    let region = || vec![("x-amz-bucket-region".to_owned(), "eu-north-1".to_owned())];
    for (status, code, expected, hint) in [
        (403, "RequestTimeTooSkewed", Kind::Connection, "clock"),
        (400, "InvalidToken", Kind::Connection, "AWS_ACCESS_KEY_ID"),
        (403, "InvalidAccessKeyId", Kind::Connection, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", Kind::Connection, "AWS_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", Kind::Failed, "s3:PutObject"),
        (301, "PermanentRedirect", Kind::Connection, "AWS_REGION=eu-north-1"),
        (307, "TemporaryRedirect", Kind::Connection, "AWS_REGION=eu-north-1"),
        (404, "NoSuchBucket", Kind::NoRepository, "create the bucket"),
        (507, "InsufficientStorage", Kind::NoSpace, "prune"),
        (400, "Strange", Kind::Failed, ""),
    ] {
        let body = format!("<Error><Code>{code}</Code><Message>you sent {SECRET}\u{1b}[2J</Message></Error>");
        let body = body.replace(SECRET, "something");
        store.next("PUT", 1, move || Reply::Answer(status, region(), body.clone()));
        let error = storage.put(background(), &name, b"bytes").expect_err(code);
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{error}: {:?}", error.hint_text());
        let all = format!("{error} {error:?} {:?} {:?}", error.hint_text(), std::error::Error::source(&error));
        assert!(!all.contains(SECRET) && !all.contains('\u{1b}'), "{all}");
    }
    let seen = store.seen();
    let puts = seen.iter().filter(|request| request.method == "PUT");
    assert!(puts.into_iter().all(|put| put.headers.contains_key("x-amz-checksum-sha256")), "object lock demands it");
    let sent = format!("{seen:?}");
    assert!(sent.contains(KEY_ID) && !sent.contains(SECRET), "the secret signs, and is not sent");
    assert!(!storage.address().contains(KEY_ID));
}

#[test]
fn a_store_that_cannot_be_reached_or_has_no_credentials() {
    let store = Store::start();
    let none = store.open(Options { s3: S3Options::default(), ..options() }).map(drop).expect_err("no credentials");
    assert!(none.kind() == Kind::Connection && none.to_string().contains("no credentials"), "{none}");
    let other = |address: String| open_error(&Location::parse(&address).expect("an address"), options());
    let plain = other(format!("s3://127.0.0.1:{}/bucket", store.port));
    assert!(plain.kind() == Kind::Connection && plain.hint_text().unwrap_or_default().contains("s3+http"), "{plain}");
    let port = harness::port::free_port();
    let started = Instant::now();
    let refused = other(format!("s3+http://127.0.0.1:{port}/bucket"));
    assert!(refused.kind() == Kind::Connection && started.elapsed() < SOON, "{refused}");
    let missing = format!("s3+http://127.0.0.1:{}/nowhere/x", store.port);
    let missing = open(background(), &Location::parse(&missing).expect("an address"), options()).expect("connected");
    assert_eq!(kind(missing.create_folders(background())), Kind::NoRepository);
    assert_eq!(kind(missing.list(background(), Folder::Log)), Kind::NoRepository);
}

#[test]
fn a_request_ends_with_its_context_and_a_silent_store_is_given_up() {
    let store = Store::start();
    let storage = store.storage();
    let name = Name::Pack(fresh());
    storage.put(background(), &name, b"bytes").expect("a new object");
    store.script(|_| Some(Reply::Silent));
    let ctx = background().with_deadline(Instant::now() + Duration::from_millis(300));
    let started = Instant::now();
    assert_eq!(kind(storage.read(&ctx, &name, 0, 5)), Kind::Connection);
    let ctx = background().child();
    thread::scope(|scope| {
        let put = scope.spawn(|| kind(storage.put(&ctx, &Name::Pack(fresh()), &noise(1, 5_000_000))));
        thread::sleep(Duration::from_millis(100));
        ctx.cancel();
        assert_eq!(put.join().expect("no panic"), Kind::Cancelled);
    });
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let timeout = with_ssh(options(), |ssh| ssh.io_timeout = Duration::from_secs(1));
    let patient = store.open(Options { retry_for: Duration::ZERO, ..timeout }).expect("open");
    let error = patient.size(background(), &name).expect_err("nothing comes");
    assert!(error.to_string().contains("nothing was heard for 1 s"), "{error}");
    drop((storage, patient));
}

#[test]
fn doctor_learns_whether_the_policy_lets_a_key_replace_and_delete() {
    let store = Store::start();
    let mut env = Env::new();
    env.set("AWS_ACCESS_KEY_ID", KEY_ID).set("AWS_SECRET_ACCESS_KEY", SECRET);
    env.set("NFREEZER_REPOSITORY", &store.address());
    env.nfreezer(["init"]).done();
    let open = env.nfreezer(["doctor"]);
    assert!(open.stdout.contains("an object can be overwritten or deleted"), "{open:?}");
    assert!(open.stdout.contains("does not create an object that exists"), "{open:?}");
    store.script(|request| {
        let replaces = request.method == "PUT" && !request.headers.contains_key("if-none-match");
        (replaces || request.method == "DELETE").then(|| Reply::error(403, "AccessDenied"))
    });
    let closed = env.nfreezer(["doctor"]);
    assert!(closed.stdout.contains("objects can be added, and not changed or deleted"), "{closed:?}");
    let store = store.replacing();
    store.script(|_| None);
    let replacing = env.nfreezer(["doctor"]);
    assert!(replacing.stdout.contains("the server replaces an object"), "{replacing:?}");
}

#[test]
fn an_idle_connection_that_the_store_closed_is_replaced_silently() {
    let store = Store::start();
    let heard = Arc::new(Mutex::new(Vec::<String>::new()));
    let notes = Arc::clone(&heard);
    let notice: nfreezer::storage::Notice = Arc::new(move |text| notes.lock().expect("no panic").push(text.into()));
    let storage = store.open(Options { notice, ..options() }).expect("open");
    for round in 0..5 {
        let name = Name::Pack(fresh());
        storage.put(background(), &name, &noise(round, 1000)).expect("a new object");
        // The answer announces that the connection stays open, but the store closes it.
        store.next("HEAD", 1, || Reply::Cut(0));
        storage.size(background(), &name).expect("a size");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(*heard.lock().expect("no panic"), Vec::<String>::new());
}

#[test]
fn limits_of_the_rate_hold() {
    let store = Store::start();
    let limits = Options { limit_upload: Some(400_000.into()), limit_download: Some(400_000.into()), ..options() };
    let storage = store.open(limits).expect("open");
    let (name, bytes) = (Name::Pack(fresh()), noise(1, 200_000));
    let started = Instant::now();
    storage.put(background(), &name, &bytes).expect("a new object");
    let put = started.elapsed();
    storage.read(background(), &name, 0, 200_000).expect("all of it");
    let read = started.elapsed() - put;
    for took in [put, read] {
        assert!(took > Duration::from_millis(300) && took < SOON, "{put:?} {read:?}");
    }
}

#[test]
fn rclone_serves_a_bucket() {
    let server = Rclone::start();
    let location = Location::parse(&server.address("repo")).expect("an address");
    let storage = open(background(), &location, options()).unwrap_or_else(|e| panic!("{e:?}"));
    suite_with(&*storage, false);
}

#[test]
fn a_backup_in_a_bucket_and_a_copy_of_a_local_repository() {
    let server = Rclone::start();
    let mut env = Env::new();
    env.set("AWS_ACCESS_KEY_ID", KEY_ID).set("AWS_SECRET_ACCESS_KEY", SECRET);
    env.set("NFREEZER_REPOSITORY", &server.address("deep/repo"));
    (0..30u64).for_each(|i| drop(env.write(&format!("src/{i}/file"), noise(i, 100_000))));
    env.nfreezer(["init"]).done();
    env.nfreezer(["push", "src"]).done();
    env.write("src/more", noise(77, 2_000_000));
    env.nfreezer(["push", "src"]).done();
    let source = env.path("src").display().to_string();
    let listed = env.nfreezer(["ls", &format!("latest:{source}")]).success();
    assert!(listed.stdout.contains("more"), "{listed:?}");
    env.nfreezer(["check", "--read-data"]).done();
    env.nfreezer(["restore", &format!("latest:{source}"), "--target", "out"]).done();
    run("diff", &["-r", &source, &env.path("out").display().to_string()]);
    env.nfreezer(["forget", "--keep-last", "1"]).done();
    env.nfreezer(["prune", "--exclusive"]).done();
    env.nfreezer(["check"]).done();
    // the objects are the files of a local repository: a copy opens unchanged
    let local = server.bucket().join("deep/repo");
    fs::rename(&local, env.path("copied")).expect("renamed");
    env.set("NFREEZER_REPOSITORY", &env.path("copied").display().to_string());
    env.nfreezer(["check"]).done();
    let other = Rclone::start();
    run("cp", &["-r", &env.path("copied").display().to_string(), &other.bucket().join("again").display().to_string()]);
    env.set("NFREEZER_REPOSITORY", &other.address("again"));
    env.nfreezer(["push", "src"]).done();
    env.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let refused = env.nfreezer(["snapshots"]);
    assert!(refused.code == 13 && !refused.stderr.contains(SECRET), "{refused:?}");
}
