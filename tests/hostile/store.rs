//! D over HTTP: an object store that breaks the S3 protocol (T47 to T53), read in every way.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nfreezer::context::background;
use nfreezer::error::{Kind, Result};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::storage::{Options, Storage};

use crate::claims::{SIZES, odd_names};
use crate::harness::object_store::{Reply, Request, Store, options};
use crate::harness::tree::noise;
use crate::oracle::case;
use crate::server::push_all;
use crate::world::{World, look, told, world};

/// Starts a store with the objects of the world.
fn serving(world: &World) -> Store {
    let store = Store::start();
    let memory = world.memory();
    for name in crate::world::names(&*memory) {
        store.insert(&format!("repo/{}", name.path()), &memory.get(&name).unwrap());
    }
    store
}

fn client(store: &Store) -> Arc<dyn Storage> {
    store.open(Options { retry_for: Duration::ZERO, ..options() }).unwrap().into()
}

fn kind<T>(result: Result<T>) -> Kind {
    let error = result.map(drop).expect_err("an error");
    told(&error);
    error.kind()
}

/// Returns the requested range of an object: its offset and its bytes.
fn asked<'b>(request: &Request, bytes: &'b [u8]) -> Option<(usize, &'b [u8])> {
    let (from, to) = request.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = (from.parse::<usize>().ok()?, to.parse::<usize>().ok()?);
    Some((from, bytes.get(from..bytes.len().min(to + 1))?))
}

/// Returns an answer with these headers, and a body that may contradict them.
fn raw(status: &str, headers: &[(&str, String)], body: &[u8]) -> Reply {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Reply::Raw([format!("HTTP/1.1 {status}\r\n{headers}\r\n").as_bytes(), body].concat())
}

fn partial(from: usize, part: &[u8], whole: usize, body: &[u8]) -> Reply {
    let range = format!("bytes {from}-{}/{whole}", (from + part.len()).max(1) - 1);
    let length = ("Content-Length", body.len().to_string());
    raw("206 Partial Content", &[("Content-Range", range), length, ("ETag", "\"x\"".into()), date()], body)
}

fn date() -> (&'static str, String) {
    ("Last-Modified", "Sun, 29 Nov 2026 10:00:00 GMT".into())
}

type Lie = fn(usize, &[u8], &[u8]) -> Reply;

/// Hostile answers to a read of `part` of the object `whole`. `part` begins at `from`.
const READS: &[(&str, Lie)] = &[
    ("one other bit", |from, part, whole| {
        let mut part = part.to_vec();
        part[0] ^= 1;
        partial(from, &part, whole.len(), &part)
    }),
    ("zeros", |from, part, whole| partial(from, part, whole.len(), &vec![0; part.len()])),
    ("fewer bytes", |from, part, whole| partial(from, part, whole.len(), &part[..part.len() / 2])),
    ("a body that ends too early", |from, part, whole| {
        let range = format!("bytes {from}-{}/{}", from + part.len() - 1, whole.len());
        let headers = [("Content-Range", range), ("Content-Length", part.len().to_string()), date()];
        raw("206 Partial Content", &headers, &part[..part.len() / 2])
    }),
    ("a length that is too small", |from, part, whole| {
        let range = format!("bytes {from}-{}/{}", from + part.len() - 1, whole.len());
        raw("206 Partial Content", &[("Content-Range", range), ("Content-Length", "3".into()), date()], part)
    }),
    ("a length of many exabytes", |from, part, whole| {
        let range = format!("bytes {from}-{}/{}", from + part.len() - 1, whole.len());
        raw("206 Partial Content", &[("Content-Range", range), ("Content-Length", u64::MAX.to_string()), date()], part)
    }),
    ("another range", |from, part, whole| partial(from + 1, part, whole.len(), part)),
    ("a range beyond the end", |_, part, whole| partial(usize::MAX / 2, part, whole.len(), part)),
    ("a range that is none", |_, part, _| {
        let headers = [("Content-Range", "bytes x-y/z".into()), ("Content-Length", part.len().to_string()), date()];
        raw("206 Partial Content", &headers, part)
    }),
    ("the whole object", |_, _, whole| raw("200 OK", &[("Content-Length", whole.len().to_string()), date()], whole)),
    ("a page of HTML", |_, _, _| raw("200 OK", &[("Content-Length", "4".into())], b"<h1>")),
    ("no headers", |_, part, _| Reply::Raw([b"HTTP/1.1 206 x\r\n\r\n", part].concat())),
    ("no HTTP", |_, _, _| Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
    ("headers without end", |_, _, _| Reply::Raw([&b"HTTP/1.1 206 x\r\n"[..], &b"x: y\r\n".repeat(200_000)].concat())),
    ("nothing", |_, _, _| Reply::Raw(Vec::new())),
    ("that it is not there", |_, _, _| Reply::error(404, "NoSuchKey")),
    ("a status of 100 only", |_, _, _| Reply::Raw(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))),
    ("control characters", |_, _, _| Reply::error(400, "\u{1b}]0;owned\u{7}")),
];

#[test]
fn t52_an_object_store_that_answers_reads_with_anything_else_gets_no_wrong_byte_out() {
    case(|| {
        let world = world();
        let (record, whole) = (world.records()[0], world.bytes(&world.records()[0]));
        for (what, lie) in READS {
            let store = serving(world);
            let objects = store.objects();
            store.script(move |request| {
                let (_, key) = request.path.split_once('/')?;
                let bytes = objects.get(key).filter(|_| request.method == "GET" && !key.ends_with("/config"))?;
                let (from, part) = asked(request, bytes)?;
                Some(lie(from, part, bytes))
            });
            let read = client(&store).read(background(), &record, 0, whole.len());
            match read {
                // The caller of the storage verifies the bytes of an object.
                Ok(bytes) => assert_eq!(bytes.len(), whole.len(), "{what}"),
                Err(e) => {
                    told(&e);
                    assert!(!e.to_string().contains(char::is_control), "{what}: {e:?}");
                    let kinds = [Kind::Connection, Kind::Failed, Kind::Damaged, Kind::Missing];
                    assert!(kinds.contains(&e.kind()), "{what}: {e}");
                    let names = e.to_string().contains(&record.to_string()) || e.kind() == Kind::Connection;
                    assert!(names, "{what}: {e} does not name the object");
                }
            }
            if let Ok(seen) = look(world, client(&store)) {
                assert!(seen.snapshots.is_empty(), "{what}");
            }
        }
    });
}

#[test]
fn t52_an_object_store_that_trickles_is_given_up_although_something_always_moves() {
    case(|| {
        let world = world();
        let store = Store::start();
        let name = world.records()[0];
        store.insert(&format!("repo/{}", name.path()), &noise(1, 4000));
        // An operation that moves next to nothing has twenty times this long. A byte arrives every 20 ms, on a busy
        // machine later.
        let mut options = Options { retry_for: Duration::ZERO, ..options() };
        options.ssh.io_timeout = Duration::from_millis(500);
        let client: Arc<dyn Storage> = store.open(options).unwrap().into();
        store.script(|request| (request.method == "GET").then_some(Reply::Trickle));
        let error = client.read(background(), &name, 0, 4000).expect_err("80 s of trickling");
        assert!(error.kind() == Kind::Connection && error.to_string().contains("far too slow"), "{error}");
    });
}

#[test]
fn t47_an_object_store_that_stores_something_else_is_found_out_or_reported_by_the_next_read() {
    case(|| {
        let world = world();
        let store = serving(world);
        // The store acknowledges the put, but does not store the object.
        store.script(|request| (request.method == "PUT").then(|| Reply::Answer(200, Vec::new(), String::new())));
        let storage = client(&store);
        let name = Name::Pack(ObjectId([9; 32]));
        let put = storage.put(background(), &name, &noise(1, 5000));
        assert!(matches!(kind(put), Kind::Missing | Kind::Failed));
        assert!(push_all(world, storage, 7).is_none());
    });
}

/// Returns a listing of these keys, each with this size.
fn listing(keys: &[String], size: &str) -> String {
    let escaped = |key: &String| key.replace('&', "&amp;").replace('<', "&lt;");
    let contents = keys.iter().map(|key| {
        let key = escaped(key);
        format!("<Contents><Key>{key}</Key><LastModified>2026-11-29T10:00:00.000Z</LastModified><Size>{size}</Size></Contents>")
    });
    format!("<?xml version=\"1.0\"?><ListBucketResult>{}</ListBucketResult>", contents.collect::<String>())
}

fn is_log(request: &Request) -> bool {
    request.query.get("prefix").is_some_and(|prefix| prefix == "repo/log/")
}

#[test]
fn t50_names_in_the_listing_of_an_object_store_are_never_requested() {
    case(|| {
        let world = world();
        let store = serving(world);
        let record = world.records()[0];
        for odd in odd_names(&record.file()) {
            let Ok(odd) = String::from_utf8(odd) else { continue };
            let keys =
                [format!("repo/log/{odd}"), format!("repo/{}", record.path()), format!("repo/{}", record.path())];
            let shown = listing(&keys, "4184");
            store.script(move |request| is_log(request).then(|| Reply::Answer(200, Vec::new(), shown.clone())));
            match client(&store).list(background(), Folder::Log) {
                Ok(entries) => assert!(entries.iter().all(|entry| entry.name == record), "{entries:?}"),
                Err(e) => assert!(e.kind() == Kind::Failed && !e.to_string().contains(char::is_control), "{e:?}"),
            }
        }
        let requested = store.seen().into_iter().filter(|request| !request.path.ends_with("bucket"));
        assert_eq!(requested.map(|request| request.path).collect::<Vec<_>>(), [""; 0]);
    });
}

#[test]
fn t50_a_listing_of_an_object_store_without_end_is_given_up() {
    case(|| {
        let store = Store::start();
        let pages = AtomicUsize::new(0);
        store.script(move |_| {
            let page = pages.fetch_add(1, Ordering::Relaxed);
            let next = format!("<NextContinuationToken>{page}</NextContinuationToken>");
            Some(Reply::Answer(200, Vec::new(), format!("<ListBucketResult>{next}</ListBucketResult>")))
        });
        let error = client(&store).list(background(), Folder::Log).unwrap_err();
        assert!(error.kind() == Kind::Failed && error.to_string().contains("does not end"), "{error}");
        let versions = AtomicUsize::new(0);
        store.script(move |_| {
            let page = versions.fetch_add(1, Ordering::Relaxed);
            let next = format!("<IsTruncated>true</IsTruncated><NextKeyMarker>{page}</NextKeyMarker>");
            Some(Reply::Answer(200, Vec::new(), format!("<ListVersionsResult>{next}</ListVersionsResult>")))
        });
        let error = client(&store).kept(background(), Folder::Log).unwrap_err();
        assert!(error.kind() == Kind::Failed && error.to_string().contains("does not end"), "{error}");
        // An answer of 40 MiB, and a small one whose entities expand to far more.
        let huge =
            format!("<ListBucketResult><Contents><Key>{}</Key></Contents></ListBucketResult>", "x".repeat(40 << 20));
        store.next("GET", 1, move || Reply::Answer(200, Vec::new(), huge.clone()));
        assert_eq!(kind(client(&store).list(background(), Folder::Log)), Kind::Failed);
        let mut entities = "<!ENTITY a0 \"lollollollol\">".to_owned();
        (1..20).for_each(|n| entities += &format!("<!ENTITY a{n} \"{}\">", format!("&a{};", n - 1).repeat(10)));
        let bomb = format!(
            "<?xml version=\"1.0\"?><!DOCTYPE x [{entities}]><ListBucketResult><Contents><Key>&a19;</Key>\
             <LastModified>2026-11-29T10:00:00.000Z</LastModified><Size>1</Size></Contents></ListBucketResult>"
        );
        store.next("GET", 1, move || Reply::Answer(200, Vec::new(), bomb.clone()));
        let listed = client(&store).list(background(), Folder::Log);
        assert!(listed.is_err() || listed.unwrap().is_empty());
        let nested =
            format!("<ListBucketResult>{}{}</ListBucketResult>", "<a>".repeat(100_000), "</a>".repeat(100_000));
        store.next("GET", 1, move || Reply::Answer(200, Vec::new(), nested.clone()));
        let listed = client(&store).list(background(), Folder::Log);
        assert!(listed.is_err() || listed.unwrap().is_empty());
    });
}

#[test]
fn t51_sizes_in_the_listing_of_an_object_store_reserve_nothing() {
    case(|| {
        let world = world();
        let store = serving(world);
        let keys: Vec<String> = world.records().iter().map(|record| format!("repo/{}", record.path())).collect();
        for size in SIZES {
            let shown = listing(&keys, &size.to_string());
            store.script(move |request| is_log(request).then(|| Reply::Answer(200, Vec::new(), shown.clone())));
            let state = world.repo.behind(client(&store)).state(background()).unwrap();
            let reports_both = state.warnings().iter().any(|w| w.contains("2 incomplete records"));
            assert!(state.snapshots().is_empty() && reports_both, "{size}: {:?}", state.warnings());
        }
    });
}

#[test]
fn t53_an_object_store_that_sends_the_client_elsewhere_is_not_followed() {
    case(|| {
        let world = world();
        let store = serving(world);
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        other.set_nonblocking(true).unwrap();
        let place = format!("http://{}/bucket/repo/config", other.local_addr().unwrap());
        for status in [301, 302, 303, 307, 308] {
            let location = vec![("Location".to_owned(), place.clone())];
            store.script(move |_| Some(Reply::Answer(status, location.clone(), String::new())));
            let storage = client(&store);
            assert_eq!(kind(storage.read(background(), &Name::Config, 0, 10)), Kind::Connection);
            assert_eq!(kind(storage.list(background(), Folder::Log)), Kind::Connection);
            assert_eq!(kind(storage.put(background(), &Name::Pack(ObjectId([1; 32])), b"x")), Kind::Connection);
            assert_eq!(kind(storage.remove(background(), &Name::Pack(ObjectId([1; 32])))), Kind::Connection);
        }
        assert!(other.accept().is_err(), "nothing was sent there");
    });
}
