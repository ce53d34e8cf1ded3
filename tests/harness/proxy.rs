//! A TCP proxy on the loopback that delays, cuts and refuses connections. TCP acknowledgements stay local, so slow
//! start is not simulated.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A proxy that forwards connections to one port. Ends on drop.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: AtomicU16,
    delay: Duration,
    open: Mutex<Vec<TcpStream>>,
    accepting: AtomicBool,
    frozen: AtomicBool,
    ended: AtomicBool,
    accepted: AtomicUsize,
    refused: AtomicUsize,
    most: AtomicUsize,
    alive: AtomicUsize,
}

/// A forwarded connection, counted until it is dropped.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Proxy {
    /// Listens on a free port and forwards to `target`, with `delay` in each direction.
    pub fn start(target: u16, delay: Duration) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            delay,
            open: Mutex::default(),
            accepting: AtomicBool::new(true),
            frozen: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            most: AtomicUsize::new(usize::MAX),
            alive: AtomicUsize::new(0),
        });
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if theirs.ended.load(Ordering::SeqCst) {
                    return;
                }
                let room = theirs.alive.load(Ordering::SeqCst) < theirs.most.load(Ordering::SeqCst);
                match room && theirs.accepting.load(Ordering::SeqCst) {
                    true => theirs.forward(client),
                    false => drop(theirs.refused.fetch_add(1, Ordering::SeqCst)),
                }
            }
        });
        Proxy { port, shared }
    }

    /// Forwards new connections to another port.
    pub fn forward_to(&self, target: u16) {
        self.shared.target.store(target, Ordering::SeqCst);
    }

    /// Cuts every open connection.
    pub fn cut(&self) {
        for socket in self.shared.open.lock().expect("no holder panics").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Sets whether new connections are forwarded. Otherwise they are closed immediately.
    pub fn accept(&self, yes: bool) {
        self.shared.accepting.store(yes, Ordering::SeqCst);
    }

    /// Limits the number of simultaneous connections. Further ones are closed immediately, as storage boxes do.
    pub fn most(&self, connections: usize) {
        self.shared.most.store(connections, Ordering::SeqCst);
    }

    /// Returns the number of connections that were closed immediately.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Sets whether data is held back: connections stay open and nothing arrives.
    pub fn freeze(&self, yes: bool) {
        self.shared.frozen.store(yes, Ordering::SeqCst);
    }

    /// Returns the number of connections that were forwarded.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes the thread that accepts
    }
}

impl Shared {
    fn forward(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target.load(Ordering::SeqCst))) else { return };
        self.accepted.fetch_add(1, Ordering::SeqCst);
        self.alive.fetch_add(1, Ordering::SeqCst);
        let alive = Arc::new(Alive(Arc::clone(self)));
        for socket in [&client, &server] {
            let _ = socket.set_nodelay(true);
            self.open.lock().expect("no holder panics").push(socket.try_clone().expect("a descriptor"));
        }
        let (client2, server2) = (client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"));
        self.pipe(client, server, Arc::clone(&alive));
        self.pipe(server2, client2, alive);
    }

    /// Forwards one direction: one thread reads and adds a due time, another one waits until that time and writes.
    fn pipe(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream, alive: Arc<Alive>) {
        type Queue = (Mutex<VecDeque<(Instant, Vec<u8>)>>, Condvar);
        let queue: Arc<Queue> = Arc::default();
        let (theirs, shared) = (Arc::clone(&queue), Arc::clone(self));
        thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = from.read(&mut buffer).unwrap_or(0);
                let mut waiting = theirs.0.lock().expect("no holder panics");
                waiting.push_back((Instant::now() + shared.delay, buffer[..count].to_vec()));
                theirs.1.notify_one();
                if count == 0 {
                    return;
                }
            }
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let _alive = alive;
            loop {
                let mut waiting = queue.0.lock().expect("no holder panics");
                while waiting.is_empty() {
                    waiting = queue.1.wait(waiting).expect("no holder panics");
                }
                let (due, bytes) = waiting.pop_front().expect("not empty");
                drop(waiting);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                while shared.frozen.load(Ordering::SeqCst) && !shared.ended.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(5));
                }
                if bytes.is_empty() || to.write_all(&bytes).is_err() {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            }
        });
    }
}
