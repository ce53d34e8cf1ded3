//! An object counts as stored once the server has synced it. Each put requests a sync, and fails if it is refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nfreezer::context::background;
use nfreezer::error::{Kind, Result};
use nfreezer::name::{Name, ObjectId};

use crate::harness::tree::noise;
use crate::oracle::case;
use crate::server::{push_all, serving};
use crate::sftp::{Ask, CLOSE, OPEN, Says, Server, WRITE, is_fsync, on_server, status};
use crate::world::world;

const FAILURE: u32 = 4;
const CREATE: u32 = 0x08;

fn pack(first: u8) -> Name {
    Name::Pack(ObjectId([first; 32]))
}

/// Returns the index of the last request that satisfies a condition.
fn last(log: &[Ask], is: impl Fn(&Ask) -> bool) -> Option<usize> {
    log.iter().rposition(is)
}

fn records(server: &Server) -> usize {
    server.files().keys().filter(|path| path.contains("/log/")).count()
}

/// Checks that the client requested a sync of this file after its last byte and before its close.
#[track_caller]
fn assert_synced(log: &[Ask], path: &str) {
    let of = |ask: &Ask| ask.path == path;
    let written = last(log, |ask| ask.kind == WRITE && of(ask)).expect("the file is written");
    let synced = last(log, |ask| is_fsync(ask) && of(ask)).unwrap_or_else(|| panic!("{path} is not synced"));
    let closed = last(log, |ask| ask.kind == CLOSE && of(ask)).expect("the file is closed");
    assert!(written < synced && synced < closed, "{path}: written {written}, synced {synced}, closed {closed}");
}

#[test]
fn every_object_of_a_push_is_synced_before_it_is_closed() {
    case(|| {
        let world = world();
        let server = serving(world, true);
        let before = server.files();
        let client = server.client(Duration::ZERO).unwrap();
        push_all(world, client.into(), 31).expect("a snapshot");
        let (log, files) = (server.log(), server.files());
        let new: Vec<&String> = files.keys().filter(|path| !before.contains_key(*path)).collect();
        assert!(new.len() >= 3, "packs of contents and of pages, and a record: {new:?}");
        new.iter().for_each(|path| assert_synced(&log, path));
        // The record names the packs, so all of them are on the disk before it is created.
        let created = |ask: &Ask| ask.kind == OPEN && ask.len & CREATE != 0 && ask.path.contains("/log/");
        let record = log.iter().position(created).expect("a record is created");
        let last_pack = last(&log, |ask| is_fsync(ask) && ask.path.contains("/packs/")).expect("packs are synced");
        assert!(last_pack < record, "a pack is synced after the record that names it was begun");
    });
}

#[test]
fn a_refused_sync_fails_the_put_and_no_record_follows() {
    case(|| {
        let world = world();
        let server = serving(world, true);
        server.script(|ask, _| match is_fsync(ask) && ask.path.contains("/packs/") {
            true => Says::Packets(vec![status(ask.id, FAILURE, "no sync today")]),
            false => Says::Truth,
        });
        let client = server.client(Duration::ZERO).unwrap();
        let error = client.put(background(), &pack(1), &noise(1, 5000)).expect_err("an unsynced object is not stored");
        assert_eq!(error.kind(), Kind::Failed);
        assert!(error.to_string().contains("cannot sync"), "{error}");
        let before = records(&server);
        assert!(push_all(world, client.into(), 32).is_none());
        assert_eq!(records(&server), before, "a record names packs that are not on the disk");
    });
}

/// Puts an object. The connection ends before the server carries out the sync, and the put is repeated. `again` answers
/// the second sync.
fn put_twice(again: impl Fn(&Ask) -> Says + Send + Sync + 'static) -> (Result<()>, Vec<Ask>) {
    let server = serving(world(), true);
    let syncs = AtomicUsize::new(0);
    server.script(move |ask, _| match is_fsync(ask) {
        true if syncs.fetch_add(1, Ordering::SeqCst) == 0 => Says::HangUp,
        true => again(ask),
        false => Says::Truth,
    });
    let client = server.client(Duration::from_secs(60)).unwrap();
    let before = server.log().len();
    let result = client.put(background(), &pack(2), &noise(2, 5000));
    assert_eq!(server.files()[&on_server(pack(2).path())], noise(2, 5000));
    (result, server.log().split_off(before))
}

#[test]
fn a_put_that_is_repeated_syncs_the_object_that_it_finds() {
    case(|| {
        let (result, log) = put_twice(|_| Says::Truth);
        result.expect("the object is there, whole and synced");
        let syncs = log.iter().filter(|ask| is_fsync(ask) && ask.path == on_server(pack(2).path()));
        assert_eq!(syncs.count(), 2, "one that was lost with the connection, one of the repeated put");
        let (result, _) = put_twice(|ask| Says::Packets(vec![status(ask.id, FAILURE, "")]));
        assert_eq!(result.expect_err("it cannot be synced, so it is not stored").kind(), Kind::Exists);
    });
}
