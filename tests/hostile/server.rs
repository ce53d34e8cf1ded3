//! D: a scripted server that breaks the protocol (T47 to T53), used by the storage and by a whole push.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nfreezer::context::background;
use nfreezer::error::{Kind, Result};
use nfreezer::format::record::SnapshotId;
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::push::{Options, push};
use nfreezer::storage::Storage;

use crate::claims::{SIZES, odd_names};
use crate::harness::tree::{assert_same, in_snapshot, noise, on_disk};
use crate::oracle::case;
use crate::sftp::{
    FSTAT, LSTAT, OPEN, READ, READDIR, Says, Server, WRITE, attrs, entry, names, on_server, packet, status, string,
};
use crate::world::{World, look, told, world};

const AT_ONCE: Duration = Duration::ZERO;

fn kind<T>(result: Result<T>) -> Kind {
    let error = result.map(drop).expect_err("an error");
    told(&error);
    error.kind()
}

fn pack(first: u8) -> Name {
    Name::Pack(ObjectId([first; 32]))
}

/// Starts a server with the objects of the world, with or without OpenSSH's extensions.
pub fn serving(world: &World, openssh: bool) -> Arc<Server> {
    let server = Server::start(openssh);
    let memory = world.memory();
    let mut files = BTreeMap::new();
    for name in crate::world::names(&*memory) {
        files.insert(on_server(name.path()), memory.get(&name).unwrap());
    }
    server.fill(files);
    server
}

#[test]
fn t47_a_put_that_is_acknowledged_but_short_or_empty_is_an_error_and_no_snapshot() {
    case(|| {
        let world = world();
        let server = serving(world, true);
        // Every write is acknowledged, but the server stores zeros.
        for short in [0, 1, 1000] {
            server.script(move |ask, files| match ask.kind {
                WRITE => {
                    files.entry(ask.path.clone()).or_default().resize(short, 0);
                    Says::Packets(vec![status(ask.id, 0, "")])
                }
                _ => Says::Truth,
            });
            let client = server.client(AT_ONCE).unwrap();
            let name = pack(short as u8 + 1);
            assert_eq!(kind(client.put(background(), &name, &noise(1, 5000))), Kind::Failed);
            let records = |server: &Server| server.files().keys().filter(|path| path.contains("/log/")).count();
            let before = records(&server);
            assert!(push_all(world, client.into(), 7).is_none());
            assert_eq!(records(&server), before, "no record says that it was saved");
        }
        // A server that lies about the size too is detected when the object is read.
        server.script(|ask, files| match ask.kind {
            WRITE => {
                let len = files.get(&ask.path).map_or(0, Vec::len).max(ask.offset as usize + ask.data.len());
                files.insert(ask.path.clone(), vec![0; len]);
                Says::Packets(vec![status(ask.id, 0, "")])
            }
            _ => Says::Truth,
        });
        let client: Arc<dyn Storage> = server.client(AT_ONCE).unwrap().into();
        let (snapshot, _dir) = push_all(world, Arc::clone(&client), 8).expect("nothing that it could see");
        let state = world.repo.behind(client).state(background()).unwrap();
        assert!(state.snapshots().iter().all(|s| s.id != snapshot), "its record is zeros too");
        assert!(!state.warnings().is_empty());
    });
}

/// Pushes one file. Returns the snapshot's id if it was reported as saved.
pub fn push_all(world: &World, storage: Arc<dyn Storage>, seed: u64) -> Option<(SnapshotId, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), noise(seed, 100_000)).unwrap();
    let sources = vec![dir.path().to_owned()];
    let options = Options { sources, host: "h".into(), user: "u".into(), memory: 104 << 20, ..Options::default() };
    match push(background(), &world.repo.behind(storage), &options) {
        Ok(summary) => Some((summary.snapshot.id, dir)),
        Err(e) => {
            told(&e);
            None
        }
    }
}

#[test]
fn t48_a_name_that_is_taken_is_never_written_to() {
    case(|| {
        let world = world();
        let server = serving(world, true);
        let taken = on_server(pack(1).path());
        let client = server.client(AT_ONCE).unwrap();
        client.put(background(), &pack(1), b"first").unwrap();
        assert_eq!(kind(client.put(background(), &pack(1), b"other")), Kind::Exists);
        assert_eq!(server.files()[&taken], b"first");
        // A server for which every object exists. The client tries a few new ids and then fails.
        server.script(|ask, _| match ask.kind {
            OPEN if ask.len & 0x20 != 0 => Says::Packets(vec![status(ask.id, 4, "")]),
            LSTAT => Says::Packets(vec![packet(105, ask.id, &[&attrs(5)])]),
            _ => Says::Truth,
        });
        let before = server.log().len();
        assert!(push_all(world, client.into(), 9).is_none());
        let created: Vec<_> =
            server.log().split_off(before).into_iter().filter(|a| a.kind == OPEN && a.len & 0x20 != 0).collect();
        let paths: std::collections::BTreeSet<_> = created.iter().map(|ask| &ask.path).collect();
        assert!(created.len() > 1 && paths.len() == created.len(), "a name was tried twice");
    });
}

#[test]
fn t49_a_connection_that_is_cut_after_any_request_of_a_push_writes_no_id_twice() {
    case(|| {
        let world = world();
        for openssh in [true, false] {
            let server = serving(world, openssh);
            let dir = tempfile::tempdir().unwrap();
            let sources = vec![dir.path().to_owned()];
            let options =
                Options { sources, host: "h".into(), user: "u".into(), memory: 104 << 20, ..Options::default() };
            let countdown = Arc::new(AtomicUsize::new(usize::MAX));
            let left = Arc::clone(&countdown);
            server.script(move |ask, _| match left.fetch_sub(1, Ordering::SeqCst) {
                0 if ask.id % 2 == 0 => Says::HangUp,
                0 => Says::DoAndHangUp,
                _ => Says::Truth,
            });
            for n in (0..40).step_by(if openssh { 3 } else { 5 }) {
                std::fs::write(dir.path().join("f"), noise(100 + n as u64, 90_000)).unwrap();
                let repo = world.repo.behind(server.client(Duration::from_secs(20)).unwrap().into());
                countdown.store(n, Ordering::SeqCst);
                let summary = push(background(), &repo, &options).unwrap();
                countdown.store(usize::MAX, Ordering::SeqCst);
                let honest = world.repo.behind(server.client(AT_ONCE).unwrap().into());
                assert_same(&on_disk(dir.path()), &in_snapshot(&honest, &summary.snapshot, dir.path()));
            }
            let mut written: BTreeMap<(String, u64), Vec<u8>> = BTreeMap::new();
            for ask in server.log().into_iter().filter(|ask| ask.kind == WRITE && ask.path != "?") {
                let old = written.entry((ask.path.clone(), ask.offset)).or_insert_with(|| ask.data.clone());
                assert!(*old == ask.data, "{} was written twice with different bytes", ask.path);
            }
        }
    });
}

#[test]
fn t50_names_that_are_not_ours_are_counted_and_never_opened_or_said() {
    case(|| {
        let world = world();
        let server = serving(world, true);
        let record = world.records()[0].file();
        let odd = odd_names(&record);
        let shown = odd.clone();
        let twice = record.clone();
        server.script(move |ask, _| match ask.kind {
            READDIR if ask.path == "/r/log" && ask.number % 2 == 0 => {
                let mut entries: Vec<_> = shown.iter().map(|name| entry(name, &attrs(4184))).collect();
                entries.extend([entry(twice.as_bytes(), &attrs(4184)), entry(twice.as_bytes(), &attrs(4184))]);
                Says::Packets(vec![names(ask.id, &entries)])
            }
            READDIR if ask.path == "/r/log" => Says::Packets(vec![status(ask.id, 1, "")]),
            _ => Says::Truth,
        });
        let client: Arc<dyn Storage> = server.client(AT_ONCE).unwrap().into();
        let entries = client.list(background(), Folder::Log).unwrap();
        assert!(entries.iter().all(|entry| entry.name == world.records()[0]), "{entries:?}");
        let state = world.repo.behind(client).state(background()).unwrap();
        assert_eq!(state.snapshots().len(), 1);
        assert!(state.warnings().iter().all(|text| text.is_ascii() && !text.contains(char::is_control)));
        let opened: Vec<_> = server.log().into_iter().filter(|ask| matches!(ask.kind, OPEN | LSTAT)).collect();
        assert!(
            opened
                .iter()
                .all(|ask| !odd.iter().any(|name| ask.path.as_bytes().ends_with(&[b"/", name.as_slice()].concat())))
        );
    });
}

#[test]
fn t50_a_listing_without_end_is_given_up() {
    case(|| {
        let server = Server::start(true);
        let many: Vec<Vec<u8>> = (0..3_500).map(|_| entry(b"zz", &[0; 4])).collect();
        let body = names(0, &many);
        server.script(move |ask, _| match ask.kind {
            READDIR => Says::Packets(vec![[&body[..1], ask.id.to_be_bytes().as_slice(), &body[5..]].concat()]),
            _ => Says::Truth,
        });
        let client = server.client(AT_ONCE).unwrap();
        let error = client.list(background(), Folder::Log).unwrap_err();
        assert!(error.kind() == Kind::Failed && error.to_string().contains("more than 10000000 names"), "{error}");
        server.script(|ask, _| match ask.kind {
            READDIR => Says::Packets(vec![names(ask.id, &[])]),
            _ => Says::Truth,
        });
        assert_eq!(kind(client.list(background(), Folder::Log)), Kind::Connection, "no names and no end");
    });
}

#[test]
fn t51_sizes_that_no_object_has_reserve_nothing() {
    case(|| {
        let world = world();
        let server = serving(world, true);
        for size in SIZES {
            server.script(move |ask, files| match ask.kind {
                READDIR if ask.path == "/r/log" && ask.number % 2 == 0 => {
                    let here = files.keys().filter_map(|path| path.strip_prefix("/r/log/"));
                    Says::Packets(vec![names(
                        ask.id,
                        &here.map(|name| entry(name.as_bytes(), &attrs(size))).collect::<Vec<_>>(),
                    )])
                }
                READDIR if ask.path == "/r/log" => Says::Packets(vec![status(ask.id, 1, "")]),
                FSTAT | LSTAT if ask.path.contains("/log/") => {
                    Says::Packets(vec![packet(105, ask.id, &[&attrs(size)])])
                }
                _ => Says::Truth,
            });
            let state = world.repo.behind(server.client(AT_ONCE).unwrap().into()).state(background()).unwrap();
            let reports_both = state.warnings().iter().any(|w| w.contains("2 incomplete records"));
            assert!(state.snapshots().is_empty() && reports_both, "{size}: {:?}", state.warnings());
        }
    });
}

#[test]
fn t52_data_of_another_length_or_to_another_question_ends_the_connection_or_costs_a_round_trip() {
    case(|| {
        let world = world();
        let record = world.records()[0];
        let whole = world.bytes(&record);
        for openssh in [true, false] {
            let server = serving(world, openssh);
            let read_with = |server: &Server, patience: Duration| {
                server.client_that_waits(patience, AT_ONCE).unwrap().read(background(), &record, 0, whole.len())
            };
            let answer = |says: fn(&crate::sftp::Ask, Vec<u8>) -> Says| {
                let shown = whole.clone();
                server.script(move |ask, _| match ask.kind {
                    READ if ask.path.contains("/log/") => {
                        let from = (ask.offset as usize).min(shown.len());
                        says(ask, shown[from..shown.len().min(from + ask.len as usize)].to_vec())
                    }
                    _ => Says::Truth,
                });
                read_with(&server, Duration::from_secs(20))
            };
            // Fewer bytes than requested: the client requests the rest.
            let fewer = answer(|ask, bytes| {
                Says::Packets(vec![packet(103, ask.id, &[&string(&bytes[..bytes.len().min(1500)])])])
            });
            assert!(fewer.unwrap() == whole);
            let one =
                answer(|ask, bytes| Says::Packets(vec![packet(103, ask.id, &[&string(&bytes[..bytes.len().min(1)])])]));
            assert!(one.is_err_and(|e| e.kind() == Kind::Failed), "a byte at a time");
            for (what, says) in [
                (
                    "more",
                    (|ask, bytes| Says::Packets(vec![packet(103, ask.id, &[&string(&[bytes, vec![0]].concat())])]))
                        as fn(&crate::sftp::Ask, Vec<u8>) -> Says,
                ),
                ("none", |ask, _| Says::Packets(vec![packet(103, ask.id, &[&string(b"")])])),
                ("to another question", |ask, bytes| Says::Packets(vec![packet(103, ask.id + 77, &[&string(&bytes)])])),
                ("twice", |ask, bytes| Says::Packets(vec![packet(103, ask.id, &[&string(&bytes)]); 2])),
                ("a length beyond the packet", |ask, _| {
                    Says::Packets(vec![packet(103, ask.id, &[&[0xff; 4], b"abc"])])
                }),
                ("more behind it", |ask, bytes| Says::Packets(vec![packet(103, ask.id, &[&string(&bytes), b"x"])])),
                ("names instead", |ask, _| Says::Packets(vec![names(ask.id, &[entry(b"x", &attrs(1))])])),
                ("a handle instead", |ask, _| Says::Packets(vec![packet(102, ask.id, &[&string(b"hhhh")])])),
                ("OK instead", |ask, _| Says::Packets(vec![status(ask.id, 0, "")])),
                ("an unknown packet", |ask, _| Says::Packets(vec![packet(99, ask.id, &[])])),
            ] {
                let result = answer(says);
                match what {
                    "twice" => assert!(result.is_err() || result.unwrap() == whole, "the second one is nobody's"),
                    _ => assert_eq!(kind(result), Kind::Connection, "{what}"),
                }
            }
            server.script(|ask, _| if ask.kind == READ { Says::Packets(vec![]) } else { Says::Truth });
            let silent = read_with(&server, Duration::from_secs(2));
            assert_eq!(kind(silent), Kind::Connection, "nothing at all");
            let ended = answer(|ask, _| Says::Packets(vec![status(ask.id, 1, "")]));
            assert_eq!(kind(ended), Kind::Damaged, "the end too early");
            let refused = answer(|ask, _| Says::Packets(vec![status(ask.id, 4, "\x1b]0;owned\x07bad disk")]));
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("bad disk") && !text.contains(char::is_control), "{text:?}");
        }
    });
}

#[test]
fn t52_through_a_server_that_answers_in_pieces_everything_is_read_right() {
    case(|| {
        let world = world();
        let server = serving(world, true);
        server.script(|ask, files| match (ask.kind, files.get(&ask.path)) {
            (READ, Some(bytes)) if (ask.offset as usize) < bytes.len() => {
                let end = bytes.len().min(ask.offset as usize + (ask.len as usize).min(7001));
                Says::Packets(vec![packet(103, ask.id, &[&string(&bytes[ask.offset as usize..end])])])
            }
            _ => Says::Truth,
        });
        let seen = look(world, server.client(AT_ONCE).unwrap().into()).unwrap();
        assert_eq!((seen.snapshots.len(), seen.lost.len()), (2, 0));
    });
}
