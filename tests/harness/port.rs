//! Ports for servers that do not choose one themselves.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that are tried. Test programs that run at the same time begin at different ones.
const PORTS: Range<u32> = 10_000..32_000;

/// Returns a port that no program of this machine uses, each time another one, for a server that binds it a moment
/// later, or again and again. It lies below the ports that the kernel chooses by itself: no connection to anywhere takes
/// it meanwhile, and a client that tries to connect while the server is away does not connect to itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (room, first) = (end() - PORTS.start, std::process::id().wrapping_mul(7919));
    let mut numbers = (0..room).map(|_| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % room);
    let port = numbers.find_map(|n| {
        let port = u16::try_from(PORTS.start + n).expect("below 65536");
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    });
    port.expect("a free port")
}

/// Returns the end of the range: below the kernel's own ports, if there is room.
fn end() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("procfs");
    let lowest: u32 = range.split_whitespace().next().and_then(|port| port.parse().ok()).expect("a number");
    if lowest > PORTS.start + 1000 { PORTS.end.min(lowest) } else { PORTS.end }
}
