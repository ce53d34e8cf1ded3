//! Object stores: a small one in the test process that misbehaves on request, and `rclone serve s3`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nfreezer::context::background;
use nfreezer::error::Result;
use nfreezer::storage::{Location, Options, S3Options, Storage, open};
use tempfile::TempDir;

use super::port::free_port;

pub const KEY_ID: &str = "AKTESTTESTTEST";
pub const SECRET: &str = "a-secret-that-no-message-shows";

/// A request as a server sees it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// The bucket and the key, decoded.
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// A scripted reaction of the server to a request.
pub enum Reply {
    /// Answers with this status, these headers and this body.
    Answer(u16, Vec<(String, String)>, String),
    /// Carries out the request, but closes the connection instead of answering.
    Lost,
    /// Closes the connection without carrying out the request.
    Closed,
    /// Carries out the request, and sends only this number of bytes of the answer's body.
    Cut(usize),
    /// Sends these bytes instead of an answer, and closes the connection.
    Raw(Vec<u8>),
    /// Carries out the request, and sends the answer one byte at a time, with pauses.
    Trickle,
    /// Never answers.
    Silent,
}

impl Reply {
    /// Returns a refusal with an S3 error code.
    pub fn error(status: u16, code: &str) -> Reply {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>scripted</Message></Error>");
        Reply::Answer(status, Vec::new(), body)
    }
}

type Script = Box<dyn FnMut(&Request) -> Option<Reply> + Send>;

#[derive(Default)]
struct State {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    script: Mutex<Option<Script>>,
    seen: Mutex<Vec<Request>>,
    replaces: AtomicBool,
    page: AtomicUsize,
    stopped: AtomicBool,
}

/// An in-memory store with the bucket `bucket`. It does not verify signatures.
pub struct Store {
    pub port: u16,
    state: Arc<State>,
}

impl Store {
    pub fn start() -> Store {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(State::default());
        state.page.store(1000, Ordering::Relaxed);
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&shared);
                std::thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Store { port, state }
    }

    /// Makes the store replace objects in spite of `If-None-Match`.
    pub fn replacing(self) -> Store {
        self.state.replaces.store(true, Ordering::Relaxed);
        self
    }

    /// Limits each page of a listing to this number of names.
    pub fn with_pages(self, names: usize) -> Store {
        self.state.page.store(names, Ordering::Relaxed);
        self
    }

    /// Calls `script` before each request from now on.
    pub fn script(&self, script: impl FnMut(&Request) -> Option<Reply> + Send + 'static) {
        *self.state.script.lock().unwrap() = Some(Box::new(script));
    }

    /// Replies to the next `times` requests of this method with `reply`.
    pub fn next(&self, method: &'static str, mut times: usize, reply: impl Fn() -> Reply + Send + 'static) {
        self.script(move |request| {
            if request.method != method || times == 0 {
                return None;
            }
            times -= 1;
            Some(reply())
        });
    }

    /// Returns the requests since the last call.
    pub fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut *self.state.seen.lock().unwrap())
    }

    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state.objects.lock().unwrap().clone()
    }

    pub fn clear(&self) {
        self.state.objects.lock().unwrap().clear();
    }

    pub fn insert(&self, key: &str, bytes: &[u8]) {
        self.state.objects.lock().unwrap().insert(key.into(), bytes.into());
    }

    pub fn address(&self) -> String {
        format!("s3+http://127.0.0.1:{}/bucket/repo", self.port)
    }

    pub fn open(&self, options: Options) -> Result<Box<dyn Storage>> {
        open(background(), &Location::parse(&self.address())?, options)
    }

    pub fn storage(&self) -> Box<dyn Storage> {
        self.open(options()).unwrap_or_else(|e| panic!("{e:?}"))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Returns options with the credentials of the tests.
pub fn options() -> Options {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let environment =
        [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)].into_iter().map(pair).collect();
    Options { s3: S3Options { environment, home: None }, ..Options::default() }
}

fn decode(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn receive(from: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    // A proxy gets the whole address.
    let (host, target) = match target.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
        Some((host, path)) => (host, path),
        None => ("", &*target),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(value))
    });
    let bucket = if host.starts_with("bucket.") { "bucket/" } else { "" };
    let path = format!("{bucket}{}", decode(path.trim_start_matches('/')));
    let mut request = Request { method, path, query: query.collect(), ..Request::default() };
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => drop(request.headers.insert(name.to_lowercase(), value.trim().into())),
            None => break,
        }
    }
    let length = request.headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    from.read_exact(&mut request.body).ok()?;
    Some(request)
}

impl State {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut to = stream.try_clone()?;
        let mut from = BufReader::new(stream);
        let mut first = [0];
        if from.get_ref().peek(&mut first)? == 1 && !first[0].is_ascii_uppercase() {
            let _ = from.read(&mut [0; 2000])?;
            return to.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"); // TLS
        }
        while let Some(request) = receive(&mut from) {
            self.seen.lock().unwrap().push(request.clone());
            let reply = self.script.lock().unwrap().as_mut().and_then(|script| script(&request));
            let is_head = request.method == "HEAD";
            match reply {
                None => send(&mut to, self.work(&request), is_head, None)?,
                Some(Reply::Answer(status, headers, body)) => {
                    send(&mut to, (status, headers, body.into_bytes()), is_head, None)?;
                }
                Some(Reply::Lost) => {
                    self.work(&request);
                    break;
                }
                Some(Reply::Cut(bytes)) => {
                    send(&mut to, self.work(&request), is_head, Some(bytes))?;
                    break;
                }
                Some(Reply::Raw(bytes)) => {
                    to.write_all(&bytes)?;
                    break;
                }
                Some(Reply::Trickle) => {
                    let mut answer = Vec::new();
                    send(&mut answer, self.work(&request), is_head, None)?;
                    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
                    to.write_all(&answer[..body])?;
                    for byte in &answer[body..] {
                        std::thread::sleep(Duration::from_millis(20));
                        to.write_all(&[*byte])?;
                    }
                }
                Some(Reply::Closed) => break,
                Some(Reply::Silent) => {
                    let _ = from.read(&mut [0; 1]);
                    break;
                }
            }
        }
        to.shutdown(std::net::Shutdown::Both)
    }

    fn work(&self, request: &Request) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let refuse = |status, code: &str| match Reply::error(status, code) {
            Reply::Answer(status, headers, body) => (status, headers, body.into_bytes()),
            _ => unreachable!(),
        };
        let (bucket, key) = request.path.split_once('/').unwrap_or((&request.path, ""));
        if bucket != "bucket" {
            return refuse(404, "NoSuchBucket");
        }
        let mut objects = self.objects.lock().unwrap();
        let tag = |bytes: &[u8]| ("ETag".to_owned(), format!("\"{:x}-{}\"", bytes.len(), bytes.first().unwrap_or(&0)));
        match &*request.method {
            "GET" if key.is_empty() => (200, Vec::new(), self.list(&objects, &request.query).into_bytes()),
            "POST" if request.query.contains_key("delete") => {
                let body = String::from_utf8_lossy(&request.body);
                let keys = body.split("<Key>").skip(1).filter_map(|part| part.split("</Key>").next());
                let gone = keys.map(|key| {
                    objects.remove(key);
                    format!("<Deleted><Key>{key}</Key></Deleted>")
                });
                (200, Vec::new(), format!("<DeleteResult>{}</DeleteResult>", gone.collect::<String>()).into_bytes())
            }
            "PUT" => {
                let is_conditional = request.headers.get("if-none-match").is_some_and(|value| value == "*");
                if is_conditional && !self.replaces.load(Ordering::Relaxed) && objects.contains_key(key) {
                    return refuse(412, "PreconditionFailed");
                }
                objects.insert(key.into(), request.body.clone());
                (200, vec![tag(&request.body)], Vec::new())
            }
            "DELETE" => {
                objects.remove(key);
                (204, Vec::new(), Vec::new())
            }
            _ => match objects.get(key) {
                None => refuse(404, "NoSuchKey"),
                Some(bytes) => {
                    let time = ("Last-Modified".to_owned(), "Sun, 29 Nov 2026 10:00:00 GMT".to_owned());
                    let range = request.headers.get("range").and_then(|range| {
                        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
                        Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?))
                    });
                    match range {
                        None => (200, vec![tag(bytes), time], bytes.clone()),
                        Some((from, _)) if from >= bytes.len() => refuse(416, "InvalidRange"),
                        Some((from, to)) => {
                            let to = to.min(bytes.len() - 1);
                            let range = format!("bytes {from}-{to}/{}", bytes.len());
                            let headers = vec![tag(bytes), time, ("Content-Range".into(), range)];
                            (206, headers, bytes[from..=to].to_vec())
                        }
                    }
                }
            },
        }
    }

    fn list(&self, objects: &BTreeMap<String, Vec<u8>>, query: &BTreeMap<String, String>) -> String {
        let prefix = query.get("prefix").cloned().unwrap_or_default();
        let after = query.get("continuation-token").cloned().unwrap_or_default();
        let (mut items, mut last, mut more) = (String::new(), String::new(), false);
        let mut count = 0;
        for (key, bytes) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            let folder = key[prefix.len()..].find('/').map(|end| &key[..=prefix.len() + end]);
            let name = folder.unwrap_or(key);
            if name <= &*after || name == last {
                continue;
            }
            if count == self.page.load(Ordering::Relaxed) {
                more = true;
                break;
            }
            count += 1;
            last = name.into();
            items += &match folder {
                Some(folder) => format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"),
                None => format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-11-29T10:00:00.000Z</LastModified><ETag>\"x\"</ETag>\
                     <Size>{}</Size></Contents>",
                    bytes.len()
                ),
            };
        }
        let next = if more { format!("<NextContinuationToken>{last}</NextContinuationToken>") } else { String::new() };
        format!(
            "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>{more}</IsTruncated>{items}{next}</ListBucketResult>"
        )
    }
}

fn send(
    to: &mut impl Write,
    (status, headers, body): (u16, Vec<(String, String)>, Vec<u8>),
    is_head: bool,
    most: Option<usize>,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} scripted\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if status != 204 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    to.write_all(format!("{head}\r\n").as_bytes())?;
    if is_head { Ok(()) } else { to.write_all(&body[..most.unwrap_or(body.len()).min(body.len())]) }
}

/// Waits until a server accepts connections.
fn wait_for(process: &mut Child, port: u16, output: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let said = fs::read_to_string(output).unwrap_or_default();
        let ended = process.try_wait().ok().flatten();
        assert!(ended.is_none() && Instant::now() < deadline, "no S3 is served (run scripts/setup.sh tests): {said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running moto server with the bucket `bucket`, which keeps versions. It does not verify signatures.
pub struct Moto {
    _folder: TempDir,
    process: Child,
    pub port: u16,
}

impl Moto {
    pub fn start() -> Moto {
        let folder = tempfile::Builder::new().prefix("nfreezer-moto-").tempdir().expect("a temporary folder");
        let (port, output) = (free_port(), folder.path().join("output"));
        let mut command = Command::new("python3");
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&output).expect("a file"));
        let mut process = command.spawn().expect("python3 runs");
        wait_for(&mut process, port, &output);
        let server = Moto { _folder: folder, process, port };
        server.put("/bucket", "");
        server.put("/bucket?versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>");
        server
    }

    /// Puts an object as someone else does.
    pub fn put(&self, target: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it runs");
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/xml\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=AK/20261130/us-east-1/s3/aws4_request, SignedHeaders=host, \
             Signature=0\r\n",
            self.port
        );
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 "), "{answer}");
    }

    pub fn address(&self, folder: &str) -> String {
        format!("s3+http://127.0.0.1:{}/bucket/{folder}", self.port)
    }

    pub fn open(&self, folder: &str) -> Box<dyn Storage> {
        let location = Location::parse(&self.address(folder)).expect("an address");
        open(background(), &location, options()).unwrap_or_else(|e| panic!("{e:?}"))
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A running `rclone serve s3` with the bucket `bucket`.
pub struct Rclone {
    folder: TempDir,
    process: Child,
    pub port: u16,
}

impl Rclone {
    pub fn start() -> Rclone {
        let folder = tempfile::Builder::new().prefix("nfreezer-s3-").tempdir().expect("a temporary folder");
        fs::create_dir_all(folder.path().join("files/bucket")).expect("a bucket");
        let port = free_port();
        let mut command = Command::new("rclone");
        command.args(["serve", "s3", "--config", "/dev/null", "--addr", &format!("127.0.0.1:{port}")]);
        command.args(["--auth-key", &format!("{KEY_ID},{SECRET}")]);
        command.arg(folder.path().join("files")).env("HOME", folder.path());
        let output = fs::File::create(folder.path().join("output")).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let mut process = command.spawn().expect("rclone is not installed: run scripts/setup.sh tests");
        wait_for(&mut process, port, &folder.path().join("output"));
        Rclone { folder, process, port }
    }

    /// Returns the folder that holds the bucket's files.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("files/bucket")
    }

    pub fn address(&self, folder: &str) -> String {
        format!("s3+http://127.0.0.1:{}/bucket/{folder}", self.port)
    }
}

impl Drop for Rclone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
