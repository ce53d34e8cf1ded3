//! A TCP proxy that adds latency to loopback: every byte arrives `delay` milliseconds after it was sent, in both directions,
//! without a limit of bandwidth. Used by `scripts/bench.sh`: `cargo run --release --example delay_proxy -- LISTEN_PORT
//! TARGET_PORT DELAY_MS`. Prints the bytes of both directions (up, down) for each line on stdin.

use std::io::{BufRead, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Most buffers of up to 64 KiB in flight in one direction: 512 MiB, far above any window of a peer.
const UNDER_WAY: usize = 8192;

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>().expect("LISTEN_PORT TARGET_PORT DELAY_MS"));
    let mut next = || args.next().expect("LISTEN_PORT TARGET_PORT DELAY_MS");
    let (listen, target, delay) = (next() as u16, next() as u16, Duration::from_millis(next()));
    let counters = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let shown = Arc::clone(&counters);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines() {
            println!("{} {}", shown[0].load(Ordering::Relaxed), shown[1].load(Ordering::Relaxed));
        }
    });
    for client in TcpListener::bind(("127.0.0.1", listen)).expect("the port is free").incoming().flatten() {
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
        for (i, from, to) in [(0, &client, &server), (1, &server, &client)] {
            from.set_nodelay(true).ok();
            let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
            let counters = Arc::clone(&counters);
            std::thread::spawn(move || pump(from, to, delay, &counters[i]));
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, delay: Duration, count: &AtomicU64) {
    let (send, receive) = sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if send.send((Instant::now() + delay, buffer[..n].to_vec())).is_err() {
                break;
            }
        }
    });
    for (due, bytes) in receive {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
    reader.join().ok();
}
