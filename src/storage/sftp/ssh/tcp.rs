//! The TCP connection under libssh2: a timeout for each address, no Nagle, and a kernel that notices a dead peer by itself.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustix::net::{RecvFlags, sockopt};

use super::config::HostConfig;
use super::options::SshOptions;

/// Idle time before the first probe; further probes follow at a third of it. Three lost probes end the connection.
const PROBE_AFTER: Duration = Duration::from_secs(30);

/// Connects to the first address that answers. The error is a few words without the host's name.
pub fn connect(config: &HostConfig, options: &SshOptions) -> Result<TcpStream, String> {
    let family = |address: &SocketAddr| match config.address_family.as_deref() {
        Some("inet") => address.is_ipv4(),
        Some("inet6") => address.is_ipv6(),
        _ => true,
    };
    let addresses = (config.hostname.as_str(), config.port).to_socket_addrs();
    let addresses = addresses.map_err(|e| format!("the name cannot be resolved ({e})"))?.filter(family);
    let mut last = "the name has no address".to_string();
    for address in addresses {
        match TcpStream::connect_timeout(&address, options.connect_timeout) {
            Ok(socket) => return tune(socket, options.io_timeout).map_err(|e| e.to_string()),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                last = format!("no answer within {} s", options.connect_timeout.as_secs_f32());
            }
            Err(e) => last = e.to_string(),
        }
    }
    Err(last)
}

fn tune(socket: TcpStream, io_timeout: Duration) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, PROBE_AFTER / 3)?;
    sockopt::set_tcp_keepcnt(&socket, 3)?;
    let millis = u32::try_from(io_timeout.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&socket, millis)?;
    Ok(socket)
}

/// Returns whether the other side has closed the connection, or it broke.
pub fn is_gone(socket: &TcpStream) -> bool {
    match rustix::net::recv(socket, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, count)) => count == 0,
        Err(e) => e != rustix::io::Errno::AGAIN && e != rustix::io::Errno::INTR,
    }
}
