//! A scripted SFTP server in the test process: version 3 over in-memory files, reached by `-o sftp.command`. The script
//! receives each request first and may answer it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nfreezer::context::background;
use nfreezer::error::Result;
use nfreezer::name::Folder;
use nfreezer::storage::{self, Location, Options, Remote, SshOptions, Storage};

/// Types of packets.
pub const OPEN: u8 = 3;
pub const CLOSE: u8 = 4;
pub const READ: u8 = 5;
pub const WRITE: u8 = 6;
pub const LSTAT: u8 = 7;
pub const FSTAT: u8 = 8;
pub const OPENDIR: u8 = 11;
pub const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const STAT: u8 = 17;
const EXTENDED: u8 = 200;
const FSYNC: &[u8] = b"fsync@openssh.com";

/// A request. Its handle is resolved to the opened path.
#[derive(Clone, Debug)]
pub struct Ask {
    pub kind: u8,
    pub id: u32,
    pub path: String,
    pub offset: u64,
    pub len: u32,
    pub data: Vec<u8>,
    /// Number of earlier requests, over all connections.
    pub number: usize,
}

/// Answer of a script to a request.
pub enum Says {
    /// The answer of an honest server.
    Truth,
    /// These packets, from the type on.
    Packets(Vec<Vec<u8>>),
    /// The end of the connection.
    HangUp,
    /// The request is carried out, and then the connection ends.
    DoAndHangUp,
}

pub type Files = BTreeMap<String, Vec<u8>>;
type Script = Box<dyn Fn(&Ask, &mut Files) -> Says + Send + Sync>;

pub struct Server {
    files: Mutex<Files>,
    folders: Mutex<Vec<String>>,
    script: Mutex<Script>,
    log: Mutex<Vec<Ask>>,
    openssh: bool,
    place: tempfile::TempDir,
}

/// Program that carries bytes between its standard streams and a socket until either side ends.
const BRIDGE: &str = r#"
import os, select, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
while True:
    ready = select.select([0, s], [], [])[0]
    if 0 in ready:
        data = os.read(0, 1 << 18)
        if not data: break
        s.sendall(data)
    if s in ready:
        data = s.recv(1 << 18)
        if not data: break
        while data: data = data[os.write(1, data):]
"#;

/// Returns whether a request asks to sync the file that [`Ask::path`] names.
pub fn is_fsync(ask: &Ask) -> bool {
    ask.kind == EXTENDED && !ask.data.is_empty()
}

/// Returns a packet of an answer, from its type on.
pub fn packet(kind: u8, id: u32, parts: &[&[u8]]) -> Vec<u8> {
    [&[kind], id.to_be_bytes().as_slice(), &parts.concat()].concat()
}

pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

pub fn status(id: u32, code: u32, text: &str) -> Vec<u8> {
    packet(101, id, &[&code.to_be_bytes(), &string(text.as_bytes()), &string(b"")])
}

/// Returns the attributes of a regular file of this size.
pub fn attrs(size: u64) -> Vec<u8> {
    [5u32.to_be_bytes().as_slice(), &size.to_be_bytes(), &0o100_400u32.to_be_bytes()].concat()
}

/// Returns one name of a listing.
pub fn entry(name: &[u8], attrs: &[u8]) -> Vec<u8> {
    [string(name), string(b""), attrs.to_vec()].concat()
}

pub fn names(id: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    packet(104, id, &[&(entries.len() as u32).to_be_bytes(), &entries.concat()])
}

impl Server {
    /// Starts the server. With `openssh` it announces OpenSSH's extensions and numbers its handles like OpenSSH.
    pub fn start(openssh: bool) -> Arc<Server> {
        let place = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(place.path().join("socket")).unwrap();
        let script: Script = Box::new(|_, _| Says::Truth);
        let (script, log, folders) = (Mutex::new(script), Mutex::default(), Mutex::new(vec!["/r".to_string()]));
        let server = Arc::new(Server { files: Mutex::default(), folders, script, log, openssh, place });
        folders_of(&server);
        let weak = Arc::downgrade(&server);
        let accept = move || {
            for stream in listener.incoming() {
                let Some(server) = weak.upgrade() else { return };
                let connection = Connection { server, stream: stream.unwrap(), open: Vec::new() };
                std::thread::Builder::new().name("test::sftp".into()).spawn(move || connection.serve()).unwrap();
            }
        };
        std::thread::Builder::new().name("test::accept".into()).spawn(accept).unwrap();
        server
    }

    pub fn script(&self, script: impl Fn(&Ask, &mut Files) -> Says + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn fill(&self, files: Files) {
        *self.files.lock().unwrap() = files;
    }

    pub fn files(&self) -> Files {
        self.files.lock().unwrap().clone()
    }

    pub fn log(&self) -> Vec<Ask> {
        self.log.lock().unwrap().clone()
    }

    /// Returns a client of this server.
    pub fn client(&self, retry_for: Duration) -> Result<Box<dyn Storage>> {
        self.client_that_waits(Duration::from_secs(20), retry_for)
    }

    /// Returns a client with this timeout.
    pub fn client_that_waits(&self, io_timeout: Duration, retry_for: Duration) -> Result<Box<dyn Storage>> {
        let socket = self.place.path().join("socket");
        let command = ["python3", "-S", "-E", "-c", BRIDGE, &socket.display().to_string()].map(String::from);
        let ssh = SshOptions {
            command: Some(command.into()),
            connections: Some(1),
            io_timeout,
            connect_timeout: Duration::from_secs(20),
            ..SshOptions::default()
        };
        let options = Options { retry_for, ssh, ..Options::default() };
        let remote = Remote { user: None, host: "liar".into(), port: None, path: "/r".into() };
        storage::open(background(), &Location::Sftp(remote), options)
    }
}

fn folders_of(server: &Server) {
    let paths = Folder::all().map(|folder| format!("/r/{}", folder.path()));
    server.folders.lock().unwrap().extend(paths);
}

struct Open {
    path: String,
    listed: bool,
}

struct Connection {
    server: Arc<Server>,
    stream: UnixStream,
    open: Vec<Option<Open>>,
}

impl Connection {
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).ok()?;
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut body).ok()?;
        Some(body)
    }

    fn send(&mut self, packet: &[u8]) -> Option<()> {
        self.stream.write_all(&[&(packet.len() as u32).to_be_bytes(), packet].concat()).ok()
    }

    /// Serves requests until either side closes the connection.
    fn serve(mut self) -> Option<()> {
        self.receive()?;
        let extensions = match self.server.openssh {
            true => ["fsync@openssh.com", "1", "limits@openssh.com", "1"].map(|s| string(s.as_bytes())).concat(),
            false => Vec::new(),
        };
        self.send(&[&[2], 3u32.to_be_bytes().as_slice(), &extensions].concat())?;
        loop {
            let body = self.receive()?;
            let ask = self.understand(&body)?;
            self.server.log.lock().unwrap().push(ask.clone());
            let says = (self.server.script.lock().unwrap())(&ask, &mut self.server.files.lock().unwrap());
            match says {
                Says::Truth => {
                    let answer = self.answer(&ask);
                    self.send(&answer)?;
                }
                Says::Packets(packets) => packets.iter().try_for_each(|packet| self.send(packet))?,
                Says::HangUp => return None,
                Says::DoAndHangUp => {
                    self.answer(&ask);
                    return None;
                }
            }
        }
    }

    fn understand(&self, body: &[u8]) -> Option<Ask> {
        let mut rest = body;
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at_checked(n)?;
            rest = tail;
            Some(head)
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let (kind, id) = (take(1)?[0], number(take(4)?) as u32);
        let len = number(take(4)?) as usize;
        let subject = take(len)?.to_vec();
        let mut ask = Ask { kind, id, path: String::new(), offset: 0, len: 0, data: Vec::new(), number: 0 };
        ask.number = self.server.log.lock().unwrap().len();
        match kind {
            READ => (ask.offset, ask.len) = (number(take(8)?), number(take(4)?) as u32),
            WRITE => {
                ask.offset = number(take(8)?);
                let len = number(take(4)?) as usize;
                ask.data = take(len)?.to_vec();
            }
            OPEN => ask.len = number(take(4)?) as u32,
            EXTENDED if subject == FSYNC => {
                let len = number(take(4)?) as usize;
                ask.data = take(len)?.to_vec();
            }
            _ => {}
        }
        ask.path = match kind {
            CLOSE | READ | WRITE | FSTAT | READDIR => self.path_of(subject),
            EXTENDED if subject == FSYNC => self.path_of(ask.data.clone()),
            _ => String::from_utf8(subject).ok()?,
        };
        if kind == CLOSE || kind == READDIR {
            ask.offset = body[9..].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        }
        Some(ask)
    }

    /// Returns the path of an open handle.
    fn path_of(&self, handle: Vec<u8>) -> String {
        let handle = handle.try_into().ok().map(|bytes| u32::from_be_bytes(bytes) as usize);
        let open = handle.and_then(|handle| self.open.get(handle)?.as_ref());
        open.map_or("?".into(), |open| open.path.clone())
    }

    fn answer(&mut self, ask: &Ask) -> Vec<u8> {
        let server = Arc::clone(&self.server);
        let mut files = server.files.lock().unwrap();
        let (ok, no_file, failure, eof) = (0, 2, 4, 1);
        let said = |code: u32| status(ask.id, code, "");
        match ask.kind {
            OPEN if ask.len & 0x20 != 0 => match files.contains_key(&ask.path) {
                true => said(failure),
                false => {
                    files.insert(ask.path.clone(), Vec::new());
                    self.handle(ask)
                }
            },
            OPEN if !files.contains_key(&ask.path) => said(no_file),
            OPENDIR if !server.folders.lock().unwrap().contains(&ask.path) => said(no_file),
            OPEN | OPENDIR => self.handle(ask),
            CLOSE => match self.open.get_mut(ask.offset as usize).and_then(Option::take) {
                Some(_) => said(ok),
                None => said(failure),
            },
            READ => match files.get(&ask.path) {
                Some(bytes) if ask.offset < bytes.len() as u64 => {
                    let from = ask.offset as usize;
                    packet(103, ask.id, &[&string(&bytes[from..bytes.len().min(from + ask.len as usize)])])
                }
                Some(_) => said(eof),
                None => said(failure),
            },
            WRITE => match files.get_mut(&ask.path) {
                Some(bytes) => {
                    bytes.resize(bytes.len().max(ask.offset as usize + ask.data.len()), 0);
                    bytes[ask.offset as usize..][..ask.data.len()].copy_from_slice(&ask.data);
                    said(ok)
                }
                None => said(failure),
            },
            LSTAT | STAT | FSTAT => match files.get(&ask.path) {
                Some(bytes) => packet(105, ask.id, &[&attrs(bytes.len() as u64)]),
                None if server.folders.lock().unwrap().contains(&ask.path) => {
                    packet(105, ask.id, &[&4u32.to_be_bytes(), &0o040_700u32.to_be_bytes()])
                }
                None => said(no_file),
            },
            READDIR => {
                let open = self.open.get_mut(ask.offset as usize).and_then(Option::as_mut);
                let Some(open) = open.filter(|open| !open.listed) else { return said(eof) };
                open.listed = true;
                let prefix = format!("{}/", open.path);
                let here = files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(&prefix)?, bytes.len())));
                let here = here.filter(|(name, _)| !name.contains('/'));
                let entries: Vec<_> = here.map(|(name, len)| entry(name.as_bytes(), &attrs(len as u64))).collect();
                if entries.is_empty() { said(eof) } else { names(ask.id, &entries) }
            }
            REMOVE => said(if files.remove(&ask.path).is_some() { ok } else { no_file }),
            MKDIR => said(failure),
            EXTENDED if ask.path == "limits@openssh.com" => {
                let limits = [262_144u64, 261_120, 261_120, 100].map(u64::to_be_bytes).concat();
                packet(201, ask.id, &[&limits])
            }
            EXTENDED => said(ok),
            _ => said(8),
        }
    }

    fn handle(&mut self, ask: &Ask) -> Vec<u8> {
        let open = Some(Open { path: ask.path.clone(), listed: false });
        // Takes the lowest free number. OpenSSH takes the last freed number, so the client may guess wrong here.
        let number = match self.open.iter().position(Option::is_none) {
            Some(free) => {
                self.open[free] = open;
                free
            }
            None => {
                self.open.push(open);
                self.open.len() - 1
            }
        };
        packet(102, ask.id, &[&string(&(number as u32).to_be_bytes())])
    }
}

/// Returns the path of an object on the server.
pub fn on_server(path: impl AsRef<Path>) -> String {
    format!("/r/{}", path.as_ref().display())
}
