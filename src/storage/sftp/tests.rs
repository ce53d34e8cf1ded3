//! The client against servers that no test could install: hostile ones, and a real one whose connection breaks at every
//! possible place.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags};

use super::link::{Grow, Link};
use super::packet::{self, Request};
use super::{Session, Sftp, SftpConnection, Times};
use crate::context::background;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name, ObjectId};
use crate::storage::net::expected::FRESH;
use crate::storage::net::retry::Reconnecting;
use crate::storage::net::{Dial, DialError, Fault};
use crate::storage::{Local, Options, Storage};

const TIMEOUT: Duration = Duration::from_millis(500);

/// One stream, which breaks after `left` bytes were sent.
struct Wire {
    stream: UnixStream,
    left: usize,
    server: Option<Child>,
    ending: Option<Instant>,
}

impl Link for Wire {
    fn begin(&mut self) {}

    fn read(&mut self, _: usize, into: &mut [u8]) -> io::Result<usize> {
        match self.ending {
            // the server still receives the request, its answers are lost
            Some(since) if since.elapsed() > Duration::from_millis(20) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(_) => {
                let _ = self.stream.read(into);
                Err(io::ErrorKind::WouldBlock.into())
            }
            None => self.stream.read(into),
        }
    }

    fn write(&mut self, _: usize, from: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.ending.get_or_insert_with(Instant::now);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.stream.write(&from[..from.len().min(self.left)])?;
        self.left -= count;
        if self.left == 0 {
            self.ending = Some(Instant::now());
        }
        Ok(count)
    }

    fn grow(&mut self) -> Grow {
        Grow::Refused
    }

    fn close(&mut self, _: usize) {}

    fn eager(&self) -> bool {
        true
    }

    fn buffered(&self) -> bool {
        self.ending.is_some()
    }

    fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.stream, PollFlags::IN | PollFlags::OUT));
    }

    fn shutdown(&mut self, _: bool) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }

    fn complaint(&mut self) -> Option<String> {
        None
    }
}

fn patient() -> Options {
    Options { retry_for: Duration::from_secs(20), ..Options::default() }
}

/// Starts a session in which a server is silent after `io`.
fn session(wire: Wire, io: Duration) -> Result<Session, Fault> {
    let (first, operation) = (20 * TIMEOUT, 20 * io);
    let times = Times { io, first, operation, keepalive: Duration::ZERO, ctx: background().clone() };
    Session::start(Box::new(wire), 1, times, Arc::default())
}

/// OpenSSH's own server; the first connection breaks after `cut` bytes, later ones do not.
struct Breaking {
    root: String,
    cut: usize,
    dials: AtomicUsize,
}

impl Dial for Breaking {
    type Connection = SftpConnection;

    fn dial(&self) -> Result<SftpConnection, DialError> {
        let (stream, theirs) = UnixStream::pair().expect("a pair");
        stream.set_nonblocking(true).expect("ours");
        let output = theirs.try_clone().expect("a descriptor");
        let mut command = Command::new("/usr/lib/openssh/sftp-server");
        command.stdin(std::os::fd::OwnedFd::from(theirs)).stdout(std::os::fd::OwnedFd::from(output));
        let server = Some(command.spawn().expect("sftp-server is not installed: run scripts/setup.sh"));
        let first = self.dials.fetch_add(1, Ordering::SeqCst) == 0;
        let left = if first { self.cut } else { usize::MAX };
        // Long enough for a busy disk to sync.
        match session(Wire { stream, left, server, ending: None }, 20 * TIMEOUT) {
            Ok(session) => Ok(SftpConnection::new(session, &self.root)),
            Err(Fault::Lost(why) | Fault::Busy(why, _)) => {
                Err(DialError { error: Error::new(Kind::Connection, why), again: true })
            }
            Err(Fault::Final(error)) => Err(DialError { error, again: false }),
        }
    }

    fn server(&self) -> String {
        "a test".into()
    }
}

fn pack(first: u8) -> Name {
    Name::Pack(ObjectId([first; 32]))
}

#[test]
fn a_put_whose_connection_breaks_at_any_byte_is_whole_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes: Vec<u8> = (0..600_000u32).map(|n| n.to_be_bytes()[2] ^ n.to_be_bytes()[3]).collect();
    let mut outcomes = HashSet::new();
    // INIT and limits take 44 bytes, OPEN about 200, then the WRITEs, then FSYNC, FSTAT and CLOSE about 100
    let tail = (600_200..600_460).step_by(13);
    for (number, cut) in [60, 200, 300, 100_000, 262_000, 599_999].into_iter().chain(tail).enumerate() {
        let root = folder.path().join(number.to_string());
        Local::new(&root).create_folders(background()).expect("folders");
        let dial = Breaking { root: root.display().to_string(), cut, dials: AtomicUsize::new(0) };
        let connections = Reconnecting::new(background(), Box::new(dial), patient().retry()).expect("connected");
        let storage = Sftp::new(background(), connections, Arc::default(), String::new()).expect("connected");
        let stored = |root: &Path| std::fs::read(root.join(pack(1).path())).expect("there");
        match storage.put(background(), &pack(1), &bytes) {
            Ok(()) => {
                assert_eq!(stored(&root), bytes, "cut at {cut}");
                outcomes.insert("whole");
            }
            Err(e) if e.kind() == Kind::Exists => {
                assert!(stored(&root).len() < bytes.len(), "cut at {cut}");
                outcomes.insert("torso");
            }
            Err(e) => panic!("cut at {cut}: {e:?}"),
        }
        let other = (2..5)
            .map(|id| storage.put(background(), &pack(id), &bytes))
            .find(|put| !matches!(put, Err(e) if e.kind() == Kind::Exists));
        other.expect("only one connection breaks").expect("another id");
    }
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
}

#[test]
fn a_put_that_finds_other_bytes_of_the_same_length_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    Local::new(folder.path()).create_folders(background()).expect("folders");
    let dial = Breaking { root: folder.path().display().to_string(), cut: usize::MAX, dials: AtomicUsize::new(0) };
    let connections = Reconnecting::new(background(), Box::new(dial), patient().retry()).expect("connected");
    Local::new(folder.path()).put(background(), &pack(1), b"aXa").expect("put");
    let again = |bytes: &[u8]| {
        connections.run(background(), |connection, _| connection.put(background(), &pack(1), bytes, true))
    };
    assert_eq!(again(b"aaa").expect_err("other bytes").kind(), Kind::Exists);
    assert_eq!(again(b"aXaa").expect_err("longer").kind(), Kind::Exists);
    again(b"aXa").expect("those that were sent before");
}

/// Returns a server that greets properly and then sends `answers`, whatever it is asked.
fn hostile(answers: Vec<u8>) -> Result<SftpConnection, Fault> {
    let (stream, mut theirs) = UnixStream::pair().expect("a pair");
    stream.set_nonblocking(true).expect("ours");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        let mut greeting = vec![0, 0, 0, 5, packet::VERSION, 0, 0, 0, 3];
        while let Ok(1..) = theirs.read(&mut buffer) {
            greeting.extend(if greeting.is_empty() { &answers[..] } else { &[] });
            if theirs.write_all(&std::mem::take(&mut greeting)).is_err() {
                return;
            }
        }
    });
    session(Wire { stream, left: usize::MAX, server: None, ending: None }, TIMEOUT)
        .map(|session| SftpConnection::new(session, "/r"))
}

/// Returns a server that answers each request by its kind and id, in order; an empty answer is none.
fn scripted(answer: impl Fn(u8, u32) -> Vec<u8> + Send + 'static) -> SftpConnection {
    scripted_within(20 * TIMEOUT, answer)
}

/// Returns the same for a client that grants each operation this time, beyond that for its bytes.
fn scripted_within(operation: Duration, answer: impl Fn(u8, u32) -> Vec<u8> + Send + 'static) -> SftpConnection {
    let (stream, mut theirs) = UnixStream::pair().expect("a pair");
    stream.set_nonblocking(true).expect("ours");
    std::thread::spawn(move || {
        let mut head = [0; 9];
        while theirs.read_exact(&mut head).is_ok() {
            let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let mut rest = vec![0; word(0) as usize - 5];
            let _ = theirs.read_exact(&mut rest);
            let greeting = vec![0, 0, 0, 5, packet::VERSION, 0, 0, 0, 3];
            let said = if head[4] == packet::INIT { greeting } else { answer(head[4], word(5)) };
            if theirs.write_all(&said).is_err() {
                return;
            }
        }
    });
    let wire = Wire { stream, left: usize::MAX, server: None, ending: None };
    let io = 20 * TIMEOUT;
    let times = Times { io, first: io, operation, keepalive: Duration::ZERO, ctx: background().clone() };
    let session = Session::start(Box::new(wire), 1, times, Arc::default());
    SftpConnection::new(session.unwrap_or_else(|_| panic!("it greets")), "/r")
}

#[test]
fn a_server_that_trickles_is_given_up_although_something_always_moves() {
    let pause = TIMEOUT / 2;
    let answered = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&answered);
    let connection = scripted_within(4 * TIMEOUT, move |kind, id| match kind {
        packet::OPENDIR => Request::new(packet::HANDLE).string(b"h").finish(id),
        packet::READDIR => {
            std::thread::sleep(pause); // well within the timeout of a silent server
            counted.fetch_add(1, Ordering::SeqCst);
            Request::new(packet::NAME).u32(1).string(b"n").string(b"").u32(0).finish(id)
        }
        _ => Vec::new(),
    });
    let Err(Fault::Lost(why)) = connection.scan(background(), Folder::Log) else { panic!("it never ends") };
    assert!(why.contains("far too slow"), "{why}");
    assert!((2..40).contains(&answered.load(Ordering::SeqCst)), "{}", answered.load(Ordering::SeqCst));
}

#[test]
fn an_operation_earns_time_by_what_it_moves() {
    let name = || Request::new(packet::NAME).u32(1).string(&[b'n'; 200]).string(&[b'l'; 200]).u32(0);
    let connection = scripted_within(4 * TIMEOUT, move |kind, id| match kind {
        packet::OPENDIR => Request::new(packet::HANDLE).string(b"h").finish(id),
        // in all it takes longer than the base
        packet::READDIR if id < 27 => {
            std::thread::sleep(TIMEOUT / 4);
            name().finish(id)
        }
        packet::READDIR => Request::new(packet::STATUS).u32(packet::EOF).string(b"").string(b"").finish(id),
        _ => Vec::new(),
    });
    let (_, foreign) = connection.scan(background(), Folder::Log).expect("a slow listing");
    assert_eq!(foreign, 24);
}

#[test]
fn a_listing_with_the_longest_names_in_few_large_packets_is_read() {
    let connection = scripted(|kind, id| match kind {
        packet::OPENDIR => Request::new(packet::HANDLE).string(b"h").finish(id),
        packet::READDIR if id == 3 => {
            let name = |names: Request, _| names.string(&[b'n'; 255]).string(&[b'l'; 330]).u32(0);
            (0..400).fold(Request::new(packet::NAME).u32(400), name).finish(id)
        }
        packet::READDIR => Request::new(packet::STATUS).u32(packet::EOF).string(b"").string(b"").finish(id),
        _ => Vec::new(),
    });
    let Ok((entries, foreign)) = connection.scan(background(), Folder::Log) else { panic!("a listing was refused") };
    assert_eq!((entries.len(), foreign), (0, 400));
}

#[test]
fn a_listing_that_was_begun_long_ago_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("repo");
    Local::new(&root).create_folders(background()).expect("folders");
    let dial = Breaking { root: root.display().to_string(), cut: usize::MAX, dials: AtomicUsize::new(0) };
    let connections = Reconnecting::new(background(), Box::new(dial), patient().retry()).expect("connected");
    let storage = Sftp::new(background(), connections, Arc::default(), String::new()).expect("connected");
    for (sequence, age, listed) in [(1, Duration::ZERO, 0), (2, FRESH, 2)] {
        storage.expect(background(), Folder::Log);
        storage.expected.age(Folder::Log, age);
        let name = Name::Record { sequence, id: ObjectId([9; 32]) };
        storage.put(background(), &name, b"a record").expect("a new object");
        assert_eq!(storage.list(background(), Folder::Log).expect("a listing").len(), listed, "begun {age:?} ago");
    }
}

/// Returns how many of the calls got a session to fail in.
fn every_call_fails(answers: &[u8]) -> usize {
    let calls: [fn(&SftpConnection) -> bool; 5] = [
        |c| c.size(background(), &pack(1)).is_err(),
        |c| c.read(background(), &pack(1), 0, 100).is_err(),
        |c| c.put(background(), &pack(1), b"x", false).is_err(),
        |c| c.scan(background(), Folder::Log).is_err(),
        |c| c.put(background(), &pack(1), b"x", true).is_err(),
    ];
    let mut opened = 0;
    for call in calls {
        let start = Instant::now();
        if let Ok(connection) = hostile(answers.to_vec()) {
            assert!(call(&connection), "a hostile server was believed");
            opened += 1;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "too long");
    }
    opened
}

#[test]
fn hostile_answers_are_errors() {
    let mut opened = 0;
    let data = |id: u32| Request::new(packet::DATA).string(b"abc").finish(id);
    opened += every_call_fails(b"");
    opened += every_call_fails(&data(77)); // an id that was not asked for
    opened += every_call_fails(&data(0));
    opened += every_call_fails(&u32::MAX.to_be_bytes());
    opened += every_call_fails(&[0, 0, 0, 0]);
    opened += every_call_fails(&[0, 4, 0, 0, 101]); // a long packet that never ends
    opened += every_call_fails(&(0..100u32).flat_map(data).collect::<Vec<u8>>());
    let handles = |id| Request::new(packet::HANDLE).string(b"h").finish(id);
    opened += every_call_fails(&(2..60u32).flat_map(handles).collect::<Vec<u8>>()); // a handle for everything
    let names = |id| Request::new(packet::NAME).u32(0).finish(id);
    opened +=
        every_call_fails(&(2..60u32).flat_map(|id| if id == 2 { handles(id) } else { names(id) }).collect::<Vec<u8>>());
    assert!(opened >= 10, "only {opened} calls got a session");
}

#[test]
fn other_versions_and_other_protocols_are_refused() {
    for greeting in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0, 0, 0, 5, packet::VERSION, 0, 0, 0, 2],
        &[0, 0, 0, 5, 101, 0, 0, 0, 3],
    ] {
        let (stream, mut theirs) = UnixStream::pair().expect("a pair");
        stream.set_nonblocking(true).expect("ours");
        theirs.write_all(greeting).expect("room");
        let wire = Wire { stream, left: usize::MAX, server: None, ending: None };
        assert!(matches!(session(wire, TIMEOUT), Err(Fault::Lost(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_answers_make_the_client_panic_or_hang(
        packets in proptest::collection::vec(
            (prop_oneof![Just(101u8), Just(102), Just(103), Just(104), Just(105), Just(201)],
             2u32..6, proptest::collection::vec(any::<u8>(), 0..40)),
            1..8,
        )
    ) {
        let answers: Vec<u8> = packets.into_iter().flat_map(|(kind, id, body)| {
            let len = u32::try_from(body.len() + 5).expect("short");
            [&len.to_be_bytes()[..], &[kind], &id.to_be_bytes()[..], &body].concat()
        }).collect();
        let Ok(connection) = hostile(answers) else { panic!("it greets") };
        let start = Instant::now();
        let _ = connection.read(background(), &pack(1), 0, 100);
        let _ = connection.scan(background(), Folder::Log);
        prop_assert!(start.elapsed() < Duration::from_secs(20), "too long");
    }
}
